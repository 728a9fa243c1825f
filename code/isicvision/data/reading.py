"""Read what people have: tables that name images, labels in columns; and join the two with the files."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from .. import images as pixels
from .. import tables
from ..fields import GROUP_COLUMNS, IMAGE_COLUMNS
from ..files import folder_name
from ..text import as_label, counted, printable
from . import folders
from .measures import MEASURES

OWN_COLUMNS = ("path", "label", "group", "split", "sublabel", "augmented_from", *MEASURES)
"""Columns of a dataset's table that mean something to it: a user's column of such a name becomes ``metadata_NAME``."""
HASHES = ("sha256", "phash")
NO_IMAGE, SEVERAL = -1, -2
UNNAMED = {"", "-", "–", "—", "?", ".", "n/a", "na", "nan", "none", "null", "unknown", "missing"}
"""What says that a lesion or patient is not known, in lower case."""
_ENDINGS = {*pixels.EXTENSIONS, *folders.UNREADABLE}


def below(folder: Path, files: list[str]) -> list[str]:
    """Put `folder` in front of relative paths: list of str, as pathlib would write them, in a tenth of the time."""
    start = str(folder / "_")[:-1]
    return [start + file for file in files]


def find(names: pd.Series, files: list[str]) -> np.ndarray:
    """Find the file that each name means.

    A name that fits one file takes it, whatever folder or extension either has: tables come from other machines. Only
    if several files or several names have that stem must folder and extension fit. A name that fits none may take a
    file left over that differs in case, in Unicode's way to write an accent, or by ``.0`` behind a number.

    Parameters
    ----------
    names : pandas.Series of str
    files : list of str
        Relative paths.

    Returns
    -------
    numpy.ndarray of int, shape (len(names),)
        Positions in `files`, `NO_IMAGE` or `SEVERAL`.
    """
    found = _find(names, files)
    left = (found == NO_IMAGE) & names.notna().to_numpy()
    if left.any() and len(free := np.setdiff1d(np.arange(len(files)), found)):
        again = _find(names[left].map(_loose_name), [_loose_name(files[number]) for number in free])
        found[left] = np.where(again < 0, again, free[again])
    return found


def _loose_name(name):
    text = " ".join(unicodedata.normalize("NFC", printable(name)).casefold().split())
    return re.sub(r"(^|[/\\])(\d+)\.0+$", r"\1\2", text)


def _stem(base):
    """Cut off the extension of an image, and nothing else: scan_2.5 is a name."""
    front, _, ending = base.rpartition(".")
    return front if front and f".{ending.lower()}" in _ENDINGS else base


def _find(names, files):
    by_stem = defaultdict(list)
    for number, file in enumerate(files):
        by_stem[_stem(file.rpartition("/")[2])].append(number)
    stems = {}
    for name in names.dropna().unique():
        base = name.replace("\\", "/").rpartition("/")[2]
        stems[name] = base if base in by_stem else _stem(base)
    claims = Counter(stems.values())

    def find_one(name):
        candidates = by_stem.get(stems[name], ())
        if not candidates:
            return NO_IMAGE
        if len(candidates) == claims[stems[name]] == 1:
            return candidates[0]
        tail = "/" + os.path.normpath(name.replace("\\", "/")).lstrip("/")
        paths = {number: f"/{files[number]}" for number in candidates}
        depth = {number: path.count("/") for number, path in paths.items()}
        for fits in (
            [n for n, path in paths.items() if path == tail],
            [n for n, path in paths.items() if path.endswith(tail)],
            [n for n, path in paths.items() if _stem(path).endswith(tail)],
            sorted((n for n in paths if depth[n] > 1 and tail.endswith(paths[n])), key=depth.get)[-1:],
        ):
            if fits:
                return fits[0] if len(fits) == 1 else SEVERAL
        return SEVERAL if len(candidates) > 1 else NO_IMAGE

    found = {name: find_one(name) for name in stems}
    return np.array([found.get(name, NO_IMAGE) for name in names.to_numpy(object)], int)


def read_table(path: str | os.PathLike, image_column: str | None, *given: str | None) -> pd.DataFrame:
    """Read a table as `tables.read` does; names, groups, hashes and the columns `given` stay text.

    An image may be called ``NA``: of the columns that may name it only empty cells are missing.

    Columns of `IMAGE_COLUMNS` and `GROUP_COLUMNS` get that spelling, unless `given` has another one.
    """
    names = [name for name in (image_column, *given) if name]
    images = {image_column or "image", *IMAGE_COLUMNS}
    table = tables.read(path, {*IMAGE_COLUMNS, *GROUP_COLUMNS, *HASHES, *names}, images)
    known = {tables.key(name): name for name in (*IMAGE_COLUMNS, *GROUP_COLUMNS)}
    keys = Counter(map(tables.key, table))
    renamed = {
        name: known[key]
        for name in table
        if (key := tables.key(name)) in known and keys[key] == 1 and name not in names
    }
    return table.rename(columns=renamed)


def image_names(
    table: pd.DataFrame, files: list[str], source: object, column: str | None = None
) -> tuple[str, np.ndarray]:
    """Find the column that names the images, by default the one of `IMAGE_COLUMNS` that fits most files.

    Returns the column's name and what `find` says of it. Raises ValueError if there is no such column.
    """
    if column:
        columns = [tables.require_column(table, column, source)]
    else:
        columns = [name for name in IMAGE_COLUMNS if name in table]
    if not columns:
        raise ValueError(
            f"{source} has no column that names the images ({', '.join(IMAGE_COLUMNS[:9])}, …); it has: "
            f"{', '.join(table)}{tables.one_column(table) or '.'} "
            "Rename the column with their names to image, or give image_column to from_csv."
        )
    best, found = columns[0], find(table[columns[0]], files)
    for name in columns[1:]:
        if (found >= 0).all():
            break
        other = find(table[name].astype("string"), files)
        if (other >= 0).sum() > (found >= 0).sum():
            best, found = name, other
    return best, found


def join_metadata(
    root: Path, files: list[str], csvs: list[str], group_column: str | None
) -> tuple[pd.DataFrame, list[str]]:
    """Read each ``metadata.csv`` for the images beside and below it.

    Returns
    -------
    table, notes
        Rows of the images that have one, with the positions in `files` as index; a sentence for each file.

    Raises
    ------
    ValueError
        If a file cannot be read, has no column that names images, or fits none of them.
    """
    joined, notes = [pd.DataFrame()], []
    for csv in sorted(csvs, key=lambda csv: -csv.count("/")):
        source, start = root / csv, csv.rpartition("/")[0]
        start = f"{start}/" if start else ""
        numbers = np.array([n for n, file in enumerate(files) if file.startswith(start)], int)
        relative = [files[number][len(start) :] for number in numbers]
        metadata = read_table(source, None, group_column)
        column, found = image_names(metadata, relative, source)
        names = metadata[column]
        if several := (found == SEVERAL).sum():
            warnings.warn(
                f"{source}: {several} rows not joined, as each names several images, such as "
                f"{names[found == SEVERAL].iloc[0]}; give folder and extension",
                stacklevel=3,
            )
        if not (found >= 0).any():
            raise ValueError(
                f"{source} fits none of the {len(files)} images: its column {column!r} begins with "
                f"{', '.join(names.dropna().astype(str)[:3])}; the images are called {_some(relative)}. Correct the "
                "names, or rename or move the file if it is about other images."
            )
        notes.append(_say_partly(source, names, found, relative))
        warn_of_contradictions(
            source, names[found >= 0], metadata[found >= 0], found[found >= 0], group_column
        )
        metadata = metadata.drop(columns={column} & {*OWN_COLUMNS})
        joined.append(metadata.set_axis(numbers[found])[(found >= 0) & ~pd.Index(found).duplicated()])
    table = pd.concat(joined)
    if table.index.has_duplicates:
        _warn_of_two_tables(root, files, table[table.index.duplicated(keep=False)])
        table = table.groupby(level=0).first()  # the first that is given
    return table, notes


def _warn_of_two_tables(root, files, rows):
    """Warn if the tables that hold a row of the same image say different things about it."""
    for name in rows.columns.difference(IMAGE_COLUMNS, sort=False):
        said = (plain_ids(rows[name]) if name in GROUP_COLUMNS else rows[name].map(as_label)).dropna()
        different = said.groupby(level=0).nunique().loc[lambda count: count > 1].index
        if len(different):
            values = " and ".join(dict.fromkeys(said.loc[[different[0]]]))
            warnings.warn(
                f"{root}: metadata tables contradict each other in {name} for {counted(len(different), 'image')}: "
                f"{printable(files[different[0]])} has {values}. The table nearest to the image counts.",
                stacklevel=4,
            )


def say_fit(source: object, found: np.ndarray, files: list[str], where: object = "") -> str:
    """Return how many rows of a table fit how many images, as a sentence."""
    images = len(np.unique(found[found >= 0]))
    below = f" below {where}" if where else ""
    return f"{source}: {(found >= 0).sum():,} of {len(found):,} rows fit {images:,} of {len(files):,} images{below}"


def _say_partly(source, names, found, files):
    """Return what `say_fit` says; warn of it if images are without a row."""
    note, lost = say_fit(source, found, files), np.setdiff1d(np.arange(len(files)), found)
    if len(lost):
        strange = names[found == NO_IMAGE]
        also = f", and {strange.iloc[0]} in the table is the name of none" if len(strange) else ""
        warnings.warn(f"{note}. {printable(files[lost[0]])} has no row{also}.", stacklevel=4)
    return note


def _some(files):
    return ", ".join(printable(file) for file in files[:3]) or "nothing"


def warn_of_contradictions(
    source: object, names: pd.Series, rows: pd.DataFrame, found: np.ndarray, group_column: str | None
) -> None:
    """Warn if rows of one image name different lesions or patients; the first row counts."""
    for name in dict.fromkeys((group_column, *GROUP_COLUMNS)):
        column = tables.find_column(rows, name) if name else None
        if column is None:
            continue
        pairs = pd.DataFrame(
            {"image": found, "group": plain_ids(rows[column]).to_numpy(), "name": names.to_numpy()}
        )
        pairs = pairs.dropna().drop_duplicates(["image", "group"])
        twice = pairs[pairs.duplicated("image", keep=False)]
        if len(twice):
            first = twice[twice["image"] == twice["image"].iloc[0]]
            warnings.warn(
                f"{source}: the rows of some images ({twice['image'].nunique()}) differ in {column}: "
                f"{first['name'].iloc[0]} has {' and '.join(map(str, first['group'][:2]))}; the first row counts",
                stacklevel=4,
            )


def join(
    rows: pd.DataFrame,
    names: pd.Series,
    csv: str | os.PathLike,
    image_column: str | None,
    group_column: str | None,
) -> tuple[pd.DataFrame, str]:
    """Add the columns of a second table, whose images are found by the names in the first: table and a sentence.

    Where both tables have a column, the first one counts and the second fills its gaps.

    Parameters
    ----------
    names
        Names of the images in `rows`.
    image_column
        Its name in the first table, which is tried first.
    """
    other = read_table(csv, image_column, group_column)
    known = names.dropna().unique().tolist()
    column = tables.find_column(other, image_column) if image_column else None
    if column is None and image_column and not any(name in other for name in IMAGE_COLUMNS):
        tables.require_column(other, image_column, csv)
    column, found = image_names(other, known, csv, column)
    if not (found >= 0).any():
        raise ValueError(
            f"{csv} knows none of the images: its column {column!r} begins with "
            f"{', '.join(other[column].dropna().astype(str)[:3])}; the first table's with {_some(known)}"
        )
    note = _say_partly(csv, other[column], found, known)
    warn_of_contradictions(csv, other[column][found >= 0], other[found >= 0], found[found >= 0], group_column)
    other = other.set_axis(found)[(found >= 0) & ~pd.Index(found).duplicated()]
    position = names.map({name: number for number, name in enumerate(known)})
    other = other.drop(columns=column).reindex(position).set_axis(rows.index)
    for name in [name for name in other if name in rows and name not in IMAGE_COLUMNS]:
        if name in (group_column, *GROUP_COLUMNS):
            first, second = plain_ids(rows[name]), plain_ids(other[name])
            different = (first.str.casefold() != second.str.casefold()).fillna(False)
            if different.any():
                row = different.idxmax()
                warnings.warn(
                    f"{csv} contradicts the first table in {name} for {counted(different.sum(), 'row')}: "
                    f"{names[row]} has {first[row]} in the first table, which counts, and {second[row]} in this one",
                    stacklevel=3,
                )
            rows = rows.assign(**{name: first})
        if rows[name].isna().any() and other[name].notna().any():
            rows = rows.assign(**{name: rows[name].astype(object).fillna(other[name]).infer_objects()})
    return rows.join(other[other.columns.difference(rows.columns, sort=False)]), note


def none_found(
    csv: Path, images: Path, column: str, names: pd.Series, found: np.ndarray, files: list[str]
) -> FileNotFoundError:
    """Return the error for a table none of whose images is there."""
    several = " (several files have such a name: give folder and extension)" * (SEVERAL in found)
    return FileNotFoundError(
        f"none of the {len(names)} images of {csv} is below {images}: its column {column!r} "
        f"begins with {', '.join(names.dropna()[:3])}{several}; below the folder lie {_some(files)}. "
        "images= names the folder, image_column= the column."
    )


def locate(
    source: object,
    found: np.ndarray,
    names: pd.Series,
    files: list[str],
    unreadable: list[str],
    images: Path,
    column: str,
    reasons: pd.Series,
) -> pd.Series:
    """Return the path of each row's image, or what its row says; add to `reasons` why an image cannot be used.

    Parameters
    ----------
    found
        As `find` gives it for `names` and `files`.
    """
    paths = pd.Series(below(images, files), dtype=object).reindex(found).set_axis(names.index)
    lost = names[(found == NO_IMAGE) & names.notna().to_numpy()]
    reasons[lost.index] = f"no such image below {images}"
    reasons[found == SEVERAL] = f"several images below {images} have this name: give folder and extension"
    reasons[names.isna()] = f"no name in the column {column!r}"
    if len(lost) and unreadable:
        for row, number in zip(lost.index, find(lost, unreadable), strict=True):
            if number >= 0:
                reasons[row] = folders.why_unreadable(unreadable[number])
    nameless = names.index[names.isna()]
    rows = pd.Series([f"{source}, row {row + 1}" for row in nameless], nameless, dtype=object)
    return paths.fillna(names.astype(object)).fillna(rows)


def set_aside_copies(paths: pd.Series, labels: pd.Series, reasons: pd.Series) -> None:
    """Add to `reasons` the rows whose image stands in an earlier row; all of its rows if their labels differ."""
    usable = reasons.isna()
    again = paths.where(usable).duplicated() & usable
    reasons[again] = "the same image stands in an earlier row"
    if again.any():
        copies = paths[usable].isin(paths[again])
        rows = pd.DataFrame({"path": paths[usable][copies], "label": labels[usable][copies]})
        for path, given in rows.drop_duplicates().groupby("path")["label"]:
            if len(given) > 1:
                said = " and ".join(map(repr, given[:2]))
                reasons[rows.index[rows["path"] == path]] = f"its rows contradict each other: {said}"


def plain_ids(column: pd.Series) -> pd.Series:
    """Return ids as text: ``12.0`` is 12, and blanks and words of `UNNAMED` are missing: Series of string."""
    ids = column.astype("string").str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    return ids.mask(ids.str.casefold().isin(UNNAMED))


def groups(rows: pd.DataFrame, group_column: str | None, source: object = "the table") -> pd.Series:
    """Return the group of each row: of `group_column`, and where it is empty of `GROUP_COLUMNS`: Series of string.

    Ids that differ only in case become one, with a warning. So has one id for most of 20 or more rows.
    """
    group = pd.Series(pd.NA, rows.index, "string")
    for column in dict.fromkeys((group_column, *GROUP_COLUMNS)):
        if column in rows:
            group = group.fillna(plain_ids(rows[column]))
    spellings = pd.Series(group.dropna().unique(), dtype="string")
    first = spellings.groupby(spellings.str.casefold()).transform("first")
    if len(other := spellings[spellings != first]):
        warnings.warn(
            f"{source}: {counted(len(other), 'id')} of lesions or patients differ from another's only in case, such as "
            f"{other.iloc[0]} and {first[other.index[0]]}; they are read as one",
            stacklevel=3,
        )
        group = group.map(dict(zip(spellings, first, strict=True))).astype("string")
    counts = group.value_counts()
    if len(rows) >= 20 and len(counts) and counts.iloc[0] > len(rows) / 2:
        warnings.warn(
            f"{source}: {counts.iloc[0]:,} of {len(rows):,} images have the lesion or patient {counts.index[0]!r}, so "
            "they stay in one part of a split. If it means that none is known, leave these cells empty.",
            stacklevel=3,
        )
    return group


def set_apart(rows: pd.DataFrame, labels: pd.Series, *used: str | None) -> pd.DataFrame:
    """Rename a user's columns that are called as our own; those that were `used` for ours are dropped instead.

    So is a column ``label`` that says what `labels` do, as in the metadata of a download.
    """
    if "label" in rows:
        given = rows["label"].map({value: as_label(value) for value in rows["label"].unique()})
        folders_of = given.map({value: folder_name(value) for value in given.unique()})
        if ((given == labels[rows.index]) | (folders_of == labels[rows.index])).all():
            used += ("label",)
    rows = rows.drop(columns={*used} & {*OWN_COLUMNS} & {*rows})
    renamed = {name: f"metadata_{name}" for name in rows if name in OWN_COLUMNS}
    return rows.drop(columns={*renamed.values()} & {*rows}).rename(columns=renamed)
