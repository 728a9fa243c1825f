"""The wheel, in an environment and a folder of their own: what users have who installed the package alone.

The environment sees the third-party packages of this one, which takes seconds instead of 7 GB; the file that makes an
editable installation importable does not count there. The release workflow installs everything anew.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# pip takes the wheel alone, although third_party.pth shows it the editable installation of this environment
PIP = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_IGNORE_INSTALLED": "1"}

pytestmark = pytest.mark.xdist_group("wheel")  # it is built once


def build(*options):
    """Build by uv, which makes the environment for it; skip where there is no uv or it reaches no index."""
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if not uv:
        pytest.skip("no uv (pip install uv)")
    done = subprocess.run([uv, "build", "--quiet", *map(str, options)], capture_output=True, text=True)
    if done.returncode and re.search("Failed to fetch|error sending request|not found in the", done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr}")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build(ROOT, "--out-dir", folder)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def environment(folder):
    """Make an environment that sees the third-party packages of this one; return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    own = sysconfig.get_path("purelib", "venv", {"base": folder, "platbase": folder})
    (Path(own) / "third_party.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return Path(sysconfig.get_path("scripts", "venv", {"base": folder})) / Path(sys.executable).name


@pytest.fixture(scope="module")
def python(built, tmp_path_factory):
    """The Python of an environment with the wheel."""
    python = environment(tmp_path_factory.mktemp("user"))
    run(python, ROOT.parent, "-m", "pip", "install", "--quiet", built[1], **PIP)
    return python


def run(python, folder, *words, **given):
    """Run Python as a user does in `folder`: it knows nothing of the repository; return what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MPLBACKEND")}
    kept |= {"TQDM_DISABLE": "1", **given}
    done = subprocess.run([python, *words], cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_sdist_builds_the_wheel_of_the_repository(built, tmp_path):
    build(ROOT, "--wheel", "--out-dir", tmp_path)
    assert next(tmp_path.glob("*.whl")).read_bytes() == built[1].read_bytes()


def test_the_wheel_is_small_and_holds_every_file_of_the_package_and_no_test_or_notebook(built):
    names = set(zipfile.ZipFile(built[1]).namelist())
    package = ROOT / "code" / "isicvision"
    ours = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    assert {name for name in ours if "__pycache__" not in name} <= names
    images = [path.name for path in (ROOT / "sample_data" / "images").iterdir()]
    assert {f"isicvision_repository/sample_data/images/{name}" for name in images} <= names
    assert not [name for name in names if re.search(r"\.ipynb$|test|/azure/", name)]
    assert built[1].stat().st_size < 8e6


def test_the_code_of_the_readme_runs_from_image_to_served_score(python, tmp_path):
    (code,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.M)
    where = "\nimport isicvision\nprint(isicvision.__file__)"
    *_, answer, file = run(python, tmp_path, "-c", code + where, MPLBACKEND="agg").splitlines()
    assert Path(file).is_relative_to(python.parents[1])
    assert re.match(r"{'label': '(benign|malignant)', 'scores': {'benign': 0\.\d+, 'malig", answer)
    assert {path.name for path in tmp_path.iterdir()} == {"my_images", "outputs"}


def test_the_sample_and_the_watch_for_drift_are_found(python, tmp_path):
    code = (
        "import sys\n"
        "from isicvision import DEPLOYMENT, SAMPLE_DATA, ImageDataset, IsicArchive, Outputs, augmentation, cards\n"
        "sample = ImageDataset.from_csv(SAMPLE_DATA / 'metadata.csv', label_column='diagnosis_1')\n"
        "sys.path.insert(0, str(DEPLOYMENT))\n"
        "import drift, notebook_parameters\n"
        "print(len(sample), IsicArchive('sample').count(), Outputs('outputs').folder.resolve())"
    )
    assert run(python, tmp_path, "-c", code).split() == ["159", "159", str(tmp_path / "outputs")]


def test_the_start_notebook_installs_the_package_and_runs_without_the_repository(built, tmp_path):
    python, folder = environment(tmp_path / "user"), tmp_path / "empty"
    folder.mkdir()
    assert (
        run(python, folder, "-c", "import importlib.util as i; print(i.find_spec('isicvision'))") == "None\n"
    )
    shutil.copy(ROOT / "code" / "start.ipynb", folder)
    words = ("-m", "papermill", "--log-level", "ERROR", "start.ipynb", "executed.ipynb")
    run(python, folder, *words, **PIP, PIP_FIND_LINKS=str(built[1].parent))
    cells = json.loads((folder / "executed.ipynb").read_text(encoding="utf-8"))["cells"]
    printed = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in printed if output.get("name") == "stderr"]
    assert "'label': " in "".join(printed[-1]["text"])
    assert len([output for output in printed if "image/jpeg" in output.get("data", {})]) >= 3
    assert (folder / "outputs" / "bundle" / "score.py").is_file()
