"""What model.json says about a model, and what a person reads of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..text import counted
from .backbones import Backbone

FORMAT = 4
"""Of model.json."""
CAVEAT = "A teaching sample, not a diagnostic device: no medical decision may rest on it."
UNTRAINED: dict[str, Any] = {
    "temperature": 1.0,
    **dict.fromkeys(("offsets", "scores", "scores_images", "decision", "outliers", "training")),
}
"""What holds for one training only, before it."""


def new(backbone: Backbone, weights: str | Path | None, classifier: Any, **options: Any) -> dict[str, Any]:
    """Return the metadata of a new `ImageClassifier`; `options` are its other arguments."""
    published = weights == "imagenet"
    return {
        "format": FORMAT,
        **options,
        "backbone": backbone.name,
        "interpolation": backbone.interpolation,
        "preset": None,
        "weights": None if weights is None else str(weights),
        "weights_source": backbone.source if published else None,
        "weights_license": backbone.license if published else None,
        "sublabels": None,
        "classifier": None if classifier is None else str(classifier),
        "members": 1,
        **UNTRAINED,
        "caveat": CAVEAT,
    }


def of(metadata: dict[str, Any], how: str, is_fine_tuned: bool) -> str:
    """Say in a few lines what a model is, and what it has learnt; `how` says how it learns."""
    labels, trained, decision = (metadata[name] for name in ("labels", "training", "decision"))
    counts, decides, calibrated = "not yet", "the highest score", "not yet"
    if trained:
        lesions = "" if trained["groups"] is None else f" of {counted(trained['groups'], 'lesion')}"
        counts = f"on {counted(sum(trained['images'].values()), 'image')}{lesions}"
    if decision:
        decides = f"{decision['positive']} from a score of {decision['threshold']:.3f} on"
    if metadata["scores"]:
        calibrated = f"temperature {metadata['temperature']:.2f}{', offsets' if metadata['offsets'] else ''}"
    lines = {
        "network": f"{metadata['backbone']}, {how}, images of {metadata['image_size']} px",
        "labels": f"{len(labels)}: {', '.join(labels[:10] + ['…'] * (len(labels) > 10))}",
        "positive": metadata["positive"],
        "preset": metadata["preset"],
        "members": metadata["members"] if metadata["members"] > 1 else None,
        "trained": counts,
        "calibrated": calibrated if is_fine_tuned else None,
        "decision": decides,
        "limit": "distance 1" if metadata["outliers"] else "none: it scores any image",
    }
    shown = [f"  {name + ':':<12}{value}" for name, value in lines.items() if value is not None]
    return "\n".join(["ImageClassifier", *shown])


def answer(metadata: dict[str, Any], scores: Sequence[float]) -> str:
    """Say in a sentence what a model makes of one image, from its scores.

    >>> known = {"labels": ["benign", "malignant"], "decision": {"positive": "malignant", "threshold": 0.194}}
    >>> answer(known, [0.816, 0.184])
    'benign: malignant from a score of 0.194, this image has 0.184'
    """
    labels, decision = metadata["labels"], metadata["decision"]
    if decision is None:
        return f"{labels[int(np.argmax(scores))]}: its score is the highest, {max(scores):.3f}"
    number, threshold = labels.index(decision["positive"]), decision["threshold"]
    label = labels[number if scores[number] >= threshold else 1 - number]
    return f"{label}: {labels[number]} from a score of {threshold:.3f}, this image has {scores[number]:.3f}"
