"""Measure how fast the widgets open and respond with 7,006 real images, in the kernel and in a browser.

    python tests/bench/bench_widgets.py

The first part calls the widgets' classes. The second runs tests/browser/test_many.py, which needs Chromium: the time
from the start of the cell to its first page on the screen, and from the click on Next to the next page.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_settings import REAL, dataset

from isicvision import PROJECT_ROOT, Evaluation, widgets


def timed(name, function):
    """Print the duration of a call in seconds and return its result."""
    started = time.perf_counter()
    result = function()
    print(f"  {name:<42}{time.perf_counter() - started:6.2f} s", flush=True)
    return result


def main():
    if not REAL.is_dir():
        raise SystemExit(f"the real images are missing: {REAL}")
    images = dataset()
    random = np.random.default_rng(0)
    malignant = (images.table["label"] == "malignant").to_numpy()
    scores = np.clip(random.normal(0.4 + 0.2 * malignant, 0.15), 0, 1)
    evaluation = Evaluation.from_scores(images.table["label"], scores, metadata=images.table)
    print(f"in the kernel, {len(images)} images:")
    with tempfile.TemporaryDirectory() as folder:
        ui = timed("open AnnotationUI", lambda: widgets.AnnotationUI(images, Path(folder, "d.csv")))
        timed("next page, read ahead or not", lambda: ui.turn(1))
        timed("a decision", lambda: ui.press("2"))
        timed("another filter", lambda: setattr(ui.filter, "value", "malignant"))
    ui = timed("open ResultsUI", lambda: widgets.ResultsUI(evaluation))
    timed("next page", lambda: ui.turn(1))
    ui = timed("open PrecisionRecallUI (2,000 draws)", lambda: widgets.PrecisionRecallUI(evaluation))
    timed("a click on the curve", lambda: ui.click("roc", 0.3, 0.6))
    ui = timed("open ConfusionMatrixUI", lambda: widgets.ConfusionMatrixUI(evaluation))
    timed("a click on a cell", lambda: ui.show("malignant", "malignant"))
    ui = timed("open AugmentationUI", lambda: widgets.AugmentationUI(images))
    timed("a slider", lambda: setattr(ui.sliders["hair"], "value", 0.9))
    timed("open ParamsUI", widgets.ParamsUI)
    print("in the browser:", flush=True)
    command = "-m pytest -q -n 0 -s --durations=0 tests/browser/test_many.py"
    subprocess.run([sys.executable, *command.split()], cwd=PROJECT_ROOT, check=True)


if __name__ == "__main__":
    main()
