"""The run record: one JSON beside the model with all that is needed to tell, and to repeat, how it was made."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from .. import __version__
from ..data import associations, splitting
from ..data.dataset import ImageDataset
from ..files import PROJECT_ROOT, RUN_RECORD, portable, read_json, replacing, require, user_path, versions
from ..text import counted

if TYPE_CHECKING:
    from ..evaluation.evaluation import Evaluation
    from ..model.classifier import ImageClassifier

NOTEBOOK = "code/02_modeling/01_train.ipynb"
"""Splits the images, trains, and writes both parts and model."""


def digest(evaluation: Evaluation) -> str:
    """Hash which images were scored, their labels and their scores (six decimals): 32 hexadecimal digits."""
    scores = np.rint(evaluation.scores * 1e6).astype(int).tolist()
    rows = zip(evaluation.table["path"].map(portable), evaluation.table["label"], scores, strict=True)
    lines = sorted(f"{path},{label},{of_each}" for path, label, of_each in rows)
    text = "\n".join([*evaluation.classes, *lines])
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def save_parts(parts: dict[str, ImageDataset], folder: str | Path) -> None:
    """Write the parts of a split into a folder, a CSV file each."""
    for name, part in parts.items():
        part.save(Path(folder, f"{name}.csv"))


def earlier_parts(folder: str | Path) -> dict[str, ImageDataset] | None:
    """Read the parts that `save_parts` wrote, for ``split(keep=…)``; None if not all three are there."""
    paths = {name: Path(folder, f"{name}.csv") for name in ("train", "validation", "test")}
    if not all(path.exists() for path in paths.values()):
        return None
    return {name: ImageDataset.load(path) for name, path in paths.items()}


def kept_words(parts: dict[str, ImageDataset], earlier: dict[str, ImageDataset]) -> str:
    """Say how many images stayed in the part that they had in an earlier split, and how many were dealt out."""
    then, now = (
        [(name, path) for name, part in each.items() for path in part.paths] for each in (earlier, parts)
    )
    rows = splitting.matched([path for _, path in now], [path for _, path in then])
    pairs = [(name, then[row][0] if row >= 0 else None) for (name, _), row in zip(now, rows, strict=True)]
    stayed, new = sum(now == before for now, before in pairs), sum(before is None for _, before in pairs)
    return (
        f"By the earlier split: {counted(stayed, 'image')} in the part that they had, {new:,} new, "
        f"{len(pairs) - stayed - new:,} moved because lesions were joined."
    )


def load_parts(folder: str | Path, model: str | Path | None = None) -> dict[str, ImageDataset]:
    """Read the parts that `save_parts` wrote, and check that they belong together, and to a saved model.

    Parameters
    ----------
    folder
        With train.csv, validation.csv and test.csv.
    model
        Folder of a saved model: its run record (else its model.json) says which parts it was made with.

    Raises
    ------
    FileNotFoundError
        If a file is missing; it names the notebook to run.
    ValueError
        If an image or a group is in two parts, or the model was made with other parts.

    Warns
    -----
    UserWarning
        If the dataset.csv beside `folder` has changed since the split.
    """
    folder = Path(folder)
    for name in ("train", "validation", "test"):
        require(folder / f"{name}.csv", NOTEBOOK)
    parts = earlier_parts(folder) or {}
    if shared := splitting.shared_count(parts)["shared_groups"]:
        raise ValueError(
            f"{folder} holds parts of two splits: {shared:,} images or lesions are in more than one part. Delete the "
            f"folder and run {NOTEBOOK} again."
        )
    if model is not None:
        for name, known in _made_with(Path(model)).items():
            if known is None or name not in parts:
                continue
            if gone := [path for path in parts[name].paths if not os.path.exists(path)]:
                raise ValueError(
                    f"{len(gone):,} of {counted(len(parts[name]), 'image')} of {folder / name}.csv are not there, such "
                    f"as {gone[0]}: put the images back, or run {NOTEBOOK} again with the folder where they are now"
                )
            if known != parts[name].manifest():
                raise ValueError(
                    f"{folder / name}.csv is not the {name} part that {model} was made with: the images were split or "
                    f"corrected after the training, and figures of one on the other would be wrong. Run the notebook "
                    f"that makes the model again ({NOTEBOOK} makes outputs/model), or restore the files."
                )
    _note_changes(folder.parent / "dataset.csv", parts)
    return parts


def _made_with(model):
    """Return the manifest of each part that a saved model was made with: dict of str to str or None."""
    card = read_json(require(model / "model.json", NOTEBOOK))
    known = {"train": (card.get("training") or {}).get("manifest")}
    if (model / RUN_RECORD).exists():
        known |= {name: part.get("manifest") for name, part in read(model / RUN_RECORD)["split"].items()}
    return known


def _note_changes(csv, parts):
    """Warn where the table that was split has changed since."""
    if not csv.exists():
        return
    columns = ["label", "group"]
    now = ImageDataset.load(csv).table.set_index("path")[columns]
    then = pd.concat([part.table for part in parts.values()]).set_index("path")[columns]
    both = now.index.intersection(then.index)
    changes = {
        "new": len(now) - len(both),
        "gone": len(then) - len(both),
        "with another label or lesion": int((now.loc[both] != then.loc[both]).any(axis=1).sum()),
    }
    if any(changes.values()):
        said = ", ".join(f"{count:,} {what}" for what, count in changes.items() if count)
        warnings.warn(
            f"{csv} has changed since it was split (images: {said}). {NOTEBOOK} takes that over; until then the "
            "figures are those of the earlier table.",
            stacklevel=3,
        )


def require_current(bundle: str | Path, outputs: str | Path) -> None:
    """Raise ValueError if a bundle is of none of the models that are saved in the folders of `outputs`."""
    packed = read_json(Path(bundle, "model.json"))
    cards = [read_json(path) for path in Path(outputs).glob("*/model.json")]
    saved = [card for card in cards if "id" not in card]  # which bundles have
    own = ("versions", "sha256")
    if not any(all(packed.get(name) == card[name] for name in card if name not in own) for card in saved):
        raise ValueError(
            f"{bundle} is of none of the models in {outputs}: they were trained or changed after it was built. Run "
            "code/03_deployment/01_deploy_locally.ipynb again."
        )


def require_evaluated(model: str | Path, evaluation: Evaluation) -> None:
    """Raise ValueError unless `add_metrics` wrote the figures of these very predictions into the model's record."""
    path = Path(model) / RUN_RECORD
    metrics = (read(path)["metrics"] if path.exists() else None) or {}
    if metrics.get("predictions") != digest(evaluation):
        raise ValueError(
            f"these predictions are not those that {path} has the figures of: they are of another model, or of other "
            "test images. Run code/02_modeling/02_evaluate.ipynb again."
        )


