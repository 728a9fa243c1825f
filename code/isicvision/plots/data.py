"""Plots of a dataset: labels, metadata, measures, what is missing, and what tells the label."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from ..data.dataset import ImageDataset
from ..data.splitting import group_count
from ..fields import MEASURES
from ..text import counted
from .style import axes_or_new, colors, legend, literal, wrapped


def class_balance(dataset: ImageDataset, ax: Axes | None = None) -> Axes:
    """Draw images and lesions (or other groups) of each label as bars.

    >>> class_balance(dataset).get_title()
    '159 images by label'
    """
    counts = dataset.summary().iloc[:-1]
    known = group_count(dataset.table)["groups"] is not None
    ax = axes_or_new(ax, 5, 1 + 0.6 * len(counts))
    palette = colors(dataset.labels)
    for row, (label, (images, groups)) in enumerate(counts[["images", "groups"]].iterrows()):
        lesions = f" {counted(groups, 'lesion')} (or groups)" if known else " lesions unknown"
        lengths, shades = [images, groups if known else 0], [palette[label], (palette[label], 0.5)]
        bars = ax.barh([row - 0.2, row + 0.2], lengths, 0.4, color=shades)
        ax.bar_label(bars, [f" {counted(images, 'image')}", lesions])
    ax.set_yticks(range(len(counts)), [wrapped(label, 20) for label in counts.index])
    ax.set_xlim(0, counts["images"].max() * 1.55)
    ax.set_title(f"{counted(len(dataset), 'image')} by label")
    ax.invert_yaxis()
    return ax


def distribution(dataset: ImageDataset, column: str, ax: Axes | None = None) -> Axes:
    """Draw how often each value of a metadata column occurs, per label; missing values have a bar too.

    >>> [text.get_text() for text in distribution(dataset, "sex").get_xticklabels()]
    ['female', 'male', 'missing']
    """
    if column not in dataset.table:
        raise ValueError(f"no column {column!r}; there are: {', '.join(dataset.table.columns)}")
    ax, values = axes_or_new(ax, 6, 2.8), dataset.table[column]
    order = [*values.dropna().drop_duplicates().sort_values()]
    if values.dtype.kind == "f":
        values, order = values.map("{:g}".format, na_action="ignore"), [f"{value:g}" for value in order]
    counts = pd.crosstab(values.astype(object).fillna("missing"), dataset.table["label"])
    counts = counts.reindex([*order, *["missing"] * ("missing" in counts.index)])
    totals, palette = counts.sum(), [*colors(dataset.labels).values()]
    shares = counts / totals
    shares.columns = [f"{wrapped(name, 20)} (n = {n})" for name, n in totals.items()]
    shares.plot.bar(ax=ax, width=0.8, color=palette, rot=0, ylabel="share of the label", xlabel="")
    ax.set_title(literal(column))
    names = [literal(name, 30) for name in counts.index]
    ax.set_xticks(range(len(counts)), names)
    if len("".join(names)) > 30:
        plt.setp(ax.get_xticklabels(), rotation=30, ha="right", rotation_mode="anchor")
    return legend(ax)


def measures(dataset: ImageDataset, columns: Sequence[str] | None = None) -> Figure:
    """Draw how measures are spread: a small plot for each column of numbers that vary, a row a label.

    A box is the middle half of the label's images with their median; its line covers 95 % of them. Where most images
    have the same value, as with few rulers, a bar shows the share of images above it. By default, those of `MEASURES`.

    >>> table = pd.DataFrame({"path": [*"abcd"], "label": [*"mnmn"], "group": [*"abcd"], "size": range(4)})
    >>> measures(ImageDataset(table), ["size"]).axes[0].get_title()
    'size'
    """
    table, palette = dataset.table, colors(dataset.labels)
    numbers = table.select_dtypes("number")
    columns = MEASURES if columns is None else columns
    columns = [name for name in columns if name in numbers and numbers[name].nunique() > 1]
    rows, height = max(1, -(-len(columns) // 4)), 0.8 + 0.24 * len(palette)
    size = 11, height * rows + 0.3
    figure, axes = plt.subplots(rows, 4, figsize=size, squeeze=False, sharey=True, layout="constrained")
    for ax in axes.flat[len(columns) :]:
        ax.set_axis_off()
    for ax, column in zip(axes.flat, columns, strict=False):
        _spread(ax, table[column].dropna(), table["label"], palette)
        ax.set_yticks(range(len(palette)), [wrapped(label, 20) for label in palette])
        ax.xaxis.get_major_locator().set_params(nbins=5)
    axes[0, 0].invert_yaxis()
    note = "box: half of the label's images, and their median; line: 95 % of them"
    figure.supxlabel(note, fontsize=9, color="0.4")
    return figure


def _spread(ax, values, labels, palette):
    """Draw the values of each label as a box; where most are the least one, the share above it as a bar."""
    places, shades, least = np.arange(len(palette)), [*palette.values()], values.min()
    ax.set_title(literal(values.name), fontsize=10)
    if (values == least).mean() > 0.7:
        shares = (values > least).groupby(labels).mean().reindex(palette)
        ax.barh(places, shares, 0.7, color=shades, alpha=0.6)
        ax.xaxis.set_major_formatter(PercentFormatter(1))
        ax.set_title(f"{literal(values.name)}: share above {least:g}", fontsize=10)
        return
    cuts = values.groupby(labels).quantile([0.025, 0.25, 0.5, 0.75, 0.975]).unstack().reindex(palette)
    low, first, middle, third, high = cuts.to_numpy().T
    ax.hlines(places, low, high, color=shades)
    ax.barh(places, third - first, 0.7, left=first, color=shades, alpha=0.6)
    ax.vlines(middle, places - 0.35, places + 0.35, color="black")


def missing(shares: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw the share of missing values per label, of the columns that lack some, from `associations.missing`.

    >>> missing(pd.DataFrame({"all": [0.5, 0], "benign": [0.5, 0]}, index=["sex", "age"])).get_title()
    '1 of 2 columns are complete'
    """
    shown, labels = shares[shares.iloc[:, 0] > 0], sorted(shares.columns[1:])
    ax = axes_or_new(ax, 7, 1.1 + len(shown) * (0.15 + 0.1 * len(labels)))
    ax.barh(range(len(shown)), shown.iloc[:, 0], color="0.85", label=shares.columns[0])
    for number, (label, color) in enumerate(colors(labels).items()):
        places = np.arange(len(shown)) + 0.7 * ((number + 0.5) / len(labels) - 0.5)
        ax.plot(shown[label], places, "o", color=color, label=wrapped(label, 20), markersize=5, clip_on=False)
    ax.set_yticks(range(len(shown)), [*map(literal, shown.index)])
    ax.set_title(f"{len(shares) - len(shown)} of {len(shares)} columns are complete")
    ax.set(xlim=(0, max(0.1, 1.05 * shares.max(axis=None))), xlabel="share of images without a value")
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.invert_yaxis()
    return legend(ax)


