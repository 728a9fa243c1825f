import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch
from conftest import draw
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.linear_model import LogisticRegression

from isicvision import ImageClassifier
from isicvision.data import augmentation, cache
from isicvision.data.augmentation import Pipeline
from isicvision.images import decode
from isicvision.model import backbones, outliers

LABELS = ["benign", "malignant"]


def test_the_limit_is_passed_by_as_few_new_vectors_as_promised():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(20, 20))
    vectors = (random.normal(size=(6000, 20)) @ mixing).astype(np.float32)
    vectors[:, 3] = 7  # a channel without any variance
    fitted = outliers.fit(vectors[:1000])
    fitted.whitening /= outliers.limit(fitted(torch.from_numpy(vectors[1000:2000])).numpy())
    distances = fitted(torch.from_numpy(vectors[2000:])).numpy()
    assert (distances > 1).mean() == pytest.approx(outliers.REFUSED, abs=0.015)
    # the same but for a scale is Mahalanobis's distance
    inverse = np.linalg.pinv(np.cov(vectors[:1000].T))
    centered = vectors[2000:] - vectors[:1000].mean(axis=0)
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centered, inverse, centered))
    assert np.corrcoef(distances, expected)[0, 1] > 0.99
    assert fitted(torch.from_numpy(vectors[2000:2001] + 100)) > 1


def test_of_few_held_out_images_none_lies_beyond():
    assert outliers.limit(np.arange(1.0, 31)) == 30


few = arrays(np.float32, st.tuples(st.integers(1, 5), st.just(3)), elements=st.floats(-100, 100, width=32))


@given(few, few)
@example(np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32))
@example(np.array([[0, 0, 0], [2, 0, 0]], np.float32), np.array([[1, 0, 0]], np.float32))
@example(np.full((2, 3), np.nan, np.float32), np.ones((1, 3), np.float32))
def test_of_few_images_or_copies_the_limit_is_finite_or_there_is_none(training, held_out):
    try:
        fitted = outliers.fit(training)
        fitted.whitening /= outliers.limit(fitted(torch.from_numpy(held_out)).numpy())
    except ValueError as error:
        assert any(word in str(error) for word in ("copies of one", "would be", "not finite")), error
    else:
        distances = fitted(torch.from_numpy(held_out)).numpy()
        assert np.isfinite(distances).all() and distances.max() <= 1.001


def test_the_limit_leaves_room_for_another_camera_and_moves_to_local_images(dataset, tmp_path):
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    train, test = dataset.split(0.5, 0.5)
    with pytest.raises(RuntimeError, match="no outlier limit yet"):
        model.fit_outlier_limit(None, test)
    wide = model.fit_outlier_limit(train, test)
    seen = [decode(path, 64) for path in test.paths]
    varied = Pipeline(augmentation.other_camera(), seed=model.seed)(np.stack(seen), range(len(seen)))
    assert wide.max() < 1 and model.outlier_distance(varied).max() == pytest.approx(1)
    local = [draw(tmp_path / f"{number}.jpg", (40, 220, 40), number) for number in range(12)]
    means, before = [part.mean.clone() for part in model.outliers.parts], model.outlier_distance(local)
    assert before.min() > 1
    assert model.fit_outlier_limit(None, local).max() == pytest.approx(1)  # without labels
    assert np.allclose(model.outlier_distance(local) / before, 1 / before.max(), rtol=1e-4)
    assert all(map(torch.equal, means, [part.mean for part in model.outliers.parts]))
    for few, why in ((local[:9], "10 local images .*, not 9"), (local[:1] * 12, "copies of one")):
        with pytest.raises(ValueError, match=why):
            model.fit_outlier_limit(None, few)
    assert model.outlier_distance(local).max() == pytest.approx(1)


@pytest.mark.parametrize(("training", "held_out"), [([0], [1, 2]), ([0, 1], []), ([3, 3, 3], [1, 2])])
def test_what_cannot_be_learnt_from_leaves_the_model_as_it_was(dataset, tmp_path, training, held_out):
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit_outlier_limit(*dataset.split(0.5, 0.5))
    before = model.metadata["outliers"], model.outliers

    def part(rows):
        return dataclasses.replace(dataset, table=dataset.table.iloc[rows].reset_index(drop=True))

    with pytest.raises(ValueError, match="two training images or more|copies of one"):
        model.fit_outlier_limit(part(training), part(held_out))
    assert (model.metadata["outliers"], model.outliers) == before
    model.save(tmp_path / "model")


