"""How much memory a training on all real images takes, at 224 px and minibatches of 32 with `dermoscopy()`.

    python tests/bench/bench_memory.py                       # an epoch of each network on 7,006 images: minutes
    python tests/bench/bench_memory.py --networks resnet18 --seconds 120   # stop after so much training
    python tests/bench/bench_memory.py --accumulate 2        # each minibatch as two of 16
    python tests/bench/bench_memory.py --images 640        # of fewer, for the time of a whole epoch

Prints the peak of this process: of all its memory, and without what it shares or could drop at once, the mapped pages
of the image cache (psutil's rss, and uss); before that, where an epoch came to its end, the seconds it took.
"""

import argparse
import subprocess
import sys
import time

import psutil
from bench_settings import REAL, dataset

from isicvision import ImageClassifier, augment_dataset, augmentation


def train(network, accumulate, count):
    """Train one epoch; random weights will do, they take as much room."""
    images = dataset().sample(count, balanced=True) if count else dataset()
    model = ImageClassifier(network, images.labels, weights=None, image_size=224)
    shown = augment_dataset(images, [augmentation.dermoscopy()])
    settings = {"batch_size": 32, "accumulate": accumulate, "learning_rate": 0.001, "precision": "fp32"}
    history = model.fit(shown, epochs=1, progress=False, **settings)
    print(f"an epoch of {len(images)} images: {history.table['seconds'].sum():.1f} s", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["efficientnet_lite0", "resnet18"])
    parser.add_argument("--seconds", type=float, default=3600, help="longest time of each, decoding included")
    parser.add_argument("--accumulate", type=int, default=1, help="parts of each minibatch")
    parser.add_argument("--images", type=int, default=0, help="default: all")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not REAL.is_dir():
        raise SystemExit(f"no real images: {REAL} is not there")
    if options.train:
        return train(options.train, options.accumulate, options.images)
    for network in options.networks:
        started, peak = time.monotonic(), {"rss": 0, "uss": 0}
        given = ["--accumulate", str(options.accumulate), "--images", str(options.images)]
        process = subprocess.Popen([sys.executable, "-W", "ignore", __file__, "--train", network, *given])
        watched = psutil.Process(process.pid)
        while process.poll() is None and time.monotonic() - started < options.seconds:
            try:
                now = [each.memory_full_info() for each in (watched, *watched.children(recursive=True))]
            except psutil.NoSuchProcess:
                continue
            peak = {name: max(most, sum(getattr(each, name) for each in now)) for name, most in peak.items()}
            time.sleep(0.5)
        seconds = time.monotonic() - started
        if process.poll() is None:
            process.terminate()
            process.wait()
        elif process.returncode:
            raise SystemExit(f"{network}: the training failed")
        print(
            f"{network}, accumulate={options.accumulate}: "
            + ", ".join(f"{name} {most / 2**30:.2f} GiB" for name, most in peak.items()),
            end="",
        )
        print(f", {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
