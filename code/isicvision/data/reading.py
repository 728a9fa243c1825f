"""Read images and labels as people keep them: folders, tables, and metadata joined by image name."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from .. import tables
from ..errors import warn
from ..fields import GROUP_COLUMNS, IMAGE_COLUMNS, MEASURES
from ..files import folder_name, user_path
from ..text import as_label, counted, printable
from . import folders, labelcolumns
from .matching import NO_IMAGE, SEVERAL, below, find, image_names

OWN_COLUMNS = ("path", "label", "group", "split", "sublabel", "augmented_from", *MEASURES)
"""Columns of a dataset's table that mean something to it: a user's column of such a name becomes ``metadata_NAME``."""
UNNAMED = {"", *"- – — ? . n/a n.a. #n/a <na> na nan none nil null unknown unbekannt missing".split()}
"""What says that a lesion or patient is not known, in lower case."""
_OTHER_IDS = re.compile(
    r"(?i)(lesion|pat(ient)?|subject|participant|person|case)[\W_]?(id|no|nr|number)?|mrn"
)


@dataclass(frozen=True)
class Columns:
    """The columns of a table, as `ImageDataset.from_csv` takes them."""

    image: str | None
    label: str | Sequence[str]
    group: str | None
    label_map: dict | None

    @property
    def labels(self) -> list[str]:
        """The columns of the labels; ValueError if there is none."""
        if not self.label:
            raise ValueError("label_column is empty: name a column, or one for each label")
        return [self.label] if isinstance(self.label, str) else [*dict.fromkeys(self.label)]


@dataclass(frozen=True)
class Found:
    """The rows of a source, and why some of them cannot be used."""

    table: pd.DataFrame
    reasons: pd.Series
    source: Path | str
    notes: list[str]


def read_folder(
    root: str | os.PathLike, group_column: str | None, sublabel_column: str | None, labeled: bool = True
) -> Found:
    """Read a folder as `ImageDataset.from_folder` says."""
    root = folders.folder(root)
    images, unreadable, csvs = folders.walk(root)
    files = images + unreadable
    if not labeled and not images:
        raise FileNotFoundError(f"{root} has no images ({', '.join(folders.EXTENSIONS)})")
    given = [None if folders.is_beside(file) else "" for file in files]
    labels, parts = folders.arrange(root, files) if labeled else (given, None)
    table = pd.DataFrame({"path": below(root, files)}, dtype=str)
    named = {label: as_label(label) if labeled else label for label in {*labels}}
    table["label"] = pd.Series([*map(named.get, labels)], dtype=str)
    reasons = pd.Series(index=table.index, dtype=object)
    nowhere = np.flatnonzero(table["label"].isna())
    reasons[nowhere] = [folders.why_no_label(files[number]) for number in nowhere]
    reasons[len(images) :] = [*map(folders.why_unreadable, unreadable)]
    if parts:
        table["split"] = parts
    metadata, notes = _join_metadata(root, images, csvs, group_column)
    for name in filter(None, (group_column, sublabel_column) if metadata.empty else ()):
        raise ValueError(f"the column {name!r} is not there: {root} has no metadata.csv. Put one into it.")
    source = f"the metadata of {root}"
    if group_column:
        group_column = tables.require_column(metadata, group_column, source)
    table = table.join(_set_apart(metadata, table["label"], group_column))
    if sublabel_column:
        table["sublabel"] = metadata[tables.require_column(metadata, sublabel_column, source)]
    table.insert(2, "group", groups(metadata, group_column, root).reindex(table.index))
    return Found(table, reasons, root, notes)


def read_table(
    given: str | os.PathLike | pd.DataFrame,
    images: str | os.PathLike | None,
    columns: Columns,
    metadata: object,
) -> Found:
    """Read a CSV file, or take a DataFrame, as `ImageDataset.from_csv` and `from_table` say."""
    source: Path | str = "the table"
    if isinstance(given, pd.DataFrame):
        rows = given.set_axis([*map(str, given)], axis=1).reset_index(drop=True)
        if twice := [name for name, count in Counter(rows).items() if count > 1]:
            raise ValueError(f"the table has two columns {twice[0]!r}: rename or drop one of them")
        rows = _known_spelling(rows, [columns.image, columns.group, *columns.labels])
    else:
        source = csv = user_path(given)
        text = columns.labels if isinstance(columns.label, str) else []
        rows = _read_table(csv, columns.image, columns.group, *text)
        images = csv.parent if images is None else images
    return _matched(rows, source, images, columns, metadata)


def _matched(rows, source, images, columns, metadata):
    """Join the rows of a table with the files that they name."""
    images = folders.folder(images)
    files, unreadable, _ = folders.walk(images)
    column, found = image_names(rows, files, source, columns.image)
    names = rows[column].astype("string").str.strip()
    if (found < 0).all():
        several = " (several files have such a name: give folder and extension)" * (SEVERAL in found)
        raise FileNotFoundError(
            f"none of the {len(names)} images of {source} is below {images}: its column {column!r} begins with "
            f"{', '.join(names.dropna()[:3])}{several}; below the folder lie {folders.some([*files, *unreadable], 3)}. "
            "images= names the folder, image_column= the column."
        )
    notes, group = [f"{_say_fit(source, found, files)} below {images}"], columns.group
    if metadata:
        rows, note = _join(rows, names, source, metadata, column, group)
        notes.append(note)
    label_columns = [tables.require_column(rows, name, source) for name in columns.labels]
    if group:
        group = tables.require_column(rows, group, f"{source} with {metadata}" if metadata else source)
    if isinstance(columns.label, str):
        labels = labelcolumns.plain_labels(rows[label_columns[0]])
        reasons = pd.Series("no label", rows.index, dtype=object).where(labels.isna())
    else:
        labels, reasons = labelcolumns.one_hot_labels(rows[label_columns].set_axis(columns.labels, axis=1))
    kept = None
    if columns.label_map is not None:
        labels, kept, not_mapped = labelcolumns.apply_map(labels, columns.label_map, source)
        reasons = reasons.fillna(not_mapped)
    _say_lost(reasons, found, names, unreadable, images, column)
    paths = pd.Series(below(images, files), dtype=object).reindex(found).set_axis(names.index)
    numbers = pd.Series([f"{source}, row {row + 1}" for row in names.index], names.index, dtype=object)
    paths = paths.fillna(names.astype(object)).fillna(numbers)
    _set_aside_copies(paths, labels, reasons)
    table = pd.DataFrame({"path": paths, "label": labels, "group": groups(rows, group, source)})
    table = table.join(_set_apart(rows, labels, column, group, *label_columns))
    if kept is not None:
        table["sublabel"] = kept
    for name in _group_columns(rows, group):
        _warn_of_contradictions(source, name, paths.where(found >= 0), rows[name])
    return Found(table, reasons, source, notes)


def warn_of_set_aside(aside: pd.DataFrame, lost: list[str], source: object) -> None:
    """Warn of the most frequent reasons for which images are set aside, and of labels that are lost by it."""
    if aside.empty:
        return
    said = aside.groupby("reason", sort=False)["path"].agg(["size", "first"])
    said = said.sort_values("size", ascending=False, kind="stable").head(5)
    reasons = "; ".join(
        f"{size} × {reason} (such as {printable(os.path.basename(first))})"
        for reason, size, first in said.itertuples()
    )
    nothing = f". Nothing is left of the label {', '.join(lost[:5])}" if lost else ""
    count = counted(len(aside), "image")
    warn(f"{source}: {count} set aside, listed in dataset.set_aside: {reasons}{nothing}")


def _read_table(path, image_column, *given):
    """Read a table in which image names (one may be ``NA``), groups, hashes and the columns `given` are text."""
    names = [name for name in (image_column, *given) if name]
    images = {image_column or "image", *IMAGE_COLUMNS}
    table = tables.read(path, {*IMAGE_COLUMNS, *GROUP_COLUMNS, "sha256", "phash", *names}, images)
    return _known_spelling(table, names)


def _known_spelling(table, given):
    """Spell the columns of `IMAGE_COLUMNS` and `GROUP_COLUMNS` so, except those `given` otherwise."""
    known = {tables.key(name): name for name in (*IMAGE_COLUMNS, *GROUP_COLUMNS)}
    keys = Counter(map(tables.key, table))
    fits = {name: tables.key(name) for name in table if name not in given}
    new = {name: known[key] for name, key in fits.items() if key in known and keys[key] == 1}
    return table.rename(columns=new)


def _group_columns(rows, group_column):
    """Return the columns of ids that a table has, the one of the user first."""
    return [name for name in dict.fromkeys((group_column, *GROUP_COLUMNS)) if name in rows]


def _join_metadata(root, files, csvs, group_column):
    """Return the rows of each ``metadata.csv``, indexed by the position in `files`, and a sentence per table."""
    joined, notes = [pd.DataFrame()], []
    for csv in sorted(csvs, key=lambda csv: -csv.count("/")):
        start = csv[: csv.rfind("/") + 1]
        numbers = np.array([n for n, file in enumerate(files) if file.startswith(start)], int)
        relative = [files[number][len(start) :] for number in numbers]
        metadata = _read_table(root / csv, None, group_column)
        column, rows, note = _fitted(metadata, root / csv, relative, None)
        notes.append(note)
        joined.append(rows.set_axis(numbers[rows.index]).drop(columns={column} & {*OWN_COLUMNS}))
    table = pd.concat(joined)
    if table.index.has_duplicates:
        images = table.index.map(files.__getitem__)
        for name in _group_columns(table, group_column):
            _warn_of_contradictions(f"the metadata of {root}", name, images, table[name])
    return _first(table), notes  # of the table nearest to the image


def _fitted(table, source, images, column):
    """Return the column of names, the rows that name one of `images`, indexed by its position, and a sentence."""
    column, found = image_names(table, images, source, column)
    names = table[column]
    if several := (found == SEVERAL).sum():
        said = f"each names several images, such as {names[found == SEVERAL].iloc[0]}"
        warn(f"{source}: {counted(several, 'row')} not joined, as {said}; give folder and extension")
    if not (found >= 0).any():
        raise ValueError(
            f"{source} fits none of the {len(images)} images: its column {column!r} begins with "
            f"{', '.join(names.dropna().astype(str)[:3])}; the images are called {folders.some(images, 3)}. "
            "Correct the names, or rename or move the file if it is about other images."
        )
    note, lost = _say_fit(source, found, images), np.setdiff1d(np.arange(len(images)), found)
    if len(lost):
        strange = names[found == NO_IMAGE]
        also = f", and {strange.iloc[0]} in the table is the name of none" if len(strange) else ""
        warn(f"{note}. {printable(images[lost[0]])} has no row{also}.")
    return column, table.set_axis(found)[found >= 0], note


def _say_fit(source, found, files):
    images = len(np.unique(found[found >= 0]))
    return f"{source}: {(found >= 0).sum():,} of {len(found):,} rows fit {images:,} of {len(files):,} images"


def _warn_of_contradictions(source, column, images, ids):
    """Warn if rows give one image several lesions or patients; the first one counts."""
    pairs = pd.DataFrame({"image": [*images], "id": _plain_ids(ids).to_numpy()}).dropna().drop_duplicates()
    twice = pairs[pairs["image"].duplicated(keep=False)]
    if len(twice):
        image, count = twice["image"].iloc[0], counted(twice["image"].nunique(), "image")
        one = f"{printable(image)}, which has {' and '.join(twice['id'][twice['image'] == image][:2])}"
        warn(f"{source}: rows contradict each other in {column} for {count}, such as {one}; the first counts")


def _join(rows, names, source, csv, image_column, group_column):
    """Add the columns of a second table, which fills gaps in those of the first; return a sentence too."""
    other = _read_table(csv, image_column, group_column)
    known = names.dropna().unique().tolist()
    column = tables.find_column(other, image_column)
    if column is None and not any(name in other for name in IMAGE_COLUMNS):
        shared = [name for name in GROUP_COLUMNS if name in rows and name in other]
        column = shared[0] if shared else tables.require_column(other, image_column, csv)
        names = rows[column]  # a row a lesion
        known = names.dropna().unique().tolist()
    column, other, note = _fitted(other, csv, known, column)
    position = names.map({name: number for number, name in enumerate(known)})
    for name in _group_columns(other, group_column):
        ids = other[name]
        if name in rows:
            rows = rows.assign(**{name: _plain_ids(rows[name])})
            ids = pd.concat([rows[name].set_axis(position), ids.astype("string")])
        _warn_of_contradictions(f"{source} with {csv}", name, ids.index.map(dict(enumerate(known))), ids)
    other = _first(other).drop(columns=column).reindex(position).set_axis(rows.index)
    for name in rows.columns.intersection(other.columns).difference(IMAGE_COLUMNS):
        if rows[name].isna().any():
            rows = rows.assign(**{name: rows[name].astype(object).fillna(other[name]).infer_objects()})
    return rows.join(other[other.columns.difference(rows.columns, sort=False)]), note


def _first(rows):
    """Return the first value that is given of each index."""
    return rows.groupby(level=0).first() if rows.index.has_duplicates else rows


def _say_lost(reasons, found, names, unreadable, images, column):
    """Add to `reasons` why a row of a table has no image."""
    lost = names[(found == NO_IMAGE) & names.notna().to_numpy()]
    reasons[lost.index] = f"no such image below {images}"
    reasons[found == SEVERAL] = f"several images below {images} have this name: give folder and extension"
    reasons[names.isna()] = f"no name in the column {column!r}"
    if len(lost) and unreadable:
        for row, number in zip(lost.index, find(lost, unreadable), strict=True):
            if number >= 0:
                reasons[row] = folders.why_unreadable(unreadable[number])


def _set_aside_copies(paths, labels, reasons):
    """Add to `reasons` the rows whose image is in an earlier row, or all its rows if their labels differ."""
    usable = reasons.isna()
    again = paths.where(usable).duplicated() & usable
    reasons[again] = "the same image stands in an earlier row"
    copies = usable & paths.isin(paths[again])
    for _, given in labels[copies].groupby(paths[copies]):
        if given.nunique() > 1:
            said = " and ".join(map(repr, given.unique()[:2]))
            reasons[given.index] = f"its rows contradict each other: {said}"


def _plain_ids(column):
    """Return ids as text, missing where they are blank or in `UNNAMED`."""
    ids = column.astype("string").str.strip().str.replace(r"^(\d+)\.0+$", r"\1", regex=True)
    return ids.mask(ids.str.casefold().isin(UNNAMED))


def groups(rows: pd.DataFrame, group_column: str | None, source: object = "the table") -> pd.Series:
    """Return the group of each row, from `group_column`, else from `GROUP_COLUMNS`: Series of string.

    Ids that differ only in case become one, with a warning. It also warns if a fifth of the rows, and more than
    ten, share an id, or if no id is given and another column seems to hold them.
    """
    group = pd.Series(pd.NA, rows.index, "string")
    for column in _group_columns(rows, group_column):
        group = group.fillna(_plain_ids(rows[column]))
    for name in filter(_OTHER_IDS.fullmatch, rows) if group.isna().all() else ():
        if max(1, len(rows) / 20) < rows[name].nunique() < rows[name].count():
            warn(
                f"{source}: each image counts as a lesion of its own. If the column {name} names lesions or patients, "
                f"give group_column={name!r}, in the notebooks GROUP_COLUMN"
            )
    first = group.groupby(group.str.casefold()).transform("first")
    if (other := (first != group).fillna(False)).any():
        pair = f"{group[other].iloc[0]} and {first[other].iloc[0]}"
        warn(f"{source}: ids of lesions or patients that differ only in case are read as one, such as {pair}")
    counts = first.value_counts()
    if len(counts) and counts.iloc[0] > max(10, len(rows) / 5):
        warn(
            f"{source}: {counts.iloc[0]:,} of {len(rows):,} images have the lesion or patient {counts.index[0]!r}, so "
            "they stay in one part of a split. If it means that none is known, leave these cells empty."
        )
    return first


def _set_apart(rows, labels, *used):
    """Rename the user's columns that have one of our names; drop those that were `used` for ours.

    A column ``label`` that equals `labels`, as in the metadata of a download, is dropped too.
    """
    if "label" in rows:
        given, ours = rows["label"].map(as_label), labels[rows.index]
        if ((given == ours) | (given.map(folder_name, na_action="ignore") == ours)).all():
            used += ("label",)
    rows = rows.drop(columns={*used} & {*OWN_COLUMNS} & {*rows})
    renamed = {name: f"metadata_{name}" for name in rows if name in OWN_COLUMNS}
    return rows.drop(columns={*renamed.values()} & {*rows}).rename(columns=renamed)
