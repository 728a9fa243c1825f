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


def plain_labels(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return labels and, where there is none, the reason: two Series.

    Whole numbers that are all written with ``.0``, as pandas writes a column with gaps, lose it.
    """
    labels = column.astype("string").str.strip()
    labels = labels.mask(labels == "")
    given = labels.dropna()
    if len(given) and given.str.fullmatch(r"[+-]?\d+(\.0+)?").all():
        labels = labels.str.replace(r"\.0+$", "", regex=True)
    reasons = pd.Series(index=column.index, dtype=object)
    reasons[labels.isna()] = "no label"
    return labels, reasons


def one_hot_labels(columns: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """Return the name of the one marked column of each row and, where there is none, the reason: two Series."""
    text = columns.apply(lambda column: column.astype("string").str.strip().str.lower()).fillna("")
    cells = text.apply(lambda column: column.str.replace(",", ".").astype(object))
    numbers = cells.apply(pd.to_numeric, errors="coerce")
    marked = ~((numbers == 0) | (numbers == -1) | text.isin(NOT_MARKED))
    count = marked.sum(axis=1)
    reasons = pd.Series(index=columns.index, dtype=object)
    reasons[count == 0] = f"none of the columns {', '.join(columns)} is marked"
    if (several := count > 1).any():
        cells = text[several].where(marked & (numbers != 1)).stack().dropna().unique()
        said = f" (by {', '.join(map(repr, cells[:4]))})" if len(cells) else ""
        reasons[several] = f"more than one of the columns {', '.join(columns)} is marked{said}"
    return marked.idxmax(axis=1).astype("string").where(count == 1), reasons


def loose(label: str) -> str:
    """Return what is compared of labels that differ in spelling: not case, invisible characters or runs of blanks.

    1, 01 and 1.0 are the same number, yes is true and no is false.
    """
    if not label.isascii():
        label = "".join(letter for letter in label if unicodedata.category(letter) != "Cf")
    text = " ".join(label.casefold().split())
    if re.fullmatch(r"[+-]?\d+(\.0+)?", text):
        return str(int(text.partition(".")[0]))
    return {"yes": "true", "no": "false"}.get(text, text)


def apply_map(
    labels: pd.Series, label_map: Mapping, source: object
) -> tuple[pd.Series, pd.Series, pd.Series]:
    """Map the file's labels to the dataset's: the label of each row, the key that it fits, and why there is none.

    A key fits the label that `as_label` makes of it. Else the only key that equals the label after `loose` is taken,
    with a warning; True, yes, False and no then also fit 1 and 0. A value of None leaves the label's rows out. Raises
    ValueError if it is no such map, or no label fits.
    """
    targets, alike = _targets(label_map)
    counts = labels.value_counts()
    key_of = {label: label for label in counts.index if label in targets}
    loosely = {
        label: alike[loose(label)][0]
        for label in counts.index
        if label not in targets and len({targets[key] for key in alike.get(loose(label), ())}) == 1
    }
    if not key_of and not loosely and len(counts):
        there = ", ".join(f"{label!r} ({count})" for label, count in counts.head(8).items())
        keys = ", ".join(map(repr, targets)) or "nothing"
        raise ValueError(f"no label of {source} is in label_map: the labels are {there}; the map has {keys}")
    if loosely:
        said = ", ".join(f"{label!r} as {key!r}" for label, key in [*loosely.items()][:5])
        warn(f"{source}: label_map has other spellings; read {said}")
    keys = labels.map(key_of | loosely).astype("string")
    mapped = keys.map(targets).astype("string")
    reasons = pd.Series(index=labels.index, dtype=object)
    unknown = keys.isna() & labels.notna()
    reasons[unknown] = "label " + labels[unknown].map(repr) + " is not in label_map"
    left_out = keys.notna() & mapped.isna()
    reasons[left_out] = "left out by label_map: " + keys[left_out].map(repr)
    return mapped, keys.where(mapped.notna()), reasons


def _targets(label_map):
    """Return what each key means, and the keys that are loosely equal: two dicts."""
    if not isinstance(label_map, Mapping):
        raise ValueError(f"label_map is a dict such as {{'mel': 'malignant', 'nv': None}}, not {label_map!r}")
    targets, alike = {}, defaultdict(list)
    for key, value in label_map.items():
        name, label = as_label(key), as_label(value)
        if name is None:
            raise ValueError(f"label_map has the key {key!r}, which is no label")
        if isinstance(value, Iterable) and not isinstance(value, str):
            raise ValueError(f"label_map has {value!r} for {key!r}: give one label, or None to leave it out")
        if targets.setdefault(name, label) != label:
            raise ValueError(f"label_map has {name!r} twice, as {targets[name]!r} and {label!r}")
        alike[loose(name)].append(name)
        if loose(name) in ("true", "false"):
            alike[str(int(loose(name) == "true"))].append(name)
    return targets, alike


def merges(label_map: Mapping) -> bool:
    """Say whether several labels of the file become one."""
    values = [as_label(value) for value in label_map.values()]
    return len({*values} - {None}) < len(values) - values.count(None)


def warn_of_spellings(labels: Iterable[str], counts: Mapping[str, int], source: object) -> None:
    """Warn of labels that differ only in what `loose` leaves out: they are learned as different labels."""
    alike = defaultdict(list)
    for label in labels:
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
