"""Intervals over lesions: how fast, and how often they hold the truth.

    python tests/bench/bench_intervals.py                 # speed, then 1,000 simulated test sets; some minutes
    python tests/bench/bench_intervals.py --repeats 100

Speed: 2,000 draws of ROC AUC for 10,000 predictions, against a loop over scikit-learn's with the same weights.

Coverage: test sets of 300 lesions with one to four pictures each, whose true figures are known from 300,000 lesions;
how often a 95 % interval of the bootstrap over lesions holds the truth, and how often that of one over pictures does.
"""

import argparse
import time

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from isicvision import Evaluation, decisions, metrics

PICTURES, LESIONS, LOOP = 10_000, 6_000, 100
NAMES = ("roc_auc", "accuracy", "recall", "specificity", "average_precision", "brier")


def speed():
    random = np.random.default_rng(0)
    positive = random.random(PICTURES) < 0.2
    scores = np.clip(random.normal(0.4 + 0.2 * positive, 0.15), 0, 1)
    groups = random.integers(0, LESIONS, PICTURES)
    labels = np.where(positive, "malignant", "benign")
    seconds, ratios = [], []
    for _ in range(5):
        started = time.perf_counter()
        evaluation = Evaluation.from_scores(labels, scores, groups)
        low, high = evaluation.interval("roc_auc")
        seconds.append(time.perf_counter() - started)

        weights = np.concatenate([*metrics.draws(np.unique(groups, return_inverse=True)[1], resamples=LOOP)])
        started = time.perf_counter()
        areas = [roc_auc_score(positive, scores, sample_weight=row) for row in weights]
        ratios.append((time.perf_counter() - started) * metrics.RESAMPLES / LOOP / seconds[-1])
    print(
        f"{metrics.RESAMPLES} draws of ROC AUC, {PICTURES:,} predictions: {np.median(seconds):.2f} s (goal 1.5); "
        f"[{low:.4f}, {high:.4f}], the first {LOOP} draws by scikit-learn "
        "[{:.4f}, {:.4f}]".format(*np.quantile(areas, [0.025, 0.975]))
    )
    print(f"a loop over scikit-learn takes {np.median(ratios):.0f} times as long (goal 20)")
    started = time.perf_counter()
    evaluation.metrics()
    print(f"all {len(metrics.METRICS)} metrics with their intervals: {time.perf_counter() - started:.1f} s")


def simulate(random, lesions):
    """Draw lesions with one to four pictures, whose scores resemble each other, and more so the more there are."""
    pictures = random.integers(1, 5, lesions)
    sick = random.random(lesions) < 0.3
    lesion = np.repeat(np.arange(lesions), pictures)
    signal = 1.1 * sick + random.normal(0, 0.9, lesions)
    scores = stats.norm.cdf(signal[lesion] - 0.55 + random.normal(0, 0.4, len(lesion)))
    return np.where(sick, "malignant", "benign")[lesion], scores, lesion.astype(str)


def coverage(repeats, lesions=300):
    truth = Evaluation.from_scores(*simulate(np.random.default_rng(10**6), 300_000)[:2])
    truth = {name: truth.metric(name) for name in NAMES}
    held = {way: dict.fromkeys(NAMES, 0) for way in ("lesions", "pictures")}
    for seed in range(repeats):
        labels, scores, groups = simulate(np.random.default_rng(seed), lesions)
        for way, evaluation in (
            ("lesions", Evaluation.from_scores(labels, scores, groups)),
            ("pictures", Evaluation.from_scores(labels, scores)),
        ):
            for name in NAMES:
                low, high = evaluation.interval(name)
                held[way][name] += low <= truth[name] <= high
    print(
        f"95 % intervals that hold the truth, of {repeats} simulated sets of {lesions} lesions (goal 93 to 97 %):"
    )
    for name in NAMES:
        over = ", ".join(f"over {way} {held[way][name] / repeats:.1%}" for way in held)
        print(f"  {name} (true {truth[name]:.3f}): {over}")


def thresholds(repeats, sensitivity=0.9, lesions=300):
    both = alone = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 1])
        validation, test = (Evaluation.from_scores(*simulate(random, lesions)) for _ in range(2))
        threshold, table = decisions.at_sensitivity(validation, test, sensitivity)
        both += table.loc["recall", "low"] <= sensitivity <= table.loc["recall", "high"]
        low, high = test.at(threshold).interval("recall")
        alone += low <= sensitivity <= high
    print(
        f"a threshold chosen on validation for sensitivity {sensitivity}: inside the interval on test "
        f"{both / repeats:.1%} (goal 93 %); inside one that takes the threshold for given {alone / repeats:.1%}"
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1000)
    repeats = parser.parse_args().repeats
    speed()
    coverage(repeats)
    thresholds(repeats)


if __name__ == "__main__":
    main()
