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
from ..evaluation.external import TITLES
from ..text import counted
from .style import COLORS, axes_or_new, colors, ink, legend, legend_below, literal, wrapped

VERDICTS = {
    **dict.fromkeys(("differs", "flagged"), COLORS[1]),
    **dict.fromkeys(("no difference seen", "not flagged"), COLORS[0]),
    **{"too few to say": "0.6", "": "0.2"},
}
"""The color of each verdict on a slice or a change."""
IDEAL = {"calibration intercept": 0, "calibration slope": 1}


def roc(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the ROC curve of the positive label: its 95 % band, the area with its interval, and the threshold.

    >>> roc(evaluation).get_title()
    'ROC, malignant (n = 100)'
    """
    curve, bands = evaluation.roc().iloc[:, :2], evaluation.bands()[["place", "recall_low", "recall_high"]]
    point = 1 - evaluation.metric("specificity"), evaluation.metric("recall")
    ax = _curve(evaluation, ax, "ROC", f"area {evaluation.text('roc_auc')}", curve, bands, point)
    ax.plot([0, 1], [0, 1], ":", color="0.5", label="chance")
    ax.set(xlabel="false positive rate (1 - specificity)", ylabel="recall (sensitivity)", aspect="equal")
    return legend_below(ax)


def precision_recall(evaluation: Evaluation, ax: Axes | None = None) -> Axes:
    """Draw the precision-recall curve of the positive label: its 95 % band, average precision, and the threshold.

    >>> precision_recall(evaluation).get_ylabel()
    'precision'
    """
    curve = evaluation.precision_recall().iloc[:, :2]
    bands = evaluation.bands()[["place", "precision_low", "precision_high"]]
    point = evaluation.metric("recall"), evaluation.metric("precision")
    label = f"average precision {evaluation.text('average_precision')}"
    ax = _curve(evaluation, ax, "Precision and recall", label, curve, bands, point, drawstyle="steps-post")
    share = (evaluation.table["label"] == evaluation.positive).mean()
    ax.axhline(share, linestyle=":", color="0.5", label=f"chance ({share:.2f})")
    ax.set(xlabel="recall (sensitivity)", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    return legend_below(ax)


def _curve(evaluation, ax, title, label, curve, bands, point, **style):
    """Draw a curve with its band and area, and the point of the threshold."""
    ax, positive = axes_or_new(ax, 4.6, 4.8), literal(evaluation.positive, 30)
    ax.fill_between(*bands.to_numpy().T, color=COLORS[1], alpha=0.2, lw=0)
    if len(evaluation.classes) > 2:  # the metric is then the mean over the classes, not this curve's
        label = f"{positive} against the others"
    ax.plot(*curve.to_numpy().T, color=COLORS[1], label=label, **style)
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
    ax.set(title="Scores by true label")
    return legend_below(ax)


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
    return legend_below(ax)


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
    return legend_below(ax)


def slices(table: pd.DataFrame, metric: str = "roc_auc", ax: Axes | None = None) -> Axes:
    """Draw the metric of each value of a column with its interval, from a table of `comparison.slices`.

    >>> from isicvision import comparison
    >>> slices(comparison.slices(evaluation, "label", "accuracy"), "accuracy").get_title()
    'By label'
    """
    ax, names = axes_or_new(ax, 7, 1.7 + 0.32 * len(table)), []
    for place, (value, row) in enumerate(table.iterrows()):
        _dot(ax, place, row["value"], row["low"], row["high"], row["verdict"])
        counts = f"{counted(row['images'], 'image')}, {counted(row['lesions'], 'lesion')}"
        names.append(f"{literal(value)}\n{counts}, {row['positive']} positive")
    ax.set_yticks(range(len(table)), names, fontsize=8)
    ax.set_xlabel(metric.replace("roc_auc", "ROC AUC").replace("_", " "))
    ax.set_title(f"By {literal(table.index.name)}")
    ends = table[["value", "low", "high"]]
    # not only where the points are: small differences shall look small
    ax.set_xlim(0.5 if ends.min(axis=None) >= 0.5 else 0, max(1, ends.max(axis=None)))
    ax.set_ylim(len(table) - 0.5, -0.5)
    return legend_below(ax)


def external(compared: pd.DataFrame) -> Figure:
    """Draw each figure of `external.compare` with its interval: the internal test first, then the external ones.

    >>> from isicvision.evaluation.external import compare
    >>> tested = Evaluation(evaluation.table.assign(distance=0.5), evaluation.classes, evaluation.positive)
    >>> len(external(compare({"clinic": tested, "other": tested})).axes)
    7
    """
    figure, axes = plt.subplots(2, 4, figsize=(11, 4.4), sharey=True, layout="constrained")
    for ax, title in zip(axes.flat, TITLES.values(), strict=False):
        rows = compared.xs(title, level="figure")
        places, tones = range(len(rows)), ["0.4"] + [COLORS[1]] * (len(rows) - 1)
        ax.hlines(places, rows["low"], rows["high"], color=tones, lw=2)
        ax.scatter(rows["value"], places, color=tones, clip_on=False)
        if title in IDEAL:
            ax.axvline(IDEAL[title], linestyle=":", color="0.5")
        else:
            ax.set_xlim(0, 1)
        ax.set(title=title, ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(places, [literal(name, 25) for name in rows.index])
    axes[-1, -1].remove()
    return figure


def local_labels(table: pd.DataFrame, sensitivity: float) -> Figure:
    """Draw the result of `external.local_labels`: mean and range of each figure by the number of lesions labeled there.

    A dotted line is the sensitivity that was asked for.

    >>> rows = pd.MultiIndex.from_product([[0, 20], ["sensitivity", "rejected"]], names=["labels", "figure"])
    >>> table = pd.DataFrame({"mean": [0.2, 1, 0.9, 0.05], "low": 0.1, "high": 1.0}, rows)
    >>> [ax.get_title() for ax in local_labels(table, 0.9).axes]
    ['sensitivity', 'rejected']
    """
    parts = {title: table.xs(title, level="figure") for title in table.index.unique("figure")}
    figure, axes = plt.subplots(1, len(parts), figsize=(11, 2.8), layout="constrained")
    for ax, (title, rows) in zip(axes, parts.items(), strict=True):
        ax.fill_between(rows.index, rows["low"], rows["high"], color=COLORS[1], alpha=0.2, lw=0)
        ax.plot(rows.index, rows["mean"], "o-", color=COLORS[1])
        ax.set(title=title, ylim=(0, 1.02), xticks=rows.index)
    axes[0].axhline(sensitivity, linestyle=":", color="0.5")
    figure.supxlabel("labeled local lesions", fontsize=10)
    return figure


def _dot(ax, place, value, low, high, verdict):
    """Draw a figure with its interval."""
    ax.hlines(place, low, high, color=VERDICTS[verdict], lw=2)
    ax.plot(value, place, "o", color=VERDICTS[verdict], label=verdict, clip_on=False)


def audit(table: pd.DataFrame) -> Figure:
    """Draw the result of `audit.shortcuts`: each figure with its interval, and the bounds as dashed lines.

    >>> audit(isicvision.audit.shortcuts(model, dataset))  # doctest: +SKIP
    """
    hidden = table.index.isin(["unchanged", *HIDDEN])
    figure, axes = plt.subplots(1, 2, figsize=(11, 1 + 0.27 * (~hidden).sum()), layout="constrained")
    parts = (table[hidden], "kept", [1]), (table[~hidden], "moved", [1, -1])
    for ax, (part, name, signs) in zip(axes, parts, strict=True):
        for place, (_, row) in enumerate(part.iterrows()):
            _dot(ax, place, row[name], row[f"{name}_low"], row[f"{name}_high"], row["verdict"])
            bounds = [sign * row["bound"] for sign in signs]
            ax.vlines(bounds, place - 0.4, place + 0.4, color="0.3", linestyle="--", label="bound")
        ax.axvline(0, linestyle=":", color="0.5")
        ax.set_yticks(range(len(part)), part.index)
        ax.set_ylim(len(part) - 0.5, -0.5)
    axes[0].set(xlabel="kept: share of ROC AUC - 0.5 (dotted: chance)", title="With a part hidden")
    moved = "moved: by how much of the ranking (0 to 1)\nan average image moves up (+) or down (-)"
    axes[1].set(xlabel=moved, title="With something added")
    legend(axes[1], figure, loc="outside lower center", ncols=4)
    return figure


def corruptions(table: pd.DataFrame) -> Figure:
    """Draw the result of `audit.corruptions`: each figure over the severity, a line a corruption.

    >>> corruptions(isicvision.audit.corruptions(model, dataset))  # doctest: +SKIP
    """
    titles = {"roc_auc": "ROC AUC", "changed": "decisions changed", "rejected": "rejected"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for ax, (column, title) in zip(axes, titles.items(), strict=True):
        for name, color, marker in zip(table.index.unique(0), COLORS, "osD^v<>", strict=True):
            ax.plot(table[column][name], marker=marker, color=color, label=name, ms=4)
        ax.set(xlabel="severity", title=title, ylim=(0.4, 1.01) if column == "roc_auc" else (-0.02, 1.02))
    legend(axes[0], figure, loc="outside lower center", ncols=7)
    return figure
