"""Age, sex and site in a request: by the entry script, and by Azure's own server, which logs addresses."""

import io
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import requests
from conftest import PATIENT_NUMBERS
from test_deployment import GOOD, StandIn, b64, image, load_score, run, run_json

from isicvision import (
    ImageClassifier,
    ImageDataset,
    ServiceClient,
    build_bundle,
    deploy_local,
    fusion,
    patient,
)
from isicvision.images import decode

DECISION = {"positive": "malignant", "threshold": 0.3}
NUMBERS = PATIENT_NUMBERS | {"positive": "malignant", "columns": {}, "decision": DECISION}
JPEG = {"Content-Type": "image/jpeg"}
GIVEN = {"age": 35, "sex": "Male", "site": "back"}


def loaded(folder, **metadata):
    model = StandIn()
    model.metadata = StandIn.metadata | metadata
    module = load_score(build_bundle(model, folder / "bundle"))
    module.init()
    return module


@pytest.fixture(scope="module")
def score(tmp_path_factory):
    decision = {"positive": "malignant", "threshold": 0.5, "rule": None}
    return loaded(tmp_path_factory.mktemp("patient"), patient=NUMBERS, decision=decision)


def asked(score, **given):
    status, answer = run_json(score, [{"image_in_base64": b64(GOOD), **given}])
    assert status == 200
    return answer["predictions"][0]


def test_the_answer_has_both_scores_and_says_what_was_used(score):
    alone = asked(score)
    answer = asked(score, **GIVEN)
    beside = answer.pop("with_patient")
    assert answer == alone and set(alone) == {"label", "scores", "threshold", "positive"}
    pair = alone["scores"]["malignant"], alone["scores"]["benign"]
    expected = patient.score(NUMBERS, *pair, patient.known(GIVEN))
    assert beside["scores"] == pytest.approx({"benign": 1 - expected, "malignant": expected})
    assert beside["scores"]["malignant"] != pytest.approx(pair[0], abs=0.005)
    assert beside["threshold"] == 0.3 and beside["label"] == ("benign" if expected < 0.3 else "malignant")
    assert beside["used"] == ["age", "sex", "site"] and beside["not_used"] == {}


def test_an_image_alone_is_answered_byte_for_byte_as_by_a_bundle_without_the_numbers(score, tmp_path):
    plain = loaded(tmp_path, decision=score.metadata["decision"])
    document = {"images": [b64(GOOD), {"image_in_base64": b64(image(3))}]}
    answers = [run_json(module, document) for module in (score, plain)]
    assert json.dumps(answers[0]) == json.dumps(answers[1])


def test_values_that_are_not_known_are_named_and_not_used(score):
    answer = asked(score, age="unknown", sex=None, site="Moon")
    beside = answer["with_patient"]
    assert beside["used"] == [] and beside["scores"] == answer["scores"]
    assert beside["threshold"] == answer["threshold"] == 0.5
    assert beside["not_used"] == {
        "age": "it is not known",
        "sex": "it is not known",
        "site": "it is none of back, face",
    }
    assert "moon" not in json.dumps(answer).lower()


def test_a_bundle_without_the_numbers_says_that_it_takes_none(tmp_path):
    answer = asked(loaded(tmp_path), age=50, site="back")
    beside = answer["with_patient"]
    assert beside["not_used"] == dict.fromkeys(["age", "site"], "this model takes none")
    assert beside["scores"] == answer["scores"] and beside["used"] == []


@pytest.mark.parametrize("age", [-1, 121, "old", True, "1e400", [50]])
def test_impossible_ages_are_refused_by_name(score, age):
    status, answer = run_json(score, {"images": [b64(GOOD), {"image_in_base64": b64(GOOD), "age": age}]})
    assert status == 400 and "age is" in answer["message"] and "predictions" not in answer
    if not isinstance(age, list):
        assert f"from 0 to 120, not '{age}'".lower() in answer["message"]
        status, answer = run(score, GOOD, "image/jpeg", query_string=f"age={age}")
        assert status == 400 and f"from 0 to 120, not '{age}'".lower() in answer["message"]


def test_every_kind_of_body_takes_them(score):
    expected = asked(score, **GIVEN)
    query = "age=35&sex=Male&site=back"
    form = {"one": (io.BytesIO(GOOD), "a.jpg"), "two": (io.BytesIO(GOOD), "b.jpg")}
    for body, kind, count in (
        (GOOD, "image/jpeg", 1),
        (form, "multipart/form-data", 2),
        (json.dumps({"images": [b64(GOOD)]}), "application/json", 1),
    ):
        status, answer = run(score, body, kind, query_string=query)
        assert status == 200 and answer["predictions"] == [expected] * count
    document = {"images": [{"image_in_base64": b64(GOOD), "age": 35, "sex": "male"}, b64(GOOD)]}
    first, second = run(score, json.dumps(document), query_string="site=back&age=80")[1]["predictions"]
    assert first == expected  # what stands beside an image counts, then what the address says
    assert second["with_patient"]["used"] == ["age", "site"]


