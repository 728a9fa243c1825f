"""Plots of images: as they are, augmented, explained, and as the shortcut audit changes them; `size` is in pixels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..checks import is_whole
from ..data.augmentation import Pipeline
from ..data.dataset import ImageDataset
from ..evaluation import audit
from ..images import ImageError, decode
from .style import add_credit, literal, panels, show, wrapped

if TYPE_CHECKING:
    from ..model.classifier import ImageClassifier


def grid(
    images: ImageDataset | pd.DataFrame,
    columns: int = 6,
    titles: Sequence[str] | None = None,
    size: int = 150,
) -> Figure:
    """Draw images in rows, with their labels, or other `titles`, and where they come from.

    `images` is a dataset, or a table with ``path`` and ``label``. With ``prediction`` too, as in `Evaluation.table`, a
    title says what a wrong image was taken for, and its score.

    >>> [ax.get_title() for ax in grid(dataset.sample(2, balanced=True), columns=2).axes]
    ['benign', 'malignant']
    """
    if not is_whole(columns, 1) or not is_whole(size, 1):
        raise ValueError(f"columns and size must be whole numbers from 1, not {columns!r} and {size!r}")
    table = images if isinstance(images, pd.DataFrame) else images.table
    titles = [*map(_title, table.to_dict("records"))] if titles is None else titles
    titles = ["\n".join(wrapped(line, 24) for line in str(title).splitlines()) for title in titles]
    rows, lines = max(1, -(-len(table) // columns)), max([1, *(1 + each.count("\n") for each in titles)])
    figure, axes = panels(rows, columns, 1.6 * columns, (1.65 + 0.2 * lines) * rows + 0.4)
    for ax, path, title in zip(axes.flat, table["path"], titles, strict=False):
        ax.set_title(title, fontsize=9)
        try:
            show(ax, path, size=size)
        except ImageError:
            ax.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8, color="0.4")
    return add_credit(figure, table)


def _title(row):
    seen = row.get("prediction", row["label"])
    title = row["label"] if seen == row["label"] else f"{row['label']}\npredicted {seen}"
    score = row.get(f"score_{seen}")
    return title if score is None else f"{title} {score:.2f}"


def examples(dataset: ImageDataset, column: str, each: int = 6) -> Figure:
    """Draw `each` images of the ten most frequent values of a column, such as a diagnosis: a row a value.

    >>> figure = examples(dataset, "sex", each=2)
    >>> [ax.get_ylabel().split()[0] for ax in figure.axes if ax.get_ylabel()]
    ['female', 'male']
    """
    counts = dataset.table[column].value_counts().head(10)
    figure, axes = panels(len(counts), each, 1.25 * each + 2, 1.25 * len(counts) + 0.3)
    chosen = []
    for row, (value, count) in zip(axes, counts.items(), strict=True):
        shown = dataset.table[dataset.table[column] == value]
        shown = shown.sample(min(each, len(shown)), random_state=0)
        chosen.append(shown)
        for ax, path in zip(row, shown["path"], strict=False):
            show(ax, path, size=120)
        labels = "/".join(sorted(shown["label"].unique()))
        name = f"{wrapped(value, 24)}\n{literal(labels)}, {count}"
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, multialignment="right")
    return add_credit(figure, pd.concat(chosen))


def pairs(pairs: pd.DataFrame) -> Figure:
    r"""Draw pairs of images, rows of `ImageDataset.near_duplicates`, side by side, with their distance and labels.

    >>> one, other = dataset.paths[:2]
    >>> row = {"path_a": one, "path_b": other, "label_a": "a", "label_b": "b", "distance": 3, "crosses_group": True}
    >>> pairs(pd.DataFrame([row])).axes[1].get_title()
    'b\nother lesion'
    """
    rows = max(1, -(-len(pairs) // 3))
    figure, axes = panels(rows, 6, 10, 2 * rows)
    for (left, right), pair in zip(axes.reshape(-1, 2), pairs.to_dict("records"), strict=False):
        same = {True: "other lesion", False: "same lesion"}.get(pair["crosses_group"], "lesion unknown")
        show(left, pair["path_a"], f"{pair['label_a']}\n{pair['distance']} bits apart")
        show(right, pair["path_b"], f"{pair['label_b']}\n{same}")
    return figure


def augmented(
    dataset: ImageDataset, images: int = 3, views: int = 6, seed: int = 0, size: int = 150
) -> Figure:
    """Draw a few images of a dataset from `augment_dataset`, each followed by augmented copies, its `views`.

    >>> from isicvision import augment_dataset, augmentation
    >>> figure = augmented(augment_dataset(dataset, augmentation.dermoscopy()), images=1, views=2)
    >>> [ax.get_title() for ax in figure.axes]
    ['original', 'view 1', 'view 2']
    """
    shown = dataset.sample(images, seed, balanced=True)
    pipeline = Pipeline(dataset.augmenters, seed)
    figure, axes = panels(len(shown), views + 1, 1.5 * (views + 1), 1.6 * len(shown) + 0.3)
    for number, (row, path) in enumerate(zip(axes, shown.paths, strict=True)):
        original = decode(path, size)
        keys = range(number * views, (number + 1) * views)
        copies = pipeline(np.repeat(original[None], views, axis=0), keys)
        for column, (ax, image) in enumerate(zip(row, [original, *copies], strict=True)):
            show(ax, image, (f"view {column}" if column else "original") if number == 0 else None)
    return add_credit(figure, shown.table)


def explained(model: ImageClassifier, path: str | os.PathLike, label: str | None = None) -> Figure:
    """Draw one image beside what in it speaks for a label, the positive one by default: red by `saliency.grad_cam`.

    >>> explained(model, "lesion.jpg").axes[1].get_title()  # doctest: +SKIP
    'speaks for malignant'
    """
    from ..model import saliency  # torch takes seconds to import

    label = model.positive if label is None else label
    image = decode(path, model.image_size, model.backbone.interpolation)
    map_ = saliency.grad_cam(model, image[None], label)[0]
    figure, axes = panels(1, 2, 5, 2.8)
    show(axes.flat[0], image, literal(os.path.basename(path)))
    show(axes.flat[1], saliency.overlay(image, map_), f"speaks for {literal(label)}")
    return figure


def changed(dataset: ImageDataset) -> Figure:
    """Draw what `audit.shortcuts` shows the model: all changes of one image, then those of the next.

    >>> [ax.get_title() for ax in changed(dataset.sample(1)).axes][:3]
    ['unchanged', 'lesion masked', 'border only']
    """
    images = np.stack([decode(path, 128) for path in dataset.paths])
    views = {"unchanged": images} | {name: audit.changed(images, name) for name in audit.CHANGES}
    views[audit.SWAPPED] = audit.with_borders(images, np.roll(images, 1, axis=0))
    columns = 7
    height = len(images) * -(-len(views) // columns)
    figure, axes = panels(height, columns, 1.45 * columns, 1.7 * height + 0.3)
    for number, block in enumerate(axes.reshape(len(images), -1)):
        for ax, (name, shown) in zip(block, views.items(), strict=False):
            show(ax, shown[number], name)
            ax.set_axis_on()  # a frame: white marks would vanish into the page
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("0.6")
    return add_credit(figure, dataset.table)
