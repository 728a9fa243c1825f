"""A storm of faults: what isicvision and the archive's own isic-cli bring home, and how long it takes them.

Of the images, 10 % each answer 500, answer 429 with Retry-After of 1 or 2 s, reset the connection, end before
their Content-Length, or fall silent for a minute, once; 2 % answer 500 or 404 for ever. Three legs:

1. isicvision, killed (SIGKILL) when half has come, then the same call again; every image is compared with its source.
2. isicvision and isic-cli in the same storm, without a kill, with fewer images and a limit of time.
3. isicvision on a disk that is too small from the start, and on one that something else fills meanwhile; then it is
   enlarged, and the same call again (a tmpfs: needs root).
"""

import argparse
import collections
import contextlib
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from double import Double, make_archive, peer

KNOWN = {"metadata.csv", "attribution.txt", "licenses.txt", "source.json"}


def storm(folder, stall, seed):
    """Assign faults to the images of `folder`; return the rules and the ids that never come."""
    names = sorted(path.name for path in (folder / "images").iterdir())
    random.Random(seed).shuffle(names)
    tenth, last = len(names) // 10, max(2, len(names) // 50)
    kinds = [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 429, "retry_after": 1},
        {"kind": "reset"},
        {"kind": "cut"},
        {"kind": "stall", "seconds": stall},
    ]
    rules = []
    for kind in kinds:
        chosen, names = [f"/images/{name}" for name in names[:tenth]], names[tenth:]
        if "retry_after" in kind:
            rules.append({**kind, "times": 1, "retry_after": 2, "paths": chosen[::2]})
            chosen = chosen[1::2]
        rules.append({**kind, "times": 1, "paths": chosen})
    dead = names[:last]
    rules.append({"kind": "status", "status": 500, "paths": [f"/images/{name}" for name in dead[::2]]})
    rules.append({"kind": "status", "status": 404, "paths": [f"/images/{name}" for name in dead[1::2]]})
    return rules, {Path(name).stem for name in dead}


def images(folder):
    """List the images that are there by name; a file that is being written has another name."""
    return {path.stem: path for path in folder.rglob("ISIC_*.jpg") if not path.name.startswith(".")}


def run(command, limit, kill_when=None):
    """Run a client; return seconds, status ("killed", "too long" or a number), and its two outputs."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as out,
        tempfile.TemporaryFile("w+", encoding="utf-8") as errors,
    ):
        started = time.perf_counter()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors, env=peer.environment()
        )
        status = None
        while status is None and process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.1)
            if time.perf_counter() - started > limit:
                status = "too long"
            elif kill_when and kill_when():
                status = "killed"
        if status:
            process.kill()
        process.wait()
        seconds = time.perf_counter() - started
        out.seek(0), errors.seek(0)
        return seconds, process.returncode if status is None else status, out.read(), errors.read()


def compare(folder, archive, dead):
    """Count what is on the disk against the source."""
    source = {path.stem: path for path in (archive / "images").iterdir()}
    came = images(folder)
    same = {name for name, path in came.items() if path.read_bytes() == source[name].read_bytes()}
    others = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    others = {name for name in others if Path(name).stem not in source} - KNOWN
    left = sorted(name for name in others if any(word in name for word in ("part", "tmp", "temp")))
    return {
        "on disk": len(came),
        "identical to the source": len(same),
        "damaged": len(came) - len(same),
        "lost, though they could be had": len(source.keys() - same - dead),
        "temporary files left": len(left),
        "other files": " ".join(sorted(others - {*left})[:5]) or "none",
    }


def agreement(folder, report):
    """Say whether metadata.csv and the report name what is on the disk."""
    came = images(folder)
    with contextlib.suppress(OSError, KeyError):
        with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
            rows = [row["file"] for row in csv.DictReader(file)]
        listed = sorted(rows) == sorted(str(path.relative_to(folder)) for path in came.values())
        said = {*report["fetched"], *report["present"]} == came.keys()
        return {"metadata.csv names what is on disk": listed, "the report as well": said}
    return {"metadata.csv names what is on disk": "no metadata.csv", "the report as well": report != {}}


def twice(log, before_kill=()):
    """Count the images whose whole body was sent more than once, and those of them that the kill excuses.

    A kill loses what had been sent, or was being sent, but had not got its name yet: `before_kill`.
    """
    whole = collections.Counter(
        entry["path"]
        for entry in log
        if entry["port"] == "files" and entry["method"] == "GET" and entry["status"] == 200 and entry["whole"]
    )
    again = [Path(path).stem for path, count in whole.items() if count > 1]
    return {
        "fetched whole more than once": len([name for name in again if name not in before_kill]),
        "the same, lost to the kill": len([name for name in again if name in before_kill]),
    }


def report_of(output):
    with contextlib.suppress(ValueError, IndexError):
        return json.loads(output.strip().splitlines()[-1])
    return {}


def said_of(code, out, errors):
    """Shorten what the client said: its reasons, or the end of its traceback."""
    report = report_of(out)
    return (
        reasons(report) if report else f"status {code}: {' / '.join(errors.strip().splitlines()[-3:])[-400:]}"
    )


def show(title, facts):
    print(f"\n{title}")
    for name, value in facts.items():
        print(f"  {name:<36}{value:.1f}" if isinstance(value, float) else f"  {name:<36}{value}")
    sys.stdout.flush()


def reasons(report):
    """Shorten the report's reasons to their first words, with how often each came."""
    counts = collections.Counter(str(reason)[-60:] for _, reason in report.get("failed", []))
    return "; ".join(f"{count} x …{text}" for text, count in counts.most_common(3)) or "none"


