"""Sets of choices that were measured together on 7,006 pictures of HAM10000, see docs/results.md."""

PRESETS = {
    "fast": {
        "model": {"image_size": 128, "dropout": 0.2, "views": 4},
        "training": {"epochs": 5},
    },
    "balanced": {
        "model": {"image_size": 128, "dropout": 0.2, "views": 8},
        "training": {"epochs": 12},
    },
    "accurate": {
        "model": {"image_size": 192, "dropout": 0.2, "views": 8},
        "training": {"epochs": 20},
    },
}
"""For `ImageClassifier.from_preset`: arguments of the model, and of its `fit`."""

for _preset in PRESETS.values():  # what they have in common
    _preset["training"] |= {
        "batch_size": 32,
        "learning_rate": 0.002,
        "schedule": "one_cycle",
        "optimizer": "adamw",
        "l2": 0.01,
        "body_rate": 0.5,
        "class_weight": "balanced",
        "ema": 0.99,
    }
