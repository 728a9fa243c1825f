"""Training on finer labels, whose scores are added up."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pandas as pd
import pytest
import torch

from isicvision import ImageClassifier, ImageDataset, evaluate, saliency
from isicvision.data import cache
from isicvision.model import inputs
from isicvision.model.settings import Settings
from isicvision.model.training import Training

LABELS = ["benign", "malignant"]
QUICK = {"epochs": 2, "batch_size": 8, "optimizer": "adamw", "learning_rate": 0.001, "sublabels": True}


@pytest.fixture
def finer(dataset):
    """The dataset with two kinds of benign and two of malignant images, and one of which the kind is not known."""
    table = dataset.table.assign(sublabel=["nv", "mel", "df", "bcc"] * 6)
    table["sublabel"] = np.where(table["label"] == "benign", "nv", "mel")
    table.loc[::5, "sublabel"] = np.where(table["label"][::5] == "benign", "df", "bcc")
    table.loc[3, "sublabel"] = None
    return replace(dataset, table=table)


def small(**options):
    return ImageClassifier(
        "squeezenet1_1", LABELS, **{"weights": None, "image_size": 64, "dropout": 0.1} | options
    )


def fit(dataset, model=None, **settings):
    model = model or small()
    return model, model.fit(dataset, progress=False, **QUICK | settings)


def test_a_model_of_finer_labels_answers_with_its_labels_wherever_it_goes(finer, tmp_path):
    model, history = fit(finer, validation=finer, model=small(views=2))
    label = finer.table["label"][3]
    kinds = [["benign", "df"], ["benign", "nv"], ["malignant", "bcc"], ["malignant", "mel"]]
    assert model.metadata["sublabels"] == sorted([*kinds, [label, label]])
    assert model.network.head[-1].out_features == 5
    scores = model.predict_proba(finer)
    assert scores.shape == (24, 2) and np.allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert (
        0 <= history.table["train_accuracy"].iloc[-1] <= 1
        and history.table["validation_roc_auc"].notna().all()
    )
    again = ImageClassifier.load(model.save(tmp_path / "model"))
    assert np.array_equal(again.predict_proba(finer), scores)
    session = onnxruntime.InferenceSession(model.to_onnx(tmp_path / "model.onnx"))
    images = np.stack([cache.Images(finer.paths, 64)[[n]][0] for n in range(24)])
    assert np.abs(session.run(None, {"images": images})[0] - scores).max() < 1e-4
    model.calibrate(finer)
    assert evaluate(model, finer).classes == LABELS
    assert saliency.grad_cam(model, images[:2], "malignant").shape == (2, 64, 64)


def test_scores_of_a_label_are_the_sum_of_its_finer_ones(finer):
    model, _ = fit(finer)
    images = torch.from_numpy(np.asarray(cache.Images(finer.paths, 64)[np.arange(24)]))
    with torch.no_grad():
        all_of_them = torch.softmax(model.network(images, merged=False), 1)
        merged = torch.softmax(model.network(images), 1)
    malignant = [label == "malignant" for label, _ in model.metadata["sublabels"]]
    assert torch.allclose(all_of_them[:, malignant].sum(1), merged[:, 1], atol=1e-6)


def test_accuracy_in_training_is_that_of_the_labels(finer):
    # one kind only: the finer label is the label, so history says the same, and so are the weights
    same_kind = replace(finer, table=finer.table.assign(sublabel=finer.table["label"]))
    _, history = fit(same_kind)
    _, plain = fit(finer, sublabels=False)
    pd.testing.assert_frame_equal(history.table.drop(columns="seconds"), plain.table.drop(columns="seconds"))
    kinds = replace(finer, table=finer.table.assign(sublabel=np.arange(24).astype(str)))
    _, history = fit(kinds, epochs=1, learning_rate=1e-9)
    assert history.table["train_accuracy"].iloc[0] > 1 / 24 * 3  # right by label, which is easy, not by kind


def test_without_finer_labels_the_labels_are_trained(dataset):
    model, _ = fit(dataset)
    assert model.metadata["sublabels"] is None and model.network.head[-1].out_features == 2


def test_weights_and_sampling_go_by_labels(finer):
    few = finer.table.drop(index=finer.table.index[finer.table["label"] == "malignant"][3:])
    few = ImageDataset(few.reset_index(drop=True))
    model = small()
    targets = inputs.targets(few, LABELS, "training")
    sublabels, outputs = model._learner.outputs(few, targets, Settings(**QUICK))
    images = cache.Images(few.paths, 64)
    settings = Settings(**QUICK, class_weight="balanced")
    network = model._learner.with_outputs(sublabels)
    training = Training(network, images, outputs, settings, progress=False)
    of_label = dict(zip([label for label, _ in sublabels], training.weights.tolist(), strict=True))
    assert of_label["malignant"] == pytest.approx(15 / 2 / 3) and of_label["benign"] == pytest.approx(
        15 / 2 / 12
    )
    assert len(set(training.weights.tolist())) == 2


def test_a_second_training_may_do_without_and_a_range_test_changes_nothing(finer):
    model, _ = fit(finer)
    before = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    model.find_learning_rate(finer, progress=False, batch_size=8)
    model.find_learning_rate(finer, progress=False, batch_size=8, sublabels=True)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.network.state_dict().items())
    fit(finer, model=model, sublabels=False)
    assert model.network.head[-1].out_features == 2 and model.metadata["sublabels"] is None
    assert model.predict_proba(finer).shape == (24, 2)


def test_a_checkpoint_of_other_finer_labels_is_refused(finer, tmp_path):
    fit(finer, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="other .*sublabels"):
        fit(finer, checkpoint=tmp_path, sublabels=False)


def test_the_same_seed_gives_the_same_weights(finer):
    (one, _), (other, _) = fit(finer), fit(finer)
    assert np.array_equal(one.predict_proba(finer), other.predict_proba(finer))


def test_a_label_map_that_merges_keeps_the_finer_labels_and_a_correction_drops_them(folder):
    kinds = pd.DataFrame({"image": [f"p{n:02d}" for n in range(24)], "dx": ["nv", "mel", "df", "mel"] * 6})
    kinds.to_csv(folder / "kinds.csv", index=False)
    merging = {"nv": "benign", "df": "benign", "mel": "malignant"}
    read = ImageDataset.from_csv(folder / "kinds.csv", folder, label_column="dx", label_map=merging)
    assert read.table["sublabel"].tolist() == kinds["dx"].tolist()
    one, two = read.paths[:2]
    corrected = read.relabel({one: "malignant", two: "malignant"}).table
    assert (
        corrected["sublabel"].isna().tolist() == [True] + [False] * 23
    )  # the second one was malignant already
    renaming = {"nv": "benign", "df": "fibroma", "mel": "malignant"}
    read = ImageDataset.from_csv(folder / "kinds.csv", folder, label_column="dx", label_map=renaming)
    assert "sublabel" not in read.table
    (folder / "kinds.csv").unlink()


def test_a_column_of_the_metadata_may_hold_the_finer_labels(folder):
    dataset = ImageDataset.from_folder(folder, sublabel_column="sex")
    assert dataset.table["sublabel"].equals(dataset.table["sex"])
    with pytest.raises(ValueError, match="diagnosis_3"):
        ImageDataset.from_folder(folder, sublabel_column="diagnosis_3")
