"""The training pipeline: its steps as Azure runs them, on this machine, and what the gate stops."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from conftest import draw

import evaluate
import gate
import pipeline
import prepare
import register
import train
from isicvision import PROJECT_ROOT, Evaluation, ImageClassifier, ImageDataset, Outputs, record

SCRIPT = PROJECT_ROOT / "code" / "02_modeling" / "pipeline.py"
SAMPLE = PROJECT_ROOT / "sample_data"
TINY = {
    "LABEL_COLUMN": "diagnosis_1",
    "PRESET": None,
    "BACKBONE": "resnet18",
    "WEIGHTS": None,
    "SETTINGS": {"image_size": 64, "epochs": 3, "learning_rate": 0.001, "precision": "fp32"},
}
pytestmark = pytest.mark.xdist_group("pipeline")  # the pipeline runs once for all


def run(outputs, parameters, **options):
    """Run the pipeline on the sample; return the process."""
    command = [sys.executable, SCRIPT, "--local", "--parameters", parameters, "--outputs", outputs]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)


@pytest.fixture(scope="module")
def parameters(tmp_path_factory):
    path = tmp_path_factory.mktemp("parameters") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def ran(tmp_path_factory, parameters):
    """The outputs of a pipeline whose training was killed and resumed, and what both runs printed."""
    outputs = tmp_path_factory.mktemp("outputs")
    said = []
    with run(outputs, parameters) as process:
        deadline = time.monotonic() + 900
        while not (outputs / "pipeline" / "checkpoint" / "checkpoint.safetensors").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.stdout.read()
            time.sleep(0.02)
        (step,) = psutil.Process(process.pid).children()
        step.send_signal(signal.SIGKILL)
        said.append((process.communicate(timeout=60)[0], process.returncode))
    with run(outputs, parameters) as process:
        said.append((process.communicate(timeout=900)[0], process.returncode))
    return outputs, said


def registry(outputs):
    """Return every file of the registry, with the time of its last change."""
    files = (outputs / "registry").rglob("*")
    return {path.relative_to(outputs): path.stat().st_mtime_ns for path in files if path.is_file()}


@pytest.fixture
def evaluated(ran, tmp_path, monkeypatch):
    """A copy of what the step evaluate left, in the folder where the paths of its tables start."""
    monkeypatch.chdir(SAMPLE)
    return Outputs(shutil.copytree(ran[0] / "pipeline" / "evaluated", tmp_path / "evaluated"))


def decided(evaluated, *options):
    """Run gate.py in the folder of the images; return its status and what is in decision.json."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(
            sys, "argv", ["gate.py", "--data", str(SAMPLE), "--evaluated", str(evaluated.folder), *options]
        )
        gate.main()
    decision = json.loads((evaluated.folder / "decision.json").read_text(encoding="utf-8"))
    assert ended.value.code == (not decision["passed"])
    return ended.value.code, decision


def test_a_killed_training_resumes_and_the_first_model_is_registered(ran):
    outputs, ((killed, status), (said, second)) = ran
    assert status == 2 and "train    " in killed and "was killed (signal 9)" in killed, killed
    assert second == 0, said
    assert "resuming from" in (outputs / "pipeline" / "train.log").read_text(encoding="utf-8")
    assert re.findall(r"^(\w+) +\d+ s  ", said, re.MULTILINE) == [
        *("prepare", "train", "evaluate", "gate", "register")
    ]
    assert "passed\n" in said and "no registered model: there is nothing to compare with" in said
    version = outputs / "registry" / "isicvision" / "1"
    assert (version / "MLmodel").is_file() and not (outputs / "pipeline" / "checkpoint").exists()
    training = Outputs(version / "training")
    assert json.loads((training.folder / "decision.json").read_text(encoding="utf-8"))["passed"] is True
    assert (training.model / "README.md").is_file()
    assert [*record.earlier_parts(training.split)["test"].table] == ["path", "label", "group"]


def test_the_same_model_again_is_not_worse_than_the_registered_one(ran, evaluated):
    status, decision = decided(evaluated, "--registered", str(ran[0] / "registry" / "isicvision" / "1"))
    assert status == 0 and [*decision["comparison"]] == ["all", "confirmed alike"]
    assert all(found["difference"] == 0 for found in decision["comparison"].values())
    assert decision["compared"]["new"] == decision["compared"]["registered"]


