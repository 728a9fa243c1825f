import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    command = [sys.executable, str(ROOT / "code" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epochs: 3", "No notebook has a parameter epochs; did you mean EPOCHS?"),
        ("1: 3", "No notebook has a parameter 1. There are: AUDITED"),
        ("EPOCHS: 3", "LEARNING_RATE has 12 values for 3 epochs"),
        ("PREVALENCE: 5", "PREVALENCE is a share above 0 and below 1, not 5; did you mean 0.05?"),
        ("SERVICE: ''", "SERVICE is 3 to 32 lower-case letters"),
        ("SEED:", "SEED is a whole number"),
        ("EPOCH: 3", "No notebook has a parameter EPOCH; did you mean EPOCHS?"),
        ("just text", "is no parameter file"),
        (None, "cannot be read as a parameter file"),
        ("A: [1", "cannot be read as a parameter file"),
        (b"A: \xe9t\xe9", "cannot be read as a parameter file"),
    ],
)
def test_a_wrong_parameter_file_stops_before_anything_runs(tmp_path, content, message):
    file = tmp_path / "p.yaml"
    if content:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run("--parameters", str(file))
    assert result.returncode == 1 and message in result.stderr and "…" not in result.stdout


def test_a_source_that_is_not_there_is_named():
    result = run("--source", "my_picturs")
    assert (
        result.returncode == 1
        and "an archive or a folder, which must be there, not 'my_picturs'" in result.stderr
    )


def test_a_source_of_the_parameter_file_counts_unless_another_is_given(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("SOURCE: of_the_file")
    assert "not 'of_the_file'" in run("--parameters", str(file)).stderr
    assert "not 'given'" in run("--parameters", str(file), "--source", "given").stderr


def test_what_a_preset_overrides_is_said(capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "code")
    from run import note_what_a_preset_overrides

    note_what_a_preset_overrides({"PRESET": "fast", "BATCH_SIZE": 64, "SEED": 1})
    assert "PRESET fast chooses BATCH_SIZE by itself" in capsys.readouterr().out
    for parameters in ({"PRESET": "fast", "SEED": 1}, {"PRESET": None, "BATCH_SIZE": 64}):
        note_what_a_preset_overrides(parameters)
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize("given", [[], ["SOURCE=isic"]])
def test_make_hands_over_a_source_only_where_one_is_given(given, monkeypatch):
    monkeypatch.delenv("SOURCE", raising=False)
    command = ["make", "-n", "-C", str(ROOT), "run", "PARAMETERS=mine.yaml", *given]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    assert '--parameters "mine.yaml"' in printed
    assert ("--source" in printed) == ('--source "isic"' in printed) == bool(given)


def test_the_make_targets_are_listed_by_make_alone():
    listing = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True).stdout
    for target in ("install", "run", "test", "lint", "notebooks", "bench", "clean"):
        assert f"\n{target} " in listing
