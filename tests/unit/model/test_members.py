import json

import numpy as np
import onnxruntime
import pytest
from test_training import QUICK, same, small

import pipeline
from isicvision import ImageClassifier, ImageDataset, cards, saliency
from isicvision.data import cache
from isicvision.model import inputs
from isicvision.model.network import Scores


@pytest.fixture(scope="module")
def parts(folder):
    return ImageDataset.from_folder(folder).split(0.5, 0.5)


def fit(train, members=2, seed=0, **settings):
    model = small("squeezenet1_1", seed=seed)  # its export is quick
    history = model.fit(train, progress=False, **QUICK | {"members": members} | settings)
    return model, history


@pytest.fixture(scope="module")
def pair(parts):
    return fit(parts[0])[0]


def test_log_odds_are_the_mean_of_networks_of_different_random_numbers(pair, parts):
    first, second = pair.networks
    alone = fit(parts[0], members=1)[0]
    assert same(first.state_dict(), alone.network.state_dict())
    assert not same(first.state_dict(), second.state_dict())
    images = cache.Images(parts[1].paths, 64)[:]
    each = [inputs.forward(Scores([network]), images) for network in pair.networks]
    odds = [np.log(scores[:, 1] / scores[:, 0]) for scores in (*each, pair.predict_proba(parts[1]))]
    assert np.allclose(odds[2], (odds[0] + odds[1]) / 2, atol=1e-5)
    assert not np.allclose(*each, atol=1e-3)


def test_all_networks_are_saved_loaded_exported_and_told_of(pair, parts, tmp_path):
    pair.calibrate(parts[1])
    pair.fit_outlier_limit(*parts)
    expected = pair.predict_proba(parts[1])
    folder = pair.save(tmp_path / "model")
    loaded = ImageClassifier.load(folder)
    assert len(loaded.networks) == 2 and np.array_equal(loaded.predict_proba(parts[1]), expected)
    assert json.loads((folder / "model.json").read_text(encoding="utf-8"))["members"] == 2
    assert "| scores averaged | 2 networks, 1 view |" in cards.write_model_card(folder).read_text(
        encoding="utf-8"
    )
    session = onnxruntime.InferenceSession(loaded.to_onnx(tmp_path / "model.onnx"))
    images = cache.Images(parts[1].paths, 64)[:]
    scores, distance = session.run(["scores", "distance"], {"images": images})
    assert np.allclose(scores, expected, atol=1e-4)
    assert np.allclose(distance, pair.outlier_distance(parts[1]), rtol=1e-3)
    (folder / "network2.safetensors").unlink()
    with pytest.raises(ValueError, match="damaged or incomplete"):
        ImageClassifier.load(folder)


def test_the_maps_of_all_networks_are_added_up(pair, parts):
    images = cache.Images(parts[1].paths, 64)[:2]
    both = saliency.grad_cam(pair, images)
    pair.networks.reverse()
    assert np.allclose(saliency.grad_cam(pair, images), both, atol=1e-4)
    pair.networks.reverse()
    assert both.shape == (2, 64, 64) and not np.allclose(both[0], both[1])


def test_the_history_counts_on_from_network_to_network(parts):
    seen = []
    model, history = fit(
        parts[0], members=3, epochs=2, on_epoch=lambda so_far: seen.append([*so_far.table.index])
    )
    assert [*history.table.index] == [1, 2, 3, 4, 5, 6] and history.table.index.name == "epoch"
    assert history.table["network"].tolist() == [1, 1, 2, 2, 3, 3]
    assert seen == [[*range(1, n + 1)] for n in range(1, 7)]
    assert len(model.step_loss) == 6 * len(inputs.steps(len(parts[0]), QUICK["batch_size"]))
    assert model.metadata["training"]["members"] == 3 and len(model.metadata["training"]["history"]) == 6


def test_a_training_killed_in_the_second_network_goes_on_to_the_same_weights(pair, parts, tmp_path):
    def kill(so_far):
        if len(so_far) == QUICK["epochs"] + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(parts[0], checkpoint=tmp_path, on_epoch=kill)
    later = []
    model, history = fit(parts[0], checkpoint=tmp_path, on_epoch=lambda so_far: later.append(len(so_far)))
    assert later == [QUICK["epochs"] + 2, 2 * QUICK["epochs"]]
    assert len(history) == 2 * QUICK["epochs"]
    assert all(
        same(one.state_dict(), other.state_dict())
        for one, other in zip(model.networks, pair.networks, strict=True)
    )


def test_the_next_training_begins_from_the_first_network_and_drops_the_others(parts):
    model, _ = fit(parts[0], epochs=1)
    model.fit(parts[0], progress=False, **QUICK)
    assert len(model.networks) == 1 and model.metadata["members"] == 1


def test_a_checkpoint_left_by_another_training_is_refused_before_the_first_network(parts, tmp_path):
    fit(parts[0], checkpoint=tmp_path, epochs=1)
    (tmp_path / "checkpoint.safetensors").unlink()
    model = small("squeezenet1_1")
    with pytest.raises(ValueError, match=f"member2/checkpoint.safetensors {pipeline.OTHER_TRAINING}"):
        model.fit(parts[0], progress=False, checkpoint=tmp_path, **QUICK | {"members": 2, "epochs": 2})
    assert not (tmp_path / "checkpoint.safetensors").exists()