def test_a_registered_model_that_learned_test_lesions_stops_the_whole_pipeline(ran, parameters, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(ran[0] / "registry", outputs / "registry")
    shutil.rmtree(outputs / "registry" / "isicvision" / "1" / "training" / "split")  # so it is dealt anew
    other = tmp_path / "other.yaml"
    other.write_text(
        yaml.safe_dump(TINY | {"SEED": 7, "SETTINGS": TINY["SETTINGS"] | {"epochs": 1}}), encoding="utf-8"
    )
    before = registry(outputs)
    with run(outputs, other) as process:
        said = process.communicate(timeout=900)[0]
    assert process.returncode == 1, said
    assert "refused, so nothing is registered" in said and "register  " not in said
    assert re.search(r"the registered model was trained on \d+ of the \d+ test images", said)
    assert registry(outputs) == before


def test_a_registered_model_with_other_labels_stops_it_with_what_to_do(ran, evaluated, tmp_path):
    version = shutil.copytree(ran[0] / "registry" / "isicvision" / "1", tmp_path / "1")
    path = Outputs(version / "training").model / "model.json"
    path.write_text(re.sub('"benign"', '"nevus"', path.read_text("utf-8"), flags=re.I), encoding="utf-8")
    status, decision = decided(evaluated, "--registered", str(version))
    (reason,) = decision["reasons"]
    assert status == 1 and not decision["comparison"] and "nevus, malignant" in reason.lower()
    assert re.match("the labels differ: benign, malignant, .*; register it apart", reason, re.IGNORECASE)


def test_a_model_without_a_card_is_stopped(evaluated):
    for spoil in (
        lambda card: card.write_text("\n", encoding="utf-8"),
        lambda card: card.write_text("# Model card\n\n<!-- to be\nwritten -->\n## Data\n", encoding="utf-8"),
        lambda card: card.write_bytes(b"\xff\xfe\0"),
        Path.unlink,
    ):
        spoil(evaluated.model / "README.md")
        status, decision = decided(evaluated)
        assert status == 1 and "the model has no card" in decision["reasons"][0]


def changed(path, change):
    """Change what a JSON file holds by a function."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run["split"].pop("test"), "does not say which images were the test part"),
        (
            lambda run: run["split"].update(validation={}),
            "does not say which images were the validation part",
        ),
        (lambda run: run["split"]["test"].update(manifest="0"), "is not the test part"),
        (lambda run: run["training"].update(finished="yesterday"), "is of another model than model.json"),
        (lambda run: run["model"].clear(), "is of another model than model.json"),
        (lambda run: run["metrics"]["roc_auc"].update(value=0.99), "the roc_auc in run.json is not that"),
        (lambda run: run["metrics"].pop("recall"), "the recall in run.json is not that of the predictions"),
        (lambda run: run.update(metrics=None), "of another model or of other test images"),
    ],
)
def test_a_record_that_does_not_agree_is_stopped(evaluated, change, words):
    changed(evaluated.model / "run.json", change)
    status, decision = decided(evaluated)
    assert status == 1 and words in decision["reasons"][0]


def test_predictions_that_the_model_did_not_make_are_stopped(evaluated):
    made = Evaluation.load(evaluated.predictions)
    better = Evaluation.from_scores(
        made.table["label"],
        made.table["label"] == "malignant",
        None,
        made.classes,
        made.positive,
        made.table[["path", "group"]],
        made.threshold,
    )
    better.save(evaluated.predictions)
    record.add_metrics(better, evaluated.model)
    status, decision = decided(evaluated)
    assert status == 1 and "the predictions are not those of the model" in decision["reasons"][0]


def test_any_error_in_the_gate_is_told_from_a_refusal(evaluated, monkeypatch, capsys):
    monkeypatch.setattr(gate, "decide", lambda *_: {}["metrics"])
    monkeypatch.setattr(sys, "argv", ["gate.py", "--evaluated", str(evaluated.folder)])
    with pytest.raises(SystemExit) as ended:
        gate.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("unexpected KeyError: 'metrics'")


def pair(benign, malignant):
    """Two evaluations of as many lesions: one all right, one all wrong."""
    labels = ["benign"] * benign + ["malignant"] * malignant
    scores = np.repeat([0.2, 0.8], [benign, malignant]) + np.arange(len(labels)) / 1000
    return [Evaluation.from_scores(labels, each) for each in (1 - scores, scores)]


def test_too_few_lesions_of_a_label_refuse_nothing():
    few, enough = (gate.compare(*pair(count, 30))["all"] for count in (4, 5))
    assert few["not_worse"] is None and few["noticeable"] is None
    assert gate.words("all", few).endswith("too few lesions of a label to say, 5 of each are needed")
    assert enough["not_worse"] is False


def test_where_too_few_lesions_can_tell_a_lower_area_is_refused():
    worse, better = pair(4, 30)
    for new, old, is_stopped in ((worse, better, True), (better, worse, False), (better, better, False)):
        found = gate.compare(new, old)["all"]
        assert found["not_worse"] is None and gate.stops("all", found) == is_stopped
        assert not gate.stops("confirmed alike", found)


def test_the_gate_does_not_claim_to_notice_a_loss_above_1():
    found = gate.compare(*pair(5, 5))["all"] | {"noticeable": None}
    assert "so few lesions notice no loss in four of five cases" in gate.words("all", found)
    wide = pd.Series(
        {"first": 0.5, "second": 0.5, "difference": 0.0, "low": -1.0, "high": 0.95, "sentence": ""}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate.comparison, "compare", lambda *_: wide)
        assert gate.compare(*pair(5, 5))["all"]["noticeable"] is None


def test_copies_under_other_names_are_set_aside_before_the_training(tmp_path):
    for number in range(12):
        draw(
            tmp_path / "images" / ("benign", "malignant")[number % 2] / f"{number}.png", (99, 99, 99), number
        )
    shutil.copy(tmp_path / "images" / "benign" / "0.png", tmp_path / "images" / "benign" / "copy.png")
    dataset, _ = prepare.prepare(prepare.PARAMETERS | {"SOURCE": tmp_path / "images"}, tmp_path / "prepared")
    assert len(dataset) == 12 and len(dataset.set_aside) == 1
    assert dataset.set_aside["path"][0].endswith("copy.png")
    assert re.match(r"exact duplicate: the same bytes as .*0\.png, which", dataset.set_aside["reason"][0])


def test_a_registry_with_a_folder_that_holds_no_model_is_named(tmp_path):
    assert pipeline.versions(tmp_path / "none") == []
    for name in ("2", "10"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "MLmodel").touch()
    (tmp_path / "11").touch()
    (tmp_path / "notes").mkdir()
    assert [each.name for each in pipeline.versions(tmp_path)] == ["2", "10"]
    assert pipeline.next_version(tmp_path).name == "12"
    (tmp_path / "12").mkdir()
    with pytest.raises(ValueError, match=r"12 holds no registered model .* delete this folder"):
        pipeline.versions(tmp_path)


def test_register_demands_a_comparison_with_the_last_version(ran, evaluated, tmp_path):
    shutil.copytree(ran[0] / "registry" / "isicvision" / "1", tmp_path / "registry" / "1")
    first, second, decision = (
        tmp_path / "registry" / "1",
        tmp_path / "registry" / "2",
        evaluated.folder / "decision.json",
    )
    decided(evaluated)  # with nothing
    with pytest.raises(ValueError, match="compares with no model, and .*1 was registered last"):
        register.register(evaluated, decision, second)
    with pytest.raises(ValueError, match="compares with no model, and .*1 was registered last"):
        register.register(evaluated, decision, tmp_path / "elsewhere", first)
    decided(evaluated, "--registered", str(first))
    with pytest.raises(ValueError, match="compares with a registered model, but --registered names none"):
        register.register(evaluated, decision, tmp_path / "elsewhere")
    changed(decision, lambda said: said["compared"]["registered"].update(sha256="0"))
    with pytest.raises(ValueError, match="compares with another model, and .*1 was registered last"):
        register.register(evaluated, decision, second, first)
    for content in ("{}", '{"passed": true, "compared": [1]}'):
        decision.write_text(content, encoding="utf-8")
        with pytest.raises(ValueError, match=r"decision\.json is no decision of gate\.py: run code/.*again$"):
            register.register(evaluated, decision, second)
    assert not second.exists()


def test_a_lesion_in_two_parts_is_stopped(evaluated):
    train_part, test_part = (ImageDataset.load(evaluated.split / f"{name}.csv") for name in ("train", "test"))
    table = test_part.table
    table.loc[0, "group"] = train_part.table["group"][0]
    ImageDataset(table).save(evaluated.split / "test.csv")
    status, decision = decided(evaluated)
    assert status == 1 and "1 images or lesions are in several" in decision["reasons"][0]


def test_predictions_of_another_run_are_stopped(evaluated):
    made = Evaluation.load(evaluated.predictions)
    made.where(made.table.index > 0).save(evaluated.predictions)
    status, decision = decided(evaluated)
    assert status == 1 and "of other test images than these predictions" in decision["reasons"][0]


def test_a_worse_model_is_stopped(tmp_path, monkeypatch):
    for number in range(100):
        label, color = (("benign", (170, 120, 100)), ("malignant", (100, 120, 170)))[number % 2]
        draw(tmp_path / "images" / label / f"{number:02d}.png", color, number)
    monkeypatch.chdir(tmp_path / "images")
    p = prepare.PARAMETERS | {"SOURCE": tmp_path / "images"}
    dataset, _ = prepare.prepare(p, tmp_path / "prepared", relative=True)
    assert "benign/00.png" in dataset.paths and "benign/00.png" in {*dataset.table["group"]}
    quick = {
        "image_size": 64,
        "train_image_size": 64,
        "epochs": 4,
        "learning_rate": 0.001,
        "optimizer": "adamw",
    }
    outputs = Outputs(tmp_path / "trained")
    train.train(
        train.PARAMETERS | {"OUTPUTS": str(outputs.folder), "SETTINGS": quick},
        dataset,
        beside=Outputs(tmp_path / "prepared").split,
    )
    good = evaluate.evaluate_model(outputs, outputs)
    assert good.metric("roc_auc") > 0.8
    decision = outputs.folder / "decision.json"
    decision.write_text(
        json.dumps({"passed": True, "compared": {"new": gate.identity(outputs.model)}}), encoding="utf-8"
    )
    register.register(outputs, decision, tmp_path / "registry" / "1")

    model = ImageClassifier.load(outputs.model)
    parts = record.load_parts(outputs.split, outputs.model)
    head = [*model.network.parameters()][-2:]
    for values in head:  # each score is that of the other label
        values.data = values.data.flip(0)
    run_record = record.read(outputs.model / "run.json")
    record.write(model, parts, model.save(outputs.model), run_record["parameters"])
    evaluate.evaluate_model(outputs, outputs)
    decision = gate.decide(outputs, tmp_path / "registry" / "1")
    assert not decision.passed and "worse, ROC AUC" in decision.reasons[0]
    found = decision.comparison["all"]
    assert found["high"] < 0 and found["new"] < 0.2 < 0.8 < found["registered"]
    assert decision.compared["new"] != decision.compared["registered"]


def test_a_step_that_fails_ends_the_pipeline_with_what_it_said(tmp_path, capfd):
    (tmp_path / "images").mkdir()
    assert pipeline.run_local(tmp_path / "images", pipeline.DEFAULTS, tmp_path / "outputs") == 2
    said = capfd.readouterr().out
    assert "failed with status 2" in said and "prepare.log" in said and "train    " not in said
    assert f"{tmp_path / 'images'} has no images" in said.splitlines()[-1], said


def test_register_takes_only_what_passed(ran, evaluated, tmp_path):
    decision = evaluated.folder / "decision.json"
    told = {"passed": False, "reasons": ["it is worse"], "compared": {"new": gate.identity(evaluated.model)}}
    decision.write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ValueError, match="the gate refused this model: it is worse"):
        register.register(evaluated, decision, tmp_path / "2")
    decision.write_text(
        json.dumps(told | {"passed": True, "compared": {"new": {"sha256": "0"}}}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="is about another model"):
        register.register(evaluated, decision, tmp_path / "2")
    decision.write_text(json.dumps(told | {"passed": True}), encoding="utf-8")
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "MLmodel").touch()
    with pytest.raises(ValueError, match="a registered version never changes"):
        register.register(evaluated, decision, tmp_path / "1")
    shutil.rmtree(tmp_path / "1")
    with pytest.raises(FileNotFoundError, match=r"Run code/02_modeling/gate\.py first"):
        register.register(evaluated, tmp_path / "none.json", tmp_path / "2")
    assert not (tmp_path / "2").exists()


@pytest.mark.parametrize(
    ("script", "options", "status", "words"),
    [
        (prepare, [], 2, "--data is missing"),
        (prepare, ["--data", "/nope"], 2, "--data: /nope is not a folder"),
        (evaluate, ["--trained", "/nope"], 2, "/nope/split is not there yet"),
        (gate, ["--evaluated", "/nope"], 2, "/nope/model is not there yet"),
        (register, [], 2, "--outputs is missing"),
        (pipeline, ["--local", "--data", "/nope"], 2, "--data: /nope is not a folder"),
        (
            pipeline,
            ["--local", "--parameters", "/nope.yaml"],
            2,
            "--parameters: /nope.yaml is not there",
        ),
        (pipeline, ["--config", "/nope.json"], 2, "/nope.json is missing"),
    ],
)
def test_a_step_says_in_a_line_what_is_wrong(script, options, status, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # and back, wherever the script goes
    outputs = [] if script in (register, pipeline) else ["--outputs", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [script.__name__, *options, *outputs])
    with pytest.raises(SystemExit) as ended:
        script.main()
    said = capsys.readouterr().err or str(ended.value.code)
    assert words in said.splitlines()[-1] and not (tmp_path / "out").exists()
    assert ended.value.code == status
