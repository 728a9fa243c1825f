"""Find images that look alike, by the distance between their perceptual hashes, without comparing every pair."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..checks import is_whole
from ..errors import warn
from ..tables import is_named

THRESHOLD = 2
"""Bits of 64 in which the hashes of near-duplicates may differ; docs/data.md has the measurement behind it."""
LIMIT = 1_000_000
"""The most pairs that are returned, the nearest ones."""


def near_pairs(hashes: ArrayLike, threshold: int = THRESHOLD) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find all pairs of 64-bit hashes that differ in at most `threshold` bits, at most `LIMIT`.

    Returns three arrays of int64, the nearest pairs first: positions in `hashes`, the first below the second, and the
    number of bits that differ. Cut into ``threshold + 1`` blocks, two such hashes have one in common; so a threshold
    above 8 is slow. Raises ValueError unless `threshold` is 0 to 64.

    >>> first, second, bits = near_pairs([0b0000, 0b1111, 0b1011], threshold=2)
    >>> first.tolist(), second.tolist(), bits.tolist()
    ([1], [2], [1])
    """
    hashes = np.asarray(hashes, np.uint64)
    if not is_whole(threshold, 0) or threshold > 64:
        raise ValueError(f"threshold is a number of bits from 0 to 64, not {threshold!r}")
    found: list[np.ndarray] = [np.empty(0, np.int64)]
    n = max(len(hashes), 1)
    for low, high in pairwise(np.linspace(0, 64, threshold + 2).astype(int).tolist()):
        block = hashes >> np.uint64(low) & np.uint64((1 << high - low) - 1)
        order = np.argsort(block, kind="stable")
        last = np.searchsorted(block[order], block[order], "right")
        rows, step = np.arange(len(hashes)), 1
        # compare each hash with the step-th one after it in the same block
        while len(rows := rows[rows + step < last[rows]]):
            one, other = order[rows], order[rows + step]
            distance = np.bitwise_count(hashes[one] ^ hashes[other]).astype(np.int64)
            found.append((distance * 2**56 + one * n + other)[distance <= threshold])
            if sum(map(len, found)) > 2 * LIMIT:
                found = [np.unique(np.concatenate(found))[: LIMIT + 1]]
            step += 1
    nearest = np.unique(np.concatenate(found))  # a pair with several blocks in common is found as often
    if len(nearest) > LIMIT:
        warn(
            f"more than {LIMIT:,} pairs of images differ in at most {threshold} bits: only the nearest are used. "
            "Lower the threshold, and see whether many images are blank."
        )
    distance, pair = np.divmod(nearest[:LIMIT], 2**56)
    return *np.divmod(pair, n), distance


def clusters(hashes: ArrayLike, threshold: int = THRESHOLD) -> np.ndarray:
    """Give hashes that pairs within `threshold` connect the same number: array of int, shape (n,).

    >>> clusters([0b0000, 0b0001, 0b1111]).tolist()
    [0, 0, 1]
    """
    unique, hash_of = np.unique(np.asarray(hashes, np.uint64), return_inverse=True)
    one, other, _ = near_pairs(unique, threshold)
    return connected(one, other, len(unique))[hash_of]


def connected(one: np.ndarray, other: np.ndarray, n: int) -> np.ndarray:
    """Return the number of the connected component of each of `n` nodes, with edges from `one` to `other`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(one), bool), (one, other)), (n, n))
    return connected_components(edges, directed=False)[1]


def as_integers(hashes: Iterable[str]) -> np.ndarray:
    """Turn hashes of 16 hex digits, as `measures.measure` computes them, into uint64; ValueError if one is not a hash.

    >>> as_integers(["00000000000000ff"])
    array([255], dtype=uint64)
    """
    try:
        return np.array([int(text, 16) for text in hashes], np.uint64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"phash holds hashes of 16 hex digits, made by measure(): {error}") from None


def near_table(table: pd.DataFrame, threshold: int = THRESHOLD) -> pd.DataFrame:
    """List near-duplicates as `ImageDataset.near_duplicates` does; the column ``part`` of the table is optional.

    >>> table = pd.DataFrame({"path": ["a", "b"], "label": "nevus", "group": ["a", "b"], "phash": ["0" * 16] * 2})
    >>> near_table(table)[["path_a", "path_b", "distance", "crosses_label"]].values.tolist()
    [['a', 'b', 0, False]]
    """
    first, second, distance = near_pairs(as_integers(table["phash"]), threshold)
    pairs = pd.DataFrame(index=range(len(first)))
    for column in ("path", "label", "group", *(["part"] if "part" in table else [])):
        values = table[column].to_numpy()
        pairs[f"{column}_a"], pairs[f"{column}_b"] = values[first], values[second]
    pairs.insert(2, "distance", distance)
    pairs["crosses_label"] = pairs["label_a"] != pairs["label_b"]
    pairs["crosses_group"] = pairs["group_a"] != pairs["group_b"]
    if not (named := is_named(table)).all():  # two images without a lesion's name may show the same one
        unknown = ~(named[first] & named[second])
        pairs["crosses_group"] = pairs["crosses_group"].astype("boolean").mask(unknown)
    if "part" in table:
        known = pairs["part_a"].notna() & pairs["part_b"].notna()
        pairs["crosses_split"] = known & (pairs["part_a"] != pairs["part_b"])
    return pairs
