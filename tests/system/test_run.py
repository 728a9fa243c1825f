import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import POSIX

from isicvision import Outputs

ROOT = Path(__file__).resolve().parents[2]
FIRST, SECOND = "01_look/01_first.ipynb", "02_do/01_second.ipynb"


@pytest.fixture
def small(tmp_path):
    """A repository of two notebooks that take no time: its folder, and a function that starts its run.py."""
    for name in ("run.py", "pages.py"):
        (tmp_path / "code").mkdir(exist_ok=True)
        shutil.copy(ROOT / "code" / name, tmp_path / "code")
    for name in (FIRST, SECOND):
        write(
            tmp_path / "code" / name,
            f"with open(f'{{OUTPUTS}}/ran', 'a') as file:\n    print('{name}', file=file)",
        )

    def start(*arguments):
        command = [sys.executable, str(tmp_path / "code" / "run.py"), *arguments]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "code"), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a shell ignores it in the background
            preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if os.name == "posix" else None,
        )

    return tmp_path, start


def write(path, code):
    parameters = nbformat.v4.new_code_cell("OUTPUTS = 'outputs'", metadata={"tags": ["parameters"]})
    cells = [nbformat.v4.new_markdown_cell(f"# {path.stem}"), parameters, nbformat.v4.new_code_cell(code)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


def failed(said):
    """Tell whether `said` holds a traceback of run.py: a kernel may log one of its own while it ends (ipykernel)."""
    return 'run.py", line' in said


def ran(folder):
    return (folder / "outputs" / "ran").read_text(encoding="utf-8").split()


@POSIX
def test_ctrl_c_says_in_one_line_what_is_kept_and_the_same_run_goes_on_from_there(small):
    folder, start = small
    whole = nbformat.read(folder / "code" / SECOND, 4)
    write(folder / "code" / SECOND, "import time\ntime.sleep(60)")
    process = start()
    while "second" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=30)
    assert process.returncode == 130 and not failed(said)
    assert said.splitlines()[-2:] == [
        "",
        "Stopped in code/02_do/01_second.ipynb. outputs/ keeps what the notebooks before 01_second.ipynb wrote. To go "
        "on there, give the same command with FROM=02_do/01_second (make run) or --from 02_do/01_second (run.py).",
    ]
    nbformat.write(whole, folder / "code" / SECOND)
    printed, said = start("--from", "02_do/01_second").communicate(timeout=60)
    assert ran(folder) == [FIRST, SECOND] and "1 notebook ran" in printed and not failed(said)
    assert (folder / "outputs" / "notebooks" / "index.html").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("1 / 0", "01_second.ipynb failed in cell 2:\n\nZeroDivisionError: division by zero"),
        ("import psutil\npsutil.Process().kill()", "01_second.ipynb: its Python was killed"),
    ],
)
def test_a_notebook_that_fails_is_named_with_how_to_go_on(small, code, message):
    folder, start = small
    write(folder / "code" / SECOND, code)
    process = start()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and message in said and "--from 02_do/01_second (run.py)" in said
    assert not failed(said)


def test_a_positive_label_that_no_image_has_stops_the_run_once_the_labels_are_known(
    dataset, tmp_path, monkeypatch
):
    module = loaded(tmp_path, monkeypatch)
    module.check_positive({"POSITIVE": "Malignant"}, Outputs(tmp_path))  # not known yet
    dataset.save(tmp_path / "images.csv")
    module.check_positive({"POSITIVE": "malignant"}, Outputs(tmp_path))
    with pytest.raises(SystemExit, match="did you mean malignant?"):
        module.check_positive({"POSITIVE": "Malignant"}, Outputs(tmp_path))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        *[
            (name, 1)
            for name in ("01_second", "02_do", "02_do/01", "02", f"code/{SECOND}", f"./code/{SECOND}")
        ],
        *[(name, 0) for name in ("", None, "01_first", "01_look/01_first.ipynb")],
        ("01", "--from 01: it may be 01_look/01_first or 02_do/01_second"),
        ("01_secnod", "there is none; did you mean 01_second?"),
        ("train", "there is none. The notebooks are:\n  01_look/01_first\n  02_do/01_second"),
    ],
)
def test_the_first_notebook_is_found_by_its_name_or_the_beginning_of_it(name, first, small, monkeypatch):
    monkeypatch.chdir(small[0])
    module = loaded(small[0], monkeypatch)
    if isinstance(first, int):
        assert module.beginning_with(name) == module.notebooks()[first:]
    else:
        with pytest.raises(SystemExit, match=first):
            module.beginning_with(name)


