"""A map of images by a network's features, from which images are opened, relabeled and excluded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import numpy as np

from .. import plots
from ..data.dataset import ImageDataset
from ..plots.maps import coded
from ..tables import require_column
from ..text import counted, printable
from .imagegrid import PointMap
from .pages import AnnotationUI, thumbnail
from .parts import Widget, row, short, stack

if TYPE_CHECKING:
    from ..model.featuremap import Features


class MapUI(Widget):
    """See images as points, colored by a column, where those that a network takes for like are near.

    Hovering shows an image. A lasso opens ``images``, an `AnnotationUI`, in which each is relabeled or excluded in the
    same CSV file `decisions`; so do the values of the legend and, by keys, a circle. `model` may be features of shape
    (images, features); name the `labels` if the images have none yet. See `plots.map` and `featuremap.purity`, whose
    sentence about the column stands below.

    >>> ui = MapUI(dataset, np.random.default_rng(0).normal(size=(len(dataset), 8)), "decisions.csv", "sex")
    >>> ui.choose([3, 5])
    >>> ui.images.rows.index.tolist(), ui.map.status
    ([3, 5], '2 images: 1 benign, 1 malignant')
    """

    def __init__(
        self,
        dataset: ImageDataset,
        model: Features,
        decisions: str | os.PathLike,
        color: str = "label",
        labels: Iterable[str] = (),
    ) -> None:
        from ..model import featuremap  # torch takes seconds to import

        color = require_column(dataset.table, color, "the dataset")
        self._dataset, self._features = dataset, featuremap.features(dataset, model)
        place = featuremap.places(dataset, self._features) * (1, -1)
        low, high = place.min(axis=0), place.max(axis=0)
        place = 0.5 + (place - (low + high) / 2) / max(high - low)
        self.map = PointMap(places=place.astype(np.float32).tobytes())
        columns = [*dict.fromkeys([*featuremap.varying(dataset), color])]
        self.color = ipywidgets.Dropdown(options=columns, value=color, description="color")
        self._purity, self._words = featuremap.purity, ipywidgets.HTML()
        self.images = AnnotationUI(dataset, decisions, per_page=12, labels=labels)
        self.images.grid.name = "Images chosen on the map"
        self.view = stack(row(self.color), self.map, self._words, self.images.view)
        self.map.observe(lambda _: self._open(), "chosen")
        self.map.on_msg(lambda _, content, __: self._answer(content["hover"]))
        self.color.observe(lambda _: self._recolor(), "value")
        self.images.grid.observe(lambda _: self._paint(), "captions")  # a label may have changed
        self._recolor()
        self._open()

    def choose(self, numbers: Iterable[int]) -> None:
        """Open the images of these rows of the dataset's table."""
        self.map.chosen = [*numbers]

    def _open(self):
        self.images.within = np.isin(np.arange(len(self._dataset)), self.map.chosen)
        self.images.refresh()
        counts = self.images.rows["label"].value_counts()
        said = ", ".join(f"{count:,} {short(label) or 'without a label'}" for label, count in counts.items())
        hint = "Draw around points, or click a value of the legend, to open their images."
        self.map.status = f"{counted(counts.sum(), 'image')}: {said}" if said else hint

    def _recolor(self):
        self._paint()
        try:
            words = str(self._purity(self._dataset, self._features, [self.color.value]))
        except ValueError as error:  # all images are of one lesion or patient
            words = str(error)
        self._words.value = escape(words)

    def _paint(self):
        numbers, names = coded(self.images.annotations.table[self.color.value])
        with self.map.hold_sync():
            self.map.codes = numbers.tobytes()
            self.map.legend = [{"name": name, "color": shade, "count": n} for name, shade, n in names]

    def _answer(self, number):
        path, value = self._dataset.table[["path", self.color.value]].iloc[number]
        text = f"{Path(path).stem}: {printable(value)}"
        self.map.send({"hover": number, "image": thumbnail(path), "text": text})

    def _figure(self):
        return plots.map(self._dataset, self._features, self.color.value).figure
