"""Measure the map of 7,006 real images by the features of EfficientNet-Lite0: seconds, and what neighbors share.

    python tests/bench/bench_map.py docs/measurements/map | tee docs/measurements/benchmarks/map.txt

Into the folder, if one is given, go the maps by label and by how the diagnosis was confirmed, without any image. The
features come from the cache (tests/bench/bench_features.py times them), the map is computed anew. t-SNE runs on one
core: on a busy machine its processor time says more than its wall clock time.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from bench_settings import REAL, dataset

from isicvision import ImageClassifier, featuremap, plots


def timed(name, function):
    """Print the wall clock and the processor time of a call in seconds and return its result."""
    started, busy = time.perf_counter(), time.process_time()
    result = function()
    wall, busy = time.perf_counter() - started, time.process_time() - busy
    print(f"  {name:<44}{wall:6.1f} s, processor {busy:6.1f} s", flush=True)
    return result


def main():
    if not REAL.is_dir():
        raise SystemExit(f"the real images are missing: {REAL}")
    images = dataset()
    features = ImageClassifier("efficientnet_lite0", images.labels).featurize(images)
    print(f"{len(images):,} images, features of shape {features.shape}")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["ISICVISION_CACHE"] = cache
        timed("t-SNE (goal: under 60 s on 2 cores)", lambda: featuremap.places(images, features))
        timed("t-SNE, from the cache", lambda: featuremap.places(images, features))
        found = timed("purity of all columns", lambda: featuremap.purity(images, features))
        print(f"{found}\n\n{found.table.round(3).to_string(index=False)}")
        for column in ("label", "dx_type"):
            for folder in map(Path, sys.argv[1:]):
                folder.mkdir(parents=True, exist_ok=True)
                plots.save(plots.map(images, features, column), folder / f"{column}.png")


if __name__ == "__main__":
    main()
