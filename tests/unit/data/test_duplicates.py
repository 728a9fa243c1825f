import time
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isicvision.data import duplicates
from isicvision.data.duplicates import as_integers, clusters, near_pairs, near_table
from isicvision.data.measures import measure
from isicvision.images import map_threads


def brute_force(hashes, threshold):
    """Compare all pairs: dict of (first, second) to distance."""
    hashes = np.asarray(hashes, np.uint64)
    pairs = {}
    for n in range(len(hashes) - 1):
        distance = np.bitwise_count(hashes[n + 1 :] ^ hashes[n])
        for other in np.flatnonzero(distance <= threshold):
            pairs[n, n + 1 + int(other)] = int(distance[other])
    return pairs


def found(hashes, threshold):
    first, second, distance = near_pairs(hashes, threshold)
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)
    assert distance.tolist() == sorted(distance.tolist())
    return dict(zip(pairs, distance.tolist(), strict=True))


@st.composite
def hash_lists(draw):
    """Hashes of which many are copies of others with a few bits flipped, and few or many are drawn."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    n = draw(st.sampled_from([0, 1, 2, 10, 100, 700]))
    hashes = random.integers(0, 2**64, n, dtype=np.uint64)
    hashes = hashes[random.integers(0, max(1, n // 2), n)] if n else hashes
    for _ in range(draw(st.integers(0, 12))):
        flip = np.uint64(1) << random.integers(0, 64, n).astype(np.uint64)
        hashes = hashes ^ flip * random.integers(0, 2, n).astype(np.uint64)
    return hashes


@given(hash_lists(), st.one_of(st.integers(0, 20), st.just(64)))
@settings(max_examples=60, deadline=None)
def test_every_pair_within_the_threshold_is_found_and_no_other(hashes, threshold):
    if threshold == 64:
        hashes = hashes[:100]
    assert found(hashes, threshold) == brute_force(hashes, threshold)


@given(hash_lists(), st.integers(0, 12))
@settings(max_examples=30, deadline=None)
def test_clusters_are_what_pairs_connect(hashes, threshold):
    number = clusters(hashes, threshold)
    expected = list(range(len(hashes)))
    for first, second in brute_force(hashes, threshold):
        old, new = expected[second], expected[first]
        expected = [new if value == old else value for value in expected]
    assert len(number) == len(hashes)
    assert len(set(zip(number.tolist(), expected, strict=True))) == len(set(number)) == len(set(expected))


def test_a_thousand_equal_hashes_are_all_paired():
    hashes = np.random.default_rng(0).integers(0, 2**64, 3000, dtype=np.uint64)
    hashes[500:1500] = hashes[0]
    hashes[2000] = hashes[0] ^ np.uint64(1)
    pairs = found(hashes, 2)
    assert len(pairs) == 1002 * 1001 // 2
    assert {(0, n) for n in range(500, 1500)} < set(pairs)
    assert Counter(clusters(hashes, 2).tolist()).most_common(1)[0][1] == 1002


def test_too_many_pairs_are_cut_to_the_nearest_and_said(monkeypatch):
    monkeypatch.setattr(duplicates, "LIMIT", 1000)
    hashes = np.random.default_rng(0).integers(0, 2**10, 400, dtype=np.uint64)
    with pytest.warns(UserWarning, match="more than 1,000 pairs of images differ in at most 4 bits"):
        pairs = found(np.unique(hashes), 4)
    everything = sorted(brute_force(np.unique(hashes), 4).values())
    assert sorted(pairs.values()) == everything[:1000]


def test_a_hundred_thousand_hashes_take_seconds():
    hashes = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)
    started = time.perf_counter()
    near_pairs(hashes, 4)
    assert time.perf_counter() - started < 5  # a tenth of a second on two cores; all pairs take four


@pytest.mark.parametrize("threshold", [-1, 65])
def test_a_threshold_that_no_hash_can_have_is_refused(threshold):
    with pytest.raises(ValueError, match=f"0 to 64, not {threshold}"):
        near_pairs([1, 2], threshold)


@pytest.mark.parametrize("value", ["xyz", None, float("nan"), "f" * 17])
def test_what_is_no_hash_is_refused(value):
    with pytest.raises(ValueError, match=r"phash holds hashes of 16 hex digits.*measure\(\)"):
        as_integers(["0123456789abcdef", value])


@pytest.mark.real
def test_same_lesions_are_found_in_ham10000_and_others_rarely(real_data):
    root = real_data / "ham10000_200x150"
    table = pd.read_csv(root / "metadata.csv")[:1500]
    paths = [root / "images" / f"{name}.jpg" for name in table["image_id"]]
    table = table.rename(columns={"image_id": "path", "dx": "label", "lesion_id": "group"})
    table["phash"] = [found["phash"] for found in map_threads(measure, paths)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = near_table(table, 4)
    expected = brute_force(as_integers(table["phash"]), 4)
    assert len(pairs) == len(expected) > 0 and (~pairs["crosses_group"]).sum() > 0
    assert (near_table(table)["crosses_group"]).sum() <= 10  # of a million pairs
