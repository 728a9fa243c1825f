"""The run record: one JSON file beside the model that says how it was made and lets the run be repeated."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import __version__
from ..data import splitting
from ..data.dataset import ImageDataset
from ..errors import warn
from ..evaluation import decisions
from ..evaluation.evaluation import Evaluation
from ..files import PROJECT_ROOT, RUN_RECORD, portable, read_json, replacing, require, user_path, versions
from ..model.classifier import ImageClassifier
from ..outputs import NOTEBOOKS, Outputs
from ..text import counted

PARTS = ("train", "validation", "test")


def digest(evaluation: Evaluation) -> str:
    """Hash which images were scored, their labels and their scores (six decimals): 32 hexadecimal digits.

    >>> from isicvision import Evaluation
    >>> len(digest(Evaluation.from_scores(["benign", "malignant"], [0.2, 0.7])))
    32
    """
    table, scores = evaluation.table, np.rint(evaluation.scores * 1e6).astype(int).tolist()
    rows = zip(table["path"].map(portable), table["label"], scores, strict=True)
    text = "\n".join([*evaluation.classes, *sorted(",".join(map(str, row)) for row in rows)])
    return hashlib.blake2b(text.encode(errors="surrogateescape"), digest_size=16).hexdigest()


def save_parts(parts: dict[str, ImageDataset], folder: str | Path) -> None:
    """Write the parts of a split into a folder, one CSV file each.

    >>> table = pd.DataFrame({"path": ["a.jpg"], "label": ["nevus"], "group": ["a"]})
    >>> save_parts({name: ImageDataset(table) for name in PARTS}, "split")
    >>> len(earlier_parts("split")["test"]), earlier_parts("elsewhere")
    (1, None)
    """
    for name, part in parts.items():
        part.save(user_path(folder) / f"{name}.csv")


def earlier_parts(folder: str | Path) -> dict[str, ImageDataset] | None:
    """Read the parts that `save_parts` wrote, for ``split(keep=…)``; None unless all three exist."""
    paths = {name: user_path(folder) / f"{name}.csv" for name in PARTS}
    if not all(path.exists() for path in paths.values()):
        return None
    return {name: ImageDataset.load(path) for name, path in paths.items()}


def kept_words(parts: dict[str, ImageDataset], earlier: dict[str, ImageDataset]) -> str:
    """Say how many images stayed in the part that they had in an earlier split, and how many are new.

    >>> parts = {"train": ImageDataset(pd.DataFrame({"path": ["a.jpg"], "label": ["nevus"], "group": ["a"]}))}
    >>> kept_words(parts, parts)
    '1 image as in the earlier split, 0 new, 0 moved with joined lesions.'
    """
    now, then = ([(path, name) for name in each for path in each[name].paths] for each in (parts, earlier))
    rows = splitting.matched(*([path for path, _ in each] for each in (now, then)))  # -1: a new image
    new = sum(rows < 0)
    stayed = sum(row >= 0 and then[row][1] == name for row, (_, name) in zip(rows, now, strict=True))
    moved = len(now) - stayed - new
    return f"{counted(stayed, 'image')} as in the earlier split, {new:,} new, {moved:,} moved with joined lesions."


def load_parts(folder: str | Path, model: str | Path | None = None) -> dict[str, ImageDataset]:
    """Read the parts that `save_parts` wrote, which must belong together, and to the `model` saved in a folder.

    Raises FileNotFoundError if a file is missing, ValueError if an image or a group is in two parts or the model was
    made with others. Warns if the table beside `folder` has changed since the split.
    """
    folder = user_path(folder)
    for name in PARTS:
        require(folder / f"{name}.csv", NOTEBOOKS["split"])
    parts = earlier_parts(folder) or {}
    if shared := splitting.shared_count(parts)["shared_groups"]:
        problem = f"{folder} holds parts of two splits: {shared:,} images or lesions are in several"
        raise ValueError(f"{problem}. Delete the folder and run {NOTEBOOKS['split']} again.")
    if model is not None:
        _check_parts(parts, folder, user_path(model))
    csv = Outputs(folder.parent).dataset
    if csv.exists():
        tables = (ImageDataset.load(csv), *parts.values())
        rows = pd.concat(each.table[["path", "label", "group"]] for each in tables)
        if changed := rows.drop_duplicates(keep=False)["path"].nunique():
            warn(
                f"{csv} has changed since it was split: {counted(changed, 'image')} new, gone, or with another label "
                f"or lesion. All results are those of the earlier table until {NOTEBOOKS['split']} runs again."
            )
    return parts


def _check_parts(parts, folder, model):
    """Raise ValueError if a saved model was made with other parts."""
    described = read_json(require(model / "model.json", NOTEBOOKS["model"]))
    known = {"train": described.get("training") or {}}
    if (model / RUN_RECORD).exists():
        known |= read(model / RUN_RECORD)["split"]
    for name, part in parts.items():
        manifest = known.get(name, {}).get("manifest")
        if manifest is not None and manifest != part.manifest():
            why = "images were split or corrected after the training"
            if gone := [path for path in part.paths if not os.path.exists(path)]:
                why = f"{len(gone):,} of its {counted(len(part), 'image')} are not there, such as {gone[0]}"
            problem = f"{folder / name}.csv is not the {name} part that {model} was made with: {why}"
            raise ValueError(f"{problem}. Restore the files, or run {NOTEBOOKS['split']} again.")


def require_current(bundle: str | Path, outputs: str | Path) -> None:
    """Raise ValueError unless a bundle was built from one of the models in the folders of `outputs`."""
    packed = read_json(user_path(bundle) / "model.json")
    for path in user_path(outputs).glob("*/model.json"):
        saved = read_json(path)
        same = all(packed.get(name) == saved[name] for name in saved.keys() - {"versions", "sha256"})
        if same and "id" not in saved:  # only bundles have an id
            return
    raise ValueError(f"{bundle} was built from no model in {outputs}: run {NOTEBOOKS['bundle']} again")


def require_evaluated(evaluation: Evaluation, model: str | Path) -> None:
    """Raise ValueError unless the record in a model's folder has the metrics of these predictions."""
    path = user_path(model) / RUN_RECORD
    metrics = (read(path)["metrics"] if path.exists() else None) or {}
    if metrics.get("predictions") != digest(evaluation):
        problem = f"the metrics in {path} are of another model or of other test images than these predictions"
        raise ValueError(f"{problem}: run {NOTEBOOKS['evaluation']} again")


