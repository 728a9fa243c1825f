"""Grids of images, page by page: correct labels, look into results and into a confusion matrix."""

from __future__ import annotations

import abc
import functools
import os
import string
from concurrent.futures import ThreadPoolExecutor
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from .. import plots
from ..checks import is_whole
from ..data.annotation import EXCLUDE, Annotations
from ..data.dataset import ImageDataset
from ..images import ImageError, data_url, decode, frame, map_threads
from ..plots.style import colors, ink
from ..text import apart, as_label, counted
from .imagegrid import ImageGrid
from .parts import Widget, button, line, row, short, stack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..evaluation.evaluation import Evaluation
    from ..model.classifier import ImageClassifier
    from ..model.neighbors import Neighbors

SIDE, LARGE = 150, 640
"""Pixels of a thumbnail, as in imagegrid.css, and of the longer side of an image shown large."""
KEYS = {"Enter": "confirm", "x": "exclude", "u": "undo", "z": "zoom"}
LABEL_KEYS = "1234567890" + "".join(sorted({*string.ascii_lowercase} - {*KEYS, "n", "p"}))
"""Keys of the first labels, in their order; further labels have a button only."""
_ahead = ThreadPoolExecutor(1)


class _Pages(Widget):
    """A grid of images, page by page: moving a filter selects the images anew, changing an image does not."""

    def __init__(self, name, per_page, filters, more, keys=()):
        if not is_whole(per_page, 1):
            raise ValueError(f"per_page is a whole number of 1 or more, not {per_page!r}")
        self.per_page = per_page
        self.grid = ImageGrid(name=name, hotkeys=[*keys, "z", "n", "p"])
        self.grid.on_key(self.press)
        self.grid.observe(lambda _: setattr(self.grid, "large", {}), "selected")
        self._position, self._credit = ipywidgets.HTML(), ipywidgets.HTML()
        for each in filters:
            each.observe(lambda _: self.refresh(), "value")
        turns = self._button("Previous", "p"), self._button("Next", "n")
        self.view = stack(row(*filters, *turns, self._position, *more), self.grid, self._credit)
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
        """Do what a key does: ``z`` shows the selected image large or closes it, ``n`` and ``p`` turn the page."""
        if key in ("n", "p"):
            self.turn(1 if key == "n" else -1)
        elif key == "z" and (self.grid.large or self.shown.empty):
            self.grid.large = {}
        elif key == "z":
            selected = self.shown.iloc[[self.grid.selected]]
            path, group = selected[["path", "group"]].iloc[0]
            text = f"{path}   {self.grid.captions[self.grid.selected]['spoken']}   group {group}"
            try:
                image = self._draw_images(selected, lambda path: data_url(frame(path, LARGE)[0]))[0]
            except ImageError as error:
                image, text = thumbnail(path), str(error)
            self.grid.large = {"image": image, "text": text}

    def _button(self, name, key):
        """Return a button that does what a key does, and gives the focus back to the images."""
        return button(short(name), name, lambda: (self.press(key), self.grid.focus()), width="auto")

    @property
    def shown(self) -> pd.DataFrame:
        """The rows of this page."""
        return self.rows.iloc[self.page * self.per_page :][: self.per_page]

    @abc.abstractmethod
    def _rows(self) -> pd.DataFrame:
        """Select the images to show."""

    @abc.abstractmethod
    def _caption(self, row: pd.Series) -> dict:
        """Write the caption of an image for `ImageGrid`."""

    def _draw(self):
        start, shown = self.page * self.per_page, self.shown
        self._position.value = f"{min(start + 1, len(self.rows))} to {start + len(shown)} of {len(self.rows)}"
        self._credit.value = escape(plots.credit(shown))
        with self.grid.hold_sync():
            self.grid.selected, self.grid.large, self.grid.status = 0, {}, ""
            self.grid.turn += 1
            self.grid.images = self._draw_images(shown, thumbnail)
            self._write_captions()
        _ahead.map(thumbnail, self.rows["path"].iloc[start + self.per_page :][: self.per_page])

    def _draw_images(self, rows, draw):
        return map_threads(draw, [*rows["path"]])

    def _write_captions(self):
        self.grid.captions = [self._caption(each) for _, each in self.shown.iterrows()]

    def _figure(self):
        return plots.grid(self.rows.head(self.per_page))


