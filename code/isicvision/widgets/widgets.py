"""Interactive widgets for notebooks: correct labels, look into results, choose thresholds, try settings.

Each shows as an image where widgets are not rendered (a saved notebook on the web, nbconvert). What a control decides
can be had without it: its methods do what its buttons do.
"""

from __future__ import annotations

import abc
import base64
import dataclasses
import functools
import inspect
import io
import os
import string
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

from .. import images as pixels
from .. import plots
from ..data.annotation import EXCLUDE, Annotations
from ..data.dataset import ImageDataset
from ..model.presets import PRESETS
from ..model.settings import OPTIMIZERS, SCHEDULES, Settings
from ..text import apart, as_label, counted
from .imagegrid import ImageGrid, Names

if TYPE_CHECKING:
    from imgaug import augmenters as iaa

    from ..evaluation.evaluation import Evaluation
    from ..model.classifier import ImageClassifier

SIDE, LARGE = 150, 640
"""Pixels of a thumbnail, and of the longer side of an image shown large."""
KEYS = {"Enter": "right", "x": "exclude", "u": "undo", "z": "large", "n": "next page", "p": "page before"}
LABEL_KEYS = "1234567890" + "".join(sorted({*string.ascii_lowercase} - {*KEYS}))
"""Of the first labels, in their order; further ones have a button only."""
_ahead = ThreadPoolExecutor(1)


class _Widget:
    """Something with a ``view`` (an ipywidgets.Widget) and ``_figure()``, which shows where there are no widgets."""

    @staticmethod
    def _stack(*children):
        """Return the parts below each other, with names for screen readers."""
        return ipywidgets.VBox([*children, Names()])

    def _repr_mimebundle_(self, **_):
        return self.view._repr_mimebundle_() | {"image/jpeg": plots.encode(self._figure(), "jpeg")}


