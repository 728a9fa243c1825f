import dataclasses
import json
import runpy
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from isicvision import Evaluation, ImageClassifier, cards, evaluate, record
from isicvision.service import bundle

LABELS = ["benign", "malignant"]


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    from isicvision import ImageDataset

    train, test = ImageDataset.from_folder(folder).split(0.5, 0.5)
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit(train, epochs=2, batch_size=6, learning_rate=0.01, progress=False)
    target = model.save(tmp_path_factory.mktemp("record") / "model")
    record.write(model, {"train": train, "test": test}, target, {"EPOCHS": 2})
    return target, model, test


def test_the_record_holds_what_a_rerun_needs(made):
    run = record.read(made[0] / "run.json")
    assert run["parameters"] == {"EPOCHS": 2} and run["seed"] == 0
    assert run["training"]["precision"] == "fp32" and run["training"]["learning_rate"] == 0.01
    assert len(run["history"]) == 2 and len(run["step_loss"]) == 4 and run["seconds"] > 0
    assert run["split"]["train"]["images"] == 12 and run["packages"]["torch"]
    assert len(run["code"]["commit"] or "0" * 40) == 40 and run["machine"]["threads"] >= 1
    assert run["metrics"] is None


def test_parts_are_counted_by_label_and_lesion_and_shared_lesions_are_told(made):
    target, model, test = made
    copy = target.with_name("copy")
    copy.mkdir()
    half = test.sample(6, balanced=True)
    run = record.read(record.write(model, {"validation": test, "test": half}, copy))
    assert run["split"]["validation"]["groups"] == test.table["group"].nunique() == 6
    assert run["split"]["test"]["labels"] == {"benign": 3, "malignant": 3}
    assert run["shared_groups"] == half.table["group"].nunique()
    assert record.read(target / "run.json")["shared_groups"] == 0
    benign = test.relabel({path: None for path in test.table.query("label == 'malignant'")["path"]})
    run = record.read(record.write(model, {"test": benign}, copy))
    assert run["split"]["test"]["labels"] == {"benign": 6, "malignant": 0}


def test_the_area_of_those_confirmed_alike_stands_beside_that_of_all(made):
    ways = pd.DataFrame({"dx_type": ["follow_up"] * 4 + ["histo"] * 8})
    scores = [0.1] * 4 + [0.2, 0.8] * 4
    labels = ["benign"] * 4 + ["malignant", "benign", "benign", "malignant"] * 2
    record.add_metrics(Evaluation.from_scores(labels, scores, classes=LABELS, metadata=ways), made[0])
    metrics = record.read(made[0] / "run.json")["metrics"]
    assert metrics["images_confirmed_alike"] == 8
    assert metrics["roc_auc_confirmed_alike"]["value"] == 0.5 < metrics["roc_auc"]["value"]
    assert metrics["specificity_confirmed_alike"]["value"] == 0.5 < metrics["specificity"]["value"]
    record.add_metrics(Evaluation.from_scores(labels, scores, classes=LABELS), made[0])
    assert "images_confirmed_alike" not in record.read(made[0] / "run.json")["metrics"]


def test_the_figures_per_lesion_stand_before_those_per_image(made):
    ways = pd.DataFrame({"group": [*"aabbccddeeff"], "dx_type": ["follow_up"] * 4 + ["histo"] * 8})
    labels = ["benign"] * 6 + ["malignant"] * 2 + ["benign"] * 2 + ["malignant"] * 2
    scores = np.linspace(0, 1, 12) ** 2
    evaluation = Evaluation.from_scores(labels, scores, classes=LABELS, metadata=ways)
    record.add_metrics(evaluation, made[0])
    metrics = record.read(made[0] / "run.json")["metrics"]
    names = [*metrics]
    assert names.index("per_lesion") < names.index("accuracy")
    assert metrics["per_lesion"]["lesions"] == 6 and metrics["per_lesion"]["lesions_confirmed_alike"] == 4
    by_lesion = evaluation.by_group()
    for name in ("roc_auc", "brier", "recall"):
        low, high = by_lesion.interval(name)
        expected = {"value": by_lesion.metric(name), "low": low, "high": high}
        assert metrics["per_lesion"][name] == pytest.approx(expected)
        assert metrics[name]["value"] == evaluation.metric(name)
    page = cards.write_model_card(made[0]).read_text(encoding="utf-8")
    parts = page.partition("**Per lesion**: one answer for each of 6 lesions")[2].partition("**Per image**")
    for text, unit in ((parts[0], by_lesion), (parts[2], evaluation)):
        assert (
            f"| brier | {unit.metric('brier'):.3f} |" in text
            and text.count("| roc_auc_confirmed_alike |") == 1
        )
    labels[0] = "malignant"
    with pytest.warns(UserWarning, match="lesion a have the labels benign and malignant"):
        record.add_metrics(Evaluation.from_scores(labels, scores, classes=LABELS, metadata=ways), made[0])
    assert "per_lesion" not in record.read(made[0] / "run.json")["metrics"]
    assert "**Per" not in cards.write_model_card(made[0]).read_text(encoding="utf-8")


