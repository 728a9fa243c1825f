import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from isicvision import ImageDataset, splitting
from isicvision.fields import MEASURES
from isicvision.report.record import kept_words


def tabled(labels, groups, **columns):
    paths = [f"p{number:04d}.jpg" for number in range(len(labels))]
    table = pd.DataFrame({"path": paths, "label": labels, "group": [f"{name}" for name in groups]})
    return ImageDataset(table.assign(**columns))


def part_of(parts):
    """The number of the part of each path."""
    return {path: number for number, part in enumerate(parts) for path in part.paths}


def before_mixed_labels_counted(table, fractions, seed):
    """The parts as they were dealt when a group counted for one label only: dict of group to part."""
    sizes = table.groupby(["label", "group"]).size().reset_index(name="size")
    order = sizes.assign(code=pd.factorize(sizes["group"], sort=True)[0])
    order = order.sort_values(["size", "code"], ascending=[False, True]).sample(frac=1, random_state=seed)
    order = order.sort_values("size", ascending=False, kind="stable")
    found = {}
    for _, rows in order.groupby("label"):
        filled = [0.0] * len(fractions)
        for name, size in zip(rows["group"], rows["size"], strict=True):
            part = filled.index(min(filled))
            filled[part] += size / fractions[part]
            found[name] = part
    return found


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), min_size=12, max_size=60),
    st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.5), (0.8, 0.1, 0.1), (0.2,) * 5]),
    st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_groups_of_one_label_are_dealt_as_they_always_were(lesions, fractions, seed):
    rows = [(label, f"L{n}") for n, (label, size) in enumerate(lesions) for _ in range(size)]
    dataset = tabled(*zip(*rows, strict=True))
    if dataset.table.groupby("label")["group"].nunique().min() < len(fractions):
        return
    known = before_mixed_labels_counted(dataset.table, fractions, seed)
    for number, part in enumerate(dataset.split(*fractions, seed=seed)):
        assert {known[name] for name in part.table["group"]} <= {number}


def patients(more=0):
    """60 patients with ten images, twelve with one malignant one; `more` patients have malignant ones only."""
    labels = ["malignant" if n % 10 == 0 and n < 120 else "benign" for n in range(600)]
    return tabled(labels + ["malignant"] * 10 * more, np.arange(600 + 10 * more) // 10)


@pytest.mark.parametrize("more", [0, 2])
def test_each_part_gets_each_label_of_patients_with_both(more):
    dataset = patients(more)
    for seed in range(40):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            parts = dataset.split(0.6, 0.2, 0.2, seed=seed)
        assert all(part.labels == ["benign", "malignant"] for part in parts)
        report = dataset.split_report(parts)
        assert (report["shared_groups"] == 0).all() and (
            abs(report["share"][:3] - [0.6, 0.2, 0.2]) < 0.06
        ).all()


def of_mixed_groups(random):
    sizes = np.clip(random.lognormal(2, 0.8, 150), 1, 60).astype(int)
    groups = np.repeat(np.arange(150), sizes)
    rare = random.random(len(groups)) < np.where(random.random(150) < 0.2, 0.2, 0.02)[groups]
    return tabled(
        np.where(rare, "malignant", np.where(random.random(len(groups)) < 0.3, "other", "benign")), groups
    )


def deviation(parts, table):
    """How far each part's share of each label's images is from an equal share."""
    counts = np.array(
        [part.table["label"].value_counts().reindex(sorted(set(table["label"]))) for part in parts]
    )
    return np.abs(np.nan_to_num(counts) / np.nansum(counts, axis=0) - 1 / len(parts)).mean()


@pytest.mark.parametrize("k", [2, 3, 5, 10])
def test_mixed_groups_are_as_well_stratified_as_by_scikit_learn(k):
    ours, peers = [], []
    for seed in range(12):
        dataset = of_mixed_groups(np.random.default_rng(seed))
        table = dataset.table
        ours.append(deviation([held for _, held in dataset.folds(k, seed=seed)], table))
        folds = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
        held = [rows for _, rows in folds.split(table, table["label"], table["group"])]
        peers.append(deviation([replace(dataset, table=table.iloc[rows]) for rows in held], table))
    assert np.mean(ours) <= np.mean(peers)


@given(st.data(), st.integers(2, 4), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_a_label_is_absent_from_a_part_only_where_that_is_said(data, k, seed):
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=4, max_size=20))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = data.draw(st.lists(st.sampled_from("ab"), min_size=len(groups), max_size=len(groups)))
    dataset = tabled(labels, groups)
    enough = dataset.table.groupby("label")["group"].nunique().min() >= k
    if len(dataset.labels) < 2 or not enough:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # with two labels it is always possible
        parts = dataset.split(*[1 / k] * k, seed=seed)
    assert all(part.labels == ["a", "b"] for part in parts)
    assert sorted(part_of(parts)) == dataset.paths
    assert sum(part.table["group"].nunique() for part in parts) == len(sizes)


