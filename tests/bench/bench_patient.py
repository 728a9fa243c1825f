"""Age, sex and site: what they tell by themselves, and beside the score of a network.

    python tests/bench/bench_patient.py                   # the kept scores of `accurate`, about a minute
    python tests/bench/bench_patient.py mine-*.csv        # scores of your own

A file has a row an image of HAM10000: image, lesion, malignant (0 or 1) and score; histology (0 or 1) is taken from the
metadata if it is not there. With a column set, the fusion is learned on the rows "validation" and scored on those of
"test"; without one it is learned on four fifths of the lesions and scored on the last, five times. Differences are
paired, with 95 % intervals over lesions. First, age, sex and site alone on all images.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from isicvision import Evaluation, comparison, fusion, patient

ROOT = Path(__file__).resolve().parents[2]
KEPT = sorted((ROOT / "docs" / "measurements" / "presets").glob("accurate-*.csv"))
HAM10000 = ROOT.parent / "shared" / "data" / "ham10000_200x150" / "metadata.csv"
COLUMNS = {"age": "age", "sex": "sex", "site": "localization"}
MALIGNANT = ("mel", "bcc", "akiec")


def scored(table, image):
    """Return the score of each test image by a fusion that has not learned its lesion, NaN of the others."""
    true, score = table["malignant"].to_numpy() == 1, table["score"].to_numpy(float)
    people, groups = fusion.patients(table, COLUMNS), table["lesion"].to_numpy()
    if "set" in table:
        folds = [[np.flatnonzero(table["set"] == name) for name in ("validation", "test")]]
    else:
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=0).split(people, true, groups)
    found = np.full(len(table), np.nan)
    for known, new in folds:
        learned = [people[row] for row in known]
        numbers, _ = fusion.learn(score[known] if image else None, learned, true[known], groups[known])
        found[new] = [patient.score(numbers, score[row], 1 - score[row], people[row]) for row in new]
    return found


def evaluations(table):
    """Return the evaluations of the test images by the image, by the patient and by both: dict."""
    found = {"patient": scored(table, image=False)}
    if table["score"].nunique() > 1:
        found = {"image": table["score"].to_numpy(), **found, "both": scored(table, image=True)}
    rows = ~np.isnan(found["patient"])
    about = table[rows].rename(columns={"image": "path", "lesion": "group"})[["path", "group", "histology"]]
    labels = np.where(table["malignant"][rows] == 1, "malignant", "benign")
    return {
        name: Evaluation.from_scores(labels, scores[rows], metadata=about) for name, scores in found.items()
    }


def show(name, table):
    """Print a row for all test images and one for those that histology confirmed; return the differences."""
    found, differences = evaluations(table), []
    for which in ("all", "histology"):
        parts = {
            each: of.where(of.table["histology"] == 1) if which == "histology" else of
            for each, of in found.items()
        }
        areas = " ".join(f"{part.text('roc_auc'):>22}" for part in parts.values())
        images = len(parts["patient"].table)
        if "both" not in parts:
            print(f"{name:<14}{which:<11}{images:>6} {areas:>45}", flush=True)
            continue
        paired = comparison.compare(parts["both"], parts["image"])
        differences.append(paired["difference"])
        gain = f"{paired['difference']:+.3f} [{paired['low']:+.3f}, {paired['high']:+.3f}]"
        print(f"{name:<14}{which:<11}{images:>6} {areas}  {gain}", flush=True)
    return differences


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", nargs="*", type=Path, default=KEPT, help="files of scores")
    files = parser.parse_args().scores
    about = pd.read_csv(HAM10000).assign(malignant=lambda t: t["dx"].isin(MALIGNANT).astype(int))
    about["histology"] = (about["dx_type"] == "histo").astype(int)
    missing = about[about["age"].isna()]
    print(f"{len(missing)} images without an age, {missing['malignant'].sum()} of them malignant")
    names = " ".join(f"{name:>22}" for name in ("image", "age, sex, site", "both"))
    print(f"ROC AUC\n{'scores':<14}{'test':<11}{'images':>6} {names}  both - image")
    everything = about.rename(columns={"image_id": "image", "lesion_id": "lesion"}).assign(score=0.5)
    show("no image", everything)
    gains = []
    for file in files:
        table = pd.read_csv(file)
        own = [*COLUMNS.values(), *({"histology"} - {*table})]
        gains.append(
            show(file.stem, table.merge(about[["image_id", *own]], left_on="image", right_on="image_id"))
        )
    both = ", ".join(f"{mean:+.3f}" for mean in np.mean(gains, axis=0))
    print(f"mean of both - image over {len(files)} files: all and histology {both}")


if __name__ == "__main__":
    main()
