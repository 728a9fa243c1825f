"""Thin helpers behind the notebooks: pictures in, fine-tuned classifier, evaluation, web service out.

The public names are those of ``__all__``. Each is imported when first used, so that ``import isicvision``
takes no time and loads neither torch nor azureml.
"""

import importlib

__version__ = "0.1.0"

_HOMES = {
    "IsicArchive": "archive",
    "ImageDataset": "dataset",
    "augment_dataset": "augmentation",
    "ImageClassifier": "classifier",
    "evaluate": "evaluation",
    "Evaluation": "evaluation",
    "build_bundle": "bundle",
    "deploy_local": "deployment",
    "ServiceClient": "client",
    "drift": "monitoring",
    "PROJECT_ROOT": "project",
    "require": "project",
    "audit": None,
    "augmentation": None,
    "azure": None,
    "cards": None,
    "comparison": None,
    "datareport": None,
    "decisions": None,
    "labelissues": None,
    "plots": None,
    "record": None,
    "saliency": None,
    "skintone": None,
    "widgets": None,
}
__all__ = [*_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'isicvision' has no attribute {name!r}; it offers {', '.join(__all__)}")
    home = _HOMES[name]
    if home is None:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(f"{__name__}.{home}"), name)


def __dir__():
    return sorted([*globals(), *__all__])