class _Pages(_Widget, abc.ABC):
    """A grid of images, page by page.

    `rows` are found anew when a filter is moved, not when an image changes, which therefore stays
    where it is until then.
    """

    def __init__(
        self, controls: Sequence[ipywidgets.Widget], per_page: int, keys: Iterable[str] = ("z", "n", "p")
    ) -> None:
        if not per_page == per_page // 1 >= 1:
            raise ValueError(f"per_page is a whole number of 1 or more, not {per_page!r}")
        self.per_page = int(per_page)
        self.page = 0
        self.grid = ImageGrid(side=SIDE, hotkeys=[*keys])
        self.grid.on_key(self.press)
        self.grid.observe(lambda _: self._close(), "selected")
        self._position, self._credit = ipywidgets.HTML(), ipywidgets.HTML()
        back, forward = (_button(name, width="80px") for name in ("Back", "Next"))
        back.on_click(lambda _: self._click("p"))
        forward.on_click(lambda _: self._click("n"))
        for control in controls:
            control.observe(lambda _: self.refresh(), "value")
        self.view = self._stack(_row(*controls, back, forward, self._position), self.grid, self._credit)
        self.refresh()

    def refresh(self) -> None:
        """Apply the filters anew and show the first page."""
        self.rows, self.page = self._rows(), 0
        self._draw()

    def turn(self, pages: int) -> None:
        """Go forward by `pages`, or back if negative."""
        last = max(0, (len(self.rows) - 1) // self.per_page)
        page = min(max(self.page + pages, 0), last)
        if page != self.page:
            self.page = page
            self._draw()

    def press(self, key: str) -> None:
        """Do what a key does: ``z`` shows the selected image large and back, ``n`` and ``p`` turn the page."""
        if key == "z":
            if self.grid.large:
                self._close()
            elif len(self.shown):
                row = self.shown.iloc[self.grid.selected]
                try:
                    self.grid.large = {"image": self._large(row), "text": self._details(row)}
                except pixels.ImageError as error:
                    self.grid.large = {"image": _thumbnail(row["path"]), "text": str(error)}
        elif key in ("n", "p"):
            self.turn(1 if key == "n" else -1)

    def _click(self, key):
        self.press(key)
        self.grid.focus()

    @property
    def shown(self) -> pd.DataFrame:
        """The rows of this page."""
        return self.rows.iloc[self.page * self.per_page :][: self.per_page]

    @abc.abstractmethod
    def _rows(self) -> pd.DataFrame:
        """Find the images to show."""

    @abc.abstractmethod
    def _caption(self, row: pd.Series) -> dict:
        """Write the caption of an image for `ImageGrid`."""

    def _close(self):
        self.grid.large = {}

    def _draw(self):
        start, shown = self.page * self.per_page, self.shown
        self._position.value = f"{min(start + 1, len(self.rows))} to {start + len(shown)} of {len(self.rows)}"
        self._credit.value = escape(plots.credit(shown))
        with self.grid.hold_sync():
            self.grid.selected, self.grid.large, self.grid.status = 0, {}, ""
            self.grid.images = self._thumbnails(shown)
            self._write_captions()
        following = self.rows["path"].iloc[start + self.per_page :][: self.per_page]
        _ahead.map(_thumbnail, following)  # so that the next page is there when it is asked for

    def _write_captions(self):
        self.grid.captions = [self._caption(row) for _, row in self.shown.iterrows()]

    def _thumbnails(self, rows):
        return pixels.map_threads(_thumbnail, [*rows["path"]])

    def _large(self, row):
        return _url(pixels.frame(row["path"], LARGE)[0])

    def _details(self, row):
        return f"{row['path']}   {row['label']}   group {row['group']}"

    def _figure(self):
        return plots.grid(self.rows.head(self.per_page))


class AnnotationUI(_Pages):
    """Look at images and correct their labels, or exclude them, by mouse or by keys.

    Click an image, then press the key that stands on its label's button: the next one is selected. ``Enter`` says that
    the label is right, ``x`` excludes, ``u`` takes back, ``z`` shows the image large, arrows move, ``n`` and ``p``
    turn the page. Each decision is written at once and applied again when the notebook is run anew:
    `annotation.Annotations`.

    Parameters
    ----------
    decisions
        The log, a CSV file.
    suspicion
        As `labelissues.find` returns it: the most doubtful labels come first, and can be had alone.

    Attributes
    ----------
    annotations : annotation.Annotations
    filter : ipywidgets.Dropdown
        Its ``value`` is a label, or ``"all"``, ``"undecided"``, ``"decided"``, ``"relabeled"``, ``"(exclude)"`` or
        ``"suspicious"``. The name of a label is that label: the other entry of that name is then ``"(all)"`` etc.
    view : ipywidgets.VBox
    """

    def __init__(
        self,
        dataset: ImageDataset,
        decisions: str | os.PathLike,
        suspicion: pd.DataFrame | None = None,
        per_page: int = 24,
    ) -> None:
        self.annotations = Annotations(dataset, decisions)
        self._suspicion = None if suspicion is None else suspicion.set_index("path")
        labels = self.annotations.labels
        own = ["undecided", "decided", "relabeled", *([] if suspicion is None else ["suspicious"])]
        self._own = {apart(name, labels): name for name in ["all", EXCLUDE, *own]}
        everything, excluded, *others = self._own
        choices = [everything, *labels, excluded, *others]
        self.filter = ipywidgets.Dropdown(options=choices, description="Show", layout={"width": "200px"})
        self.filter.observe(lambda _: self.grid.focus(), "value")
        self._progress = ipywidgets.IntProgress(max=len(dataset), layout={"width": "120px"})
        self._count = ipywidgets.HTML()
        # numbers that no keyboard sends stand for the labels beyond the last key
        self._keys = dict(
            zip([*LABEL_KEYS, *map(str, range(len(LABEL_KEYS), len(labels)))], labels, strict=False)
        )
        super().__init__([self.filter], per_page, [*LABEL_KEYS[: len(labels)], *KEYS])
        self.grid.name = "Images and their labels"
        colors, buttons = plots.colors(labels), []
        for key, name in [*self._keys.items(), *KEYS.items()][: len(self._keys) + 4]:
            button = _button(
                f"{_short(name)} [{key}]" if key in self.grid.hotkeys else _short(name), width="auto"
            )
            button.tooltip = name
            if key in self._keys:
                button.layout.border_left = f"6px solid {colors[name]}"
            button.on_click(lambda _, key=key: self._click(key))
            buttons.append(button)
        row = _row(*buttons, self._progress, self._count)
        self.view.children = (self.view.children[0], row, *self.view.children[1:])

    @property
    def dataset(self) -> ImageDataset:
        """The dataset with all decisions applied: a new `ImageDataset`."""
        return self.annotations.dataset

    def decide(self, path: str | os.PathLike, label: object) -> None:
        """Give the image at `path` the label `label`, or exclude it with ``"(exclude)"``, and write that down.

        Labels may be given as they stand in a table: 1 for ``"1"``.
        """
        self.annotations.decide(path, label)
        self._write_captions()

    def press(self, key: str) -> None:
        """Do what a key does, see above, with the selected image."""
        if not (key in self._keys or key in ("x", "Enter", "u")):
            super().press(key)
            return
        try:
            if key == "u":
                self._undo()
            elif len(self.shown):
                path = self.shown["path"].iloc[self.grid.selected]
                label = {"x": EXCLUDE, "Enter": self.annotations.label(path)} | self._keys
                self.decide(path, label[key])
                self._advance(f"{Path(path).stem}: {label[key]}")
        except (OSError, ValueError) as error:  # Jupyter shows no error of a click or a key
            self.grid.status = f"Not written: {error}"

    def _advance(self, said):
        """Select the next image, be it on the next page, and say what happened."""
        if self.grid.selected + 1 < len(self.shown):
            self.grid.selected += 1
        elif (self.page + 1) * self.per_page < len(self.rows):
            self.turn(1)
            said += f". Page {self.page + 1}"
        else:
            said += ". This is the last image shown"
        self.grid.status = f"{said}."

    def _undo(self):
        path = self.annotations.undo()
        if path is None:
            self.grid.status = (
                "Nothing to take back: undo covers what was decided here since this cell was run."
            )
            return
        places = np.flatnonzero(self.rows["path"] == path)
        if len(places):  # else another filter hides it
            page, place = divmod(int(places[0]), self.per_page)
            self.turn(page - self.page)
            self.grid.selected = place
        self._write_captions()
        hidden = "" if len(places) else " It is not among the images shown."
        self.grid.status = f"Taken back. {Path(path).stem}: {self.annotations.label(path)}.{hidden}"

    def _rows(self):
        table = self.annotations.table
        if self._suspicion is not None:
            found = self._suspicion.reindex(table["path"])
            table = table.assign(
                quality=found["quality"].to_numpy(),
                suggested=found["suggested"].to_numpy(),
                issue=found["issue"].eq(True).to_numpy(),
            ).sort_values("quality", kind="stable")
        choice = self._own.get(self.filter.value)
        if choice == "suspicious":
            return table[table["issue"] & ~table["decided"]]
        conditions = {
            "all": slice(None),
            "undecided": ~table["decided"],
            "decided": table["decided"],
            "relabeled": (table["label"] != table["given"]) & (table["label"] != EXCLUDE),
        }
        return table[conditions.get(choice, table["label"] == self.filter.value)]

    def _write_captions(self):
        super()._write_captions()
        progress = self.annotations.progress()
        self._progress.value = int(progress["decided"])
        self._count.value = (
            f"{progress['decided']} of {progress['images']} decided: {progress['relabeled']} relabeled, "
            f"{progress['excluded']} excluded"
        )

    def _caption(self, row):
        label, stem = self.annotations.label(row["path"]), Path(row["path"]).stem
        is_decided = self.annotations.is_decided(row["path"])
        changed = "" if label == row["given"] else f" (was {_short(row['given'])})"
        note = stem
        if self._suspicion is not None and row["quality"] == row["quality"]:
            note += f", {row['quality']:.0%} for {_short(row['given'])}"
        return {
            "title": _short(label) + changed + " ✓" * is_decided,
            "spoken": f"{label}{changed}, {'decided' if is_decided else 'undecided'}, {note}",
            "color": plots.colors(self.annotations.labels).get(label, "#9e9e9e"),
            "note": note,
            "hint": f"{row['path']}\n{label}",
            "dim": label == EXCLUDE,
        }

    def _details(self, row):
        return super()._details({**row, "label": self.annotations.label(row["path"])})


class ResultsUI(_Pages):
    """Look at predictions: right or wrong, by label, by score, and where the network looked.

    Parameters
    ----------
    model
        Fine-tuned; with it, ``saliency`` lays Grad-CAM over the images (`saliency.grad_cam`).

    Attributes
    ----------
    view : ipywidgets.VBox
    """

    def __init__(
        self, evaluation: Evaluation, model: ImageClassifier | None = None, per_page: int = 12
    ) -> None:
        self.evaluation, self._model = evaluation, model
        choices = ["wrong", "right", "all"]
        self.filter = ipywidgets.Dropdown(options=choices, description="Show", layout={"width": "170px"})
        self._any = apart("any label", evaluation.classes)
        self.label = ipywidgets.Dropdown(
            options=[self._any, *evaluation.classes],
            description="true label",
            layout={"width": "230px"},
        )
        self.range = ipywidgets.FloatRangeSlider(
            value=(0, 1),
            max=1,
            step=0.01,
            continuous_update=False,
            tooltip=f"score {evaluation.positive}",
            layout={"margin": "2px 2px 2px 1em"},
        )
        # no description, which would be set as mathematics where a label holds dollar signs
        of = _text(f"score {evaluation.positive}")
        has_gradient = model is not None and model.classifier is None
        self.saliency = ipywidgets.ToggleButton(description="saliency", disabled=not has_gradient)
        hint = "what speaks for the predicted label" if has_gradient else "needs a fine-tuned model"
        self.saliency.tooltip = hint
        self.saliency.observe(lambda _: self._draw(), "value")
        super().__init__([self.filter, self.label, of, self.range], per_page)
        self.grid.name = "Images and their predictions"
        bar = self.view.children[0]
        bar.children = (*bar.children, self.saliency)

    def _rows(self):
        table, choice = self.evaluation.table, self.filter.value
        columns = [self.evaluation.classes.index(label) for label in table["prediction"]]
        table = table.assign(confidence=self.evaluation.scores[np.arange(len(table)), columns])
        if choice != "all":
            table = table[(table["label"] == table["prediction"]) == (choice == "right")]
        if self.label.value != self._any:
            table = table[table["label"] == self.label.value]
        low, high = self.range.value
        table = table[table[f"score_{self.evaluation.positive}"].between(low, high)]
        return table.sort_values("confidence", ascending=choice == "right", kind="stable")

    def _caption(self, row):
        colors = plots.colors(self.evaluation.classes)
        label, prediction, stem = row["label"], row["prediction"], Path(row["path"]).stem
        seen = f", seen as {_short(prediction)}"
        return {
            "title": _short(label) + (" ✓" if label == prediction else seen),
            "spoken": f"{label}, seen as {prediction}, score {row[f'score_{prediction}']:.2f}, {stem}",
            "color": colors[label],
            "note": stem,
            "hint": row["path"],
            "bars": [
                {"name": name, "value": float(row[f"score_{name}"]), "color": color}
                for name, color in colors.items()
            ],
        }

    def _thumbnails(self, rows):
        if not self.saliency.value:
            return super()._thumbnails(rows)
        return [_url(Image.fromarray(image)) for image in self._salient(rows)]

    def _large(self, row):
        if not self.saliency.value:
            return super()._large(row)
        return _url(Image.fromarray(self._salient(row.to_frame().T)[0]))

    def _salient(self, rows):
        from ..model import saliency

        images = np.stack([pixels.decode(path, self._model.image_size) for path in rows["path"]])
        shown = [None] * len(rows)
        for label in rows["prediction"].unique():
            places = np.flatnonzero(rows["prediction"] == label)
            maps = saliency.grad_cam(self._model, images[places], label)
            for place, each in zip(places, maps, strict=True):
                shown[place] = saliency.overlay(images[place], each)
        return shown


def _clickable(figure):
    """Return a canvas of ipympl, whose import would make all further plots of the notebook such canvases."""
    backend = matplotlib.get_backend()
    from ipympl.backend_nbagg import Canvas, FigureManager  # its toolbar pulls in a good part of Jupyter

    if matplotlib.get_backend() != backend:
        matplotlib.use(backend)
    canvas = Canvas(figure)
    canvas.toolbar_visible = canvas.header_visible = canvas.footer_visible = canvas.resizable = False
    FigureManager(canvas, 0)
    return canvas


class PrecisionRecallUI(_Widget):
    """Choose a threshold by clicking on the ROC or the precision-recall curve, or by the slider, and see what follows.

    Below the curves stand the confusion matrix and the figures at the threshold, and the images whose prediction
    changes on the way from the evaluation's own threshold.

    Parameters
    ----------
    evaluation
        Of validation images, if the threshold shall be used. With more than two classes the curves are of its
        ``positive`` one against all others: such a model decides for its highest score and uses no threshold.

    Attributes
    ----------
    threshold : ipywidgets.FloatSlider
        Its ``value`` is one for `ImageClassifier.decide_at`, with two classes.
    changed : ResultsUI
        The images that change sides.
    view : ipywidgets.VBox
    """

    def __init__(self, evaluation: Evaluation, per_page: int = 12) -> None:
        from ..checks import CALL_NONE

        note = ipywidgets.HTML()
        if len(evaluation.classes) > 2:
            note.value = (
                f"The curves show <b>{escape(evaluation.positive)}</b> against all other labels. A model with "
                f"{len(evaluation.classes)} labels decides for its highest score, so it uses no threshold: "
                "the slider only explores these curves."
            )
            evaluation = evaluation.against(evaluation.positive)
        self._start = evaluation.at(0.5) if evaluation.threshold is None else evaluation
        self.threshold = ipywidgets.FloatSlider(
            value=self._start.threshold,
            max=CALL_NONE,
            step=0.001,
            readout_format=".3f",
            description="threshold",
            continuous_update=False,
            layout={"width": "480px", "max_width": "100%"},
        )
        self._canvases = [_clickable(Figure(figsize=(4, 4.6), layout="constrained")) for _ in range(2)]
        self._axes = [canvas.figure.subplots() for canvas in self._canvases]
        # no score is infinite: the ends of the curves, where nothing is called positive, cannot be chosen
        curves = {"roc": self._start.roc(), "precision_recall": self._start.precision_recall()}
        self._curves = {name: curve[np.isfinite(curve["threshold"])] for name, curve in curves.items()}
        self._marks = self._plot(self._axes)
        for canvas in self._canvases:
            canvas.mpl_connect("button_press_event", self._clicked)
        self._figures = ipywidgets.HTML()
        self.changed = ResultsUI(self._start, per_page=per_page)
        self.threshold.observe(lambda _: self._draw(), "value")
        curves = _row(*self._canvases)  # below each other on a narrow page
        self.view = self._stack(note, self.threshold, curves, self._figures, self.changed.view)
        self._draw()

    @property
    def evaluation(self) -> Evaluation:
        """The evaluation at the present threshold."""
        return self._start.at(self.threshold.value)

    def click(self, curve: str, x: float, y: float) -> None:
        """Take the threshold of the point nearest to (x, y), each 0 to 1, of ``"roc"`` or ``"precision_recall"``."""
        table = self._curves[curve]
        nearest = ((table.to_numpy()[:, :2] - (x, y)) ** 2).sum(axis=1).argmin()
        self.threshold.value = float(table["threshold"].iloc[nearest])

    def _clicked(self, event):
        for curve, ax in zip(self._curves, self._axes, strict=True):
            if event.inaxes is ax:
                self.click(curve, event.xdata, event.ydata)

    def _plot(self, axes):
        plots.roc(self._start, axes[0])
        plots.precision_recall(self._start, axes[1])
        hollow = {"markersize": 10, "color": "none", "mec": plots.COLORS[0], "mew": 2}  # around the dot
        marks = [ax.plot([], [], "D", **hollow, label="at the slider's threshold")[0] for ax in axes]
        for ax in axes:
            plots.legend_below(ax)
            ax.set_aspect("auto")  # else the layout makes too little room for it
        return marks

    def _draw(self):
        now = self.evaluation
        recall = now.metric("recall")
        self._marks[0].set_data([1 - now.metric("specificity")], [recall])
        self._marks[1].set_data([recall], [now.metric("precision")])
        for canvas in self._canvases:
            canvas.draw_idle()
        names = ("recall", "specificity", "precision", "npv", "accuracy")
        lines = "".join(f"<tr><td>{name}</td><td>{now.text(name)}</td></tr>" for name in names)
        counts = now.confusion_matrix()
        heads = "".join(f"<th>seen as {escape(name)}</th>" for name in counts)
        rows = "".join(
            f"<tr><th>{escape(name)}</th>{''.join(f'<td>{count}</td>' for count in row)}</tr>"
            for name, row in zip(counts.index, counts.to_numpy(), strict=True)
        )
        moved = int(self._changes().sum())
        self._figures.value = (
            f"<style>.isic-figures {{display: flex; flex-wrap: wrap; gap: 1em 4em}} .isic-figures :is(td, th) "
            f"{{padding: 0 1em 0 0; text-align: right}} .isic-figures td {{white-space: nowrap}}</style>"
            f"<div class='isic-figures'><table>{lines}</table><table><tr><td></td>{heads}</tr>{rows}</table></div>"
            f"{moved:,} of {counted(len(now.table), 'image')} {'changes' if moved == 1 else 'change'} sides on the "
            f"way from {self._start.threshold:.3f}:"
        )
        changed = now.table[self._changes()].reset_index(drop=True)
        self.changed.evaluation = dataclasses.replace(now, table=changed)
        self.changed.filter.value = "all"
        self.changed.refresh()

    def _changes(self):
        return self.evaluation.table["prediction"] != self._start.table["prediction"]

    def _figure(self):
        figure, axes = plt.subplots(1, 2, figsize=(8, 4.6), layout="constrained")
        for mark, now in zip(self._plot(axes), self._marks, strict=True):
            mark.set_data(*now.get_data())
        return figure


class ConfusionMatrixUI(_Widget):
    """Click a cell of the confusion matrix and see its images, the most confident first.

    Parameters
    ----------
    model
        For saliency, as of `ResultsUI`.

    Attributes
    ----------
    cell : tuple of str
        True and predicted label of the cell whose images are shown; at first that of the commonest mistake.
    images : ResultsUI
    view : ipywidgets.VBox
    """

    def __init__(
        self, evaluation: Evaluation, model: ImageClassifier | None = None, per_page: int = 12
    ) -> None:
        self._evaluation = evaluation
        counts = evaluation.confusion_matrix()
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        size = len(counts) + 1
        side = 130 if size < 6 else 100  # pixels
        layout = ipywidgets.GridspecLayout(size, size, width=f"{side * size}px", grid_gap="2px")
        layout.layout.flex = "0 0 auto"  # the box around it scrolls; else labels are squeezed
        layout.layout.grid_template_columns = f"repeat({size}, minmax(0, 1fr))"
        layout[0, 0] = ipywidgets.HTML("true ↓<br>predicted →")
        self.buttons = {}
        for row, true in enumerate(counts.index, 1):
            layout[row, 0], layout[0, row] = _text(true, side - 8), _text(true, side - 8)
            for column, predicted in enumerate(counts.columns, 1):
                share = shares.loc[true, predicted]
                button = _button(f"{counts.loc[true, predicted]} ({share:.0%})", width="auto", height="44px")
                button.tooltip = f"{true}, predicted {predicted}"
                red, green, blue = (1 - share * (1 - end) for end in to_rgb(plots.COLORS[0]))  # from white
                button.style.button_color = to_hex((red, green, blue))
                button.style.text_color = plots.ink((red, green, blue))
                button.on_click(lambda _, cell=(true, predicted): self.show(*cell))
                layout[row, column] = self.buttons[true, predicted] = button
        self.images = ResultsUI(evaluation, model, per_page)
        self._title = ipywidgets.HTML()
        scrolled = ipywidgets.Box([layout], layout={"overflow": "auto", "max_width": "100%"})
        self.view = self._stack(scrolled, self._title, self.images.view)
        wrong = counts.stack().drop([(name, name) for name in counts.index])
        self.show(*wrong.idxmax())

    def show(self, true: object, predicted: object) -> None:
        """Show the images of one cell."""
        true, predicted = str(as_label(true)), str(as_label(predicted))
        if (true, predicted) not in self.buttons:
            labels = ", ".join(self._evaluation.classes)
            raise ValueError(f"no cell {true!r}, {predicted!r}; labels are {labels}")
        self.cell = true, predicted
        table = self._evaluation.table.query("label == @true and prediction == @predicted")
        self._title.value = (
            f"<b>{counted(len(table), 'image')}: {escape(true)}, predicted {escape(predicted)}</b>"
        )
        for cell, button in self.buttons.items():
            button.layout.border = "3px solid #D55E00" if cell == self.cell else None
        images = self.images
        images.evaluation = dataclasses.replace(self._evaluation, table=table.reset_index(drop=True))
        images.filter.value, images.label.value = "all", images._any
        images.refresh()

    def _figure(self):
        return plots.confusion(self._evaluation).figure


class AugmentationUI(_Widget):
    """Move the parameters of an augmentation and see at once what it makes of some images.

    Parameters
    ----------
    pipeline
        Returns an imgaug augmenter; each of its parameters has a number (0 to 1) or a pair of numbers (0 to 2) as its
        default, and gets a slider. Default: `augmentation.dermoscopy`.
    images, views
        As of `plots.augmented`.

    Attributes
    ----------
    sliders : dict of str to ipywidgets.Widget
    view : ipywidgets.VBox
    """

    def __init__(
        self,
        dataset: ImageDataset,
        pipeline: Callable[..., iaa.Augmenter] | None = None,
        images: int = 2,
        views: int = 6,
    ) -> None:
        from ..data import augmentation

        self._augment = augmentation.augment_dataset
        self._dataset, self._shape = dataset, (images, views)
        self._pipeline = pipeline or augmentation.dermoscopy
        parameters = inspect.signature(self._pipeline).parameters.values()
        self._defaults = {parameter.name: parameter.default for parameter in parameters}
        self.sliders = {name: _slider(name, default) for name, default in self._defaults.items()}
        self._image = ipywidgets.HTML()
        self._code = ipywidgets.HTML()
        for slider in self.sliders.values():
            slider.observe(lambda _: self._draw(), "value")
        self.view = self._stack(_row(*self.sliders.values()), self._image, self._code)
        self._draw()

    @property
    def parameters(self) -> dict:
        """The parameters that were moved away from their defaults."""
        values = {name: slider.value for name, slider in self.sliders.items()}
        return {name: value for name, value in values.items() if value != self._defaults[name]}

    @property
    def augmenter(self) -> iaa.Augmenter:
        """The imgaug augmenter with these parameters, for `augment_dataset`."""
        return self._pipeline(**self.parameters)

    def _figure(self):
        return plots.augmented(self._augment(self._dataset, self.augmenter), *self._shape)

    def _draw(self):
        call = _call(self._pipeline.__name__, self.parameters)
        self._image.value = _drawn(self._figure(), "jpeg", f"What {call} makes of some images")
        self._code.value = _code(call)


class ParamsUI(_Widget):
    """Choose how to train, see the learning rate that follows, and take the line of code with you.

    Parameters
    ----------
    preset
        Where to begin, one of `presets.PRESETS`.

    Attributes
    ----------
    controls : dict of str to ipywidgets.Widget
    view : ipywidgets.VBox
    """

    MODEL = ("backbone", "image_size", "dropout", "views")

    def __init__(self, preset: str = "balanced") -> None:
        from ..model import backbones
        from ..model.classifier import VIEWS

        self.preset = ipywidgets.Dropdown(options=[*PRESETS], value=preset, description="preset")
        self._is_held = False
        number, choice = ipywidgets.BoundedIntText, ipywidgets.Dropdown
        self.controls = {
            "backbone": choice(options=backbones.BACKBONES),
            "image_size": number(min=32, max=1024),
            "dropout": ipywidgets.FloatSlider(max=0.9, step=0.05),
            "views": choice(options=VIEWS),
            "epochs": number(min=1, max=200),
            "batch_size": number(min=1, max=1024),
            "train_image_size": number(min=32, max=1024),
            "learning_rate": ipywidgets.FloatLogSlider(min=-5, max=0, step=0.1, readout_format=".2g"),
            "schedule": choice(options=SCHEDULES),
            "optimizer": choice(options=OPTIMIZERS),
            "l2": ipywidgets.FloatLogSlider(min=-6, max=-0.5, step=0.25, readout_format=".2g"),
            "body_rate": ipywidgets.FloatSlider(max=1, step=0.05),
            "frozen_stages": ipywidgets.IntSlider(max=8),
            "freeze_epochs": number(max=200),
            "label_smoothing": ipywidgets.FloatSlider(max=0.5, step=0.01),
            "class_weight": choice(
                options=[("balanced", "balanced"), ("None", "")]
            ),  # a value of None would show as nothing
            "members": number(min=1, max=10),
        }
        for name, control in self.controls.items():
            control.description, control.style.description_width = name, "120px"
            control.observe(lambda _: self._draw(), "value")
        self._image, self._code = ipywidgets.HTML(), ipywidgets.HTML()
        self.preset.observe(lambda _: self._take_preset(), "value")
        self.view = self._stack(self.preset, _row(*self.controls.values()), self._image, self._code)
        self._take_preset()

    @property
    def model(self) -> dict:
        """Arguments for `ImageClassifier`, but for the labels."""
        return {name: self.controls[name].value for name in self.MODEL}

    @property
    def training(self) -> dict:
        """Settings for `ImageClassifier.fit`."""
        shown = {name: control.value for name, control in self.controls.items() if name not in self.MODEL}
        shown["class_weight"] = shown["class_weight"] or None
        for name in ("learning_rate", "l2"):  # what the slider shows, not 0.010000000000000021
            shown[name] = float(f"{shown[name]:.4g}")
        return PRESETS[self.preset.value]["training"] | shown

    @property
    def code(self) -> str:
        """The lines that make and train such a model."""
        model = self.model
        made = _call("ImageClassifier", model, repr(model.pop("backbone")), "dataset.labels")
        train = "augment_dataset(train, [augmentation.dermoscopy()])"  # as a preset does by itself
        return f"model = {made}\n{_call('model.fit', self.training, train)}"

    def _take_preset(self):
        preset = PRESETS[self.preset.value]
        values = {field.name: field.default for field in dataclasses.fields(Settings)}
        values |= {"backbone": "efficientnet_lite0"} | preset["model"] | preset["training"]
        self._is_held = True  # one drawing for all changes
        for name, control in self.controls.items():
            control.value = "" if values[name] is None else values[name]
        self._is_held = False
        self._draw()

    def _figure(self):
        settings = self._settings
        figure, ax = plt.subplots(figsize=(6, 2.4), layout="constrained")
        places = np.linspace(0, 1, 60 * settings.epochs, endpoint=False)
        rates = [settings.rate(int(place * settings.epochs), place) for place in places]
        ax.plot(places * settings.epochs, rates, color=plots.COLORS[0], label="last layer")
        if settings.freeze_epochs < settings.epochs:
            body = places * settings.epochs >= settings.freeze_epochs
            slower = settings.body_rate * np.asarray(rates)[body]
            ax.plot((places * settings.epochs)[body], slower, "--", color=plots.COLORS[1], label="body")
        ax.set(xlabel="epoch", title=f"learning rate, {settings.schedule}")
        ax.legend(frameon=False)
        return figure

    def _draw(self):
        if self._is_held:
            return
        try:
            self._settings = Settings(**self.training)  # the last ones that go together
            text = f"Learning rate over {counted(self.controls['epochs'].value, 'epoch')}"
            self._image.value = _drawn(self._figure(), "png", text)
            self._code.value = _code(self.code)
        except ValueError as error:  # of Settings: the control to change is named
            self._code.value = (
                f"<p role='alert' style='color:var(--jp-error-color1, #b3261e)'>{escape(str(error))}</p>"
            )


def _button(name, **layout):
    return ipywidgets.Button(description=name, layout=layout)


def _row(*parts):
    """Return the parts beside each other, and below where the page is too narrow."""
    return ipywidgets.Box([*parts], layout={"flex_flow": "row wrap"})


def _text(text, width=200):
    """Return one line of plain text, cut off at `width`; a Label would set dollar signs as mathematics."""
    style = f"max-width: {width}px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap"
    return ipywidgets.HTML(f"<div title='{escape(text)}' style='{style}'>{escape(text)}</div>")


def _short(label):
    """Cut a very long label off."""
    return label if len(label) <= 40 else f"{label[:39]}…"


def _drawn(figure, kind, alt):
    """Return a figure as HTML, with a description for those who cannot see it."""
    source = f"data:image/{kind};base64,{plots.encode(figure, kind)}"
    return f"<img alt='{escape(alt)}' src='{source}' style='max-width: 100%'>"


def _slider(name, default):
    """Return a slider for a parameter whose default is a number from 0 to 1, or a pair of numbers."""
    options = {"description": name, "step": 0.01, "continuous_update": False, "value": default}
    if isinstance(default, tuple):
        return ipywidgets.FloatRangeSlider(max=max(2, *default), **options)
    if isinstance(default, (int, float)):
        return ipywidgets.FloatSlider(max=max(1, default), **options)
    raise TypeError(f"parameter {name!r} has the default {default!r}, no number and no pair to slide")


def _call(name, arguments, *before):
    """Write a call as Python code."""
    return f"{name}({', '.join([*before, *(f'{key}={value!r}' for key, value in arguments.items())])})"


def _code(text):
    return f"<pre style='white-space:pre-wrap'>{escape(text)}</pre>"


@functools.lru_cache(4096)
def _thumbnail(path):
    """Return an image as a data URL of some kilobytes; one that cannot be read as a gray square."""
    try:
        return _url(Image.fromarray(pixels.decode(path, SIDE)))
    except pixels.ImageError:
        return _url(Image.new("RGB", (SIDE, SIDE), "#888888"))


def _url(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
