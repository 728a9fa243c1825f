"""Labels as they stand in columns: one column, one a label, and the map from the file's labels to the dataset's."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pandas as pd

from ..errors import warn
from ..text import as_label

NOT_MARKED = ("", "false", "f", "no", "n", "absent", "negative", "-", "–", "—")
"""Cells, in lower case, that say that a row does not have the label of the column; 0 and -1 say so too."""
_TRUTH = {"true": "1", "false": "0"}


def plain_labels(column: pd.Series) -> pd.Series:
    """Return labels, NA for none. If all are whole numbers ending in ``.0``, as pandas writes gaps, it goes."""
    labels = column.astype("string").str.strip()
    labels = labels.mask(labels == "")
    if labels.dropna().str.fullmatch(r"[+-]?\d+(\.0+)?").all():
        labels = labels.str.replace(r"\.0+$", "", regex=True)
    return labels


def one_hot_labels(columns: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the name of the one marked column of each row and, where there is none, the reason: two Series."""
    text = columns.apply(lambda column: column.astype("string").str.strip().str.lower()).fillna("")
    cells = text.apply(lambda column: column.str.replace(",", ".").astype(object))
    numbers = cells.apply(pd.to_numeric, errors="coerce")
    marked = ~(numbers.isin([0, -1]) | text.isin(NOT_MARKED))
    count = marked.sum(axis=1)
    reasons = pd.Series(index=columns.index, dtype=object)
    reasons[count == 0] = f"none of the columns {', '.join(columns)} is marked"
    reasons[count > 1] = f"more than one of the columns {', '.join(columns)} is marked"
    return marked.idxmax(axis=1).astype("string").where(count == 1), reasons


def loose(label: str) -> str:
    """Return what is compared of labels that differ in spelling: 1, 01 and 1.0 are one number, yes is true."""
    label = "".join(letter for letter in label if unicodedata.category(letter) != "Cf")
    text = " ".join(label.casefold().replace("_", " ").split())
    number = re.fullmatch(r"([+-]?\d+)(\.0+)?", text)
    return str(int(number[1])) if number else {"yes": "true", "no": "false"}.get(text, text)


def apply_map(
    labels: pd.Series, label_map: Mapping, source: object
) -> tuple[pd.Series, pd.Series | None, pd.Series]:
    """Map the file's labels to the dataset's: each row's label, its key if the map merges some, and why it has none.

    A key fits the label that `as_label` makes of it. Else the only key that equals the label after `loose` is taken,
    with a warning; True, yes, False and no then also fit 1 and 0. A value of None leaves the label's
    rows out. Raises ValueError if it is no such map, or no label fits.
    """
    targets, alike = _targets(label_map), defaultdict(list)
    for key in targets:
        alike[loose(key)].append(key)
        alike[_TRUTH.get(loose(key), loose(key))].append(key)
    counts = labels.value_counts()
    key_of, loosely = {}, {}
    for label in counts.index:
        keys = alike[loose(label)]
        if label in targets:
            key_of[label] = label
        elif len({targets[key] for key in keys}) == 1:
            loosely[label] = keys[0]
    if not key_of and not loosely and len(counts):
        there = ", ".join(f"{label!r} ({count})" for label, count in counts.head(8).items())
        has = ", ".join(map(repr, targets)) or "nothing"
        raise ValueError(f"no label of {source} is in label_map: the labels are {there}; the map has {has}")
    if loosely:
        said = ", ".join(f"{label!r} as {key!r}" for label, key in [*loosely.items()][:5])
        warn(f"{source}: label_map has other spellings; read {said}")
    fits = labels.map(key_of | loosely).astype("string")
    mapped = fits.map(targets).astype("string")
    lost = pd.DataFrame({"label": labels, "key": fits})[labels.notna() & mapped.isna()]
    reasons = [
        f"label {label!r} is not in label_map" if pd.isna(key) else f"left out by label_map: {key!r}"
        for label, key in lost.itertuples(index=False)
    ]
    kept = [label for label in targets.values() if label is not None]
    of_merged = fits.where(mapped.notna()) if len({*kept}) < len(kept) else None
    return mapped, of_merged, pd.Series(reasons, lost.index, object).reindex(labels.index)


def _targets(label_map):
    """Return the dataset's label, or None, for each of the file's."""
    if not isinstance(label_map, Mapping):
        raise ValueError(f"label_map is a dict such as {{'mel': 'malignant', 'nv': None}}, not {label_map!r}")
    targets = {}
    for key, value in label_map.items():
        name, label = as_label(key), as_label(value)
        if name is None:
            raise ValueError(f"label_map has the key {key!r}, which is no label")
        if isinstance(value, Iterable) and not isinstance(value, str):
            raise ValueError(f"label_map has {value!r} for {key!r}: give one label, or None to leave it out")
        if targets.setdefault(name, label) != label:
            raise ValueError(f"label_map has {name!r} twice, as {targets[name]!r} and {label!r}")
    return targets


def warn_of_spellings(counts: Mapping[str, int], source: object) -> None:
    """Warn of labels that differ only in what `loose` leaves out: they are learned as different labels."""
    alike = defaultdict(list)
    for label in sorted(counts):
        alike[loose(label)].append(label)
    for group in alike.values():
        if len(group) > 1:
            most = max(group, key=lambda label: counts[label])
            merge = ", ".join(f"{label!r}: {most!r}" for label in group)
            said = " and ".join(f"{label!r} ({counts[label]})" for label in group)
            warn(
                f"{source}: the labels {said} differ only in spelling and are learned as different labels. If they are "
                f"one, give from_csv label_map={{{merge}}} or give their folders one name."
            )
