"""`ImageClassifier`: fine-tune a pretrained network, or put any scikit-learn classifier on its features."""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import hashlib
import inspect
import json
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import accelerate
import numpy as np
import pandas as pd
import sklearn
import skops.io
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_model
from sklearn.base import is_classifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.model_selection._search import BaseSearchCV

from ..checks import check_threshold, is_number, is_whole, plain, require_dataset
from ..data import augmentation, cache, splitting
from ..files import RUN_RECORD, is_stray, sha256, user_path, versions
from ..text import as_label, counted, listed
from . import backbones, calibration, outliers, rangetest, training
from . import devices as hardware
from .batches import forward
from .network import Features, Network, Scores, load_values, set_training, summary
from .presets import PRESETS
from .settings import Settings

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from ..data.dataset import ImageDataset

CAVEAT = "A teaching sample, not a diagnostic device: no medical decision may rest on it."
VIEWS = (1, 2, 4, 8)
FORMAT = 3
"""Of model.json."""
OWN_FILES = (
    *("model.json", "network.safetensors", "network[0-9]*.safetensors", "classifier.skops"),
    *("outliers.safetensors", "seen.safetensors", RUN_RECORD, "README.md"),
)
"""Patterns of the files in a model's folder that belong to the model; whatever else lies there stays."""
WORTH_EXPORTING = 500
"""So many images of 224 px on a CPU, and ONNX Runtime with its export is faster than torch."""


def _is_decision(value, labels):
    check_threshold(value["threshold"])
    return value["positive"] in labels


METADATA_CHECKS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "labels": (lambda value, _: isinstance(value, list), "a list of names"),
    "interpolation": (lambda value, _: value in ("bilinear", "bicubic"), "bilinear or bicubic"),
    "members": (lambda value, _: is_whole(value, 1), "a whole number of 1 or more"),
    "temperature": (lambda value, _: is_number(value, 0) and value > 0, "a number above 0"),
    "offsets": (
        lambda value, labels: (
            value is None or (len(value) == len(labels) and all(is_number(each, -1e9) for each in value))
        ),
        "None or a list with a number for each label",
    ),
    "decision": (
        lambda value, labels: value is None or _is_decision(value, labels),
        "None or a threshold for one of the labels",
    ),
}
"""Keys of model.json that change the scores, with the labels: whether a value is right, and in words what is."""


