"""Features of a pretrained network, and a scikit-learn classifier that is fitted to them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import sklearn
import torch
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.model_selection._search import BaseSearchCV

from ..data import cache
from . import inputs
from .network import Features, Network, load_values

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset
    from .backbones import Backbone


def featurize(network: Network, images: cache.Images) -> np.ndarray:
    """Return the input of a network's last layer, from the cache if it is there: float32 (images, features)."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in network.body.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    kind, module = f"features-{digest.hexdigest()}-{images.how}", Features(network)

    def compute(numbers):
        return inputs.apply(module, images, "features", numbers)

    return cache.through(kind, network.head[-1].in_features, images, compute)


class FeatureClassifier:
    """How an `ImageClassifier` with a scikit-learn classifier learns and scores.

    `network` computes the features and is not trained; `fit` fits a clone of `classifier`.
    """

    def __init__(self, backbone: Backbone, network: Network, metadata: dict[str, Any], classifier: Any):
        if isinstance(classifier, type) or not hasattr(classifier, "fit") or not is_classifier(classifier):
            raise ValueError(
                f"classifier is a classifier of scikit-learn, such as LogisticRegression(), not {classifier!r}"
            )
        if metadata["views"] > 1:
            raise ValueError("views has no effect on features + a scikit-learn classifier; leave it out")
        self.backbone, self.networks, self.metadata = backbone, [network], metadata
        self.classifier = self._unfitted = classifier
        self.defaults: dict[str, Any] = {}
        if hasattr(classifier, "calibrated_classifiers_") and isinstance(classifier.cv, list):
            self._unfitted = classifier.estimator  # the folds are those of the images it was fitted to

    def fit(
        self, dataset: ImageDataset, validation: ImageDataset | None, given: dict[str, Any], **options: Any
    ) -> tuple[ImageDataset, None, dict[str, Any]]:
        """Fit the classifier; return the readable images, no history, and nothing more for model.json."""
        given = {**given, "validation": validation, "augmenters": dataset.augmenters or None}
        given |= {name: options[name] for name in ("checkpoint", "tracker", "workers", "on_epoch")}
        if names := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(names)}: no effect on features + {self.classifier}; leave it out")
        size, interpolation = self.metadata["image_size"], self.backbone.interpolation
        dataset, images = inputs.readable(dataset, "training", size, interpolation)
        targets = inputs.targets(dataset, self.metadata["labels"], "training", complete=True)
        self.classifier = self._fitted(featurize(self.networks[0], images), targets, dataset.table["group"])
        return dataset, None, {}

    def _fitted(self, features, targets, groups):
        known = {"groups": groups.to_numpy()} if isinstance(self._unfitted, BaseSearchCV) else {}
        fitted = sklearn.base.clone(self._unfitted).fit(features, targets, **known)
        if hasattr(fitted, "predict_proba"):  # StackingClassifier has it only once it is fitted
            return fitted
        count = min(5, *(groups[targets == n].nunique() for n in np.unique(targets)))
        if count < 2:
            raise ValueError(
                f"{self._unfitted} has no predict_proba and is calibrated over folds that keep lesions whole, so "
                "each label needs images of two lesions or groups; LogisticRegression needs no folds"
            )
        classifier = fitted.best_estimator_ if known else sklearn.base.clone(self._unfitted)
        folds = StratifiedGroupKFold(count).split(features, targets, groups)
        return CalibratedClassifierCV(classifier, cv=list(folds)).fit(features, targets)

    def load(self, networks: list[dict[str, torch.Tensor]]) -> None:
        """Take the values of a saved model's network; its classifier was given to this object."""
        load_values(self.networks[0], networks[0])

    def find_learning_rate(self, *_: Any) -> NoReturn:
        """Raise ValueError: nothing is trained step by step."""
        raise ValueError(f"features + {self.classifier} have no learning rate to be found")

    def module(self) -> Features:
        """Return what computes features from images."""
        return Features(self.networks[0])

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return the scores that follow from features."""
        return self.classifier.predict_proba(values).astype(np.float32)

    def predict_proba(self, images: cache.Images) -> np.ndarray:
        """Return the scores of decoded images. Raises RuntimeError before `fit`."""
        if self.metadata["training"] is None:
            raise RuntimeError("the model is not trained yet: call fit first")
        return self.scores(featurize(self.networks[0], images))