@pytest.mark.parametrize("options", [{"views": 2}, {"classifier": LogisticRegression()}], ids=str)
def test_a_model_knows_its_images_in_torch_and_in_onnx(dataset, tmp_path, options):
    train, test = dataset.split(0.5, 0.5)
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64, **options)
    with pytest.raises(RuntimeError, match="call fit_outlier_limit"):
        model.outlier_distance(test)
    if model.classifier is not None:
        model.fit(train)
    distances = model.fit_outlier_limit(train, test)
    assert np.array_equal(model.outlier_distance(test), distances) and distances.max() <= 1
    about = model.metadata["outliers"]
    assert about["held_out"]["images"] == len(test)
    assert np.allclose(about["distance_quantiles"], np.quantile(distances, np.linspace(0, 1, 101)), rtol=1e-5)

    strange = draw(tmp_path / "green.jpg", (40, 220, 40), 0)
    assert model.outlier_distance([strange])[0] > 1.2
    loaded = ImageClassifier.load(model.save(tmp_path / "model"))
    assert np.array_equal(loaded.outlier_distance(test), distances)

    session = onnxruntime.InferenceSession(loaded.to_onnx(tmp_path / "m.onnx"))
    images = cache.Images([*test.paths, strange], 64)[:]
    scores, found = session.run(["scores", "distance"], {"images": images})
    assert np.abs(scores - model.predict_proba([*test.paths, strange])).max() < 1e-4
    assert np.abs(found / model.outlier_distance([*test.paths, strange]) - 1).max() < 1e-3


def test_what_drift_compares_scores_with_is_what_the_service_scores(dataset, monkeypatch):
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    train, test = dataset.split(0.5, 0.5)
    model.calibrate(test)
    assert model.metadata["scores_images"] == len(test)
    monkeypatch.setattr(outliers, "REFUSED", 0.3)
    model.fit_outlier_limit(train, test)
    within = model.fit_outlier_limit(None, test) <= 1
    assert 0 < within.sum() < len(test) and model.metadata["scores_images"] == within.sum()
    expected = np.quantile(model.predict_proba(test)[within, 1], np.linspace(0, 1, 101))
    assert np.allclose(model.metadata["scores"]["malignant"], expected, rtol=1e-4)


def test_an_image_may_be_far_in_all_stages_or_in_the_last_ones(dataset):
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    train, test = dataset.split(0.5, 0.5)
    model.fit_outlier_limit(train, test)
    means = outliers.StageMeans(model.network)(torch.from_numpy(cache.Images(train.paths, 64)[:]))
    whole, last = model.outliers.parts
    assert len(whole.mean) == means.shape[1] > len(last.mean) == 128 + 256
    near = means[:1].repeat(3, 1).detach()
    near[1, 0] += 100  # a channel of the first stage
    near[2, -1] += 100
    assert (
        last(near)[1] == last(near)[0] and whole(near)[1] > whole(near)[0] and last(near)[2] > last(near)[0]
    )
    assert torch.equal(model.outliers(near), torch.maximum(whole(near), last(near)))


def test_another_training_forgets(dataset):
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64, classifier=LogisticRegression())
    model.fit_outlier_limit(*dataset.split(0.5, 0.5))
    model.fit(dataset)
    assert model.outliers is None and model.metadata["outliers"] is None


@pytest.mark.parametrize(("name", "width"), [("vit_b_32", 768), ("swin_t", 2 * (96 + 192 + 384) + 768)])
def test_transformers_know_theirs_too(name, width):
    network = backbones.build(name, 2, None, 0.0).eval()
    images = torch.zeros((1, 64, 64, 3), dtype=torch.uint8)
    if name.startswith("vit"):
        images = torch.zeros((1, 224, 224, 3), dtype=torch.uint8)
    with torch.inference_mode():
        assert outliers.StageMeans(network)(images).shape[1] == width
