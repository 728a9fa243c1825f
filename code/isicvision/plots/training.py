"""Plots of trainings: history, learning rate range test, and measurements of what settings do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .style import COLORS, axes_or_new, legend, wrapped

if TYPE_CHECKING:
    from ..model.history import History
    from ..model.rangetest import RangeTest


def history(history: History) -> Figure:
    """Draw loss, accuracy, ROC AUC and learning rate by epoch, of each network, from what `fit` returns.

    >>> from isicvision.model.history import History
    >>> table = pd.DataFrame({"train_loss": [1, 0.5], "learning_rate": [0.1, 0.01]}, index=[1, 2])
    >>> [ax.get_title() for ax in history(History(table, [1, 0.5], "fp32")).axes]
    ['loss', 'accuracy', 'ROC AUC', 'learning rate']
    """
    figure, axes = plt.subplots(1, 4, figsize=(13, 2.8), layout="constrained")
    table = history.table
    networks = [rows for _, rows in table.groupby("network")] if "network" in table else [table]
    for ax, name in zip(axes, ("loss", "accuracy", "roc_auc"), strict=False):
        for part, style, color in (("train", "o--", COLORS[0]), ("validation", "o-", COLORS[1])):
            if (column := f"{part}_{name}") in table:
                for rows in networks:
                    ax.plot(rows.index, rows[column], style, color=color, label=part, markersize=4)
        ax.set(xlabel="epoch", title=name.replace("roc_auc", "ROC AUC"))
        if ax.lines:
            legend(ax, loc="best")
    for rows in networks:
        axes[3].step(rows.index, rows["learning_rate"], where="mid", color="0.3")
    axes[3].set(xlabel="epoch", title="learning rate", yscale="log")
    for ax in axes:
        ax.xaxis.get_major_locator().set_params(integer=True)
        for rows in networks[1:]:
            ax.axvline(rows.index[0] - 0.5, color="0.8", linewidth=0.8)
    return figure


def live_history() -> Callable[[History], None]:
    """Return a function for ``fit(on_epoch=…)`` that redraws the history in the notebook after each epoch.

    >>> model.fit(train, validation, on_epoch=live_history())  # doctest: +SKIP
    """
    from IPython.display import display  # notebooks have it; nothing else needs it

    handle = display(display_id=True)

    def draw(so_far):
        figure = history(so_far)
        handle.update(figure)
        plt.close(figure)

    return draw


def learning_rates(found: RangeTest, ax: Axes | None = None) -> Axes:
    """Draw the range test of `ImageClassifier.find_learning_rate`: the loss against the rate, and the suggestion.

    >>> from isicvision.model.rangetest import RangeTest
    >>> steps = pd.DataFrame({"learning_rate": [1e-4, 1e-3], "loss": [0.7, 0.6], "smooth_loss": [0.7, 0.6]})
    >>> learning_rates(RangeTest(steps, suggestion=1e-4)).get_legend().get_texts()[2].get_text()
    'suggestion 0.0001'
    """
    ax, table, suggestion = axes_or_new(ax, 5.5, 3), found.table, found.suggestion
    ax.plot(table["learning_rate"], table["loss"], color="0.8", label="each step")
    ax.plot(table["learning_rate"], table["smooth_loss"], color=COLORS[0], label="smoothed")
    ax.axvline(suggestion, linestyle=":", color=COLORS[1], label=f"suggestion {suggestion:g}")
    low, high = table["smooth_loss"].min(), table["smooth_loss"].iloc[0]
    ax.set(xscale="log", ylim=(low - 0.5 * (high - low) - 0.02, high + 1.5 * (high - low) + 0.05))
    ax.set(xlabel="learning rate", ylabel="loss", title="Learning rate range test")
    ax.legend(frameon=False)
    return ax


def measured(table: pd.DataFrame, setting: str, ax: Axes | None = None) -> Axes:
    r"""Draw the ROC AUC and the training time for each value of one setting, all settings on one scale.

    The table is from tests/bench/bench_settings.py. Its row ``common`` is the value that all other settings share; the
    gray band covers it and the rows ``seed``: what chance alone does.

    >>> rows = [("rate", 0.1, 0.001, 0.8), ("common", None, 0.001, 0.9)]
    >>> table = pd.DataFrame(rows, columns=["setting", "value", "common_value", "roc_auc"])
    >>> ax = measured(table.assign(images=10, low=0.7, high=1.0, seconds=60), "rate")
    >>> [text.get_text() for text in ax.get_xticklabels()]
    ['0.001\n60 s', '0.1\n60 s']
    """
    rows = table[table["setting"].isin([setting, "common"])]
    is_common = rows["setting"] == "common"
    common = rows.loc[~is_common, "common_value"].iloc[0]
    values = rows["images"] if setting == "images" else rows["value"].astype(object).mask(is_common, common)
    rows = rows.assign(value=values, order=pd.to_numeric(values, errors="coerce"))
    rows, names = rows.sort_values("order", kind="stable", ignore_index=True), []
    ax = axes_or_new(ax, 8, 2.8)
    chance = table["roc_auc"][table["setting"].isin(["common", "seed"])]
    ax.axhspan(chance.min(), chance.max(), color="0.9", label="chance: other seeds")
    for place, row in rows.iterrows():
        area, is_common = row["roc_auc"], row["setting"] == "common"
        color, name = (COLORS[1], "common to all plots") if is_common else (COLORS[0], "changed")
        ax.vlines(place, row["low"], row["high"], color=color, lw=2)
        ax.plot(place, area, "o", color=color, label=name)
        ax.annotate(f"{area:.3f}", (place, area), xytext=(6, -3), textcoords="offset points")
        value = wrapped(row["value"], 20) if pd.isna(row["order"]) else f"{row['order']:g}"
        names.append(f"{value}\n{row['seconds']:.0f} s")
    ax.set_xticks(range(len(rows)), names)
    ax.set(xlim=(-0.5, len(rows) - 0.3), ylim=(table["low"].min() - 0.01, table["high"].max() + 0.01))
    ax.set(xlabel=f"{setting}, and the time of the training", ylabel="ROC AUC", title=setting)
    legend(ax)
    return ax
