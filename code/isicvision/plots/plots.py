"""Images to look at: each function draws one thing and returns its axes or figure."""

from __future__ import annotations

import base64
import html
import io
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import images as pixels
from ..checks import is_whole
from ..data.splitting import group_count, group_words
from ..files import user_path
from ..text import counted, printable

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset
    from ..evaluation.evaluation import Evaluation
    from ..model.rangetest import RangeTest
    from ..model.training import History

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Of the labels in their sorted order: Okabe and Ito's palette, distinct for color-blind eyes."""
BESIDE = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
"""Place of a legend where bars or points may stand anywhere."""


def colors(labels: Iterable[str]) -> dict[str, str]:
    """Return the color of each label."""
    return {label: COLORS[n % len(COLORS)] for n, label in enumerate(labels)}


def ink(color: Sequence[float]) -> str:
    """Return the one of black and white that can be read on `color` (RGB from 0 to 1): a contrast of 4.5 at least.

    By the relative luminance of WCAG 2.2, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance.
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return "black" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.18 else "white"


def literal(text: object, most: int = 60) -> str:
    """Return a text of the data fit to draw as it stands: no formula, no control characters, each line cut to `most`.

    Matplotlib takes what stands between two dollar signs for a formula, and leaves names that begin with ``_`` out of
    legends.
    """
    lines = re.split(r"\r?\n|\r", printable(text))
    lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    drawn = re.sub(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]", " ", "\n".join(lines)).replace("$", r"\$")
    return f" {drawn}" if drawn.startswith("_") else drawn


def class_balance(dataset: ImageDataset, ax: Axes | None = None) -> Axes:
    """Draw images and groups (lesions) per label as bars."""
    counts = dataset.summary().drop(index="all")
    known = group_count(dataset.table)["groups"] is not None
    ax = ax or plt.subplots(figsize=(5, 1 + 0.6 * len(counts)), layout="constrained")[1]
    palette = colors(dataset.labels)
    for row, (label, count) in enumerate(counts.iterrows()):
        ax.barh(row - 0.2, count["images"], 0.4, color=palette[label])
        groups = count["groups"] if known else 0
        ax.barh(row + 0.2, groups, 0.4, color=palette[label], alpha=0.5)
        ax.annotate(f" {counted(count['images'], 'image')}", (count["images"], row - 0.2), va="center")
        lesions = f" {counted(groups, 'lesion')} (or groups)" if known else " lesions unknown"
        ax.annotate(lesions, (groups, row + 0.2), va="center")
    ax.set(
        yticks=range(len(counts)),
        yticklabels=[*map(literal, counts.index)],
        title=f"{len(dataset):,} images by label",
    )
    ax.set_xlim(0, counts["images"].max() * 1.55)
    ax.invert_yaxis()
    return ax


def distribution(dataset: ImageDataset, column: str, ax: Axes | None = None) -> Axes:
    """Draw how often each value of a metadata column occurs, per label; missing values are a bar too."""
    ax = ax or plt.subplots(figsize=(6, 2.8), layout="constrained")[1]
    if column not in dataset.table:
        raise ValueError(f"no column {column!r}; there are: {', '.join(dataset.table.columns)}")
    values = dataset.table[column]
    if values.dtype.kind == "f":
        values = values.map(lambda value: f"{value:g}" if value == value else "missing")
    counts = pd.crosstab(values.fillna("missing"), dataset.table["label"])
    order = dataset.table[column].dropna().drop_duplicates().sort_values()
    order = [f"{value:g}" if dataset.table[column].dtype.kind == "f" else value for value in order]
    counts = counts.reindex([*order, *["missing"] * ("missing" in counts.index)])
    counts.index = [name if len(name) <= 30 else f"{name[:29]}…" for name in map(str, counts.index)]
    shares = counts / counts.sum()
    width = 0.8 / len(dataset.labels)
    for number, (label, color) in enumerate(colors(dataset.labels).items()):
        places = np.arange(len(counts)) + (number - (len(dataset.labels) - 1) / 2) * width
        ax.bar(
            places, shares[label], width, color=color, label=f"{literal(label)} (n = {counts[label].sum()})"
        )
    ax.set(ylabel="share of the label", title=literal(column))
    ax.set_xticks(range(len(counts)), [*map(literal, counts.index)])
    if len("".join(counts.index)) > 30:
        plt.setp(ax.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
    _legend(ax, ax, **BESIDE)
    return ax


def measures(dataset: ImageDataset, columns: Sequence[str] | None = None) -> Figure:
    """Draw how measures are spread: small multiples of the columns of numbers that vary, a row a label.

    A box is the middle half of the label's images with their median, its line 95 % of them. Of a measure that is the
    same for most images, as where few have a ruler, a bar shows how many have more.

    Parameters
    ----------
    dataset
        Checked, unless `columns` are named.
    columns
        Default: the numbers among `quality.MEASURES`.
    """
    from ..data.measures import MEASURES

    table, palette = dataset.table, colors(dataset.labels)
    columns = [
        column
        for column in (MEASURES if columns is None else columns)
        if column in table and table[column].dtype.kind in "iuf" and table[column].nunique() > 1
    ]
    rows, height = max(1, -(-len(columns) // 4)), 0.8 + 0.24 * len(palette)
    figure, axes = plt.subplots(
        rows, 4, figsize=(11, height * rows + 0.3), squeeze=False, sharey=True, layout="constrained"
    )
    for ax in axes.flat[len(columns) :]:
        ax.set_axis_off()
    for ax, column in zip(axes.flat, columns, strict=False):
        least = table[column].min()
        rare = bool((table[column].dropna() == least).mean() > 0.7)
        for place, (label, color) in enumerate(palette.items()):
            values = table.loc[table["label"] == label, column].dropna()
            if rare:
                ax.barh(place, (values > least).mean(), 0.7, color=color, alpha=0.6)
            else:
                low, first, middle, third, high = values.quantile([0.025, 0.25, 0.5, 0.75, 0.975])
                ax.hlines(place, low, high, color=color)
                ax.barh(place, third - first, 0.7, left=first, color=color, alpha=0.6)
                ax.vlines(middle, place - 0.35, place + 0.35, color="black")
        if rare:
            ax.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
        ax.set_title(f"{literal(column)}: share above {least:g}" if rare else literal(column), fontsize=10)
        ax.set_yticks(range(len(palette)), [*map(literal, palette)])
        ax.xaxis.get_major_locator().set_params(nbins=5)
    axes[0, 0].invert_yaxis()
    note = "box: half of the label's images, and their median; line: 95 % of them"
    figure.supxlabel(note, fontsize=9, color="0.4")
    return figure


def missing(shares: pd.DataFrame) -> Figure:
    """Draw the share of missing values of the columns that lack some, per label, as `datareport.missing` gives it."""
    shown, labels = shares[shares["all"] > 0], sorted(shares.columns.drop("all"))
    height = 1.1 + len(shown) * (0.15 + 0.1 * len(labels))
    figure, ax = plt.subplots(figsize=(7, height), layout="constrained")
    ax.barh(range(len(shown)), shown["all"], color="0.85", label="all")
    for number, (label, color) in enumerate(colors(labels).items()):
        places = np.arange(len(shown)) + 0.7 * ((number + 0.5) / len(labels) - 0.5)
        ax.plot(shown[label], places, "o", color=color, label=literal(label), markersize=5, clip_on=False)
    ax.set_yticks(range(len(shown)), [*map(literal, shown.index)])
    ax.set_title(f"What is missing: {len(shares) - len(shown)} of {len(shares)} columns lack nothing")
    ax.set(xlim=(0, max(0.1, 1.05 * shares.max(axis=None))), xlabel="share of images without a value")
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.invert_yaxis()
    _legend(ax, ax, **BESIDE)
    return figure


def examples(
    dataset: ImageDataset, column: str, each: int = 6, most: int = 10, seed: int = 0, size: int = 120
) -> Figure:
    """Draw images of each value of a column, a row a value, the frequent ones first.

    Parameters
    ----------
    column
        A diagnosis, say.
    each
        Images a value.
    most
        Values shown, the most frequent ones.
    size
        Side of each image in pixels.
    """
    counts = dataset.table[column].value_counts().head(most)
    figure, axes = _panels(len(counts), each, 1.25 * each + 2, 1.25 * len(counts) + 0.3)
    chosen = []
    for row, (value, count) in zip(axes, counts.items(), strict=True):
        shown = dataset.table[dataset.table[column] == value]
        shown = shown.sample(min(each, len(shown)), random_state=seed)
        chosen.append(shown)
        for ax, path in zip(row, shown["path"], strict=False):
            ax.imshow(pixels.decode(path, size))
        labels = "/".join(sorted(shown["label"].unique()))
        name = f"{literal(textwrap.fill(str(value), 24))}\n{literal(labels)}, {count}"
        row[0].set_axis_on()
        row[0].set(xticks=[], yticks=[], frame_on=False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9, multialignment="right")
    figure.supxlabel(literal(credit(pd.concat(chosen)), 200), fontsize=8, color="0.4")
    return figure


def associations(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well each column tells the label, as `datareport.associations` gives it: points with intervals."""
    shown = table.dropna(subset="auc").reset_index(drop=True)
    ax = ax or plt.subplots(figsize=(7.5, 1.2 + 0.25 * len(shown)), layout="constrained")[1]
    for role, color in colors(sorted(shown["role"].unique())).items():
        rows = shown[shown["role"] == role]
        ax.hlines(rows.index, rows["low"], rows["high"], color=color, lw=2)
        ax.plot(rows["auc"], rows.index, "o", color=color, label=literal(role))
    several = shown["of"].nunique() > 1
    names = shown["column"] + (" (" + shown["of"] + ")" if several else "")
    ax.axvline(0.5, linestyle=":", color="0.5")
    ax.set_yticks(range(len(shown)), [*map(literal, names)])
    ax.set(
        xlim=(-0.02, 1.02),
        xlabel="ROC AUC of the column alone; 0.5 tells nothing, 0 and 1 everything",
        title="What tells a label (in brackets: which)",
    )
    if not several and len(shown):
        ax.set_title(f"What tells {literal(shown['of'].iloc[0])}")
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="lower left")
    return ax


