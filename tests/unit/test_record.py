import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from isicvision import Evaluation, ImageClassifier, record

LABELS = ["benign", "malignant"]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    from isicvision import ImageDataset

    train, test = ImageDataset.from_folder(folder).split(0.5, 0.5)
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit(train, epochs=2, batch_size=6, learning_rate=0.01, progress=False)
    target = model.save(tmp_path_factory.mktemp("record") / "model")
    record.write(target, model, {"train": train, "test": test}, {"EPOCHS": 2})
    return target, model, test


def test_the_record_holds_what_a_rerun_needs(made):
    run = record.read(made[0] / "run.json")
    assert run["parameters"] == {"EPOCHS": 2} and run["seed"] == 0
    assert run["training"]["precision"] == "fp32" and run["training"]["learning_rate"] == 0.01
    assert len(run["history"]) == 2 and len(run["step_loss"]) == 4 and run["seconds"] > 0
    assert run["split"]["train"]["pictures"] == 12 and run["packages"]["torch"]
    assert len(run["code"]["commit"] or "0" * 40) == 40 and run["machine"]["threads"] >= 1
    assert run["metrics"] is None


def test_parts_are_counted_by_label_and_lesion_and_shared_lesions_are_told(made):
    target, model, test = made
    copy = target.with_name("copy")
    copy.mkdir()
    half = test.sample(6, balanced=True)
    run = record.read(record.write(copy, model, {"train": test, "test": half}))
    assert run["split"]["train"]["groups"] == test.table["group"].nunique() == 6
    assert run["split"]["test"]["labels"] == {"benign": 3, "malignant": 3}
    assert run["shared_groups"] == half.table["group"].nunique()
    assert record.read(target / "run.json")["shared_groups"] == 0
    benign = test.relabel({path: None for path in test.table.query("label == 'malignant'")["path"]})
    run = record.read(record.write(copy, model, {"test": benign}))
    assert run["split"]["test"]["labels"] == {"benign": 6, "malignant": 0}


def test_the_area_of_those_confirmed_alike_stands_beside_that_of_all(made):
    ways = pd.DataFrame({"dx_type": ["follow_up"] * 4 + ["histo"] * 8})
    scores = [0.1] * 4 + [0.2, 0.8] * 4
    labels = ["benign"] * 4 + ["malignant", "benign", "benign", "malignant"] * 2
    record.add_metrics(made[0], Evaluation.from_scores(labels, scores, classes=LABELS, metadata=ways))
    metrics = record.read(made[0] / "run.json")["metrics"]
    assert metrics["pictures_confirmed_alike"] == 8
    assert metrics["roc_auc_confirmed_alike"]["value"] == 0.5 < metrics["roc_auc"]["value"]
    record.add_metrics(made[0], Evaluation.from_scores(labels, scores, classes=LABELS))
    assert "pictures_confirmed_alike" not in record.read(made[0] / "run.json")["metrics"]


def test_metrics_are_added_with_their_intervals_and_undefined_ones_are_null(made):
    scores = np.linspace(0, 1, 12)
    record.add_metrics(made[0], Evaluation.from_scores(["benign"] * 12, scores, classes=LABELS))
    text = (made[0] / "run.json").read_text()
    assert "NaN" not in text  # which is no JSON
    metrics = json.loads(text)["metrics"]
    assert metrics["roc_auc"] == {"value": None, "low": None, "high": None}
    assert metrics["accuracy"]["low"] <= metrics["accuracy"]["value"] <= metrics["accuracy"]["high"]


def test_a_validation_figure_that_is_not_defined_is_null_in_model_and_record(folder, tmp_path):
    from isicvision import ImageDataset

    dataset = ImageDataset.from_folder(folder)
    benign = dataset.relabel({path: None for path in dataset.table.query("label == 'malignant'")["path"]})
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    history = model.fit(dataset, benign, epochs=1, batch_size=12, progress=False)
    assert history["validation_roc_auc"].isna().all()
    target = model.save(tmp_path / "model")
    record.write(target, model, {"train": dataset})
    assert json.loads((target / "model.json").read_text(), parse_constant=pytest.fail)
    assert json.loads((target / "run.json").read_text())["history"][0]["validation_roc_auc"] is None


def test_the_manifest_knows_pictures_labels_and_lesions_but_not_their_places(dataset, folder, tmp_path):
    import shutil

    from isicvision import ImageDataset

    first = record.manifest(dataset)
    shutil.copytree(folder, tmp_path / "moved")
    moved = ImageDataset.from_folder(tmp_path / "moved")
    assert record.manifest(moved) == first
    shuffled = type(dataset)(dataset.table.sample(frac=1, random_state=1))
    assert record.manifest(shuffled) == first
    assert record.manifest(dataset.relabel({dataset.paths[0]: "malignant"})) != first
    assert record.manifest(dataset.sample(23, balanced=True)) != first
    other = type(dataset)(dataset.table.assign(group="one"))
    assert record.manifest(other) != first


def test_sources_are_counted_as_far_as_they_are_known(dataset):
    [only] = record.sources(dataset)
    assert only == {"attribution": "Synthetic test picture", "licence": None, "pictures": 24}
    table = dataset.table.assign(copyright_license=["CC-0"] * 20 + [None] * 4)
    table.loc[:2, ["attribution", "copyright_license"]] = None
    found = record.sources(dataclasses.replace(dataset, table=table))
    assert [(each["licence"], each["pictures"]) for each in found] == [("CC-0", 17), (None, 4)]
    assert record.sources(dataclasses.replace(dataset, table=table.drop(columns="attribution")))
    bare = table.drop(columns=["attribution", "copyright_license"])
    assert record.sources(dataclasses.replace(dataset, table=bare)) == []


def test_what_is_no_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json: there is no such run record"):
        record.read(tmp_path / "run.json")
    for text in ("no json", "[]", "{}"):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json is no run record"):
            record.read(tmp_path / "run.json")
