"""Controls to click in a notebook: look at pictures and correct labels, look at right and wrong predictions.

Where widgets are not rendered (a saved notebook on the web, nbconvert) the first page shows as a picture.
"""

import io
from datetime import UTC, datetime
from pathlib import Path

import ipywidgets
import pandas as pd
from PIL import Image

from . import pixels, plots

EXCLUDE = "(exclude)"


class _Pages:
    """A grid of pictures with page buttons and a filter.

    A subclass has ``rows()``, the rows to show as a pandas.DataFrame, and ``_cell(row)``, the widget of one.
    """

    def __init__(self, choices, per_page):
        self.per_page = per_page
        self.page = 0
        self._choice = ipywidgets.Dropdown(options=choices, description="Show")
        self._position = ipywidgets.Label()
        self._grid = ipywidgets.GridBox(layout={"grid_template_columns": "repeat(auto-fill, 190px)"})
        back, forward = (
            ipywidgets.Button(description=name, layout={"width": "90px"}) for name in ("Back", "Next")
        )
        back.on_click(lambda _: self.turn(-1))
        forward.on_click(lambda _: self.turn(1))
        self._choice.observe(lambda _: self._first(), "value")
        self._bar = ipywidgets.HBox([self._choice, back, forward, self._position])
        self._credit = ipywidgets.Label()
        self.view = ipywidgets.VBox([self._bar, self._grid, self._credit])
        self._draw()

    def turn(self, pages):
        """Go forward by `pages`, or back if negative."""
        last = max(0, (len(self.rows()) - 1) // self.per_page)
        self.page = min(max(self.page + pages, 0), last)
        self._draw()

    def _first(self):
        self.page = 0
        self._draw()

    def _draw(self):
        rows = self.rows()
        start = self.page * self.per_page
        shown = rows.iloc[start : start + self.per_page]
        self._position.value = f"{min(start + 1, len(rows))} to {start + len(shown)} of {len(rows)}"
        self._credit.value = plots.credit(shown)
        self._grid.children = [self._cell(row) for _, row in shown.iterrows()]

    def _repr_mimebundle_(self, **_):
        figure = plots.grid(self.rows().head(self.per_page))
        return self.view._repr_mimebundle_() | {"image/jpeg": plots._encode(figure, "jpeg")}


def _thumbnail(path, size=180):
    buffer = io.BytesIO()
    Image.fromarray(pixels.decode(path, size)).save(buffer, "JPEG")
    return ipywidgets.Image(value=buffer.getvalue(), format="jpg", width=size, height=size)


class AnnotationUI(_Pages):
    """Look at pictures and correct their labels, or exclude them.

    Each decision is written at once to a CSV file of decisions and applied again when the notebook is run
    anew; pictures and metadata on disk never change.

    Parameters
    ----------
    dataset : ImageDataset
    decisions : str or pathlib.Path
        CSV file with path, label ("(exclude)" to leave a picture out), previous and time.
    per_page : int

    Attributes
    ----------
    view : ipywidgets.VBox
    """

    def __init__(self, dataset, decisions, per_page=12):
        self._original = dataset
        self._file = Path(decisions)
        self._decisions = {}
        if self._file.exists():
            known = set(dataset.paths)
            rows = pd.read_csv(self._file, dtype=str)
            self._decisions = {row.path: row.label for row in rows.itertuples() if row.path in known}
        self._labels = dataset.labels
        super().__init__(["all", *self._labels, "corrected"], per_page)

    @property
    def dataset(self):
        """The dataset with all decisions applied: a new `ImageDataset`."""
        labels = {path: None if label == EXCLUDE else label for path, label in self._decisions.items()}
        return self._original.relabel(labels)

    def decide(self, path, label):
        """Give the picture at `path` the label `label`, or `EXCLUDE` it, and write that down."""
        if label not in (*self._labels, EXCLUDE):
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self._labels)} and {EXCLUDE}")
        previous = self._label(path)
        if label == previous:
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        row = pd.DataFrame([{"path": path, "label": label, "previous": previous, "time": time}])
        row.to_csv(self._file, mode="a", index=False, header=not self._file.exists())
        self._decisions[path] = label

    def _label(self, path):
        table = self._original.table
        return self._decisions.get(path) or table.loc[table["path"] == path, "label"].item()

    def rows(self):
        """Return the rows to show, by the filter, with their present labels."""
        table = self._original.table
        table = table.assign(
            label=[
                self._decisions.get(path, label)
                for path, label in zip(table["path"], table["label"], strict=True)
            ]
        )
        choice = self._choice.value
        if choice == "corrected":
            return table[table["path"].isin(self._decisions)]
        return table if choice == "all" else table[table["label"] == choice]

    def _cell(self, row):
        control = ipywidgets.Dropdown(
            options=[*self._labels, EXCLUDE], value=row["label"], layout={"width": "180px"}
        )
        control.observe(lambda change: self.decide(row["path"], change["new"]), "value")
        name = ipywidgets.Label(Path(row["path"]).stem)
        return ipywidgets.VBox([_thumbnail(row["path"]), name, control])


class ResultsUI(_Pages):
    """Look at predictions: the wrong ones (the most confident first), the right ones, or one label's.

    Parameters
    ----------
    evaluation : Evaluation
    per_page : int

    Attributes
    ----------
    view : ipywidgets.VBox
    """

    def __init__(self, evaluation, per_page=12):
        self._evaluation = evaluation
        super().__init__(["wrong", "right", *evaluation.classes, "all"], per_page)

    def rows(self):
        """Return the rows of the prediction table to show, by the filter."""
        choice, table = self._choice.value, self._evaluation.table
        if choice == "wrong":
            return self._evaluation.errors()
        if choice == "right":
            return table[table["label"] == table["prediction"]]
        return table if choice == "all" else table[table["label"] == choice]

    def _cell(self, row):
        bars = [
            ipywidgets.FloatProgress(
                value=row[f"score_{name}"], max=1, description=name, layout={"width": "180px"}
            )
            for name in self._evaluation.classes
        ]
        caption = ipywidgets.Label(f"{row['label']}, seen as {row['prediction']}")
        return ipywidgets.VBox([_thumbnail(row["path"]), caption, *bars])
