"""The gate of the training pipeline: how often it passes a model that is as good, and one that is worse.

    python tests/bench/bench_gate.py                 # 200 simulated pairs of each kind, half an hour
    python tests/bench/bench_gate.py --repeats 50

The scores are those of two networks that docs/measurements keeps, for the same 1,401 test images of HAM10000. A
simulated test set draws its lesions anew. For each, chance decides which network's score is the new model's and which
the registered one's, after both are brought to one scale: so the two models are equally good, and agree as much as the
two networks do. A worse one has a lower ROC AUC on all test images, by `loss`, in one of two ways:

* less: it gives malignant lesions lower scores, all by as much. It agrees with the registered model as before.
* noise: a random number is added to the scores of each lesion. It agrees less, so the difference is less certain.

It prints how many of the pairs pass on all images, on those confirmed by histology, and on both, which is the gate's
rule; and the difference that the gate says it would notice in four of five cases, the median of all pairs.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, ndtri
from scipy.stats import rankdata

from isicvision import Evaluation

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "code" / "02_modeling"))
import gate  # noqa: E402

KEPT = ROOT / "docs" / "measurements" / "camera"
PAIRS = [("usual-0", "mildly_varied-0"), ("usual-0", "gray-0"), ("usual-0", "alike-0")]
KINDS = [("equal", 0.0), ("less", 0.02), ("noise", 0.02)]


def pair(names):
    """Return the test images, the score of each network as a normal variable, and the lesion's number of each image."""
    tables = [pd.read_csv(KEPT / f"{name}.csv").query("set == 'test'") for name in names]
    tables = [table.sort_values("image").reset_index(drop=True) for table in tables]
    scores = [ndtri(rankdata(table["score"]) / (len(table) + 1)) for table in tables]
    return tables[0].drop(columns="score"), np.array(scores), pd.factorize(tables[0]["lesion"])[0]


def models(random, scores, lesions, sick, kind, amount):
    """Return the scores of a new and a registered model: in each lesion chance decides which network is which."""
    count = lesions.max() + 1
    swap = (random.random(count) < 0.5)[lesions]
    new, registered = np.where(swap, scores[::-1], scores)
    worse = sick * amount if kind == "less" else -amount * random.normal(size=count)[lesions]
    return new - worse, registered


def area(sick, score):
    """Return the ROC AUC of a score: the share of pairs in which the sick one has the higher score."""
    ranks = rankdata(score)[sick]
    return (ranks.mean() - (len(ranks) + 1) / 2) / (~sick).sum()


def amount_for(loss, kind, scores, lesions, sick):
    """Return how much worse the new model must be made to lose `loss` of its ROC AUC, by bisection over 400 pairs."""

    def mean_loss(amount):
        pairs = (models(np.random.default_rng(n), scores, lesions, sick, kind, amount) for n in range(400))
        return np.mean([area(sick, registered) - area(sick, new) for new, registered in pairs])

    low, high = 0.0, 3.0
    for _ in range(12 if loss else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if mean_loss(middle) > loss else (middle, high)
    return low


def simulate(random, table, scores, lesions, kind, amount):
    """Draw a test set and return what the gate finds, by population: dict."""
    rows_of = pd.Series(np.arange(len(table))).groupby(lesions).agg(list)
    drawn = [rows_of[lesion] for lesion in random.integers(0, len(rows_of), len(rows_of))]
    rows, copies = np.concatenate(drawn), np.repeat(np.arange(len(drawn)), [*map(len, drawn)])
    sick = (table["malignant"] == 1).to_numpy()[rows]
    about = pd.DataFrame({"path": [f"{n:05d}" for n in range(len(rows))], "group": copies.astype(str)})
    about["dx_type"] = np.where(table["histology"].to_numpy()[rows] == 1, "histo", "follow_up")
    labels = np.where(sick, "malignant", "benign")
    both = models(random, scores[:, rows], copies, sick, kind, amount)
    return gate.compare(*(Evaluation.from_scores(labels, expit(each), metadata=about) for each in both))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    print(f"share of {repeats} pairs that pass (goal: equal at least 95 %, worse by 0.02 at most 20 %)")
    columns = ["lost: all", "histology", "passes: all", "histology", "both", "notices: all", "histology"]
    print(" " * 12 + "".join(f"{column:>14}" for column in columns))
    for names in PAIRS:
        table, scores, lesions = pair(names)
        sick = (table["malignant"] == 1).to_numpy()
        print(
            f"{' and '.join(names)}: {len(table):,} images, {int(table['histology'].sum())} of them confirmed by "
            f"histology; {lesions.max() + 1:,} lesions"
        )
        for kind, loss in KINDS:
            amount = amount_for(loss, kind, scores, lesions, sick)
            found = [
                [*simulate(np.random.default_rng([seed, 7]), table, scores, lesions, kind, amount).values()]
                for seed in range(repeats)
            ]
            passed = np.array([[row["not_worse"] for row in each] for each in found])
            lost = -np.mean([[row["difference"] for row in each] for each in found], axis=0)
            notices = np.median([[row["noticeable"] for row in each] for each in found], axis=0)
            shares = [f"{share:.1%}" for share in (*passed.mean(axis=0), passed.all(axis=1).mean())]
            cells = [*(f"{each:.3f}" for each in lost), *shares, *(f"{each:.3f}" for each in notices)]
            print(f"  {kind:<6}{loss:<4}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
