"""How many labels reach the same ROC AUC: chosen by `labelissues.next_to_label`, otherwise, or at random.

    python tests/bench/bench_labels.py                   # six seeds, some minutes once the features are in the cache

A balanced logistic regression sees the features of EfficientNet-Lite0 (pretrained, never trained on skin) of HAM10000.
Of each seed's 60 % of the lesions, 100 images are labeled at random at first; then 100 more are chosen, eight times,
and get their published labels. The other lesions test. "uncertain" takes the most uncertain images; "k-center" those
farthest from what is labeled (Sener and Savarese, Active Learning for Convolutional Neural Networks, 2018); "both" the
latter among the most uncertain third.
"""

import argparse
import warnings

import numpy as np
from bench_data_path import ham10000
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from isicvision import ImageClassifier, Neighbors, labelissues

ROUNDS = range(100, 901, 100)
WAYS = ("random", "next_to_label", "uncertain", "k-center", "both")


def centers(candidates, vectors, known, count):
    """Return candidates one by one, each farthest from what is known by then."""
    own, chosen = vectors[candidates], []
    nearest = (1 - own @ vectors[known].T).min(axis=1)
    for _ in range(count):
        best = int(nearest.argmax())
        chosen.append(candidates[best])
        nearest = np.minimum(nearest, 1 - own @ own[best])
        nearest[best] = -1
    return chosen


def choose(way, model, dataset, features, known, pool, random):
    """Return the rows of the dataset to label next."""
    count = ROUNDS.step
    if way == "random":
        return random.choice(pool, count, replace=False)
    training = dataset.where(np.isin(np.arange(len(dataset)), known))
    if way == "next_to_label":
        rest = dataset.where(np.isin(np.arange(len(dataset)), pool))
        paths = labelissues.next_to_label(model, rest, training, count).paths
        return np.flatnonzero(dataset.table["path"].isin(paths))
    scores = model.classifier.predict_proba(features[pool])[:, 1]
    uncertain = pool[np.argsort(np.abs(scores - 0.5), kind="stable")]
    if way == "uncertain":
        return uncertain[:count]
    vectors = Neighbors(model, training).gallery.reduce(features)
    return centers(pool if way == "k-center" else uncertain[: len(pool) // 3], vectors, known, count)


def curve(way, seed, dataset, features):
    """Return the ROC AUC after each of the `ROUNDS`."""
    learn, test = dataset.split(0.6, 0.4, seed=seed)
    numbers = {path: number for number, path in enumerate(dataset.paths)}
    learn, test = (np.array([numbers[path] for path in part.paths]) for part in (learn, test))
    random, truth = np.random.default_rng(seed), dataset.table["label"].to_numpy() == "malignant"
    known, found = random.choice(learn, ROUNDS.start, replace=False), []
    classifier = LogisticRegression(C=0.003, class_weight="balanced", max_iter=1000)
    while True:
        model = ImageClassifier("efficientnet_lite0", dataset.labels, classifier=classifier)
        model.fit(dataset.where(np.isin(np.arange(len(dataset)), known)))
        found.append(roc_auc_score(truth[test], model.classifier.predict_proba(features[test])[:, 1]))
        if len(known) >= ROUNDS[-1]:
            return found
        pool = np.setdiff1d(learn, known)
        known = np.concatenate([known, choose(way, model, dataset, features, known, pool, random)])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=6)
    seeds, dataset = range(parser.parse_args().seeds), ham10000()
    features = ImageClassifier(
        "efficientnet_lite0", dataset.labels, classifier=LogisticRegression()
    ).featurize(dataset)
    print(f"{'labels':<16}" + "".join(f"{count:>7}" for count in ROUNDS), flush=True)
    found = {}
    for way in WAYS:
        found[way] = np.array([curve(way, seed, dataset, features) for seed in seeds])
        more = (found[way] - found["random"])[:, 1:].mean(axis=1)
        print(
            f"{way:<16}" + "".join(f"{value:>7.3f}" for value in found[way].mean(axis=0)), end="", flush=True
        )
        print(
            f"   beside random {more.mean():+.4f}, by seed {more.min():+.4f} to {more.max():+.4f}", flush=True
        )
    ours, random = (found[way].mean(axis=0) for way in ("next_to_label", "random"))
    for count in ROUNDS[2::2]:
        needed = np.interp(random[ROUNDS.index(count)], ours, ROUNDS)
        print(f"the ROC AUC of {count} labels at random takes {needed:.0f} labels of next_to_label")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
