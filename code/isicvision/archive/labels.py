"""Which label an archive's record gets, how many images of each are taken, and a record's flat metadata."""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from ..fields import SEARCHABLE
from ..files import folder_name
from ..text import near


def labeler(
    label_field: str | None = None,
    label: str | Mapping[str, str] | Callable[[dict], str | None] | None = None,
) -> Callable[[dict], str | None]:
    """Return a function that gives a record's label, fit to name a folder, or None; see `IsicArchive.download`."""
    if label_field is not None and label is not None:
        raise ValueError("give label_field or label, not both")
    if label is None:
        field = "diagnosis_1" if label_field is None else label_field
        if field not in SEARCHABLE:
            hint = near(field, SEARCHABLE) or "; isicvision.fields.SEARCHABLE lists all"
            raise ValueError(f"label_field: the archive has no field {field!r}{hint}")
        return lambda record: folder_name(flatten(record).get(field), lower=True)
    if isinstance(label, Mapping):
        folders = {*filter(None, map(folder_name, label.values()))}
        if len(folders) > len({*map(str.lower, folders)}):
            raise ValueError(f"labels that differ only in case share a folder on Windows: {sorted(folders)}")
        names = ("isic_id", *(f"diagnosis_{level}" for level in (5, 4, 3, 2, 1)))

        def mapped(record):
            row = flatten(record)
            return next((folder_name(label[row[name]]) for name in names if row.get(name) in label), None)

        return mapped
    if callable(label):
        return lambda record: folder_name(label(record))
    if label in SEARCHABLE:
        raise ValueError(f"label={label!r} is the name of a field: write label_field={label!r}")
    if not isinstance(label, str) or folder_name(label) != label:
        raise ValueError(f"label is a word fit to name a folder, a mapping or a function, not {label!r}")
    return lambda record: label


def choose(
    records: Iterable[dict],
    label_of: Callable[[dict], str | None],
    limit: int | None = None,
    per_label: dict[str, int | None] | None = None,
    seed: int | None = None,
) -> Iterator[dict]:
    """Yield the first records, or with a seed a random sample: `limit` in all, or `per_label` of each label.

    Records without a label are passed on, those of labels not in `per_label` left out. A sample walks the whole listing
    and keeps the records whose isic_id, hashed with the seed, comes first (bottom-k sampling): each has the same
    chance, and an archive that has grown changes few of them.
    """
    if seed is None and not per_label:
        yield from records
        return
    wanted: dict = per_label or {"": limit}  # "": all labels together
    room = {label: math.inf if number is None else number for label, number in wanted.items()}
    drawn: dict[str, list] = {label: [] for label in room}
    for turn, record in enumerate(records):
        label = label_of(record) if isinstance(record, dict) else None
        pool = label if label and per_label else ""
        if label is None:
            yield record
        elif not room.get(pool):
            continue
        elif seed is None:
            room[pool] -= 1
            yield record
            if not any(room.values()):
                return
        else:
            name = f"{seed}:{record.get('isic_id')}".encode("utf-8", "replace")
            key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
            heapq.heappush(drawn[pool], (-key, turn, record))
            if len(drawn[pool]) > room[pool]:
                heapq.heappop(drawn[pool])
    for heap in drawn.values():
        for *_, record in sorted(heap, key=lambda entry: -entry[0]):
            yield record


def flatten(record: dict) -> dict:
    """Return a record's metadata as one flat dict, without numbers that are not finite."""
    metadata, flat = record.get("metadata"), {}
    for part in ("acquisition", "clinical"):
        values = metadata.get(part) if isinstance(metadata, dict) else None
        flat |= values if isinstance(values, dict) else {}
    flat |= {name: record[name] for name in ("isic_id", "attribution", "copyright_license") if name in record}
    row: dict = {}
    for name, value in flat.items():
        if value is None or not name.replace("_", "").isalnum() or len(name) > 64:
            continue
        if not isinstance(value, int | float):
            text = value if isinstance(value, str) else json.dumps(value)
            row[name] = text.encode("utf-8", "replace").decode().replace("\0", "")[:10_000]
        elif abs(value) < 1e300:
            row[name] = value
    return row
