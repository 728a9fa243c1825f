"""Intervals over lesions: how fast, and how often they hold the truth.

    python tests/bench/bench_intervals.py                 # speed, then 1,000 simulated test sets of each kind
    python tests/bench/bench_intervals.py --repeats 100   # in a tenth of the quarter of an hour
    python tests/bench/bench_intervals.py --more          # kinds with very few lesions, and with many
    python tests/bench/bench_intervals.py --rare --repeats 200    # 10, 30 and 80 malignant lesions, figures up to 0.98
    python tests/bench/bench_intervals.py --lesions  # one answer a lesion: Evaluation.by_group

Speed: 2,000 draws of ROC AUC for 10,000 predictions, against a loop over scikit-learn's with the same weights.

Coverage: test sets of lesions with one to four images each, whose true figures are known from 300,000 lesions; how
often a 95 % interval of the bootstrap over lesions holds the truth, and how often that of one over images does.
Every metric counts images, so the truth does: in the large set too a lesion has one to four. An interval that is not
defined (a precision where nothing was called malignant) is left out. With --lesions, metrics, intervals and truth are
those of one answer a lesion, and where each lesion has one image they must equal those of the images.
"""

import argparse
import time

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from isicvision import Evaluation, decisions, metrics
from isicvision.evaluation import intervals

IMAGES, LESIONS, LOOP = 10_000, 6_000, 100
LARGE = 300_000
KINDS = [(150, 0.2, 0.8, 0.9), (150, 0.5, 0.3, 0.75), (150, 0.5, 0.8, 0.97), (300, 0.3, 0.8, 0.9)]
MORE = [(60, 0.5, 0.3, 0.9), (60, 0.2, 0.8, 0.9), (150, 0.2, 0.8, 0.97), (600, 0.2, 0.8, 0.75)]
"""Lesions, share of malignant ones, correlation of images of one lesion, ROC AUC."""
RARE = ("recall", "specificity", "npv", "roc_auc")


def speed():
    random = np.random.default_rng(0)
    positive = random.random(IMAGES) < 0.2
    scores = np.clip(random.normal(0.4 + 0.2 * positive, 0.15), 0, 1)
    groups = random.integers(0, LESIONS, IMAGES)
    labels = np.where(positive, "malignant", "benign")
    seconds, ratios = [], []
    for _ in range(5):
        started = time.perf_counter()
        evaluation = Evaluation.from_scores(labels, scores, groups)
        low, high = evaluation.interval("roc_auc")
        seconds.append(time.perf_counter() - started)

        rows, numbers = evaluation.rows_by_group
        weights = np.concatenate([*metrics.draws(numbers, LOOP)])
        started = time.perf_counter()
        areas = [roc_auc_score(positive[rows], scores[rows], sample_weight=row) for row in weights]
        ratios.append((time.perf_counter() - started) * metrics.RESAMPLES / LOOP / seconds[-1])
    print(
        f"{metrics.RESAMPLES} draws of ROC AUC, {IMAGES:,} predictions: {np.median(seconds):.2f} s (goal 1.5); "
        f"[{low:.4f}, {high:.4f}]; the first {LOOP} draws are scikit-learn's within "
        f"{np.abs(evaluation.draws('roc_auc')[:LOOP] - areas).max():.0e}"
    )
    print(f"a loop over scikit-learn takes {np.median(ratios):.0f} times as long (goal 20)")
    started = time.perf_counter()
    evaluation.metrics()
    print(f"all {len(metrics.METRICS)} metrics with their intervals: {time.perf_counter() - started:.1f} s")


def simulate(random, lesions, malignant=0.3, correlation=0.8, area=0.9):
    """Draw lesions with one to four images: labels, scores and lesions of the images.

    Behind the score is a normal variable, of the same variance for both labels, of which the images of one lesion
    share a part; the score itself is too sure, as that of a network.
    """
    images = random.integers(1, 5, lesions)
    sick = random.random(lesions) < malignant
    lesion = np.repeat(np.arange(lesions), images)
    shared, own = random.normal(size=lesions)[lesion], random.normal(size=len(lesion))
    apart = np.sqrt(2) * stats.norm.ppf(area)
    signal = apart * sick[lesion] + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own
    scores = expit(1.5 * apart * (signal - apart / 2))
    return np.where(sick, "malignant", "benign")[lesion], scores, lesion


