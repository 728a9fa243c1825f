"""What a value must be: numbers, shares, seeds, data sets."""

import math
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import errors
from .text import as_label, near

WELL_KNOWN = ("malignant", "melanoma", "cancer", "positive", "abnormal", "disease", "yes", "true", "1")
"""Names of the positive class, of two, that need no `positive=`: compared in lower case."""
CALL_NONE = 1.001
"""The threshold above every score: no image is called positive."""


def plain(value: Any) -> Any:
    """Turn what numpy and torch hold, and any sequence, into Python's numbers and lists: the former are no JSON."""
    value = value.tolist() if hasattr(value, "tolist") else value
    is_list = isinstance(value, Iterable) and not isinstance(value, str)
    return [*map(plain, value)] if is_list else value


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


def check_threshold(threshold: Any) -> None:
    """Raise ValueError unless `threshold` is a score from 0 to 1, or `CALL_NONE`."""
    if not is_number(threshold, 0) or (threshold > 1 and threshold != CALL_NONE):
        raise ValueError(f"threshold is a score from 0 to 1, not {threshold!r}")


def check_seed(seed: Any) -> None:
    """Raise ValueError unless `seed` is a whole number that numpy takes."""
    if not is_whole(seed, 0) or seed >= 2**32:
        raise ValueError(f"seed is a whole number from 0 to 2**32 - 1, not {seed!r}")


def require_dataset(value: object, what: str, labeled: bool = True) -> None:
    """Raise TypeError, which begins with `what`, unless a value is an ImageDataset; ValueError if labels lack."""
    if not (hasattr(value, "table") and hasattr(value, "paths")):
        raise TypeError(f"{what} takes an ImageDataset, not {reprlib.repr(value)}")
    if labeled and (count := int((value.table["label"] == "").sum())):
        raise ValueError(
            f"{what}: {count} of {len(value.table)} images have no labels. Give them labels in widgets.AnnotationUI "
            "and take its dataset, or leave them out: dataset.where(dataset.table['label'] != '')"
        )


def positive_label(labels: Sequence[str], positive: object = None, warn: bool = True) -> str:
    """Return the positive label of sorted `labels`: the class that recall, thresholds, curves and audits are about.

    It is the one chosen (ValueError if that is not a label), else of two labels the one in `WELL_KNOWN`, else the last,
    with a warning if there are two and `warn`.
    """
    if positive is not None:
        label = as_label(positive)
        if label is not None and label in labels:
            return label
        hint = near(positive, labels)
        raise ValueError(f"the positive label {positive!r} is not one of {', '.join(labels)}{hint}")
    known = [label for label in labels if label.casefold() in WELL_KNOWN]
    if len(labels) == 2 and len(known) == 1:
        return known[0]
    if len(labels) == 2 and warn:
        errors.warn(
            f"neither {labels[0]!r} nor {labels[1]!r} is known as the positive label: {labels[1]!r} is taken; "
            f"choose with positive={labels[0]!r}, in the notebooks with POSITIVE"
        )
    return labels[-1]
