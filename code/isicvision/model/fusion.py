"""Late fusion: age, sex and site beside an image's score, by logistic regression on images not trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_predict
from sklearn.preprocessing import OneHotEncoder, SplineTransformer

from .. import metrics, patient
from ..checks import CALL_NONE, require_dataset
from ..data import splitting
from ..data.associations import role
from ..data.dataset import ImageDataset
from ..fields import PATIENT
from ..text import near
from .classifier import ImageClassifier

AGES = (20, 50, 80)
"""Years between which what the age adds is linear; it is constant below and above."""
HARDLY = 10
"""The image's log-odds are multiplied by this, so that the penalty hardly reaches their weight."""


class Fusion:
    """A model of two labels that also uses age, sex and site in a dataset's table; `evaluate` takes it like a model.

    `numbers`, see `patient`, are those of `fit`, by default the ones that the model was saved with.

    >>> numbers = {"positive": "malignant", "intercept": 0, "image": 1, "added": [], "columns": {}, "decision": None}
    >>> model = ImageClassifier("squeezenet1_1", ["benign", "malignant"], weights=None, image_size=64)
    >>> Fusion(model, numbers).positive
    'malignant'
    """

    def __init__(self, model: ImageClassifier, numbers: dict[str, Any] | None = None):
        self.model, self.numbers = model, numbers or model.metadata["patient"]
        if self.numbers is None:
            raise ValueError("this model takes no age, sex or site: fusion.fit(model, validation) adds them")
        self.labels, self.positive, self.seen = model.labels, self.numbers["positive"], model.seen
        self.metadata = model.metadata | {"patient": self.numbers, "decision": self.numbers["decision"]}

    def predict_proba(self, dataset: ImageDataset) -> np.ndarray:
        """Return the probability of each label, (images, labels): the model's own where nothing is known."""
        people, column = patients(dataset.table, self.numbers["columns"]), self.labels.index(self.positive)
        own = self.model.predict_proba(dataset) if self.numbers["image"] else np.ones((len(people), 2))
        rows = zip(own[:, column].tolist(), own[:, 1 - column].tolist(), people, strict=True)
        fused = np.array([patient.score(self.numbers, *row) for row in rows])
        return np.column_stack([fused, 1 - fused] if column == 0 else [1 - fused, fused])

    def save(self, folder: str | Path) -> Path:
        """Save the model with these numbers, as `ImageClassifier.save` does; its bundle will carry them."""
        self.model.metadata["patient"] = self.numbers
        return self.model.save(folder)


