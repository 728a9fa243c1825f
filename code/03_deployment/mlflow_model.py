"""A service bundle as an MLflow model (pyfunc): for `mlflow models serve`, registries, and Azure's no-code deployment.

    python code/03_deployment/mlflow_model.py outputs/bundle outputs/mlflow

A second run replaces the model in the folder. docs/service.md has a request. From Python, as the training pipeline
does: ``mlflow_model.save(bundle, folder)``.
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import os
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import yaml
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image

from isicvision.files import replacing_folder, user_path
from isicvision.service.bundle import read_metadata

SCORER = Path(__file__).with_name("mlflow_scorer.py")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
logging.getLogger("mlflow").setLevel(logging.WARNING)
COLUMN = "image_in_base64"  # as in the JSON of the web service, and in mlflow_scorer.py


def save(bundle: str | Path, folder: str | Path) -> Path:
    """Write a bundle as an MLflow model into `folder`; return `folder`.

    The folder holds the bundle, mlflow_scorer.py, a signature, a drawn image as input example, and the bundle's pinned
    requirements with MLflow; no PyTorch. It is written whole or not at all, and replaces an earlier model; ValueError
    if `folder` holds anything else, FileNotFoundError if `bundle` is not a bundle.
    """
    bundle, folder = user_path(bundle), user_path(folder)
    metadata = read_metadata(bundle)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not (folder / "MLmodel").is_file()):
        raise ValueError(f"{folder} is not an MLflow model: choose another folder")
    conda = yaml.safe_load((bundle / "conda.yml").read_text(encoding="utf-8"))
    conda["dependencies"][-1]["pip"].append(f"mlflow=={version('mlflow-skinny')}")
    columns = ["label", "error", *(f"score_{label}" for label in metadata["labels"])]
    outputs = [ColSpec("string" if name in columns[:2] else "double", name, False) for name in columns]
    with replacing_folder(folder.resolve()) as new:
        new.rmdir()  # MLflow makes it
        mlflow.pyfunc.save_model(
            str(new),
            python_model=str(SCORER),
            artifacts={"bundle": str(bundle)},
            conda_env=conda,
            signature=ModelSignature(Schema([ColSpec("string", COLUMN)]), Schema(outputs)),
            input_example=pd.DataFrame({COLUMN: [_drawn()]}),
            metadata={name: metadata[name] for name in ("id", "version")},
        )
        model = mlflow.models.Model.load(str(new))
        flavor = model.flavors["python_function"]
        # no folder of this machine in what is published; MLflow reads only the name of the one, nothing of the other
        flavor["model_code_path"], flavor["artifacts"]["bundle"]["uri"] = SCORER.name, "artifacts/bundle"
        model.save(str(new / "MLmodel"))
        with open(new / "requirements.txt", "a", encoding="utf-8") as file:
            file.write("\n")  # MLflow ends it without
    return folder


def _drawn():
    """Return a drawn image, a brown spot on skin, as base64 text."""
    rows, columns = np.mgrid[-1:1:150j, -1:1:200j]
    spot = 1 / (1 + np.exp(20 * (np.hypot(rows, columns) - 0.5 + 0.05 * np.sin(9 * rows))))[..., None]
    colors = spot * (95, 60, 45) + (1 - spot) * (205, 165, 145)
    noise = np.random.default_rng(0).normal(0, 6, colors.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(colors + noise, 0, 255).astype(np.uint8)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    """Write the model that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", help="folder made by build_bundle")
    parser.add_argument("folder", help="folder of the MLflow model; an earlier model there is replaced")
    given = parser.parse_args()
    try:
        print(save(given.bundle, given.folder))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
