"""The YAML files of the training pipeline, and how it is submitted: azure-ai-ml with nothing behind it."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import papermill
import psutil
import pytest
import yaml
from conftest import POSIX

import evaluate
import gate
import pipeline
import prepare
import register
import train
from isicvision import PROJECT_ROOT, Evaluation, ImageDataset, Outputs, record

AZURE = PROJECT_ROOT / "code" / "02_modeling" / "azure"
JOB = yaml.safe_load((AZURE / "pipeline.yml").read_text(encoding="utf-8"))
COMPONENTS = {
    step: yaml.safe_load((AZURE / about["component"]).read_text(encoding="utf-8"))
    for step, about in JOB["jobs"].items()
}


def test_steps_get_what_earlier_steps_and_the_pipeline_have():
    there = {f"parent.inputs.{name}" for name in JOB["inputs"]}
    for step, about in JOB["jobs"].items():
        component = COMPONENTS[step]
        for name, source in about["inputs"].items():
            assert name in component["inputs"] and source[3:-2] in there, (step, source)
        missing = {*component["inputs"]} - {*about["inputs"]}
        assert missing == {name for name in component["inputs"] if component["inputs"][name].get("optional")}
        there |= {f"parent.jobs.{step}.outputs.{name}" for name in component["outputs"]}


@pytest.mark.parametrize("step", COMPONENTS)
def test_a_components_command_has_each_input_and_output(step):
    component = COMPONENTS[step]
    declared = {f"{kind}.{name}" for kind in ("inputs", "outputs") for name in component[kind]}
    assert {*re.findall(r"\$\{\{(.*?)\}\}", component["command"])} == declared
    optional = {f"inputs.{name}" for name, about in component["inputs"].items() if about.get("optional")}
    assert {*re.findall(r"\$\[\[.*?\$\{\{(.*?)\}\}\]\]", component["command"])} == optional
    assert (AZURE / "components" / component["code"] / component["command"].split()[1]).resolve().is_file()
    assert {output["mode"] for output in component["outputs"].values()} == {"rw_mount"}


@pytest.fixture
def steps(monkeypatch, tmp_path):
    """Let the pipeline run no step: each takes the next of its statuses, with what it says; the rest end with 0."""
    told, ran = {}, []

    def run(component, places, log):
        step = component["display_name"]
        ran.append(step)
        status, words = told[step].pop(0) if told.get(step) else (0, "done")
        log.write_text(words, encoding="utf-8")
        if step == "gate" and status in (0, 1) and "decides" not in words:
            places["outputs.decision"].mkdir()
            decision = json.dumps({"passed": words == "done", "reasons": ["as planned"]})
            (places["outputs.decision"] / "decision.json").write_text(decision, encoding="utf-8")
        return status

    monkeypatch.setattr(pipeline, "run", run)
    return told, ran, lambda: pipeline.run_local(tmp_path, pipeline.DEFAULTS, tmp_path / "outputs")


@pytest.mark.parametrize(
    ("status", "words", "how"),
    [
        (1, "decides nothing", "failed with status 1"),
        (1, "done", "failed with status 1"),  # it crashed after it had passed the model
        (3, "a sentence", "failed with status 3"),
        (-9, "a sentence", "was killed (signal 9)"),
    ],
)
def test_a_gate_that_does_not_decide_is_a_failed_step(steps, capsys, status, words, how):
    told, ran, run_local = steps
    told["gate"] = [(status, words)]
    assert run_local() == 2 and ran[-1] == "gate"
    said = capsys.readouterr().out
    assert how in said and "gate.log" in said and f"\n{pipeline.INDENT}{words}" in said


def test_a_gate_that_refuses_ends_the_pipeline_with_1(steps, capsys):
    told, ran, run_local = steps
    told["gate"] = [(1, "refused")]
    assert run_local() == 1 and ran[-1] == "gate"
    assert "refused, so nothing is registered" in capsys.readouterr().out


def test_a_checkpoint_of_other_parameters_is_deleted_and_the_training_begins_anew(steps, capsys, tmp_path):
    told, ran, run_local = steps
    checkpoint = tmp_path / "outputs" / "pipeline" / "checkpoint"
    checkpoint.mkdir(parents=True)
    told["train"] = [(1, f"ValueError: c.safetensors {pipeline.OTHER_TRAINING}, with other epochs")]
    assert run_local() == 0 and ran == ["prepare", "train", "train", "evaluate", "gate", "register"]
    assert "deleted the checkpoint of a training with other parameters" in capsys.readouterr().out
    assert not checkpoint.exists()


def test_a_second_pipeline_in_the_same_folder_stops_with_a_sentence(monkeypatch, capsys, tmp_path):
    (tmp_path / "pipeline").mkdir()
    monkeypatch.setattr(pipeline, "end_with_steps", lambda: None)
    monkeypatch.setattr("sys.argv", ["pipeline.py", "--local", "--outputs", str(tmp_path)])
    with pipeline.alone(tmp_path), pytest.raises(SystemExit) as ended:
        pipeline.main()
    assert ended.value.code == 2
    assert f"another pipeline is at work in {tmp_path}" in capsys.readouterr().err


def ended_by(error, monkeypatch, *options):
    """Let a step of the pipeline end with an exception; return the pipeline's status."""

    def run(*_):
        raise error

    monkeypatch.setattr(pipeline, "run", run)
    monkeypatch.setattr(pipeline, "end_with_steps", lambda: None)
    monkeypatch.setattr(sys, "argv", ["pipeline.py", "--local", *options])
    with pytest.raises(SystemExit) as ended:
        pipeline.main()
    return ended.value.code


