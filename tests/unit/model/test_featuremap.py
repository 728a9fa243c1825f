"""The map of features: the same by the same seed, and what neighbors share, against brute force and simulation."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from isicvision import ImageDataset, featuremap
from isicvision.data import cache


@pytest.fixture
def seen():
    """Images of 60 lesions, one to three each, with features that show the camera; and columns of all kinds."""
    random = np.random.default_rng(0)
    group = np.sort(np.concatenate([np.arange(60), random.integers(0, 60, 60)]))
    camera = random.permutation(np.repeat(["a", "b", "c"], [30, 20, 10]))[group]
    table = pd.DataFrame({"path": [f"{n}.jpg" for n in range(120)], "label": np.array(["x", "y"])[group % 2]})
    table = table.assign(
        group=group.astype(str), camera=camera, age=random.integers(0, 90, 120).astype(float)
    )
    table.loc[::7, "camera"] = None
    table["clinic"] = "one"
    features = random.normal(size=(120, 6)) + pd.get_dummies(camera).to_numpy() @ random.normal(size=(3, 6))
    return ImageDataset(table), features.astype(np.float32)


def neighbors(features, groups, number):
    away = np.linalg.norm(features.astype(float) - features[number].astype(float), axis=1)
    return np.argsort(np.where(groups == groups[number], np.inf, away), kind="stable")[: featuremap.NEAREST]


def test_neighbors_agree_with_brute_force_and_are_of_other_groups(seen):
    dataset, features = seen
    groups = dataset.table["group"].to_numpy()
    found = featuremap.nearest(features, dataset.table["group"])
    assert [{*row} for row in found] == [{*neighbors(features, groups, n)} for n in range(len(groups))]
    assert (groups[found] != groups[:, None]).all()


@pytest.mark.parametrize("column", ["camera", "label", "age"])
def test_purity_agrees_with_brute_force_and_chance_with_simulation(seen, column):
    dataset, features = seen
    groups = dataset.table["group"].to_numpy()
    values = featuremap.levels(dataset.table[column]).astype(object).to_numpy()
    known = np.flatnonzero(pd.notna(values))
    shares, drawn, random = [], [], np.random.default_rng(1)
    for number in known:
        near = [each for each in neighbors(features, groups, number) if each in known]
        shares += [np.mean(values[near] == values[number])] if near else []
        others = known[groups[known] != groups[number]]
        drawn.append((values[random.choice(others, 2000)] == values[number]).mean())
    row = featuremap.purity(dataset, features, [column]).table.iloc[0]
    assert row["purity"] == pytest.approx(np.mean(shares)) and row["images"] == len(known)
    assert row["chance"] == pytest.approx(np.mean(drawn), abs=0.005)
    assert row["low"] <= row["purity"] <= row["high"]


def test_what_features_show_comes_first_and_what_they_do_not_is_said_to_be_chance(seen):
    found = featuremap.purity(*seen)
    assert found.table["column"].iloc[0] == "camera" and found.table["beyond"].iloc[0] > 0.4
    assert [*found.table["column"]].count("clinic") == 0  # it does not vary
    assert " % share its camera (95 % CI " in str(found).splitlines()[1]
    row = {"purity": 0.61, "low": 0.55, "high": 0.67}
    table = pd.DataFrame([{"column": "sex", "chance": 0.5} | row, {"column": "site", "chance": 0.56} | row])
    assert str(featuremap.Purity(table)) == (
        "Of an image's 5 nearest neighbors,\n"
        "61 % share its sex (95 % CI 55 to 67 %); by chance 50 % would,\n"
        "61 % share its site (95 % CI 55 to 67 %); by chance 56 % would, so this shows nothing."
    )


def test_images_of_one_lesion_are_no_neighbors():
    random = np.random.default_rng(0)
    lesion = np.repeat(np.arange(40), 3)
    table = pd.DataFrame({"path": [f"{n}.jpg" for n in range(120)], "group": lesion.astype(str)})
    table["label"] = random.permutation(np.repeat(["x", "y"], 20))[lesion]
    features = random.normal(size=(40, 8))[lesion] + 0.01 * random.normal(
        size=(120, 8)
    )  # alike within a lesion
    row = featuremap.purity(ImageDataset(table), features, ["label"]).table.iloc[0]
    assert row["low"] < row["chance"] < row["high"]
    alone = featuremap.purity(
        ImageDataset(table.assign(group=table["path"])), features, ["label"]
    ).table.iloc[0]
    assert alone["low"] > row["high"]


def test_one_value_says_nothing_and_a_column_without_values_is_nan(seen):
    dataset, features = seen
    empty = ImageDataset(dataset.table.assign(site=None))
    found = featuremap.purity(empty, features, ["clinic", "site"]).table.set_index("column")
    assert found.loc["clinic", ["purity", "chance"]].tolist() == [1, 1] and np.isnan(
        found.loc["clinic", "beyond"]
    )
    assert np.isnan(found.loc["site", "purity"]) and found.loc["site", "images"] == 0
    assert "site" not in str(featuremap.purity(empty, features, ["site"]))


def test_the_same_features_give_the_same_map_and_the_cache_keeps_it(seen, monkeypatch):
    dataset, features = seen
    first = featuremap.places(dataset, features)
    assert first.shape == (120, 2) and np.isfinite(first).all()
    monkeypatch.setattr(cache.Arrays, "read", lambda *_: False)
    assert np.array_equal(featuremap.places(dataset, features), first)
    monkeypatch.undo()
    monkeypatch.setattr("sklearn.manifold.TSNE", None)  # cannot be called
    assert np.array_equal(featuremap.places(dataset, features), first)
    with pytest.raises(TypeError):
        featuremap.places(dataset, features + 1)


def test_images_that_are_alike_are_near(seen):
    dataset, features = seen
    away = np.array([0, 100])[(dataset.table["label"] == "y").astype(int)]
    place = featuremap.places(dataset, features + away[:, None])
    near = np.argsort(np.linalg.norm(place[:, None] - place, axis=2), axis=1)[:, 1:6]
    assert (away[near] == away[:, None]).mean() > 0.99


def test_too_few_images_and_features_that_do_not_fit_are_refused(seen):
    dataset, features = seen
    three = dataset.where(np.arange(len(dataset)) < 3)
    for made in (featuremap.places, featuremap.purity):
        with pytest.raises(ValueError, match=r"shape \(120, 1\)"):
            made(dataset, features[:, :1])
        with pytest.raises(ValueError, match="a map needs 10 images or more, not 3"):
            made(three, features[:3])
        with pytest.raises(ValueError, match=r"shape \(119, 6\).* each of 120 images"):
            made(dataset, features[1:])
        with pytest.raises(ValueError, match="finite"):
            made(dataset, np.where(np.arange(6) == 0, np.nan, features))
        with pytest.raises(ValueError, match="the same features"):
            made(dataset, np.ones((120, 6)))  # t-SNE would crash
        with pytest.raises(TypeError, match="takes an ImageDataset"):
            made("images", features)
    with pytest.raises(ValueError, match="no column 'camra'.*camera"):
        featuremap.purity(dataset, features, ["camra"])
    whole = ImageDataset(dataset.table.assign(group="one patient"))
    with pytest.raises(
        ValueError, match="5 neighbors in other groups are needed; the largest group leaves 0"
    ):
        featuremap.purity(whole, features)


def test_copies_have_a_map_and_ten_images_are_enough(seen):
    dataset, features = seen
    copies = np.repeat(features[:40], 3, axis=0)
    assert np.isfinite(featuremap.places(dataset, copies)).all()
    ten = dataset.where(np.arange(len(dataset)) < 10)
    assert np.isfinite(featuremap.places(ten, features[:10])).all()


def test_numbers_are_compared_by_fifths_and_text_truth_and_few_numbers_as_they_are():
    cut = featuremap.levels(pd.Series([*range(100), np.nan]))
    assert cut.value_counts().tolist() == [20] * 5 and cut.isna().sum() == 1
    assert featuremap.levels(pd.Series([0.0] * 90 + [*range(1, 11)])).nunique() == 2
    assert featuremap.levels(pd.Series([True, False, None])).cat.categories.tolist() == ["False", "True"]
    assert featuremap.levels(pd.Series([1, 2, 1])).cat.categories.tolist() == ["1", "2"]


def test_images_without_labels_have_a_map_and_a_column_may_be_given_alone(seen):
    dataset, features = seen
    unlabeled = dataclasses.replace(dataset, table=dataset.table.assign(label=""))
    assert np.array_equal(featuremap.places(unlabeled, features), featuremap.places(dataset, features))
    assert featuremap.purity(unlabeled, features, "camera").table["column"].tolist() == ["camera"]
    assert "label" not in featuremap.purity(unlabeled, features).table["column"].tolist()


def test_images_without_a_label_among_others_have_none_in_common(seen):
    dataset, features = seen
    mixed = dataset.table["label"].where(np.arange(120) % 3 > 0, "")
    found = featuremap.purity(ImageDataset(dataset.table.assign(label=mixed)), features, "label").table
    missing = featuremap.purity(
        ImageDataset(dataset.table.assign(x=mixed.replace("", None))), features, "x"
    ).table
    assert found["images"][0] == 80 and found.iloc[0, 1:].equals(missing.iloc[0, 1:])


@pytest.mark.parametrize(
    "values",
    [
        [0] * 52 + [*range(1, 9)],
        [*range(58), np.inf, -np.inf],
        np.arange(60, dtype="float16"),
        20240512000001 + np.arange(60),
        np.arange(60, dtype="uint64"),
    ],
)
def test_numbers_of_any_kind_have_levels(values):
    found = featuremap.levels(pd.Series(values))
    assert 2 <= found.nunique() <= 5 and found.cat.categories.is_unique


@pytest.mark.parametrize("scale", [1e-22, 1e30])
def test_features_of_any_size_have_a_map(seen, scale):
    dataset, features = seen
    assert np.isfinite(featuremap.places(dataset, features * np.float32(scale))).all()
