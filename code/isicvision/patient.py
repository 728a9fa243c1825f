"""What age, sex and site add to an image's score: an additive logistic model; copied into every bundle.

Its numbers, which `model.fusion` learns, are plain JSON: ``intercept``; ``image``, the weight of the image's log-odds;
``age``, pairs of years and log-odds, linear in between and constant beyond; ``sex`` and ``site``, log-odds by value.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("age", "sex", "site")
OLDEST = 120
UNKNOWN = ("", "unknown", "nan", "none", "n/a", "<na>")
SURE = 1e-6
"""The least probability of a label, so that log-odds stay finite."""


def known(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known: age in years, sex and site in lower case. Raises ValueError for an impossible value.

    >>> known({"age": "55", "sex": "Male", "site": "unknown"})
    {'age': 55.0, 'sex': 'male'}
    """
    found: dict[str, Any] = {}
    for name in NAMES:
        value = given.get(name)
        text = str(value).strip().lower()
        if isinstance(value, (list, dict)) or len(text) > 100:
            raise ValueError(f"{name} is one short value, not {text[:40]}…")
        if text not in UNKNOWN:
            found[name] = _age(text) if name == "age" else text.removesuffix(".0")
    return found


def _age(text):
    try:
        age = float(text)
    except ValueError:
        age = math.nan
    if not 0 <= age <= OLDEST:
        raise ValueError(f"age is a number of years from 0 to {OLDEST}, not {text!r}")
    return age


def added(numbers: Mapping[str, Any], patient: Mapping[str, Any]) -> dict[str, float]:
    """Return the log-odds that each `known` value adds; values that the model has not learned are left out."""
    found = {
        name: numbers[name][patient[name]] for name in ("sex", "site") if patient.get(name) in numbers[name]
    }
    if "age" in patient and numbers["age"]:
        years, odds = np.array(numbers["age"], float).T
        found["age"] = float(np.interp(patient["age"], years, odds))
    return found


def score(numbers: Mapping[str, Any], positive: float, other: float, patient: Mapping[str, Any]) -> float:
    """Return the probability of the positive label, given both labels' by the image alone and what is `known`.

    What is missing or was not learned adds 0, the mean of all; if that is everything, the image's own is returned.

    >>> numbers = {"intercept": 0, "image": 1, "age": [[20, -1], [80, 1]], "sex": {}, "site": {}}
    >>> score(numbers, 0.5, 0.5, {"age": 50.0}), round(score(numbers, 0.5, 0.5, {"age": 90.0}), 3)
    (0.5, 0.731)
    """
    parts = added(numbers, patient)
    if not parts and numbers["image"]:
        return positive
    own = math.log(max(positive, SURE) / max(other, SURE))
    return 1 / (1 + math.exp(-numbers["intercept"] - numbers["image"] * own - sum(parts.values())))
