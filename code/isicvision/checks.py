"""What a value must be: numbers, shares, seeds, data sets."""

from __future__ import annotations

import math
import reprlib
from typing import Any

import numpy as np


def plain(value: Any) -> Any:
    """Turn a number of numpy's into one of Python's: the former are no JSON."""
    return value.item() if isinstance(value, np.generic) else value


def is_number(value: Any, least: float) -> bool:
    """Say whether it is a finite number, `least` or more, and no bool."""
    is_real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return is_real and least <= value < math.inf


def is_whole(value: Any, least: float) -> bool:
    """Say whether it is an int, `least` or more, and no bool."""
    return is_number(value, least) and isinstance(value, (int, np.integer))


def is_share(value: Any) -> bool:
    """Say whether it is a number above 0 and below 1."""
    return is_number(value, 0) and 0 < value < 1


def check_seed(seed: Any) -> None:
    """Raise ValueError unless `seed` is a whole number that numpy takes."""
    if not is_whole(seed, 0) or seed >= 2**32:
        raise ValueError(f"seed is a whole number from 0 to 2**32 - 1, not {seed!r}")


def require_dataset(value: object, what: str) -> None:
    """Raise TypeError, which begins with `what`, unless a value is an ImageDataset."""
    if not (hasattr(value, "table") and hasattr(value, "paths")):
        raise TypeError(f"{what} takes an ImageDataset, not {reprlib.repr(value)}")
