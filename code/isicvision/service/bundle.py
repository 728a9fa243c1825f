"""The bundle: a folder with everything that a web service needs, without training code."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import DEPLOYMENT, is_stray, read_json, replacing_folder, sha256, user_path

if TYPE_CHECKING:
    from ..model.classifier import ImageClassifier
    from ..model.neighbors import Neighbors

# config.json, logging.json and swagger.json must not be among them: Azure's server takes these for its own
_SCRIPTS = ("score.py", "requestlog.py", "page.html", "Dockerfile", "conda.yml")  # in code/03_deployment
_COPIED = ("images.py", "dicom.py", "nearest.py", "patient.py")  # from this package
_OTHERS = (*_COPIED, *"model.onnx model.onnx.data model.json neighbors.npz requirements.txt".split())
_REQUIREMENTS = ("onnxruntime", "numpy", "pillow", "azureml-inference-server-http")


def build_bundle(
    model: ImageClassifier, folder: str | Path, neighbors: Neighbors | None = None, thumbnails: bool = False
) -> Path:
    """Write everything that a web service of `model` needs into one folder; return `folder`.

    It is written whole or not at all. `folder` is new, empty, or an earlier bundle, which is replaced; ValueError if it
    holds anything else. docs/service.md lists the files; the service verifies their checksums when it starts.

    With `neighbors` the service can name the training images most like an image by the names of their files, with their
    labels and, with `thumbnails`, small copies: see `Neighbors.published`. They are made after the last `fit`.
    """
    if neighbors is not None:
        neighbors.require(model)
    elif thumbnails:
        raise ValueError("thumbnails are those of neighbors=: give them, too")
    if not DEPLOYMENT.is_dir():
        raise FileNotFoundError(f"{DEPLOYMENT} is missing: install isicvision again")
    folder = user_path(folder)
    target = folder.resolve()
    strange = {path.name for path in target.glob("*") if not is_stray(path.name)}
    strange -= {*_SCRIPTS, *_OTHERS, "pixels.py"}  # the name of images.py in earlier bundles
    if strange or target.is_file():
        reason = f"holds {min(strange)}" if strange else "is a file"
        raise ValueError(f"{folder} is not a bundle: it {reason}. Choose another folder")
    facts = neighbors.published(thumbnails) if neighbors else []
    with replacing_folder(target) as new:
        model.to_onnx(new / "model.onnx", bool(neighbors))
        if neighbors:
            neighbors.gallery.save(new / "neighbors.npz", facts)
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
        (new / "model.json").write_text(json.dumps(metadata, indent=2) + "\n", "utf-8", newline="\n")
        for name in _SCRIPTS:
            shutil.copyfile(DEPLOYMENT / name, new / name)
        requirements = [f"{name}=={release}\n" for name, release in pins.items()]
        (new / "requirements.txt").write_text("".join(requirements), "utf-8", newline="\n")
        with open(new / "conda.yml", "a", encoding="utf-8", newline="\n") as file:
            file.writelines(f"  - {each}" for each in requirements)
    return folder


def read_metadata(bundle: str | Path) -> dict:
    """Read a bundle's model.json; FileNotFoundError if `bundle` is not a bundle."""
    path = user_path(bundle) / "model.json"
    found = read_json(path) if path.is_file() else {}
    if "version" not in found:  # which a saved model lacks
        hint = "give its folder" if path.parent.is_file() else "build_bundle(model, folder) makes one"
        raise FileNotFoundError(f"{bundle} is not a bundle: {hint}")
    return found
