"""Match the names of images in a table with files."""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pandas as pd

from .. import tables
from ..fields import IMAGE_COLUMNS
from ..images import EXTENSIONS
from ..text import INVISIBLE, printable
from . import folders

NO_IMAGE, SEVERAL = -1, -2
_ENDINGS = {*EXTENSIONS, *folders.UNREADABLE}


def below(folder: Path, files: list[str]) -> list[str]:
    """Put `folder` in front of relative paths, as pathlib would but ten times faster: list of str."""
    start = str(folder / "_")[:-1]
    return [start + file for file in files]


def find(names: pd.Series, files: list[str]) -> np.ndarray:
    """Find the file that each name means: positions in `files`, `NO_IMAGE` or `SEVERAL`, shape (len(names),).

    A name takes the file with its stem, whatever folder or extension either has: tables come from other machines. Only
    if several files or names share a stem must folder and extension match. A name that matches nothing may take a
    remaining file that differs in case, in how Unicode writes an accent, or by ``.0`` after a number.
    """
    found = _find(names, files)
    left = (found == NO_IMAGE) & names.notna().to_numpy()
    if left.any() and len(free := np.setdiff1d(np.arange(len(files)), found)):
        again = _find(names[left].map(_loose_name), [_loose_name(files[number]) for number in free])
        found[left] = np.where(again < 0, again, free[again])
    return found


def _loose_name(name):
    text = " ".join(INVISIBLE.sub("", unicodedata.normalize("NFKC", printable(name))).casefold().split())
    return re.sub(r"(^|[/\\])(\d+)\.0+$", r"\1\2", text.replace("/ ", "/"))


def stem(base: str) -> str:
    """Cut off the extension of an image, and nothing else: scan_2.5 is a name."""
    front, _, ending = base.rpartition(".")
    return front if front and f".{ending.lower()}" in _ENDINGS else base


def _find(names, files):
    by_stem = defaultdict(list)
    for number, file in enumerate(files):
        by_stem[stem(file.rpartition("/")[2])].append(number)
    stems = {}
    for name in names.dropna().unique():
        base = name.replace("\\", "/").rpartition("/")[2]
        stems[name] = base if base in by_stem else stem(base)
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
            [n for n, path in paths.items() if stem(path).endswith(tail)],
            sorted((n for n in paths if depth[n] > 1 and tail.endswith(paths[n])), key=depth.get)[-1:],
        ):
            if len(fits) > 1:  # a mask may be called as its image
                fits = [n for n in fits if not folders.is_beside(files[n])]
                return fits[0] if len(fits) == 1 else SEVERAL
            if fits:
                return fits[0]
        return SEVERAL if len(candidates) > 1 else NO_IMAGE

    found = {name: find_one(name) for name in stems}
    return np.array([found.get(name, NO_IMAGE) for name in names.to_numpy(object)], int)


def image_names(
    table: pd.DataFrame, files: list[str], source: object, column: str | None = None
) -> tuple[str, np.ndarray]:
    """Return the column that names the images, by default the best match of `IMAGE_COLUMNS`, and what `find` finds.

    Raises ValueError if there is no such column.
    """
    columns = [name for name in IMAGE_COLUMNS if name in table]
    if column:
        columns = [tables.require_column(table, column, source)]
    if not columns:
        raise ValueError(
            f"{source} has no column that names the images ({', '.join(IMAGE_COLUMNS[:9])}, …); it has: "
            f"{', '.join(table)}. "
            "Rename the column with their names to image, or give image_column to from_csv."
        )
    found = {name: find(table[name].astype("string"), files) for name in columns}
    best = max(found, key=lambda name: (found[name] >= 0).sum())
    return best, found[best]
