"""The table of predictions behind an `Evaluation`: made from scores of any source, checked, written and read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import softmax

from .. import tables
from ..checks import check_threshold
from ..patient import SURE
from ..tables import NAMELESS, restored, stored
from ..text import as_label

PREFIX = "score_"
"""Begins the names of the columns with scores."""
RECORD = "isicvision"
"""The column of a saved table that holds classes, positive label and threshold, as JSON."""
ROUNDING = 1e-6
"""A score this far below 0 or above 1 is taken for one rounded in 32 bits."""


def as_labels(values: ArrayLike, what: str) -> list[str]:
    """Return labels or classes as text, see `text.as_label`; ValueError if one is missing."""
    if np.ndim(values) != 1:
        raise ValueError(f"there must be one {what} for each place, not an array of shape {np.shape(values)}")
    names = [as_label(value) for value in np.asarray(values, dtype=object)]
    if None in names:
        raise ValueError(f"{what} {names.index(None)} is missing or empty")
    return [*map(str, names)]


def as_scores(scores: ArrayLike, classes: Sequence[str], positive: str, images: int) -> np.ndarray:
    """Return probabilities as an array of float, shape (images, classes); ValueError if they are not."""
    if isinstance(scores, pd.DataFrame) and [*scores] != [*range(len(classes))]:  # its columns have names
        named = scores.rename(columns=as_label)
        if sorted(map(str, named)) != sorted(classes):
            raise ValueError(f"the columns are {', '.join(map(str, named))}, classes {', '.join(classes)}")
        scores = named[[*classes]]
    try:
        given = np.asarray(scores, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"scores must be numbers, as many in each row: {error}") from None
    if given.ndim == 1 and len(classes) == 2:
        given = np.column_stack([1 - given, given] if positive == classes[1] else [given, 1 - given])
    if not images or given.shape != (images, len(classes)):
        raise ValueError(
            f"{images} labels of {len(classes)} classes do not fit scores of shape {given.shape}"
        )
    wrong = ~((given >= -ROUNDING) & (given <= 1 + ROUNDING)).all(axis=1)
    wrong |= np.abs(given.sum(axis=1) - 1) > 0.005 * (len(classes) + 1)  # each may be rounded to two digits
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(f"the scores of an image lie from 0 to 1 and sum to 1; row {row} has {given[row]}")
    return np.clip(given, 0, 1)


def decide(scores: np.ndarray, classes: Sequence[str], positive: str, threshold: float | None) -> np.ndarray:
    """Return the predicted label of each row of scores: array of str."""
    names = np.asarray(classes, dtype=object)
    if threshold is None:
        return names[scores.argmax(axis=1)]
    if len(classes) != 2:
        raise ValueError(f"a threshold needs two classes; there are {len(classes)}")
    check_threshold(threshold)
    column = [*classes].index(positive)
    return np.where(scores[:, column] >= threshold, positive, names[1 - column])


def joined(
    true: list[str],
    predicted: ArrayLike,
    scores: pd.DataFrame,
    groups: Iterable | None,
    metadata: pd.DataFrame | None,
) -> pd.DataFrame:
    """Return one table of paths, groups, labels, predictions, scores and metadata: see `Evaluation.table`."""
    more = pd.DataFrame(index=range(len(true))) if metadata is None else metadata.reset_index(drop=True)
    row = pd.Series(np.arange(len(true)).astype(str))
    alone = more.get("path", NAMELESS + row + ")")
    together = more.get("group", alone) if groups is None else pd.Series([*groups])
    for what, given in (("groups", together), ("rows of metadata", more)):
        if len(given) != len(true):
            raise ValueError(f"{len(given)} {what} do not fit {len(true)} labels")
    together = together.where(together.notna() & (together.astype(str).str.strip() != ""), alone)
    own = {"path": more.get("path", row), "group": together, "label": true, "prediction": predicted}
    table = pd.DataFrame(own).join(scores)
    more = more.drop(columns=["path", "group", "label"], errors="ignore").rename(columns=str)
    for name in (*table, RECORD):
        new = name
        while new in more:
            new = f"metadata_{new}"
        more = more.rename(columns={name: new})
    return table.join(more)


def by_group(table: pd.DataFrame, classes: Sequence[str]) -> tuple[np.ndarray, pd.DataFrame]:
    """Return a row a group, in order of appearance: its scores, averaged as log-odds, and the rest of the table.

    Two classes or more: the softmax of the mean log score. Raises ValueError if the labels of a group differ.
    """
    names, columns = table["group"].astype(str).to_numpy(), [PREFIX + name for name in classes]
    lesions = table.groupby(names, sort=False)
    agree, images = (lesions.nunique(dropna=False) == 1).reset_index(drop=True), lesions.size().to_numpy()
    rows = lesions.head(1).reset_index(drop=True)
    if not agree["label"].all():
        name = str(rows["group"][agree["label"].idxmin()])
        labels = " and ".join(sorted({*table["label"][names == name]}))
        raise ValueError(
            f"the images of lesion {name} have the labels {labels}: correct the labels or the lesions first"
        )
    mean = np.log(table[columns].clip(SURE, 1)).groupby(names, sort=False).mean()
    scores = np.where(images[:, None] == 1, rows[columns], softmax(mean.to_numpy(), axis=1))
    rows = rows.drop(columns=["prediction", *columns])
    about = rows.columns.difference(["path", "group", "images"])
    rows[about] = rows[about].where(agree[about])
    return scores, rows.assign(images=images)


def save(table: pd.DataFrame, own: dict, csv: str | Path) -> Path:
    """Write a table of predictions, and what `own` says of it in each row of the column `RECORD`."""
    named = table.astype({"path": str, "group": str})  # a group may be a number
    return tables.save(stored(named).assign(**{RECORD: json.dumps(own)}), csv)


def load(csv: str | Path) -> tuple[pd.DataFrame, dict]:
    """Read a table that `save` wrote, without its predictions, and what was said of it."""
    table = tables.load(csv, verbatim=("path", "group", "label", "prediction", RECORD))
    written, own = table[RECORD].iloc[0] if RECORD in table else None, {}
    try:
        if written:
            own = {name: json.loads(written)[name] for name in ("classes", "positive", "threshold")}
    except (ValueError, TypeError, KeyError):
        raise ValueError(f"{csv} is damaged: its column {RECORD} holds {written!r}") from None
    needed = {"path", "group", "label", *(PREFIX + name for name in own.get("classes", ()))}
    if not own or not needed <= set(table):
        raise ValueError(f"{csv} is not a table of predictions: its columns are {', '.join(table.columns)}")
    return restored(table).drop(columns=["prediction", RECORD]), own
