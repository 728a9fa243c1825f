"""Plots of trainings: history and learning rate range test."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..model.history import History, RangeTest
from .style import COLORS, axes_or_new, legend


def history(history: History) -> Figure:
    """Draw loss, accuracy, ROC AUC and learning rate by epoch, of each network, from what `fit` returns.

    >>> import pandas as pd
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

    >>> import pandas as pd
    >>> from isicvision.model.history import RangeTest
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
