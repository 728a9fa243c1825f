"""How often the shortcut audit flags twins of a model that were trained with a planted mark, and without.

    python tests/bench/bench_audit.py                  # some minutes on two cores
    python tests/bench/bench_audit.py --fine-tuned 3   # more minutes: small fine-tuned networks too

Each pair of twins learns from the same 400 real images. In a second training every image of one label carries a
mark in one corner, in a third every second one: shape, size, color, corner and label are drawn anew for each pair. All
are audited on the same 240 images, which have no mark, with the borders of the images that they learnt from. Then
come models that see nothing but the outer ring of an image, from 0.7 or 0.8 of half its side on.
"""

import argparse
import colorsys
import os
import tempfile
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from bench_settings import dataset
from PIL import Image, ImageDraw
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from isicvision import ImageClassifier, audit
from isicvision.images import decode
from isicvision.model import inputs
from isicvision.model import onnx as export

LEARNT, TESTED = 400, 240
KEPT = ("kept", "kept_low", "kept_high")
SHAPES = ("disc", "square", "cross")
CLASSIFIERS = {
    "logistic regression, C=0.003": lambda: LogisticRegression(C=0.003, max_iter=3000),
    "logistic regression, C=0.03": lambda: LogisticRegression(C=0.03, max_iter=3000),
    "scaled, then C=0.003": lambda: make_pipeline(
        StandardScaler(), LogisticRegression(C=0.003, max_iter=3000)
    ),
}


class Twin(ImageClassifier):
    """A model on features that computes those of each image once."""

    known, compiled = {}, None  # of all twins: they share the network

    def featurize(self, images):
        """Compute the features of decoded images, or of a dataset."""
        if not isinstance(images, np.ndarray):
            images = np.stack([decode(path, self.image_size, "bicubic") for path in images.paths])
        if Twin.compiled is None:
            Twin.compiled = export.Compiled(self.scoring_module().eval(), self.image_size)
        keys = [blake2b(image.tobytes()).digest() for image in images]
        new = [number for number, key in enumerate(keys) if key not in self.known]
        if new:
            features = inputs.forward(self.compiled, images[new])
            self.known |= {keys[number]: row for number, row in zip(new, features, strict=True)}
        return np.stack([self.known[key] for key in keys])

    def scores(self, array):
        """Predict decoded images."""
        return self.classifier.predict_proba(self.featurize(array))


class Ring(Twin):
    """A twin that sees nothing but the outer ring of an image."""

    def featurize(self, images):
        """Compute the features of the ring: within is the color of the skin, or gray."""
        if not isinstance(images, np.ndarray):
            images = np.stack([decode(path, self.image_size, "bicubic") for path in images.paths])
        if self.inside is None:
            return super().featurize(audit.changed(images, "border only"))
        inside = audit._inside(self.image_size, self.inside)[..., None]
        return super().featurize(np.where(inside, np.uint8(128), images))


def images(seed=0):
    """Read an image a lesion, as many of each label; return those to learn from and those to test on."""
    real = dataset()
    table = real.table.drop_duplicates("group").sample(frac=1, random_state=seed)
    table = table[table.groupby("label").cumcount() < 600].reset_index(drop=True)
    parts = table[:TESTED], table[TESTED:]
    return [replace(real, table=part.reset_index(drop=True)) for part in parts[::-1]]


def mark(seed):
    """Draw a mark: label, share of its images, shape, color, corner, half its size as a share of the side."""
    random = np.random.default_rng(seed)
    color = colorsys.hsv_to_rgb(random.random(), random.uniform(0, 1), random.uniform(0, 1))
    return {
        "label": ("benign", "malignant")[random.integers(2)],
        "shape": SHAPES[seed % len(SHAPES)],
        "color": tuple(round(255 * value) for value in color),
        "corner": (random.integers(2), random.integers(2)),
        "half": random.uniform(0.05, 0.1),
    }