def test_ctrl_c_is_a_sentence_that_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    assert ended_by(KeyboardInterrupt(), monkeypatch, "--outputs", str(tmp_path)) == 130
    assert capsys.readouterr().err == f"\nStopped. {pipeline.AGAIN}\n"


ODD = "the labels differ: 痣, Nävus …"
IN_ASCII = """
import sys
from pathlib import Path

folder, decision, words = sys.argv[1:]
sys.path.insert(0, folder)
{start}
"""
PROGRAMS = {
    "pipeline": """
import pipeline
pipeline.run_local = lambda *_: print(pipeline.show(Path(decision), 0))
sys.argv = ["pipeline.py", "--local", "--outputs", str(Path(decision).parent)]
pipeline.main()
""",
    "steps": """
import steps
steps.command_line("")
print(words)
""",
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_letters_that_a_terminal_does_not_know_end_nothing(program, tmp_path):
    decision = tmp_path / "decision.json"
    decision.write_text(json.dumps({"passed": True, "reasons": [ODD]}), encoding="utf-8")
    command = [sys.executable, "-c", IN_ASCII.format(start=PROGRAMS[program]), AZURE.parent, decision, ODD]
    environment = os.environ | {"PYTHONPATH": str(AZURE.parents[1]), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "the labels differ: ?, N?vus ?" in done.stdout, done.stderr


def test_a_log_is_in_utf_8_whatever_the_terminal_is(monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    component = {
        "command": f"python -c 'print(\"{ODD}\")'",
        "code": "../../..",
        "environment_variables": {},
    }
    assert pipeline.run(component, {}, tmp_path / "log") == 0
    assert pipeline.lines(tmp_path / "log") == [ODD]


def test_the_other_environment_is_named(monkeypatch, capsys, tmp_path):
    missing = ModuleNotFoundError("No module named 'filelock'")
    assert ended_by(missing, monkeypatch, "--outputs", str(tmp_path)) == 2
    assert "No module named 'filelock'. Run it with .venv/bin/python, see docs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "lines"), [(OSError(28, "No space left on device"), 1), (KeyError("jobs"), None)]
)
def test_an_error_of_the_pipeline_itself_is_no_refusal(error, lines, monkeypatch, capsys, tmp_path):
    assert ended_by(error, monkeypatch, "--outputs", str(tmp_path)) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"pipeline.py: error: {error}" and lines in (None, len(said))
    assert (said[0] == "Traceback (most recent call last):") == (lines is None)


@pytest.mark.parametrize("script", [pipeline, prepare, train, evaluate, gate, register])
@pytest.mark.parametrize("option", ["--data", "--outputs"])
def test_an_empty_path_is_an_error_and_not_the_current_folder(script, option, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    local = ["--local"] if script is pipeline else []
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *local, option, ""])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2 and not [*tmp_path.iterdir()]
    expected = "unrecognized" if (script, option) == (register, "--data") else f"{option}: the path is empty"
    assert expected in capsys.readouterr().err


def test_scripts_read_what_the_one_before_wrote_whatever_the_current_folder_is(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    for script in (evaluate, gate, register):
        outputs = ["--outputs", str(tmp_path / "new")]
        monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *outputs])
        monkeypatch.setattr(Outputs, "require", lambda self, path: (_ for _ in ()).throw(ValueError(path)))
        with pytest.raises(SystemExit):
            script.main()
        assert str(PROJECT_ROOT / "outputs") in capsys.readouterr().err


