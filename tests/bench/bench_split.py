"""Splits of groups with mixed labels: how far the labels are off, and which labels are absent, beside scikit-learn.

    python tests/bench/bench_split.py              # 100 seeds of each kind, two minutes
    python tests/bench/bench_split.py --seeds 20

Groups are patients with images of both labels, or of seven. scikit-learn has equal folds only: 60/20/20 are three, one
and one of its five folds, and so on. `off` is the mean over parts and labels of the distance between the share of a
label's images that a part has and the part's fraction, in percent; `off in all` is the same of all images. `absent`
counts splits in which a part has no image of a label although enough patients have one.
"""

import argparse
import warnings

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from isicvision import ImageDataset

FRACTIONS = [(0.6, 0.2, 0.2), (0.8, 0.1, 0.1), (0.5, 0.5), (0.2,) * 5, (0.1,) * 10]


def tabled(labels, groups):
    names = [f"p{number}" for number in range(len(labels))]
    return ImageDataset(
        pd.DataFrame({"path": names, "label": labels, "group": np.asarray(groups).astype(str)})
    )


def one_each(random):
    """60 patients with ten images each; twelve of them have one malignant image."""
    return tabled(
        ["malignant" if n % 10 == 0 and n < 120 else "benign" for n in range(600)], np.arange(600) // 10
    )


def two_more(random):
    """The same, and two patients all of whose images are malignant."""
    first = one_each(random).table
    return tabled([*first["label"], *["malignant"] * 20], [*first["group"], *["x"] * 10, *["y"] * 10])


def archive(random):
    """400 patients with 2 to 100 images each, 2 % of them malignant, half of these in a tenth of the patients."""
    sizes = np.clip(random.lognormal(2.4, 0.8, 400), 2, 100).astype(int)
    risk = np.where(random.random(400) < 0.1, 0.1, 0.011)
    groups = np.repeat(np.arange(400), sizes)
    return tabled(np.where(random.random(len(groups)) < risk[groups], "malignant", "benign"), groups)


def seven(random):
    """1,500 lesions of seven labels, the rarest in 1 of 100, one to four images each; 5 % of the labels corrected."""
    rate = np.array([0.67, 0.11, 0.11, 0.05, 0.03, 0.02, 0.01])
    groups = np.repeat(np.arange(1500), random.integers(1, 5, 1500))
    labels = random.choice(7, 1500, p=rate)[groups]
    corrected = random.random(len(groups)) < 0.05
    labels[corrected] = random.choice(7, corrected.sum())
    return tabled(labels.astype(str), groups)


def ours(dataset, fractions, seed):
    parts = dataset.split(*fractions, seed=seed)
    return np.concatenate([np.full(len(part), n) for n, part in enumerate(parts)]), pd.concat(
        [p.table for p in parts]
    )


def peer(dataset, fractions, seed):
    """scikit-learn's folds of the smallest fraction, joined to the fractions."""
    count = round(1 / min(fractions))
    of_fold = np.repeat(np.arange(len(fractions)), np.round(np.array(fractions) * count).astype(int))
    table = dataset.table
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    part = np.empty(len(table), int)
    for number, (_, held) in enumerate(folds.split(table, table["label"], table["group"])):
        part[held] = of_fold[number]
    return part, table


def judged(part, table, fractions):
    counts = pd.crosstab(part, table["label"]).reindex(range(len(fractions)), fill_value=0).to_numpy()
    goal = np.array(fractions)
    off = np.abs(counts / counts.sum(axis=0) - goal[:, None]).mean()
    shares = counts / counts.sum(axis=1, keepdims=True)
    largest = np.abs(shares - counts.sum(axis=0) / counts.sum()).max(axis=1).mean()
    return off, largest, np.abs(counts.sum(axis=1) / counts.sum() - goal).mean(), (counts == 0).any()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=100)
    seeds = range(parser.parse_args().seeds)
    warnings.simplefilter("ignore")  # of a label that is absent: it is counted here
    rows = []
    for kind in (one_each, two_more, archive, seven):
        for fractions in FRACTIONS:
            row = {
                "kind": kind.__name__,
                "fractions": "/".join(f"{100 * share:.0f}" for share in fractions[:3]),
            }
            row["parts"] = len(fractions)
            for name, way in (("ours", ours), ("scikit-learn", peer)):
                found = []
                for seed in seeds:
                    dataset = kind(np.random.default_rng(seed))
                    found.append(judged(*way(dataset, fractions, seed), fractions))
                off, largest, in_all, absent = np.array(found, float).T
                row |= {
                    f"{name}: off": 100 * off.mean(),
                    f"{name}: shares": 100 * largest.mean(),
                    f"{name}: off in all": 100 * in_all.mean(),
                    f"{name}: absent": int(absent.sum()),
                }
            rows.append(row)
    print(f"{len(seeds)} seeds of each\n")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
