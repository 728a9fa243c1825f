"""Images per second of a download from the loopback double, isicvision and the archive's own isic-cli in turn.

2,000 synthetic images of 100 to 300 kB, 50 ms before every answer; the start of each client is included, server
and clients share the machine. Then each downloads once more what it has, and the requests for files are counted.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from double import Double, make_archive, peer


def run(command, double):
    """Run a client; return seconds, requests for files and peak of connections."""
    double.set(clear=True)
    started = time.perf_counter()
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=peer.environment(),
        timeout=1800,
    )
    seconds = time.perf_counter() - started
    if result.returncode:
        sys.exit(f"{command[0]} ended with {result.returncode}: {result.stderr[-2000:]}")
    return seconds, len(double.log("/images/ISIC")), double.state()["peak_files"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--latency", type=float, default=0.05)
    arguments = parser.parse_args()
    number = arguments.images
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        folder = make_archive(root / "archive", number)
        clients = {
            "isicvision, 32 connections": lambda url, to: peer.ours(url, to, 32),
            "isicvision, 8 connections": lambda url, to: peer.ours(url, to, 8),
        }
        try:
            command = peer.isic_cli(root / "target")
            clients["isic-cli, its defaults"] = lambda *_: command
            port = peer.PORT
        except RuntimeError as error:
            print(f"without isic-cli: {error}")
            port = 0
        times, again = {name: [] for name in clients}, {name: [] for name in clients}
        with Double(folder, port=port, latency=arguments.latency) as double:
            double.set(warm=True)
            for turn in range(arguments.rounds):
                order = [*clients][turn % len(clients) :] + [*clients][: turn % len(clients)]
                for name in order:
                    target = root / "target"
                    client = clients[name](double.url, target)
                    seconds, requests, peak = run(client, double)
                    came = {path.name: path.stat().st_size for path in target.rglob("ISIC_*.jpg")}
                    there = {path.name: path.stat().st_size for path in (folder / "images").iterdir()}
                    if came != there:
                        sys.exit(f"{name}: {len(came)} images came, not {number}, or other ones")
                    times[name].append(seconds)
                    again[name].append(run(client, double)[:2])
                    print(
                        f"round {turn + 1}, {name}: {seconds:.2f} s, {number / seconds:.0f} images/s, "
                        f"{requests} requests for files, up to {peak} at once; once more: "
                        f"{again[name][-1][0]:.2f} s, {again[name][-1][1]} requests for files",
                        flush=True,
                    )
                    shutil.rmtree(target)
    print()
    for name, seconds in times.items():
        rates = sorted(number / value for value in seconds)
        second = statistics.median(value for value, _ in again[name])
        print(
            f"{name}: {statistics.median(rates):.0f} images/s ({rates[0]:.0f} to {rates[-1]:.0f}), "
            f"once more {second:.2f} s with {max(count for _, count in again[name])} requests for files"
        )
    wide, narrow = times["isicvision, 32 connections"], times["isicvision, 8 connections"]
    bound = arguments.latency * number / 8
    print(f"8 connections: {statistics.median(narrow) / bound:.2f} times the latency bound of {bound:.2f} s")
    if theirs := times.get("isic-cli, its defaults"):
        for name, seconds in (("32", wide), ("8", narrow)):
            ratio = statistics.median(slow / fast for slow, fast in zip(theirs, seconds, strict=True))
            print(f"{name} connections: {ratio:.2f} times as fast as isic-cli (median of the rounds' ratios)")


if __name__ == "__main__":
    main()
