"""Read what people have: folders of pictures, tables that name them, labels in columns; and join the two."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from . import pixels
from .project import read_csv

PICTURE_COLUMNS = ("isic_id", "image_id", "image_name", "image", "filename", "file")
"""Columns of a metadata.csv that may name the picture, in the order in which they are tried."""
GROUP_COLUMNS = ("lesion_id", "patient_id")
"""Columns that say which pictures belong together, in the order in which they are tried."""
HASHES = ("sha256", "phash")
NO_PICTURE, SEVERAL = -1, -2


def pictures_below(folder: Path | str) -> list[str]:
    """List the pictures below `folder`, relative to it with ``/``, in order; hidden files and folders left out."""
    files = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            files += [f"{entry.name}/{file}" for file in pictures_below(entry.path)]
        elif entry.name.lower().endswith(pixels.EXTENSIONS):
            files.append(entry.name)
    return files


def below(folder: Path, files: list[str]) -> list[str]:
    """Put `folder` in front of relative paths: list of str, as pathlib would write them, in a tenth of the time."""
    start = str(folder / "_")[:-1]
    return [start + file for file in files]


def find(names: pd.Series, files: list[str]) -> np.ndarray:
    """Find the file that each name means.

    A name that fits one file takes it, whatever folder or extension either has: tables come from other machines. Only
    if several files or several names have that stem must folder and extension fit.

    Parameters
    ----------
    names : pandas.Series of str
    files : list of str
        Relative paths.

    Returns
    -------
    numpy.ndarray of int, shape (len(names),)
        Positions in `files`, `NO_PICTURE` or `SEVERAL`.
    """
    by_stem = defaultdict(list)
    for number, file in enumerate(files):
        by_stem[os.path.splitext(file.rpartition("/")[2])[0]].append(number)
    stems = {}
    for name in names.dropna().unique():
        base = name.replace("\\", "/").rpartition("/")[2]
        stems[name] = base if base in by_stem else os.path.splitext(base)[0]
    claims = Counter(stems.values())

    def find_one(name):
        candidates = by_stem.get(stems[name], ())
        if not candidates:
            return NO_PICTURE
        if len(candidates) == claims[stems[name]] == 1:
            return candidates[0]
        tail = "/" + os.path.normpath(name.replace("\\", "/")).lstrip("/")
        paths = {number: f"/{files[number]}" for number in candidates}
        depth = {number: path.count("/") for number, path in paths.items()}
        for fits in (
            [n for n, path in paths.items() if path == tail],
            [n for n, path in paths.items() if path.endswith(tail)],
            [n for n, path in paths.items() if os.path.splitext(path)[0].endswith(tail)],
            sorted((n for n in paths if depth[n] > 1 and tail.endswith(paths[n])), key=depth.get)[-1:],
        ):
            if fits:
                return fits[0] if len(fits) == 1 else SEVERAL
        return SEVERAL if len(candidates) > 1 else NO_PICTURE

    found = {name: find_one(name) for name in stems}
    return np.array([found.get(name, NO_PICTURE) for name in names], int)


def plain_labels(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return labels and, where there is none, the reason: two Series."""
    labels = column.astype("string").str.strip()
    reasons = pd.Series(index=column.index, dtype=object)
    reasons[labels.isna() | (labels == "")] = "no label"
    return labels, reasons


def one_hot_labels(columns: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the name of the one marked column of each row and, where there is none, the reason: two Series."""
    text = columns.apply(lambda column: column.astype("string").str.strip().str.lower()).fillna("")
    zero = columns.apply(pd.to_numeric, errors="coerce") == 0
    marked = ~(zero | text.isin(["", "false", "no", "-"]))
    count = marked.sum(axis=1)
    reasons = pd.Series(index=columns.index, dtype=object)
    reasons[count == 0] = f"none of the columns {', '.join(columns)} is marked"
    reasons[count > 1] = f"more than one of the columns {', '.join(columns)} is marked"
    return marked.idxmax(axis=1).astype("string").where(count == 1), reasons


def join(
    rows: pd.DataFrame, image_column: str, csv: str | os.PathLike, *text_columns: str | None
) -> pd.DataFrame:
    """Add the columns of a second CSV file."""
    other = read_table(csv, image_column, *text_columns)
    key = next((name for name in (image_column, *PICTURE_COLUMNS) if name in other), image_column)
    require_columns(other, csv, key)
    other = other.drop_duplicates(key).set_index(key)
    if not rows[image_column].isin(other.index).any():
        raise ValueError(
            f"{csv} knows none of the pictures: its column {key!r} begins with {', '.join(map(str, other.index[:3]))}"
        )
    return rows.join(other[other.columns.difference(rows.columns, sort=False)], on=image_column)


def require_columns(rows: pd.DataFrame, csv: str | os.PathLike, *columns: str) -> None:
    """Raise ValueError, which lists the columns there are, if one is missing."""
    for column in columns:
        if column not in rows:
            raise ValueError(f"{csv} has no column {column!r}; it has: {', '.join(rows.columns)}")


def read_table(
    path: str | os.PathLike, *text_columns: str | None, verbatim: Sequence[str] = ()
) -> pd.DataFrame:
    """Read a CSV file; names, groups, hashes and `text_columns` stay text, lest 0012 turn into 12; see `read_csv`."""
    text = {*PICTURE_COLUMNS, *GROUP_COLUMNS, *HASHES, *(name for name in text_columns if name)}
    try:
        return read_csv(path, text, verbatim)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such CSV file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