def test_what_whole_groups_do_not_allow_is_said():
    dataset = tabled([*"abacbc"], [1, 1, 2, 2, 3, 3])
    with pytest.warns(
        UserWarning, match=r"no image with label '.' is in part (train|test): whole groups do not"
    ):
        dataset.split(0.5, 0.5)


def test_a_correction_moves_no_other_image(ham10000):
    parts = ham10000.split(0.6, 0.2, 0.2)
    first = part_of(parts)
    path = ham10000.paths[17]
    other = {"benign": "malignant", "malignant": "benign"}[ham10000.table["label"][17]]
    corrected = ham10000.relabel({path: other})
    assert part_of(corrected.split(0.6, 0.2, 0.2, keep=parts)) == first
    # a hundred new lesions: dealt in proportion, and all others stay
    new = set(ham10000.table["group"].drop_duplicates().sample(400, random_state=0))
    less = ham10000.where(~ham10000.table["group"].isin(new))
    earlier = less.split(0.6, 0.2, 0.2)
    grown = ham10000.split(
        0.6, 0.2, 0.2, keep=dict(zip(("train", "validation", "test"), earlier, strict=True))
    )
    now, then = part_of(grown), part_of(earlier)
    assert all(now[path] == number for path, number in then.items())
    report = ham10000.split_report(grown)
    assert (report["shared_groups"] == 0).all() and report["largest_deviation"].max() < 0.002
    assert report["share"].tolist() == pytest.approx([0.6, 0.2, 0.2, 1], abs=0.002)


