"""`ImageClassifier`: fine-tune a pretrained network, or put any scikit-learn classifier on its features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from .. import metrics
from ..checks import check_threshold, is_whole, plain, positive_label, require_dataset
from ..data import splitting
from ..errors import warn
from ..text import as_label, counted
from . import backbones, calibration, devices, embeddings, inputs, outliers, presets, storage
from .history import History, RangeTest
from .learners import FeatureClassifier, FineTuning, featurize
from .network import Features, Network, WithFeatures, set_training, summary
from .settings import spelled_out

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

    from ..data.dataset import ImageDataset

    Images = ImageDataset | Sequence[str | Path]


class ImageClassifier:
    """Map images to probabilities: by a fine-tuned pretrained network, or by its features and scikit-learn.

    `backbone` is a name that `backbones.get` knows, `labels` are the columns of `predict_proba`; `weights` are
    ``"imagenet"``, a file of ImageNet weights, or None for random ones. `image_size` is the side of the square that
    images are reduced to, in pixels, 64 or more (default: that of the weights); `seed` that of the new layer and of
    everything random in `fit`; `positive` the label that thresholds are about (default: that of the first dataset in
    `fit`, see `checks.positive_label`). Only for fine-tuning: `dropout`, a probability, is in front of the last layer;
    `views`, 1, 2, 4 or 8, averages the log-odds over so many flips and, with 8, quarter turns, every second one
    coarse (test-time augmentation).

    A `classifier` of scikit-learn is fitted to the network's features instead of fine-tuning the network. One without
    ``predict_proba``, such as LinearSVC, is calibrated by `CalibratedClassifierCV` over grouped folds. Instead of a
    `backbone` it may have `features` made elsewhere: a parquet or CSV file or a DataFrame with a row an image, its name
    in the index or a column such as ``image``, and columns of floats, or one of lists. `encoder` is a dict of their
    ``name``, ``license`` and ``source``, unless the table has it as ``attrs["encoder"]``. Such a model scores only the
    images in the table, and is not exported.

    Attributes: ``metadata``, what `save` writes to model.json (network, labels, settings, history, versions);
    ``step_loss`` of the last `fit`; ``outliers``, what `fit_outlier_limit` learnt, or None; ``seen``, hashes of the
    training images and their lesions, see `splitting.fingerprints`: `evaluate` warns of them.

    >>> model = ImageClassifier("squeezenet1_1", ["benign", "malignant"], weights=None, image_size=64)
    >>> model.positive, model.scores(np.zeros((3, 64, 64, 3), np.uint8)).shape
    ('malignant', (3, 2))
    """

    def __init__(
        self,
        backbone: str | None = None,
        labels: Sequence[str] = (),
        weights: str | Path | None = "imagenet",
        image_size: int | None = None,
        dropout: float = 0.5,
        classifier: BaseEstimator | None = None,
        views: int = 1,
        seed: int = 0,
        positive: object = None,
        features: str | Path | pd.DataFrame | None = None,
        encoder: dict[str, str] | None = None,
    ):
        stored, self.labels = features is not None or encoder is not None, inputs.checked_labels(labels)
        self.backbone = embeddings.read(features, encoder, backbone) if stored else backbones.get(backbone)
        size = self.backbone.image_size if image_size is None else image_size
        self.image_size, dropout, self.views, self.seed = map(plain, (size, dropout, views, seed))
        if not is_whole(self.seed, 0) or self.seed >= 2**63:
            raise ValueError(f"seed is a whole number, 0 or more, not {self.seed!r}")
        self.backbone.check_size(self.image_size, "image_size")
        presets.check_model(None, dropout, self.views)
        self.step_loss: list[float] = []
        self.seen: dict[str, np.ndarray] | None = None
        self.outliers: outliers.Outliers | None = None
        origin = ("own" if self.backbone.make else weights) if weights in (None, "imagenet") else str(weights)
        published = stored or origin in ("imagenet", "own")
        self.metadata: dict[str, Any] = storage.NEW | {
            **{"image_size": self.image_size, "dropout": dropout, "views": self.views, "seed": self.seed},
            "labels": self.labels,
            "positive": None if positive is None else positive_label(self.labels, positive),
            "backbone": self.backbone.name,
            "encoder": {name: getattr(self.backbone, name) for name in embeddings.FACTS} if stored else None,
            "interpolation": self.backbone.interpolation,
            "weights": "stored features" if stored else origin,
            "weights_source": self.backbone.source if published else None,
            "weights_license": self.backbone.license if published else None,
            "classifier": None if classifier is None else str(classifier),
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            network = backbones.build(self.backbone, len(self.labels), weights, dropout)
        parts = self.backbone, network.to(devices.default_device()).eval(), self.metadata
        tuned = classifier is None and not stored
        self._learner: Any = FineTuning(*parts) if tuned else FeatureClassifier(*parts, classifier)

    @classmethod
    def from_preset(
        cls,
        preset: str | None,
        labels: Sequence[str],
        backbone: str = "efficientnet_lite0",
        weights: str | Path | None = "imagenet",
        seed: int = 0,
        positive: object = None,
        **settings: Any,
    ) -> ImageClassifier:
        """Make a model whose image size, views, augmentation and training settings were chosen together.

        `preset` is one of `presets.PRESETS`, see docs/results.md, or None. `settings` change single choices:
        image_size, dropout, views and the fields of `settings.Settings`. They become the defaults of `fit`, which
        passes training images without augmenters through `augmentation.dermoscopy`.
        """
        options, training = presets.divide(preset, settings)
        model = cls(backbone, labels, weights, **options, seed=seed, positive=positive)
        model._learner.take(preset, training)
        return model

    def __repr__(self) -> str:
        """Say in a few lines what the model is, and what it has learnt."""
        known, training, decision = self.metadata, self.metadata["training"], self.metadata["decision"]
        how = "fine-tuning" if self.is_fine_tuned else f"features + {type(self.classifier).__name__}"
        trained = "not yet"
        if training:
            lesions = f" of {counted(training['groups'], 'lesion')}" if training["groups"] else ""
            trained = f"on {counted(sum(training['images'].values()), 'image')}{lesions}"
        lines = {
            "network": f"{known['backbone']}, {how}, "
            + ("stored features" if known["encoder"] else f"images of {self.image_size} px"),
            "labels": f"{len(self.labels)}: {', '.join(self.labels[:10] + ['…'] * (len(self.labels) > 10))}",
            "positive": self.positive,
            "preset": known["preset"],
            "members": len(self.networks) if len(self.networks) > 1 else None,
            "trained": trained,
            "calibrated": known["scores"] and f"temperature {known['temperature']:.2f}",
            "decision": decision and f"{decision['positive']} from a score of {decision['threshold']:.3f} on",
            "beside it": known["patient"] and ", ".join(known["patient"]["columns"]),
            "limit": "distance 1" if self.outliers else "none: it scores any image",
        }
        shown = [f"  {name + ':':<12}{value}" for name, value in lines.items() if value is not None]
        return "\n".join(["ImageClassifier", *shown])

    @property
    def positive(self) -> str:
        """The positive label: what thresholds, saliency and audits are about."""
        return self.metadata["positive"] or positive_label(self.labels, warn=False)

    @property
    def networks(self) -> list[Network]:
        """One network, or as many as `fit` was told by ``members``."""
        return self._learner.networks

    @property
    def network(self) -> Network:
        """The first of `networks`, which `summary`, `featurize` and `fit_outlier_limit` use."""
        return self.networks[0]

    @property
    def classifier(self) -> Any:
        """The scikit-learn classifier, None if the network is fine-tuned."""
        return getattr(self._learner, "classifier", None)

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the network itself is trained."""
        return self.classifier is None

    def summary(self) -> pd.DataFrame:
        """Tabulate the network's stages, which of them are trained, and their memory: see `network.summary`."""
        settings = self.metadata["training"] or self._learner.defaults
        frozen, size = settings.get("frozen_stages", 0), settings.get("train_image_size")
        set_training(self.network, frozen, head_only=not self.is_fine_tuned)
        table = summary(self.network, size or self.image_size)
        set_training(self.network)
        return table

    @spelled_out
    def fit(
        self,
        dataset: ImageDataset,
        validation: ImageDataset | None = None,
        *,
        checkpoint: str | Path | None = None,
        tracker: str | None = None,
        workers: int | None = None,
        progress: bool = True,
        on_epoch: Callable[[History], object] | None = None,
        **settings: Any,
    ) -> History | None:
        """Fine-tune the network, or fit the scikit-learn classifier to the network's features.

        A dataset from `augment_dataset` is augmented on the fly; images that cannot be read are set aside with a
        warning. `validation` is scored after each epoch, for the learning curves, ``keep="best"`` and ``patience``. A
        killed training resumes from the folder `checkpoint` with the same call. `tracker` ("tensorboard", "mlflow",
        "wandb" or any other installed one of Accelerate) logs settings and epochs. `workers` are processes that
        augment; default: none for the CPU, one for each core for a GPU. `on_epoch` is called with the history so far:
        `plots.live_history` draws it. `settings` are the fields of `settings.Settings`.

        Returns what each epoch did, or None with a scikit-learn classifier. Raises ValueError if labels are missing or
        unknown, or a setting is out of range or without effect.
        """
        require_dataset(dataset, "fit")
        original = dataset.originals()
        options: dict[str, Any] = {"checkpoint": checkpoint, "tracker": tracker, "workers": workers}
        options |= {"progress": progress, "on_epoch": on_epoch, "begin": self._forget}
        dataset, history, trained = self._learner.fit(dataset, validation, settings, **options)
        self._forget()
        self.step_loss = history.step_loss if history else []
        self.seen = splitting.fingerprints(original)
        if self.metadata["positive"] is None:
            given = original.positive if original.positive in self.labels else None
            self.metadata["positive"] = positive_label(self.labels, given)
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
        self.metadata |= storage.UNTRAINED
        self.outliers = self.seen = None

    def find_learning_rate(self, dataset: ImageDataset, progress: bool = True, **settings: Any) -> RangeTest:
        """Train a copy for about 40 steps with a growing rate, to see which rates learn: see `history.RangeTest`.

        The settings are those of `fit`; batch size, optimizer and augmentation matter most.
        """
        if not self.is_fine_tuned:
            raise ValueError(f"features + {self.classifier} have no learning rate to be found")
        return self._learner.find_learning_rate(dataset, settings, progress)

    def finish(
        self, training: ImageDataset | None, validation: ImageDataset, sensitivity: float = 0.9
    ) -> None:
        """Make a fitted model ready for use: `calibrate` it, choose its threshold and fit its outlier limit.

        With two labels the threshold is the highest that finds the share `sensitivity` of the positive validation
        images. A model with a scikit-learn classifier is not calibrated. Without training images (None) a finished
        model is adapted to another clinic, whose labeled images are `validation`: see `fit_outlier_limit`. Raises as
        `calibrate` and `fit_outlier_limit` do, and leaves the model as it was.
        """
        require_dataset(validation, "finish: validation")
        targets = inputs.targets(validation, self.labels, "validation", complete=True)
        with ExitStack() as undo:  # also where somebody interrupts it
            undo.callback(self.metadata.update, dict(self.metadata))
            undo.callback(setattr, self, "outliers", self.outliers)
            if self.is_fine_tuned:
                self.calibrate(validation)
            if len(self.labels) == 2:
                number = self.labels.index(self.positive)
                scores = self.predict_proba(validation)[:, number].clip(0, 1).astype(float)
                threshold = metrics.choose_threshold(targets == number, scores, sensitivity)
                which = "local" if training is None else "validation"
                rule = f"sensitivity {sensitivity} on {len(validation)} {which} images"
                self.decide_at(threshold, rule=rule)
            if self.metadata["encoder"] is None:
                self.fit_outlier_limit(training, validation)
            undo.pop_all()

    def _images(self, images):
        found = inputs.decoded(images, self.image_size, self.backbone)
        return found.require_all() if hasattr(found, "require_all") else found

    def featurize(self, images: Images) -> np.ndarray:
        """Return the network's features, the input of its last layer: float32 of shape (images, features).

        Raises ImageError, which names all images that cannot be read.
        """
        return featurize(self.network, self._images(images))

    def predict_proba(self, images: Images) -> np.ndarray:
        """Return the probability of each label: float32 of shape (images, labels), columns in the order of `labels`.

        Raises ImageError, which names all images that cannot be read, RuntimeError before a classifier is fitted.
        """
        return self._learner.predict_proba(self._images(images))

    def answer(self, image: str | Path) -> str:
        """Return in a sentence the label of one image, its score, and what the threshold says.

        Unlike the service it rejects no image. Raises ImageError if the file cannot be read.
        """
        scores, decision = self.predict_proba([image])[0].tolist(), self.metadata["decision"]
        if decision is None:
            return f"{self.labels[np.argmax(scores)]}: its score is the highest, {max(scores):.3f}"
        number, threshold = self.labels.index(decision["positive"]), decision["threshold"]
        label = self.labels[number if scores[number] >= threshold else 1 - number]
        return f"{label}: {decision['positive']} from a score of {threshold:.3f}, this image has {scores[number]:.3f}"

    def scores(self, array: np.ndarray) -> np.ndarray:
        """Map decoded images, uint8 (n, image_size, image_size, 3), to probabilities, float32 (n, labels)."""
        return self._learner.scores(inputs.apply(self.scoring_module(), array, "predicting"))

    def scoring_module(self) -> torch.nn.Module:
        """Return what computes scores or, with a scikit-learn classifier, features from images."""
        return self._learner.module()

    def calibrate(self, validation: ImageDataset) -> float:
        """Calibrate the scores on validation images and return the temperature: above 1 if they were too confident.

        `calibration.fit` finds it, and offsets where they help. A decision keeps its meaning: its threshold moves with
        the scores. Raises ValueError if `validation` lacks a label, or for a scikit-learn classifier.
        """
        if not self.is_fine_tuned:
            raise ValueError("only networks are calibrated: pass CalibratedClassifierCV(classifier)")
        require_dataset(validation, "calibrate")
        if validation.is_augmented:
            raise ValueError("the validation images are augmented: calibrate on images as they were taken")
        targets = inputs.targets(validation, self.labels, "validation", complete=True)
        splitting.warn_of_seen(validation, self.seen, "to calibrate on")
        scores = inputs.apply(self._learner.module(calibrated=False), self._images(validation), "predicting")
        calibrated = calibration.recalibrate(self.metadata, targets, scores, validation.table["group"])
        self._keep_scores(calibrated)
        if self.metadata["patient"] is not None:
            self.metadata["patient"] = None
            warn("the scores have changed: learn again, by fusion.fit, what age, sex and site add to them")
        return self.metadata["temperature"]

    def _keep_scores(self, scores):
        """Keep what `drift` compares with the scores that the service gives."""
        quantiles = dict(zip(self.labels, map(outliers.quantiles, scores.T), strict=True))
        self.metadata |= {"scores": quantiles, "scores_images": len(scores)}

    def decide_at(self, threshold: float, positive: object = None, rule: str | None = None) -> None:
        """Call images positive from this score on; saved with the model, and used by the service.

        `positive` is one of two labels, by default the model's; `rule` says in words how the threshold was chosen.
        Raises ValueError if there are more than two labels, or a value is out of range.
        """
        positive = self.positive if positive is None else as_label(positive)
        if len(self.labels) != 2 or positive not in self.labels:
            raise ValueError(
                f"a threshold for {positive} needs two labels, one of them {positive}, not {', '.join(self.labels)}"
            )
        check_threshold(threshold)
        if rule is not None and not isinstance(rule, str):
            raise ValueError(f"rule says in words how the threshold was chosen; it is not {rule!r}")
        self.metadata["decision"] = {"positive": positive, "threshold": float(threshold), "rule": rule}

    def fit_outlier_limit(self, training: ImageDataset | None, held_out: Images) -> np.ndarray:
        """Fit the out-of-distribution limit beyond which the service rejects an image.

        Uses at most `outliers.IMAGES` of the training images, and returns the `outlier_distance` of the held-out ones,
        which need no labels. At most about 3 % of images such as those in `held_out`, say the validation images, will
        lie beyond the limit, and about as many if another camera took them. Without training images (None) an earlier
        limit is moved until about 3 % of images such as those in `held_out`, say from another clinic, lie beyond it.
        Raises ValueError if there are too few images (`outliers.FEWEST` local ones), or they are copies of one,
        RuntimeError without an earlier limit.
        """
        if self.metadata["encoder"]:
            raise ValueError("stored features have no outlier limit, which needs the network")
        if training is not None:
            require_dataset(training, "fit_outlier_limit")
        known = self._limit() if training is None else None
        new = self._images(held_out)
        if training is not None and (not len(new) or len(training) < 2):
            raise ValueError("fit_outlier_limit needs two training images or more, and one held out")
        if training is None and len(new) < outliers.FEWEST:
            raise ValueError(f"a limit needs {outliers.FEWEST} local images (40 are better), not {len(new)}")
        if hasattr(held_out, "table"):
            splitting.warn_of_seen(held_out, self.seen, "held out")
        if known is not None:
            found = outliers.moved(known, self.network, new)
        else:
            found = outliers.learn(self.network, self._images(training), new, self.seed)
        self.outliers, distances, self.metadata["outliers"] = found
        within = distances <= 1
        if self.metadata["scores"] is not None and within.any():  # from now on the service scores only those
            self._keep_scores(self._learner.predict_proba(new)[within])
        return distances

    def _limit(self) -> outliers.Outliers:
        if self.outliers is None:
            raise RuntimeError("there is no outlier limit yet: call fit_outlier_limit(training, validation)")
        return self.outliers

    def outlier_distance(self, images: Images | np.ndarray) -> np.ndarray:
        """Return how far from the training images each image lies, float32 (images,): above 1 the service rejects it.

        Images may be an array as for `scores`. Raises RuntimeError before a limit is fitted.
        """
        limit = self._limit()
        given = images if isinstance(images, np.ndarray) else self._images(images)
        return limit.distances(inputs.apply(outliers.StageMeans(self.network), given, "outliers"))

    def save(self, folder: str | Path) -> Path:
        """Write the model into a folder and return it, as it was given. None of its files can run code when loaded.

        An earlier model in `folder` is replaced as a whole, or stays if this is interrupted; other files stay. Raises
        ValueError if `folder` holds something other than a model, or `metadata` something that JSON cannot hold.
        """
        storage.write(folder, self.metadata, self.networks, self.classifier, self.outliers, self.seen)
        return Path(folder).expanduser()

    @classmethod
    def load(cls, folder: str | Path, features: str | Path | pd.DataFrame | None = None) -> ImageClassifier:
        """Read a model that `save` wrote; one of stored features needs the `features` of the images to be scored.

        Raises FileNotFoundError if there is none in `folder`, and ValueError if a file is damaged, of an earlier
        format, not the one that was saved, or might run code.
        """
        with storage.opened(folder) as (metadata, networks, classifier, limit, seen):
            names = ("backbone", "labels", "image_size", "dropout", "views", "seed")
            options = {name: metadata[name] for name in names} | {"encoder": metadata.get("encoder")}
            model = cls(**options, weights=None, classifier=classifier, features=features)
            model.metadata |= metadata
            model._learner.load(networks)
            model.seen, model.outliers = seen, limit and limit.to(devices.default_device())
        return model

    def to_onnx(self, path: str | Path, features: bool = False) -> Path:
        """Export the whole model, normalization included, as one ONNX graph. Needs the extra ``serving``.

        Its input ``images`` is uint8 (n, image_size, image_size, 3) as `images.decode` returns it, its outputs
        ``scores`` as `predict_proba` returns them, after `fit_outlier_limit` ``distance`` as `outlier_distance` returns
        it and, with `features`, ``embedding`` as `featurize` does. Raises RuntimeError if ONNX Runtime's values differ
        from the model's by more than 1e-4, or the scikit-learn classifier has no ONNX equivalent.
        """
        from . import onnx as export

        noise = np.random.default_rng(0).integers(0, 256, (3, self.image_size, self.image_size, 3), np.uint8)
        expected = {"scores": self.scores(noise)}
        names, module = ["scores" if self.is_fine_tuned else "features"], self.scoring_module()
        if self.outliers is not None:
            names, module = [*names, "distance"], outliers.WithDistance(module, self.network, self.outliers)
            expected["distance"] = self.outlier_distance(noise)
        if features:
            names, module = [*names, "embedding"], WithFeatures(module, self.network)
            expected["embedding"] = inputs.apply(Features(self.network), noise, "features")
        graph = export.network_graph(module, self.image_size, names)
        if not self.is_fine_tuned:
            graph = export.append_classifier(graph, self.classifier, self.backbone.features)
        return export.write_checked(graph, path, noise, expected)
