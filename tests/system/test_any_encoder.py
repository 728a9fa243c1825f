"""Networks of timm, with random weights: trained, saved, loaded, exported, served, and one answer all the way."""

from pathlib import Path

import numpy as np
import pytest
import requests

from isicvision import ImageClassifier, build_bundle, cards, deploy_local
from isicvision.service.bundle import read_metadata


@pytest.mark.parametrize("name", ["mobilenetv3_small_050.lamb_in1k", "convnext_atto", "vit_tiny_patch16_224"])
def test_a_network_of_timm_gives_one_answer_from_training_to_service(name, dataset, tmp_path):
    train, test = dataset.split(0.75, 0.25)
    size = 224 if name.startswith("vit") else 64
    model = ImageClassifier(f"timm:{name}", dataset.labels, weights=None, image_size=size)
    model.fit(train, epochs=1, batch_size=4, progress=False)
    loaded = ImageClassifier.load(model.save(tmp_path / "model"))
    expected = model.predict_proba(test)
    assert np.array_equal(loaded.predict_proba(test), expected) and np.isfinite(expected).all()
    bundle = build_bundle(loaded, tmp_path / "bundle")  # which compares ONNX Runtime's scores
    assert read_metadata(bundle)["backbone"] == f"timm:{name}"
    assert f"timm:{name}" in cards.write_model_card(tmp_path / "model").read_text(encoding="utf-8")
    with deploy_local(bundle) as service:
        for path, scores in zip(test.paths, expected, strict=True):
            answer = requests.post(
                service.scoring_uri, Path(path).read_bytes(), headers={"Content-Type": "image/jpeg"}
            ).json()
            served = [answer["predictions"][0]["scores"][label] for label in dataset.labels]
            assert np.abs(np.array(served) - scores).max() <= 1e-4
