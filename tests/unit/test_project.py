import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import isicvision
from isicvision.project import as_label, counted, read_parameters, replacing

IMPORT = """
import sys, time
started = time.perf_counter()
import isicvision
seconds = time.perf_counter() - started
heavy = {"torch", "azureml", "ipywidgets", "pandas", "matplotlib"} & set(sys.modules)
print(seconds, heavy or "none")
"""


def test_import_loads_nothing_heavy_and_is_quick():
    runs = [subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True) for _ in range(3)]
    assert {run.stdout.split()[1] for run in runs} == {"none"}
    assert min(float(run.stdout.split()[0]) for run in runs) < 0.5


def test_every_public_name_can_be_imported_and_has_a_docstring():
    for name in isicvision.__all__:
        assert getattr(isicvision, name).__doc__, name


def test_an_unknown_name_says_what_there_is_and_so_does_completion():
    with pytest.raises(AttributeError, match="ImageDataset"):
        isicvision.Dataset  # noqa: B018
    assert {"ImageDataset", "plots"} <= set(dir(isicvision))


def test_require_names_the_notebook_to_run_first(tmp_path):
    assert isicvision.require(tmp_path, made_by="x") == tmp_path
    with pytest.raises(FileNotFoundError, match=r"absent\.csv is not there yet.*02_train"):
        isicvision.require(tmp_path / "absent.csv", made_by="code/02_modeling/02_train.ipynb")


def test_a_file_is_replaced_when_the_new_one_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.csv.gz"
    with replacing(path) as part:
        assert part.name.endswith(path.name)
        part.write_text("old")
    with pytest.raises(OSError, match="no room"), replacing(path) as part:
        part.write_text("ne")
        raise OSError("no room")
    assert [file.name for file in path.parent.iterdir()] == ["table.csv.gz"] and path.read_text() == "old"
    with replacing(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_parameter_file_with_blank_settings_has_none(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("EPOCHS: 3\nSETTINGS:\nWEIGHTS:\n")
    assert read_parameters(file) == {"EPOCHS": 3, "SETTINGS": {}, "WEIGHTS": None}
    file.write_text("# nothing yet\n")
    assert read_parameters(file) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a parameter file"),
        (b"A: [1", "cannot be read as a parameter file"),
        (b"A: \xff\xfe", "cannot be read as a parameter file"),
        (b"EPOCHS", "is no parameter file"),
    ],
)
def test_what_is_no_parameter_file_is_named(tmp_path, content, message):
    file = tmp_path / "odd.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"odd\.yaml {message}"):
        read_parameters(file)


def test_a_label_is_text_whatever_it_was_given_as():
    for one in (1, 1.0, np.float32(1), np.int64(1), "1", " 1 "):
        assert as_label(one) == "1"
    assert as_label(True) == as_label(np.bool_(True)) == "True" and as_label(np.float32(0.5)) == "0.5"
    assert as_label("e\N{COMBINING ACUTE ACCENT}") == "\N{LATIN SMALL LETTER E WITH ACUTE}"
    for nothing in (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", "  "):
        assert as_label(nothing) is None


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0 images"), (1, "1 image"), (1.0, "1 image"), (np.int64(7006), "7,006 images")],
)
def test_a_count_is_written_with_its_noun(count, written):
    assert counted(count, "image") == written
