"""Images without labels: read, predicted, refused where labels are needed, and labeled for the first time."""

import pytest
from conftest import draw

from isicvision import ImageClassifier, ImageDataset, evaluate, fusion, labelissues
from isicvision.data.annotation import Annotations


def test_images_without_labels_are_read_and_only_predicted(dataset, tmp_path):
    folder = tmp_path / "new"
    (folder / "deep").mkdir(parents=True)
    for n in range(9):
        draw(folder / ("deep" if n % 2 else "") / f"n{n}.jpg", (20 * n, 90, 60), n)
    (folder / "masks").mkdir()
    draw(folder / "masks" / "n0.png", (0, 0, 0), 0)
    with pytest.warns(UserWarning, match="masks"):
        unlabeled = ImageDataset.from_folder(folder, labeled=False)
    assert len(unlabeled) == 9 and unlabeled.labels == [] and "no label 9" in repr(unlabeled)
    assert unlabeled.summary().loc["all", ["images", "positive"]].tolist() == [9, ""]
    network = ImageClassifier("squeezenet1_1", dataset.labels, weights=None, image_size=64)
    assert network.predict_proba(unlabeled).shape == (9, 2)
    for refuse in (
        lambda: network.fit(unlabeled),
        lambda: network.fit(dataset, unlabeled),
        lambda: network.find_learning_rate(unlabeled),
        lambda: network.calibrate(unlabeled),
        lambda: network.finish(dataset, unlabeled),
        lambda: evaluate(network, unlabeled),
        lambda: unlabeled.split(0.5, 0.5),
        lambda: unlabeled.folds(2),
        lambda: fusion.fit(network, unlabeled),
        lambda: labelissues.find(unlabeled),
    ):
        with pytest.raises(ValueError, match="9 of 9 images have no labels"):
            refuse()
    (folder / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        ImageDataset.from_folder(folder / "empty", labeled=False)


def test_first_labels_are_decisions_and_the_others_wait(dataset, tmp_path):
    unlabeled = ImageDataset(dataset.table.assign(label=""))
    with pytest.raises(ValueError, match="labels=model.labels"):
        Annotations(unlabeled, tmp_path / "decisions.csv")
    annotations = Annotations(unlabeled, tmp_path / "decisions.csv", ["nevus", "wart"])
    annotations.decide(unlabeled.paths[1], "wart")
    annotations.decide(unlabeled.paths[3], "(exclude)")
    labeled = Annotations(unlabeled, tmp_path / "decisions.csv", ["nevus", "wart"]).dataset
    assert labeled.paths == [unlabeled.paths[1]] and labeled.labels == ["wart"]
    assert labeled.set_aside["reason"].value_counts().to_dict() == {"no label yet": 22, "excluded by hand": 1}
    assert annotations.progress()["relabeled"] == 0


def test_images_without_labels_are_saved_and_read(dataset, tmp_path):
    unlabeled = ImageDataset(dataset.table.assign(label=""))
    again = ImageDataset.load(unlabeled.save(tmp_path / "new.csv"))
    assert again.table["label"].eq("").all() and len(again) == len(unlabeled)
