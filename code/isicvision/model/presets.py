"""Presets: choices for EfficientNet-Lite0 on dermoscopic images, from fast to accurate.

They were chosen by validation figures on HAM10000; docs/results.md says what each reached on test images, in which
time. All train on smaller images than they predict at, freeze the first stages, average their weights, and learn finer
labels where there are some. ``accurate`` averages the scores of three networks trained as ``balanced``.
"""

_COMMON = {
    "batch_size": 32,
    "learning_rate": 0.001,
    "schedule": "one_cycle",
    "optimizer": "adamw",
    "l2": 0.01,
    "body_rate": 0.5,
    "sublabels": True,
    "ema": 0.99,
    "members": 1,
}
_MODEL = {"image_size": 160, "dropout": 0.2, "views": 8}
_BALANCED = _COMMON | {"train_image_size": 128, "epochs": 9, "frozen_stages": 2}

PRESETS: dict[str, dict[str, dict]] = {
    "fast": {
        "model": _MODEL | {"views": 4},
        "training": _COMMON | {"train_image_size": 128, "epochs": 4, "frozen_stages": 3},
    },
    "balanced": {"model": _MODEL, "training": _BALANCED},
    "accurate": {"model": _MODEL, "training": _BALANCED | {"members": 3}},
}
"""For `ImageClassifier.from_preset`: arguments of the model, and settings of its `fit`."""
