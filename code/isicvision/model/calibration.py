"""Calibration: turn scores into probabilities by a temperature and, where it helps, an offset for each class."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.model_selection import StratifiedGroupKFold

LARGEST_TEMPERATURE = 10
"""And a tenth the smallest: the likelihood alone has no maximum where few scores are all right, or all wrong."""
ENOUGH = 30
"""Lesions of each class that offsets need."""
FOLDS = 5


def fit_temperature(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the temperature that calibrates scores: above 1 if they are too confident.

    Guo et al., On Calibration of Modern Neural Networks, 2017. `labels` are the numbers of the true classes, int
    (images,); `scores` probabilities (images, classes). ValueError if a class has no image, or a score is not finite.

    >>> scores = np.array([[0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.1]])
    >>> round(fit_temperature(np.array([0, 1, 0, 1, 0, 1]), scores), 2)
    1.37
    """
    if missing := [number for number in range(scores.shape[1]) if number not in labels]:
        raise ValueError(f"calibration needs images of every class; there is none of number {missing[0]}")
    if not np.isfinite(scores).all():
        raise ValueError("calibration needs finite scores: some are not finite")
    return _likeliest(labels, scores, offsets=0)[0]


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
        moved = apply(scores[others], *_likeliest(*given))
        plain = apply(scores[others], fit_temperature(*given))
        gain += np.log(np.maximum(moved[right], 1e-12) / np.maximum(plain[right], 1e-12)).sum()
    return _likeliest(labels, scores) if gain > 0 else (alone, None)


def _likeliest(labels, scores, offsets=None):
    """Return temperature and offsets of maximum likelihood, by default one a class; that of the first is 0."""
    count = scores.shape[1] - 1 if offsets is None else offsets
    logits = np.log(np.clip(scores, 0, 1).astype(float) + 1e-12)
    true = np.eye(scores.shape[1])[labels]

    def loss(given):
        chances = softmax(given[0] * logits + np.append(0, given[1:]), axis=1)
        wrong = (chances - true) / len(labels)
        value = -np.log(np.maximum(chances[true > 0], np.finfo(float).tiny)).mean()
        return value, np.append((wrong * logits).sum(), wrong[:, 1 : count + 1].sum(axis=0))

    ends = [(1 / LARGEST_TEMPERATURE, LARGEST_TEMPERATURE)] + [(None, None)] * count
    slope, *found = minimize(loss, [1.0] + [0.0] * count, jac=True, bounds=ends, tol=1e-12).x.tolist()
    return 1 / slope, [0.0, *found]


def apply(scores: np.ndarray, temperature: float, offsets: ArrayLike | None = None) -> np.ndarray:
    """Return calibrated probabilities: softmax(log(scores) / temperature + offsets), of shape (images, classes).

    >>> apply(np.array([[0.9, 0.1]]), 2.0).round(2)
    array([[0.75, 0.25]])
    """
    logits = np.log(np.clip(scores, np.finfo(float).tiny, 1)) / temperature
    return softmax(logits if offsets is None else logits + np.asarray(offsets), axis=1)


def recalibrate(metadata: dict, labels: np.ndarray, scores: np.ndarray, groups: ArrayLike) -> np.ndarray:
    """Return calibrated scores; put temperature and offsets into a model's metadata, and move its threshold along.

    The arguments are those of `fit`. Offsets would undo the balance of a balanced training of over two classes.
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
