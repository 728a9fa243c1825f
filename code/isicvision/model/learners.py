"""How an `ImageClassifier` learns: by fine-tuning, or by features of its network and a scikit-learn classifier."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import numpy as np
import pandas as pd
import sklearn
import torch
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.model_selection._search import BaseSearchCV

from ..checks import is_whole, require_dataset
from ..data import augmentation, cache, splitting
from ..files import user_path
from ..text import as_label
from . import inputs
from .history import History, RangeTest
from .network import Features, Network, Scores, detail, load_values
from .presets import PRESETS
from .settings import Settings
from .training import Training

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset
    from .backbones import Backbone

IDENTITY = ("backbone", "image_size", "dropout", "weights", "labels")
"""Metadata that a checkpoint must share with the training that resumes from it."""
LOWEST, HIGHEST, STEPS = 1e-5, 1.0, 40
"""Learning rates of the first and the last step of a range test, and about how many steps there are."""


class _Ramp(Settings):
    """Settings whose learning rate grows from `LOWEST` to `HIGHEST` by the same factor each step."""

    def rate(self, epoch, position):
        return LOWEST * (HIGHEST / LOWEST) ** position


class FineTuning:
    """How an `ImageClassifier` without a scikit-learn classifier learns and scores; `metadata` is the model's own."""

    def __init__(self, backbone: Backbone, network: Network, metadata: dict[str, Any]):
        self.backbone, self.networks, self.metadata = backbone, [network], metadata
        self.defaults: dict[str, Any] = {}
        self.augmenters: tuple = ()

    def take(self, preset: str | None, settings: dict[str, Any]) -> None:
        """Take the settings of a preset as defaults of `fit`, and its augmentation."""
        self.defaults, self.augmenters = settings, (augmentation.dermoscopy(),)
        self.metadata["preset"] = preset

    def settings(self, given: dict[str, Any]) -> Settings:
        """Return checked settings: those given, else the preset's, else the defaults."""
        settings = Settings.of(self.defaults, given)
        if settings.train_image_size is not None:
            self.backbone.check_size(settings.train_image_size, "train_image_size")
        return settings

    def fit(
        self,
        dataset: ImageDataset,
        validation: ImageDataset | None,
        given: dict[str, Any],
        checkpoint: str | Path | None,
        workers: int | None,
        **options: Any,
    ) -> tuple[ImageDataset, History, dict[str, Any]]:
        """Train as `ImageClassifier.fit` says, calling ``begin`` before the model changes.

        Returns the readable images, the history, and what model.json says about the training.
        """
        settings = self.settings(given)
        if validation is not None:
            require_dataset(validation, "fit: validation")
        if workers is not None and not is_whole(workers, 0):
            raise ValueError(f"workers is a number of processes, 0 or more, not {workers!r}")
        dataset, images = self._readable(dataset, "training", settings.train_image_size)
        targets = inputs.targets(dataset, self.metadata["labels"], "training", complete=True)
        sublabels, targets = self.outputs(dataset, targets, settings)
        augmenters = dataset.augmenters or self.augmenters
        described = augmentation.described(augmenters) if augmenters else "none"
        order = hashlib.sha256("".join(map(str, images.keys)).encode() + targets.tobytes()).hexdigest()
        about = {name: self.metadata[name] for name in IDENTITY} | {"sublabels": sublabels}
        about |= {"images": dataset.manifest(), "augmenters": described, "images_order": order[:16]}
        if validation is not None:
            options["validation"], about["validation"] = self._validation(validation, dataset)
        options |= {"about": about, "workers": workers}
        folder = user_path(checkpoint) if checkpoint else None
        if folder and settings.members > 1 and not (folder / "checkpoint.safetensors").exists():
            for left in folder.glob("member*/checkpoint.safetensors"):  # else found after long training
                raise ValueError(f"{left} is of another training: delete it, or choose another checkpoint=")
        history = self._train(images, targets, settings, augmenters, sublabels, folder, **options)
        trained = {"precision": history.precision, "augmentation": described, "history": history.records()}
        trained["detail"] = self._set_detail(self._median_detail(dataset))
        return dataset, history, dataclasses.asdict(settings) | trained

    def _train(self, images, targets, settings, augmenters, sublabels, folder, begin, on_epoch, **options):
        """Train each of the networks from the same start; return their joined history."""
        histories: list[History] = []
        start, several = self.with_outputs(sublabels), settings.members > 1

        def joined(own):
            return History.joined([*histories, own]) if several else own

        for member in range(settings.members):
            if several and options["progress"]:
                accelerate.PartialState().print(f"network {member + 1} of {settings.members}")
            network, seed = copy.deepcopy(start), self.metadata["seed"] + member
            options["augment"] = augmentation.Pipeline(augmenters, seed) if augmenters else None
            options["folder"] = folder / f"member{member + 1}" if folder and member else folder
            training = Training(network, images, targets, settings, seed=seed, **options)
            if not member:
                begin()
                self.networks.clear()
                self.metadata["sublabels"] = sublabels
            settings = dataclasses.replace(settings, precision=training.precision)
            self.networks.append(network)
            self.metadata["members"] = len(self.networks)
            histories.append(training.run(on_epoch and (lambda own: on_epoch(joined(own)))))
        return joined(histories.pop())

    def _median_detail(self, dataset):
        """Return the median detail of the training images, or of 500 of them; None if they have none."""
        images = self._readable(dataset, "training")[1]
        chosen = np.sort(np.random.default_rng(self.metadata["seed"]).permutation(len(images))[:500])
        parts = [torch.from_numpy(images[part]) for part in np.array_split(chosen, -(-len(chosen) // 64))]
        return float(torch.cat([*map(detail, parts)]).median()) or None

    def _set_detail(self, value):
        for network in self.networks:
            network.detail = value
        return value

    def find_learning_rate(self, dataset: ImageDataset, given: dict[str, Any], progress: bool) -> RangeTest:
        """Train a copy of the network with a rate that grows from step to step until the loss explodes.

        Smith, Cyclical Learning Rates for Training Neural Networks, 2017, section 3.3.
        """
        require_dataset(dataset, "find_learning_rate")
        settings, seed = self.settings(given), self.metadata["seed"]
        if len(dataset) < 2:
            raise ValueError("a range test needs two images or more")
        count = min(len(dataset), STEPS * settings.batch_size)
        shown = dataclasses.replace(dataset, table=dataset.table.sample(count, random_state=seed % 2**32))
        shown, images = self._readable(shown, "training", settings.train_image_size)
        targets = inputs.targets(shown, self.metadata["labels"], "training")
        sublabels, targets = self.outputs(shown, targets, settings)
        epochs = -(-STEPS // len(inputs.steps(len(targets), settings.batch_size)))
        fixed = {"epochs": epochs, "learning_rate": 1.0, "schedule": "constant", "freeze_epochs": 0}
        fixed |= {"ema": None, "keep": "last", "patience": None}
        ramp = _Ramp(**dataclasses.asdict(settings) | fixed)
        augmenters = dataset.augmenters or self.augmenters
        augment = augmentation.Pipeline(augmenters, seed) if augmenters else None
        options = {"augment": augment, "seed": seed, "progress": progress}
        training = Training(self.with_outputs(sublabels), images, targets, ramp, **options)
        with training.prepared(), contextlib.suppress(FloatingPointError):
            while not training.is_over():
                training.epoch()
        losses, total = training.at["step_loss"], epochs * len(training.plan)
        rates = [ramp.rate(0, (number + 0.5) / total) for number in range(len(losses))]
        table = pd.DataFrame({"learning_rate": rates, "loss": losses})
        table["smooth_loss"] = table["loss"].ewm(alpha=0.3).mean()  # of few steps, or it lags
        lowest = table["smooth_loss"].iloc[min(5, len(table) - 1) :].idxmin()
        too_high = table["smooth_loss"] > 4 * table["smooth_loss"][lowest]
        exploded = table.index[(table.index > lowest) & too_high]
        table = table[: exploded[0] + 1] if len(exploded) else table
        return RangeTest(table, suggestion=float(f"{table['learning_rate'][lowest] / 10:.1g}"))

    def _readable(self, dataset, what, size=None):
        return inputs.readable(dataset, what, size or self.metadata["image_size"], self.backbone)

    def _validation(self, validation, dataset):
        """Return the validation images with their labels, and the hash of both."""
        if validation.is_augmented:
            raise ValueError("the validation images are augmented: only training images may be")
        validation, images = self._readable(validation, "validation")
        known = splitting.fingerprints(dataset.originals())
        splitting.warn_of_seen(validation, known, "to validate on")
        targets = inputs.targets(validation, self.metadata["labels"], "validation")
        return (images, targets), validation.manifest()

    def outputs(
        self, dataset: ImageDataset, targets: np.ndarray, settings: Settings
    ) -> tuple[list[list[str]] | None, np.ndarray]:
        """Return the (label, sublabel) of each output, None if outputs are labels; and each image's output."""
        table, labels = dataset.table, self.metadata["labels"]
        if not settings.sublabels or "sublabel" not in table:
            return None, targets
        finer = table["sublabel"].map(as_label).fillna(table["label"])
        pairs = [*zip(table["label"], finer, strict=True)]
        found = sorted({*pairs}, key=lambda pair: (labels.index(pair[0]), pair[1]))
        return [[*pair] for pair in found], np.array([found.index(pair) for pair in pairs])

    def with_outputs(self, sublabels: list[list[str]] | None) -> Network:
        """Return a copy of the first network with an output for each sublabel, or for each label."""
        network, labels = copy.deepcopy(self.networks[0]), self.metadata["labels"]
        network.detail = None
        of_outputs = labels if sublabels is None else [label for label, _ in sublabels]
        label_of = [labels.index(label) for label in of_outputs]
        if label_of != network.label_of:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.metadata["seed"])
                network.set_outputs(label_of)
        return network

    def load(self, networks: list[dict[str, torch.Tensor]]) -> None:
        """Take the values of a saved model's networks and, as its `metadata` says, its preset."""
        network, preset = self.with_outputs(self.metadata["sublabels"]), self.metadata["preset"]
        self.networks[:] = [copy.deepcopy(network) for _ in networks]
        for network, values in zip(self.networks, networks, strict=True):
            load_values(network, values)
        self._set_detail((self.metadata["training"] or {}).get("detail"))
        if preset in PRESETS:
            self.take(preset, dict(PRESETS[preset]["training"]))

    def module(self, calibrated: bool = True) -> Scores:
        """Return what computes scores from images."""
        given = (self.metadata["temperature"], self.metadata["offsets"]) if calibrated else ()
        return Scores(self.networks, self.metadata["views"], *given)

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return what `module` computes: that is the scores."""
        return values

    def predict_proba(self, images: cache.Images) -> np.ndarray:
        """Return the scores of decoded images."""
        return inputs.apply(self.module(), images, "predicting")


def featurize(network: Network, images: cache.Images | np.ndarray) -> np.ndarray:
    """Return the input of a network's last layer, from the cache if it is there: float32 (images, features)."""
    if isinstance(images, np.ndarray):  # of `embeddings`: they are features
        return images
    digest = hashlib.blake2b(str(network.detail or "").encode(), digest_size=8)
    for name, tensor in network.body.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    kind, module = f"features-{digest.hexdigest()}-{images.how}", Features(network)

    def compute(numbers):
        return inputs.apply(module, images, "features", numbers)

    return cache.through(kind, network.head[-1].in_features, images, compute)


class FeatureClassifier:
    """How an `ImageClassifier` with a scikit-learn classifier learns and scores: `fit` fits a clone of it."""

    def __init__(self, backbone: Backbone, network: Network, metadata: dict[str, Any], classifier: Any):
        if isinstance(classifier, type) or not hasattr(classifier, "fit") or not is_classifier(classifier):
            raise ValueError(
                f"classifier is a classifier of scikit-learn, such as LogisticRegression(), not {classifier!r}"
            )
        if metadata["views"] > 1:
            raise ValueError("views has no effect on features + a scikit-learn classifier; leave it out")
        if (width := getattr(classifier, "n_features_in_", backbone.features)) != backbone.features:
            raise ValueError(f"the classifier was fitted to {width} features, not {backbone.features}")
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
        dataset, images = inputs.readable(dataset, "training", self.metadata["image_size"], self.backbone)
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
