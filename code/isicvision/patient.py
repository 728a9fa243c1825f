"""What age, sex and site add to an image's score: an additive logistic model; copied into every bundle.

Its numbers, which `model.fusion` learns, are JSON: ``intercept``; ``image``, the weight of the image's log-odds; and
``added``, rows of name, value and log-odds. Between the ages of two rows it is linear, beyond the last constant.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

NAMES = ("age", "sex", "site")
AGE = re.compile(r"\d+(\.\d*)?", re.ASCII)
UNKNOWN = ("", "unknown", "nan", "none", "n/a", "<na>")
SURE = 1e-6
"""A lower probability counts as this one, so that log-odds stay finite; also where scores are averaged."""


def known(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known: age in years, sex and site in lower case. Raises ValueError for an impossible value."""
    found: dict[str, Any] = {}
    for name in NAMES:
        text = str(given.get(name)).strip().lower()
        if isinstance(given.get(name), (list, dict)) or len(text) > 100:
            raise ValueError(f"{name} is one short value, not {text[:40]}…")
        if name == "age" and text not in UNKNOWN and not (AGE.fullmatch(text) and float(text) <= 120):
            raise ValueError(f"age is a number of years from 0 to 120, not {text!r}")
        if text not in UNKNOWN:
            found[name] = float(text) if name == "age" else text.removesuffix(".0")
    return found


def added(numbers: Mapping[str, Any], patient: Mapping[str, Any]) -> dict[str, float]:
    """Return the log-odds that each `known` value adds; values that the model has not learned are left out."""
    ages = [row[1:] for row in numbers["added"] if row[0] == "age"]
    found = {name: odds for name, value, odds in numbers["added"] if patient.get(name) == value}
    if "age" in patient and ages:
        years, odds = np.array(ages, float).T
        found["age"] = float(np.interp(patient["age"], years, odds))
    return found


def score(numbers: Mapping[str, Any], positive: float, other: float, patient: Mapping[str, Any]) -> float:
    """Return the probability of the positive label, given both labels' by the image alone and what is `known`.

    What is missing or was not learned adds 0, the mean of all; if that is everything, the image's own is returned.
    """
    parts = added(numbers, patient)
    if not parts and numbers["image"]:
        return positive
    own = math.log(max(positive, SURE) / max(other, SURE))
    return 1 / (1 + math.exp(-numbers["intercept"] - numbers["image"] * own - sum(parts.values())))