def pairs(pairs: pd.DataFrame, columns: int = 3, size: int = 150) -> Figure:
    """Draw pairs of images side by side, with their distance and labels.

    Parameters
    ----------
    pairs
        Rows as `ImageDataset.near_duplicates` gives them.
    columns
        Pairs in a row.
    size
        Side of each image in pixels.
    """
    rows = max(1, -(-len(pairs) // columns))
    figure, axes = _panels(rows, 2 * columns, 3.4 * columns, 2 * rows)
    for (left, right), pair in zip(axes.reshape(-1, 2), pairs.to_dict("records"), strict=False):
        left.imshow(pixels.decode(pair["path_a"], size))
        right.imshow(pixels.decode(pair["path_b"], size))
        same = {True: "other lesion", False: "same lesion"}.get(pair["crosses_group"], "lesion unknown")
        left.set_title(f"{literal(pair['label_a'])}\n{pair['distance']} bits apart", fontsize=9)
        right.set_title(f"{literal(pair['label_b'])}\n{same}", fontsize=9)
    return figure


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure to a file and close it, so that a notebook does not show it a second time; return the path."""
    path = user_path(path)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def grid(
    images: ImageDataset | pd.DataFrame,
    columns: int = 6,
    titles: Sequence[str] | None = None,
    size: int = 150,
) -> Figure:
    """Draw images in rows, with their labels and where they come from.

    Parameters
    ----------
    images
        A table with ``path`` and ``label``; with ``prediction`` too, wrong ones say what they were taken for, and
        with the columns of `Evaluation.table` each its score for that. The columns ``attribution`` and
        ``copyright_license``, where present, make the caption.
    titles
        Instead of the labels.
    size
        Side of each image in pixels.
    """
    if not is_whole(columns, 1) or not is_whole(size, 1):
        raise ValueError(f"columns and size are whole numbers from 1, not {columns!r} and {size!r}")
    table = images if isinstance(images, pd.DataFrame) else images.table
    titles = [*map(_title, table.to_dict("records"))] if titles is None else [*map(printable, titles)]
    rows, lines = max(1, -(-len(table) // columns)), max([1, *(1 + each.count("\n") for each in titles)])
    figure, axes = _panels(rows, columns, 1.6 * columns, (1.65 + 0.2 * lines) * rows + 0.4)
    for ax, path, title in zip(axes.flat, table["path"], titles, strict=False):
        try:
            ax.imshow(pixels.decode(path, size))
        except pixels.ImageError:
            ax.text(0.5, 0.5, "cannot be read", ha="center", va="center", fontsize=8, color="0.4")
        ax.set_title(literal(title), fontsize=9)
    figure.supxlabel(literal(credit(table), 200), fontsize=8, color="0.4")
    return figure


def _title(row):
    seen = row.get("prediction", row["label"])
    title = row["label"] if seen == row["label"] else f"{row['label']}\nseen as {seen}"
    score = row.get(f"score_{seen}")
    return title if score is None else f"{title} {score:.2f}"


def _panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure of `width` x `height` inches and its axes, array of shape (rows, columns), for images."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def credit(table: pd.DataFrame) -> str:
    """Return the attributions of the images of a table in one line, or an empty string."""
    if "attribution" not in table:
        return ""
    names = [str(name) for name in table["attribution"].dropna().unique()]
    licenses = sorted(table["copyright_license"].dropna().unique()) if "copyright_license" in table else []
    shown = "; ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    return f"{shown} ({', '.join(licenses)})" if licenses else shown


def augmented(
    dataset: ImageDataset, images: int = 3, views: int = 6, seed: int = 0, size: int = 150
) -> Figure:
    """Draw a few images of an augmented dataset, each followed by what its pipelines make of it.

    Parameters
    ----------
    dataset
        As `augment_dataset` returns it without a folder.
    images, views
        Rows, fewer if the dataset is smaller, and augmented images in each.
    size
        Side of each image in pixels.
    """
    from ..data.augmentation import Pipeline

    shown = dataset.sample(images, seed, balanced=True)
    pipeline = Pipeline(dataset.augmenters, seed)
    figure, axes = _panels(len(shown), views + 1, 1.5 * (views + 1), 1.6 * len(shown) + 0.3)
    for number, (row, path) in enumerate(zip(axes, shown.paths, strict=True)):
        original = pixels.decode(path, size)
        keys = range(number * views, (number + 1) * views)
        copies = pipeline(np.repeat(original[None], views, axis=0), keys)
        for column, (ax, image) in enumerate(zip(row, [original, *copies], strict=True)):
            ax.imshow(image)
            if number == 0:
                ax.set_title("original" if column == 0 else f"view {column}", fontsize=9)
    figure.supxlabel(literal(credit(shown.table), 200), fontsize=8, color="0.4")
    return figure


def history(history: History) -> Figure:
    """Draw loss, accuracy, ROC AUC and learning rate by epoch, from what `ImageClassifier.fit` returns.

    Several networks (``members``) stand side by side.
    """
    figure, axes = plt.subplots(1, 4, figsize=(13, 2.8), layout="constrained")
    table = history.table
    networks = [rows for _, rows in table.groupby("network")] if "network" in table else [table]
    for ax, name in zip(axes, ("loss", "accuracy", "roc_auc"), strict=False):
        for part, style, color in (("train", "o--", COLORS[0]), ("validation", "o-", COLORS[1])):
            if f"{part}_{name}" in table:
                for number, rows in enumerate(networks):
                    label = None if number else part
                    ax.plot(rows.index, rows[f"{part}_{name}"], style, color=color, label=label, markersize=4)
        ax.set(xlabel="epoch", title=name.replace("roc_auc", "ROC AUC"))
        if ax.lines:
            ax.legend(frameon=False)
    for rows in networks:
        axes[3].step(rows.index, rows["learning_rate"], where="mid", color="0.3")
    axes[3].set(xlabel="epoch", title="learning rate", yscale="log")
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
        for rows in networks[1:]:
            ax.axvline(rows.index[0] - 0.5, color="0.8", linewidth=0.8)
    return figure


def live_history() -> Callable[[History], None]:
    """Return a function for ``fit(on_epoch=…)`` that draws the history so far in the notebook, anew each epoch."""
    from IPython.display import display  # notebooks have it; nothing else needs it

    handle = display(display_id=True)

    def draw(so_far):
        figure = history(so_far)
        handle.update(figure)
        plt.close(figure)

    return draw


def learning_rates(found: RangeTest, ax: Axes | None = None) -> Axes:
    """Draw the range test of `ImageClassifier.find_learning_rate`: the loss against the rate, and the suggestion."""
    ax = ax or plt.subplots(figsize=(5.5, 3), layout="constrained")[1]
    table, suggestion = found.table, found.suggestion
    ax.plot(table["learning_rate"], table["loss"], color="0.8", label="each step")
    ax.plot(table["learning_rate"], table["smooth_loss"], color=COLORS[0], label="smoothed")
    ax.axvline(suggestion, linestyle=":", color=COLORS[1], label=f"suggestion {suggestion:g}")
    low, high = table["smooth_loss"].min(), table["smooth_loss"].iloc[0]
    ax.set(xscale="log", ylim=(low - 0.5 * (high - low) - 0.02, high + 1.5 * (high - low) + 0.05))
    ax.set(xlabel="learning rate", ylabel="loss", title="Learning rate range test")
    ax.legend(frameon=False)
    return ax


def measured(table: pd.DataFrame, setting: str, ax: Axes | None = None) -> Axes:
    """Draw what the values of one setting did to the ROC AUC, all settings on one scale, and how long each took.

    Parameters
    ----------
    table
        As tests/bench/bench_settings.py writes it: setting, value, images, roc_auc, low, high, seconds. The row
        ``common`` stands for the value that all other settings share. From the least to the highest of it and the
        rows ``seed`` goes a gray band: what chance alone does.
    """
    rows = table[table["setting"].isin([setting, "common"])].astype({"value": object, "common_value": object})
    is_common = rows["setting"] == "common"
    if setting == "images":
        rows["value"] = rows["images"]
    else:
        rows.loc[is_common, "value"] = rows.loc[~is_common, "common_value"].iloc[0]
    numbers = pd.to_numeric(rows["value"], errors="coerce")
    rows = rows.assign(order=numbers).sort_values("order", kind="stable", ignore_index=True)
    ax = ax or plt.subplots(figsize=(8, 2.8), layout="constrained")[1]
    chance = table["roc_auc"][table["setting"].isin(["common", "seed"])]
    ax.axhspan(chance.min(), chance.max(), color="0.9", label="chance: other seeds")
    for place, row in rows.iterrows():
        common = row["setting"] == "common"
        color = COLORS[1] if common else COLORS[0]
        ax.vlines(place, row["low"], row["high"], color=color, lw=2)
        ax.plot(place, row["roc_auc"], "o", color=color, label="common to all plots" if common else "changed")
        area = row["roc_auc"]
        ax.annotate(f"{area:.3f}", (place, area), xytext=(6, -3), textcoords="offset points")
    names = [f"{literal(_short(row['value']))}\n{row['seconds']:.0f} s" for _, row in rows.iterrows()]
    ax.set_xticks(range(len(rows)), names)
    ax.set(xlim=(-0.5, len(rows) - 0.3), ylim=(table["low"].min() - 0.01, table["high"].max() + 0.01))
    ax.set(xlabel=f"{setting}, and the time of the training", ylabel="ROC AUC", title=setting)
    _legend(ax, ax, **BESIDE)
    return ax


def _short(value):
    number = pd.to_numeric(value, errors="coerce")
    return textwrap.fill(str(value), 20) if pd.isna(number) else f"{number:g}"


def roc(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of the positive label with its 95 % band, the area and its interval, and the threshold."""
    ax = ax or plt.subplots(figsize=(4.6, 4.8), layout="constrained")[1]
    curve, bands = evaluation.roc(), evaluation.bands()
    low, high = bands["recall_low"], bands["recall_high"]
    ax.fill_between(bands["place"], low, high, color=COLORS[1], alpha=0.2, lw=0)
    label = _area(evaluation, "roc_auc")
    ax.plot(curve["false_positive_rate"], curve["recall"], color=COLORS[1], label=label)
    _mark_threshold(ax, evaluation, 1 - evaluation.metric("specificity"), evaluation.metric("recall"))
    ax.plot([0, 1], [0, 1], ":", color="0.5", label="chance")
    ax.set(xlabel="false positive rate (1 - specificity)", ylabel="recall (sensitivity)", aspect="equal")
    ax.set_title(f"ROC, {literal(evaluation.positive)} (n = {len(evaluation.table)})", fontsize=10)
    legend_below(ax)
    return ax


def precision_recall(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the precision-recall curve of the positive label: its 95 % band, average precision, and the threshold."""
    ax = ax or plt.subplots(figsize=(4.6, 4.8), layout="constrained")[1]
    curve, bands = evaluation.precision_recall(), evaluation.bands()
    low, high = bands["precision_low"], bands["precision_high"]
    ax.fill_between(bands["place"], low, high, color=COLORS[1], alpha=0.2, lw=0)
    label = _area(evaluation, "average_precision")
    ax.plot(curve["recall"], curve["precision"], drawstyle="steps-post", color=COLORS[1], label=label)
    _mark_threshold(ax, evaluation, evaluation.metric("recall"), evaluation.metric("precision"))
    share = (evaluation.table["label"] == evaluation.positive).mean()
    ax.axhline(share, linestyle=":", color="0.5", label=f"chance ({share:.2f})")
    ax.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    ax.set_title(
        f"Precision and recall, {literal(evaluation.positive)} (n = {len(evaluation.table)})", fontsize=10
    )
    legend_below(ax)
    return ax


def legend_below(ax: Axes) -> None:
    """Put the legend below the axes, where it hides no curve."""
    _legend(ax, ax, loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4.2, fontsize="small")


def _legend(owner, ax, **place):
    """Give the axes, or their figure, a legend that has each name once."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    owner.legend(handles.values(), handles, frameon=False, **place)


def _threshold(evaluation):
    """Return the threshold in use, or None: more than two classes have none."""
    if len(evaluation.classes) == 2:
        return 0.5 if evaluation.threshold is None else evaluation.threshold
    return None


def _mark_threshold(ax, evaluation, x, y):
    if (threshold := _threshold(evaluation)) is not None:
        ax.plot(x, y, "o", color="black", label=f"at threshold {threshold:.3f}")


def _area(evaluation, name):
    if len(evaluation.classes) > 2:  # the area of METRICS is then the mean over the classes, not this curve's
        return f"{literal(evaluation.positive)} against the others"
    title = {"roc_auc": "area", "average_precision": "average precision"}[name]
    return f"{title} {evaluation.text(name)}"


def confusion(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix as counts, shaded by the share of the true label."""
    counts = evaluation.confusion_matrix()
    side = 1.2 + 0.9 * len(counts)
    ax = ax or plt.subplots(figsize=(side + 0.6, side), layout="constrained")[1]
    shares = counts.to_numpy() / np.maximum(counts.sum(axis=1).to_numpy()[:, None], 1)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts.to_numpy()):
        share = shares[row, column]
        color = ink(image.cmap(share)[:3])
        ax.text(column, row, f"{count}\n{share:.0%}", ha="center", va="center", color=color)
    ax.set_xticks(range(len(counts)), [*map(literal, counts.columns)])
    ax.set_yticks(range(len(counts)), [*map(literal, counts.index)], rotation=90, va="center")
    ax.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix (n = {len(evaluation.table)})")
    return ax


def scores(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw how the scores of the positive label are spread, for each true label, or for it and the others together."""
    ax = ax or plt.subplots(figsize=(5, 3.2), layout="constrained")[1]
    threshold = _threshold(evaluation)
    if len(evaluation.classes) > 3:  # more histograms than that hide each other
        evaluation = evaluation.against(evaluation.positive)
    for label, color in colors(evaluation.classes).items():
        values = evaluation.table.loc[evaluation.table["label"] == label, f"score_{evaluation.positive}"]
        share = np.full(len(values), 1 / max(1, len(values)))  # so that a rare label is seen too
        name = f"{literal(label)} (n = {len(values)})"
        ax.hist(values, 20, range=(0, 1), weights=share, alpha=0.6, color=color, label=name)
    if threshold is not None:
        ax.axvline(threshold, linestyle="--", color="black", label=f"threshold {threshold:.3f}")
    ax.set(xlabel=f"score for {literal(evaluation.positive)}", ylabel="share of the label's images")
    ax.set_title("Scores by true label")
    ax.legend(frameon=False)
    return ax


def reliability(evaluation: Evaluation, ax: Axes | None = None, bins: int = 10) -> Axes:
    """Draw how often the positive label is true where its score is so high: see `decisions.reliability`."""
    from ..evaluation.decisions import reliability

    table = reliability(evaluation, bins)
    ax = ax or plt.subplots(figsize=(4.2, 4.2), layout="constrained")[1]
    ax.plot([0, 1], [0, 1], ":", color="0.5", label="scores that are probabilities")
    ax.vlines(table["score"], table["low"], table["high"], color=COLORS[1], lw=2)
    ax.plot(table["score"], table["share"], "o-", color=COLORS[1], label=f"ECE {evaluation.text('ece')}")
    ax.set(
        xlabel=f"score for {literal(evaluation.positive)}",
        ylabel=f"share that is {literal(evaluation.positive)}",
        aspect="equal",
    )
    ax.set_title(f"Reliability (n = {len(evaluation.table)})")
    legend_below(ax)
    return ax


def net_benefit(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw a decision curve, as `decisions.net_benefit` gives it: the model against referring all and none.

    A vertical line is the risk that the model's own threshold, a score, stands for at that prevalence.
    """
    ax = ax or plt.subplots(figsize=(5, 4), layout="constrained")[1]
    for name, style, color in (("model", "-", COLORS[1]), ("all", "--", "0.4"), ("none", ":", "0.4")):
        label = name if name == "model" else f"refer {name}"
        ax.plot(table["threshold"], table[name], style, color=color, label=label)
    if "risk" in table.attrs:
        label = "model's threshold: score {score:.3f}, risk {risk:.3f}".format(**table.attrs)
        ax.axvline(table.attrs["risk"], color=COLORS[0], label=label)
    top = max(table["model"].max(), table["all"].max())
    ax.set(xlabel="risk from which on one refers (not the score)", ylabel="net benefit")
    ax.set(ylim=(-0.2 * top, 1.1 * top), title="Net benefit per image")
    legend_below(ax)
    return ax


def slices(table: pd.DataFrame, metric: str = "roc_auc", ax: Axes | None = None) -> Axes:
    """Draw the metric of each value of a column with its interval, as `comparison.slices` gives it."""
    ax = ax or plt.subplots(figsize=(7, 1.7 + 0.32 * len(table)), layout="constrained")[1]
    styles = {
        "differs": (COLORS[1], "o"),
        "no difference seen": (COLORS[0], "o"),
        "too few to say": ("0.6", "x"),
    }
    for place, (_, row) in enumerate(table.iterrows()):
        color, marker = styles[row["verdict"]]
        ax.hlines(place, row["low"], row["high"], color=color, lw=2)
        ax.plot(row["value"], place, marker, color=color, label=row["verdict"], clip_on=False)
    of = literal(table.attrs.get("positive", "positive"))
    names = [
        f"{literal(value)}\n{counted(row['images'], 'image')}, "
        f"{row['positive']} of {counted(row['lesions'], 'lesion')} {of}"
        for value, row in table.iterrows()
    ]
    ax.set_yticks(range(len(table)), names, fontsize=8)
    ax.set(
        xlabel=metric.replace("roc_auc", "ROC AUC").replace("_", " "), title=f"By {literal(table.index.name)}"
    )
    legend_below(ax)
    ax.set_ylim(len(table) - 0.5, -0.5)
    ends = table[["value", "low", "high"]]
    # not only where the points are: small differences shall look small
    ax.set_xlim(0.5 if ends.min(axis=None) >= 0.5 else 0, max(1, ends.max(axis=None)))
    return ax


def changed(dataset: ImageDataset, names: Sequence[str] | None = None, size: int = 128) -> Figure:
    """Draw what `audit.shortcuts` shows the model: all changes of one image, then those of the next.

    Parameters
    ----------
    dataset
        A few images.
    names
        Of `audit.CHANGES`; default: all, and the border of the next image.
    size
        Side of each image in pixels.
    """
    from ..evaluation import audit

    images = np.stack([pixels.decode(path, size) for path in dataset.paths])
    views = {"unchanged": images}
    views |= {name: audit.changed(images, name) for name in (audit.CHANGES if names is None else names)}
    if names is None:
        views[audit.SWAPPED] = audit.with_borders(images, np.roll(images, 1, axis=0))
    rows = -(-len(views) // 7)
    columns = -(-len(views) // rows)
    height = len(images) * rows
    figure, axes = _panels(height, columns, 1.45 * columns, 1.7 * height + 0.3)
    for number, block in enumerate(axes.reshape(len(images), -1)):
        for ax, (name, shown) in zip(block, views.items(), strict=False):
            ax.imshow(shown[number])
            ax.set_title(name, fontsize=9)
            ax.set_axis_on()  # a frame: white marks would vanish into the page
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_color("0.6")
    figure.supxlabel(literal(credit(dataset.table), 200), fontsize=8, color="0.4")
    return figure


def audit(table: pd.DataFrame) -> Figure:
    """Draw the result of `audit.shortcuts`: each figure with its interval, and the bounds as dashed lines."""
    from ..evaluation.audit import JUDGED_BY

    of_area = table[(table.index == "unchanged") | table.index.isin(list(JUDGED_BY))].copy()
    moved = table.drop(of_area.index)
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.27 * len(moved)), layout="constrained")
    _intervals(axes[0], of_area, "kept")
    _bounds(axes[0], of_area["bound"])
    axes[0].axvline(0, linestyle=":", color="0.5")
    axes[0].set(xlabel="kept: share of ROC AUC - 0.5 (dotted: chance)", title="With a part hidden")
    _intervals(axes[1], moved, "moved")
    _bounds(axes[1], moved["bound"], -moved["bound"])
    axes[1].axvline(0, linestyle=":", color="0.5")
    axes[1].set_title("With something added")
    axes[1].set_xlabel(
        "moved: by how much of the ranking (0 to 1)\nan average image moves up (+) or down (-)"
    )
    _legend(figure, axes[1], loc="outside lower center", ncols=4)
    return figure


def _bounds(ax, *sides):
    for place, bounds in enumerate(zip(*sides, strict=True)):
        ax.vlines(bounds, place - 0.4, place + 0.4, color="0.3", linestyle="--", label="bound")


def _intervals(ax, table, figure):
    styles = {"flagged": COLORS[1], "not flagged": COLORS[0], "too few to say": "0.6", "": "0.2"}
    for place, (_, row) in enumerate(table.iterrows()):
        color = styles[row["verdict"]]
        ax.barh(place, row[figure], 0.6, color=color, alpha=0.35)
        ax.hlines(place, row[f"{figure}_low"], row[f"{figure}_high"], color=color, lw=2)
        ax.plot(row[figure], place, "o", color=color, label=row["verdict"])
    ax.set_yticks(range(len(table)), table.index)
    ax.set_ylim(len(table) - 0.5, -0.5)


def report(evaluation: Evaluation, path: str | os.PathLike, title: str, notes: Sequence[str] = ()) -> Path:
    """Write one HTML page with the metrics, their intervals and the plots, all in the file; return its path.

    Parameters
    ----------
    notes
        Paragraphs below the title: which model, which images, what not to use it for.
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 9), layout="constrained")
    roc(evaluation, axes[0, 0])
    precision_recall(evaluation, axes[0, 1])
    confusion(evaluation, axes[1, 0])
    scores(evaluation, axes[1, 1])
    figures = evaluation.metrics()
    table = figures.map("{:.3f}".format).replace("nan", "undefined")
    table[figures.isna() & figures["value"].notna().to_numpy()[:, None]] = "too few lesions"
    over = "lesions" if group_count(evaluation.table)["groups"] else f"images ({group_words(None)})"
    paragraphs = "".join(f"<p>{html.escape(note)}</p>" for note in notes)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>
<style>body {{font: 16px/1.5 sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem}}
td, th {{padding: .15rem .8rem; text-align: right}} img {{max-width: 100%}}</style></head>
<body><h1>{html.escape(title)}</h1>{paragraphs}
<h2>Metrics on {counted(len(evaluation.table), "test image")}</h2>
<p><b>low</b> and <b>high</b> bound the 95 % interval, from a bootstrap over {over};
with very few lesions on one side of a share it is a binomial interval.
Positive label: {html.escape(evaluation.positive)}.</p>{table.to_html(border=0)}
<h2>Curves</h2><img alt="ROC, precision-recall, confusion matrix, scores" src="data:image/png;base64,{encode(figure)}">
</body></html>
"""
    path = user_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def encode(figure: Figure, kind: str = "png") -> str:
    """Render a figure as a base64 image and close it, so that a notebook does not show it a second time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=90)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
