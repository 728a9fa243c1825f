"""Fine-tuning: train one or more networks on a dataset, and score images with all of them."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import accelerate
import numpy as np
import torch

from ..checks import is_whole
from ..data import augmentation, splitting
from ..data.cache import Images
from ..files import user_path
from ..text import as_label
from . import inputs, rangetest, training
from .history import History
from .network import Network, Scores, load_values
from .presets import PRESETS
from .settings import Settings

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset
    from .backbones import Backbone
    from .storage import Saved

IDENTITY = ("backbone", "image_size", "dropout", "weights", "labels")
"""Metadata that a checkpoint must share with the training that resumes from it."""


class FineTuning:
    """How an `ImageClassifier` without a scikit-learn classifier learns and scores.

    `metadata` is the model's own; `fit` sets ``members`` and ``sublabels`` in it.
    """

    def __init__(self, backbone: Backbone, network: Network, metadata: dict[str, Any]):
        self.backbone, self.networks, self.metadata = backbone, [network], metadata
        self.defaults: dict[str, Any] = {}
        self.augmenter: Any = None

    def take(self, preset: str | None, settings: dict[str, Any]) -> None:
        """Take the settings of a preset as defaults of `fit`, and its augmentation."""
        self.defaults, self.augmenter = settings, augmentation.dermoscopy()
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
        begin: Callable[[], object],
        checkpoint: str | Path | None,
        workers: int | None,
        **options: Any,
    ) -> tuple[ImageDataset, History, dict[str, Any]]:
        """Train as `ImageClassifier.fit` says, calling `begin` before the model changes.

        Returns the readable images, the history, and what model.json says about the training.
        """
        settings = self.settings(given)
        if workers is not None and not is_whole(workers, 0):
            raise ValueError(f"workers is a number of processes, 0 or more, not {workers!r}")
        dataset, images = self._readable(dataset, "training", settings)
        targets = inputs.targets(dataset, self.metadata["labels"], "training", complete=True)
        sublabels, targets = self.outputs(dataset, targets, settings)
        about = {name: self.metadata[name] for name in IDENTITY} | {"sublabels": sublabels}
        order = hashlib.sha256("".join(map(str, images.keys)).encode() + targets.tobytes()).hexdigest()
        augmenters = self._augmentation(dataset)[1]
        about |= {"images": dataset.manifest(), "augmenters": augmenters, "images_order": order[:16]}
        if validation is not None:
            options["validation"], about["validation"] = self._validation(validation, dataset)
        folder = _checkpoint_folder(checkpoint, settings.members)
        start = self.with_outputs(sublabels)

        def started(network):
            self.networks[:] = [network]
            self.metadata |= {"members": 1, "sublabels": sublabels}
            begin()

        options |= {"about": about, "workers": workers}
        history = self._train(start, dataset, images, targets, settings, folder, started, **options)
        trained = {"precision": history.precision, "augmentation": augmenters, "history": history.records()}
        return dataset, history, dataclasses.asdict(settings) | trained

    def _train(
        self, start, dataset, images, targets, settings, folder, started, progress, on_epoch, **options
    ):
        """Train each of the networks from the same start; return their joined history."""
        histories: list[History] = []
        several, seed = settings.members > 1, self.metadata["seed"]

        def joined(own):
            return History.joined([*histories, own]) if several else own

        for member in range(settings.members):
            network = copy.deepcopy(start) if several else start
            if several and progress:
                accelerate.PartialState().print(f"network {member + 1} of {settings.members}")
            own = training.train(
                network,
                images,
                targets,
                settings,
                augment=self._augmentation(dataset, member)[0],
                seed=seed + member,
                folder=folder / f"member{member + 1}" if folder and member else folder,
                progress=progress,
                on_epoch=on_epoch and (lambda own: on_epoch(joined(own))),
                on_start=None if member else (lambda network=network: started(network)),
                **options,
            )
            if member:
                self.networks.append(network)
                self.metadata["members"] = len(self.networks)
            histories.append(own)
            settings = dataclasses.replace(settings, precision=own.precision)
        return joined(histories.pop())

    def find_learning_rate(
        self, dataset: ImageDataset, given: dict[str, Any], progress: bool
    ) -> rangetest.RangeTest:
        """Run a range test on a copy of the network, on as many images as it takes."""
        settings, seed = self.settings(given), self.metadata["seed"]
        if len(dataset) < 2:
            raise ValueError("a range test needs two images or more")
        count = min(len(dataset), rangetest.STEPS * settings.batch_size)
        shown = dataclasses.replace(dataset, table=dataset.table.sample(count, random_state=seed % 2**32))
        shown, images = self._readable(shown, "training", settings)
        targets = inputs.targets(shown, self.metadata["labels"], "training")
        sublabels, targets = self.outputs(shown, targets, settings)
        network, (augment, _) = self.with_outputs(sublabels), self._augmentation(dataset)
        return rangetest.find_learning_rate(network, images, targets, settings, augment, seed, progress)

    def _readable(self, dataset, what, settings):
        size = settings.train_image_size or self.metadata["image_size"]
        return inputs.readable(dataset, what, size, self.backbone.interpolation, stacklevel=5)

    def _validation(self, validation, dataset):
        """Return the validation images with their labels, and the hash of both."""
        if validation.is_augmented:
            raise ValueError("the validation images are augmented: only training images may be")
        size, interpolation = self.metadata["image_size"], self.backbone.interpolation
        validation, images = inputs.readable(validation, "validation", size, interpolation, stacklevel=5)
        if not len(validation):
            raise ValueError("there is no validation image that can be read")
        if both := splitting.seen(validation, splitting.fingerprints(dataset.originals())).sum():
            warnings.warn(
                f"{both} images are for training and for validation, too, or show a lesion of both: validation "
                "figures are too good",
                stacklevel=4,
            )
        targets = inputs.targets(validation, self.metadata["labels"], "validation")
        return (images, targets), validation.manifest()

    def _augmentation(self, dataset, member=0):
        """Return the pipeline of a dataset, or of the preset, with its description; None and "none" without one."""
        augmenters = dataset.augmenters or (self.augmenter and (self.augmenter,))
        if not augmenters:
            return None, "none"
        pipeline = augmentation.Pipeline(augmenters, self.metadata["seed"] + member)
        return pipeline, augmentation.described(augmenters)

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
        of_outputs = labels if sublabels is None else [label for label, _ in sublabels]
        label_of = [labels.index(label) for label in of_outputs]
        if label_of != network.label_of:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.metadata["seed"])
                network.set_outputs(label_of)
        return network

    def load(self, saved: Saved) -> None:
        """Take the networks and the preset of a saved model."""
        about = saved.metadata
        network = self.with_outputs(about["sublabels"])
        self.networks[:] = [network, *(copy.deepcopy(network) for _ in saved.networks[1:])]
        for network, values in zip(self.networks, saved.networks, strict=True):
            load_values(network, values)
        if about["preset"] in PRESETS:
            self.take(about["preset"], dict(PRESETS[about["preset"]]["training"]))

    def module(self, calibrated: bool = True) -> Scores:
        """Return what computes scores from images."""
        given = (self.metadata["temperature"], self.metadata["offsets"]) if calibrated else ()
        return Scores(self.networks, self.metadata["views"], *given)

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return what `module` computes: that is the scores."""
        return values

    def predict_proba(self, images: Images) -> np.ndarray:
        """Return the scores of decoded images."""
        return inputs.apply(self.module(), images, "predicting")


def _checkpoint_folder(checkpoint, members):
    """Return the folder for checkpoints, or None; refuse one that holds another training of several networks."""
    folder = user_path(checkpoint) if checkpoint else None
    if folder and members > 1 and not (folder / "checkpoint.safetensors").exists():
        for left in sorted(folder.glob("member*/checkpoint.safetensors")):
            raise ValueError(
                f"{left} is of another training: choose another folder for checkpoint=, or delete it and the others"
            )
    return folder