def columns_of(table: pd.DataFrame, given: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the columns of age, sex and site: those `given`, None for none, else by their known names.

    Raises ValueError for one that is not there, or tells how the image was taken or what the diagnosis is.

    >>> columns_of(pd.DataFrame({"age_approx": [50], "sex": ["male"]}), {"sex": None})
    {'age': 'age_approx'}
    """
    named = {name: next((each for each in PATIENT[name] if each in table), None) for name in PATIENT}
    found = {name: column for name, column in (named | dict(given or {})).items() if column is not None}
    for name, column in found.items():
        if name not in PATIENT:
            raise ValueError(f"columns are given for age, sex and site, not for {name!r}")
        if column not in table:
            raise ValueError(f"{name}: there is no column {column!r}{near(column, [*table])}")
        if (about := role(column, table)) not in ("patient", "other"):
            raise ValueError(f"{name}: {column!r} is refused, it tells of the {about}, not of the patient")
    return found


def patients(table: pd.DataFrame, columns: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return what is `patient.known` in each row; nothing of a column that the table lacks."""
    found = {name: table[column] for name, column in columns.items() if column in table}
    return [*map(patient.known, pd.DataFrame(found, index=table.index).to_dict("records"))]


def fit(
    model: ImageClassifier, validation: ImageDataset, columns: Mapping | None = None, image: bool = True
) -> Fusion:
    """Learn what age, sex and site add to a model's scores, on images that it was not trained on: it warns of others.

    `columns` are those for `columns_of`; without `image`, the scores are those of age, sex and site alone. The
    threshold has the sensitivity that the model's own has on these images. Raises ValueError if there are not two
    labels, no columns or too few lesions, or if an age is impossible.

    >>> fit(model, validation).save("outputs/model_patient")  # doctest: +SKIP
    """
    require_dataset(validation, "fusion.fit")
    if len(model.labels) != 2:
        raise ValueError(f"age, sex and site need a model of two labels; this one has {len(model.labels)}")
    if not (named := columns_of(validation.table, columns)):
        raise ValueError("no column of age, sex or site was found: give one, as columns={'age': 'years'}")
    decision = model.metadata["decision"]
    positive = decision["positive"] if decision else model.positive
    people, true = patients(validation.table, named), (validation.table["label"] == positive).to_numpy()
    splitting.warn_of_seen(validation, model.seen, "to learn age, sex and site from")
    scores = model.predict_proba(validation)[:, model.labels.index(positive)].astype(float)
    numbers, held_out = learn(scores if image else None, people, true, validation.table["group"])
    if decision:
        found = float((scores >= decision["threshold"])[true].mean())
        threshold = metrics.choose_threshold(true, held_out, found) if found else CALL_NONE
        rule = f"sensitivity {found:.3f}, as by the image alone, on {len(true)} validation images"
        decision = {"positive": positive, "threshold": threshold, "rule": rule}
    return Fusion(model, numbers | {"positive": positive, "columns": named, "decision": decision})


def learn(
    scores: np.ndarray | None, people: list[dict[str, Any]], true: np.ndarray, groups: ArrayLike
) -> tuple[dict[str, Any], np.ndarray]:
    """Return the numbers for `patient.score`, and the images' scores by it in folds that their groups are not in.

    `scores` are of the positive label, None for none; `true` are the images that have it. Cross-validation by group
    chooses the penalty.
    """
    groups, table = np.asarray(groups), pd.DataFrame(people, columns=patient.NAMES)
    if (few := min(len(np.unique(groups[true == each])) for each in (True, False))) < 2:
        raise ValueError("age, sex and site need validation images of two lesions or more of each label")
    names = [name for name in patient.NAMES if table[name].notna().any()]
    spline = SplineTransformer(degree=1, knots=np.array(AGES, float)[:, None], extrapolation="constant")
    ways = {"age": spline, **dict.fromkeys(("sex", "site"), OneHotEncoder(sparse_output=False))}
    encoder = ColumnTransformer([(name, ways[name], [name]) for name in names])
    matrix, means = encoder.fit_transform(table.bfill().ffill()), {}
    for name in names:  # the unknown are 0, the mean: in an archive they tell where an image is from
        block, is_known = encoder.output_indices_[name], table[name].notna().to_numpy()
        means[name] = matrix[is_known, block].mean(axis=0)
        matrix[:, block] = np.where(is_known[:, None], matrix[:, block] - means[name], 0)
    if scores is not None:
        sure = np.clip(scores, patient.SURE, 1 - patient.SURE)
        matrix = np.column_stack([matrix, HARDLY * np.log(sure / (1 - sure))])
    folds = [*StratifiedGroupKFold(min(5, few), shuffle=True, random_state=0).split(matrix, true, groups)]
    regression, grid = LogisticRegression(solver="newton-cholesky"), {"C": np.logspace(-3, 1, 9)}
    best = GridSearchCV(regression, grid, scoring="neg_log_loss", cv=folds).fit(matrix, true).best_estimator_
    weights, added = best.coef_[0], []
    for name in names:
        own = weights[encoder.output_indices_[name]]
        values = AGES if name == "age" else encoder.named_transformers_[name].categories_[0].tolist()
        added += [[name, *pair] for pair in zip(values, (own - own @ means[name]).tolist(), strict=True)]
    image = 0.0 if scores is None else float(HARDLY * weights[-1])
    numbers = {"intercept": float(best.intercept_[0]), "image": image, "added": added}
    return numbers, cross_val_predict(best, matrix, true, cv=folds, method="predict_proba")[:, 1]
