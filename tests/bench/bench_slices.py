"""Slices: how often `comparison.slices` flags values of a column that have nothing to do with the images.

    python tests/bench/bench_slices.py                 # 600 columns of each kind, three to four minutes
    python tests/bench/bench_slices.py --repeats 100

Simulated test sets, whose lesions have one to four images and whose column has values drawn at random; and the scores
that `bench_presets.py` kept (docs/measurements/presets), with the localization of HAM10000 dealt anew to the lesions.
Flagged is a column if any of its values is. Only 499 permutations: the rate is the same as with 1,999, which take four
times as long. Last, how often one slice of five is flagged that is really worse.
"""

import time
from pathlib import Path

import numpy as np
import pandas as pd
from bench_intervals import command_line, simulate
from scipy import stats
from scipy.special import expit

from isicvision import Evaluation, comparison

ROOT = Path(__file__).resolve().parents[2]
HAM10000 = ROOT.parent / "shared" / "data" / "ham10000_200x150" / "metadata.csv"
KINDS = {
    "ROC AUC, 5 slices of some 24 malignant lesions": (400, 5, 0.9, "roc_auc"),
    "ROC AUC 0.97, 5 slices of some 14": (240, 5, 0.97, "roc_auc"),
    "recall 0.95, 5 slices of some 24": (400, 5, 0.9, "recall"),
    "recall 0.95, 2 slices of some 60": (400, 2, 0.9, "recall"),
}
"""Lesions, slices, ROC AUC and metric."""


def deal(random, lesion, count, names=None):
    """Give each lesion a value at random: array, a value an image."""
    names = (
        random.integers(0, count, lesion.max() + 1).astype(str)
        if names is None
        else random.permutation(names)
    )
    return names[lesion]


def simulated(seed, lesions, count, area, metric, worse=0.0):
    """Return whether any of `count` slices of a simulated test set is flagged; the scores of the first are `worse`."""
    random = np.random.default_rng(seed)
    labels, scores, lesion = simulate(random, lesions, area=area)
    values = deal(random, lesion, count)
    if worse:
        noise = random.random(lesions)[lesion]
        scores = np.where(values == "0", (1 - worse) * scores + worse * noise, scores)
    threshold = truth(area) if metric == "recall" else None
    evaluation = Evaluation.from_scores(
        labels, scores, lesion, metadata=pd.DataFrame({"part": values}), threshold=threshold
    )
    return flagged(comparison.slices(evaluation, "part", metric))


def truth(area, recall=0.95):
    """Return the threshold at which `simulate` has this recall."""
    apart = np.sqrt(2) * stats.norm.ppf(area)
    return float(expit(1.5 * apart * (apart / 2 + stats.norm.ppf(1 - recall))))


def flagged(table):
    """Say whether any value is flagged."""
    return (table["verdict"] == "differs").any()


def real(seed, table):
    """Return whether localization, dealt anew to the lesions of kept scores, is flagged."""
    lesion, names = pd.factorize(table["lesion"])
    of_lesion = table.groupby("lesion")["localization"].first()[names].to_numpy()
    values = deal(np.random.default_rng(seed), lesion, None, of_lesion)
    labels = np.where(table["malignant"] == 1, "malignant", "benign")
    metadata = pd.DataFrame({"localization": values})
    evaluation = Evaluation.from_scores(labels, table["score"], table["lesion"], metadata=metadata)
    return flagged(comparison.slices(evaluation, "localization"))


def show(name, found, started):
    """Print a share with its interval."""
    low, high = stats.binomtest(int(np.sum(found)), len(found)).proportion_ci()
    print(
        f"{name}: {np.mean(found):.1%} of {len(found)} flagged [{low:.1%}, {high:.1%}], "
        f"{(time.perf_counter() - started) / len(found):.2f} s each",
        flush=True,
    )


def main():
    repeats = command_line(__doc__, 600).parse_args().repeats
    Evaluation.interval = lambda *_: (0.0, 1.0)  # half of the time, and of no use here
    comparison.PERMUTATIONS = 499
    print("columns of chance (goal 3 to 6 %)")
    for name, kind in KINDS.items():
        started = time.perf_counter()
        show(name, [simulated(seed, *kind) for seed in range(repeats)], started)
    kept = pd.read_csv(ROOT / "docs" / "measurements" / "presets" / "accurate-0.csv")
    if HAM10000.exists():
        kept = kept.merge(pd.read_csv(HAM10000), left_on="image", right_on="image_id")
        started = time.perf_counter()
        show(
            "real scores, localization dealt anew",
            [real(seed, kept) for seed in range(repeats // 6)],
            started,
        )
    print("\na slice whose scores are six tenths noise")
    started = time.perf_counter()
    show(
        next(iter(KINDS)),
        [simulated(seed, *KINDS[next(iter(KINDS))], worse=0.6) for seed in range(repeats // 6)],
        started,
    )


if __name__ == "__main__":
    main()