def loaded(folder, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "code")
    import run

    monkeypatch.setattr(run, "ROOT", folder)
    return run


def test_copies_and_backups_of_notebooks_are_passed_over_and_named(small, monkeypatch):
    folder, _ = small
    copies = [
        "01_first-Copy1.ipynb",
        "01_first (1).ipynb",
        "01_first copy.ipynb",
        "Untitled.ipynb",
        "Untitled1.ipynb",
    ]
    for name in (
        *copies,
        ".ipynb_checkpoints/01_first-checkpoint.ipynb",
        "01_first.ipynb~",
        ".~01_first.ipynb",
    ):
        target = folder / "code" / "01_look" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(folder / "code" / FIRST, target)
    module = loaded(folder, monkeypatch)
    assert [path.as_posix() for path in module.notebooks()] == [f"code/{FIRST}", f"code/{SECOND}"]
    others = {*module.found()} - {*module.notebooks()}
    assert {path.name for path in others} == {*copies, ".~01_first.ipynb"}
    assert Path("code/01_look/Untitled.ipynb") in others


def test_two_notebooks_of_one_number_are_named(small, monkeypatch):
    folder, _ = small
    shutil.copy(folder / "code" / FIRST, folder / "code" / "01_look" / "1_other.ipynb")
    shutil.copy(folder / "code" / FIRST, folder / "code" / "01_look" / "01_mine.ipynb")
    with pytest.raises(SystemExit, match="01_look/01_first.ipynb and 01_mine.ipynb have the same number"):
        loaded(folder, monkeypatch).notebooks()


def run(*arguments):
    command = [sys.executable, str(ROOT / "code" / "run.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sensitivity: 3", "No notebook has a parameter sensitivity; did you mean SENSITIVITY?"),
        ("1: 3", "No notebook has a parameter 1. There are: AUDITED"),
        ("EPOCHS: 3", "No notebook has a parameter EPOCHS; write SETTINGS: {epochs: …}."),
        ("SETTINGS: {epochs: 3, learning_rate: [1]}", "SETTINGS: learning_rate has 1 values for 3 epochs"),
        ("PREVALENCE: 5", "PREVALENCE is a share above 0 and below 1, not 5"),
        ("SERVICE: ''", "SERVICE is 3 to 32 lower-case letters"),
        ("SEED:", "SEED is a whole number"),
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
    assert result.returncode == 1 and message in result.stderr and " …" not in result.stdout


def test_a_source_that_is_not_there_is_named():
    result = run("--source", "my_picturs")
    assert (
        result.returncode == 1
        and "an archive (https://…) or a folder, which must be there, not 'my_picturs'" in result.stderr
    )


def test_a_source_of_the_parameter_file_counts_unless_another_is_given(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("SOURCE: of_the_file", encoding="utf-8")
    assert "not 'of_the_file'" in run("--parameters", str(file)).stderr
    assert "not 'given'" in run("--parameters", str(file), "--source", "given").stderr


@pytest.mark.parametrize("given", [[], ["SOURCE=isic"], ["FROM=02_evaluate"]])
def test_make_hands_over_a_source_only_where_one_is_given(given, monkeypatch):
    monkeypatch.delenv("SOURCE", raising=False)
    monkeypatch.delenv("FROM", raising=False)
    command = ["make", "-n", "-C", str(ROOT), "run", "PARAMETERS=mine.yaml", *given]
    printed = subprocess.run(command, capture_output=True, text=True).stdout
    assert '--parameters "mine.yaml"' in printed
    assert ("--source" in printed) == ('--source "isic"' in printed) == ("SOURCE=isic" in given)
    assert ("--from" in printed) == ('--from "02_evaluate"' in printed) == ("FROM=02_evaluate" in given)


def test_the_make_targets_are_listed_by_make_alone():
    listing = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True).stdout
    for target in ("install", "run", "test", "lint", "notebooks", "bench", "clean"):
        assert f"\n{target} " in listing