def test_metrics_are_added_with_their_intervals_and_undefined_ones_are_null(made):
    scores = np.linspace(0, 1, 12)
    record.add_metrics(Evaluation.from_scores(["benign"] * 12, scores, classes=LABELS), made[0])
    text = (made[0] / "run.json").read_text(encoding="utf-8")
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
    assert history.table["validation_roc_auc"].isna().all()
    target = model.save(tmp_path / "model")
    record.write(model, {"train": dataset}, target)
    assert json.loads((target / "model.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (
        json.loads((target / "run.json").read_text(encoding="utf-8"))["history"][0]["validation_roc_auc"]
        is None
    )


def test_the_manifest_knows_images_labels_and_lesions_but_not_their_places(dataset, folder, tmp_path):
    import shutil

    from isicvision import ImageDataset

    first = dataset.manifest()
    shutil.copytree(folder, tmp_path / "moved")
    moved = ImageDataset.from_folder(tmp_path / "moved")
    assert moved.manifest() == first
    shuffled = type(dataset)(dataset.table.sample(frac=1, random_state=1))
    assert shuffled.manifest() == first
    assert dataset.relabel({dataset.paths[0]: "malignant"}).manifest() != first
    assert dataset.sample(23, balanced=True).manifest() != first
    other = type(dataset)(dataset.table.assign(group="one"))
    assert other.manifest() != first


def test_sources_are_counted_as_far_as_they_are_known(dataset):
    [only] = dataset.sources()
    assert only == {"attribution": "Synthetic test image", "license": None, "images": 24}
    table = dataset.table.assign(copyright_license=["CC-0"] * 20 + [None] * 4)
    table.loc[:2, ["attribution", "copyright_license"]] = None
    found = dataclasses.replace(dataset, table=table).sources()
    assert [(each["license"], each["images"]) for each in found] == [("CC-0", 17), (None, 4)]
    assert dataclasses.replace(dataset, table=table.drop(columns="attribution")).sources()
    bare = table.drop(columns=["attribution", "copyright_license"])
    assert dataclasses.replace(dataset, table=bare).sources() == []


def test_what_is_no_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run\.json"):
        record.read(tmp_path / "run.json")
    for text in ("no json", "[]", "{}"):
        (tmp_path / "run.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"run\.json is (not a run record|damaged)"):
            record.read(tmp_path / "run.json")


@pytest.fixture
def outputs(made, dataset, tmp_path):
    """A folder as 01_train leaves it: dataset.csv, split/ and model/, of which the test part has 4 images."""
    train, validation, test = dataset.split(0.5, 0.25, 0.25)
    parts = {"train": train, "validation": validation, "test": test}
    dataset.save(tmp_path / "dataset.csv")
    record.save_parts(parts, tmp_path / "split")
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit(train, epochs=1, batch_size=6, progress=False)
    record.write(model, parts, model.save(tmp_path / "model"))
    return tmp_path


def test_parts_that_belong_to_their_model_are_loaded(outputs, dataset):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parts = record.load_parts(outputs / "split", outputs / "model")
    assert [*parts] == ["train", "validation", "test"] and sum(map(len, parts.values())) == len(dataset)


def test_a_model_of_another_split_is_refused(outputs, dataset):
    again = dict(zip(("train", "validation", "test"), dataset.split(0.5, 0.25, 0.25, seed=5), strict=True))
    record.save_parts(again, outputs / "split")
    with pytest.raises(
        ValueError, match=r"train\.csv is not the train part that .*model was made with.*01_train"
    ):
        record.load_parts(outputs / "split", outputs / "model")
    assert len(record.load_parts(outputs / "split")) == 3  # the parts alone belong together
    (outputs / "model" / "run.json").unlink()  # 01_train stopped before it was written
    with pytest.raises(ValueError, match="is not the train part"):
        record.load_parts(outputs / "split", outputs / "model")


def test_a_part_that_was_corrected_after_the_training_is_refused(outputs):
    parts = record.earlier_parts(outputs / "split")
    path, label = parts["test"].table.loc[0, ["path", "label"]]
    other = "benign" if label == "malignant" else "malignant"
    record.save_parts({"test": parts["test"].relabel({path: other})}, outputs / "split")
    with pytest.raises(ValueError, match="is not the test part"):
        record.load_parts(outputs / "split", outputs / "model")


def test_parts_of_two_splits_are_refused(outputs, dataset):
    again = dataset.split(0.5, 0.25, 0.25, seed=5)
    record.save_parts({"test": again[2]}, outputs / "split")  # stopped between two files
    with pytest.raises(ValueError, match="parts of two splits"):
        record.load_parts(outputs / "split")


def test_a_table_that_changed_after_the_split_is_said(outputs, dataset):
    dataset.relabel({dataset.paths[0]: "malignant", dataset.paths[3]: None}).save(outputs / "dataset.csv")
    said = r"dataset\.csv has changed since it was split: 2 images new, gone, or with another label or lesion"
    with pytest.warns(UserWarning, match=said):
        record.load_parts(outputs / "split", outputs / "model")


def test_parts_that_are_not_there_name_the_notebook(tmp_path):
    assert record.earlier_parts(tmp_path) is None
    with pytest.raises(
        FileNotFoundError, match=r"train\.csv is not there yet. Run code/02_modeling/01_train\.ipynb"
    ):
        record.load_parts(tmp_path)


def test_a_record_of_parts_that_the_model_was_not_trained_on_is_refused(made, dataset):
    target, model, test = made
    before = (target / "run.json").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="the model was not trained on this part train"):
        record.write(model, {"train": test, "test": test}, target)
    assert (target / "run.json").read_text(encoding="utf-8") == before


def test_the_record_takes_augmented_copies_and_broken_images_for_the_part_they_come_from(dataset, tmp_path):
    from imgaug import augmenters as iaa

    from isicvision import augment_dataset

    train, test = dataset.split(0.5, 0.5)
    copies = augment_dataset(train, [iaa.Fliplr(1)], folder=tmp_path / "copies")
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit(copies, epochs=1, batch_size=12, progress=False)
    assert model.metadata["training"]["groups"] == train.table["group"].nunique()
    record.write(model, {"train": train, "test": test}, model.save(tmp_path / "model"))
    (tmp_path / "broken.jpg").write_text("no image", encoding="utf-8")
    row = train.table.iloc[:1].assign(path=str(tmp_path / "broken.jpg"))
    flawed = dataclasses.replace(train, table=pd.concat([train.table, row], ignore_index=True))
    with pytest.warns(UserWarning, match="cannot be read and are set aside"):
        model.fit(flawed, epochs=1, batch_size=12, progress=False)
    record.write(model, {"train": flawed, "test": test}, model.save(tmp_path / "model"))


def test_predictions_of_another_model_or_other_images_are_refused(outputs):
    model = ImageClassifier.load(outputs / "model")
    test = record.load_parts(outputs / "split")["test"]
    evaluation = evaluate(model, test)
    with pytest.raises(ValueError, match="run code/02_modeling/02_evaluate"):
        record.require_evaluated(evaluation, outputs / "model")  # nothing was evaluated yet
    record.add_metrics(evaluation, outputs / "model")
    saved = Evaluation.load(evaluation.save(outputs / "predictions.csv"))
    record.require_evaluated(saved, outputs / "model")
    record.require_evaluated(saved.at(0.7), outputs / "model")  # the decision is not part of it
    for other in (
        saved.where(np.arange(len(test)) > 0),
        dataclasses.replace(saved, table=saved.table.assign(score_benign=saved.table["score_benign"] + 1e-5)),
    ):
        with pytest.raises(ValueError, match="of another model or of other test images"):
            record.require_evaluated(other, outputs / "model")
    model.decide_at(0.5)
    model.save(outputs / "model")
    with pytest.raises(ValueError, match="of another model"):
        record.require_evaluated(saved, outputs / "model")


def test_a_bundle_of_an_earlier_model_is_refused(outputs):
    (outputs / "bundle").mkdir()
    model = ImageClassifier.load(outputs / "model")
    card = model.metadata | {"id": "x", "version": "y", "sha256": {}}
    (outputs / "bundle" / "model.json").write_text(json.dumps(card), encoding="utf-8")
    record.require_current(outputs / "bundle", outputs)
    model.decide_at(0.25)
    model.save(outputs / "model")
    with pytest.raises(ValueError, match=r"bundle was built from no model in .*01_deploy_locally"):
        record.require_current(outputs / "bundle", outputs)


def test_a_model_knows_the_images_and_lesions_it_was_trained_on(outputs, dataset, tmp_path):
    model = ImageClassifier.load(outputs / "model")  # as it was saved
    parts = record.load_parts(outputs / "split")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(model, parts["test"])
        model.fit_outlier_limit(parts["train"], parts["validation"])
    mixed = dataset.where(dataset.table["path"].isin([*parts["train"].paths[:3], *parts["test"].paths]))
    with pytest.warns(UserWarning, match="12 images of the 24 to calibrate on were trained on"):
        model.calibrate(dataset)
    for use in (evaluate, lambda model, part: model.fit_outlier_limit(parts["train"], part)):
        with pytest.warns(UserWarning, match=f"3 images of the {len(mixed)} .*were trained on"):
            use(model, mixed)
    # another image of a lesion that was trained on: by the lesion's name
    named = parts["test"].table.assign(group=parts["train"].table["group"].iloc[0])
    with pytest.warns(UserWarning, match=f"{len(named)} images of the {len(named)} to evaluate on"):
        evaluate(model, dataclasses.replace(parts["test"], table=named))
    # the very image under another name
    copy = shutil.copy(parts["train"].paths[0], tmp_path / "copy.jpg")
    strange = parts["test"].table.assign(path=[str(copy), *parts["test"].paths[1:]])
    with pytest.warns(UserWarning, match="1 image of the"):
        evaluate(model, dataclasses.replace(parts["test"], table=strange))


def test_without_named_lesions_the_record_says_unknown(dataset, tmp_path):
    bare = dataclasses.replace(dataset, table=dataset.table.assign(group=dataset.table["path"]))
    train, test = bare.split(0.5, 0.5)
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit(train, epochs=1, batch_size=12, progress=False)
    record.write(model, {"train": train, "test": test}, model.save(tmp_path / "m"))
    record.add_metrics(evaluate(model, test), tmp_path / "m")
    run = record.read(tmp_path / "m" / "run.json")
    assert run["shared_groups"] is None and run["groups_known"] == 0
    for held in (run["split"]["train"], run["training"], run["metrics"]):
        assert held["groups"] is None and held["groups_known"] == 0
    half = dataset.table["group"].where(np.arange(24) % 2 == 0, dataset.table["path"])
    partly = dataclasses.replace(dataset, table=dataset.table.assign(group=half))
    train = partly.where(partly.table["path"].isin(train.paths))
    model.fit(train, epochs=1, batch_size=12, progress=False)
    record.write(
        model, {"train": train, "test": partly.where(~partly.table["path"].isin(train.paths))}, tmp_path / "m"
    )
    run = record.read(tmp_path / "m" / "run.json")
    assert run["shared_groups"] is not None and run["groups_known"] == 0.5


def test_the_job_keeps_the_split_that_is_there_and_a_rerun_takes_that_of_its_record(
    dataset, tmp_path, capsys
):
    job = runpy.run_path(str(ROOT / "code/02_modeling/train.py"))
    first = job["split"]({"SEED": 0, "SPLIT_COLUMN": None}, dataset, None, tmp_path)
    record.save_parts(first, tmp_path)
    corrected = dataset.relabel({dataset.paths[0]: "malignant"})
    now = job["split"]({"SEED": 5, "SPLIT_COLUMN": None}, corrected, None, tmp_path)
    assert [part.paths for part in now.values()] == [part.paths for part in first.values()]
    assert "24 images as in the earlier split, 0 new, 0 moved" in capsys.readouterr().out
    record.save_parts(now, tmp_path)
    made = {name: {"manifest": part.manifest()} for name, part in now.items()}
    again = job["split"](
        {"SEED": 5, "SPLIT_COLUMN": None}, corrected, made, tmp_path
    )  # no seed deals these parts
    assert [part.paths for part in again.values()] == [part.paths for part in now.values()]
    with pytest.raises(ValueError, match="images are not those of the record"):
        job["split"]({"SEED": 5, "SPLIT_COLUMN": None}, dataset, made, tmp_path)


def test_images_that_are_gone_are_named_before_their_part_is_doubted(outputs):
    table = pd.read_csv(outputs / "split" / "train.csv")
    table["path"] = "/gone/" + table["path"]
    table.to_csv(outputs / "split" / "train.csv", index=False)
    with pytest.raises(
        ValueError, match=r"train\.csv is .*: (\d+) of its \1 images are not there, such as /gone/"
    ):
        record.load_parts(outputs / "split", outputs / "model")


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_damaged_file_of_a_model_is_named(outputs, text):
    (outputs / "model" / "model.json").write_text(text, encoding="utf-8")
    for call in (
        lambda: record.load_parts(outputs / "split", outputs / "model"),
        lambda: record.require_current(outputs / "model", outputs),
        lambda: bundle.read_metadata(outputs / "model"),
    ):
        with pytest.raises(ValueError, match="model.json is damaged"):
            call()