def associations(table: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Draw how well each column tells the label, with intervals, from `associations.rank`.

    >>> row = {"column": "age", "role": "patient", "of": "malignant", "auc": 0.7, "low": 0.6, "high": 0.8}
    >>> associations(pd.DataFrame([row])).get_title()
    'What tells malignant'
    """
    shown = table.dropna(subset="auc").reset_index(drop=True)
    ax = axes_or_new(ax, 7.5, 1.2 + 0.25 * len(shown))
    for role, color in colors(sorted(shown["role"].unique())).items():
        rows = shown[shown["role"] == role]
        ax.hlines(rows.index, rows["low"], rows["high"], color=color, lw=2)
        ax.plot(rows["auc"], rows.index, "o", color=color, label=literal(role))
    labels = [*shown["of"].unique()]
    names = shown["column"] + (" (" + shown["of"] + ")" if len(labels) > 1 else "")
    ax.axvline(0.5, linestyle=":", color="0.5")
    ax.set_yticks(range(len(shown)), [*map(literal, names)])
    ax.set(xlim=(-0.02, 1.02), xlabel="ROC AUC of the column alone; 0.5 tells nothing, 0 and 1 everything")
    what = literal(labels[0]) if len(labels) == 1 else "a label (in brackets: which)"
    ax.set_title(f"What tells {what}")
    ax.invert_yaxis()
    ax.legend(frameon=False, loc="lower left")
    return ax
