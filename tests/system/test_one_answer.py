"""One answer a lesion: by `Evaluation.by_group`, by `"together"` in the service's JSON, and by `score_lesion`."""

import json

import numpy as np
import pytest
import requests
from test_deployment import GOOD, TEXT, StandIn, b64, bundle, run_json, score
from test_parity import SIZE, drawn, encoded

from isicvision import Evaluation, ImageClassifier, ServiceClient, build_bundle, deploy_local
from isicvision.service.client import ServiceError

__all__ = ["bundle", "score"]  # fixtures
LABELS = ["benign", "malignant"]


@pytest.fixture(scope="module")
def service(bundle):
    with deploy_local(bundle) as service:
        yield service


def test_evaluation_service_and_client_agree_on_lesions(tmp_path):
    paths, lesions = [], np.repeat([*"abcdef"], [1, 2, 1, 3, 2, 4])
    for number in range(len(lesions)):
        paths.append(tmp_path / f"{number}.png")
        paths[-1].write_bytes(encoded(drawn(np.random.default_rng(number)), "PNG"))
    model = ImageClassifier("efficientnet_lite0", LABELS, image_size=SIZE)
    scores = model.predict_proba(paths)
    model.decide_at(float(np.median(scores[:, 1])))
    evaluation = Evaluation.from_scores(["benign"] * len(paths), scores, lesions).at(
        model.metadata["decision"]["threshold"]
    )
    by_lesion = evaluation.by_group()
    with deploy_local(build_bundle(model, tmp_path / "bundle")) as service:
        small = ServiceClient(service.scoring_uri, image_size=SIZE, class_map={"malignant": "see today"})
        for row in by_lesion.table.itertuples():
            images = [path for path, lesion in zip(paths, lesions, strict=True) if lesion == row.group]
            body = {"images": [b64(path.read_bytes()) for path in images], "together": True}
            answer = requests.post(service.scoring_uri, json=body, timeout=30).json()
            lesion, of_client = answer["lesion"], small.score_lesion(images)
            assert lesion["scores"]["malignant"] == pytest.approx(row.score_malignant, abs=1e-4)
            assert of_client["scores"]["see today"] == pytest.approx(row.score_malignant, abs=1e-4)
            assert lesion["label"] == row.prediction and lesion["positive"] == "malignant"
            assert of_client["label"] == {"malignant": "see today"}.get(row.prediction, row.prediction)
            assert lesion["threshold"] == by_lesion.threshold
            assert lesion["images"] == of_client["images"] == len(images) == row.images
            assert len(answer["predictions"]) == len(of_client["predictions"]) == len(images)
            if row.images == 1:
                assert lesion["scores"] == answer["predictions"][0]["scores"]
    assert by_lesion.table["prediction"].nunique() == 2


def test_images_that_are_refused_are_left_out_and_seen(service, tmp_path):
    path = tmp_path / "note.jpg"
    path.write_bytes(TEXT)
    alone = service.score(GOOD)
    answer = service.score_lesion([path, GOOD])
    assert answer["scores"] == alone["scores"] and answer["images"] == 1
    assert answer["predictions"][0]["error"].startswith(f"{path}: it is not an image")
    assert answer["predictions"][1] == alone
    answer = service.score_lesion([path, TEXT])
    assert (
        answer["error"].startswith("No image could be scored: it is not an image") and "scores" not in answer
    )
    assert len(answer["predictions"]) == 2
    with pytest.raises(FileNotFoundError, match="gone"):
        service.score_lesion([GOOD, tmp_path / "gone.jpg"])


def test_scores_of_0_and_1_have_a_mean(score):
    found = score._averaged([{"benign": 1.0, "malignant": 0.0}, {"benign": 0.0, "malignant": 1.0}])
    assert found["scores"] == pytest.approx({"benign": 0.5, "malignant": 0.5}) and found["images"] == 2


def test_an_answer_for_a_lesion_is_asked_for_by_true_only(score):
    for together in ("true", 1, None, [True]):
        status, answer = run_json(score, {"images": [b64(GOOD)], "together": together})
        assert status == 400 and answer["message"].startswith(
            f"together is true or false, not {json.dumps(together)}"
        )
    for body in ({"images": [b64(GOOD)], "together": False}, {"images": [b64(GOOD)]}, [b64(GOOD)]):
        status, answer = run_json(score, body)
        assert status == 200 and "lesion" not in answer
    status, answer = run_json(score, {"images": [b64(TEXT)], "together": True})
    assert status == 422 and "lesion" not in answer


def test_too_many_images_of_a_lesion_are_refused_before_they_are_sent(service):
    for images in ([], [GOOD] * 65, "lesion.jpg", GOOD):
        with pytest.raises(ValueError, match="a list of 1 to 64 images"):
            service.score_lesion(images)
    with pytest.raises(ValueError, match=r"3 images take 21\.4 MiB in base64, and the service accepts 20"):
        service.score_lesion([bytes(5_600_000)] * 3)
    assert service.score_lesion(iter([GOOD] * 64))["images"] == 64


def test_a_service_that_knows_no_lesions_is_named(tmp_path):
    folder = build_bundle(StandIn(), tmp_path / "bundle")
    script = (folder / "score.py").read_text(encoding="utf-8")
    (folder / "score.py").write_text(script.replace("if together and scored", "if False"), encoding="utf-8")
    with (
        deploy_local(folder) as old,
        pytest.raises(ServiceError, match="too old for this: build its bundle again"),
    ):
        old.score_lesion([GOOD])
