"""Deal groups of pictures to the parts of a split, whole and with the labels in like proportion."""

from __future__ import annotations

import heapq
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import duplicates

if TYPE_CHECKING:
    from .dataset import ImageDataset


def deal(
    table: pd.DataFrame,
    fractions: Sequence[float],
    stratify: str,
    group: str | None,
    seed: int,
    near_duplicates: int | None,
) -> np.ndarray:
    """Deal out the groups; return the number of the part of each picture: numpy.ndarray of int."""
    for column in (stratify, *([group] if group else [])):
        if column not in table:
            known = ", ".join(table.columns)
            raise ValueError(f"no column {column!r} to split by; there are: {known}")
    groups = _groups(table, group, near_duplicates)
    label, labels = pd.factorize(table[stratify], sort=True, use_na_sentinel=False)
    counts = pd.DataFrame({"group": groups, "label": label}).value_counts(sort=False).reset_index()
    # a group with several labels (a corrected label, say) counts where most of its pictures are
    main = counts.sort_values(["count", "group", "label"], ascending=[False, True, True])
    main = main.drop_duplicates("group")
    main = main.assign(size=main["group"].map(counts.groupby("group")["count"].sum()))
    main = main.sample(frac=1, random_state=seed).sort_values("size", ascending=False, kind="stable")
    part_of = np.zeros(groups.max(initial=-1) + 1, int)
    for code, rows in main.groupby("label"):
        if len(rows) < len(fractions):
            raise ValueError(
                f"{stratify} {labels[code]!r} has {len(rows)} different {group or 'path'!r} to keep whole, too "
                f"few to split into {len(fractions)} parts: add pictures of other lesions, or use fewer parts"
            )
        names, sizes, first = rows["group"].to_numpy(), rows["size"].tolist(), len(fractions)
        part_of[names[:first]] = range(first)  # one to each, so that no part is left without this label
        filled = [(sizes[n] / share, n) for n, share in enumerate(fractions)]
        heapq.heapify(filled)
        for name, size in zip(names[first:], sizes[first:], strict=True):
            share, part = filled[0]  # the emptiest
            heapq.heapreplace(filled, (share + size / fractions[part], part))
            part_of[name] = part
    parts = part_of[groups]
    if group is None and (leak := in_several(parts, table["group"])).any():
        warnings.warn(
            f"{table['group'][leak].nunique()} groups (lesions or patients, {leak.sum()} pictures) stand in "
            "more than one part, so the figures will flatter: group='group' keeps them whole",
            stacklevel=4,
        )
    return parts


def _groups(table, group, near_duplicates):
    """Find the group of each picture, numbered in the order of their names: numpy.ndarray of int."""
    groups, names = pd.factorize(group_names(table, group or "path"), sort=True)
    if near_duplicates is None:
        return groups
    if "phash" not in table:
        raise ValueError("near_duplicates needs perceptual hashes, which dataset.check() measures")
    # groups and sets of near-duplicates are the nodes, pictures the edges; a component takes its first name
    alike = duplicates.clusters(duplicates.as_integers(table["phash"]), near_duplicates)
    n = len(names)
    component = duplicates.connected(groups, n + alike, n + alike.max(initial=-1) + 1)[:n]
    _, first = np.unique(component, return_index=True)
    return first[component][groups]


def named(parts: Sequence[ImageDataset] | dict[str, ImageDataset]) -> dict[str, ImageDataset]:
    """Name the parts of a split."""
    if isinstance(parts, dict):
        return parts
    names: dict[int, Sequence] = {2: ("train", "test"), 3: ("train", "validation", "test")}
    return dict(zip(names.get(len(parts), range(1, len(parts) + 1)), parts, strict=True))


def group_names(table: pd.DataFrame, group: str) -> pd.Series:
    """Return the group of each picture: Series of str. Where it is missing, the picture stands alone."""
    return table[group].astype("string").fillna(table["path"]).astype(str)


def in_several(parts: np.ndarray | pd.Series, groups: pd.Series) -> np.ndarray:
    """Say of each row whether its group stands in several parts: numpy.ndarray of bool."""
    frame = pd.DataFrame({"part": np.asarray(parts), "group": np.asarray(groups)})
    pairs = frame.drop_duplicates()
    return frame["group"].isin(pairs["group"][pairs["group"].duplicated()]).to_numpy()
