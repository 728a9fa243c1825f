"""The run record: one JSON file beside the model that says how it was made and lets the run be repeated."""

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
from ..data import splitting
from ..data.associations import confirmed_alike
from ..data.dataset import ImageDataset
from ..files import PROJECT_ROOT, RUN_RECORD, portable, read_json, replacing, require, user_path, versions
from ..outputs import NOTEBOOKS, Outputs
from ..text import counted

if TYPE_CHECKING:
    from ..evaluation.evaluation import Evaluation
    from ..model.classifier import ImageClassifier

PARTS = ("train", "validation", "test")


def digest(evaluation: Evaluation) -> str:
    """Hash which images were scored, their labels and their scores (six decimals): 32 hexadecimal digits.

    >>> from isicvision import Evaluation
    >>> len(digest(Evaluation.from_scores(["benign", "malignant"], [0.2, 0.7])))
    32
    """
    scores = np.rint(evaluation.scores * 1e6).astype(int).tolist()
    rows = zip(evaluation.table["path"].map(portable), evaluation.table["label"], scores, strict=True)
    lines = sorted(f"{path},{label},{of_each}" for path, label, of_each in rows)
    text = "\n".join([*evaluation.classes, *lines])
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def save_parts(parts: dict[str, ImageDataset], folder: str | Path) -> None:
    """Write the parts of a split into a folder, one CSV file each.

    >>> table = pd.DataFrame({"path": ["a.jpg"], "label": ["nevus"], "group": ["a"]})
    >>> save_parts({name: ImageDataset(table) for name in PARTS}, "split")
    >>> len(earlier_parts("split")["test"]), earlier_parts("elsewhere")
    (1, None)
    """
    for name, part in parts.items():
        part.save(Path(folder, f"{name}.csv"))


def earlier_parts(folder: str | Path) -> dict[str, ImageDataset] | None:
    """Read the parts that `save_parts` wrote, for ``split(keep=…)``; None unless all three exist."""
    paths = {name: Path(folder, f"{name}.csv") for name in PARTS}
    if not all(path.exists() for path in paths.values()):
        return None
    return {name: ImageDataset.load(path) for name, path in paths.items()}


def kept_words(parts: dict[str, ImageDataset], earlier: dict[str, ImageDataset]) -> str:
    """Say how many images stayed in the part that they had in an earlier split, and how many are new.

    >>> parts = {"train": ImageDataset(pd.DataFrame({"path": ["a.jpg"], "label": ["nevus"], "group": ["a"]}))}
    >>> kept_words(parts, parts)
    '1 image as in the earlier split, 0 new, 0 moved with joined lesions.'
    """
    then, now = (
        pd.concat({name: part.table["path"] for name, part in each.items()}).reset_index(level=0, name="path")
        for each in (earlier, parts)
    )
    rows = splitting.matched(now["path"], then["path"])  # -1: a new image
    earlier_part = np.array([*then["level_0"], None], object)[rows]
    stayed = (earlier_part == now["level_0"]).sum()
    new = (rows < 0).sum()
    moved = len(now) - stayed - new
    return f"{counted(stayed, 'image')} as in the earlier split, {new:,} new, {moved:,} moved with joined lesions."


def load_parts(folder: str | Path, model: str | Path | None = None) -> dict[str, ImageDataset]:
    """Read the parts that `save_parts` wrote, and check that they belong together, and to the model saved in a folder.

    Raises FileNotFoundError if a file is missing, ValueError if an image or a group is in two parts or the model was
    made with others. Warns if the table beside `folder` has changed since the split.
    """
    folder = Path(folder)
    for name in PARTS:
        require(folder / f"{name}.csv", NOTEBOOKS["split"])
    parts = earlier_parts(folder) or {}
    if shared := splitting.shared_count(parts)["shared_groups"]:
        raise ValueError(
            f"{folder} holds parts of two splits: {shared:,} images or lesions are in several. Delete the folder and "
            f"run {NOTEBOOKS['split']} again."
        )
    for name, known in _made_with(Path(model)).items() if model is not None else ():
        if known is not None and name in parts:
            _check_part(parts[name], known, folder / f"{name}.csv", model)
    _warn_of_changes(Outputs(folder.parent).dataset, parts)
    return parts


def _made_with(model):
    """Return the manifest, or None, of each part that a saved model was made with."""
    described = read_json(require(model / "model.json", NOTEBOOKS["model"]))
    known = {"train": (described.get("training") or {}).get("manifest")}
    if (model / RUN_RECORD).exists():
        known |= {name: part.get("manifest") for name, part in read(model / RUN_RECORD)["split"].items()}
    return known


def _check_part(part, manifest, csv, model):
    if gone := [path for path in part.paths if not os.path.exists(path)]:
        raise ValueError(
            f"{len(gone):,} of {counted(len(part), 'image')} of {csv} are not there, such as {gone[0]}: put the images "
            f"back, or run {NOTEBOOKS['split']} again with the folder where they are now"
        )
    if manifest != part.manifest():
        raise ValueError(
            f"{csv} is not the {csv.stem} part that {model} was made with: images were split or corrected after the "
            f"training. Train again ({NOTEBOOKS['model']} makes outputs/model), or restore the files."
        )


