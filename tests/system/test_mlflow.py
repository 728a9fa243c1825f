"""The bundle as an MLflow model: served by MLflow in an environment of its own, it answers what the service answers."""

import base64
import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import mlflow
import pandas as pd
import pytest
import requests
import yaml
from conftest import environment_with
from test_deployment import StandIn, b64, image

from isicvision import PROJECT_ROOT, build_bundle, deploy_local

FILES = PROJECT_ROOT / "code" / "03_deployment"
sys.path.insert(0, str(FILES))
import mlflow_model  # noqa: E402

SAMPLES = sorted((PROJECT_ROOT / "sample_data" / "images").iterdir())[:5]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("mlflow") / "bundle")


@pytest.fixture(scope="module")
def saved(bundle, tmp_path_factory):
    return mlflow_model.save(bundle, tmp_path_factory.mktemp("mlflow") / "model")


@pytest.fixture(scope="module")
def own_python(saved, tmp_path_factory):
    """The Python of an environment with what the model's folder asks for, as MLflow and Azure make it."""
    return environment_with(
        saved / "requirements.txt", tmp_path_factory.mktemp("mlflow-python"), compiled=False
    )


@contextmanager
def served(python, model):
    """Run `mlflow models serve` on loopback, as in a container of Azure; give the address of /invocations."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",  # MLflow starts uvicorn by its name
        "AZUREML_MODEL_DIR": str(model.parent),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [python.parent / "mlflow", "models", "serve", "--model-uri", model, "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    log = model.parent / "serve.log"
    with open(log, "wb") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            try:
                requests.get(f"http://127.0.0.1:{port}/ping", timeout=10).raise_for_status()
                break
            except requests.RequestException:
                assert process.poll() is None, log.read_text(encoding="utf-8")
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        process.terminate()  # and MLflow ends the server that it started
        process.wait(30)


@pytest.mark.xdist_group("mlflow-python")
def test_mlflow_serves_the_scores_of_the_service(own_python, saved, bundle, tmp_path):
    missing = "import importlib.util as i; print([n for n in ('torch', 'isicvision') if i.find_spec(n)])"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([own_python, "-c", missing], env=environment, capture_output=True, cwd=tmp_path)
    assert done.stdout == b"[]\n"
    with deploy_local(bundle) as service:
        expected = [service.score(path) for path in SAMPLES]
    texts = [b64(path.read_bytes()) for path in SAMPLES]
    # its own folder is all that the model needs
    moved = shutil.copytree(saved, tmp_path / "elsewhere" / "model")
    with served(own_python, moved) as address:
        for body in (
            {"dataframe_split": {"columns": ["image_in_base64"], "data": [[text] for text in texts]}},
            {"dataframe_records": [{"image_in_base64": text} for text in texts]},
            {"inputs": {"image_in_base64": texts}},
        ):
            answer = requests.post(address, json=body, timeout=60)
            assert answer.status_code == 200, answer.text
            rows = answer.json()["predictions"]
            assert [row["label"] for row in rows] == [each["label"] for each in expected]
            assert all(row["error"] is None for row in rows)
            for row, each in zip(rows, expected, strict=True):
                for label, score in each["scores"].items():
                    assert row[f"score_{label}"] == pytest.approx(score, abs=1e-4)

        broken = [b64(SAMPLES[0].read_bytes()[:3000]), b64(b"a text"), "no base64!", texts[0], None]
        records = [{"image_in_base64": each} for each in broken]
        answer = requests.post(address, json={"dataframe_records": records}, timeout=60)
        rows = answer.json()["predictions"]
        assert [row["error"] is None for row in rows] == [False, False, False, True, False]
        assert all(row["label"] is None for row in (*rows[:3], rows[4])) and rows[3] == rows[3] | {
            "error": None
        }
        assert "not an image" in rows[1]["error"] and "not valid base64" in rows[2]["error"]
        assert "not base64 text" in rows[4]["error"]
        for body, status in (
            ({"dataframe_records": [{"picture": texts[0]}]}, 400),
            ({"images": texts}, 400),
            ("no JSON", 400),
        ):
            kind = {"data": body} if isinstance(body, str) else {"json": body}
            answer = requests.post(address, headers={"Content-Type": "application/json"}, timeout=60, **kind)
            assert answer.status_code == status and "Traceback" not in answer.text
            assert answer.json()["message"]


def test_its_folder_has_a_signature_an_example_and_the_bundles_requirements(saved, bundle):
    model = mlflow.models.Model.load(saved)
    assert model.signature.inputs.input_names() == ["image_in_base64"]
    names = ["label", "error", "score_benign", "score_malignant"]
    assert model.signature.outputs.input_names() == names
    assert model.metadata == {
        name: json.loads((bundle / "model.json").read_text(encoding="utf-8"))[name]
        for name in ("id", "version")
    }
    pinned = (bundle / "requirements.txt").read_text(encoding="utf-8").split()
    tested = importlib.metadata.version("mlflow-skinny")
    assert (saved / "requirements.txt").read_text(encoding="utf-8").split() == [*pinned, f"mlflow=={tested}"]
    assert (saved / "requirements.txt").read_text(encoding="utf-8").endswith("\n")
    text = (saved / "MLmodel").read_text(encoding="utf-8")
    assert str(PROJECT_ROOT) not in text and str(bundle) not in text  # it is published
    conda = yaml.safe_load((saved / "conda.yaml").read_text(encoding="utf-8"))
    assert "python=3.11" in conda["dependencies"]
    example = model.load_input_example(saved)
    (row,) = mlflow.pyfunc.load_model(str(saved)).predict(example).to_dict("records")
    assert [*row] == names and row["error"] is None
    assert base64.b64decode(example["image_in_base64"][0]).startswith(b"\xff\xd8")  # a JPEG


def test_two_models_in_one_process_keep_their_scores(saved, tmp_path):
    other = build_bundle(StandIn(seed=1), tmp_path / "bundle")
    second = mlflow_model.save(other, tmp_path / "model")
    models = [mlflow.pyfunc.load_model(str(folder)) for folder in (saved, second)]
    rows = pd.DataFrame({"image_in_base64": [b64(image(3))]})
    scores = [model.predict(rows)["score_benign"][0] for model in models]
    assert scores[0] != scores[1]


def test_each_row_is_answered_and_an_empty_frame_has_the_columns_of_the_signature(saved):
    model, images = mlflow.pyfunc.load_model(str(saved)), [b64(image(3)), "\ud800", b"bytes", None, ["x"]]
    found = model.predict(pd.DataFrame({"image_in_base64": images}, dtype=object))
    reasons = [None, "the image: it is not valid base64", *["the image: it is not base64 text"] * 3]
    assert [*found["error"]] == reasons
    assert found["label"].isna().tolist() == found["score_benign"].isna().tolist() == [False, *[True] * 4]
    empty = model.predict(pd.DataFrame({"image_in_base64": []}, dtype=object))
    assert len(empty) == 0 and [*empty.columns] == model.metadata.signature.outputs.input_names()


def test_it_replaces_an_earlier_model_and_nothing_else(saved, bundle, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    for folder in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(ValueError, match="is not an MLflow model: choose another folder"):
            mlflow_model.save(bundle, folder)
    assert [*tmp_path.iterdir()] == [tmp_path / "notes.txt"]
    copy = shutil.copytree(saved, tmp_path / "model")
    (copy / "left").touch()
    command = [sys.executable, FILES / "mlflow_model.py", bundle, copy]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{copy}\n", "")
    assert not (copy / "left").exists() and (copy / "MLmodel").exists()
    done = subprocess.run([*command[:2], tmp_path, copy], capture_output=True, text=True)
    assert done.returncode == 2 and "is not a bundle: build_bundle" in done.stderr
    assert (copy / "MLmodel").exists()


VALIDATE = """
import sys
from azure.ai.ml import load_online_deployment

deployment = load_online_deployment(sys.argv[1], params_override=[{"model.path": sys.argv[2]}])
assert deployment.model.type == "mlflow_model" and deployment.code_configuration is deployment.environment is None
print(deployment.endpoint_name)
"""


@pytest.mark.xdist_group("azure-ai-ml")
def test_the_file_of_the_deployment_without_code_is_valid(azure_python, saved):
    path = FILES / "azure" / "deployment-mlflow.yml"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (path.parent / given["model"]["path"]).resolve() == PROJECT_ROOT / "outputs" / "mlflow"
    command = [azure_python, "-c", VALIDATE, path, os.path.relpath(saved, path.parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "isicvision\n", done.stderr
