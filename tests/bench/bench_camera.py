"""What makes a model independent of the camera: one change of the training at a time, on real images.

    python tests/bench/bench_camera.py                              # all arms, three splits: hours; resumes
    python tests/bench/bench_camera.py --arms usual --seeds 0       # some of them
    python tests/bench/bench_camera.py --table                      # only the table of the kept scores

Each arm is the preset ``balanced`` on HAM10000: 70 % of the lesions train it, 10 % set the threshold (sensitivity 0.9),
20 % test it, and so do the 100 images of PH2, another clinic's. The scores, uncalibrated, are kept in
docs/measurements/camera: ``score`` as it ships, of images with as much detail as the training images, every second view
coarse; ``full_detail`` without that. Models stay in outputs/camera. The table's intervals are a bootstrap over lesions,
the same for all splits, arms and ways.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from bench_settings import REAL, dataset
from imgaug import augmenters as iaa
from PIL import Image

from isicvision import (
    PROJECT_ROOT,
    ImageClassifier,
    ImageDataset,
    augment_dataset,
    augmentation,
    files,
    metrics,
)
from isicvision.images import decode, map_threads
from isicvision.model import inputs, network, training

SCORES = PROJECT_ROOT / "docs" / "measurements" / "camera"
MODELS = PROJECT_ROOT / "outputs" / "camera"
PH2 = REAL.parent / "ph2"
WAYS = ("full_detail", "score")
TOGETHER = "the networks of (a) and (b), their log-odds averaged"
FIGURES = ("all", "histology", "all, per lesion", "histology, per lesion", "PH2", "histology and PH2")


def varied(strength=0.6, zoom=1.6):
    """Return an augmentation after which color, sharpness and framing tell less about the camera."""
    fewer = iaa.Resize((0.4, 1.0), interpolation="area")
    return iaa.Sequential(
        [
            *moved(zoom),
            iaa.Sometimes(0.5 * strength, iaa.KeepSizeByResize(fewer, interpolation=["linear", "cubic"])),
            iaa.Sometimes(0.5, iaa.Sharpen((0, 0.5 * strength))),
            *recolored(strength),
            iaa.Sometimes(0.5 * strength, iaa.JpegCompression((10, 70))),
            *hidden(),
        ]
    )


def colored(strength=0.6, zoom=1.5):
    """Return an augmentation after which color and framing tell less about the camera."""
    return iaa.Sequential([*moved(zoom), *recolored(strength), *hidden()])


def moved(zoom):
    shift = {"x": (-0.05, 0.05), "y": (-0.05, 0.05)}
    turns = {"rotate": [0, 90, 180, 270], "mode": "reflect", "backend": "cv2"}
    return iaa.Fliplr(0.5), iaa.Affine(scale=(0.85, zoom), translate_percent=shift, **turns)


def recolored(strength):
    return (
        iaa.Multiply((1 - 0.15 * strength, 1 + 0.15 * strength), per_channel=True),
        iaa.GammaContrast((1 - 0.2 * strength, 1 + 0.25 * strength)),
    )


def hidden():
    cutout = iaa.Cutout(nb_iterations=1, size=0.2, squared=True, cval=127)
    hair = iaa.Sometimes(0.1, augmentation.Hair())
    return iaa.pillike.EnhanceColor((0.8, 1.2)), hair, iaa.Sometimes(0.2, cutout)


def shades_of_gray(path):
    """Make the Minkowski mean (p = 6) of the channels equal, without changing the brightness."""
    image = decode(path)
    norms = (image.astype(float) ** 6).mean(axis=(0, 1)) ** (1 / 6)
    gains = np.sqrt((norms**2).sum() / 3) / norms.clip(1)
    return (image * gains).clip(0, 255).round().astype(np.uint8)


def in_80_pixels(path):
    return decode(path, 80)


def rewritten(images, name, change):
    """Write the images of a dataset as `change` makes them, and return the dataset of these."""
    paths = [MODELS / name / f"{Path(path).stem}.png" for path in images.paths]

    def write(number):
        if not paths[number].exists():
            with files.replacing(paths[number]) as part:
                Image.fromarray(change(images.paths[number])).save(part, "PNG")

    map_threads(write, range(len(paths)))
    return dataclasses.replace(images, table=images.table.assign(path=[*map(str, paths)]))


@dataclasses.dataclass
class Arm:
    """One way of training: what is changed of the files, the augmentation, and what else of the training images."""

    what: str
    file: object = None
    augmenter: object = None
    alike: bool = False
    cells: bool = False
    sources: bool = False


ARMS = {
    "usual": Arm("(a) as it is"),
    "alike": Arm("(b) only images confirmed alike", alike=True),
    "gray": Arm("(c) Shades of Gray", file=shades_of_gray),
    "mildly_varied": Arm("(d) camera-neutral augmentation", augmenter=varied()),
    "cells": Arm("(e) label x confirmation drawn evenly", cells=True),
    "detail": Arm("80 px of detail in all images", file=in_80_pixels),
    "sources_detail_colored": Arm(
        "80 px, colors varied, a class for each confirmation", in_80_pixels, colored(), sources=True
    ),
}


def sets(arm, seed):
    """Return the datasets of an arm by name, for the training as it wants them."""
    images, other = dataset(), ImageDataset.from_csv(PH2 / "metadata.csv", PH2 / "images")
    if arm.file:
        name = {shades_of_gray: "gray", in_80_pixels: "80"}[arm.file]
        images, other = (rewritten(each, f"{name}_{n}", arm.file) for n, each in enumerate((images, other)))
    train, validation, test = images.split(0.7, 0.1, 0.2, seed=seed)
    if arm.alike:
        train = train.where(train.table["dx_type"] == "histo")
    if arm.sources:
        own = train.table["sublabel"] + np.where(train.table["dx_type"] == "histo", "", " seen only")
        train = dataclasses.replace(train, table=train.table.assign(sublabel=own))
    if arm.augmenter:
        train = augment_dataset(train, [arm.augmenter])
    return {"train": train, "validation": validation, "test": test, "ph2": other}


def train(slug, arm, seed, images):
    """Train an arm on one split, and save it."""
    if arm.cells:
        alike = images.table["dx_type"].eq("histo").astype(str)
        cell = (images.table["label"] + alike).astype("category").cat.codes.to_numpy()
        weights = (1 / np.bincount(cell))[cell]

        def drawn(targets, settings, seed, epoch):
            random = np.random.default_rng([seed, epoch])
            return random.choice(len(weights), len(weights), p=weights / weights.sum())

        training.order_of = drawn
    model = ImageClassifier.from_preset("balanced", images.labels, seed=seed)
    model.fit(images, checkpoint=MODELS / f"{slug}-checkpoint", progress=False, precision="fp32")
    training.order_of = inputs.order_of
    model.save(MODELS / slug)


def scored(model, given, name):
    """Return the scores of a dataset, in both ways."""
    table, column = given.table, model.labels.index("malignant")
    found = pd.DataFrame(
        {
            "set": name,
            "image": [Path(path).stem for path in given.paths],
            "lesion": [Path(group).stem for group in table["group"]],
            "malignant": table["label"].eq("malignant").astype(int).to_numpy(),
            "histology": table["dx_type"].eq("histo").astype(int).to_numpy() if "dx_type" in table else 1,
        }
    )
    shipped = network.coarse
    for way, coarse in zip(WAYS, (lambda images: images.float(), shipped), strict=True):
        network.coarse = coarse
        found[way] = [f"{score:.4g}" for score in model.predict_proba(given)[:, column]]
    network.coarse = shipped
    return found


def figures(table, way, weights):
    """Return `FIGURES` for each row of weights of the lesions, by name: a table of floats, and the lesions' numbers."""
    table = table.assign(odds=np.log(table[way].clip(1e-7, 1 - 1e-7) / (1 - table[way].clip(1e-7, 1 - 1e-7))))
    lesion = table.groupby(["set", "lesion", "number"], as_index=False).agg(
        {"malignant": "max", "histology": "max", "odds": "mean"}
    )

    def area(rows):
        positive = rows["malignant"].to_numpy() == 1
        return metrics.roc_auc(
            positive[:, None], None, rows["odds"].to_numpy()[:, None], weights[:, rows["number"]]
        )["roc_auc"][:, 0]

    home, lesions, other = (
        table[table["set"] == "test"],
        lesion[lesion["set"] == "test"],
        table[table["set"] == "ph2"],
    )
    parts = (home, home[home["histology"] == 1], lesions, lesions[lesions["histology"] == 1], other)
    areas = [area(part) for part in parts]
    return np.stack([*areas, (areas[1] + areas[4]) / 2])


