"""The run record: one JSON beside the model with all that is needed to tell, and to repeat, how it was made."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from . import __version__, cache, datareport
from .project import PROJECT_ROOT, replacing, user_path

if TYPE_CHECKING:
    from .classifier import ImageClassifier
    from .dataset import ImageDataset
    from .evaluation import Evaluation

PACKAGES = "torch torchvision timm accelerate scikit-learn imaug opencv-python-headless pillow numpy".split()
FILE = "run.json"


def manifest(dataset: ImageDataset) -> str:
    """Hash the bytes of a dataset's pictures, their labels, and which belong together: 32 hexadecimal digits.

    Where the files lie and in which order makes no difference.
    """
    table = dataset.table
    rows = zip(cache.keys(dataset.paths), table["label"], table["group"], table["path"], strict=True)
    lines = [f"{key},{label},{'' if group == path else group}" for key, label, group, path in rows]
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=16).hexdigest()


def sources(dataset: ImageDataset) -> list[dict]:
    """List whom to name for the pictures of a dataset, under which licence, as far as its table says so.

    By the columns ``attribution`` and ``copyright_license``, which pictures of the ISIC Archive have: dicts of
    ``attribution`` and ``licence`` (str or None), and the number of ``pictures``, most first; none if unknown.
    """
    table = dataset.table.reindex(columns=["attribution", "copyright_license"])
    counts = table.value_counts(dropna=False)
    return [
        {
            "attribution": None if pd.isna(name) else str(name),
            "licence": None if pd.isna(licence) else str(licence),
            "pictures": int(count),
        }
        for (name, licence), count in counts.items()
        if pd.notna(name) or pd.notna(licence)
    ]


def versions() -> dict[str, str | None]:
    """Return the versions of Python and the packages that matter: dict of str to str."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


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
    """Write run.json into the folder of a saved model; `add_metrics` adds what it reaches on test pictures.

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
    """
    training = dict(model.card["training"])
    history = training.pop("history", [])
    groups = pd.concat([part.table["group"].drop_duplicates() for part in parts.values()])
    run = {
        "format": 1,
        "parameters": parameters or {},
        "model": {name: value for name, value in model.card.items() if name not in ("training", "format")},
        "training": training,
        "seed": model.seed,
        "split": {
            name: _count(part, model.labels) | {"manifest": manifest(part)} for name, part in parts.items()
        },
        "shared_groups": int(groups[groups.duplicated()].nunique()),
        "code": code_version(),
        "packages": versions(),
        "machine": machine(),
        "seconds": round(sum(row["seconds"] for row in history), 1) if history else None,
        "history": history,
        "step_loss": model.step_loss,
        "metrics": None,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = user_path(folder) / FILE
    _write(path, run)
    return path


def _count(part, labels):
    table = part.table
    return {
        "pictures": len(table),
        "groups": int(table["group"].nunique()),
        "labels": {label: int((table["label"] == label).sum()) for label in labels},
    }


def add_metrics(folder: str | Path, evaluation: Evaluation) -> Path:
    """Add metrics with their 95 % intervals to run.json, and return its path.

    Where only some diagnoses were confirmed in a way that occurs with every label (`datareport.confirmed_alike`), the
    ROC AUC of those pictures stands beside that of all, and their number.
    """
    path = user_path(folder) / FILE
    run = read(path)
    table = evaluation.metrics().astype(object).where(lambda table: table.notna(), None)
    run["metrics"] = {
        "pictures": len(evaluation.table),
        "groups": int(evaluation.table["group"].nunique()),
        "positive": evaluation.positive,
        "threshold": evaluation.threshold,
        **table.to_dict("index"),
    }
    alike = evaluation.where(datareport.confirmed_alike(evaluation.table))
    if 0 < len(alike.table) < len(evaluation.table):
        found = (alike.metric("roc_auc"), *alike.interval("roc_auc"))
        figures = [None if np.isnan(figure) else figure for figure in found]
        run["metrics"]["pictures_confirmed_alike"] = len(alike.table)
        run["metrics"]["roc_auc_confirmed_alike"] = dict(zip(("value", "low", "high"), figures, strict=True))
    _write(path, run)
    return path


def read(path: str | Path) -> dict:
    """Read a run record: dict. FileNotFoundError or ValueError says that there is none at `path`."""
    path = user_path(path)
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such run record; record.write makes one") from None
    except ValueError as error:
        raise ValueError(f"{path} is no run record: {error}") from error
    if not isinstance(run, dict) or not {"parameters", "split", "training"} <= set(run):
        raise ValueError(f"{path} is no run record: it lacks parameters, split or training")
    return run


def _write(path, run):
    with replacing(path) as part:
        part.write_text(json.dumps(run, indent=2, allow_nan=False) + "\n", encoding="utf-8")