def test_a_folder_for_azure_is_named_by_its_whole_path(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    parse = pipeline.command_line().parse_args
    assert parse(["--data", "mine"]).data == str(tmp_path / "mine")  # else it starts at pipeline.yml
    assert parse(["--data", "azureml:mine@latest"]).data == "azureml:mine@latest"


@POSIX
@pytest.mark.parametrize("begun", [True, False])
def test_ending_the_pipeline_ends_its_step(begun, tmp_path):
    """Also if SIGTERM comes while Popen has started the step and not returned."""
    component = {
        "command": "python -c 'import time; time.sleep(99)'",
        "code": "../../..",
        "environment_variables": {},
    }
    told = f"""
import os, signal, subprocess, sys
sys.path.insert(0, {str(AZURE.parent)!r})
import pipeline
start = subprocess.Popen._execute_child

def start_and_end(*arguments):
    start(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)

if not {begun}:
    subprocess.Popen._execute_child = start_and_end
pipeline.end_with_steps()
try:
    pipeline.run({component}, {{}}, {str(tmp_path / "log")!r})
finally:
    sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", told], stdin=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (steps := psutil.Process(process.pid).children()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if begun:
            process.terminate()
        process.stdin.close()
        assert process.wait(30) == 128 + signal.SIGTERM
    assert steps and not psutil.wait_procs(steps, 10)[1]


def test_all_components_share_one_environment():
    train = COMPONENTS["train"]
    for component in COMPONENTS.values():
        assert component["environment"] == train["environment"]
        assert component["environment_variables"] == train["environment_variables"]
    assert (AZURE / "components" / train["environment"]["conda_file"]).resolve() == AZURE / "conda.yml"


def test_an_optional_input_without_a_place_is_left_out():
    component = {"command": "python a.py $[[--b ${{inputs.b}}]] --c ${{outputs.c}}"}
    assert pipeline.command(component, {"outputs.c": "x y"})[1:] == ["a.py", "--c", "x y"]
    assert pipeline.command(component, {"inputs.b": 1, "outputs.c": 2})[1:] == [
        "a.py",
        "--b",
        "1",
        "--c",
        "2",
    ]


def test_the_defaults_of_prepare_are_the_notebooks():
    folder, declared = PROJECT_ROOT / "code", {}
    for path in sorted(folder.glob("0[12]*/0[12]_*.ipynb")):
        declared |= papermill.inspect_notebook(str(path))
    for name, value in prepare.PARAMETERS.items():
        assert eval(declared[name]["default"]) == value, name


def test_the_default_preset_is_that_of_train():
    assert pipeline.PRESET == train.PARAMETERS["PRESET"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("EPOCHS: 3", "no notebook has a parameter EPOCHS; write SETTINGS: {epochs: …}"),
        ("PRESET: balancd", "did you mean balanced?"),
        ("SETTINGS: {epochs: -3}", "epochs is a whole number of 1 or more, not -3"),
        ("PRESET: [", "cannot be read as a parameter file"),
    ],
)
@pytest.mark.parametrize("where", [["--local"], ["--config", "/nope.json"]])
def test_a_wrong_parameter_stops_the_pipeline_before_it_begins(
    given, words, where, tmp_path, monkeypatch, capsys
):
    path, outputs = tmp_path / "wrong.yaml", tmp_path / "outputs"
    path.write_text(given, encoding="utf-8")
    command = ["pipeline.py", *where, "--parameters", str(path), "--outputs", str(outputs)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        pipeline.main()
    assert ended.value.code == 2 and words in capsys.readouterr().err and not outputs.exists()


@pytest.mark.parametrize("script", [pipeline, prepare, train, evaluate, gate, register])
def test_outputs_that_cannot_be_written_are_an_error_and_no_refusal(script, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    options = {pipeline: ["--local"], prepare: ["--data", str(tmp_path)]}.get(script, [])
    monkeypatch.chdir(tmp_path)  # and back, wherever the script goes
    command = [f"{script.__name__}.py", *options, "--outputs", str(tmp_path / "file" / "below")]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2 and "nothing can be written to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "options", "words"),
    [
        (train, ["--prepared", "empty"], "Run code/02_modeling/prepare.py first."),
        (evaluate, ["--trained", "empty"], "Run code/02_modeling/train.py first."),
        (gate, ["--evaluated", "empty"], "Run code/02_modeling/train.py first."),
        (
            prepare,
            ["--data", "flat"],
            "give {}. If a CSV file holds the labels, write LABEL_COLUMN into the file",
        ),
    ],
)
def test_a_script_names_scripts_and_the_users_folder(script, options, words, tmp_path, monkeypatch, capsys):
    for name in ("empty", "flat"):
        (tmp_path / name).mkdir()
    (tmp_path / "flat" / "a.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [f"{script.__name__}.py", *options, "--outputs", "out"])
    with pytest.raises(SystemExit) as ended:
        script.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words.format(tmp_path) in said and "ipynb" not in said, said


@pytest.mark.parametrize(
    "error", [ValueError("a checkpoint is of another training"), RuntimeError("full disk")]
)
def test_an_error_in_the_training_ends_with_2(error, monkeypatch, capsys, tmp_path):
    rows = pd.DataFrame({"path": [str(tmp_path)], "label": ["nevus"], "group": ["a"]})
    ImageDataset(rows).save(Outputs(tmp_path).dataset)
    monkeypatch.setattr(train, "train", lambda *_: (_ for _ in ()).throw(error))
    monkeypatch.setattr(sys, "argv", ["train.py", "--outputs", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        train.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and str(error) in said.splitlines()[-1]
    assert ("Traceback" in said) == isinstance(error, RuntimeError)


def test_images_that_are_not_there_are_an_error_and_no_refusal(tmp_path, monkeypatch):
    outputs = Outputs(tmp_path)
    outputs.model.mkdir()
    (outputs.model / "model.json").write_text("{}", encoding="utf-8")
    (outputs.model / "README.md").touch()
    rows = pd.DataFrame({"path": ["images/a.jpg"], "label": ["nevus"], "group": ["a"]})
    record.save_parts(dict.fromkeys(record.PARTS, ImageDataset(rows)), outputs.split)
    monkeypatch.setattr(gate.ImageClassifier, "load", lambda path: SimpleNamespace(seen=None))
    monkeypatch.setattr(gate, "identity", lambda model: {})
    monkeypatch.setattr(gate.Evaluation, "load", lambda path: None)
    outputs.predictions.parent.mkdir()
    outputs.predictions.touch()
    monkeypatch.chdir(tmp_path)
    for decide in (gate.decide, lambda where: evaluate.evaluate_model(where, where)):
        with pytest.raises(
            FileNotFoundError, match="3 of 3 images are not there.*the folder of images by --data"
        ):
            decide(outputs)


def test_two_models_with_the_same_scores_have_no_noticeable_difference():
    labels = ["benign", "malignant"] * 20
    scores = np.random.default_rng(0).random(40)
    same, other = (Evaluation.from_scores(labels, each) for each in (scores, scores[::-1].copy()))
    rounded = Evaluation.from_scores(labels, scores + 5e-7)  # another batch, or a table, moves scores as far
    found = gate.compare(same, rounded)["all"]
    assert found["noticeable"] is None and found["not_worse"]
    assert "not worse, both models give the same scores, ROC AUC" in gate.words("all", found)
    found = gate.compare(same, other)["all"]
    assert found["noticeable"] > 0 and "in four of five cases" in gate.words("all", found)


@pytest.mark.parametrize(("lesions", "passes"), [(20, False), (2000, True)])
def test_in_doubt_the_registered_model_stays(lesions, passes):
    random = np.random.default_rng(0)
    labels = np.tile(["benign", "malignant"], lesions // 2)
    signal = 1.5 * (labels == "malignant") + random.normal(size=lesions)
    noisy = (1 / (1 + np.exp(-signal - 0.4 * random.normal(size=lesions))) for _ in range(2))
    one, other = (Evaluation.from_scores(labels, each) for each in noisy)
    new, old = sorted((one, other), key=lambda each: each.metric("roc_auc"))  # a little lower, by chance
    found = gate.compare(new, old)["all"]
    assert found["low"] < 0 < found["high"] and found["difference"] < 0
    assert (found["noticeable"] < gate.LARGE) == passes == found["not_worse"]
    assert ("perhaps worse" in gate.words("all", found)) != passes
    assert gate.compare(old, new)["all"]["not_worse"]


@pytest.mark.parametrize(("options", "status"), [(["--help"], 0), ([], 2)])
def test_scoring_an_archive_without_ray_names_the_extra(options, status, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "ORT_DISABLE_TELEMETRY"):  # the script sets them
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(sys, "argv", ["score_archive.py", *options])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(AZURE.parent / "score_archive.py"), run_name="__main__")
    said = capsys.readouterr()
    assert ended.value.code == status and 'pip install -c constraints.txt -e ".[ray]"' in said.out + said.err


CHECK = """
import json
import shutil
import sys
from pathlib import Path

code, copy, faults = sys.argv[1:]
sys.path.insert(0, f"{code}/02_modeling")
import pipeline
from azure.ai.ml import load_job

shutil.copytree(f"{code}/02_modeling/azure", f"{copy}/02_modeling/azure")
pipeline.PIPELINE = Path(copy, "02_modeling", "azure", "pipeline.yml")


def load(registered):
    job = load_job(pipeline.PIPELINE, params_override=pipeline.changes("azureml:mine@latest", None, registered))
    assert job._validate().passed, job._validate()
    job._to_rest_object()
    return job


def place(job, name):
    return job._to_rest_object().properties.inputs[name].uri


job = load(None)
assert place(job, "images") == "mine@latest", place(job, "images")
assert job.jobs["train"].distribution.process_count_per_instance == 2
output = job.jobs["register"].outputs["model"]
assert (output.type, output.name) == ("mlflow_model", "isicvision"), (output.type, output.name)
assert job.settings.continue_on_step_failure is False
job = load("azureml:isicvision:3")
assert place(job, "registered") == "isicvision:3"
assert {step for step, node in job.jobs.items() if "registered" in node.inputs} == {"prepare", "gate", "register"}
for name, old, new in json.loads(faults):
    path = pipeline.PIPELINE.parent / name
    text = path.read_text()
    assert old in text, (name, old)
    path.write_text(text.replace(old, new))
    try:
        load(None)
    except Exception:
        path.write_text(text)
    else:
        raise AssertionError((name, new))
"""
FAULTS = [
    ("components/gate.yml", "type: command", "type: order"),
    ("components/train.yml", "mode: rw_mount", "mode: rw"),
    ("components/prepare.yml", "optional: true", "optional: maybe"),
    ("components/register.yml", "../conda.yml", "../conda.yaml"),
    ("components/gate.yml", "code: ../../..", "code: ../../../absent"),
    ("pipeline.yml", "        name: isicvision", "        named: isicvision"),
    ("pipeline.yml", "components/gate.yml", "components/gates.yml"),
    ("pipeline.yml", "process_count_per_instance", "processes"),
    ("pipeline.yml", "      evaluated: ${{parent.jobs.evaluate.outputs.evaluated}}\n", ""),
]


@pytest.mark.xdist_group("azure-ai-ml")
def test_azure_ai_ml_takes_the_files_and_finds_planted_faults(azure_python, tmp_path):
    arguments = (PROJECT_ROOT / "code", tmp_path, json.dumps(FAULTS))
    done = subprocess.run([azure_python, "-c", CHECK, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SUBMIT = """
import json
import sys
from datetime import datetime
from types import SimpleNamespace
from unittest.mock import create_autospec, patch

from azure.ai.ml import MLClient
from azure.ai.ml.operations import JobOperations, ModelOperations, WorkspaceOperations
from azure.core import exceptions
from azure.core.pipeline.transport import HttpResponse
from azure.identity import CredentialUnavailableError

folder, config, fault = sys.argv[1:]
sys.path.insert(0, folder)
import pipeline

fault = json.loads(fault)
workspaces, models, jobs = (
    create_autospec(each, instance=True) for each in (WorkspaceOperations, ModelOperations, JobOperations)
)


def version(number, day):
    return SimpleNamespace(version=number, creation_context=SimpleNamespace(created_at=datetime(2026, 1, day)))


models.list.return_value = [version("9", 1), version("10", 2)]
jobs.create_or_update.return_value.studio_url = "https://studio/job"
if fault.get("status"):
    response = create_autospec(HttpResponse, instance=True, status_code=fault["status"], reason="reason")
    response.text.return_value = json.dumps({"error": fault["error"]})
    error = getattr(exceptions, fault["kind"])(response=response)
else:
    error = CredentialUnavailableError("Attempted credentials: many")
if fault:
    where, call = fault["call"].split(".")
    getattr({"workspaces": workspaces, "models": models, "jobs": jobs}[where], call).side_effect = error
with (
    patch.object(MLClient, "workspaces", workspaces),
    patch.object(MLClient, "models", models),
    patch.object(MLClient, "jobs", jobs),
):
    sys.argv = ["pipeline.py", "--config", config]
    try:
        pipeline.main()
    finally:
        sent = [call.args[0] for call in jobs.create_or_update.mock_calls]
        print([job.inputs["registered"].path if "registered" in job.inputs else None for job in sent])
"""
NO_WORKSPACE = {
    "code": "ResourceNotFound",
    "message": "The Resource 'Microsoft.MachineLearningServices/workspaces/w' under resource group 'g' was not found.",
}


@pytest.mark.xdist_group("azure-ai-ml")
@pytest.mark.parametrize(
    ("fault", "words", "sent"),
    [
        ({}, "https://studio/job", "['isicvision:10']"),
        (
            {"call": "models.list", "kind": "ResourceNotFoundError", "status": 404, "error": {"code": "x"}},
            "https://studio/job",
            "[None]",
        ),
        ({"call": "workspaces.get"}, "Azure does not know who you are: run `az login`", "[]"),
        (
            {"call": "workspaces.get", "kind": "ResourceNotFoundError", "status": 404, "error": NO_WORKSPACE},
            "There is no such workspace: the config.json may be an old one",
            "[]",
        ),
        (
            {"call": "workspaces.get", "kind": "HttpResponseError", "status": 404}
            | {
                "error": {
                    "code": "SubscriptionNotFound",
                    "message": "The subscription 's' could not be found.",
                }
            },
            "This login sees no such subscription",
            "[]",
        ),
        (
            {"call": "jobs.create_or_update", "kind": "HttpResponseError", "status": 400}
            | {"error": {"code": "BadRequest", "message": "Not enough quota available for the cluster"}},
            "The quota is too small",
            "['isicvision:10']",
        ),
    ],
)
def test_the_pipeline_is_submitted_or_says_what_azure_refuses(azure_python, fault, words, sent, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}), encoding="utf-8"
    )
    command = [azure_python, "-c", SUBMIT, AZURE.parent, config, json.dumps(fault)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert words in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
    assert done.stdout.splitlines()[-1] == sent
    assert done.returncode == (0 if words.startswith("https") else 2)  # 1 is a refusal of the gate
