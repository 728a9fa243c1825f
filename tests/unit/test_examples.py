"""The examples in the docstrings give what they say."""

import doctest
import importlib
import pkgutil
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest

import isicvision
from isicvision import PROJECT_ROOT, Evaluation, ImageDataset

sys.path += [str(PROJECT_ROOT / "sample_data"), str(PROJECT_ROOT / "code/03_deployment")]

MODULES = [each.name for each in pkgutil.walk_packages(isicvision.__path__, "isicvision.")]
MODULES += ["notebook_parameters", "sample_archive", "drift"]


@pytest.fixture(scope="module")
def ready():
    """Return what an example on plots or widgets need not make: the bundled sample, and an evaluation of 100 images."""
    sample = PROJECT_ROOT / "sample_data"
    dataset = ImageDataset.from_csv(
        sample / "metadata.csv",
        images=sample / "images",
        label_column="diagnosis_1",
        group_column="lesion_id",
        label_map={"Benign": "benign", "Malignant": "malignant"},
    )
    evaluation = Evaluation.from_scores(["benign", "malignant"] * 50, np.arange(100) * 7 % 100 / 100)
    return {"dataset": dataset, "evaluation": evaluation}


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_say(name, ready, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    given = ready if name.startswith(("isicvision.plots.", "isicvision.widgets.")) else {}
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs=given, optionflags=doctest.ELLIPSIS)
    plt.close("all")
    assert found.failed == 0
