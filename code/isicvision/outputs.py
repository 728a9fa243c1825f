"""Paths of what the notebooks and jobs write."""

import os
from pathlib import Path

from .files import require, user_path

NOTEBOOKS = {
    "images.csv": "code/01_data_acquisition_and_understanding/01_acquire_images.ipynb",
    "dataset.csv": "code/01_data_acquisition_and_understanding/02_understand_and_correct.ipynb",
    "split": "code/02_modeling/01_train.ipynb",
    "model": "code/02_modeling/01_train.ipynb",
    "evaluation": "code/02_modeling/02_evaluate.ipynb",
    "model_features": "code/02_modeling/03_features_and_classifier.ipynb",
    "model_patient": "code/02_modeling/05_age_sex_and_site.ipynb",
    "bundle": "code/03_deployment/01_deploy_locally.ipynb",
}
"""Which notebook writes which file or folder of the outputs."""


class Outputs:
    """Paths in the folder of a run's results, which the notebooks write one after the other.

    >>> Outputs("outputs").predictions.as_posix()
    'outputs/evaluation/predictions.csv'
    """

    def __init__(self, folder: str | os.PathLike = "outputs") -> None:
        self.folder = user_path(folder)
        self.downloads = self.folder / "data"
        self.images = self.folder / "images.csv"
        self.decisions = self.folder / "decisions.csv"
        self.dataset = self.folder / "dataset.csv"
        self.data_report = self.folder / "data_report"
        self.data_card = self.data_report / "data_card.md"
        self.split = self.folder / "split"
        self.model = self.folder / "model"
        self.model_features = self.folder / "model_features"
        self.model_patient = self.folder / "model_patient"
        self.predictions = self.folder / "evaluation" / "predictions.csv"
        self.evaluation = self.folder / "evaluation" / "report.html"
        self.bundle = self.folder / "bundle"
        self.notebooks = self.folder / "notebooks"

    def require(self, path: Path) -> Path:
        """Return one of these paths if it exists; otherwise raise FileNotFoundError that names the notebook to run."""
        return require(path, NOTEBOOKS[path.relative_to(self.folder).parts[0]])
