"""Deal groups of images to the parts of a split, whole and with the labels in like proportion."""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..checks import check_seed, require_dataset
from ..errors import warn
from ..files import portable
from ..tables import find_column, is_named
from ..text import counted
from . import cache, duplicates, folders

Parts = Sequence[Any] | dict[str, Any]
"""The parts of a split: ImageDatasets in order, or by name."""


def deal(
    dataset: Any,
    fractions: Sequence[float],
    stratify: str,
    group: str | None,
    seed: int,
    near_duplicates: int | None = None,
    keep: Parts | None = None,
) -> np.ndarray:
    """Deal the images of a dataset to parts as `ImageDataset.split` says; return the part's number of each image."""
    table = dataset.table
    if dataset.is_augmented:
        raise ValueError("split first, then augment the training part: augmented images train only")
    for column in [stratify] + [group] * (group is not None):
        if column not in table:
            raise ValueError(f"no column {column!r} to split by; there are: {', '.join(table.columns)}")
    if stratify == "label":
        require_dataset(dataset, "split")
    check_seed(seed)
    groups = _groups(table, group, near_duplicates)
    label, labels = pd.factorize(table[stratify], sort=True, use_na_sentinel=False)
    counts = pd.DataFrame({"group": groups, "label": label}).value_counts(sort=False).reset_index()
    of_label = counts.groupby("label")["count"]
    for code, number in of_label.size().items():
        if number < len(fractions):
            raise ValueError(
                f"{stratify} {labels[code]!r} has {number} different {group or 'path'!r} to keep whole, too "
                f"few to split into {len(fractions)} parts: add images of other lesions, or use fewer parts"
            )
    counts["share"] = counts["count"] / of_label.transform("sum")
    part_of = np.full(groups.max(initial=-1) + 1, -1)
    if keep is not None:
        _keep(part_of, table, groups, group, keep, len(fractions))
    kept = part_of >= 0
    _deal(counts, part_of, fractions, seed)
    names = [*named(range(len(fractions)))]
    for code, part in _supply(counts, part_of, ~kept, len(fractions)):
        why = "whole groups" + " and the parts to keep" * bool(kept.any())
        warn(f"no image with {stratify} {labels[code]!r} is in part {names[part]}: {why} do not allow it")
    parts = part_of[groups]
    if group is None and (leak := in_several(parts, table["group"])).any():
        warn(
            f"{counted(table['group'][leak].nunique(), 'group')} (lesions or patients, {leak.sum()} images) in "
            "more than one part, so the metrics will be too good: group='group' keeps each group in one part"
        )
    return parts


def published(dataset: Any, column: str, seed: int = 0) -> dict[str, Any]:
    """Take a published split from a column: dict of the datasets ``train``, ``validation`` and ``test``.

    The column says train, validation or test in a spelling that `folders.part` knows. Without validation images, a
    quarter of the training lesions is dealt out for them. Raises ValueError if the column says anything else, train or
    test is missing, train or validation lacks a label, or a lesion or copy (equal ``phash``) is in two parts.

    >>> from isicvision import ImageDataset
    >>> table = pd.DataFrame({"path": [*"abcdef"], "group": [*"abcdef"], "label": ["nevus", "melanoma"] * 3})
    >>> table = table.assign(split=["train"] * 2 + ["val"] * 2 + ["test"] * 2, phash=[f"{n:016x}" for n in range(6)])
    >>> {name: part.paths for name, part in published(ImageDataset(table), "split").items()}
    {'train': ['a', 'b'], 'validation': ['c', 'd'], 'test': ['e', 'f']}
    """
    dataset = dataset if "phash" in dataset.table else dataset.measure()
    table = dataset.table
    name = find_column(table, column) or find_column(table, f"metadata_{column}")  # see `reading.OWN_COLUMNS`
    if name is None:
        raise ValueError(f"no column {column!r} to split by; there are: {', '.join(table.columns)}")
    part_of = table[name].map(folders.part).fillna("")
    for value, count in table[name][part_of == ""].value_counts(dropna=False).items():
        said = "is empty for" if pd.isna(value) else f"has {value!r} for"
        count = counted(count, "image")
        raise ValueError(f"the column {name} {said} {count}: it may say train, validation or test")
    parts = {part: dataset.where(part_of == part) for part in ("train", "validation", "test")}
    if lacking := [part for part in ("train", "test") if not len(parts[part])]:
        raise ValueError(f"the column {name} puts no image into {lacking[0]}: a split needs train and test")
    copies = duplicates.near_table(table.assign(part=part_of), 0).query("crosses_split")
    leaks = {"lesions or patients": table["group"][in_several(part_of, table["group"])]}
    leaks["images with a copy"] = copies["path_a"] + " = " + copies["path_b"]
    for what, found in leaks.items():
        if names := sorted({*found}):
            said = f"{len(names):,} {what} in several parts, such as {folders.some(names, 3)}"
            raise ValueError(f"the split in the column {name} leaks: {said}. Correct it, or leave them out.")
    if not len(parts["validation"]):
        warn(f"the column {name} has no validation images: a quarter of the training lesions is taken")
        parts["train"], parts["validation"] = parts["train"].split(0.75, 0.25, seed=seed)
    for part in ("train", "validation"):
        if lost := sorted({*dataset.labels} - {*parts[part].labels}):
            raise ValueError(f"the column {name} puts no image labeled {', '.join(lost)} into {part}")
    return parts


