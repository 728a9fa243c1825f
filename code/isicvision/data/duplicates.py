"""Find images that look alike, by the distance of their perceptual hashes, without comparing every pair.

The same image comes back in public collections resized, brightened, or saved again. On both sides of a split it
flatters the test; with two labels it teaches nothing.
"""

import warnings
from collections.abc import Iterable
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..checks import is_whole
from ..tables import is_named

THRESHOLD = 2
"""Bits of 64 in which the hashes of near-duplicates may differ; docs/data.md has the measurement behind it."""
CROWD = 100
"""Of images with the very same hash, those after so many are paired with the first only."""
LIMIT = 1_000_000
"""Most pairs that are returned, the nearest ones."""
BLOCK = 2**21


def near_pairs(hashes: ArrayLike, threshold: int = THRESHOLD) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List all pairs of hashes that differ in at most `threshold` bits.

    Multi-index hashing (Norouzi, Punjani and Fleet, *Fast search in Hamming space with multi-index hashing*, CVPR
    2012): of the parts that a hash is cut into, at least one differs in so few bits that it can be looked up. None is
    missed, up to two bounds that keep memory flat: `CROWD` and `LIMIT` (where there are more pairs, a warning says so).

    The hashes are uint64. Returns three arrays of int64, shape (pairs,): positions in `hashes`, the first below the
    second, and how many bits differ, the nearest pairs first. Raises ValueError if `threshold` is not in 0 to 64.
    """
    unique, member, count = np.unique(np.asarray(hashes, np.uint64), return_inverse=True, return_counts=True)
    by_hash = np.argsort(member, kind="stable")
    start = np.cumsum(count) - count
    one, other, distance = _near_unique(unique, threshold)
    crowd = np.minimum(count, CROWD)
    same = np.flatnonzero(count > 1)
    one, other = np.concatenate([same, one]), np.concatenate([same, other])
    distance = np.concatenate([0 * same, distance])
    pairs = np.where(one == other, crowd[one] * (crowd[one] - 1) // 2, crowd[one] * crowd[other])
    fits = np.cumsum(pairs) <= LIMIT
    if not fits.all():
        _warn(threshold)
    one, other, distance = one[fits], other[fits], distance[fits]
    row = np.repeat(np.arange(len(one)), crowd[one])  # each image of the one hash …
    left = by_hash[start[one[row]] + _rank(crowd[one])]
    pair = np.repeat(np.arange(len(row)), crowd[other[row]])  # … with each of the other
    right = by_hash[start[other[row[pair]]] + _rank(crowd[other[row]])]
    left, distance = left[pair], distance[row[pair]]
    keep = (one[row[pair]] != other[row[pair]]) | (left < right)
    late = by_hash[_rank(count) >= CROWD]
    left = np.concatenate([left[keep], by_hash[start[member[late]]]])
    right = np.concatenate([right[keep], late])
    distance = np.concatenate([distance[keep], 0 * late])
    first, second = np.minimum(left, right), np.maximum(left, right)
    order = np.lexsort((second, first, distance))
    return first[order], second[order], distance[order]


def clusters(hashes: ArrayLike, threshold: int = THRESHOLD) -> np.ndarray:
    """Find the sets of hashes that are connected by pairs within `threshold`.

    Returns an array of int, shape (n,): hashes of one set have the same number, from 0 in no particular order.
    """
    unique, member = np.unique(np.asarray(hashes, np.uint64), return_inverse=True)
    one, other, _ = _near_unique(unique, threshold)
    return connected(one, other, len(unique))[member]


def connected(one: np.ndarray, other: np.ndarray, n: int) -> np.ndarray:
    """Find connected components; return their numbers for `n` nodes, edges going from `one` to `other`."""
    from scipy.sparse import coo_array  # loads when first used
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(one), bool), (one, other)), (n, n))
    return connected_components(edges, directed=False)[1]


def as_integers(hashes: Iterable[str]) -> np.ndarray:
    """Turn hashes of 16 hex digits (`quality.measure`) into an array of uint64; ValueError if one is none."""
    try:
        return np.array([int(text, 16) for text in hashes], np.uint64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the column phash holds no hashes of 16 hex digits: {error}; see check()") from None


def near_table(table: pd.DataFrame, threshold: int = THRESHOLD) -> pd.DataFrame:
    """List near-duplicates in a table with the columns ``path, label, group, phash`` and, if there are parts, ``part``.

    `ImageDataset.near_duplicates` says what is in the result.
    """
    first, second, distance = near_pairs(as_integers(table["phash"]), threshold)
    has_parts = "part" in table
    pairs = {}
    for column in ("path", "label", "group", *(["part"] if has_parts else [])):
        values = table[column].to_numpy()
        pairs |= {f"{column}_a": values[first], f"{column}_b": values[second]}
        pairs |= {"distance": distance} if column == "path" else {}
    pairs = pd.DataFrame(pairs)
    pairs["crosses_label"] = pairs["label_a"] != pairs["label_b"]
    pairs["crosses_group"] = pairs["group_a"] != pairs["group_b"]
    if not (named := is_named(table)).all():  # two images without a lesion may show the same one
        unknown = ~(named[first] & named[second])
        pairs["crosses_group"] = pairs["crosses_group"].astype("boolean").mask(unknown)
    if has_parts:
        known = pairs["part_a"].notna() & pairs["part_b"].notna()
        pairs["crosses_split"] = known & (pairs["part_a"] != pairs["part_b"])
    return pairs


def _near_unique(unique, threshold):
    """Search sorted `unique` hashes; return two arrays of positions and one of distances, nearest first."""
    if not is_whole(threshold, 0) or threshold > 64:
        raise ValueError(f"threshold counts the bits of 64 that may differ: 0 to 64, not {threshold!r}")
    n = len(unique)
    packed, overflow = np.empty(0, np.int64), False
    if n > 1:
        parts = int(np.clip(round(64 / np.log2(n)), 3, 8))  # of log2(n) bits: about one hash a value
        edges = np.linspace(0, 64, parts + 1).astype(int)
        radius, rest = divmod(threshold, parts)
        for part, (low, high) in enumerate(pairwise(edges)):
            # were all parts beyond these radii, their differences would sum to more than the threshold
            for found in _in_part(unique, int(low), int(high - low), radius - (part > rest), threshold):
                if overflow:
                    found = found[found < packed[-1]]
                packed = np.unique(np.concatenate([packed, found]))
                overflow |= len(packed) > LIMIT
                packed = packed[:LIMIT]
    if overflow:
        _warn(threshold)
    distance, pair = np.divmod(packed, 2**56)
    return *np.divmod(pair, max(n, 1)), distance


def _in_part(unique, low, bits, radius, threshold):
    """Look up hashes that are equal, but for `radius` bits, in `bits` bits from `low`; yield packed pairs."""
    key = (unique >> np.uint64(low)).astype(np.int64) & (2**bits - 1)
    order = np.argsort(key, kind="stable")
    key, values = key[order], unique[order]
    begin = np.searchsorted(key, np.arange(2**bits + 1))
    batch, size = [], 0
    for changed in range(radius + 1):
        for flip in map(sum, combinations([1 << bit for bit in range(bits)], changed)):
            probe = key ^ flip
            end = begin[probe + 1]
            # each pair once: with what stands behind in the same list, or in a list of a higher value
            start = np.where(probe > key, begin[probe], np.arange(1, len(key) + 1) if flip == 0 else end)
            rows = np.flatnonzero(end > start)
            lengths = (end - start)[rows]
            blocks = np.cumsum(lengths) // BLOCK
            for block in np.unique(blocks):
                at = blocks == block
                one = np.repeat(rows[at], lengths[at])
                other = np.repeat(start[rows[at]], lengths[at]) + _rank(lengths[at])
                distance = np.bitwise_count(values[one] ^ values[other])
                near = distance <= threshold
                one, other = order[one[near]], order[other[near]]
                pair = np.minimum(one, other) * len(unique) + np.maximum(one, other)
                batch.append(distance[near].astype(np.int64) * 2**56 + pair)
                size += near.sum()
                if size > LIMIT:
                    yield np.concatenate(batch)
                    batch, size = [], 0
    if batch:
        yield np.concatenate(batch)


def _rank(counts):
    """Count from 0 within each run: for ``[2, 3]`` this is ``[0, 1, 0, 1, 2]``."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def _warn(threshold):
    warnings.warn(
        f"more than {LIMIT:,} pairs of images differ in at most {threshold} bits: only the nearest are used. "
        "Lower the threshold, and see whether many images are blank.",
        stacklevel=4,
    )
