"""Find out whether a model looks at the lesion: change the images around it, and see what becomes of the scores.

Peers: Bissoto et al., (De)Constructing bias on skin lesion datasets, 2019 (images without the lesion still tell the
label); Xiao et al., Noise or signal: the role of image backgrounds in object recognition, 2021 (backgrounds swapped);
Winkler et al., Association between surgical skin markings in dermoscopic images and diagnostic performance of a deep
learning convolutional neural network for melanoma recognition, 2019.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from .. import images as pixels
from .. import metrics
from ..data.skin import lesion_mask, skin_mask
from ..text import as_label, counted
from .comparison import FEWEST
from .evaluation import OTHERS, Evaluation, Model
from .intervals import interval

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset

SIDE = 256
"""Pixels of the square that a model is shown which has no ``image_size`` of its own."""
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
HIDDEN = {"lesion masked": "the lesion masked", "border only": "the border only"}
BOUNDS = {
    **{"lesion masked": 0.9, "border only": 0.8, "border masked": 0.7},
    **{"moved": 0.25, "dark corners added": 0.35, SWAPPED: 0.17},
}
"""By change, or ``moved`` for all others. No model without a shortcut came that far in tests/bench/bench_audit.py."""
LEAST = 0.05
"""What the unchanged images' ROC AUC is taken to lie above 0.5 at least, so that the share kept has a meaning."""


def changed(images: np.ndarray, name: str) -> np.ndarray:
    """Change uint8 RGB images, shape (n, side, side, 3), by the `name` of one of `CHANGES`; else raise ValueError."""
    if name not in CHANGES:
        raise ValueError(f"no change {name!r}; there are: {', '.join(CHANGES)}")
    return np.stack(pixels.map_threads(CHANGES[name], list(images)))


