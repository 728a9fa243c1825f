"""Sets of choices for EfficientNet-Lite0 on dermoscopic pictures: how much time for how good a model.

``fast`` was chosen by validation figures on HAM10000 and then measured. ``balanced`` and ``accurate`` follow it with
more epochs and pixels; docs/results.md says which of them has been measured.
"""

_COMMON = {
    "batch_size": 32,
    "learning_rate": 0.001,
    "schedule": "one_cycle",
    "optimizer": "adamw",
    "l2": 0.01,
    "body_rate": 0.5,
    "class_weight": "balanced",
    "ema": 0.99,
}

PRESETS = {
    "fast": {
        "model": {"image_size": 128, "dropout": 0.2, "views": 4},
        "training": _COMMON | {"epochs": 5, "frozen_stages": 3},
    },
    "balanced": {
        "model": {"image_size": 128, "dropout": 0.2, "views": 8},
        "training": _COMMON | {"epochs": 14, "frozen_stages": 2},
    },
    "accurate": {
        "model": {"image_size": 192, "dropout": 0.3, "views": 8},
        "training": _COMMON | {"epochs": 20, "frozen_stages": 2},
    },
}
"""For `ImageClassifier.from_preset`: arguments of the model, and settings of its `fit`."""