def test_without_a_known_image_keep_changes_nothing():
    dataset = tabled([*"ab"] * 30, np.arange(60) // 2)
    other = replace(dataset, table=dataset.table.assign(path="x" + dataset.table["path"], group="y"))
    earlier = [other.where(np.arange(60) % 3 == number) for number in range(3)]
    with pytest.warns(UserWarning, match="only 0 of the 60 images of the earlier split are in this dataset"):
        parts = dataset.split(0.6, 0.2, 0.2, seed=3, keep=earlier)
    assert part_of(parts) == part_of(dataset.split(0.6, 0.2, 0.2, seed=3))


def test_groups_are_known_by_name_and_by_image_and_joined_ones_go_to_the_earliest_part():
    dataset = tabled([*"ab"] * 20, np.arange(40) // 4)
    parts = dataset.split(0.5, 0.3, 0.2)
    first = part_of(parts)
    moved = replace(dataset, table=dataset.table.assign(path="elsewhere/" + dataset.table["path"]))
    assert [*part_of(moved.split(0.5, 0.3, 0.2, seed=9, keep=parts)).values()] == [*first.values()]
    renamed = replace(dataset, table=dataset.table.assign(group="new " + dataset.table["group"]))
    assert part_of(renamed.split(0.5, 0.3, 0.2, seed=9, keep=parts)) == first
    # an image of a test lesion turns out to show one of training: the whole lesion goes there
    inside, outside = parts[0].table.iloc[0], parts[2].table.iloc[0]
    one = dataset.table["group"].replace(outside["group"], inside["group"])
    now = part_of(replace(dataset, table=dataset.table.assign(group=one)).split(0.5, 0.3, 0.2, keep=parts))
    assert {now[path] for path in parts[2].table.query("group == @outside['group']")["path"]} == {0}
    assert {path: n for path, n in now.items() if n != first[path]}.keys() <= set(parts[2].paths)


def test_near_duplicates_that_join_kept_groups_end_in_one_part():
    hashes = [f"{value:016x}" for value in np.random.default_rng(0).integers(0, 2**62, 40)]
    dataset = tabled([*"ab"] * 20, np.arange(40) // 4, phash=hashes)
    parts = dataset.split(0.5, 0.3, 0.2)
    rows = [dataset.paths.index(part.paths[0]) for part in parts]
    hashes[rows[2]] = hashes[rows[1]]
    alike = replace(dataset, table=dataset.table.assign(phash=hashes))
    now = part_of(alike.split(0.5, 0.3, 0.2, near_duplicates=2, keep=parts))
    assert [now[dataset.paths[row]] for row in rows] == [0, 1, 1]


def test_keep_wants_as_many_parts_and_their_columns():
    dataset = tabled([*"ab"] * 20, np.arange(40) // 4)
    for keep in (dataset, [dataset.table] * 3):
        with pytest.raises(TypeError, match="keep takes all parts of an earlier split"):
            dataset.split(0.5, 0.3, 0.2, keep=keep)
    with pytest.raises(ValueError, match="keep has 2 parts, and there are 3 fractions"):
        dataset.split(0.6, 0.2, 0.2, keep=dataset.split(0.5, 0.5))
    with pytest.raises(ValueError, match="the parts to keep have no column 'patient'"):
        patient = replace(dataset, table=dataset.table.assign(patient=dataset.table["group"]))
        patient.split(0.5, 0.5, group="patient", keep=dataset.split(0.5, 0.5))


def test_a_new_label_that_no_kept_part_has_is_dealt_to_all():
    dataset = tabled([*"ab"] * 20, np.arange(40) // 2)
    parts = dataset.split(0.6, 0.2, 0.2)
    table = tabled(["c"] * 3, ["x", "y", "z"]).table.assign(path=["x.jpg", "y.jpg", "z.jpg"])
    more = replace(dataset, table=pd.concat([dataset.table, table], ignore_index=True))
    now = more.split(0.6, 0.2, 0.2, keep=parts)
    assert all(part.labels == ["a", "b", "c"] for part in now)
    corrected = dataset.relabel(dict.fromkeys(parts[0].paths[:6], "c"))
    with pytest.warns(
        UserWarning, match="no image with label 'c' is in part test: .* parts to keep do not allow"
    ):
        corrected.split(0.6, 0.2, 0.2, keep=parts)


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, None, True, "0", float("nan")])
def test_a_seed_that_is_none_is_named(seed):
    dataset = tabled([*"ab"] * 20, np.arange(40) // 2)
    for call in (lambda: dataset.split(0.5, 0.5, seed=seed), lambda: dataset.folds(2, seed=seed)):
        with pytest.raises(ValueError, match="seed is a whole number from 0"):
            call()


@pytest.mark.parametrize("fractions", [(float("nan"), 0.5, 0.5), ("0.5", "0.5"), (True, 1e-9), (0.5, None)])
def test_fractions_that_are_no_numbers_are_named(fractions):
    with pytest.raises(ValueError, match="fractions must be two or more, positive and sum to 1"):
        patients().split(*fractions)


@pytest.mark.parametrize("k", [2.5, float("nan"), "3", None, True, -3])
def test_a_number_of_folds_that_is_none_is_named(k):
    with pytest.raises(ValueError, match="k must be 2 or more, and a whole number"):
        patients().folds(k)


@pytest.mark.parametrize("bits", [-1, 65, 2.0, float("nan"), True])
def test_bits_that_are_none_are_named(bits):
    dataset = tabled([*"ab"] * 20, np.arange(40) // 2, phash="0" * 16)
    with pytest.raises(ValueError, match="threshold is a number of bits from 0 to 64, not"):
        dataset.split(0.5, 0.5, near_duplicates=bits)


def bare(dataset):
    """The same without a lesion's name."""
    return replace(dataset, table=dataset.table.assign(group=dataset.table["path"]))


def test_without_names_nobody_knows_which_lesions_are_in_two_parts():
    dataset = tabled([*"ab"] * 20, np.arange(40) // 2)
    parts = bare(dataset).split(0.5, 0.5)
    report = bare(dataset).split_report(parts)
    assert (
        report["shared_groups"].isna().all()
        and report["groups_known"].str.startswith("unknown: no column names lesions").all()
    )
    assert splitting.shared_count(parts) == {"shared_groups": None, "groups_known": 0.0}
    words = splitting.shared_words(**splitting.shared_count(parts))
    assert "unknown, because no column names lesions or patients" in words and "near_duplicates=2" in words
    report = dataset.split_report(dataset.split(0.5, 0.5))
    assert report["shared_groups"].tolist() == [0, 0, 0] and "groups_known" not in report
    words = splitting.shared_words(**splitting.shared_count(dataset.split(0.5, 0.5)))
    assert words == "Lesions (or groups) in more than one part: 0."


def test_of_lesions_that_are_named_for_some_images_the_share_is_said():
    dataset = tabled([*"ab"] * 20, np.arange(40) // 2)
    half = dataset.table["group"].where(np.arange(40) < 10, dataset.table["path"])
    partly = replace(
        dataset, table=dataset.table.assign(group=half, lesion_id=half.where(np.arange(40) < 10))
    )
    for group in ("group", "lesion_id"):
        report = partly.split_report(partly.split(0.5, 0.5, group=group), group=group)
        assert report.loc["all", ["shared_groups", "groups_known"]].tolist() == [0, 0.25]
    words = splitting.shared_words(**splitting.shared_count(partly.split(0.5, 0.5)))
    assert words.endswith("0, among the 25% of the images whose lesion is named; unknown for the others.")
    assert splitting.group_words(**splitting.group_count(partly.table)).startswith("35 (named for 25% of")


def test_pairs_that_look_alike_are_of_other_lesions_only_where_both_are_named():
    dataset = tabled(
        [*"aabb"], [1, 1, 2, 3], phash="0" * 16, **{name: 0 for name in MEASURES if name != "phash"}
    )
    assert dataset.near_duplicates()["crosses_group"].dtype == bool
    table = dataset.table.assign(group=["1", "1", "2", dataset.paths[3]])
    pairs = replace(dataset, table=table).near_duplicates().set_index(["path_a", "path_b"])["crosses_group"]
    assert pairs["p0000.jpg", "p0001.jpg"] == False and pairs["p0000.jpg", "p0002.jpg"] == True  # noqa: E712
    assert pairs.isna().sum() == 3 and pairs.sum() == 2


@pytest.mark.parametrize("name", ["{n}.jpg", "{label}/{n}.jpg", "{label}/{n:d}/a.jpg"])
def test_keep_knows_images_whose_folder_has_moved(name):
    labels = [*"ab"] * 20

    def at(root, rows=range(40)):
        paths = [f"{root}/{name.format(n=n, label=labels[n])}" for n in rows]
        table = pd.DataFrame({"path": paths, "label": [labels[n] for n in rows], "group": paths})
        return ImageDataset(table)

    parts = at("/old/place").split(0.6, 0.2, 0.2)
    moved = at("/new").split(0.6, 0.2, 0.2, seed=5, keep=parts)
    ends = [
        [
            [path.partition(name[0])[0] and path.split("/", 2 + old)[-1] for path in part.paths]
            for part in each
        ]
        for old, each in ((1, parts), (0, moved))
    ]
    assert ends[0] == ends[1]
    words = kept_words(dict(enumerate(moved)), dict(enumerate(parts)))
    assert "40 images as in the earlier split, 0 new" in words


def test_keep_goes_by_unique_names_too_and_says_how_much_it_found():
    dataset = tabled([*"ab"] * 20, np.arange(40))
    table = dataset.table.assign(path=[f"/old/x{n // 20}/{n}.jpg" for n in range(40)])
    parts = ImageDataset(table.assign(group=table["path"])).split(0.5, 0.5)
    table = table.assign(path=[f"/new/y/z{n % 3}/{n}.jpg" for n in range(40)])
    now = ImageDataset(table.assign(group=table["path"])).split(0.5, 0.5, seed=7, keep=parts)
    names = [[{path.rpartition("/")[2] for path in part.paths} for part in each] for each in (parts, now)]
    assert names[0] == names[1]
    few = ImageDataset(table.assign(group=table["path"])[:16])
    with pytest.warns(UserWarning, match="keep: only 16 of the 40 images of the earlier split are in this"):
        few.split(0.5, 0.5, keep=parts)


def test_keep_takes_named_parts_by_name_and_none_that_share_images():
    dataset = tabled([*"ab"] * 20, np.arange(40) // 4)
    train, validation, test = parts = dataset.split(0.5, 0.3, 0.2)
    by_name = {"test": test, "train": train, "validation": validation}
    assert part_of(dataset.split(0.5, 0.3, 0.2, seed=4, keep=by_name)) == part_of(parts)
    with pytest.raises(ValueError, match=r"parts to keep share images, such as p\d+.jpg"):
        dataset.split(0.5, 0.3, 0.2, keep=[train, train, train])
