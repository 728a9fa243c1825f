"""Test whether a model looks at the lesion, and what poor images do to it: change the images and compare the scores.

Peers: Bissoto et al., (De)Constructing bias on skin lesion datasets, 2019; Winkler et al., Association between surgical
skin markings and diagnostic performance of a convolutional neural network for melanoma recognition, 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import pandas as pd
from imgaug import augmenters as iaa
from scipy.stats import percentileofscore

from .. import metrics
from ..data.augmentation import Hair, Pipeline
from ..data.dataset import ImageDataset
from ..data.skin import lesion_mask, skin_mask
from ..images import decode, map_threads
from .comparison import FEWEST
from .evaluation import Model, positive_of, scored
from .intervals import interval, lesions
from .predictions import as_labels

INSIDE = 0.8
"""Radius of the disc whose outside is the border, as a share of half the side."""
MARK = 0.09
"""Side of the squares in the corners, as a share of the image's."""
INKS = {
    "blue": (60, 70, 170),
    "violet": (110, 40, 140),
    "green": (40, 150, 70),
    "yellow": (240, 210, 40),
    "red": (200, 30, 40),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
"""Colors of the marks, RGB."""
SWAPPED, BORDERLESS = "border swapped", "border masked"
HIDDEN = ("lesion masked", "border only", BORDERLESS)
"""The changes judged by the figure ``kept``; all others are judged by ``moved``."""
BOUNDS = {
    "lesion masked": 0.9,
    "border only": 0.8,
    BORDERLESS: 0.7,
    "moved": 0.25,
    "dark corners added": 0.35,
    SWAPPED: 0.17,
}
"""By change, ``moved`` for all others: no model without a shortcut exceeded them in tests/bench/bench_audit.py."""
LEAST = 0.05
"""The least excess of the unchanged images' ROC AUC over 0.5 that `kept` is a share of."""

CORRUPTIONS: dict[str, Callable] = {
    "blur": lambda share, side: iaa.GaussianBlur(0.012 * share * side),
    "noise": lambda share, _: iaa.AdditiveGaussianNoise(scale=25 * share, per_channel=True),
    "JPEG": lambda share, _: iaa.JpegCompression(round(40 + 45 * share)),
    "brightness": lambda share, _: iaa.Multiply([1 - 0.5 * share, 1 + 0.5 * share]),
    "color cast": lambda share, _: iaa.WithChannels(2, iaa.Multiply([1 - 0.3 * share, 1 + 0.3 * share])),
    "hair": lambda share, _: iaa.Sequential([Hair() for _ in range(round(5 * share))]),
    "off-center": lambda share, _: iaa.Affine(translate_percent=[-share / 5, share / 5], mode="reflect"),
}
"""What makes poor images: an augmenter for a severity, as a share of the greatest, and the side in pixels."""


def _with_ruler(image):
    image, side = image.copy(), len(image)
    for number in range(24):
        place, length = round((0.04 + 0.04 * number) * side), 0.045 if number % 5 else 0.08
        ends = (place, side - 1), (place, round((1 - length) * side))
        cv2.line(image, *ends, (30, 30, 40), max(1, side // 128), cv2.LINE_AA)
    return image


def _with_marks(image, ink):
    image, width = image.copy(), round(MARK * len(image))
    ends = np.r_[:width, -width:0]
    image[np.ix_(ends, ends)] = ink
    return image


def _inside(side, radius=INSIDE):
    line = np.linspace(-1, 1, side)
    return np.hypot(line[:, None], line) <= radius


def _skin_color(image):
    """Return the median of the skin, or of the border where there is no skin: float32, shape (3,)."""
    skin = skin_mask(image)
    return np.median(image[skin if skin.any() else ~_inside(len(image))], axis=0).astype(np.float32)


def _blend(image, other, where):
    """Put `other`, an image or a color, where the mask is true, with a soft edge."""
    weight = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.02 * len(image))[..., None]
    return (image * (1 - weight) + other * weight).round().astype(np.uint8)


CHANGES: dict[str, Callable] = {
    "lesion masked": lambda image: _blend(image, _skin_color(image), lesion_mask(image)),
    "border only": lambda image: _blend(image, _skin_color(image), _inside(len(image))),
    BORDERLESS: lambda image: _blend(image, _skin_color(image), ~_inside(len(image))),
    "ruler added": _with_ruler,
    "dark corners added": lambda image: _blend(image, 5, ~_inside(len(image), 1.15)),
    **{f"{name} marks added": partial(_with_marks, ink=ink) for name, ink in INKS.items()},
}
"""What is done to an image, an array of uint8, shape (side, side, 3), by name."""


def changed(images: np.ndarray, name: str) -> np.ndarray:
    """Apply one of `CHANGES` to uint8 RGB images, shape (n, side, side, 3).

    >>> changed(np.zeros((1, 64, 64, 3), np.uint8), "red marks added")[0, 0, 0].tolist()
    [200, 30, 40]
    """
    return np.stack(map_threads(CHANGES[name], list(images)))


def with_borders(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Put the border of another image around the middle of each; all are arrays of uint8, shape (n, side, side, 3).

    The border takes the skin color of the image: a model could recognize the other one's source by its color.

    >>> images = np.full((1, 64, 64, 3), 200, np.uint8)
    >>> with_borders(images, images).shape
    (1, 64, 64, 3)
    """

    def swap(pair):
        image, other = pair
        moved = np.clip(other + _skin_color(image) - _skin_color(other), 0, 255)
        return _blend(image, moved, ~_inside(len(image)))

    return np.stack(map_threads(swap, [*zip(images, others, strict=True)]))


def shortcuts(
    model: Model, dataset: ImageDataset, borders: ImageDataset | None = None, positive: str | None = None
) -> pd.DataFrame:
    """Predict the same images with changes that should matter, or should not, and judge the difference.

    With the lesion masked or only the border left, the ROC AUC should fall, rarely to 0.5. Nothing else should matter.
    Give `dataset` images that the model was not trained on (200 are enough: each is predicted 15 times), and as
    `borders` the training images; default: `dataset`. `positive` is as in `evaluate`. Of the model, which is an
    `ImageClassifier` or like one, it needs `labels`, `image_size` and `scores`.

    Returns a table, a row a change, the first one ``unchanged``, with three figures, each with its 95 % interval from a
    bootstrap over lesions (``_low``, ``_high``): ``roc_auc``; ``kept``, the share of ROC AUC - 0.5 that is left; and
    ``moved``, by which share of the ranking the average image moves up (-1 to 1). ``verdict`` is ``"flagged"`` if the
    whole interval lies beyond the ``bound`` (see `BOUNDS`), ``"not flagged"`` or, with fewer than `FEWEST` positive or
    other lesions, ``"too few to say"``. Raises ValueError if a dataset is augmented, lacks images with or without the
    positive label, or has labels that the model does not know.

    >>> found = shortcuts(model, test.sample(200, balanced=True), borders=train)  # doctest: +SKIP
    """
    borders = dataset if borders is None else borders
    positive = _checked(model, positive, dataset=dataset, borders=borders)
    images = _squares(model, dataset.paths)

    def evaluate(shown):
        return scored(model, dataset, model.scores(shown), positive).against(positive)

    before = evaluate(images)
    rows = {"unchanged": _figures(before, before, before)}
    rows |= {name: _figures(before, before, evaluate(changed(images, name))) for name in CHANGES}
    random, chosen = np.random.default_rng(0), borders.table["label"] == positive
    paths = [random.choice(borders.table.loc[each, "path"], len(dataset)) for each in (chosen, ~chosen)]
    ours, theirs = (evaluate(with_borders(images, _squares(model, each))) for each in paths)
    rows[SWAPPED] = _figures(before, theirs, ours)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("change")
    few = lesions(before, "roc_auc") < FEWEST
    judged = [_judge(name, row, few) for name, row in table.iterrows()]
    return table.join(pd.DataFrame(judged, table.index, ["bound", "verdict"]))


def corrupted(images: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Make uint8 RGB images, shape (n, side, side, 3), poorer by one of `CORRUPTIONS`.

    Severity 0 changes nothing, 5 is about the worst that a clinic would keep. The result is the same each time.

    >>> corrupted(np.full((1, 64, 64, 3), 200, np.uint8), "blur", 5).shape
    (1, 64, 64, 3)
    """
    augmenter = CORRUPTIONS[name](severity / 5, images.shape[1]) if severity else iaa.Identity()
    return Pipeline(augmenter, seed=0)(images, range(len(images)))


def corruptions(model: Model, dataset: ImageDataset, positive: str | None = None) -> pd.DataFrame:
    """Predict the same images, 200 are enough, made poorer in several ways and five severities.

    Returns a table by ``corruption`` and ``severity``, 0 for the images as they are: ``roc_auc`` with its 95 % interval
    (``low``, ``high``); ``changed``, the share of images whose decision at the model's threshold differs from severity
    0; and ``rejected``, the share beyond the model's outlier limit, NaN without one. Arguments and errors are those of
    `shortcuts`. Peer: Maron et al., A benchmark for neural network robustness in skin cancer classification, 2021.

    >>> found = corruptions(model, test.sample(200, balanced=True))  # doctest: +SKIP
    """
    positive = _checked(model, positive, dataset=dataset)
    images = _squares(model, dataset.paths)
    index = pd.MultiIndex.from_product([CORRUPTIONS, range(6)], names=["corruption", "severity"])
    poorer = [corrupted(images, *each) for each in index if each[1]]
    shown = np.concatenate([images, *poorer])  # at once, which takes a fraction of the time
    several = replace(dataset, table=pd.concat([dataset.table] * (1 + len(poorer)), ignore_index=True))
    found = scored(model, several, model.scores(shown), positive)  # type: ignore[attr-defined]
    limited = getattr(model, "outliers", None) is not None
    far = model.outlier_distance(shown) > 1 if limited else np.full(len(shown), np.nan)  # type: ignore[attr-defined]
    rejected = far.reshape(-1, len(images)).mean(axis=1)
    parts = [found.where(np.arange(len(shown)) // len(images) == n) for n in range(len(rejected))]
    table = pd.concat([part.against(positive).metrics(["roc_auc"]) for part in parts], ignore_index=True)
    changed = [(part.table["prediction"] != parts[0].table["prediction"]).mean() for part in parts]
    table = table.rename(columns={"value": "roc_auc"}).assign(changed=changed, rejected=rejected)
    number = (index.codes[1] > 0).cumsum() * (index.codes[1] > 0)  # severity 0 is the same for all
    return table.iloc[number].set_axis(index)


def _checked(model, positive, **datasets):
    """Return the positive label; ValueError if a dataset cannot be audited."""
    positive = positive_of(model, datasets["dataset"], positive)
    for name, each in datasets.items():
        if each.is_augmented:
            raise ValueError(f"{name} is augmented: audit on images as they were taken")
        if unknown := sorted({*each.labels} - {*as_labels(model.labels, "class")}):
            raise ValueError(f"{name} has labels that the model does not know: {', '.join(unknown)}")
        if positive not in each.labels or len(each.labels) < 2:
            has = ", ".join(each.labels) or "none"
            raise ValueError(f"{name} needs images with the label {positive!r} and others; its labels: {has}")
    return positive


def _squares(model, paths):
    """Decode what the model would see: array of uint8, shape (images, side, side, 3)."""
    interpolation = getattr(getattr(model, "backbone", None), "interpolation", "bilinear")
    return np.stack(map_threads(lambda path: decode(path, model.image_size, interpolation), [*paths]))


def _figures(before, first, second):
    """Compare the scores of `second` with those of `first` in the ranking of `before`: dict of figures."""
    rows, groups = before.rows_by_group
    known = before.scores[:, 1]
    now, then = (percentileofscore(known, each.scores[:, 1], "mean") / 100 for each in (second, first))
    moves = (now - then)[rows]
    drawn = np.concatenate([(each @ moves) / each.sum(axis=1) for each in metrics.draws(groups)])
    area, was = (np.append(each.metric("roc_auc"), each.draws("roc_auc")) for each in (second, before))
    kept, *kept_draws = (area - 0.5) / np.maximum(was - 0.5, LEAST)
    found = {
        "roc_auc": (float(area[0]), *second.interval("roc_auc")),
        "kept": (float(kept), *interval(kept, np.array(kept_draws))),
        "moved": (float(moves.mean()), *interval(moves.mean(), drawn)),
    }
    ends = ("", "_low", "_high")
    return {name + end: value for name in found for end, value in zip(ends, found[name], strict=True)}


def _judge(name, row, few):
    """Return bound and verdict of one change."""
    if name == "unchanged":
        return np.nan, ""
    figure = "kept" if name in HIDDEN else "moved"
    bound, low, high = BOUNDS.get(name, BOUNDS["moved"]), row[f"{figure}_low"], row[f"{figure}_high"]
    flagged = high < bound if name == BORDERLESS else low > bound or (figure == "moved" and high < -bound)
    return bound, "too few to say" if few else "flagged" if flagged else "not flagged"