def killed(root, arguments):
    archive, folder = make_archive(root / "archive", arguments.images), root / "killed"
    rules, dead = storm(archive, arguments.stall, arguments.seed)
    with Double(archive, latency=arguments.latency, faults=rules) as double:
        client = peer.ours(double.url, folder, arguments.connections, arguments.timeout)
        half = arguments.images // 2
        first, status, _, _ = run(client, arguments.limit, lambda: len(images(folder)) >= half)
        kept = len(images(folder))
        lost = {Path(e["path"]).stem for e in double.log("/images/ISIC")} - images(folder).keys()
        second, code, out, errors = run(client, arguments.limit)
        log, state = double.log(), double.state()
    report = report_of(out)
    failed = {name for name, _ in report.get("failed", [])}
    show(
        f"1. storm with {arguments.images} images, killed halfway, {arguments.connections} connections",
        {
            "first call": f"{first:.1f} s, {status}, {kept} images kept",
            "second call": f"{second:.1f} s, status {code}",
            "seconds, both": first + second,
            **compare(folder, archive, dead),
            "reported as failed": len(failed),
            "of those that never come": f"{len(dead & failed)} of {len(dead)}",
            "reasons": reasons(report),
            **agreement(folder, report),
            **twice(log, lost),
            "requests for files": len([entry for entry in log if entry["port"] == "files"]),
            "at once, at most": state["peak_files"],
            "bytes sent, of the source's": f"{state['bytes_sent'] / weight(archive):.3f}",
            **({} if report else {"it said": errors.strip()[-600:]}),
        },
    )
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(archive)


def weight(archive):
    return sum(path.stat().st_size for path in (archive / "images").iterdir())


