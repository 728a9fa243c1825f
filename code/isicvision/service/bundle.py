"""The bundle: a folder with all that a web service needs and no training code.

The network as ONNX, the entry script, the preprocessing, pinned requirements, a Dockerfile. It runs on this machine
(`deployment.deploy_local`), in a container, or in Azure (`azure`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from .. import images as pixels
from ..files import PROJECT_ROOT, is_stray, read_json, sha256, user_path

if TYPE_CHECKING:
    from ..model.classifier import ImageClassifier

# config.json, logging.json and swagger.json are missing here for a reason: Azure's server takes them for its own
_FILES = "model.onnx model.onnx.data model.json pixels.py requirements.txt conda.yml Dockerfile"
_SCRIPTS = "score.py requestlog.py page.html"  # as they are in code/03_deployment
_COPIED = f"model.onnx* model.json pixels.py {_SCRIPTS}"  # into the image, and no stray file
_REQUIREMENTS = ("onnxruntime", "numpy", "pillow", "azureml-inference-server-http")

_CONDA = """\
name: isicvision-service
channels: [conda-forge]
dependencies:
- python=3.11
- pip
- pip:
"""

_DOCKERFILE = """\
# docker build --tag isicvision . && docker run --rm --publish 127.0.0.1:5001:5001 isicvision
FROM python:3.11-slim
WORKDIR /service
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt && useradd --create-home service
COPY {files} ./
USER service
# one process answers several requests at a time, so that it is found healthy while it scores
ENV GUNICORN_CMD_ARGS="--threads 8"
EXPOSE 5001
CMD ["azmlinfsrv", "--entry_script", "score.py"]
"""


def build_bundle(model: ImageClassifier, folder: str | Path) -> Path:
    """Write everything that a service of `model` needs into one folder.

    It is complete or absent: an interrupted build leaves what was there before.

    Parameters
    ----------
    folder
        New, empty, or an earlier bundle, which is replaced, with what a file manager or JupyterLab left in it. Anything
        else raises ValueError.

    Returns
    -------
    pathlib.Path
        `folder`, with model.onnx (uint8 images in, probabilities out), model.json, score.py with page.html and
        requestlog.py, pixels.py, requirements.txt, conda.yml and Dockerfile. model.json is the model's card (labels,
        temperature, offsets, threshold and how it was chosen, the training images' number, groups, hash and sources),
        an id, a version (of model.onnx), the packages' versions, and checksums of what makes the scores, without which
        the service does not start.
    """
    script = PROJECT_ROOT / "code" / "03_deployment" / "score.py"
    if not script.exists():
        raise FileNotFoundError(
            f"{script} is missing: install isicvision from its repository, pip install -e ."
        )
    folder = user_path(folder)
    target = folder.resolve()
    strange = {path.name for path in target.glob("*") if not is_stray(path.name)}
    strange -= {*_FILES.split(), *_SCRIPTS.split()}
    if strange or target.is_file():
        raise ValueError(f"{folder} holds {min(strange, default='a file')}, no bundle: choose another folder")

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        model.to_onnx(new / "model.onnx")
        shutil.copyfile(pixels.__file__, new / "pixels.py")
        # of what makes the scores; the other files are the user's to change
        checksums = {path.name: sha256(path) for path in sorted(new.iterdir())}
        pins = {name: metadata.version(name) for name in _REQUIREMENTS}
        card = {
            **model.metadata,
            "id": f"isicvision-{model.metadata.get('backbone', 'model')}".replace("_", "-"),
            "version": checksums["model.onnx"][:12],
            "labels": list(model.labels),
            "packages": pins,
            "image_size": model.image_size,
            "sha256": checksums,
        }
        (new / "model.json").write_text(json.dumps(card, indent=2) + "\n")
        for name in _SCRIPTS.split():
            shutil.copyfile(script.with_name(name), new / name)
        requirements = [f"{name}=={version}" for name, version in pins.items()]
        (new / "requirements.txt").write_text("\n".join(requirements) + "\n")
        (new / "conda.yml").write_text(_CONDA + "".join(f"  - {each}\n" for each in requirements))
        (new / "Dockerfile").write_text(_DOCKERFILE.format(files=_COPIED))
        if target.exists():
            target.rename(Path(temporary) / "old")
        new.rename(target)
    return folder


def read_card(bundle: str | Path) -> dict:
    """Return the content of the bundle's model.json: dict; raise FileNotFoundError if it is no bundle."""
    try:
        return read_json(user_path(bundle) / "model.json")
    except (FileNotFoundError, NotADirectoryError):
        hint = "give its folder" if user_path(bundle).is_file() else "build_bundle(model, folder) makes one"
        raise FileNotFoundError(f"{bundle} is no bundle: {hint}") from None
