"""Trainings in processes of their own: killed and resumed, in two processes, and what they do to memory."""

import json
import os
import runpy
import subprocess
import sys
from argparse import Namespace

import numpy as np
import pytest

from isicvision import PROJECT_ROOT, ImageClassifier

SCRIPT = PROJECT_ROOT / "code" / "02_modeling" / "train.py"

JOB = """
import sys, psutil
from isicvision.model import training
from isicvision import ImageClassifier, ImageDataset, augment_dataset
from imgaug import augmenters as iaa
dataset, folder, kill_at = ImageDataset.load(sys.argv[1]), sys.argv[2], int(sys.argv[3])
train, validation = dataset.split(0.5, 0.5)
step, count = training.Training._step, 0
def counted(self, *arguments):
    global count
    count += 1
    if count == kill_at:
        psutil.Process().kill()
    return step(self, *arguments)
training.Training._step = counted
validate = training.Training._validate
def killed(self, *arguments):
    if kill_at < 0 and self.at["epoch"] == 1:
        psutil.Process().kill()
    return validate(self, *arguments)
training.Training._validate = killed
training.CHECKPOINT_SECONDS = 0  # after every step
model = ImageClassifier("shufflenet_v2_x0_5", ["benign", "malignant"], weights=None, image_size=64, dropout=0.3)
history = model.fit(
    augment_dataset(train, iaa.Sequential([iaa.Fliplr(0.5), iaa.Multiply((0.8, 1.2))])), validation,
    checkpoint=folder + "/checkpoint", epochs=3, batch_size=5, learning_rate=0.002, schedule="one_cycle",
    optimizer="adamw", ema=0.9, keep="best", precision="fp32", accumulate=2)
model.save(folder + "/model")
history.table.drop(columns="seconds").to_csv(folder + "/history.csv")
"""


