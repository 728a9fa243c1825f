"""What the presets reach on real images: several splits by lesion, four fifths for training and one for the test.

    python tests/bench/bench_presets.py --presets fast balanced       # goes on where it was stopped
    python tests/bench/bench_presets.py --presets balanced --all      # train on all images, and only save the model

Writes a row a run to docs/measurements/presets.csv, the scores of its test images to docs/measurements/presets, and
prints the mean ROC AUC of each preset with a 95 % interval: a bootstrap over lesions, in which a lesion drawn twice
counts twice in every split that tests it. Models stay in outputs/presets.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from bench_settings import REAL, dataset
from sklearn.metrics import roc_auc_score

from isicvision import PROJECT_ROOT, Evaluation, ImageClassifier, record

TARGET = PROJECT_ROOT / "docs" / "measurements" / "presets.csv"
SCORES = TARGET.with_suffix("")
MODELS = PROJECT_ROOT / "outputs" / "presets"
COLUMNS = ["image", "lesion", "malignant", "score"]


def run(images, preset, seed):
    """Train on one split and score its test images; return a row."""
    train, test = images.split(0.8, 0.2, seed=seed)
    model = ImageClassifier.from_preset(preset, images.labels, seed=seed)
    history = model.fit(train, checkpoint=MODELS / f"{preset}-{seed}-checkpoint", progress=False)
    folder = model.save(MODELS / f"{preset}-{seed}")
    started = time.perf_counter()
    networks, each = [*model.networks], []
    for network in networks:
        model.networks[:] = [network]
        each.append(model.predict_proba(test))
    model.networks[:], together = networks, np.exp(np.log(each).mean(axis=0))  # as `Scores` does
    probabilities = together / together.sum(axis=1, keepdims=True)
    scoring = time.perf_counter() - started
    evaluation = Evaluation.from_scores(
        test.table["label"], probabilities, groups=test.table["group"], classes=model.labels
    )
    record.write(model, {"train": train, "test": test}, folder, {"PRESET": preset, "SEED": seed})
    record.add_metrics(evaluation, folder)
    malignant, column = (test.table["label"] == "malignant").astype(int), model.labels.index("malignant")
    scores = test.table.assign(
        image=[Path(path).stem for path in test.paths],
        lesion=test.table["group"],
        malignant=malignant,
        score=probabilities[:, column].round(4),
    )
    SCORES.mkdir(exist_ok=True)
    scores[COLUMNS].to_csv(SCORES / f"{preset}-{seed}.csv", index=False)
    low, high = evaluation.interval("roc_auc")
    return {
        "preset": preset,
        "seed": seed,
        "training_images": len(train),
        "test_images": len(test),
        "test_lesions": test.table["group"].nunique(),
        "roc_auc": round(evaluation.metric("roc_auc"), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "accuracy": round(evaluation.metric("accuracy"), 4),
        "training_seconds": round(history.table["seconds"].sum()),
        "scoring_seconds": round(scoring),
        "precision": history.precision,
        "each_network": " ".join(f"{roc_auc_score(malignant, alone[:, column]):.4f}" for alone in each),
    }


def mean_interval(preset, seeds, resamples=1000):
    """Return the mean ROC AUC over the splits, and its 95 % interval."""
    tables = [pd.read_csv(SCORES / f"{preset}-{seed}.csv") for seed in seeds]
    lesions, numbers = np.unique(pd.concat(tables)["lesion"], return_inverse=True)
    parts = np.split(numbers, np.cumsum([len(table) for table in tables])[:-1])
    random = np.random.default_rng(0)

    def mean(weights):
        return np.mean(
            [
                roc_auc_score(table["malignant"], table["score"], sample_weight=weights[part])
                for table, part in zip(tables, parts, strict=True)
            ]
        )

    drawn = [
        mean(np.bincount(random.integers(0, len(lesions), len(lesions)), minlength=len(lesions)))
        for _ in range(resamples)
    ]
    return mean(np.ones(len(lesions))), *np.percentile(drawn, [2.5, 97.5])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--presets", nargs="+", default=["fast"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--all", action="store_true")
    options = parser.parse_args()
    if not REAL.is_dir():
        raise SystemExit(f"no real images: {REAL} is not there")
    images = dataset()
    if options.all:
        for preset in options.presets:
            model = ImageClassifier.from_preset(preset, images.labels)
            history = model.fit(images, progress=False)
            folder = model.save(MODELS / f"{preset}-all")
            record.write(model, {"train": images}, folder, {"PRESET": preset})
            print(f"{folder}: {len(images)} images, {history.table['seconds'].sum():.0f} s")
        return
    rows = pd.read_csv(TARGET).to_dict("records") if TARGET.exists() else []
    done = {(row["preset"], row["seed"]) for row in rows}
    for preset in options.presets:
        for seed in options.seeds:
            if (preset, seed) not in done:
                rows.append(run(images, preset, seed))
                print(rows[-1], flush=True)
                pd.DataFrame(rows).to_csv(TARGET, index=False)
        if all((SCORES / f"{preset}-{seed}.csv").exists() for seed in options.seeds):
            value, low, high = mean_interval(preset, options.seeds)
            print(
                f"{preset}: mean ROC AUC of {len(options.seeds)} splits {value:.3f} [{low:.3f}, {high:.3f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
