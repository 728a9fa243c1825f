import ast
import json
import os
import re
from pathlib import Path

import pytest
from conftest import POSIX
from hypothesis import given
from hypothesis import strategies as st

import notebook_parameters as parameters
from isicvision import findings
from isicvision.files import located

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "code").glob("0*/*.ipynb"))


def declared(path):
    """The parameters of a notebook, as its cell has them."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", []):
            exec("".join(cell["source"]), values := {})
            return {name: value for name, value in values.items() if name.isupper()}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_parameter_of_a_notebook_has_a_check_which_its_default_passes(path):
    values = declared(path)
    assert set(values) <= set(parameters.CHECKS)
    assert parameters.check(values | {"__doc__": None, "others": 1}) == values


TRAIN = declared(ROOT / "code/02_modeling/01_train.ipynb")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"SENSITIVITY": 90}, "SENSITIVITY is a share .*not 90"),
        ({"SENSITIVITY": "0.9"}, "SENSITIVITY is a share .*not '0.9'"),
        ({"SENSITIVITY": float("nan")}, "SENSITIVITY is a share above 0, at most 1, not nan"),
        ({"SETTINGS": {"dropout": 30}}, "SETTINGS: dropout is a probability from 0 to below 1, not 30"),
        ({"SETTINGS": {"l2": "1e-4"}}, "SETTINGS: l2 is a weight decay .*not '1e-4'"),
        ({"SETTINGS": {"learning_rate": [0.1] * 3}}, "SETTINGS: learning_rate has 3 values for 4 epochs"),
        ({"SETTINGS": {"epochs": -1}}, "SETTINGS: epochs is a whole number of 1 or more, not -1"),
        ({"SETTINGS": {"epochs": [1]}}, r"SETTINGS: epochs is a whole number of 1 or more, not \[1\]"),
        (
            {"SETTINGS": {"learning_rate": [0.1] * 3 + [-1]}},
            "SETTINGS: learning_rate is one or more positive",
        ),
        ({"SETTINGS": {"learning_rate": []}}, "SETTINGS: learning_rate has 0 values"),
        ({"SETTINGS": {"label_smothing": 0.1}}, "SETTINGS: unknown .*did you mean label_smoothing?"),
        ({"SETTINGS": {"label_smoothing": 3}}, "SETTINGS: label_smoothing is a share .*not 3"),
        ({"SETTINGS": {"train_image_size": 32}}, "SETTINGS: train_image_size is a number of pixels, 64"),
        *(
            ({"COLLECTIONS": wrong}, "COLLECTIONS is a list of names or numbers, or None, not ")
            for wrong in ([], [None], [True], [0], [" "], "HAM10000", 212, [["HAM10000"]])
        ),
        *(
            ({"LABEL_MAP": wrong}, "LABEL_MAP is lines such as mel: malignant, each label once")
            for wrong in ({"nv": ["b"]}, {"nv": {"b": 1}}, {" ": "b"}, {"nv": "a", "nv ": "b"}, {})
        ),
        ({"SETTINGS": ["a"]}, "SETTINGS is a map such as {epochs: 12, dropout: 0.3}"),
        ({"PRESET": "fast", "SETTINGS": {"ema": 2}}, "SETTINGS: ema is None or a decay"),
        ({"PRESET": "Fats"}, "PRESET is one of fast, .*did you mean fast?"),
        ({"PRESET": "fast", "BACKBONE": "vit_b_16"}, "PRESET fast: vit_b_16 takes images of 224 px only"),
        ({"BACKBONE": "resnet81"}, "BACKBONE: unknown network 'resnet81'. Did you mean resnet18"),
        (
            {"BACKBONE": "inception_v3", "SETTINGS": {"image_size": 64}},
            "image_size is a number of pixels, 75 or",
        ),
        ({"SETTINGS": {"image_size": 32}}, "SETTINGS: image_size is a number of pixels, 64 or more, not 32"),
        ({"SETTINGS": {"optimizer": "Adam"}}, "SETTINGS: optimizer is 'sgd' or 'adamw', not 'Adam'"),
        ({"WEIGHTS": "~/no.pth"}, "WEIGHTS is imagenet, a .pth .* or None, not '/.*/no.pth'"),
        ({"WEIGHTS": "README.md"}, "WEIGHTS is imagenet, a .pth or .safetensors file of weights"),
        ({"OUTPUTS": "README.md/x"}, "OUTPUTS: nothing can be written to .*README.md/x .*another folder"),
        pytest.param({"OUTPUTS": "/proc/xx"}, "OUTPUTS: nothing can be written to /proc/xx", marks=POSIX),
        ({"SETTINGS": {"frozen_stages": 50}}, "frozen_stages is 50, but efficientnet_lite0 has 9 stages"),
        ({"SETTINGS": {1: 2}}, "SETTINGS: unknown training setting 1. There are"),
        ({"SETTINGS": {"EPOCHS": 3}}, "unknown training setting 'EPOCHS'; did you mean epochs?"),
        (
            {"MODEL": ".."},
            "MODEL is model, model_features, model_patient or another folder with a model.json in",
        ),
        ({"MAX_SIDE": 63}, "MAX_SIDE is a number of pixels, 64 or more"),
        ({"SOURCE": "ftp://x"}, "SOURCE is sample, isic, the URL"),
        ({"SOURCE": "http://"}, "SOURCE is sample, isic, the URL"),
        ({"SERVICE": "abc-"}, "SERVICE is .*no dash last"),
        *(({"SETTINGS": {"views": views}}, "SETTINGS: views is one of") for views in (4.0, "2", True, 3)),
        *(({"POSITIVE": wrong}, "POSITIVE is a label") for wrong in (["malignant"], float("nan"), "", " ")),
        ({"PATIENT_COLUMNS": {"height": "cm"}}, "PATIENT_COLUMNS is a map such as .* of age, sex and site"),
        ({"SEED": None}, "SEED is a whole number; None is for 01_acquire"),
        ({"OUTPUTS": 5}, "OUTPUTS is a folder, not 5"),
        ({"SENSITIVITY": 2, "SEED": -1}, "wrong parameters:\n  SEED is .*\n  SENSITIVITY is"),
        ({"SLICES": "sex"}, "SLICES is a list of names"),
        ({"EXCLUDE": ["label conflict", "tinny"]}, "EXCLUDE is a list of findings: .*label conflict"),
        ({"MODEL": "model_featurs"}, "MODEL is model, .*did you mean model_features?"),
        ({"SOURCE": "no/folder"}, "SOURCE is sample, isic, .*not 'no/folder'"),
        ({"SERVICE": "Mine"}, "SERVICE is 3 to 32 lower-case"),
        ({"MEASUREMENTS": "docs"}, "MEASUREMENTS is a folder with settings.csv"),
    ],
)
def test_a_wrong_parameter_is_named_with_what_is_right(wrong, message):
    with pytest.raises(ValueError, match=message):
        parameters.check(TRAIN | wrong)


def test_what_was_chosen_well_passes():
    for right in (
        {"PRESET": None, "SETTINGS": {"epochs": 3, "learning_rate": 0.01, "image_size": 224, "views": 2}},
        {"SETTINGS": {"epochs": 2, "learning_rate": (0.1, 0.2)}},
        {"POSITIVE": 1, "WEIGHTS": None, "SETTINGS": {"schedule": "cosine", "learning_rate": 0.1}},
    ):
        parameters.check(TRAIN | right)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(parameters.CHECKS)), VALUES)
def test_whatever_a_file_says_is_right_or_refused_by_name(name, value):
    try:
        parameters.check(TRAIN | {name: value})
    except ValueError as error:
        assert name in str(error)


def test_a_positive_label_that_no_image_has_is_named_with_those_there_are():
    assert parameters.positive(1, ["0", "1"]) == "1" and parameters.positive(None, ["a", "b"]) is None
    with pytest.raises(ValueError, match=r"'Malignant' is not one of benign, malignant; did you mean mal"):
        parameters.positive("Malignant", ["benign", "malignant"])
    with pytest.raises(ValueError, match="'zzz' is not one of a, b"):
        parameters.positive("zzz", ["a", "b"])


def test_the_findings_to_exclude_are_those_of_the_data_report():
    assert set(parameters.EXCLUDED) == set(findings.WHY)


def test_relative_paths_start_at_the_repository_in_its_notebooks_and_at_the_folder_elsewhere(
    tmp_path, monkeypatch
):
    assert located("outputs") == "outputs" and located(tmp_path) == str(tmp_path)
    monkeypatch.chdir(ROOT / "code" / "02_modeling")
    assert located("outputs") == located(located("outputs")) == str(ROOT / "outputs")
    assert parameters.check(TRAIN)["OUTPUTS"] == str(ROOT / "outputs")
    monkeypatch.chdir(tmp_path)
    assert located("outputs") == "outputs"
    assert located("~/a") == os.path.expanduser("~/a") and located("~nobody_here/a") == "~nobody_here/a"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_copied_cell_stays_in_its_folder_and_a_notebook_checks_its_parameters_first(path):
    cells = [
        cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"
    ]
    code = ["".join(cell["source"]) for cell in cells]
    assert not [text for text in code if "chdir" in text]
    statements = ast.parse(re.sub("^%.*", "", code[1], flags=re.MULTILINE)).body
    first = next(line for line in statements if not isinstance(line, ast.Import | ast.ImportFrom))
    assert "parameters.check(globals())" in ast.unparse(first)


def test_a_folder_in_which_no_model_can_be_saved_is_found_before_the_training(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / ".DS_Store").touch()
    parameters.check({"OUTPUTS": str(tmp_path)})
    (tmp_path / "model" / "thesis.docx").touch()
    with pytest.raises(ValueError, match="OUTPUTS: .*model is not a model"):
        parameters.check({"OUTPUTS": str(tmp_path)})
    (tmp_path / "model" / "model.json").touch()
    parameters.check({"OUTPUTS": str(tmp_path)})


def test_a_folder_that_can_be_written_is_left_as_it_is(tmp_path):
    assert parameters.unwritable(tmp_path / "new" / "deep") is parameters.unwritable(tmp_path) is None
    assert not [*tmp_path.iterdir()]
