"""Bootstrap intervals of all metrics over lesions, against a loop over scikit-learn's ROC AUC alone."""

import time

import numpy as np
from sklearn.metrics import roc_auc_score

from isicvision import Evaluation

PICTURES, LESIONS, DRAWS = 1400, 1000, 1000


def main():
    random = np.random.default_rng(0)
    positive = random.random(PICTURES) < 0.2
    scores = np.clip(random.normal(0.4 + 0.2 * positive, 0.15), 0, 1)
    groups = random.integers(0, LESIONS, PICTURES)
    labels = np.where(positive, "malignant", "benign")

    started = time.perf_counter()
    evaluation = Evaluation.from_scores(labels, scores, groups)
    low, high = evaluation.interval("roc_auc")
    ours = time.perf_counter() - started

    started = time.perf_counter()
    draws = random.multinomial(LESIONS, np.full(LESIONS, 1 / LESIONS), size=DRAWS)
    areas = [roc_auc_score(positive, scores, sample_weight=draw[groups]) for draw in draws]
    theirs = time.perf_counter() - started

    print(f"isicvision, nine metrics: {ours:.2f} s, ROC AUC [{low:.4f}, {high:.4f}]")
    print(
        "scikit-learn in a loop, ROC AUC: {:.2f} s, [{:.4f}, {:.4f}]".format(
            theirs, *np.quantile(areas, [0.025, 0.975])
        )
    )
    print(f"ratio of times: {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