def _keep(part_of, table, groups, group, keep, count):
    """Put groups where `keep` has one of their images, or images of the same group; the earliest part wins."""
    if hasattr(keep, "table") or not all(hasattr(each, "table") for each in named(keep).values()):
        raise TypeError("keep takes all parts of an earlier split, a list or a dict of datasets")
    parts, names = named(keep), [*named(range(count))]
    if len(parts) != count:
        raise ValueError(f"keep has {len(parts)} parts, and there are {count} fractions")
    order = names if {*parts} == {*names} else [*parts]
    earlier = pd.concat([parts[name].table for name in order], ignore_index=True)
    part = np.repeat(np.arange(count), [len(parts[name]) for name in order])
    now, then = table["path"].map(portable), earlier["path"].map(portable)
    if (shared := in_several(part, then)).any():
        raise ValueError(
            f"the parts to keep share images, such as {then[shared].iloc[0]}: give the parts of one earlier split"
        )
    row = matched(table["path"], earlier["path"])
    held, exact, found = np.append(part, count)[row], now.isin(then), np.isin(earlier.index, row)
    if group:
        if any(group not in each.table for each in parts.values()):
            raise ValueError(f"the parts to keep have no column {group!r} to split by")
        ours, theirs = group_names(table, group), group_names(earlier, group)
        found |= theirs.isin(ours)
    for is_sure in (False, True):  # what is known by path or group overrides what has a name in common
        for number in reversed(range(count)):
            here = (held == number) & (exact | (not is_sure))
            part_of[groups[here | ours.isin(theirs[part == number]) if group and is_sure else here]] = number
    if found.sum() * 2 < len(found):
        warn(
            f"keep: only {found.sum():,} of the {counted(len(found), 'image')} of the earlier split are in this "
            "dataset. The rest is split anew: images that a model was trained on may get into the test part."
        )


def matched(now: Sequence[str] | pd.Series, then: Sequence[str] | pd.Series) -> np.ndarray:
    """Find images in an earlier list of paths, even if their folder has moved: the row of each, -1 for a new image.

    An image is found by its path, its path below the folder common to its list, or a file name that is unique in both.

    >>> matched(["new/a.jpg", "new/c.jpg"], ["old/a.jpg", "old/b.jpg"])
    array([ 0, -1])
    """
    now, then = pd.Series([*now], dtype=object), pd.Series([*then], dtype=object)
    keys = [(now.map(portable), then.map(portable))]
    if not keys[0][1].isin(keys[0][0]).all():
        names = [paths.map(os.path.basename) for paths in (now, then)]
        keys += [(_below(now), _below(then))]
        keys += [tuple(each.mask(each.duplicated(keep=False)) for each in names)]
    row = np.full(len(now), -1)
    for here, there in keys:
        free = there[~there.index.isin(row)].dropna().drop_duplicates()
        new = here[row < 0].dropna()
        row[new.index] = new.map(pd.Series(free.index, free)).fillna(-1).astype(int)
    return row


def _below(paths):
    full = paths.map(os.path.abspath)
    try:
        root = os.path.commonpath([*full.map(os.path.dirname).unique()])
    except ValueError:  # no path, or several drives
        return full.map(lambda _: None)
    return full.map(lambda path: path[len(root) :].lstrip(os.sep))