def decided(table, way):
    """Return sensitivity and specificity at the threshold of the validation images: at home, and on PH2."""
    known, found = table[table["set"] == "validation"], []
    threshold = metrics.choose_threshold(known["malignant"] == 1, known[way].to_numpy(float), 0.9)
    for name in ("test", "ph2"):
        part = table[table["set"] == name]
        called, positive = part[way] >= threshold, part["malignant"] == 1
        found += [called[positive].mean(), 1 - called[~positive].mean()]
    return found


def show(seeds):
    """Print a row for each arm and way: figures as means over its splits, and the gain on (a) of the same splits."""
    kept = {(arm, seed): SCORES / f"{arm}-{seed}.csv" for arm in ARMS for seed in seeds}
    kept = {key: pd.read_csv(file) for key, file in kept.items() if file.exists()}
    for seed in seeds:
        if all((arm, seed) in kept for arm in ("usual", "alike")):
            pair = [kept[arm, seed][[*WAYS]].clip(1e-7, 1 - 1e-7) for arm in ("usual", "alike")]
            odds = sum(np.log(each / (1 - each)) for each in pair) / 2
            kept[TOGETHER, seed] = kept["usual", seed].assign(**1 / (1 + np.exp(-odds)))
    lesions = {name: n for n, name in enumerate(sorted({*pd.concat(kept.values())["lesion"]}))}
    weights = np.concatenate([np.ones((1, len(lesions))), *metrics.draws(np.arange(len(lesions)), 1000)])
    found, decisions = {}, {}
    for (arm, seed), table in kept.items():
        table["number"] = table["lesion"].map(lesions)
        for way in WAYS:
            found[arm, seed, way] = figures(table, way, weights)
            decisions[arm, seed, way] = decided(table, way)

    def text(values, sign=""):
        low, high = np.percentile(values[1:], [2.5, 97.5])
        return f"{values[0]:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"

    for arm, what in ({arm: about.what for arm, about in ARMS.items()} | {TOGETHER: TOGETHER}).items():
        mine = [seed for seed in seeds if (arm, seed) in kept]
        for way in WAYS if mine else ():
            values = np.mean([found[arm, seed, way] for seed in mine], axis=0)
            first = np.mean([found["usual", seed, "full_detail"] for seed in mine], axis=0)
            print(f"{what}, {way}, splits {mine}")
            for name, own, usual in zip(FIGURES, values, first, strict=True):
                print(f"    {name:<24}{text(own)}   gain {text(own - usual, '+')}")
            for seed in mine:
                home, away = np.split(np.round(decisions[arm, seed, way], 3), 2)
                each = ", ".join(f"{value:.3f}" for value in found[arm, seed, way][:, 0])
                print(f"    split {seed}: {each}; sensitivity, specificity {home}, PH2 {away}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arms", nargs="+", default=[*ARMS], choices=[*ARMS])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="train and score nothing")
    options = parser.parse_args()
    for seed in options.seeds if not options.table else ():
        for name in options.arms:
            slug = f"{name}-{seed}"
            if (SCORES / f"{slug}.csv").exists():
                continue
            given = sets(ARMS[name], seed)
            if not (MODELS / slug / "model.json").exists():
                train(slug, ARMS[name], seed, given["train"])
            model = ImageClassifier.load(MODELS / slug)
            rows = [scored(model, given[name], name) for name in ("validation", "test", "ph2")]
            SCORES.mkdir(parents=True, exist_ok=True)
            pd.concat(rows).to_csv(SCORES / f"{slug}.csv", index=False)
            print(slug, flush=True)
    show(options.seeds)


if __name__ == "__main__":
    main()
