"""Calibration: turn scores into probabilities by a temperature and, where it helps, an offset for each class."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import StratifiedGroupKFold

LARGEST_TEMPERATURE = 10
"""And a tenth the smallest: the likelihood alone has no maximum where few scores are all right, or all wrong."""
ENOUGH = 30
"""Lesions of each class that offsets need."""
FOLDS = 5


class _Given(ClassifierMixin, BaseEstimator):
    """A classifier whose predictions are its input, for scikit-learn's calibration."""

    def fit(self, scores, labels):
        self.classes_ = np.arange(scores.shape[1])
        return self

    def predict_proba(self, scores):
        return scores

    predict = predict_proba  # asked for, never called


def fit_temperature(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the temperature that calibrates scores: above 1 if they are too confident.

    By scikit-learn (Guo et al., On Calibration of Modern Neural Networks, 2017). `labels` are the numbers of the true
    classes, int (images,); `scores` probabilities (images, classes). Raises ValueError if a class has no image, or a
    score is not finite.

    >>> scores = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    >>> round(fit_temperature(np.array([0, 1, 0, 1, 0, 1]), scores), 2)
    1.37
    """
    if missing := [number for number in range(scores.shape[1]) if number not in labels]:
        raise ValueError(f"calibration needs images of every class; there is none of number {missing[0]}")
    if not np.isfinite(scores).all():
        raise ValueError("calibration needs finite scores: some are not finite")
    scores = np.clip(scores, 0, 1)  # scikit-learn takes scores that rounding put above 1 for logits
    everything = np.arange(len(labels))  # one fold is enough: nothing is fitted in it
    given = FrozenEstimator(_Given().fit(scores, labels))
    fitted = CalibratedClassifierCV(given, method="temperature", cv=[(everything, everything)])
    (calibrator,) = fitted.fit(scores, labels).calibrated_classifiers_[0].calibrators
    return float(np.clip(1 / float(calibrator.beta_), 1 / LARGEST_TEMPERATURE, LARGEST_TEMPERATURE))


def fit(labels: np.ndarray, scores: np.ndarray, groups: ArrayLike) -> tuple[float, list[float] | None]:
    """Return a temperature and, where they improve the scores, an offset for each class: both for `apply`.

    Offsets correct how frequent the scores take each class to be: Platt scaling with two classes, bias-corrected
    temperature scaling with more (Alexandari, Kundaje and Shrikumar, Maximum Likelihood with Bias-Corrected
    Calibration, 2020). They are kept if each class has `ENOUGH` groups and they lower the log loss over
    cross-validation folds that keep `groups`, the lesion of each image, whole. The rest is as for `fit_temperature`.
    """
    alone, groups = fit_temperature(labels, scores), np.asarray(groups)
    if min(len(np.unique(groups[labels == number])) for number in range(scores.shape[1])) < ENOUGH:
        return alone, None
    gain = 0.0
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    for fitted, others in folds.split(scores, labels, groups):
        given, right = (labels[fitted], scores[fitted]), (np.arange(len(others)), labels[others])
        moved = apply(scores[others], *_fit_offsets(*given))
        plain = apply(scores[others], fit_temperature(*given))
        gain += np.log(np.maximum(moved[right], 1e-12) / np.maximum(plain[right], 1e-12)).sum()
    return _fit_offsets(labels, scores) if gain > 0 else (alone, None)


def _fit_offsets(labels, scores):
    """Return temperature and offsets of maximum likelihood; the first offset is 0."""
    logits = np.log(np.clip(scores, 0, 1).astype(float) + 1e-12)  # as scikit-learn does for the temperature
    true = np.eye(scores.shape[1])[labels]

    def loss(given):
        chances = softmax(given[0] * logits + np.append(0, given[1:]), axis=1)
        wrong = (chances - true) / len(labels)
        value = -np.log(np.maximum(chances[true > 0], np.finfo(float).tiny)).mean()
        return value, np.append((wrong * logits).sum(), wrong[:, 1:].sum(axis=0))

    ends = [(1 / LARGEST_TEMPERATURE, LARGEST_TEMPERATURE)] + [(None, None)] * (scores.shape[1] - 1)
    slope, *offsets = minimize(loss, np.append(1, np.zeros(len(ends) - 1)), jac=True, bounds=ends).x.tolist()
    return 1 / slope, [0.0, *offsets]


def apply(scores: np.ndarray, temperature: float, offsets: ArrayLike | None = None) -> np.ndarray:
    """Return calibrated probabilities: softmax(log(scores) / temperature + offsets), of shape (images, classes).

    >>> apply(np.array([[0.9, 0.1]]), 2.0).round(2)
    array([[0.75, 0.25]])
    """
    logits = np.log(np.clip(scores, np.finfo(float).tiny, 1)) / temperature
    return softmax(logits if offsets is None else logits + np.asarray(offsets), axis=1)


def recalibrate(
    metadata: dict[str, Any], labels: np.ndarray, scores: np.ndarray, groups: ArrayLike
) -> np.ndarray:
    """Return calibrated scores; put temperature and offsets into a model's metadata, and move its threshold along.

    The arguments are those of `fit`. After a balanced training of more than two classes there are no offsets, which
    would undo the balance.
    """
    trained, decision = metadata["training"] or {}, metadata["decision"]
    balanced = "balanced" in (trained.get("class_weight"), trained.get("sampling"))
    alone = balanced and scores.shape[1] > 2
    found = (fit_temperature(labels, scores), None) if alone else fit(labels, scores, groups)
    if decision is not None and 0 < decision["threshold"] < 1:
        column = metadata["labels"].index(decision["positive"])
        limit = np.full((1, 2), 1 - decision["threshold"])
        limit[0, column] = decision["threshold"]
        undo = -metadata["temperature"] * np.asarray(metadata["offsets"] or [0, 0])
        limit = apply(apply(limit, 1 / metadata["temperature"], undo), *found)
        metadata["decision"] = decision | {"threshold": float(limit[0, column])}
    metadata |= {"temperature": found[0], "offsets": found[1]}
    return apply(scores, *found)