def _deal(counts, part_of, fractions, seed):
    """Deal groups whose part is -1, largest first, weighed as by scikit-learn's StratifiedGroupKFold (equal folds)."""
    mixed = len(counts) > len(part_of)
    main = counts.sort_values(["count", "group", "label"], ascending=[False, True, True])
    main = main.drop_duplicates("group").sample(frac=1, random_state=seed)
    size = counts.groupby("group")["share"].sum()
    main = main.assign(size=main["group"].map(size)).sort_values("size", ascending=False, kind="stable")
    if mixed:  # the images of all labels are to be in proportion too
        of_all = counts.groupby("group", as_index=False)["count"].sum()
        of_all = of_all.assign(label=counts["label"].max() + 1, share=of_all["count"] / of_all["count"].sum())
        counts = pd.concat([counts, of_all], ignore_index=True)
    rows = counts.sort_values("group", kind="stable")
    ends = np.searchsorted(rows["group"], np.arange(len(part_of) + 1)).tolist()
    label, count = rows["label"].tolist(), rows["count"].tolist()
    # a rare label counts for more; divided so that the only label of a group counts for exactly 1
    weight = rows["share"] / rows["count"] * rows["share"]
    weight = (weight / weight.groupby(rows["group"]).transform("max")).tolist()
    filled = [[0.0] * len(fractions) for _ in range(max(label, default=-1) + 1)]
    half = 0.5 if mixed else 0  # of a group's own images, by which parts of other sizes differ

    def add(name, part, sign=1):
        for n in range(ends[name], ends[name + 1]):
            filled[label[n]][part] += sign * count[n] / fractions[part]

    for name in np.flatnonzero(part_of >= 0).tolist():
        add(name, part_of[name])
    new = main["group"][part_of[main["group"]] < 0].tolist()
    for name in [*new, *(new[::-1] if mixed else ())]:  # the second time, each looks for a better place
        if part_of[name] >= 0:
            add(name, part_of[name], -1)
        held = [(weight[n], filled[label[n]], half * count[n]) for n in range(ends[name], ends[name + 1])]
        parts = enumerate(fractions)
        costs = [sum(w * (row[part] + more / share) for w, row, more in held) for part, share in parts]
        part_of[name] = costs.index(min(costs))
        add(name, part_of[name])


def _supply(counts, part_of, movable, count):
    """Give each part without a label one of its groups if no other part then lacks one; return what is missing."""
    rows = counts.sort_values("share", kind="stable")
    has = np.zeros((counts["label"].max() + 1, count), int)
    np.add.at(has, (counts["label"], part_of[counts["group"]]), 1)
    for code, part in np.argwhere(has == 0):
        for name in rows["group"][(rows["label"] == code) & movable[rows["group"]]]:
            held = counts["label"][counts["group"] == name].to_numpy()
            if (has[held, part_of[name]] > 1).all():
                has[held, part_of[name]] -= 1
                has[held, part] += 1
                part_of[name] = part
                break
    return np.argwhere(has == 0).tolist()


def _groups(table, group, near_duplicates):
    """Find the group of each image, numbered in the order of their names: numpy.ndarray of int."""
    groups, names = pd.factorize(group_names(table, group or "path"), sort=True)
    if near_duplicates is None:
        return groups
    if "phash" not in table:
        raise ValueError("near_duplicates needs perceptual hashes, which dataset.measure() computes")
    # groups and sets of near-duplicates are the nodes, images the edges; a component takes its first name
    alike = duplicates.clusters(duplicates.as_integers(table["phash"]), near_duplicates)
    n = len(names)
    component = duplicates.connected(groups, n + alike, n + alike.max(initial=-1) + 1)[:n]
    _, first = np.unique(component, return_index=True)
    return first[component][groups]


def named(parts: Parts) -> dict[Any, Any]:
    """Name the parts of a split: three are train, validation and test, two train and test."""
    if isinstance(parts, dict):
        return parts
    names: dict[int, Sequence] = {2: ("train", "test"), 3: ("train", "validation", "test")}
    return dict(zip(names.get(len(parts), range(1, len(parts) + 1)), parts, strict=True))


def group_names(table: pd.DataFrame, group: str) -> pd.Series:
    """Return the group of each image, or the image itself without one, wherever the repository lies: Series of str."""
    return table[group].astype("string").fillna(table["path"]).astype(str).map(portable)


def group_count(table: pd.DataFrame) -> dict:
    """Count groups: dict of ``groups``, None if no lesion is named, and ``groups_known``, the share of images named.

    >>> group_count(pd.DataFrame({"path": ["1.jpg", "2.jpg"], "group": ["L1", "2.jpg"]}))
    {'groups': 2, 'groups_known': 0.5}
    """
    known = is_named(table).mean() if len(table) else 1.0
    groups = int(table["group"].nunique()) if known else None
    return {"groups": groups, "groups_known": round(float(known), 4)}


def group_words(groups: int | None, groups_known: float = 1.0) -> str:
    """Say what `group_count` counted."""
    if groups is None:
        return "unknown: no column names lesions or patients"
    named = f" (named for {groups_known:.0%} of the images; each other image counts as its own)"
    return f"{groups:,}{named * (groups_known < 1)}"


