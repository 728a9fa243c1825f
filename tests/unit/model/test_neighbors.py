"""The nearest training images, and which images to label next."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import draw
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import cosine_distances

from isicvision import ImageClassifier, ImageDataset, Neighbors, labelissues
from isicvision.data.annotation import Annotations
from isicvision.nearest import Gallery


@pytest.fixture
def lesions(dataset):
    """24 images, of which each three in a row show one lesion."""
    table = dataset.table.assign(group=[f"lesion {n // 3}" for n in range(24)])
    return ImageDataset(table.sample(frac=1, random_state=0).reset_index(drop=True))


@pytest.fixture
def model(lesions):
    model = ImageClassifier(
        "efficientnet_lite0", lesions.labels, image_size=64, classifier=LogisticRegression()
    )
    model.fit(lesions)
    return model


@pytest.fixture
def new(tmp_path):
    """The paths of nine images that the model has not seen, in folders."""
    (tmp_path / "new" / "deep").mkdir(parents=True)
    names = [f"deep/n{n}.jpg" if n % 2 else f"n{n}.jpg" for n in range(9)]
    return [draw(tmp_path / "new" / name, (20 * n, 90, 60), n) for n, name in enumerate(names)]


def test_the_neighbors_are_those_of_brute_force_one_of_each_lesion(model, lesions, new):
    found = Neighbors(model, lesions).nearest(new, 4)
    features, own = model.featurize(lesions), model.featurize(new)
    pca = PCA(23, random_state=0).fit(features)
    distances = cosine_distances(pca.transform(own), pca.transform(features))
    for number, row in enumerate(distances):
        nearest = lesions.table.assign(distance=row).sort_values("distance").drop_duplicates("group")[:4]
        mine = found[found["image"] == number]
        assert mine["path"].tolist() == nearest["path"].tolist()
        assert mine["label"].tolist() == nearest["label"].tolist()
        assert np.abs(mine["distance"].to_numpy() - nearest["distance"].to_numpy()).max() < 2e-3
    assert Neighbors(model, lesions).nearest(lesions.paths[:5], 1)["path"].tolist() == lesions.paths[:5]


def test_a_gallery_is_read_as_it_was_saved(model, lesions, new, tmp_path):
    neighbors = Neighbors(model, lesions)
    neighbors.gallery.save(tmp_path / "g.npz", neighbors.published())
    answers, features = Gallery.load(tmp_path / "g.npz").search(model.featurize(new), 3), model.featurize(new)
    assert {*answers[0][0]} == {"image", "label", "distance"} and "/" not in json.dumps(answers)
    known = neighbors.gallery.search(features, 3)
    assert [each["distance"] for each in answers[2]] == [each["distance"] for each in known[2]]


@pytest.mark.parametrize("count", [0, 21, 2.5, True, "3"])
def test_a_count_that_makes_no_sense_is_refused(model, lesions, new, count):
    with pytest.raises(ValueError, match="from 1 to 20"):
        Neighbors(model, lesions).nearest(new, count)


def test_images_that_were_not_trained_on_are_no_neighbors(model, lesions, new):
    with pytest.raises(ValueError, match="not trained on 24 images of the 24"):
        Neighbors(ImageClassifier("resnet18", lesions.labels, weights=None, image_size=64), lesions)
    with pytest.raises(ValueError, match="24 of 24 images have no labels"):
        Neighbors(model, ImageDataset(lesions.table.assign(label="")))
    model.fit(lesions.where(lesions.table.index < 20))
    with pytest.raises(ValueError, match="not trained on 4 images of the 24"):
        Neighbors(model, lesions)


def with_sources(dataset, licenses, attribution="Someone"):
    table = dataset.table.assign(copyright_license="CC-0", attribution=attribution)
    table.loc[: len(licenses) - 1, "copyright_license"] = licenses
    return ImageDataset(table)


def test_thumbnails_need_licenses_that_allow_copies(model, lesions):
    free = with_sources(lesions, ["CC-0", "CC0 1.0", "CC-BY", "CC-BY-NC", "cc by-sa 4.0"])
    facts = Neighbors(model, free).published(thumbnails=True)
    assert {each["license"] for each in facts} == {"CC-0", "CC0 1.0", "CC-BY", "CC-BY-NC", "cc by-sa 4.0"}
    assert all(each["thumbnail"].startswith("data:image/jpeg") and each["attribution"] for each in facts)
    assert all("license" not in each for each in Neighbors(model, free).published())


@pytest.mark.parametrize(
    ("dataset_of", "names"),
    [
        (lambda given: given, 24),
        (lambda given: with_sources(given, [None, "CC-BY-ND", "CC-BY-NC-ND 4.0", "all rights reserved"]), 4),
        (lambda given: with_sources(given, ["CC-BY", "CC-0"], attribution=None), 1),
    ],
)
def test_an_image_that_may_not_be_passed_on_stops_thumbnails_by_name(model, lesions, dataset_of, names):
    given = dataset_of(lesions)
    with pytest.raises(ValueError, match=rf"{names} images? ") as error:
        Neighbors(model, given).published(thumbnails=True)
    first = given.table["path"].iloc[0].rpartition("/")[2].removesuffix(".jpg")
    assert f"{first}: " in str(error.value) or names == 24


def test_next_to_label_takes_uncertain_images_of_all_kinds_and_they_get_their_first_labels(
    model, lesions, new, tmp_path
):
    copies = [draw(new[0].parent / f"copy{n}.jpg", (120, 90, 60), 6) for n in range(12)]
    unlabeled = ImageDataset.from_folder(new[0].parent, labeled=False)
    queue = labelissues.next_to_label(model, unlabeled, lesions, count=5)
    assert len(queue) == 5 and (queue.table["label"] == "").all()
    assert sum(path in map(str, copies) for path in queue.paths) <= 1  # copies teach nothing new
    assert (
        queue.table["uncertainty"].is_monotonic_decreasing and queue.table["uncertainty"].between(0, 1).all()
    )
    row = queue.table.iloc[0]
    scores = model.predict_proba([row["path"]])[0]
    assert row["suggested"] == model.labels[scores.argmax()] and row["score"] == pytest.approx(scores.max())
    nearest = Neighbors(model, lesions).nearest([row["path"]], 1)
    assert row["distance"] == pytest.approx(nearest["distance"][0], abs=1e-5)
    assert len(labelissues.next_to_label(model, unlabeled, lesions, count=100)) == 21
    with pytest.raises(ValueError, match="count is a whole number"):
        labelissues.next_to_label(model, unlabeled, lesions, count=0)
    known = ImageDataset(lesions.table.assign(label=""))
    with pytest.raises(ValueError, match="was trained on all of these"):
        labelissues.next_to_label(model, known, lesions)
    both = ImageDataset(pd.concat([unlabeled.table, known.table], ignore_index=True))
    assert {*labelissues.next_to_label(model, both, lesions, count=100).paths} == {*unlabeled.paths}

    with pytest.raises(ValueError, match="labels=model.labels"):
        Annotations(queue, tmp_path / "decisions.csv")
    annotations = Annotations(queue, tmp_path / "decisions.csv", model.labels)
    annotations.decide(queue.paths[1], "malignant")
    annotations.decide(queue.paths[3], "(exclude)")
    labeled = Annotations(queue, tmp_path / "decisions.csv", model.labels).dataset
    assert labeled.paths == [queue.paths[1]] and labeled.labels == ["malignant"]
    assert labeled.set_aside["reason"].value_counts().to_dict() == {"no label yet": 3, "excluded by hand": 1}
    assert annotations.progress()["relabeled"] == 0