def coverage(repeats, kind, by_lesion=False):
    started = time.process_time()
    large = Evaluation.from_scores(*simulate(np.random.default_rng(10**6), LARGE, *kind[1:]))
    large = large.by_group() if by_lesion else large
    truth = pd.Series({name: large.metric(name) for name in metrics.METRICS})
    held = {}
    for seed in range(repeats):
        labels, scores, lesions = simulate(np.random.default_rng(seed), *kind)
        ways = {"over lesions": Evaluation.from_scores(labels, scores, lesions)}
        if by_lesion:
            ways = {"per lesion": ways["over lesions"].by_group()}
        else:
            ways["over images"] = Evaluation.from_scores(labels, scores)
        for way, evaluation in ways.items():
            table = evaluation.metrics()
            inside = (table["low"] <= truth) & (truth <= table["high"])
            held.setdefault(way, []).append(inside.where(table["low"].notna()))
    share = pd.DataFrame({way: pd.concat(each, axis=1).mean(axis=1) for way, each in held.items()})
    print(
        "\n{} lesions, {:.0%} malignant, correlation {}, ROC AUC {}: ".format(*kind)
        + f"{repeats} sets in {time.process_time() - started:.0f} s of processor time"
    )
    print(pd.concat([truth.map("{:.3f}".format).rename("truth"), share.map("{:.1%}".format)], axis=1))


def singletons():
    labels, scores, lesions = simulate(np.random.default_rng(0), 300)
    first = np.unique(lesions, return_index=True)[1]
    alone = Evaluation.from_scores(labels[first], scores[first], lesions[first])
    same = "equal" if alone.by_group().metrics().equals(alone.metrics()) else "DIFFER from"
    print(f"300 lesions with one image each: figures and intervals per lesion {same} those per image")


def rare(repeats):
    """Print how often the intervals of figures near 1 hold the truth, with few malignant lesions."""
    print(
        f"95 % intervals that hold the truth, of {repeats} sets; in brackets by the bootstrap alone (goal 93 to 98 %)"
    )
    print("malignant lesions, true figure: " + ", ".join(RARE))
    for malignant, benign in ((10, 50), (30, 120), (80, 320)):
        for value in (0.8, 0.9, 0.95, 0.98):
            shares = []
            for name in RARE:
                held = [covers(seed, malignant, benign, name, value) for seed in range(repeats)]
                shares.append("{:5.1%} ({:5.1%})".format(*np.nanmean(held, axis=0)))
            print(f"{malignant:3} {value:.2f}: " + "  ".join(shares), flush=True)


def covers(seed, malignant, benign, name, value):
    """Say whether the interval, and that of the bootstrap alone, hold the truth: two of 0 or 1, NaN if undefined.

    The true recall, specificity or ROC AUC is `value`; that of npv follows from a recall of `value`.
    """
    random = np.random.default_rng([seed, malignant])
    count = malignant + benign
    lesion = np.repeat(np.arange(count), random.integers(1, 5, count))
    sick = lesion < malignant
    shared, own = random.normal(size=count)[lesion], random.normal(size=len(lesion))
    apart = np.sqrt(2) * stats.norm.ppf(value if name == "roc_auc" else 0.9)
    at = stats.norm.ppf(value) if name == "specificity" else apart - stats.norm.ppf(value)
    scores = expit(apart * sick + np.sqrt(0.8) * shared + np.sqrt(0.2) * own - at)
    evaluation = Evaluation.from_scores(np.where(sick, "malignant", "benign"), scores, lesion, threshold=0.5)
    well = benign * stats.norm.cdf(at)
    truth = well / (well + malignant * (1 - value)) if name == "npv" else value
    figure = evaluation.metric(name)
    if np.isnan(figure):
        return np.nan, np.nan
    alone = intervals.interval(figure, evaluation.draws(name), evaluation.jackknife(name))
    return tuple(float(low <= truth <= high) for low, high in (evaluation.interval(name), alone))


def thresholds(repeats, lesions, sensitivity=0.9):
    both = alone = 0
    for seed in range(repeats):
        random = np.random.default_rng([seed, 1])
        validation, test = (Evaluation.from_scores(*simulate(random, lesions)) for _ in range(2))
        threshold, table = decisions.at_sensitivity(validation, test, sensitivity)
        both += table.loc["recall", "low"] <= sensitivity <= table.loc["recall", "high"]
        low, high = test.at(threshold).interval("recall")
        alone += low <= sensitivity <= high
    print(
        f"\na threshold chosen on {lesions} validation lesions for sensitivity {sensitivity}: inside the interval on "
        f"as many test lesions {both / repeats:.1%} (goal 93 %); inside one that takes the threshold for given "
        f"{alone / repeats:.1%}",
        flush=True,
    )


def command_line(text, repeats):
    """Return a parser with the help `text` and the option --repeats."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=repeats)
    return parser


def main():
    parser = command_line(__doc__, 1000)
    parser.add_argument("--more", action="store_true")
    parser.add_argument("--rare", action="store_true")
    parser.add_argument("--lesions", action="store_true")
    arguments = parser.parse_args()
    if arguments.rare:
        return rare(arguments.repeats)
    if arguments.lesions:
        singletons()
    elif not arguments.more:
        speed()
        for lesions in (150, 300):
            thresholds(arguments.repeats, lesions)
    print("\n95 % intervals that hold the truth (goal 93 to 97 %)", flush=True)
    for kind in MORE if arguments.more else KINDS:
        coverage(arguments.repeats, kind, arguments.lesions)


if __name__ == "__main__":
    main()