def job(dataset, folder, kill_at=0):
    folder.mkdir(parents=True, exist_ok=True)
    table = dataset.save(folder / "dataset.csv")
    command = [sys.executable, "-c", JOB, str(table), str(folder), str(kill_at)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_killed_run_goes_on_to_the_same_bits(dataset, tmp_path):
    whole = job(dataset, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    for kill_at in (6, -1):  # within the second epoch, and between its last step and its end
        folder = tmp_path / f"killed{kill_at}"
        killed = job(dataset, folder, kill_at)
        assert killed.returncode and "Traceback" not in killed.stderr and not (folder / "model").exists()
        resumed = job(dataset, folder)
        assert resumed.returncode == 0 and "resuming from" in resumed.stdout
        for name in ("history.csv", "model/network.safetensors"):
            assert (tmp_path / "whole" / name).read_bytes() == (folder / name).read_bytes(), name


SHARED = """
import sys, json
from isicvision import ImageClassifier, ImageDataset, augment_dataset
from imgaug import augmenters as iaa
from accelerate import PartialState
dataset, folder = ImageDataset.load(sys.argv[1]), sys.argv[2]
train, validation = dataset.split(0.5, 0.5)
model = ImageClassifier("efficientnet_lite0", dataset.labels, image_size=96, dropout=0.3)
history = model.fit(
    augment_dataset(train, iaa.Fliplr(0.5)), validation, epochs=3, batch_size=6, learning_rate=1e-3,
    optimizer="adamw", frozen_stages=2, accumulate=2, keep="best", precision="fp32", checkpoint=folder + "/checkpoint")
state = PartialState()
result = {"processes": state.num_processes, "loss": history.step_loss, "auc": history.table.validation_roc_auc.tolist()}
json.dump(result, open(f"{folder}/{state.process_index}.json", "w"))
if state.is_main_process:
    model.save(folder + "/model")
"""


def test_two_processes_train_one_model(dataset, tmp_path):
    script, table = tmp_path / "job.py", dataset.save(tmp_path / "dataset.csv")
    script.write_text(SHARED, encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launch, str(script), str(table), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (json.loads((tmp_path / f"{n}.json").read_text(encoding="utf-8")) for n in range(2))
    assert one == other and one["processes"] == 2 and len(one["loss"]) == 6
    assert np.isfinite(one["loss"]).all() and one["loss"][-1] < one["loss"][0]
    scores = ImageClassifier.load(tmp_path / "model").predict_proba(dataset)
    assert np.isfinite(scores).all() and (tmp_path / "checkpoint" / "checkpoint.safetensors").exists()


MEMORY = """
import resource
from pathlib import Path
import torch
from isicvision.model import devices

def faults():  # pages that the system had to clear
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 2**20)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

usual, before = [faults() for _ in range(4)][-1], resident()
with devices.memory_kept():
    assert [faults() for _ in range(4)][-1] < usual / 10
    assert resident() > before + 50
assert resident() < before + 20
"""


@pytest.mark.skipif(sys.platform != "linux", reason="knows glibc only")
def test_memory_of_large_tensors_is_kept_between_steps_and_given_back_at_the_end():
    subprocess.run([sys.executable, "-c", MEMORY], check=True, timeout=120)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sensitivity: 3", "no notebook has a parameter sensitivity; did you mean SENSITIVITY?"),
        ("EPOCHS: 3", "no notebook has a parameter EPOCHS; write SETTINGS: {epochs: …}"),
        ("SENSITIVITY: 90", "SENSITIVITY is a share .*not 90"),
        ("SETTINGS: {label_smothing: 0.1}", "did you mean label_smoothing?"),
        ("PREVALENCE: 5", "PREVALENCE is a share"),  # of another notebook
        ("MODEL: model_featurs", "did you mean model_features?"),
    ],
)
def test_the_job_refuses_what_make_run_refuses(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        runpy.run_path(str(SCRIPT))["read"](Namespace(parameters="p.yaml", rerun=None, outputs=tmp_path))


def test_the_job_takes_a_file_that_make_run_takes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.yaml").write_text(
        "SOURCE: elsewhere\nSEED: 3\nSENSITIVITY: 8e-1\nWEIGHTS: None\nSLICES: [sex]", encoding="utf-8"
    )
    job = runpy.run_path(str(SCRIPT))
    parameters, _ = job["read"](Namespace(parameters="p.yaml", rerun=None, outputs=None))
    assert parameters == job["PARAMETERS"] | {"SEED": 3, "SENSITIVITY": 0.8, "WEIGHTS": None}


def test_the_job_names_a_positive_label_that_no_image_has_before_the_training(folder, tmp_path):
    (tmp_path / "p.yaml").write_text("POSITIVE: Malignant", encoding="utf-8")
    command = [sys.executable, SCRIPT, "--data", folder, "--parameters", tmp_path / "p.yaml"]
    done = subprocess.run([*command, "--outputs", tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.splitlines()[-1] == (
        "the positive label 'Malignant' is not one of benign, malignant; did you mean malignant?"
    )
    assert "Traceback" not in done.stderr and "epoch" not in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "/nope"], "/nope is not a folder"),
        (["--checkpoint", SCRIPT], "--checkpoint: nothing can be written to"),
        ([], "dataset.csv is not there yet"),
    ],
)
def test_the_job_says_in_a_line_what_it_cannot_read_or_write(options, message, tmp_path):
    command = [sys.executable, SCRIPT, "--outputs", tmp_path / "out", *options]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()


def test_the_model_is_saved_before_it_is_calibrated(dataset, tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no calibration today")

    monkeypatch.setattr(ImageClassifier, "calibrate", fails)
    job = runpy.run_path(str(SCRIPT))
    quick = {"image_size": 64, "train_image_size": 64, "epochs": 1, "precision": "fp32"}
    with pytest.raises(RuntimeError, match="no calibration today"):
        job["train"](job["PARAMETERS"] | {"OUTPUTS": str(tmp_path), "SETTINGS": quick}, dataset)
    assert len(ImageClassifier.load(tmp_path / "model").predict_proba(dataset)) == len(dataset)
    notebook = json.loads(SCRIPT.with_name("01_train.ipynb").read_text(encoding="utf-8"))
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    assert code.index("model.fit(") < code.index("model.save(") < code.index("model.finish(")
