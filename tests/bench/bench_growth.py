"""How time, memory and disk grow with the number of images and of processes, on HAM10000 reduced to 200x150.

    python tests/bench/bench_growth.py --write   # 20 minutes on two cores; needs the extra `ray`

* ``train``: an epoch of the preset ``fast`` by torchrun, every image decoded before;
* ``features`` and ``scores``: code/02_modeling/score_archive.py, from files to Parquet, with the model of that preset
  (untrained: the time is the same).

Each process has one thread, so that two compare with one; a machine of two cores has no third for the process that
coordinates. ``seconds`` are those of the work, for Ray with the start of its workers, ``whole`` those of the command,
with the start of Python, Ray and torchrun and the export to ONNX. Memory is the peak of the sum over all processes,
with what they share counted once (Linux's PSS). --write puts the rows into docs/measurements/growth.csv, from which
docs/howto/many_images.md plans.
"""

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from bench_data_path import REAL, ham10000

from isicvision import PROJECT_ROOT, ImageClassifier, ImageDataset
from isicvision.data import cache

TARGET = PROJECT_ROOT / "docs" / "measurements" / "growth.csv"
SIZES = (1000, 3000, 7000)
WORKS = ("train", "features", "scores")
KEYS = ["work", "images", "processes"]
SCRIPT = PROJECT_ROOT / "code" / "02_modeling" / "score_archive.py"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def some(count):
    """Return `count` images, the same share of each label as of all (`sample` would take equal numbers)."""
    dataset = ham10000()
    return dataclasses.replace(dataset, table=dataset.table.sample(count, random_state=0))


def train(table):
    """Train for an epoch, in each process that torchrun started; print the seconds."""
    dataset = ImageDataset.load(table)
    model = ImageClassifier.from_preset("fast", dataset.labels)
    history = model.fit(dataset, epochs=1, precision="fp32", progress=False)
    if os.environ["RANK"] == "0":
        print(f"{len(dataset)} images in {history.table['seconds'].sum():.1f} s")


def measured(command, decoded):
    """Run a command; return its seconds of work, of all, and its peak of memory in MiB."""
    environment = os.environ | {"ISICVISION_CACHE": str(decoded), "OMP_NUM_THREADS": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
    started, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
        with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment) as process:
            while process.poll() is None:
                peak = max(peak, memory(psutil.Process(process.pid)))
                time.sleep(1)
        output.seek(0)
        said = output.read()
    if process.returncode:
        sys.exit(said[-3000:])
    return (
        float(re.search(r"images in ([\d.]+) s", said)[1]),
        time.perf_counter() - started,
        peak / 2**20,
    )


def memory(process):
    """Return the bytes that a process and its descendants have in memory."""
    total = 0
    try:
        for each in [process, *process.children(recursive=True)]:
            try:
                total += each.memory_full_info().pss
            except psutil.Error:  # it has just ended
                pass
    except psutil.Error:
        pass
    return total


def size(folder):
    """Return the MB of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def write(rows):
    """Put rows into the table of all, in place of earlier ones of the same work."""
    table = pd.DataFrame(rows)
    if TARGET.exists():
        table = pd.concat([pd.read_csv(TARGET), table]).drop_duplicates(KEYS, keep="last")
    table["order"] = table["work"].map(WORKS.index)
    table.sort_values(["order", *KEYS]).drop(columns="order").to_csv(TARGET, index=False)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="*", default=SIZES)
    parser.add_argument("--works", nargs="*", choices=WORKS, default=WORKS)
    parser.add_argument("--write", action="store_true", help="into docs/measurements/growth.csv")
    parser.add_argument("--train", help=argparse.SUPPRESS)  # what torchrun starts
    arguments = parser.parse_args()
    if arguments.train:
        return train(arguments.train)
    try:
        import ray  # noqa: F401
    except ModuleNotFoundError:
        sys.exit(print('skipped: Ray is not installed: pip install -c constraints.txt -e ".[ray]"'))
    if not REAL.is_dir():
        sys.exit(print(f"skipped: there are no real images in {REAL}"))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = ImageClassifier.from_preset("fast", ham10000().labels)
        saved, sides = model.save(folder / "model"), (128, model.backbone.interpolation)
        for count in arguments.images:
            dataset = some(count)
            table, decoded = dataset.save(folder / f"{count}.csv"), folder / f"cache-{count}"
            os.environ["ISICVISION_CACHE"] = str(decoded)
            cache.Images(dataset.paths, *sides)  # which the training reads
            for work in arguments.works:
                if work == "scores" and count == SIZES[1]:  # they take four times as long as features
                    continue
                for processes in (1, 2):
                    results = folder / f"{work}-{count}-{processes}"
                    command = [*TORCHRUN, str(processes), __file__, "--train", str(table)]
                    if work != "train":
                        command = [sys.executable, SCRIPT, "--model", saved, "--table", table]
                        command += ["--to", results, "--workers", str(processes)]
                        command += ["--features"] * (work == "features")
                    seconds, whole, peak = measured(command, decoded)
                    disk = size(decoded if work == "train" else results)
                    row = {"work": work, "images": count, "processes": processes}
                    row |= {"seconds": round(seconds, 1), "per_second": round(count / seconds, 1)}
                    row |= {"whole": round(whole, 1), "memory_mib": round(peak), "disk_mb": round(disk, 1)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)
                    if arguments.write:
                        write(rows)
    print(pd.DataFrame(rows).to_string(index=False))


if __name__ == "__main__":
    main()
