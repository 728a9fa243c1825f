"""One answer a lesion, and for whom: figures of the kept scores of `accurate` on HAM10000, without a training.

    python tests/bench/bench_lesions.py     # half a minute

For each of the three splits in docs/measurements/presets: the ROC AUC per image and per lesion (`Evaluation.by_group`)
with the paired difference, then sensitivity and specificity by how the diagnosis was confirmed, and what they mean for
1,000 lesions. The threshold finds 90 % of the malignant test images: of the same images, as no others were kept.
"""

import numpy as np
import pandas as pd
from bench_presets import SCORES
from bench_settings import REAL

from isicvision import Evaluation, comparison, decisions
from isicvision.evaluation.intervals import interval

SENSITIVITY, PREVALENCE = 0.9, 0.05


def read(split, confirmed):
    """Return the evaluation of one split, with the column `dx_type`."""
    kept = pd.read_csv(SCORES / f"accurate-{split}.csv")
    table = pd.DataFrame(
        {"path": kept["image"], "group": kept["lesion"], "dx_type": kept["image"].map(confirmed)}
    )
    labels = np.where(kept["malignant"], "malignant", "benign")
    evaluation = Evaluation.from_scores(labels, kept["score"], metadata=table)
    return evaluation.at(evaluation.choose_threshold(sensitivity=SENSITIVITY))


def several(evaluation):
    """Keep the lesions with several images."""
    return evaluation.where(evaluation.table["group"].duplicated(keep=False))


def gain(images):
    """Say the ROC AUC per image and per lesion, and their difference by the same draws of lesions."""
    lesions = images.by_group()
    low, high = interval(
        difference := lesions.metric("roc_auc") - images.metric("roc_auc"),
        lesions.draws("roc_auc") - images.draws("roc_auc"),
        lesions.jackknife("roc_auc") - images.jackknife("roc_auc"),
    )
    texts = " / ".join(each.text("roc_auc") for each in (images, lesions))
    counts = f"{len(images.table):,} images / {len(lesions.table):,} lesions"
    return f"{counts}: {texts}, {difference:+.3f} [{low:+.3f}, {high:+.3f}]"


def main():
    if not REAL.is_dir():
        raise SystemExit(f"no metadata: {REAL} is not there")
    confirmed = pd.read_csv(REAL / "metadata.csv").set_index("image_id")["dx_type"]
    evaluations = [read(split, confirmed) for split in range(3)]
    print("ROC AUC per image / per lesion, and the difference")
    for split, evaluation in enumerate(evaluations):
        kinds = {"several images": several(evaluation)} | decisions.populations(evaluation)
        for name, part in kinds.items():
            print(f"split {split}, {name}: {gain(part)}")
    for unit, each in (("image", evaluations), ("lesion", [one.by_group() for one in evaluations])):
        for split, evaluation in enumerate(each):
            print(
                f"\nsplit {split}, one answer an {unit}, threshold {evaluation.threshold:.3f}".replace(
                    "an l", "a l"
                )
            )
            print(comparison.written(comparison.slices(evaluation, "dx_type")).to_string())
            for name, part in decisions.populations(evaluation).items():
                figures = part.text("recall"), part.text("specificity")
                print(f"{name}: sensitivity {figures[0]}, specificity {figures[1]}; of 1,000 lesions")
                print(decisions.per_thousand(part, PREVALENCE).round(0).astype(int).to_string())


if __name__ == "__main__":
    main()