def _warn_of_changes(csv, parts):
    """Warn if the table that was split has changed since."""
    if not csv.exists():
        return
    now, then = ImageDataset.load(csv).table, pd.concat([part.table for part in parts.values()])
    columns = ["path", "label", "group"]
    both = now[columns].merge(then[columns], how="outer", on="path", indicator="side")
    differs = (both["label_x"] != both["label_y"]) | (both["group_x"] != both["group_y"])
    changes = {
        "new": both["side"] == "left_only",
        "gone": both["side"] == "right_only",
        "with another label or lesion": differs & (both["side"] == "both"),
    }
    said = ", ".join(f"{rows.sum():,} {what}" for what, rows in changes.items() if rows.any())
    if said:
        warnings.warn(
            f"{csv} has changed since it was split (images: {said}). The split and all results are those of the "
            f"earlier table until {NOTEBOOKS['split']} runs again.",
            stacklevel=3,
        )


def require_current(bundle: str | Path, outputs: str | Path) -> None:
    """Raise ValueError unless a bundle was built from one of the models in the folders of `outputs`."""
    packed = read_json(Path(bundle, "model.json"))
    described = [read_json(path) for path in Path(outputs).glob("*/model.json")]
    saved = [each for each in described if "id" not in each]  # only bundles have an id
    own = ("versions", "sha256")
    if not any(all(packed.get(name) == each[name] for name in each if name not in own) for each in saved):
        raise ValueError(
            f"{bundle} was built from none of the models in {outputs}: they were trained or changed later. Run "
            f"{NOTEBOOKS['bundle']} again."
        )


def require_evaluated(evaluation: Evaluation, model: str | Path) -> None:
    """Raise ValueError unless the record in a model's folder has the metrics of these predictions."""
    path = Path(model) / RUN_RECORD
    metrics = (read(path)["metrics"] if path.exists() else None) or {}
    if metrics.get("predictions") != digest(evaluation):
        raise ValueError(
            f"the metrics in {path} are not those of these predictions, which are of another model or of other test "
            f"images. Run {NOTEBOOKS['evaluation']} again."
        )


def code_version() -> dict:
    """Return the version of isicvision and, in a checkout, the commit and whether files differ from it.

    >>> [*code_version()]
    ['isicvision', 'commit', 'changed']
    """

    def ask(*words):
        line = ["git", "-C", str(PROJECT_ROOT), *words]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        commit, changed = (
            ask("rev-parse", "HEAD"),
            bool(ask("status", "--porcelain", "--", "code/isicvision")),
        )
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        commit = changed = None
    return {"isicvision": __version__, "commit": commit, "changed": changed}


def machine() -> dict:
    """Describe the machine: system, processor, threads that torch uses, accelerator.

    >>> [*machine()]
    ['system', 'processor', 'threads', 'accelerator']
    """
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or None


def write(
    model: ImageClassifier, parts: dict[str, ImageDataset], folder: str | Path, parameters: dict | None = None
) -> Path:
    """Write run.json, about a model just trained and saved into `folder`, and return its path.

    `parts` is the split, such as ``{"train": …, "validation": …, "test": …}``. From `parameters`, those of the notebook
    or job, ``train.py --rerun`` repeats the run. Raises ValueError if the model was not trained on the part ``train``.

    >>> write(model, parts, model.save("outputs/model"), {"SEED": 0})  # doctest: +SKIP
    """
    described = dict(model.metadata)
    training = dict(described.pop("training"))
    history = training.pop("history", [])
    split = {name: _count(part, model.labels) | {"manifest": part.manifest()} for name, part in parts.items()}
    if "train" in split and split["train"]["manifest"] != training["manifest"]:
        raise ValueError("the model was not trained on this part train: fit it again, then write its record")
    run = {
        "format": 1,
        "parameters": parameters or {},
        "model": {name: value for name, value in described.items() if name != "format"},
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
    return _write(user_path(folder) / RUN_RECORD, run)


def _count(part, labels):
    counts = part.table["label"].value_counts().reindex(labels, fill_value=0)
    return {"images": len(part), **splitting.group_count(part.table), "labels": counts.to_dict()}


def add_metrics(evaluation: Evaluation, folder: str | Path) -> Path:
    """Add the metrics of an evaluation, with their 95 % intervals, to run.json in a folder, and return its path.

    If only some diagnoses were confirmed alike (`associations.confirmed_alike`), their ROC AUC and number are added.
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
    alike = evaluation.where(confirmed_alike(evaluation.table))
    if 0 < len(alike.table) < len(evaluation.table):
        found = (alike.metric("roc_auc"), *alike.interval("roc_auc"))
        figures = [None if np.isnan(figure) else figure for figure in found]
        run["metrics"]["images_confirmed_alike"] = len(alike.table)
        run["metrics"]["roc_auc_confirmed_alike"] = dict(zip(("value", "low", "high"), figures, strict=True))
    return _write(path, run)


def read(path: str | Path) -> dict:
    """Read a run record; FileNotFoundError or ValueError says that `path` is not one."""
    path = user_path(path)
    try:
        run = read_json(path)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such run record; record.write makes one") from None
    except ValueError as error:
        raise ValueError(f"{path} is not a run record: {error}") from error
    if not {"parameters", "split", "training"} <= set(run):
        raise ValueError(f"{path} is not a run record: it lacks parameters, split or training")
    return run


def _write(path, run):
    with replacing(path) as part:
        part.write_text(json.dumps(run, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path
