"""The gate of the training pipeline with few lesions of a label: how often chance refuses a model that is as good.

    python tests/bench/bench_few.py                 # 400 simulated pairs of each kind, a quarter of an hour

Both models see the same signal, and each adds noise of its own, so they are equally good. One image a lesion. The gate
may refuse at most 2.5 %: `gate.FEWEST` is the number of lesions of each label from which this holds.
"""

import argparse

import numpy as np
from scipy.special import expit

from isicvision import Evaluation, comparison

KINDS = [
    (1, 30),
    (2, 30),
    (3, 30),
    (4, 30),
    (5, 30),
    (6, 30),
    (8, 30),
    (10, 30),
    (5, 5),
    (8, 8),
    (10, 10),
    (5, 15),
    (30, 5),
    (60, 200),
]


def is_refused(random, benign, malignant):
    """Compare two models that are equally good; return whether the first is found worse."""
    labels = np.repeat(["benign", "malignant"], [benign, malignant])
    signal = random.normal(size=len(labels)) + 1.5 * (labels == "malignant")
    noisy = [signal + np.sqrt(0.3 / 0.7) * random.normal(size=len(labels)) for _ in range(2)]
    found = comparison.compare(*(Evaluation.from_scores(labels, expit(each)) for each in noisy))
    return found["high"] < 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=400)
    repeats = parser.parse_args().repeats
    for benign, malignant in KINDS:
        seeds = ([seed, benign, malignant] for seed in range(repeats))
        share = np.mean([is_refused(np.random.default_rng(seed), benign, malignant) for seed in seeds])
        print(f"{benign:3} benign, {malignant:3} malignant lesions: {share:.1%} refused", flush=True)


if __name__ == "__main__":
    main()