def code_version() -> dict:
    """Return the version of isicvision and, in a checkout, the commit and whether files differ from it: dict."""
    found: dict = {"isicvision": __version__, "commit": None, "changed": None}
    try:
        ask = ["git", "-C", str(PROJECT_ROOT)]
        options: dict = {"capture_output": True, "text": True, "check": True, "timeout": 30}
        found["commit"] = subprocess.run([*ask, "rev-parse", "HEAD"], **options).stdout.strip()
        status = subprocess.run([*ask, "status", "--porcelain", "--", "code/isicvision"], **options).stdout
        found["changed"] = bool(status.strip())
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        pass
    return found


def machine() -> dict:
    """Say what the run ran on: dict of system, processor, cores (threads torch uses) and accelerator."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "accelerator": gpu,
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None


def write(
    folder: str | Path, model: ImageClassifier, parts: dict[str, ImageDataset], parameters: dict | None = None
) -> Path:
    """Write run.json into the folder of a saved model; `add_metrics` adds what it reaches on test images.

    Parameters
    ----------
    folder
        Where `ImageClassifier.save` wrote the model.
    model
        Just trained.
    parts
        The split: ``{"train": …, "validation": …, "test": …}``.
    parameters
        Of the notebook or job, fit for JSON; ``train.py --rerun`` repeats the run from them.

    Raises
    ------
    ValueError
        If the part ``train`` is not what the model was trained on.
    """
    training = dict(model.metadata["training"])
    history = training.pop("history", [])
    split = {name: _count(part, model.labels) | {"manifest": part.manifest()} for name, part in parts.items()}
    if "train" in split and split["train"]["manifest"] != training["manifest"]:
        raise ValueError(
            "the model was not trained on this part train: the images were split again, or changed, after the "
            "training. Fit the model again, then write its record."
        )
    run = {
        "format": 1,
        "parameters": parameters or {},
        "model": {
            name: value for name, value in model.metadata.items() if name not in ("training", "format")
        },
        "training": training,
        "seed": model.seed,
        "split": split,
        **splitting.shared_count(parts),
        "code": code_version(),
        "packages": versions(),
        "machine": machine(),
        "seconds": round(sum(row["seconds"] for row in history), 1) if history else None,
        "history": history,
        "step_loss": model.step_loss,
        "metrics": None,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = user_path(folder) / RUN_RECORD
    _write(path, run)
    return path


def _count(part, labels):
    table = part.table
    return {
        "images": len(table),
        **splitting.group_count(table),
        "labels": {label: int((table["label"] == label).sum()) for label in labels},
    }


def add_metrics(folder: str | Path, evaluation: Evaluation) -> Path:
    """Add metrics with their 95 % intervals to run.json, and return its path.

    Where only some diagnoses were confirmed in a way that occurs with every label (`associations.confirmed_alike`), the
    ROC AUC of those images stands beside that of all, and their number.
    """
    path = user_path(folder) / RUN_RECORD
    run = read(path)
    table = evaluation.metrics().astype(object).where(lambda table: table.notna(), None)
    run["metrics"] = {
        "images": len(evaluation.table),
        **splitting.group_count(evaluation.table),
        "manifest": ImageDataset(evaluation.table).manifest(),
        "predictions": digest(evaluation),
        "positive": evaluation.positive,
        "threshold": evaluation.threshold,
        **table.to_dict("index"),
    }
    alike = evaluation.where(associations.confirmed_alike(evaluation.table))
    if 0 < len(alike.table) < len(evaluation.table):
        found = (alike.metric("roc_auc"), *alike.interval("roc_auc"))
        figures = [None if np.isnan(figure) else figure for figure in found]
        run["metrics"]["images_confirmed_alike"] = len(alike.table)
        run["metrics"]["roc_auc_confirmed_alike"] = dict(zip(("value", "low", "high"), figures, strict=True))
    _write(path, run)
    return path


def read(path: str | Path) -> dict:
    """Read a run record: dict. FileNotFoundError or ValueError says that there is none at `path`."""
    path = user_path(path)
    try:
        run = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such run record; record.write makes one") from None
    except ValueError as error:
        raise ValueError(f"{path} is no run record: {error}") from error
    if not {"parameters", "split", "training"} <= set(run):
        raise ValueError(f"{path} is no run record: it lacks parameters, split or training")
    return run


def _write(path, run):
    with replacing(path) as part:
        part.write_text(json.dumps(run, indent=2, allow_nan=False) + "\n", encoding="utf-8")
