import os
import shutil
import subprocess
import sys
from pathlib import Path

# before torch is imported, here and in the processes that tests start: on nets this small several threads mostly wait
# for one another, many times as long where another program takes a core
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import yaml
from double import Double, make_archive
from PIL import Image

from isicvision import ImageDataset

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT.parent / "shared" / "data"
LINKS = pytest.mark.skipif(os.name == "nt", reason="making links needs rights on Windows")
ANY_NAME = pytest.mark.skipif(
    os.name == "nt" or sys.platform == "darwin", reason="names are Unicode here, and differ in more than case"
)
ANY_LETTER = pytest.mark.skipif(sys.getfilesystemencoding() == "ascii", reason="names are ASCII: LC_ALL=C")
POSIX = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signal, lock or file")
PATIENT_NUMBERS = {
    "intercept": 0.2,
    "image": 0.9,
    "added": [
        ["age", 20, -1.0],
        ["age", 50, 0.1],
        ["age", 80, 0.7],
        ["sex", "female", -0.1],
        ["sex", "male", 0.1],
        ["site", "back", 0.3],
        ["site", "face", -0.3],
    ],
}
"""Numbers of `patient.score`."""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keep the tests' decoded images out of the user's cache; notebooks and jobs they start inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISICVISION_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def real_data():
    """The folder of real dermoscopic images that development machines have beside the repository."""
    if not REAL.is_dir():
        pytest.skip(f"no real images: {REAL} is not there")
    return REAL


@pytest.fixture
def ham10000(real_data):
    """The 7,006 real images with two labels, as the notebooks read them."""
    p = yaml.safe_load((ROOT / "code" / "parameters" / "ham10000.yaml").read_text(encoding="utf-8"))
    folder = real_data / "ham10000_200x150"
    return ImageDataset.from_csv(
        folder / "metadata.csv",
        images=folder / "images",
        image_column=p["IMAGE_COLUMN"],
        label_column=p["LABEL_COLUMN"],
        group_column=p["GROUP_COLUMN"],
        label_map=p["LABEL_MAP"],
    )


def environment_with(requirements, folder, compiled=True):
    """Make an environment in `folder` with what a requirements file names (some 20 seconds); return its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    # uv is faster, pip knows more ways to an index; bytecode is worth its time where many processes start
    uv = shutil.which("uv", path=os.path.dirname(sys.executable))
    options = ["--quiet", *["--compile-bytecode"] * compiled, "--python", python, "-r", requirements]
    if uv and not subprocess.run([uv, "pip", "install", *options], capture_output=True).returncode:
        return python
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--retries", "1"]
    done = subprocess.run([*pip, "-r", requirements], capture_output=True, text=True)
    if done.returncode and "from versions: none" in done.stderr:
        pytest.skip(f"the package index cannot be reached: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


@pytest.fixture(scope="session")
def azure_python(tmp_path_factory):
    """The Python of an environment with azure-ai-ml; its tests are of the group "azure-ai-ml", so it is made once."""
    requirements = ROOT / "code" / "03_deployment" / "azure" / "requirements.txt"
    return environment_with(requirements, tmp_path_factory.mktemp("azure-ai-ml"))


def draw(path, color, seed, size=(96, 80)):
    """Write a small noisy image of one color."""
    noise = np.random.default_rng(seed).integers(-40, 40, (size[1], size[0], 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A folder per label: 12 reddish benign and 12 bluish malignant images, two of each lesion."""
    root = tmp_path_factory.mktemp("images")
    rows = ["isic_id,lesion_id,sex,attribution"]
    for number in range(24):
        label, color = (("benign", (170, 120, 100)), ("malignant", (100, 120, 170)))[number % 2]
        draw(root / label / f"p{number:02d}.jpg", color, number)
        rows.append(
            f"p{number:02d},L{number % 2}{number // 4},{'male' if number % 3 else ''},Synthetic test image"
        )
    (root / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return root


@pytest.fixture
def dataset(folder):
    return ImageDataset.from_folder(folder)


@pytest.fixture(scope="session")
def archive_folder(tmp_path_factory):
    """260 small synthetic images with metadata, three pages of an archive."""
    return make_archive(tmp_path_factory.mktemp("archive") / "images", 260, kilobytes=(1, 4))


@pytest.fixture(scope="session")
def _double(archive_folder):
    with Double(archive_folder) as double:
        yield double


@pytest.fixture
def double(_double):
    """A loopback double of the ISIC Archive with the images of archive_folder, as new: see double.Double."""
    _double.reset()
    yield _double
    _double.reset()
