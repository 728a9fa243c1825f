"""Choose a threshold on the curves of an evaluation."""

from __future__ import annotations

import functools
from html import escape

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import plots
from ..checks import CALL_NONE
from ..evaluation.evaluation import Evaluation
from ..plots.style import legend_below
from ..text import counted
from .pages import ResultsUI
from .parts import Widget, row, stack

SHOWN = ("recall", "specificity", "precision", "npv", "accuracy")


class PrecisionRecallUI(Widget):
    """Choose a threshold by a click on the ROC or precision-recall curve, or by the slider ``threshold``.

    Below the curves are the metrics and the confusion matrix at this threshold, and the images ``changed``, whose
    prediction differs from that at the evaluation's own threshold. Take validation images if
    `ImageClassifier.decide_at` is to use the threshold. Of more than two classes, the positive one stands against all.

    >>> ui = PrecisionRecallUI(evaluation)
    >>> ui.click("roc", 0, 1)
    >>> ui.threshold.value == ui.evaluation.threshold
    True
    """

    def __init__(self, evaluation: Evaluation, per_page: int = 12) -> None:
        note = ipywidgets.HTML()
        if len(evaluation.classes) > 2:
            note.value = (
                f"The curves show <b>{escape(evaluation.positive)}</b> against all other labels, only to explore: "
                f"a model with {len(evaluation.classes)} labels uses no threshold."
            )
            evaluation = evaluation.against(evaluation.positive)
        self._start = evaluation.at(0.5) if evaluation.threshold is None else evaluation
        self.threshold = ipywidgets.FloatSlider(
            self._start.threshold, max=CALL_NONE, step=0.001, readout_format=".3f", continuous_update=False
        )
        self.threshold.description = "threshold"
        self.threshold.layout = {"width": "480px", "max_width": "100%"}
        self._canvases = [_clickable(Figure(figsize=(4, 4.6), layout="constrained")) for _ in range(2)]
        self._axes = [canvas.figure.subplots() for canvas in self._canvases]
        # the ends of the curves, where no image is predicted positive, have no finite threshold to choose
        curves = {"roc": self._start.roc(), "precision_recall": self._start.precision_recall()}
        self._curves = {name: curve[np.isfinite(curve["threshold"])] for name, curve in curves.items()}
        self._marks = self._plot(self._axes)
        for curve, canvas in zip(curves, self._canvases, strict=True):
            canvas.mpl_connect("button_press_event", functools.partial(self._clicked, curve))
        self._figures = ipywidgets.HTML()
        self.changed = ResultsUI(self._start, per_page=per_page)
        self.threshold.observe(lambda _: self._draw(), "value")
        self.view = stack(note, self.threshold, row(*self._canvases), self._figures, self.changed.view)
        self._draw()

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation at the chosen threshold."""
        return self._start.at(self.threshold.value)

    def click(self, curve: str, x: float, y: float) -> None:
        """Choose the threshold of the point nearest to (x, y), 0 to 1, of ``"roc"`` or ``"precision_recall"``."""
        table = self._curves[curve]
        nearest = ((table.to_numpy()[:, :2] - (x, y)) ** 2).sum(axis=1).argmin()
        self.threshold.value = float(table["threshold"].iloc[nearest])

    def _clicked(self, curve, event):
        if event.inaxes:
            self.click(curve, event.xdata, event.ydata)

    def _plot(self, axes):
        """Draw the curves; return the marks of the chosen threshold."""
        plots.roc(self._start, axes[0])
        plots.precision_recall(self._start, axes[1])
        # hollow, because the dot of the evaluation's own threshold may lie within
        look = {"markersize": 10, "color": "none", "mec": "tab:blue", "mew": 2}
        marks = [ax.plot([], [], "D", label="at the slider's threshold", **look)[0] for ax in axes]
        for ax in axes:
            legend_below(ax)
            ax.set_aspect("auto")  # an equal aspect leaves too little room for the legend
        return marks

    def _move(self, marks):
        now = self.evaluation
        recall = now.metric("recall")
        marks[0].set_data([1 - now.metric("specificity")], [recall])
        marks[1].set_data([recall], [now.metric("precision")])

    def _draw(self):
        now = self.evaluation
        self._move(self._marks)
        for canvas in self._canvases:
            canvas.draw_idle()
        metrics = pd.DataFrame({"": {name: now.text(name) for name in SHOWN}})
        counts = now.confusion_matrix().rename_axis(index=None, columns=None).add_prefix("predicted ")
        tables = metrics.to_html(header=False, border=0) + counts.to_html(border=0)
        changed = now.where(now.table["prediction"] != self._start.table["prediction"])
        self._figures.value = (
            f"<div class='isic-figures'>{tables}</div>Predictions that differ from "
            f"those at {self._start.threshold:.3f}: {len(changed.table):,} of {counted(len(now.table), 'image')}"
        )
        self.changed.show(changed)

    def _figure(self):
        figure, axes = plt.subplots(1, 2, figsize=(8, 4.6), layout="constrained")
        self._move(self._plot(axes))
        return figure


def _clickable(figure):
    """Return a canvas of ipympl, whose import would make all further plots of the notebook such canvases."""
    backend = matplotlib.get_backend()
    from ipympl.backend_nbagg import Canvas, FigureManager  # its toolbar imports a good part of Jupyter

    if matplotlib.get_backend() != backend:
        matplotlib.use(backend)
    canvas = Canvas(figure)
    canvas.toolbar_visible = canvas.header_visible = canvas.footer_visible = canvas.resizable = False
    FigureManager(canvas, 0)
    return canvas