def beside(root, arguments):
    archive, times = make_archive(root / "archive", arguments.peer_images), {}
    rules, dead = storm(archive, arguments.stall, arguments.seed)
    clients = {"isicvision": lambda url, to: peer.ours(url, to, arguments.connections, arguments.timeout)}
    port = 0
    try:
        command = peer.isic_cli(root / "isic-cli")
        clients["isic-cli"], port = lambda *_: command, peer.PORT
    except RuntimeError as error:
        print(f"\nwithout isic-cli: {error}")
    with Double(archive, port=port) as double:
        double.set(warm=True)
        for name, client in clients.items():
            double.set(clear=True, latency=arguments.latency, faults=rules)
            folder = root / name
            started = time.time()
            seconds, code, out, errors = run(client(double.url, folder), arguments.limit)
            times[name] = seconds
            came = [e for e in double.log("/images/ISIC") if e["whole"] and e["status"] in (200, 206)]
            last = max((e["time"] + e["seconds"] for e in came), default=started)
            report = report_of(out)
            facts = compare(folder, archive, dead) | {"status": code}
            if name == "isicvision":
                facts |= agreement(folder, report) | {"reasons": reasons(report)}
            else:
                facts["metadata.csv"] = (folder / "metadata.csv").exists()
                facts["it said"] = " / ".join((out + errors).split("\n"))[-400:].strip()
            show(
                f"2. the same storm with {arguments.peer_images} images: {name}",
                {
                    "seconds": seconds,
                    "seconds to the last image": last - started,
                    **facts,
                    **twice(double.log()),
                },
            )
            shutil.rmtree(folder, ignore_errors=True)
    if len(times) > 1:
        ratio = times["isic-cli"] / times["isicvision"]
        words = "at least " if times["isic-cli"] >= arguments.limit else ""
        print(f"\nisic-cli took {words}{ratio:.1f} times as long (each was given {arguments.limit:.0f} s)")
    shutil.rmtree(archive)


def full_disk(root, arguments):
    archive = make_archive(root / "archive", min(arguments.images, 200))
    disk, need, source = root / "disk", weight(archive), images(archive)
    disk.mkdir()
    size = f"size={int(need * 0.6)}"
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "none", str(disk)], capture_output=True, text=True
    )
    if os.geteuid() or mount.returncode:
        print(f"\n3. full disk: left out, no tmpfs can be mounted here: {mount.stderr.strip()}")
        return
    try:
        with Double(archive, latency=arguments.latency) as double:
            client = peer.ours(double.url, disk / "data", arguments.connections, arguments.timeout)
            small = said_of(*run(client, arguments.limit)[1:])
            early = len(images(disk / "data"))
            subprocess.run(["mount", "-o", f"remount,size={need * 2}", str(disk)], check=True)
            filled = []

            def fill():  # when a third has come
                if not filled and len(images(disk / "data")) >= early + len(source) // 3:
                    filled.append(True)
                    with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as file:
                        while file.write(bytes(2**16)):
                            pass

            seconds, *outcome = run(client, arguments.limit, fill)
            kept, middle = len(images(disk / "data")), compare(disk / "data", archive, set())
            asked = len(double.log("/images/ISIC"))
            lost = {Path(e["path"]).stem for e in double.log("/images/ISIC")} - images(disk / "data").keys()
            subprocess.run(["mount", "-o", f"remount,size={need * 4}", str(disk)], check=True)
            again, last, out, _ = run(client, arguments.limit)
            log = double.log()
        show(
            f"3. a full disk, {len(source)} images",
            {
                "too small from the start": f"{early} kept; {small}",
                "filled meanwhile": f"{seconds:.1f} s, status {outcome[0]}, {kept} kept, {asked} requests for files",
                "it said": said_of(*outcome),
                "damaged, temporary files, then": f"{middle['damaged']}, {middle['temporary files left']}",
                "enlarged": f"{again:.1f} s, status {last}",
                **compare(disk / "data", archive, set()),
                **agreement(disk / "data", report_of(out)),
                **{name.replace("kill", "full disk"): value for name, value in twice(log, lost).items()},
            },
        )
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--peer-images", type=int, default=300)
    parser.add_argument("--limit", type=float, default=600, help="seconds that one call may take")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--stall", type=float, default=60, help="seconds of silence; isic-cli waits 15")
    parser.add_argument(
        "--timeout", type=float, default=0, help="seconds that isicvision waits; 0: its default"
    )
    parser.add_argument("--latency", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--legs", default="123")
    arguments = parser.parse_args()
    print("images: synthetic, 100 to 300 kB; seed", arguments.seed)
    for number, leg in (("1", killed), ("2", beside), ("3", full_disk)):
        if number in arguments.legs:
            with tempfile.TemporaryDirectory() as temporary:
                leg(Path(temporary), arguments)


if __name__ == "__main__":
    main()