class AnnotationUI(_Pages):
    """Look at images and correct their labels, or exclude them, by mouse or keys.

    Click an image, then press the key on its label's button: the next image is selected. docs/widgets.md lists the
    other keys. Each decision is saved at once in the CSV file `decisions` (`annotation.Annotations`). With `suspicion`,
    the table of `labelissues.find`, the most doubtful labels come first. Images without a label get their first from
    `labels`. The ``value`` of ``filter`` is a label, ``"all"``, ``"undecided"``, ``"decided"``, ``"relabeled"``,
    ``"(exclude)"`` or ``"suspicious"``. With ``within``, a bool for each image, `refresh` shows only those with it.

    >>> ui = AnnotationUI(dataset, "decisions.csv")
    >>> ui.decide(dataset.paths[0], "malignant")
    >>> ui.counts
    {'images': 159, 'decided': 1, 'relabeled': 1, 'excluded': 0}
    """

    def __init__(
        self,
        dataset: ImageDataset,
        decisions: str | os.PathLike,
        suspicion: pd.DataFrame | None = None,
        per_page: int = 24,
        labels: Iterable[str] = (),
    ) -> None:
        self.annotations = Annotations(dataset, decisions, labels)
        labels = self.annotations.labels
        if suspicion is None:
            suspicion = pd.DataFrame(columns=["path", "quality", "issue"])
        self._doubts = suspicion.set_index("path").reindex(dataset.paths)
        self.within = np.ones(len(dataset), bool)
        options = [*self._conditions(self.annotations.table)]
        self.filter = ipywidgets.Dropdown(options=options, description="Show", layout={"width": "200px"})
        self.filter.observe(lambda _: self.grid.focus(), "value")
        self._progress = ipywidgets.IntProgress(max=len(dataset), layout={"width": "120px"})
        self._count = ipywidgets.HTML()
        # labels beyond the last key get names that no keyboard sends
        names = [*LABEL_KEYS, *map(str, range(len(LABEL_KEYS), len(labels)))]
        self._keys = dict(zip(names, labels, strict=False))
        keys = [*LABEL_KEYS[: len(labels)], *KEYS]
        bar = row(*self._buttons(keys), self._progress, self._count)
        super().__init__("Images and their labels", per_page, [self.filter], [bar], keys)

    def _buttons(self, keys):
        palette = colors(self.annotations.labels)
        for key, name in (self._keys | KEYS).items():
            made = self._button(name, key)
            made.description += f" [{key}]" if key in keys else ""
            made.layout.border_left = f"6px solid {palette[name]}" if name in palette else None
            yield made

    @property
    def dataset(self) -> ImageDataset:
        """The dataset with all decisions applied: a new `ImageDataset`."""
        return self.annotations.dataset

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of ``images``, and of those ``decided``, ``relabeled`` and ``excluded``."""
        return self.annotations.progress().to_dict()

    def decide(self, path: str | os.PathLike, label: object) -> None:
        """Save the label of the image at `path`, which may be a number, or exclude the image by ``"(exclude)"``."""
        self.annotations.decide(path, label)
        self._write_captions()

    def press(self, key: str) -> None:
        """Do what a key does with the selected image: see the class."""
        try:
            if key == "u":
                self.grid.status = self._undo()
            elif key in ("x", "Enter", *self._keys) and len(self.shown):
                path = self.shown["path"].iloc[self.grid.selected]
                label = {"x": EXCLUDE, "Enter": self.annotations.label(path)} | self._keys
                self.decide(path, label[key])
                self.grid.status = f"{Path(path).stem}: {label[key]}. {self._advance()}".strip()
            else:
                super().press(key)
        except (OSError, ValueError) as error:  # Jupyter shows no errors of clicks and keys
            self.grid.status = f"Not saved: {error}"

    def _advance(self):
        """Select the next image; return what else is to be said."""
        place = self.page * self.per_page + self.grid.selected + 1
        if place == len(self.rows):
            return "This is the last image shown."
        self._select(place)
        return "" if self.grid.selected else f"Page {self.page + 1}."

    def _undo(self):
        """Undo the last decision, select its image and return what happened."""
        path = self.annotations.undo()
        if path is None:
            return "Nothing to undo: only decisions made since this cell was run can be undone."
        places = np.flatnonzero(self.rows["path"] == path)
        if len(places):
            self._select(int(places[0]))
        self._write_captions()
        said = f"Undone. {Path(path).stem}: {self.annotations.label(path) or 'no label'}."
        return said if len(places) else f"{said} The filter hides this image."

    def _select(self, place):
        """Select an image by its place among all rows."""
        page, selected = divmod(place, self.per_page)
        self.turn(page - self.page)
        self.grid.selected = selected

    def _conditions(self, table):
        """Return the choices of the filter, each with the rows that it shows."""
        decided, label, labels = table["decided"], table["label"], self.annotations.labels
        own = {
            "all": label.notna(),
            "undecided": ~decided,
            "decided": decided,
            "relabeled": (label != table["given"]) & (label != EXCLUDE) & (table["given"] != ""),
            EXCLUDE: label == EXCLUDE,
        }
        if self._doubts["issue"].notna().any():
            own["suspicious"] = self._doubts["issue"].eq(True).to_numpy() & ~decided
        found = {apart(name, labels): rows for name, rows in own.items()}
        return found | {each: label == each for each in labels}

    def _rows(self):
        table = self.annotations.table.assign(quality=self._doubts["quality"].to_numpy(float))
        shown = self._conditions(table)[self.filter.value] & self.within
        return table[shown].sort_values("quality", kind="stable")

    def _write_captions(self):
        super()._write_captions()
        counts = self.counts
        self._progress.value = counts["decided"]
        text = "{decided} of {images} decided: {relabeled} relabeled, {excluded} excluded"
        self._count.value = text.format(**counts)

    def _caption(self, row):
        path, given = row["path"], short(row["given"])
        label, is_decided = self.annotations.label(path), self.annotations.is_decided(path)
        changed = "" if row["given"] in (label, "") else f" (was {given})"
        note = Path(path).stem
        if pd.notna(row["quality"]):
            note += f", {row['quality']:.0%} for {given}"
        return {
            "title": short(label or "no label") + changed + " ✓" * is_decided,
            "spoken": f"{label or 'no label'}{changed}, {'decided' if is_decided else 'undecided'}, {note}",
            "color": colors(self.annotations.labels).get(label, "#9e9e9e"),
            "note": note,
            "dim": label == EXCLUDE,
        }


class ResultsUI(_Pages):
    """Look at predictions: right or wrong, by label, by score, and where the network looked.

    With a fine-tuned `model`, the button ``saliency`` overlays Grad-CAM for the predicted label (`saliency.grad_cam`).
    With `neighbors`, the training images most like the selected image stand beside it.

    >>> ResultsUI(evaluation).shown["prediction"].unique().tolist()
    ['benign', 'malignant']
    """

    def __init__(
        self,
        evaluation: Evaluation,
        model: ImageClassifier | None = None,
        per_page: int = 12,
        neighbors: Neighbors | None = None,
    ):
        self.evaluation, self._model, self._neighbors = evaluation, model, neighbors
        self.similar = ImageGrid(name="Training images most like the selected image", selected=-1)
        self.filter = ipywidgets.Dropdown(options=["wrong", "right", "all"], description="Show")
        labels = [apart("any label", evaluation.classes), *evaluation.classes]
        self.label = ipywidgets.Dropdown(options=labels, description="true label")
        self.range = ipywidgets.FloatRangeSlider(value=(0, 1), max=1, step=0.01, continuous_update=False)
        positive = evaluation.positive
        # JupyterLab renders what stands between two dollar signs as math
        self.range.description = "score" if "$" in positive else f"score {short(positive)}"
        for each, width in ((self.filter, "140px"), (self.label, "200px"), (self.range, "280px")):
            each.layout.width, each.style.description_width = width, "initial"
        is_off = model is None or not model.is_fine_tuned
        hint = "overlay what raises the score of the predicted label: needs a fine-tuned model"
        self.saliency = ipywidgets.ToggleButton(description="saliency", disabled=is_off, tooltip=hint)
        self.saliency.observe(lambda _: self._draw(), "value")
        filters = [self.filter, self.label, self.range]
        super().__init__("Images and their predictions", per_page, filters, [self.saliency])
        if self._neighbors:
            self.grid.layout.flex, self.similar.layout.flex = "100 1 160px", "1 1 165px"
            both = row(self.grid, self.similar)
            self.view.children = [both if each is self.grid else each for each in self.view.children]
            self.grid.observe(lambda _: self._draw_similar(), "selected")

    def show(self, evaluation: Evaluation) -> None:
        """Show all images of another evaluation with the same classes."""
        self.evaluation = evaluation
        self.filter.value = "all"
        self.refresh()

    def _draw(self):
        super()._draw()
        self._draw_similar()

    def _draw_similar(self):
        """Show the training images that are most like the selected image."""
        if self._neighbors is None:
            return
        paths, palette = [*self.shown["path"].iloc[self.grid.selected :][:1]], colors(self.evaluation.classes)
        self.similar.status = "".join(f"Training images most like {Path(path).stem}" for path in paths)
        try:
            found = self._neighbors.nearest(paths)
        except ImageError as error:
            found, self.similar.status = self._neighbors.nearest([]), str(error)
        with self.similar.hold_sync():
            self.similar.images = map_threads(thumbnail, [*found["path"]])
            self.similar.captions = [
                {
                    "title": short(each.label),
                    "color": palette.get(each.label),
                    "note": f"{Path(each.path).stem}, distance {each.distance:.2f}",
                }
                for each in found.itertuples()
            ]

    def _rows(self):
        table, choice = self.evaluation.table, self.filter.value
        columns = [self.evaluation.classes.index(label) for label in table["prediction"]]
        table = table.assign(confidence=self.evaluation.scores[np.arange(len(table)), columns])
        if choice != "all":
            table = table[(table["label"] == table["prediction"]) == (choice == "right")]
        if self.label.index:
            table = table[table["label"] == self.label.value]
        table = table[table[f"score_{self.evaluation.positive}"].between(*self.range.value)]
        return table.sort_values("confidence", ascending=choice == "right", kind="stable")

    def _caption(self, row):
        label, prediction, note = row["label"], row["prediction"], Path(row["path"]).stem
        palette = colors(self.evaluation.classes)
        return {
            "title": short(label) + (" ✓" if label == prediction else f", predicted {short(prediction)}"),
            "spoken": f"{label}, predicted {prediction}, score {row[f'score_{prediction}']:.2f}, {note}",
            "color": palette[label],
            "note": note,
            "bars": [(name, float(row[f"score_{name}"]), color) for name, color in palette.items()],
        }

    def _draw_images(self, rows, draw):
        if not self.saliency.value:
            return super()._draw_images(rows, draw)
        from ..model import saliency

        images = np.stack([decode(path, self._model.image_size) for path in rows["path"]])
        maps = np.empty(images.shape[:3], np.float32)
        for label in rows["prediction"].unique():
            of_label = (rows["prediction"] == label).to_numpy()
            maps[of_label] = saliency.grad_cam(self._model, images[of_label], label)
        return [data_url(Image.fromarray(saliency.overlay(*each))) for each in zip(images, maps, strict=True)]


class ConfusionMatrixUI(Widget):
    """Click a cell of the confusion matrix and see its ``images``, a `ResultsUI`, the most confident first.

    ``cell`` is the true and the predicted label; at first it is the most frequent mistake.

    >>> ConfusionMatrixUI(evaluation).cell
    ('malignant', 'benign')
    """

    def __init__(self, evaluation: Evaluation, model: ImageClassifier | None = None, per_page: int = 12):
        self._evaluation = evaluation
        self.images = ResultsUI(evaluation, model, per_page)
        self._title = ipywidgets.HTML()
        counts = evaluation.confusion_matrix()
        shares = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
        cells = counts.stack().items()
        self.buttons = {cell: self._button(cell, count, shares.loc[cell]) for cell, count in cells}
        side = 130 if len(counts) < 5 else 100  # pixels
        parts = [ipywidgets.HTML("true ↓<br>predicted →"), *(line(name, side) for name in counts)]
        for true in counts:
            parts += [line(true, side), *(self.buttons[true, predicted] for predicted in counts)]
        # without the flex the box around it would squeeze the labels, not scroll
        layout = {"grid_template_columns": f"repeat({len(counts) + 1}, {side}px)", "flex": "0 0 auto"}
        matrix = ipywidgets.GridBox(parts, layout=layout | {"grid_gap": "2px"})
        scrolled = ipywidgets.Box([matrix], layout={"overflow": "auto", "max_width": "100%"})
        self.view = stack(scrolled, self._title, self.images.view)
        self.show(*max(self.buttons, key=lambda cell: (cell[0] != cell[1], counts.loc[cell])))

    def _button(self, cell, count, share):
        hint = f"{cell[0]}, predicted {cell[1]}"
        made = button(f"{count} ({share:.0%})", hint, lambda: self.show(*cell), width="auto", height="44px")
        color = colormaps["Blues"](share)
        made.style.button_color, made.style.text_color = to_hex(color), ink(color[:3])
        return made

    def show(self, true: object, predicted: object) -> None:
        """Show the images of one cell."""
        cell = true, predicted = str(as_label(true)), str(as_label(predicted))
        if cell not in self.buttons:
            labels = ", ".join(self._evaluation.classes)
            raise ValueError(f"no cell {true!r}, {predicted!r}: labels are {labels}")
        self.cell, table = cell, self._evaluation.table
        found = self._evaluation.where((table["label"] == true) & (table["prediction"] == predicted))
        title = f"{counted(len(found.table), 'image')}: {true}, predicted {predicted}"
        self._title.value = f"<b>{escape(title)}</b>"
        for each, made in self.buttons.items():
            made.layout.border = "3px solid #D55E00" if each == cell else None
        self.images.label.index = 0
        self.images.show(found)

    def _figure(self):
        return plots.confusion(self._evaluation).figure


@functools.lru_cache(4096)
def thumbnail(path: str) -> str:
    """Return an image as a small data URL; one that cannot be read as a gray square."""
    try:
        return data_url(Image.fromarray(decode(path, SIDE)))
    except ImageError:
        return data_url(Image.new("RGB", (SIDE, SIDE), "#888888"))
