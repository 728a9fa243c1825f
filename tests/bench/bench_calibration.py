"""What offsets add to a temperature, on scores of fine-tuned networks for real images.

    python tests/bench/bench_calibration.py      # a minute

The scores are those that three networks of the preset ``accurate`` gave their 1,401 test images of HAM10000
(docs/measurements/presets). Again and again the lesions of each file are halved: one half calibrates, as
`ImageClassifier.calibrate` does, the other one tells how many malignant images there are for each expected one (the
sum of the scores), and the log loss. ``lesions`` is how many malignant lesions the first half was reduced to.
"""

import argparse

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from isicvision import PROJECT_ROOT, calibration

KEPT = PROJECT_ROOT / "docs" / "measurements" / "presets"
LESIONS = (None, 60, 40, 30, 20)


def halves(table, random, count):
    """Draw two halves of the lesions, the first with `count` malignant lesions and as large a share of the others."""
    lesions = table.groupby("lesion")["malignant"].max().sample(frac=1, random_state=random)
    first, second = lesions.iloc[::2], lesions.iloc[1::2]
    share = 1 if count is None else count / first.sum()
    first = first.groupby(first, group_keys=False).apply(lambda part: part[: round(share * len(part))])
    return [table[table["lesion"].isin(part.index)] for part in (first, second)]


def both(part):
    """Return scores of both labels: array."""
    scores = part["score"].to_numpy()
    return np.column_stack([1 - scores, scores])


def main():
    """Halve, calibrate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--halves", type=int, default=30, help="of each file and number of lesions")
    arguments = parser.parse_args()
    random, rows = np.random.RandomState(0), []
    for path in sorted(KEPT.glob("accurate-*.csv")):
        table = pd.read_csv(path)
        for count in LESIONS:
            for _ in range(arguments.halves):
                known, held_out = halves(table, random, count)
                labels, new = known["malignant"].to_numpy(), held_out["malignant"].to_numpy()
                alone = calibration.fit_temperature(labels, both(known)), None
                chosen = calibration.fit(labels, both(known), known["lesion"])
                row = {"file": path.stem, "lesions": count or "all", "offsets kept": chosen[1] is not None}
                for name, given in (
                    ("as it was", (1, None)),
                    ("temperature", alone),
                    ("as chosen", chosen),
                    ("offsets always", calibration._with_offsets(labels, both(known))),
                ):
                    scores = calibration.apply(both(held_out), *given)[:, 1]
                    row |= {f"O/E {name}": new.sum() / scores.sum(), f"loss {name}": log_loss(new, scores)}
                rows.append(row)
    table = pd.DataFrame(rows)
    print(table.groupby(["lesions", "file"], sort=False).mean().round(4).T.to_string())
    print(table.drop(columns="file").groupby("lesions", sort=False).mean().round(4).T.to_string())


if __name__ == "__main__":
    main()