def with_borders(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Put the border of another image around the middle of each, in the color of its own skin.

    Without the second step the color of the skin would tell one source of images from another. All are arrays of
    uint8, shape (n, side, side, 3).
    """

    def swap(pair):
        image, other = pair
        moved = np.clip(other + _skin_color(image) - _skin_color(other), 0, 255)
        return _blend(image, moved, ~_inside(len(image)))

    return np.stack(pixels.map_threads(swap, [*zip(images, others, strict=True)]))


def _with_ruler(image):
    image, side = image.copy(), len(image)
    for number in range(24):
        place, length = round((0.04 + 0.04 * number) * side), 0.045 if number % 5 else 0.08
        ends = (place, side - 1), (place, round((1 - length) * side))
        cv2.line(image, *ends, (30, 30, 40), max(1, side // 128), cv2.LINE_AA)
    return image


def _with_marks(ink):
    def draw(image):
        image, width = image.copy(), round(MARK * len(image))
        for rows in (slice(width), slice(-width, None)):
            for columns in (slice(width), slice(-width, None)):
                image[rows, columns] = ink
        return image

    return draw


CHANGES = {
    "lesion masked": lambda image: _blend(image, _skin_color(image), lesion_mask(image)),
    "border only": lambda image: _blend(image, _skin_color(image), _inside(len(image))),
    "border masked": lambda image: _blend(image, _skin_color(image), ~_inside(len(image))),
    "ruler added": _with_ruler,
    "dark corners added": lambda image: _blend(image, 5, ~_inside(len(image), 1.15)),
    **{f"{name} marks added": _with_marks(ink) for name, ink in INKS.items()},
}
"""What is done to an image, an array of uint8, shape (side, side, 3), by name."""
JUDGED_BY = dict.fromkeys(("lesion masked", "border only", "border masked"), "kept")
"""Which figure decides; of all other changes it is ``moved``."""


def _inside(side, radius=INSIDE):
    line = np.linspace(-1, 1, side)
    return np.hypot(line[:, None], line) <= radius


def _skin_color(image):
    """Return the median of the skin, or where there is none of the border: float32, shape (3,)."""
    skin = skin_mask(image)
    return np.median(image[skin if skin.any() else ~_inside(len(image))], axis=0).astype(np.float32)


def _blend(image, other, where):
    """Put `other`, an image or a color, where the mask is true, with a soft edge."""
    weight = cv2.GaussianBlur(where.astype(np.float32), (0, 0), 0.02 * len(image))[..., None]
    return (image * (1 - weight) + other * weight).round().astype(np.uint8)


def shortcuts(
    model: Model, dataset: ImageDataset, borders: ImageDataset | None = None, positive: str | None = None
) -> pd.DataFrame:
    """Predict the same images again with changes that should not matter, or should, and judge the difference.

    * **lesion masked**, **border only**: the lesion, or all but the border, is filled with the color of the skin. ROC
      AUC should fall towards 0.5. It rarely falls the whole way: in HAM10000 the skin around tells a part of the label.
      Judged by the share that is kept of what ROC AUC lies above 0.5; flagged above 0.9 and 0.8.
    * **border masked**: what lies there should not matter. Flagged if less than 0.7 is kept.
    * **ruler**, **dark corners**, **marks** in the corners **added**: flagged if the average image moves past more
      than 0.25 of the images, in the order of their scores; by dark corners, which cover much more, past 0.35.
    * **border swapped**: each image with the border of a positive one, and again with that of another; what the model
      learnt of any border, be it known or not, is the difference of the two scores. Flagged above 0.17.

    A bound is exceeded if all of the 95 % interval lies beyond it. The bounds (`BOUNDS`) come from
    tests/bench/bench_audit.py, where twins of models were trained with and without a planted mark. What is not flagged
    may still be a shortcut: a weak one, one inside the lesion, or one that these changes do not touch.

    Parameters
    ----------
    model
        Or anything with ``labels`` and ``predict_proba(dataset)``, which is then shown BMP files in a temporary folder.
    dataset
        Images that the model was not trained on. Each is predicted 15 times; ``dataset.sample(200)`` will do.
    borders
        Whose borders are swapped in. Give the training images: they hold whatever the model could learn. Default:
        `dataset`.
    positive
        The label whose score is looked at, against all others. Default: that of the model's decision, or the last.

    Returns
    -------
    pandas.DataFrame
        A row a change, the first one ``unchanged``. Each figure with the ``_low`` and ``_high`` of its 95 % interval,
        from a bootstrap over lesions: ``roc_auc``; ``lost``, what it is below that of the unchanged images;
        ``kept``, the share of ROC AUC - 0.5 that is left of that of the unchanged images (1: all of it);
        ``shift``, by which the score changes on average; ``moved``, the same for the share of images (0 to 1) whose
        unchanged score is lower. Then ``bound``, ``verdict`` (``"flagged"``, ``"not flagged"`` or, with fewer than
        `FEWEST` positive or other lesions, ``"too few to say"``), and a ``sentence``.

    Raises
    ------
    ValueError
        If a dataset is augmented, empty, has labels that the model does not know, or no image with, or none
        without the positive label.
    isicvision.images.ImageError
        If images cannot be read.
    """
    decision, labels = getattr(model, "metadata", {}).get("decision") or {}, [*map(as_label, model.labels)]
    positive = as_label(positive) or decision.get("positive") or labels[-1]
    borders = dataset if borders is None else borders
    for each, name in ((dataset, "dataset"), (borders, "borders")):
        _check(each, name, labels, positive)

    column = labels.index(positive)
    images = _squares(model, dataset.paths)

    def evaluate(shown):
        return _evaluation(_predict(model, shown, dataset)[:, column], dataset, positive)

    before = evaluate(images)
    rows = {"unchanged": _figures(before, before, before)}
    for name in CHANGES:
        after = evaluate(changed(images, name))
        rows[name] = _figures(before, before, after)
    ours, theirs = (
        evaluate(with_borders(images, _squares(model, paths)))
        for paths in _drawn(borders, positive, len(dataset))
    )
    rows[SWAPPED] = _figures(before, theirs, ours)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("change")
    is_positive = before.table.groupby("group")["label"].agg(lambda labels: (labels == positive).any())
    lesions = int(is_positive.sum()), int((~is_positive).sum())
    judged = [_judge(name, row, positive, lesions) for name, row in table.iterrows()]
    return table.assign(**dict(zip(("bound", "verdict", "sentence"), zip(*judged, strict=True), strict=True)))


def _check(dataset, name, labels, positive):
    if dataset.is_augmented:
        raise ValueError(f"{name}: these images are augmented; audit on images as they were taken")
    if not len(dataset):
        raise ValueError(f"{name} holds no images")
    if positive not in labels:
        raise ValueError(f"positive label {positive!r} is not one of {', '.join(labels)}")
    if unknown := sorted(set(dataset.labels) - set(labels)):
        raise ValueError(f"{name} has labels that the model does not know: {', '.join(unknown)}")
    if positive not in dataset.labels or len(dataset.labels) < 2:
        raise ValueError(
            f"{name} has images of {', '.join(dataset.labels)} only; the audit needs some with the label "
            f"{positive!r}, and some without"
        )


def _squares(model, paths):
    """Decode what the model would see: array of uint8, shape (images, side, side, 3)."""
    side = getattr(model, "image_size", SIDE)
    interpolation = getattr(getattr(model, "backbone", None), "interpolation", "bilinear")
    return np.stack(pixels.map_threads(lambda path: pixels.decode(path, side, interpolation), [*paths]))


def _predict(model, images, dataset):
    """Predict decoded images: array of float, shape (images, labels)."""
    # an ImageClassifier needs no files, and its cache stays free of them
    if hasattr(model, "scores") and hasattr(model, "image_size"):
        return model.scores(images)
    with TemporaryDirectory(prefix="isicvision-audit-") as folder:
        paths = [str(Path(folder) / f"{number:06d}.bmp") for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(path)
        return model.predict_proba(replace(dataset, table=dataset.table.assign(path=paths)))


def _evaluation(scores, dataset, positive):
    table = dataset.table
    labels = table["label"].where(table["label"] == positive, OTHERS)
    return Evaluation.from_scores(labels, scores, table["group"], [OTHERS, positive], positive)


def _drawn(dataset, positive, count):
    """Draw `count` images with the positive label, and as many without: two arrays of paths."""
    random, table = np.random.default_rng(0), dataset.table
    is_positive = table["label"] == positive
    return [random.choice(table.loc[rows, "path"], count) for rows in (is_positive, ~is_positive)]


def _figures(before, first, second):
    """Compare the scores of `second` with those of `first`, in the order of those of `before`: dict of figures."""
    rows, groups = before.rows_by_group
    known = np.sort(before.scores[:, 1])

    def rank(evaluation):
        scores = evaluation.scores[:, 1]
        return sum(np.searchsorted(known, scores, side) for side in ("left", "right")) / (2 * len(known))

    differences = np.stack([second.scores[:, 1] - first.scores[:, 1], rank(second) - rank(first)], axis=1)
    drawn = np.concatenate(
        [
            (weights @ differences[rows]) / weights.sum(axis=1, keepdims=True)
            for weights in metrics.draws(groups)
        ]
    )
    area, areas = second.metric("roc_auc"), second.draws("roc_auc")
    known_area, known_areas = before.metric("roc_auc"), before.draws("roc_auc")
    shift, moved = differences.mean(axis=0)
    found = {
        "roc_auc": (area, areas),
        "lost": (known_area - area, known_areas - areas),
        "kept": tuple(
            (now - 0.5) / np.maximum(was - 0.5, LEAST)
            for now, was in ((area, known_area), (areas, known_areas))
        ),
        "shift": (shift, drawn[:, 0]),
        "moved": (moved, drawn[:, 1]),
    }
    row = {}
    for name, (value, draws) in found.items():
        row[name] = float(value)
        row[f"{name}_low"], row[f"{name}_high"] = interval(value, draws)
    row["roc_auc_low"], row["roc_auc_high"] = second.interval("roc_auc")  # as everywhere
    return row


def _judge(name, row, positive, lesions):
    """Return bound, verdict and sentence of one change; `lesions` are those with, and without the positive label."""
    figure = JUDGED_BY.get(name, "moved")
    value, low, high = (row[figure + end] for end in ("", "_low", "_high"))
    if name == "unchanged":
        area = "{roc_auc:.2f} [{roc_auc_low:.2f}, {roc_auc_high:.2f}]".format(**row)
        return np.nan, "", f"ROC AUC of the unchanged images: {area}."
    bound = BOUNDS[name if name in BOUNDS else figure]
    if min(lesions) < FEWEST:
        counts = f"{counted(lesions[0], 'lesion')} with the label {positive}, {lesions[1]} without"
        return bound, "too few to say", f"Too few to say: {counts}; {FEWEST} of each are the least."
    flagged = high < bound if name == BORDERLESS else low > bound or (figure == "moved" and high < -bound)
    sentence = _say(name, figure, value, low, high, positive, flagged)
    return bound, "flagged" if flagged else "not flagged", sentence


def _say(name, figure, value, low, high, positive, flagged):
    """Put a verdict in words."""
    if figure == "moved":
        least, most = sorted((abs(low), abs(high))) if low * high > 0 else (0, max(abs(low), abs(high)))
        past = f"past {abs(value):.0%} of the others [{least:.0%}, {most:.0%}]"
        towards = f"{'towards' if value > 0 else 'away from'} {positive}"
        if name == SWAPPED:
            rest = "the model has learnt from borders" if flagged else "no more than the skin around tells"
            return f"The border of a {positive} image moves the average one {past}, {towards}: {rest}."
        rest = "the model goes by such things" if flagged else "too little to flag"
        return f"With {name} the average image moves {past}, {towards}: {rest}."
    share = f"{value:.0%} [{low:.0%}, {high:.0%}] of what the ROC AUC lies above 0.5 is kept"
    if name == BORDERLESS:
        rest = "the model rests on what lies there" if flagged else "too much to flag"
        return f"With the border masked {share}: {rest}."
    rest = "of what is left nothing tells the label"
    if low > 0:
        rest = "what is left tells something of the label, as in most real images"
    if flagged:
        rest = "something besides the lesion tells the label"
    return f"With {HIDDEN[name]} {share}: {rest}."
