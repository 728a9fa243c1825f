"""A model's folder: written as a whole, and checked when it is read. None of its files can run code when loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_model

from .. import files
from ..checks import check_threshold, is_number, is_whole
from ..files import user_path
from .outliers import Distance, Outliers

OWN_FILES = (
    *("model.json", "network.safetensors", "network[0-9]*.safetensors", "classifier.skops"),
    *("outliers.safetensors", "seen.safetensors", files.RUN_RECORD, "README.md"),
)
"""Patterns of the files in a model's folder that belong to the model; other files stay when it is replaced."""
FORMAT = 5
"""Of model.json."""
UNTRAINED: dict[str, Any] = {
    "temperature": 1.0,
    **dict.fromkeys(("offsets", "scores", "scores_images", "decision", "outliers", "patient", "training")),
}  # what holds for one training only, before it
NEW: dict[str, Any] = UNTRAINED | {
    **{"format": FORMAT, "preset": None, "sublabels": None, "members": 1},
    "caveat": "A teaching sample, not a diagnostic device: no medical decision may rest on it.",
}  # what is the same for every new model


def write(
    folder: str | Path,
    metadata: dict[str, Any],
    networks: Sequence[torch.nn.Module],
    classifier: Any,
    outliers: torch.nn.Module | None,
    seen: dict[str, np.ndarray] | None,
) -> None:
    """Write a model into `folder` as `ImageClassifier.save` says."""
    folder = user_path(folder).resolve()  # the folder itself, not a link to it or "."
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose a folder for the model")
    files.restore_folder(folder)
    holds_files = folder.is_dir() and any(not files.is_stray(path.name) for path in folder.iterdir())
    if holds_files and not (folder / "model.json").exists():
        raise ValueError(f"{folder} holds files that are not a model; choose another folder")
    with files.replacing_folder(folder) as new:
        if folder.is_dir():
            shutil.copytree(folder, new, symlinks=True, dirs_exist_ok=True)
        for file in _own_files(new):
            file.unlink()
        for file, network in zip(_files(len(networks)), networks, strict=True):
            save_model(network, str(new / file))
        if classifier is not None:
            import skops.io  # slow to import, and few models need it

            skops.io.dump(classifier, new / "classifier.skops")
            _trusted_types(new / "classifier.skops")  # refuse it now, not when it is loaded
        if outliers is not None:
            save_model(outliers, str(new / "outliers.safetensors"))
        if seen is not None:
            save_arrays(seen, str(new / "seen.safetensors"))
        facts = {"versions": files.versions()}
        facts["sha256"] = {file.name: files.sha256(file) for file in _own_files(new)}
        text = json.dumps(metadata | facts, indent=2, allow_nan=False)
        (new / "model.json").write_text(text + "\n", encoding="utf-8")


@contextmanager
def opened(folder: str | Path) -> Iterator[tuple]:
    """Yield what `write` was given, networks as tensors; FileNotFoundError without a model, ValueError if damaged."""
    folder = user_path(folder)
    files.restore_folder(folder)
    if not (folder / "model.json").exists():
        hint = "give the model's folder" if folder.is_file() else "train one and save it there"
        raise FileNotFoundError(f"{folder} holds no model (no model.json): {hint}")
    metadata = _metadata(folder / "model.json")
    try:
        for name, known in metadata.pop("sha256", {}).items():
            if files.sha256(folder / name) != known:
                raise OSError(f"{name} is not the file that was saved")
        networks = [load_file(folder / file) for file in _files(metadata["members"])]
        classifier = outliers = seen = None
        if metadata["classifier"] is not None:
            import skops.io

            file = folder / "classifier.skops"
            classifier = skops.io.load(file, trusted=_trusted_types(file))
        if metadata["outliers"] is not None:
            values = load_file(folder / "outliers.safetensors")
            outliers = Outliers([Distance(len(values[f"parts.{n}.mean"])) for n in range(2)])
            outliers.load_state_dict(values)
        if (folder / "seen.safetensors").exists():
            seen = load_arrays(folder / "seen.safetensors")
        yield metadata, networks, classifier, outliers, seen
    except (SafetensorError, BadZipFile, OSError, RuntimeError, TypeError, KeyError) as error:
        raise ValueError(f"the model in {folder} is damaged or incomplete: {error}") from error


def _metadata(file):
    """Read model.json, and check what would change the scores."""
    try:
        metadata = files.read_json(file)
        if (number := metadata.get("format", 0)) != FORMAT:
            raise ValueError(
                f"it has format {number}, and this version reads format {FORMAT}: train the model again, or load it "
                "with the version that saved it (up to format 4: commit 9ff95ac)"
            )
        for name, is_right in _checked(metadata):
            if not is_right:
                raise ValueError(f"{name} cannot be {metadata[name]!r}")
    except (KeyError, ValueError, TypeError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{file} does not describe a model: {problem}") from error
    return metadata


def _checked(metadata):
    """Yield keys of model.json that change the scores, and whether their values are possible."""
    labels, offsets, decision = (metadata[name] for name in ("labels", "offsets", "decision"))
    yield "labels", isinstance(labels, list)
    yield "positive", metadata["positive"] in (None, *(labels or ()))
    yield "interpolation", metadata["interpolation"] in ("bilinear", "bicubic")
    yield "members", is_whole(metadata["members"], 1)
    training = metadata["training"]
    yield "training", training is None or isinstance(training, dict)
    if training and metadata["classifier"] is None and not is_number(training["detail"] or 1, 1e-9):
        raise ValueError(f"detail cannot be {training['detail']!r}")
    yield "temperature", is_number(metadata["temperature"], 0) and metadata["temperature"] > 0
    yield "offsets", offsets is None or [is_number(each, -1e9) for each in offsets] == [True] * len(labels)
    if decision is not None:
        check_threshold(decision["threshold"])
        yield "decision", decision["positive"] in labels
    if numbers := metadata.get("patient"):
        check_threshold((numbers["decision"] or {"threshold": 0})["threshold"])
        values = [numbers["intercept"], numbers["image"], *(odds for _, _, odds in numbers["added"])]
        yield "patient", numbers["positive"] in labels and all(is_number(each, -1e9) for each in values)


def _files(members):
    """List the files of a model's networks."""
    return ["network.safetensors", *(f"network{number}.safetensors" for number in range(2, members + 1))]


def _own_files(folder):
    """List the files of a model in its folder, sorted."""
    return sorted(file for pattern in OWN_FILES for file in folder.glob(pattern))


def _trusted_types(file):
    """List the types in a skops file; refuse it if some are not scikit-learn's, since they may run any code."""
    import skops.io

    types = skops.io.get_untrusted_types(file=file)
    if unknown := [name for name in types if not name.startswith("sklearn.")]:
        problem = f"{file} holds types that are not known to be safe: {', '.join(unknown)}"
        raise ValueError(f"{problem}. A model may consist of scikit-learn's classes and numpy's functions")
    return types