def code_version() -> dict:
    """Return the version of isicvision and, in a checkout, the commit and whether files differ from it."""

    def ask(*words):
        line = ["git", "-C", str(PROJECT_ROOT), *words]
        return subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        commit = ask("rev-parse", "HEAD")
        changed = bool(ask("status", "--porcelain", "--", "code/isicvision"))
    except (OSError, subprocess.SubprocessError):  # no git, or no checkout
        commit = changed = None
    return {"isicvision": __version__, "commit": commit, "changed": changed}


def machine() -> dict:
    """Describe the machine: system, processor, threads that torch uses, accelerator."""
    info = Path("/proc/cpuinfo")
    found = info.exists() and re.search(r"^model name\s*: (.+)$", info.read_text("utf-8"), re.MULTILINE)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": found[1] if found else platform.processor() or None,
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def write(
    model: ImageClassifier, parts: dict[str, ImageDataset], folder: str | Path, parameters: dict | None = None
) -> Path:
    """Write run.json, about a model just trained and saved into `folder`, and return its path.

    `parts` is the split, such as ``{"train": …, "validation": …, "test": …}``. From `parameters`, those of the notebook
    or job, ``train.py --rerun`` repeats the run. Raises ValueError if the model was not trained on the part ``train``.

    >>> write(model, parts, model.save("outputs/model"), {"SEED": 0})  # doctest: +SKIP
    """
    described = {name: value for name, value in model.metadata.items() if name != "format"}
    training = dict(described.pop("training"))
    history = training.pop("history", [])
    split = {name: _count(part, model.labels) for name, part in parts.items()}
    if "train" in split and split["train"]["manifest"] != training["manifest"]:
        raise ValueError("the model was not trained on this part train: fit it again, then write its record")
    run = {
        "format": 1,
        "parameters": parameters or {},
        "model": described,
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
    count = {"images": len(part), **splitting.group_count(part.table)}
    return count | {"labels": counts.to_dict(), "manifest": part.manifest()}


def add_metrics(
    evaluation: Evaluation,
    folder: str | Path,
    slices: Sequence[pd.DataFrame] = (),
    external: pd.DataFrame | None = None,
) -> Path:
    """Add the metrics of an evaluation, with their 95 % intervals, to run.json in a folder, and return its path.

    They are of one answer an image and, as ``per_lesion``, of one a lesion, if some lesion has several images. With
    them are kept the tables of `comparison.slices`, and one of external tests, by test and figure, if given.
    """
    path = user_path(folder) / RUN_RECORD
    run = read(path)
    run["metrics"] = {
        "images": len(evaluation.table),
        **splitting.group_count(evaluation.table),
        "manifest": ImageDataset(evaluation.table).manifest(),
        "predictions": digest(evaluation),
        "positive": evaluation.positive,
        "threshold": evaluation.threshold,
    }
    for unit, each in evaluation.units.items():
        table = figures(each)
        found = {f"{unit}s_confirmed_alike": len(alike.table) for alike in _alike(each)}
        found |= table.astype(object).where(table.notna(), None).to_dict("index")
        run["metrics"] |= {"per_lesion": {"lesions": len(each.table)} | found} if unit == "lesion" else found
    if slices:
        tables = {each.index.name: each.assign(metric=each.columns.name) for each in slices}
        rows = pd.concat(tables, names=["column", "slice"]).reset_index()
        run["metrics"]["slices"] = json.loads(rows.to_json(orient="records"))  # NaN is null
    if external is not None:
        run["metrics"]["external"] = json.loads(external.reset_index().to_json(orient="records"))
    return _write(path, run)


def figures(evaluation: Evaluation) -> pd.DataFrame:
    """Return all metrics, then three of those confirmed alike, if these are not all: see `decisions.populations`.

    >>> from isicvision import Evaluation
    >>> figures(Evaluation.from_scores(["benign", "malignant"], [0.2, 0.7])).loc["roc_auc", "value"]
    np.float64(1.0)
    """
    names = ["roc_auc", "recall", "specificity"]
    rows = [each.metrics(names).rename(index="{}_confirmed_alike".format) for each in _alike(evaluation)]
    return pd.concat([evaluation.metrics(), *rows])


def _alike(evaluation):
    return [*decisions.populations(evaluation).values()][1:]


def read(path: str | Path) -> dict:
    """Read a run record; FileNotFoundError or ValueError says that `path` is not one."""
    path = user_path(path)
    run = read_json(path)
    if not {"parameters", "split", "training"} <= set(run):
        raise ValueError(f"{path} is not a run record: it lacks parameters, split or training")
    return run


def _write(path, run):
    with replacing(path) as part:
        part.write_text(json.dumps(run, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path
