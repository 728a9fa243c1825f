"""Presets: choices for EfficientNet-Lite0 on HAM10000, from fast to accurate; docs/results.md has their figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..checks import is_number, is_whole, plain
from .settings import Settings

MODEL = ("image_size", "dropout", "views")
"""Settings that are arguments of `ImageClassifier`; the others are those of its `fit`."""
SETTINGS = (*MODEL, *(field.name for field in dataclasses.fields(Settings)))
VIEWS = (1, 2, 4, 8)
_COMMON = {"train_image_size": 128, "batch_size": 32, "learning_rate": 0.001, "schedule": "one_cycle"}
_COMMON |= {"optimizer": "adamw", "l2": 0.01, "body_rate": 0.5, "sublabels": True, "ema": 0.99, "members": 1}
_MODEL = {"image_size": 160, "dropout": 0.2, "views": 8}
_BALANCED = _COMMON | {"epochs": 9, "frozen_stages": 2}

PRESETS: dict[str, dict[str, dict]] = {
    "fast": {"model": _MODEL | {"views": 4}, "training": _COMMON | {"epochs": 4, "frozen_stages": 3}},
    "balanced": {"model": _MODEL, "training": _BALANCED},
    "accurate": {"model": _MODEL, "training": _BALANCED | {"members": 3}},
}
"""For `ImageClassifier.from_preset`: arguments of the model, and settings of its `fit`."""


def divide(preset: str | None, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide settings into arguments of `ImageClassifier` and of its `fit`: a preset's, changed by those `given`.

    Raises ValueError if a value is out of range or there is no such preset, TypeError if there is no such setting.

    >>> divide("fast", {"dropout": 0.3, "epochs": 8})[0]
    {'image_size': 160, 'dropout': 0.3, 'views': 4}
    """
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset is one of {', '.join(PRESETS)}, not {preset!r}")
    chosen = PRESETS[preset] if preset else {"model": {}, "training": {}}
    model = chosen["model"] | {name: plain(given[name]) for name in MODEL if name in given}
    training = {name: value for name, value in given.items() if name not in MODEL}
    checked = Settings.of(chosen["training"], training)
    check_model(**model)
    return model, {name: getattr(checked, name) for name in chosen["training"] | training}


def check_model(image_size: Any = None, dropout: Any = 0.5, views: Any = 1) -> None:
    """Raise ValueError unless these are an image size, a probability of dropout and a number of views."""
    if image_size is not None and not is_whole(image_size, 64):
        raise ValueError(f"image_size is a number of pixels, 64 or more, not {image_size!r}")
    if not is_number(dropout, 0) or dropout >= 1:
        raise ValueError(f"dropout is a probability from 0 to below 1, not {dropout!r}")
    if not is_whole(views, 1) or views not in VIEWS:
        raise ValueError(f"views is one of {VIEWS}, not {views!r}")