def test_a_lesion_has_one_patient(score):
    first, second = {"image_in_base64": b64(GOOD), **GIVEN}, {"image_in_base64": b64(image(3)), "age": 35}
    status, answer = run_json(score, {"images": [first, second], "together": True})
    lesion, predictions = answer["lesion"], answer["predictions"]
    pair = lesion["scores"]["malignant"], lesion["scores"]["benign"]
    expected = patient.score(NUMBERS, *pair, patient.known(GIVEN))
    assert status == 200 and lesion["with_patient"]["scores"]["malignant"] == pytest.approx(expected)
    assert [each["with_patient"]["used"] for each in predictions] == [["age", "sex", "site"]] * 2
    same = second | {"age": "35.0", "sex": "male", "site": "unknown"}
    assert run_json(score, {"images": [first, same], "together": True})[1]["lesion"] == lesion
    status, answer = run_json(score, {"images": [first, second | {"age": 36}], "together": True})
    assert status == 400 and "one age, one sex and one site" in answer["message"]


def test_a_refused_image_stays_refused(score):
    status, answer = run_json(score, [{"image_in_base64": b64(b"text"), **GIVEN}, b64(GOOD)])
    assert status == 200 and set(answer["predictions"][0]) == {"error"}


def test_the_notebook_the_onnx_file_and_the_service_agree_and_the_log_keeps_no_patient(folder, tmp_path):
    table = ImageDataset.from_folder(folder).table
    random = np.random.default_rng(0)
    values = {"age": random.integers(20, 80, len(table)), "site": random.choice(["Back", "face"], len(table))}
    dataset = ImageDataset(table.assign(sex="female", **values), positive="malignant")
    model = ImageClassifier("squeezenet1_1", dataset.labels, weights=None, image_size=64)
    model.decide_at(0.4)
    both = fusion.fit(model, dataset)
    model = ImageClassifier.load(both.save(tmp_path / "model"))
    bundle = build_bundle(model, tmp_path / "bundle")
    in_notebook = fusion.Fusion(model).predict_proba(dataset)[:, dataset.labels.index("malignant")]

    numbers = json.loads((bundle / "model.json").read_text(encoding="utf-8"))["patient"]
    session, shown = onnxruntime.InferenceSession(bundle / "model.onnx"), model.metadata["interpolation"]
    arrays = np.stack([decode(path, 64, shown) for path in dataset.paths])
    own = session.run(["scores"], {"images": arrays})[0].astype(float)
    people = fusion.patients(dataset.table, numbers["columns"])
    by_onnx = [
        patient.score(numbers, *row[::-1], person) for row, person in zip(own.tolist(), people, strict=True)
    ]

    with deploy_local(bundle) as service:
        first = dataset.table.iloc[0]
        client = ServiceClient(service.scoring_uri, class_map={"malignant": "see today"})
        by_client = client.score(first["path"], age=first["age"], sex="Female", site=first["site"])
        beside = by_client["with_patient"]
        assert beside["label"] in ("benign", "see today") and beside["used"] == ["age", "sex", "site"]
        assert beside["scores"]["see today"] == pytest.approx(in_notebook[0], abs=1e-4)
        lesion = client.score_lesion([first["path"]] * 2, first["age"], "Female", first["site"])
        assert lesion["with_patient"]["label"] in ("benign", "see today") and lesion["images"] == 2
        assert lesion["with_patient"]["scores"] == pytest.approx(beside["scores"], abs=1e-6)
        assert "with_patient" not in client.score(first["path"], sex=None)
        with pytest.raises(ValueError, match="from 0 to 120, not '150'"):
            client.score(first["path"], age=150)
        rows = json.loads(dataset.table[["age", "sex", "site"]].to_json(orient="records"))
        items = [
            {"image_in_base64": b64(Path(path).read_bytes()), **row}
            for path, row in zip(dataset.paths, rows, strict=True)
        ]
        answer = requests.post(service.scoring_uri, json=items, timeout=60).json()
        by_http = [each["with_patient"]["scores"]["malignant"] for each in answer["predictions"]]
        query = {"age": "47.125", "sex": "female", "site": "back"}
        response = requests.post(service.scoring_uri, params=query, data=GOOD, headers=JPEG)
        assert response.json()["predictions"][0]["with_patient"]["used"] == ["age", "sex", "site"]
        requests.post(service.scoring_uri, params={"age": "999.125"}, data=GOOD, headers=JPEG)
        log = service.logs(1000)
    np.testing.assert_allclose(by_onnx, in_notebook, rtol=0, atol=1e-4)
    np.testing.assert_allclose(by_http, in_notebook, rtol=0, atol=1e-4)
    assert np.ptp(own[:, 0]) > 1e-3 and np.ptp(in_notebook) > 0.05 and log.count('"event": "request"') == 6
    assert not [word for word in ("47.125", "999.125", "female", "back", "age=") if word in log], log
