"""Plots of an evaluation: curves, confusion, scores, reliability, net benefit, slices and the shortcut audit."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..evaluation import decisions
from ..evaluation.audit import HIDDEN
from ..evaluation.evaluation import Evaluation
from ..text import counted
from .style import COLORS, axes_or_new, colors, ink, legend, legend_below, literal, wrapped


def roc(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of the positive label: its 95 % band, the area with its interval, and the threshold.

    >>> roc(evaluation).get_title()
    'ROC, malignant (n = 100)'
    """
    curve = evaluation.roc()
    point = 1 - evaluation.metric("specificity"), evaluation.metric("recall")
    ax = _curve(evaluation, ax, "ROC", "roc_auc", curve["false_positive_rate"], curve["recall"], point)
    ax.plot([0, 1], [0, 1], ":", color="0.5", label="chance")
    ax.set(xlabel="false positive rate (1 - specificity)", ylabel="recall (sensitivity)", aspect="equal")
    legend_below(ax)
    return ax


def precision_recall(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the precision-recall curve of the positive label: its 95 % band, average precision, and the threshold.

    >>> precision_recall(evaluation).get_ylabel()
    'precision'
    """
    curve, title = evaluation.precision_recall(), "Precision and recall"
    point = evaluation.metric("recall"), evaluation.metric("precision")
    ax = _curve(evaluation, ax, title, "average_precision", curve["recall"], curve["precision"], point)
    share = (evaluation.table["label"] == evaluation.positive).mean()
    ax.axhline(share, linestyle=":", color="0.5", label=f"chance ({share:.2f})")
    ax.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    legend_below(ax)
    return ax


def _curve(evaluation, ax, title, metric, x, y, point):
    """Draw a curve with its band and area, and the point of the threshold."""
    ax, bands, positive = axes_or_new(ax, 4.6, 4.8), evaluation.bands(), literal(evaluation.positive, 30)
    name, band, style = {
        "roc_auc": ("area", "recall", "default"),
        "average_precision": ("average precision", "precision", "steps-post"),
    }[metric]
    low, high = bands[f"{band}_low"], bands[f"{band}_high"]
    ax.fill_between(bands["place"], low, high, color=COLORS[1], alpha=0.2, lw=0)
    label = f"{name} {evaluation.text(metric)}"
    if len(evaluation.classes) > 2:  # the metric is then the mean over the classes, not this curve's
        label = f"{positive} against the others"
    ax.plot(x, y, color=COLORS[1], label=label, drawstyle=style)
    if (threshold := _threshold(evaluation)) is not None:
        ax.plot(*point, "o", color="black", label=f"at threshold {threshold:.3f}")
    ax.set_title(f"{title}, {positive} (n = {len(evaluation.table)})", fontsize=10)
    return ax


def _threshold(evaluation):
    """Return the threshold in use, or None: more than two classes have none."""
    if len(evaluation.classes) == 2:
        return 0.5 if evaluation.threshold is None else evaluation.threshold
    return None


def confusion(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the confusion matrix as counts, shaded by the share of the true label.

    >>> confusion(evaluation).get_xlabel()
    'predicted'
    """
    counts = evaluation.confusion_matrix()
    names, side = [wrapped(name, 14) for name in counts], 1.2 + 0.9 * len(counts)
    ax = axes_or_new(ax, side + 0.6, side)
    shares = counts.to_numpy() / np.maximum(counts.sum(axis=1).to_numpy()[:, None], 1)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text, color = f"{counts.iat[row, column]}\n{share:.0%}", ink(image.cmap(float(share))[:3])
        ax.text(column, row, text, ha="center", va="center", color=color)
    ax.set_xticks(range(len(counts)), names)
    ax.set_yticks(range(len(counts)), names, rotation=90, va="center")
    ax.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix (n = {len(evaluation.table)})")
    return ax


def scores(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw a histogram of the positive label's scores for each true label; with many labels, for it and the others.

    >>> scores(evaluation).get_xlabel()
    'score for malignant'
    """
    ax, threshold = axes_or_new(ax, 5, 3.2), _threshold(evaluation)
    if len(evaluation.classes) > 3:  # more histograms than that hide each other
        evaluation = evaluation.against(evaluation.positive)
    for label, color in colors(evaluation.classes).items():
        values = evaluation.table.loc[evaluation.table["label"] == label, f"score_{evaluation.positive}"]
        share = np.full(len(values), 1 / max(1, len(values)))  # so that a rare label is seen too
        name = f"{literal(label, 30)} (n = {len(values)})"
        ax.hist(values, 20, range=(0, 1), weights=share, alpha=0.6, color=color, label=name)
    if threshold is not None:
        ax.axvline(threshold, linestyle="--", color="black", label=f"threshold {threshold:.3f}")
    ax.set(xlabel=f"score for {literal(evaluation.positive, 30)}", ylabel="share of the label's images")
    ax.set_title("Scores by true label")
    legend_below(ax)
    return ax


def reliability(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the share of positive images against their score, from `decisions.reliability`.

    >>> reliability(evaluation).get_ylabel()
    'share that is malignant'
    """
    table, positive = decisions.reliability(evaluation), literal(evaluation.positive, 30)
    ax = axes_or_new(ax, 4.2, 4.2)
    ax.plot([0, 1], [0, 1], ":", color="0.5", label="perfect calibration")
    ax.vlines(table["score"], table["low"], table["high"], color=COLORS[1], lw=2)
    ax.plot(table["score"], table["share"], "o-", color=COLORS[1], label=f"ECE {evaluation.text('ece')}")
    ax.set(xlabel=f"score for {positive}", ylabel=f"share that is {positive}", aspect="equal")
    ax.set_title(f"Reliability (n = {len(evaluation.table)})")
    legend_below(ax)
    return ax


def net_benefit(evaluation: Evaluation, prevalence: float | None = None, ax: Axes | None = None) -> Axes:
    """Draw the decision curve of `decisions.net_benefit`: the model against referring all and none.

    A vertical line is `decisions.risk`: what the evaluation's own threshold, a score, means at that prevalence.

    >>> net_benefit(evaluation, prevalence=0.05).get_title()
    'Net benefit per image'
    """
    table = decisions.net_benefit(evaluation, prevalence)
    ax = axes_or_new(ax, 5, 4)
    for name, style, color in (("model", "-", COLORS[1]), ("all", "--", "0.4"), ("none", ":", "0.4")):
        label = name if name == "model" else f"refer {name}"
        ax.plot(table["threshold"], table[name], style, color=color, label=label)
    if (score := evaluation.threshold) is not None:
        risk = decisions.risk(evaluation, prevalence)
        ax.axvline(risk, color=COLORS[0], label=f"model's threshold: score {score:.3f}, risk {risk:.3f}")
    top = max(table["model"].max(), table["all"].max())
    ax.set(xlabel="risk from which on one refers (not the score)", ylabel="net benefit")
    ax.set(ylim=(-0.2 * top, 1.1 * top), title="Net benefit per image")
    legend_below(ax)
    return ax


def slices(table: pd.DataFrame, metric: str = "roc_auc", ax: Axes | None = None) -> Axes:
    """Draw the metric of each value of a column with its interval, from a table of `comparison.slices`.

    >>> from isicvision import comparison
    >>> slices(comparison.slices(evaluation, "label", "accuracy"), "accuracy").get_title()
    'By label'
    """
    ax = axes_or_new(ax, 7, 1.7 + 0.32 * len(table))
    styles = {
        "differs": (COLORS[1], "o"),
        "no difference seen": (COLORS[0], "o"),
        "too few to say": ("0.6", "x"),
    }
    names = []
    for place, (value, row) in enumerate(table.iterrows()):
        color, marker = styles[row["verdict"]]
        ax.hlines(place, row["low"], row["high"], color=color, lw=2)
        ax.plot(row["value"], place, marker, color=color, label=row["verdict"], clip_on=False)
        counts = f"{counted(row['images'], 'image')}, {counted(row['lesions'], 'lesion')}"
        names.append(f"{literal(value)}\n{counts}, {row['positive']} positive")
    ax.set_yticks(range(len(table)), names, fontsize=8)
    ax.set_xlabel(metric.replace("roc_auc", "ROC AUC").replace("_", " "))
    ax.set_title(f"By {literal(table.index.name)}")
    legend_below(ax)
    ends = table[["value", "low", "high"]]
    # not only where the points are: small differences shall look small
    ax.set_xlim(0.5 if ends.min(axis=None) >= 0.5 else 0, max(1, ends.max(axis=None)))
    ax.set_ylim(len(table) - 0.5, -0.5)
    return ax


def audit(table: pd.DataFrame) -> Figure:
    """Draw the result of `audit.shortcuts`: each figure with its interval, and the bounds as dashed lines.

    >>> audit(isicvision.audit.shortcuts(model, dataset))  # doctest: +SKIP
    """
    hidden = table.index.isin(["unchanged", *HIDDEN])
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.27 * (~hidden).sum()), layout="constrained")
    _draw_changes(axes[0], table[hidden], "kept", signs=(1,))
    axes[0].set(xlabel="kept: share of ROC AUC - 0.5 (dotted: chance)", title="With a part hidden")
    _draw_changes(axes[1], table[~hidden], "moved", signs=(1, -1))
    moved = "moved: by how much of the ranking (0 to 1)\nan average image moves up (+) or down (-)"
    axes[1].set(xlabel=moved, title="With something added")
    legend(axes[1], figure, loc="outside lower center", ncols=4)
    return figure


def _draw_changes(ax, table, figure, signs):
    """Draw one figure of each change, its interval, and its bound with each sign."""
    styles = {"flagged": COLORS[1], "not flagged": COLORS[0], "too few to say": "0.6", "": "0.2"}
    for place, (_, row) in enumerate(table.iterrows()):
        color = styles[row["verdict"]]
        ax.barh(place, row[figure], 0.6, color=color, alpha=0.35)
        ax.hlines(place, row[f"{figure}_low"], row[f"{figure}_high"], color=color, lw=2)
        ax.plot(row[figure], place, "o", color=color, label=row["verdict"])
        bounds = [sign * row["bound"] for sign in signs]
        ax.vlines(bounds, place - 0.4, place + 0.4, color="0.3", linestyle="--", label="bound")
    ax.axvline(0, linestyle=":", color="0.5")
    ax.set_yticks(range(len(table)), table.index)
    ax.set_ylim(len(table) - 0.5, -0.5)
