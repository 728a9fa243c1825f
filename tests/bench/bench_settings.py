"""What each setting of a training does, on the real images: one is changed at a time, all else stays.

    python tests/bench/bench_settings.py      # three quarters of an hour on two cores; goes on where it was stopped

Writes a row a run to docs/measurements/settings.csv, from which 04_what_the_settings_do.ipynb draws: ROC AUC on the
validation images (the test images are not looked at) with its interval over lesions, and the seconds of training.
Then leak.csv, beside it: by how much a split image by image flatters two classifiers on features, ten splits each.
"""

import argparse
import time
import warnings
from pathlib import Path

import pandas as pd
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from isicvision import PROJECT_ROOT, Evaluation, ImageClassifier, ImageDataset, augment_dataset, augmentation

REAL = PROJECT_ROOT.parent / "shared" / "data" / "ham10000_200x150"
TARGET = PROJECT_ROOT / "docs" / "measurements" / "settings.csv"
COMMON = {
    "network": "efficientnet_lite0",
    "augmentation": "dermoscopy",
    "split": "by lesion",
    "images": None,
    "seed": 0,
    "image_size": 96,
    "dropout": 0.2,
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.001,
    "schedule": "one_cycle",
    "optimizer": "adamw",
    "l2": 0.01,
    "frozen_stages": 2,
    "class_weight": "balanced",
    "sublabels": False,
    "precision": "fp32",
}
TRIED = {
    "common": [None],
    "seed": [1, 2],
    "learning_rate": [0.0001, 0.0003, 0.003, 0.01],
    "batch_size": [8, 128],
    "dropout": [0.0, 0.5],
    "image_size": [64, 128, 160],
    "images": [300, 600, 1200, 2400],
    "split": ["by image"],
    "frozen_stages": [0, "all but the last layer"],
    "augmentation": ["none", "original_2018"],
    "network": ["efficientnet_lite0, random weights", "resnet18, random weights"],
    "epochs": [1, 8],
    "epochs, no augmentation": [8],
    "class_weight": ["none"],
    "sublabels": [True],
}


def dataset():
    """Read HAM10000 as the notebooks do."""
    p = yaml.safe_load((PROJECT_ROOT / "code" / "parameters" / "ham10000.yaml").read_text(encoding="utf-8"))
    return ImageDataset.from_csv(
        REAL / "metadata.csv",
        images=REAL / "images",
        image_column=p["IMAGE_COLUMN"],
        label_column=p["LABEL_COLUMN"],
        group_column=p["GROUP_COLUMN"],
        label_map=p["LABEL_MAP"],
    )


def run(images, name, value):
    """Train with one choice changed; return a row."""
    choice = COMMON | ({} if name == "common" else {name.partition(", ")[0]: value})
    if name.endswith("no augmentation"):
        choice["augmentation"] = "none"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a split by image warns, rightly
        parts = images.split(0.6, 0.2, 0.2, group="group" if choice["split"] == "by lesion" else None)
    train, validation = parts[:2]
    if choice["images"]:
        share = choice["images"] / len(train)
        choice["epochs"] = round(choice["epochs"] / share)  # the same number of steps for all
        train = train.split(share, 1 - share, seed=1)[0]
    backbone, _, random = choice["network"].partition(", ")
    settings = {key: choice[key] for key in list(COMMON)[7:]}
    settings["class_weight"] = None if choice["class_weight"] == "none" else "balanced"
    if isinstance(settings["frozen_stages"], str):
        settings |= {"frozen_stages": 0, "freeze_epochs": settings["epochs"]}
    if random:
        settings["frozen_stages"] = 0  # nothing worth keeping
    model = ImageClassifier(
        backbone,
        images.labels,
        None if random else "imagenet",
        choice["image_size"],
        choice["dropout"],
        seed=choice["seed"],
    )
    if choice["augmentation"] != "none":
        train = augment_dataset(train, getattr(augmentation, choice["augmentation"])())
    history = model.fit(train, progress=False, **settings)
    table = validation.table
    evaluation = Evaluation.from_scores(
        table["label"], model.predict_proba(validation), groups=table["group"], classes=model.labels
    )
    low, high = evaluation.interval("roc_auc")
    return {
        "setting": name,
        "value": value,
        "common_value": COMMON.get(name.partition(", ")[0]),
        "images": len(train),
        "roc_auc": round(evaluation.metric("roc_auc"), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "train_loss": round(history.table["train_loss"].iloc[-1], 4),
        "seconds": round(history.table["seconds"].sum(), 1),
    }


def leak(images):
    """Score two classifiers on features by splits of both kinds; return a row a split."""
    model = ImageClassifier("efficientnet_lite0", images.labels, image_size=160)
    features, table = model.featurize(images), images.table.reset_index(drop=True)
    classifiers = {
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=1000)),
        "nearest neighbors": KNeighborsClassifier(5, weights="distance", metric="cosine"),
    }
    rows = []
    for seed in range(10):
        for kind, group in (("by lesion", "group"), ("by image", None)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a split by image warns, rightly
                train, test = (part.table["path"] for part in images.split(0.8, 0.2, group=group, seed=seed))
            seen, new = table["path"].isin(train), table["path"].isin(test)
            for name, classifier in classifiers.items():
                classifier.fit(features[seen], table["label"][seen])
                scores = classifier.predict_proba(features[new])[:, 1]
                area = roc_auc_score(table["label"][new] == classifier.classes_[1], scores)
                rows.append({"classifier": name, "split": kind, "seed": seed, "roc_auc": round(area, 4)})
    return pd.DataFrame(rows)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", type=Path, default=TARGET)
    target = parser.parse_args().target
    if not REAL.is_dir():
        raise SystemExit(f"no real images: {REAL} is not there")
    rows = pd.read_csv(target, dtype={"value": str}).to_dict("records") if target.exists() else []
    done = {(row["setting"], str(row["value"])) for row in rows}
    images = dataset()
    for name, values in TRIED.items():
        for value in values:
            if (name, str(value)) not in done and (name, "nan") not in done:
                started = time.perf_counter()
                rows.append(run(images, name, value))
                print(*rows[-1].values(), f"{time.perf_counter() - started:.0f} s in all", flush=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                pd.DataFrame(rows).to_csv(target, index=False)
    found = leak(images)
    found.to_csv(target.with_name("leak.csv"), index=False)
    print(found.groupby(["classifier", "split"])["roc_auc"].agg(["mean", "std"]).round(3))


if __name__ == "__main__":
    main()