def plant(dataset, mark, share, folder, side, seed=0):
    """Write the images of a label with the mark, and return the dataset that has them."""
    chosen = (dataset.table["label"] == mark["label"]) & (
        np.random.default_rng(seed).random(len(dataset)) < share
    )
    paths = dataset.table["path"].copy()
    for number in np.flatnonzero(chosen):
        image = Image.fromarray(decode(paths[number], side, "bicubic"))
        half = mark["half"] * side
        x, y = (abs(far * side - 1.2 * half) for far in mark["corner"])
        draw = ImageDraw.Draw(image)
        box = (x - half, y - half, x + half, y + half)
        if mark["shape"] == "cross":
            draw.line((x - half, y, x + half, y), mark["color"], max(2, side // 40))
            draw.line((x, y - half, x, y + half), mark["color"], max(2, side // 40))
        else:
            (draw.ellipse if mark["shape"] == "disc" else draw.rectangle)(box, mark["color"])
        path = Path(folder) / f"{number}.png"
        image.save(path)
        paths[number] = str(path)
    return replace(dataset, table=dataset.table.assign(path=paths))


def audited(twin, learnt, tested, **about):
    """Audit one twin: dict of what was flagged."""
    found = audit.shortcuts(twin, tested, borders=learnt)
    flagged = found.index[found["verdict"] == "flagged"]
    return about | {
        "roc_auc": found.loc["unchanged", "roc_auc"],
        "flagged": len(flagged) > 0,
        "without swap": len(flagged.drop(audit.SWAPPED, errors="ignore")) > 0,
        "by": ", ".join(flagged),
        **{f"moved by {name}": value for name, value in found["moved"].items()},
        **{f"roc_auc {name}": value for name, value in found["roc_auc"].items()},
        **{f"{end} {name}": found.loc[name, end] for name in audit.HIDDEN for end in KEPT},
    }


def ring_only(pool, tested, seed, side, folder):
    """Train and audit a model that sees the outer ring only."""
    name = [*CLASSIFIERS][seed // len(SHAPES) % len(CLASSIFIERS)]
    learnt = replace(pool, table=pool.table.sample(LEARNT, random_state=seed).reset_index(drop=True))
    twin = Ring("efficientnet_lite0", learnt.labels, image_size=side, classifier=CLASSIFIERS[name]())
    twin.inside = (None, 0.7, 0.8)[seed % 3]
    twin.fit(learnt)
    return [audited(twin, learnt, tested, seed=seed, kind="ring only", share=twin.inside or 0, mark="")]


def on_features(pool, tested, seed, side, folder):
    """Train and audit twins on features: one without a mark, one with it for each share."""
    name = [*CLASSIFIERS][seed // len(SHAPES) % len(CLASSIFIERS)]
    table = pool.table.sample(LEARNT, random_state=seed).reset_index(drop=True)
    clean, drawn, rows = replace(pool, table=table), mark(seed), []
    for share in (0, 1, 0.5):
        learnt = plant(clean, drawn, share, tempfile.mkdtemp(dir=folder), side, seed) if share else clean
        twin = Twin("efficientnet_lite0", clean.labels, image_size=side, classifier=CLASSIFIERS[name]())
        twin.fit(learnt)
        rows.append(audited(twin, learnt, tested, seed=seed, kind=name, share=share, mark=drawn))
    return rows


def fine_tuned(pool, tested, seed, side, folder):
    """Fine-tune and audit twins."""
    table = pool.table.sample(LEARNT, random_state=seed).reset_index(drop=True)
    clean, drawn, rows = replace(pool, table=table), mark(seed), []
    for share in (0, 1):
        learnt = plant(clean, drawn, share, tempfile.mkdtemp(dir=folder), side, seed) if share else clean
        twin = ImageClassifier("efficientnet_lite0", clean.labels, image_size=side, dropout=0.2, seed=seed)
        settings = {"optimizer": "adamw", "schedule": "one_cycle", "l2": 0.01, "learning_rate": 0.002}
        twin.fit(learnt, epochs=3, progress=False, **settings)
        rows.append(audited(twin, learnt, tested, seed=seed, kind="fine-tuned", share=share, mark=drawn))
    return rows


def main():
    """Train, audit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=int, default=27)
    parser.add_argument("--first", type=int, default=0, help="seed of the first pair, and of the split")
    parser.add_argument("--rings", type=int, default=27, help="models that see the outer ring only")
    parser.add_argument("--fine-tuned", type=int, default=0, help="pairs of small fine-tuned networks")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--csv", help="write a row an audit to this file")
    arguments = parser.parse_args()
    pool, tested = images(arguments.first)
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ISICVISION_CACHE"] = folder  # nobody needs these features again
        kinds = (on_features, arguments.pairs, 3), (ring_only, arguments.rings, 1)
        for kind, count, audits in (*kinds, (fine_tuned, arguments.fine_tuned, 2)):
            for seed in range(arguments.first, arguments.first + count):
                rows += kind(pool, tested, seed, arguments.image_size, folder)
                for row in rows[-audits:]:
                    print(
                        f"{row['kind']}, seed {seed}, marked {row['share']:.0%}: {row['by'] or 'no flag'}",
                        flush=True,
                    )
    table = pd.DataFrame(rows)
    if arguments.csv:
        table.to_csv(arguments.csv, index=False)
    shown = table.groupby(["kind", "share"])[["roc_auc", "flagged", "without swap"]]
    print(shown.agg({"roc_auc": "mean", "flagged": ["sum", "count"], "without swap": "sum"}).round(3))
    moved = table.filter(like="moved by").abs().groupby([table["kind"], table["share"]]).max().T
    print(moved.round(2).to_string())
    print(
        table.filter(like="kept")
        .groupby([table["kind"], table["share"]])
        .agg(["min", "max"])
        .T.round(2)
        .to_string()
    )
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
