"""The bundle: a folder with everything that a web service needs, without training code."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import PROJECT_ROOT, is_stray, read_json, replacing_folder, sha256, user_path

if TYPE_CHECKING:
    from ..model.classifier import ImageClassifier

# config.json, logging.json and swagger.json must not be among them: Azure's server takes these for its own
_SCRIPTS = ("score.py", "requestlog.py", "page.html")  # as they are in code/03_deployment
_COPIED = ("images.py", "patient.py")  # from this package
_OTHERS = (*_COPIED, *"model.onnx model.onnx.data model.json requirements.txt conda.yml Dockerfile".split())
_REQUIREMENTS = ("onnxruntime", "numpy", "pillow", "azureml-inference-server-http")

_CONDA = """\
name: isicvision-service
channels: [conda-forge]
dependencies:
- python=3.11
- pip
- pip:
"""

_DOCKERFILE = f"""\
# docker build --tag isicvision . && docker run --rm --publish 127.0.0.1:5001:5001 isicvision
FROM python:3.11-slim
WORKDIR /service
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt && useradd --create-home service
COPY model.onnx* model.json images.py patient.py {" ".join(_SCRIPTS)} ./
USER service
# several threads, so that the process answers health checks while it scores
ENV GUNICORN_CMD_ARGS="--threads 8"
EXPOSE 5001
CMD ["azmlinfsrv", "--entry_script", "score.py"]
"""


def build_bundle(model: ImageClassifier, folder: str | Path) -> Path:
    """Write everything that a web service of `model` needs into one folder; return `folder`.

    It is written whole or not at all. `folder` is new, empty, or an earlier bundle, which is replaced; ValueError if it
    holds anything else. docs/service.md lists the files; the service verifies their checksums when it starts.
    """
    scripts = PROJECT_ROOT / "code" / "03_deployment"
    if not scripts.is_dir():
        raise FileNotFoundError(f"{scripts} is missing: install from the repository by `pip install -e .`")
    folder = user_path(folder)
    target = folder.resolve()
    strange = {path.name for path in target.glob("*") if not is_stray(path.name)}
    strange -= {*_SCRIPTS, *_OTHERS, "pixels.py"}  # the name of images.py in earlier bundles
    if strange or target.is_file():
        reason = f"holds {min(strange)}" if strange else "is a file"
        raise ValueError(f"{folder} is not a bundle: it {reason}. Choose another folder")
    with replacing_folder(target) as new:
        model.to_onnx(new / "model.onnx")
        for name in _COPIED:
            shutil.copyfile(Path(__file__).parents[1] / name, new / name)
        # checksums of what computes the scores; users may change the other files
        checksums = {path.name: sha256(path) for path in sorted(new.iterdir())}
        pins = {name: version(name) for name in _REQUIREMENTS}
        metadata = model.metadata | {
            "id": f"isicvision-{model.metadata['backbone']}".replace("_", "-"),
            "version": checksums["model.onnx"][:12],
            "labels": list(model.labels),
            "packages": pins,
            "image_size": model.image_size,
            "sha256": checksums,
        }
        (new / "model.json").write_text(json.dumps(metadata, indent=2) + "\n")
        for name in _SCRIPTS:
            shutil.copyfile(scripts / name, new / name)
        requirements = [f"{name}=={release}\n" for name, release in pins.items()]
        (new / "requirements.txt").write_text("".join(requirements))
        (new / "conda.yml").write_text(_CONDA + "".join(f"  - {each}" for each in requirements))
        (new / "Dockerfile").write_text(_DOCKERFILE)
    return folder


def read_metadata(bundle: str | Path) -> dict:
    """Read a bundle's model.json; FileNotFoundError if `bundle` is not a bundle."""
    path = user_path(bundle) / "model.json"
    found = read_json(path) if path.is_file() else {}
    if "version" not in found:  # which a saved model lacks
        hint = "give its folder" if path.parent.is_file() else "build_bundle(model, folder) makes one"
        raise FileNotFoundError(f"{bundle} is not a bundle: {hint}")
    return found