def shared_count(parts: Parts) -> dict:
    """Count groups in more than one part: dict of ``shared_groups``, None if unknown, and ``groups_known``."""
    tables = [part.table.assign(part=name) for name, part in named(parts).items()]
    table = pd.concat(tables, ignore_index=True)
    known = group_count(table)
    shared = table["group"][in_several(table["part"], table["group"])].nunique()
    shared = shared if shared or known["groups"] else None
    return {"shared_groups": shared, "groups_known": known["groups_known"]}


def shared_words(shared_groups: int | None, groups_known: float = 1.0) -> str:
    """Say how many lesions are in more than one part of a split, or that this is unknown."""
    if shared_groups is None:
        return (
            "Lesions (or groups) in more than one part: unknown, because no column names lesions or patients. The "
            "metrics may be too good. split(…, near_duplicates=2) keeps at least images that look alike in one part."
        )
    among = f", among the {groups_known:.0%} of the images whose lesion is named; unknown for the others"
    return f"Lesions (or groups) in more than one part: {shared_groups:,}{among * (groups_known < 1)}."


def report(dataset: Any, parts: Parts, stratify: str, group: str, threshold: int | None) -> pd.DataFrame:
    """Return the table of `ImageDataset.split_report`."""
    index = [*named(parts), "all"]
    tables = [part.table.assign(part=name) for name, part in (named(parts) | {"all": dataset}).items()]
    table = pd.concat(tables, ignore_index=True)
    known = table.assign(known=is_named(table, group)).groupby("part")["known"].mean()
    table["group"] = group_names(table, group)
    dealt = table[table["part"] != "all"]
    is_shared = table["group"].isin(dealt["group"][in_several(dealt["part"], dealt["group"])])
    rows = table.groupby("part", sort=False)
    shares = pd.crosstab(table["part"], table[stratify], normalize="index").loc[index]
    found = pd.DataFrame({"images": rows.size(), "groups": rows["group"].nunique()})
    found["share"] = found["images"] / len(dataset)
    found = found.join(shares.add_prefix("share_"))
    found["largest_deviation"] = (shares - shares.loc["all"]).abs().max(axis=1)
    found["shared_groups"] = table["group"].where(is_shared).groupby(table["part"]).nunique()
    if known["all"] == 0:
        found["groups_known"] = "unknown: no column names lesions"
        found["shared_groups"] = found["shared_groups"] if is_shared.any() else np.nan
    elif known["all"] < 1:
        found["groups_known"] = known
    if threshold is not None:
        pairs = dataset.near_duplicates(threshold, parts).query("crosses_split")
        ends = pd.concat([pairs["part_a"], pairs["part_b"]]).value_counts()
        found["near_duplicates"] = ends.reindex(index, fill_value=0)
        found.loc["all", "near_duplicates"] = len(pairs)
    return found


def fingerprints(dataset: Any) -> dict[str, np.ndarray]:
    """Hash each image's bytes and each named group: sorted arrays of uint64, ``images`` and ``groups``."""
    images, groups = _fingerprints(dataset)
    return {"images": np.unique(images), "groups": np.unique(groups[is_named(dataset.table)])}


def seen(dataset: Any, known: dict[str, np.ndarray], by_name: bool = True) -> np.ndarray:
    """Tell which images or, `by_name`, their lesions are among those of `fingerprints`: numpy.ndarray of bool."""
    images, groups = _fingerprints(dataset)
    named = np.isin(groups, known["groups"]) & is_named(dataset.table)
    return np.isin(images, known["images"]) | (named & by_name)


def warn_of_seen(dataset: Any, known: dict[str, np.ndarray] | None, purpose: str) -> None:
    """Warn if a model with these `fingerprints` was trained on images or lesions of `dataset`."""
    if known is not None and (count := seen(dataset, known).sum()):
        seen_of = f"{counted(count, 'image')} of the {len(dataset):,} {purpose} were trained on"
        warn(f"{seen_of}, or show a lesion (by its name) that was: the metrics will be too good")


def _fingerprints(dataset):
    def hashed(name):
        return int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest())

    keys = zip(cache.keys(dataset.paths), dataset.paths, strict=True)  # no key: an image that is not here
    images = [int(key[:16], 16) if key else hashed(path) for key, path in keys]
    return np.array(images, np.uint64), np.array([*map(hashed, dataset.table["group"])], np.uint64)


def in_several(parts: np.ndarray | pd.Series, groups: pd.Series) -> np.ndarray:
    """Tell for each row whether its group is in several parts: numpy.ndarray of bool."""
    frame = pd.DataFrame({"part": np.asarray(parts), "group": np.asarray(groups)})
    pairs = frame.drop_duplicates()
    return frame["group"].isin(pairs["group"][pairs["group"].duplicated()]).to_numpy()