class ImageClassifier:
    """Images to probabilities: a pretrained network with a new last layer, or features + scikit-learn.

    Parameters
    ----------
    backbone
        alexnet, resnet18, resnet34, resnet50, resnet101, resnet152, efficientnet_lite0, or any other
        classification network of torchvision.
    labels
        At least two; the columns of `predict_proba` in this order.
    weights
        ``"imagenet"``, the path of a file of ImageNet weights, or None for random ones.
    image_size
        Side of the square that images are reduced to, in pixels; default: what the weights were trained at. At
        least 64 (the seven named networks halve it five times), or what the network needs.
    dropout
        Probability, 0 to below 1, in front of the last layer (fine-tuning only).
    classifier
        Fitted to the network's features instead of fine-tuning the network. One without ``predict_proba``,
        such as LinearSVC, is calibrated by `sklearn.calibration.CalibratedClassifierCV` over grouped folds.
    views : 1, 2, 4 or 8
        Test-time augmentation (fine-tuning only): the scores are the mean over so many flips and, with 8, quarter
        turns of each image, in so many times the time.
    seed
        Of the new layer, and of everything random in `fit`.

    Attributes
    ----------
    networks : list of isicvision.network.Network
        One, or as many as `fit` was told by ``members``.
    metadata : dict
        What `save` writes to model.json: network, labels, settings, history, versions.
    step_loss : list of float
        The loss of every step of the last `fit`.
    outliers : isicvision.model.outliers.Outliers or None
        What `fit_outlier_limit` has learnt.
    seen : dict of numpy.ndarray, or None
        Hashes of the training images and of their lesions, see `splitting.fingerprints`; `evaluate` warns of them.

    Raises
    ------
    ValueError
        If the network is unknown or a value is out of range.
    isicvision.backbones.WeightsError
        If the weights cannot be had or do not fit.
    """

    def __init__(
        self,
        backbone: str,
        labels: Sequence[str],
        weights: str | Path | None = "imagenet",
        image_size: int | None = None,
        dropout: float = 0.5,
        classifier: BaseEstimator | None = None,
        views: int = 1,
        seed: int = 0,
    ):
        self.backbone = backbones.get(backbone)
        if isinstance(labels, (str, set, frozenset)):
            raise ValueError(f"labels is a list, in the order of the scores' columns, not {labels!r}")
        self.labels: list[str] = [*filter(None, map(as_label, labels))]
        if len(self.labels) < 2 or len(set(self.labels)) < len(labels):
            raise ValueError(f"labels must be two or more different names, not {labels}")
        image_size = self.backbone.image_size if image_size is None else image_size
        image_size, dropout, views, seed = map(plain, (image_size, dropout, views, seed))
        if not is_number(dropout, 0) or dropout >= 1:
            raise ValueError(f"dropout is a probability from 0 to below 1, not {dropout!r}")
        if not is_whole(seed, 0) or seed >= 2**63:
            raise ValueError(f"seed is a whole number, 0 or more, not {seed!r}")
        self.backbone.check_size(image_size, "image_size")
        if not is_whole(views, 1) or views not in VIEWS:
            raise ValueError(f"views is one of {VIEWS}, not {views!r}")
        if classifier is not None and (
            isinstance(classifier, type) or not hasattr(classifier, "fit") or not is_classifier(classifier)
        ):
            raise ValueError(
                f"classifier is a classifier of scikit-learn, such as LogisticRegression(), not {classifier!r}"
            )
        if views > 1 and classifier is not None:
            raise ValueError("views has no effect on features + a scikit-learn classifier; leave it out")
        self.image_size, self.classifier, self.views, self.seed = image_size, classifier, views, seed
        self._defaults, self._augmenter, self.step_loss = {}, None, []
        self._unfitted = classifier
        self.seen: dict[str, np.ndarray] | None = None
        self.outliers: outliers.Outliers | None = None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = backbones.build(self.backbone.name, len(self.labels), weights, dropout)
        self.networks = [network.to(hardware.default_device()).eval()]
        self.metadata: dict[str, Any] = {
            "format": FORMAT,
            "labels": self.labels,
            "backbone": self.backbone.name,
            "image_size": image_size,
            "interpolation": self.backbone.interpolation,
            "views": views,
            "dropout": dropout,
            "seed": seed,
            "preset": None,
            "weights": None if weights is None else str(weights),
            "weights_source": self.backbone.source if weights == "imagenet" else None,
            "weights_license": self.backbone.license if weights == "imagenet" else None,
            "sublabels": None,
            "classifier": None if classifier is None else str(classifier),
            "members": 1,
            "temperature": 1.0,
            "offsets": None,
            "scores": None,
            "scores_images": None,
            "decision": None,
            "outliers": None,
            "training": None,
            "caveat": CAVEAT,
        }

    def __repr__(self) -> str:
        """Say in a few lines what the model is, and what it has learnt."""
        metadata, trained, decision = self.metadata, self.metadata["training"], self.metadata["decision"]
        names = [*self.labels[:10], *(["…"] if len(self.labels) > 10 else [])]
        how = f"features + {type(self.classifier).__name__}" if self.classifier is not None else "fine-tuning"
        counts = trained and counted(sum(trained["images"].values()), "image")
        if trained and trained["groups"] is not None:
            counts += f" of {counted(trained['groups'], 'lesion')}"
        decides = decision and f"{decision['positive']} from a score of {decision['threshold']:.3f} on"
        calibrated = (
            metadata["scores"]
            and f"temperature {metadata['temperature']:.2f}{', offsets' if metadata['offsets'] else ''}"
        )
        lines = {
            "network": f"{self.backbone.name}, {how}, images of {self.image_size} px",
            "labels": f"{len(self.labels)}: {', '.join(names)}",
            "preset": metadata["preset"],
            "members": metadata["members"] if metadata["members"] > 1 else None,
            "trained": f"on {counts}" if trained else "not yet",
            "calibrated": (calibrated or "not yet") if self.classifier is None else None,
            "decision": decides or "the highest score",
            "limit": "distance 1" if self.outliers is not None else "none: it scores any image",
        }
        shown = [f"  {name + ':':<12}{value}" for name, value in lines.items() if value is not None]
        return "\n".join(["ImageClassifier", *shown])

    @classmethod
    def from_preset(
        cls,
        preset: str,
        labels: Sequence[str],
        backbone: str = "efficientnet_lite0",
        weights: str | Path | None = "imagenet",
        seed: int = 0,
    ) -> ImageClassifier:
        """Make a model whose image size, views, augmentation and training settings were chosen together.

        `fit` then needs no further setting, but takes any; training images that come without augmenters pass through
        `augmentation.dermoscopy`.

        Parameters
        ----------
        preset
            ``"fast"``, ``"balanced"`` or ``"accurate"``, see `presets` and docs/results.md for what each reaches, and
            in which time.
        labels, backbone, weights, seed
            As of `ImageClassifier`.
        """
        if preset not in PRESETS:
            raise ValueError(f"preset is one of {', '.join(PRESETS)}, not {preset!r}")
        model = cls(backbone, labels, weights, **PRESETS[preset]["model"], seed=seed)
        model._train_as(preset)
        return model

    def _train_as(self, preset):
        self._defaults, self._augmenter = dict(PRESETS[preset]["training"]), augmentation.dermoscopy()
        self.metadata["preset"] = preset

    @property
    def network(self) -> Network:
        """The first of `networks`: what `summary`, `featurize` and `fit_outlier_limit` are of."""
        return self.networks[0]

    @property
    def device(self) -> torch.device:
        """Where the network is: torch.device."""
        return next(self.network.parameters()).device

    def summary(self) -> pd.DataFrame:
        """Say what the network consists of, what of it is trained, and its memory: see `network.summary`."""
        settings = self.metadata["training"] or self._defaults
        frozen, size = settings.get("frozen_stages", 0), settings.get("train_image_size")
        set_training(self.network, frozen, head_only=self.classifier is not None)
        table = summary(self.network, size or self.image_size)
        set_training(self.network)
        return table

    def fit(
        self,
        dataset: ImageDataset,
        validation: ImageDataset | None = None,
        *,
        checkpoint: str | Path | None = None,
        tracker: str | None = None,
        workers: int | None = None,
        progress: bool = True,
        on_epoch: Callable[[training.History], object] | None = None,
        **settings: Any,
    ) -> training.History | None:
        """Fine-tune the network, or fit the scikit-learn classifier to the network's features.

        Images that cannot be read are set aside with a warning, before training begins.

        Parameters
        ----------
        dataset
            For training; augmented on the fly if it comes from `augment_dataset`.
        validation
            Scored after each epoch, for the learning curves, ``keep="best"`` and ``patience``.
        checkpoint
            Folder from which a training that was killed goes on, by the same call.
        tracker : "tensorboard", "mlflow", "wandb", "comet_ml", …, optional
            Log settings and epochs there; any tracker of Accelerate whose package is installed.
        workers
            Processes that augment; default: none for the CPU, a process a core for a GPU.
        progress
            Show bars and a line an epoch.
        on_epoch
            Is given the history so far after each epoch: `plots.live_history` draws it.
        **settings
            The fields of `settings.Settings`: epochs, batch_size, learning_rate, schedule, optimizer, l2, …

        Returns
        -------
        History or None
            What each epoch did, see `history.History`; None with a scikit-learn classifier.

        Raises
        ------
        ValueError
            If labels are missing or unknown, a setting is out of range, or one is given that a scikit-learn
            classifier has no use for.
        TypeError
            If there is no such setting.
        FloatingPointError, MemoryError
            See `training.Training.run`.
        """
        require_dataset(dataset, "fit")
        if validation is not None:
            require_dataset(validation, "fit: validation")
        if self.classifier is not None:
            given = {**settings, "validation": validation, "checkpoint": checkpoint, "tracker": tracker}
            given |= {"augmenters": dataset.augmenters or None, "workers": workers, "on_epoch": on_epoch}
            if names := [name for name, value in given.items() if value is not None]:
                raise ValueError(
                    f"{', '.join(names)}: no effect on features + {self.classifier}; leave it out"
                )
        chosen = None if self.classifier is not None else self._settings(settings)
        if workers is not None and not is_whole(workers, 0):
            raise ValueError(f"workers is a number of processes, 0 or more, not {workers!r}")
        original = dataset.originals()
        dataset, images = self._sound(dataset, "training", chosen and chosen.train_image_size)
        targets = self._targets(dataset, "training")
        if missing := [label for n, label in enumerate(self.labels) if n not in targets]:
            raise ValueError(f"no training image is labeled {', '.join(missing)}")
        if chosen is not None:
            before = self.metadata["sublabels"], self.network.head[-1], self.network.label_of
            self.metadata["sublabels"], targets = self._outputs(dataset, targets, chosen)
            self._fit_head(self.network, self.metadata["sublabels"])
            begun = False

            def begin():
                nonlocal begun
                begun = True
                del self.networks[1:]
                self.metadata["members"] = 1
                self._forget()

            options = {"tracker": tracker, "workers": workers, "progress": progress, "on_epoch": on_epoch}
            try:
                history = self._fine_tune(
                    dataset, images, targets, validation, chosen, checkpoint, **options, on_start=begin
                )
            finally:
                if not begun:  # refused, or stopped before it began: the model stays as it was
                    self.metadata["sublabels"], self.network.head[-1], self.network.label_of = before
            trained = dataclasses.asdict(chosen) | {
                "precision": history.precision,
                "augmentation": self._augmentation(dataset)[1],
                "history": history.records(),
            }
            self.step_loss = history.step_loss
        else:
            history, trained = None, {}
            self._fit_classifier(dataset, targets)
        self._forget()
        self.seen = splitting.fingerprints(original)
        counts = dataset.table["label"].value_counts()
        self.metadata["training"] = trained | {
            "images": {label: int(counts[label]) for label in self.labels},
            **splitting.group_count(dataset.originals().table),
            "set_aside": len(dataset.set_aside),
            "manifest": original.manifest(),
            "sources": dataset.sources(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return history

    def _forget(self):
        """Drop what holds for an earlier training only."""
        names = ("offsets", "scores", "scores_images", "decision", "outliers", "training")
        self.metadata |= dict.fromkeys(names) | {"temperature": 1.0}
        self.outliers = self.seen = None

    def find_learning_rate(
        self, dataset: ImageDataset, progress: bool = True, **settings: Any
    ) -> rangetest.RangeTest:
        """Train a copy for up to 80 steps with a rate that grows, to see which rates learn: a range test.

        The settings are as of `fit`; batch size, optimizer and augmentation matter most. The result is as of
        `rangetest.RangeTest`; `plots.learning_rates` draws it.
        """
        if self.classifier is not None:
            raise ValueError(f"features + {self.classifier} have no learning rate to be found")
        chosen = self._settings(settings)
        if len(dataset) < 2:
            raise ValueError("a range test needs two images or more")
        count = min(len(dataset), rangetest.STEPS * chosen.batch_size)
        shown = dataclasses.replace(
            dataset, table=dataset.table.sample(count, random_state=self.seed % 2**32)
        )
        shown, images = self._sound(shown, "training", chosen.train_image_size)
        sublabels, targets = self._outputs(shown, self._targets(shown, "training"), chosen)
        network = copy.deepcopy(self.network)
        self._fit_head(network, sublabels)
        augment, _ = self._augmentation(dataset)
        return rangetest.find_learning_rate(network, images, targets, chosen, augment, self.seed, progress)

    def _settings(self, given):
        settings = Settings.of(self._defaults, given)
        if settings.train_image_size is not None:
            self.backbone.check_size(settings.train_image_size, "train_image_size")
        return settings

    def _sound(self, dataset, what, size=None):
        """Set aside what cannot be read; return the rest, and its images."""
        images = self._images(dataset, size)
        if images.broken:
            reasons = images.broken.values()
            if len({*images.broken}) == len({*dataset.paths}):
                raise ValueError(f"there is no {what} image that can be read:{listed(reasons)}")
            warnings.warn(
                f"{len(reasons)} of {len(images)} {what} images cannot be read, set aside:{listed(reasons)}",
                stacklevel=4,
            )
            dataset = dataset.without(images.broken)
            images = self._images(dataset, size)
        return dataset, images

    def _augmentation(self, dataset, member=0):
        """Return the pipeline of a dataset, or of the preset, with its description; None and "none" without one."""
        augmenters = dataset.augmenters or (self._augmenter and (self._augmenter,))
        if not augmenters:
            return None, "none"
        return augmentation.Pipeline(augmenters, self.seed + member), augmentation.described(augmenters)

    def _fine_tune(self, dataset, images, targets, validation, settings, checkpoint, on_epoch, **options):
        if len(dataset) < 2:
            raise ValueError("training needs two images or more")
        names = ("backbone", "image_size", "dropout", "weights", "labels", "sublabels")
        about = {name: self.metadata[name] for name in names} | {"images": dataset.manifest()}
        order = "".join(images.keys).encode() + targets.tobytes()
        about["images_order"] = hashlib.sha256(order).hexdigest()[:16]
        _, about["augmenters"] = self._augmentation(dataset)
        if validation is not None:
            if validation.is_augmented:
                raise ValueError("the validation images are augmented: only training images may be")
            validation, seen = self._sound(validation, "validation")
            if not len(validation):
                raise ValueError("there is no validation image that can be read")
            trained_on = splitting.fingerprints(dataset.originals())
            if both := splitting.seen(validation, trained_on).sum():
                warnings.warn(
                    f"{both} images are for training and for validation, too, or show a lesion of both: validation "
                    "figures are too good",
                    stacklevel=3,
                )
            about["validation"] = validation.manifest()
            validation = (seen, self._targets(validation, "validation"))
        checkpoint = user_path(checkpoint) if checkpoint else None
        if checkpoint and settings.members > 1 and not Path(checkpoint, "checkpoint.safetensors").exists():
            for left in sorted(Path(checkpoint).glob("member*/checkpoint.safetensors")):
                raise ValueError(
                    f"{left} is of another training: choose another folder for checkpoint=, or delete it and the others"
                )
        start = copy.deepcopy(self.network) if settings.members > 1 else None
        histories = []

        def joined(own):
            several = settings.members > 1
            return training.History.joined([*histories, own]) if several else own

        for member in range(settings.members):
            network, folder = self.network, checkpoint
            if member:
                network, options["on_start"] = copy.deepcopy(start), None
                folder = checkpoint and Path(checkpoint, f"member{member + 1}")
            if settings.members > 1 and options["progress"]:
                accelerate.PartialState().print(f"network {member + 1} of {settings.members}")
            own = training.train(
                network,
                images,
                targets,
                settings,
                validation=validation,
                augment=self._augmentation(dataset, member)[0],
                seed=self.seed + member,
                folder=folder,
                about=about,
                on_epoch=on_epoch and (lambda own: on_epoch(joined(own))),
                **options,
            )
            if member:
                self.networks.append(network)
                self.metadata["members"] = len(self.networks)
            histories.append(own)
            settings = dataclasses.replace(settings, precision=own.precision)
        return joined(histories.pop())

    def _fit_classifier(self, dataset, targets):
        classifier = sklearn.base.clone(self._unfitted)
        features = self.featurize(dataset)
        groups = dataset.table["group"]
        known = {"groups": groups.to_numpy()} if isinstance(classifier, BaseSearchCV) else {}
        fitted = sklearn.base.clone(classifier).fit(features, targets, **known)
        if not hasattr(fitted, "predict_proba"):  # of some, as StackingClassifier, nobody can tell before
            count = min(5, *(groups[targets == n].nunique() for n in range(len(self.labels))))
            if count < 2:
                raise ValueError(
                    f"{classifier} has no predict_proba and is calibrated over folds that keep lesions whole, so "
                    "each label needs images of two lesions or groups; LogisticRegression needs no folds"
                )
            if known:
                classifier = fitted.best_estimator_
            folds = StratifiedGroupKFold(count).split(features, targets, groups)
            fitted = CalibratedClassifierCV(classifier, cv=list(folds)).fit(features, targets)
        self.classifier = fitted

    def _targets(self, dataset, what):
        unknown = set(dataset.labels) - set(self.labels)
        if unknown:
            raise ValueError(
                f"the {what} images have labels that the model does not know: {', '.join(sorted(unknown))}; "
                f"it knows {', '.join(self.labels)}"
            )
        numbers = dataset.table["label"].map({label: n for n, label in enumerate(self.labels)})
        return numbers.to_numpy(np.int64, copy=True)

    def _outputs(self, dataset, targets, settings):
        """Return which sublabels get an output each (None: the labels), and which output is right for each image."""
        table = dataset.table
        if not settings.sublabels or "sublabel" not in table:
            return None, targets
        finer = table["sublabel"].map(as_label).fillna(table["label"])
        pairs = [*zip(table["label"], finer, strict=True)]
        outputs = sorted({*pairs}, key=lambda pair: (self.labels.index(pair[0]), pair[1]))
        return [[*pair] for pair in outputs], np.array([outputs.index(pair) for pair in pairs])

    def _fit_head(self, network, sublabels):
        """Give a network one output for each sublabel, or for each label if there are none."""
        of_labels = self.labels if sublabels is None else [label for label, _ in sublabels]
        label_of = [self.labels.index(label) for label in of_labels]
        if label_of != network.label_of:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                network.set_outputs(label_of)

    def _images(self, images, size=None):
        paths = [images] if isinstance(images, (str, Path)) else getattr(images, "paths", images)
        paths = [*paths] if isinstance(paths, Iterable) else [paths]
        if wrong := [path for path in paths if not isinstance(path, (str, Path))]:
            raise TypeError(
                "images are an ImageDataset, a path or a list of paths, and none is of type "
                f"{type(wrong[0]).__name__}; `scores` takes decoded images"
            )
        return cache.Images(paths, size or self.image_size, self.backbone.interpolation)

    def featurize(self, images: ImageDataset | Sequence[str | Path]) -> np.ndarray:
        """Compute the network's features, the input of its last layer, or take them from the cache.

        Returns
        -------
        numpy.ndarray of float32, shape (images, features)

        Raises
        ------
        isicvision.images.ImageError
            If images cannot be read; it names all of them.
        """
        readable = self._images(images).require_all()
        kind = f"features-{_digest(self.network.body)}-{readable.how}"

        def compute(numbers):
            return self._apply(Features(self.network), readable, numbers, "features")

        return cache.through(kind, self.backbone.features, readable, compute)

    def predict_proba(self, images: ImageDataset | Sequence[str | Path]) -> np.ndarray:
        """Predict the probability of each label.

        Returns
        -------
        numpy.ndarray of float32, shape (images, labels)
            Rows sum to 1; columns in the order of `labels`.

        Raises
        ------
        isicvision.images.ImageError
            If images cannot be read; it names all of them.
        RuntimeError
            If the scikit-learn classifier is not fitted yet.
        """
        self._require_fitted()
        if self.classifier is not None:
            return self.classifier.predict_proba(self.featurize(images)).astype(np.float32)
        images = self._images(images).require_all()
        return self._apply(self.scoring_module(), images, np.arange(len(images)), "predicting")

    def calibrate(self, validation: ImageDataset) -> float:
        """Make the scores fit for probabilities, on validation images: fit a temperature and, at best, offsets.

        With enough lesions of each label an offset for each label is fitted, too. It is kept if the scores of images
        that it was not fitted to are then better, see `calibration.fit`. A model with more than two
        labels that was trained with balanced classes gets none: offsets would take the balance back.

        Both stay with the model when it is saved, and go with it into the service: ``metadata["temperature"]`` and
        ``metadata["offsets"]``. With two labels the order of the scores does not change; a threshold must be chosen
        after it. Quantiles of the scores are kept, too: `drift` compares those of the service with them.

        Parameters
        ----------
        validation
            Images that the model was not trained on, with each label.

        Returns
        -------
        float
            The temperature: above 1 if the scores were too sure of themselves.

        Raises
        ------
        ValueError
            If the model is a scikit-learn classifier, or a label has no image.
        """
        if self.classifier is not None:
            raise ValueError(
                "this calibrates fine-tuned networks; give CalibratedClassifierCV as the classifier to calibrate it"
            )
        require_dataset(validation, "calibrate")
        if validation.is_augmented:
            raise ValueError("the validation images are augmented: calibrate on images as they were taken")
        if self.metadata["training"] is None:
            warnings.warn(
                "the model is not trained, so its calibration means nothing: call fit first", stacklevel=2
            )
        targets = self._targets(validation, "validation")
        if missing := [label for number, label in enumerate(self.labels) if number not in targets]:
            raise ValueError(
                f"calibration needs images of every class; there is none labeled {', '.join(missing)}"
            )
        splitting.warn_of_seen(validation, self.seen, "to calibrate on")
        images = self._images(validation).require_all()
        uncalibrated = Scores(self.networks, self.views)
        scores = self._apply(uncalibrated, images, np.arange(len(images)), "predicting")
        trained = self.metadata["training"] or {}
        balanced = "balanced" in (trained.get("class_weight"), trained.get("sampling"))
        if balanced and len(self.labels) > 2:
            temperature, offsets = calibration.fit_temperature(targets, scores), None
        else:
            groups = validation.table["group"]
            temperature, offsets = calibration.fit(targets, scores, groups)
        calibrated = calibration.apply(scores, temperature, offsets)
        self.metadata |= {
            "temperature": temperature,
            "offsets": offsets,
            "decision": None,
        }
        self._keep_scores(calibrated)
        return temperature

    def _keep_scores(self, scores):
        """Keep what `drift` compares with the scores that the service gives."""
        quantiles = dict(zip(self.labels, map(_quantiles, scores.T), strict=True))
        self.metadata |= {"scores": quantiles, "scores_images": len(scores)}

    def decide_at(self, threshold: float, positive: object = None, rule: str | None = None) -> None:
        """Call images positive from this score on, from now on; saved with the model, and used by the service.

        The threshold comes from `Evaluation.choose_threshold` on validation images; `positive` is one of two
        labels, by default the last; `rule` says in words how it was chosen, for whoever reads model.json. Raises
        ValueError if there are more than two labels, or a value is out of range.
        """
        positive = self.labels[-1] if positive is None else as_label(positive)
        if len(self.labels) != 2 or positive not in self.labels:
            raise ValueError(
                f"a threshold decides between two labels for one of them, not {', '.join(self.labels)} for {positive}"
            )
        check_threshold(threshold)
        if rule is not None and not isinstance(rule, str):
            raise ValueError(f"rule says in words how the threshold was chosen; it is not {rule!r}")
        self.metadata["decision"] = {"positive": positive, "threshold": float(threshold), "rule": rule}

    def fit_outlier_limit(self, training: ImageDataset, held_out: ImageDataset) -> np.ndarray:
        """Learn how far from the training images an image may lie: the service refuses those beyond.

        Saved with the model, and part of its ONNX graph. See `outliers` for the method; docs/service.md has what it
        refuses. It knows images from where these come from: of another camera or size it may refuse many.

        Parameters
        ----------
        training
            At most `outliers.IMAGES` of them are taken.
        held_out
            Other images, such as those for validation. About 3 % of such images will lie beyond the limit.

        Returns
        -------
        numpy.ndarray of float32, shape (images,)
            `distance` of the held-out images.

        Raises
        ------
        ValueError
            If there are fewer than two training images or no others, or either are copies of one. An earlier limit
            then stays.
        """
        require_dataset(training, "fit_outlier_limit")
        require_dataset(held_out, "fit_outlier_limit: held_out")
        if len(training) < 2 or not len(held_out):
            raise ValueError(
                f"fit_outlier_limit needs two training images or more, and others: there are {len(training)} and "
                f"{len(held_out)}"
            )
        splitting.warn_of_seen(held_out, self.seen, "held out")
        known = self._images(training).require_all()
        order = np.random.default_rng(self.seed).permutation(len(known))
        means = self._stage_means(known, np.sort(order[: outliers.IMAGES]))
        new = self._stage_means(held_out)
        self.outliers = outliers.fit(means, new).to(self.device)
        distances = self._distances(new)
        quantiles = _quantiles(distances)
        self.metadata["outliers"] = {
            "training": {"images": len(means)},
            "held_out": {"images": len(new), "refused": float((distances > 1).mean())},
            "distance_deciles": quantiles[::10],
            "distance_quantiles": quantiles,
        }
        within = distances <= 1
        if self.metadata["scores"] is not None and within.any():  # from now on the service scores only those
            self._keep_scores(self.predict_proba(held_out)[within])
        return distances

    def outlier_distance(self, images: ImageDataset | Sequence[str | Path] | np.ndarray) -> np.ndarray:
        """Tell how far from the training images each image lies: the service refuses what lies beyond 1.

        Images may also be an array as of `scores`. Returns float32 of shape (images,); raises RuntimeError before
        `fit_outlier_limit`.
        """
        if self.outliers is None:
            raise RuntimeError(
                "the model knows no limit yet: call fit_outlier_limit(training, validation) first"
            )
        return self._distances(self._stage_means(images))

    def _distances(self, means):
        with torch.inference_mode():
            given = torch.from_numpy(means).to(self.outliers.mean.device)
            return self.outliers(given).cpu().numpy()

    def _stage_means(self, images, numbers=None):
        if not isinstance(images, (cache.Images, np.ndarray)):
            images = self._images(images).require_all()
        numbers = np.arange(len(images)) if numbers is None else numbers
        return self._apply(outliers.StageMeans(self.network), images, numbers, "outliers")

    def scoring_module(self) -> torch.nn.Module:
        """Return what computes scores or, for a scikit-learn classifier, features from images: torch.nn.Module."""
        if self.classifier is not None:
            return Features(self.network)
        return Scores(self.networks, self.views, self.metadata["temperature"], self.metadata["offsets"])

    def _require_fitted(self):
        if self.classifier is not None and self.metadata["training"] is None:
            raise RuntimeError("the model is not trained yet: call fit first")

    def _apply(self, module, images, numbers, title):
        """Apply a module to many images, by ONNX Runtime where that is faster and installed."""
        runs = module.views * len(module.networks) if isinstance(module, Scores) else 1
        work = len(numbers) * runs * (self.image_size / 224) ** 2
        if work >= WORTH_EXPORTING and self.device.type == "cpu":
            try:
                from . import onnx as export
            except ModuleNotFoundError:  # they belong to an extra
                pass
            else:
                module = export.Compiled(module.eval(), self.image_size)
        return forward(module, images, numbers, progress=title)

    def scores(self, array: np.ndarray) -> np.ndarray:
        """Predict the probabilities of images that are decoded already, see `pixels.decode`.

        Maps uint8 of shape (images, image_size, image_size, 3) to float32 of shape (images, labels).
        """
        self._require_fitted()
        result = forward(self.scoring_module(), array)
        return result if self.classifier is None else self.classifier.predict_proba(result).astype(np.float32)

    def save(self, folder: str | Path) -> Path:
        """Write network.safetensors, model.json and, if there are such, classifier.skops and outliers.safetensors.

        seen.safetensors holds hashes of the training images and lesions, by which `evaluate` knows them again.

        Further networks of ``members`` are network2.safetensors, and so on. Returns the folder, as it was given.

        An earlier model in `folder` is replaced as a whole, with its metadata and record, and stays if this is
        interrupted; other files in the folder stay. No file holds a pickle.

        Raises
        ------
        ValueError
            If `folder` holds something else than a model, or `metadata` something that JSON cannot hold.
        """
        for name, value in self.metadata.items():
            try:
                json.dumps(value, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"metadata[{name!r}] cannot be saved: it is not text, a finite number, list or dict: {value!r}"
                ) from error
        given = user_path(folder)
        folder = given.resolve()  # the folder itself, not a link to it or "."
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; choose a folder for the model")
        holds_files = folder.is_dir() and any(not is_stray(path.name) for path in folder.iterdir())
        if holds_files and not (folder / "model.json").exists():
            raise ValueError(f"{folder} holds files that are no model; choose another folder")
        _put_back(folder)
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        if folder.is_dir():
            shutil.copytree(folder, new, symlinks=True, dirs_exist_ok=True, ignore=partial(_replaced, folder))
        for file, network in zip(_files(len(self.networks)), self.networks, strict=True):
            save_model(network, str(new / file))
        if self.classifier is not None:
            skops.io.dump(self.classifier, new / "classifier.skops")
            _trusted_types(new / "classifier.skops")  # now, not when it is wanted
        if self.outliers is not None:
            save_model(self.outliers, str(new / "outliers.safetensors"))
        if self.seen is not None:
            save_arrays(self.seen, str(new / "seen.safetensors"))
        written = sorted(file for pattern in OWN_FILES for file in new.glob(pattern))
        metadata = self.metadata | {
            "versions": versions(),
            "sha256": {file.name: sha256(file) for file in written},
        }
        (new / "model.json").write_text(
            json.dumps(metadata, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        old = _aside(folder)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
        return given

    @classmethod
    def load(cls, folder: str | Path) -> ImageClassifier:
        """Read a model that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is none in `folder`.
        ValueError
            If a file is damaged, or not the one that was saved; or if classifier.skops holds types that scikit-learn
            does not define: they might run any code.
        """
        folder = user_path(folder)
        _put_back(folder)
        if not (folder / "model.json").exists():
            hint = "give the model's folder" if folder.is_file() else "train one and save it there"
            raise FileNotFoundError(f"{folder} holds no model (no model.json): {hint}")
        names = ("backbone", "labels", "image_size", "dropout", "seed")
        try:
            metadata = json.loads((folder / "model.json").read_text(encoding="utf-8"))
            if missing := {"format", "classifier", *names} - set(metadata):
                raise ValueError(f"it lacks {', '.join(sorted(missing))}")
            if metadata["format"] > FORMAT:
                raise ValueError(
                    f"it is of format {metadata['format']}; this version of isicvision knows {FORMAT}"
                )
            for name, (is_right, meaning) in METADATA_CHECKS.items():
                if name in metadata and not is_right(metadata[name], metadata["labels"]):
                    raise ValueError(f"{name} is {meaning}, not {metadata[name]!r}")
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{folder / 'model.json'} does not describe a model: {error}") from error
        try:
            return cls._load(folder, metadata, names)
        except (SafetensorError, BadZipFile, OSError, RuntimeError, TypeError, KeyError) as error:
            raise ValueError(f"the model in {folder} is damaged or incomplete: {error}") from error

    @classmethod
    def _load(cls, folder, metadata, names):
        for name, known in metadata.pop("sha256", {}).items():
            if sha256(folder / name) != known:
                raise OSError(f"{name} is not the file that was saved")
        model = cls(**{name: metadata[name] for name in names}, weights=None, views=metadata.get("views", 1))
        model._fit_head(model.network, metadata.get("sublabels"))
        files = _files(metadata.get("members", 1))
        model.networks += [copy.deepcopy(model.network) for _ in files[1:]]
        for file, network in zip(files, model.networks, strict=True):
            load_values(network, load_file(folder / file))
        if metadata["classifier"] is not None:
            file = folder / "classifier.skops"
            model.classifier = model._unfitted = skops.io.load(file, trusted=_trusted_types(file))
            if isinstance(model.classifier, CalibratedClassifierCV) and isinstance(model.classifier.cv, list):
                model._unfitted = model.classifier.estimator  # the folds are of the images it was fitted to
        model.metadata |= metadata
        if (folder / "seen.safetensors").exists():
            model.seen = load_arrays(folder / "seen.safetensors")
        if metadata.get("preset") in PRESETS:
            model._train_as(metadata["preset"])
        if model.metadata["outliers"] is not None:
            weights = load_file(folder / "outliers.safetensors")
            known = outliers.Outliers(len(weights["mean"]))
            known.load_state_dict(weights)
            model.outliers = known.to(model.device)
        return model

    def to_onnx(self, path: str | Path) -> Path:
        """Export the whole model, normalization included, as one ONNX graph.

        Its input ``images`` is uint8 (n, image_size, image_size, 3) as `pixels.decode` gives it, its output
        ``scores`` float32 (n, labels), what `predict_proba` gives. After `fit_outlier_limit` also ``distance``,
        float32 (n,), what `outlier_distance` gives. Needs the extra ``serving``.

        Raises
        ------
        RuntimeError
            If ONNX Runtime's scores differ from this model's by more than 1e-4, or the scikit-learn
            classifier is not fitted or has no ONNX equivalent.
        """
        from . import onnx as export

        return export.write_onnx(self, path)


def _files(members):
    """List the files of a model's networks."""
    return ["network.safetensors", *(f"network{number}.safetensors" for number in range(2, members + 1))]


def _replaced(folder, at, names):
    """List which files `at` a place in the `folder` of a model belong to the model."""
    own = {name for pattern in OWN_FILES for name in fnmatch.filter(names, pattern)}
    return own if Path(at) == folder else set()


def _quantiles(values):
    """List 101 quantiles, from the least to the greatest, with as many digits as the service's log has."""
    return [float(f"{value:.6g}") for value in np.quantile(values, np.linspace(0, 1, 101))]


def _digest(module):
    """Hash all weights of a module: str of 16 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _trusted_types(file):
    """List the types in a skops file beyond the plain ones: scikit-learn's own, its private helpers among them."""
    types = skops.io.get_untrusted_types(file=file)
    unknown = [name for name in types if not name.startswith("sklearn.")]
    if unknown:
        raise ValueError(
            f"{file} holds types that are not known to be safe: {', '.join(unknown)}. A model that is saved may "
            "consist of scikit-learn's classes and numpy's functions only"
        )
    return types


def _aside(folder):
    return folder.with_name(f".{folder.name}.old")


def _put_back(folder):
    """Put a model in its place that `save`, stopped between two renamings, has left aside."""
    if not folder.exists() and _aside(folder).exists():
        _aside(folder).rename(folder)


def _with_settings(signature):
    """Let help() and completion show the training settings in place of ``**settings``."""
    fields = inspect.signature(Settings).parameters.values()
    shown = [field.replace(kind=inspect.Parameter.KEYWORD_ONLY) for field in fields]
    kept = [parameter for parameter in signature.parameters.values() if parameter.name != "settings"]
    return signature.replace(parameters=[*kept, *shown])


ImageClassifier.fit.__signature__ = _with_settings(inspect.signature(ImageClassifier.fit))  # type: ignore[attr-defined]
