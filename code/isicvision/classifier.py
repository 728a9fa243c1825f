"""`ImageClassifier`: fine-tune a pretrained network, or put any scikit-learn classifier on its features."""

import json
import platform
import shutil
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import numpy as np
import sklearn
import skops.io
import torch
from safetensors.torch import load_model, save_model
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.utils.class_weight import compute_class_weight

from . import backbones, pixels, training
from .augmentation import Pipeline

CAVEAT = "A teaching sample, not a diagnostic device: no medical decision may rest on it."
DEFAULTS = {
    "epochs": 15,
    "batch_size": 32,
    "learning_rate": 0.01,
    "l2": 0.0005,
    "optimizer": "sgd",
    "class_weight": None,
}
"""Training settings that `ImageClassifier.fit` takes where none are given."""


class ImageClassifier:
    """Pictures to probabilities: a pretrained network with a new last layer, or features + scikit-learn.

    Parameters
    ----------
    backbone : str
        alexnet, resnet18, resnet34, resnet50, resnet101, resnet152 or efficientnet_lite0.
    labels : sequence of str
        At least two; the columns of `predict_proba` in this order.
    weights : str, pathlib.Path or None
        ``"imagenet"``, the path of a file of ImageNet weights, or None for random ones.
    image_size : int
        Side of the square that pictures are reduced to, in pixels; 64 or more (AlexNet, ResNet and
        EfficientNet halve it five times).
    dropout : float
        Probability, 0 to below 1, in front of the last layer (fine-tuning only).
    classifier : scikit-learn classifier or pipeline, optional
        Fitted to the network's features instead of fine-tuning the network. One without ``predict_proba``,
        such as LinearSVC, is calibrated by `sklearn.calibration.CalibratedClassifierCV` over grouped folds.
    seed : int
        Of the new layer, and of everything random in `fit`.

    Attributes
    ----------
    card : dict
        What `save` writes to model.json: network, labels, settings, history, versions.

    Raises
    ------
    ValueError
        If the network is unknown or a value is out of range.
    isicvision.backbones.WeightsError
        If the weights cannot be had or do not fit.
    """

    def __init__(
        self, backbone, labels, weights="imagenet", image_size=224, dropout=0.5, classifier=None, seed=0
    ):
        self.backbone = backbones.get(backbone)
        self.labels = [str(label) for label in labels]
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels must be two or more different names, not {labels}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is a probability from 0 to below 1, not {dropout}")
        if image_size < 64:
            raise ValueError(f"image_size is a number of pixels, 64 or more, not {image_size}")
        self.image_size, self.classifier, self.seed = image_size, classifier, seed
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = backbones.Network(self.backbone, len(self.labels), weights, dropout)
        self.network = network.to(training.default_device()).eval()
        self.card = {
            "format": 1,
            "labels": self.labels,
            "backbone": backbone,
            "image_size": image_size,
            "dropout": dropout,
            "seed": seed,
            "weights": None if weights is None else str(weights),
            "weights_source": self.backbone.source if weights == "imagenet" else None,
            "weights_licence": self.backbone.licence if weights == "imagenet" else None,
            "classifier": None if classifier is None else str(classifier),
            "training": None,
            "caveat": CAVEAT,
        }

    def fit(
        self,
        dataset,
        validation=None,
        *,
        epochs=None,
        batch_size=None,
        learning_rate=None,
        l2=None,
        optimizer=None,
        class_weight=None,
        progress=True,
    ):
        """Fine-tune the whole network, or fit the scikit-learn classifier to the network's features.

        Parameters
        ----------
        dataset : ImageDataset
            For training; augmented on the fly if it comes from `augment_dataset`.
        validation : ImageDataset, optional
            Scored after each epoch to draw the learning curves.
        epochs : int, optional
            Default 15.
        batch_size : int, optional
            Pictures per step. Default 32.
        learning_rate : float or sequence of float, optional
            For all epochs, or one value for each. Default 0.01.
        l2 : float, optional
            Weight decay. Default 0.0005.
        optimizer : "sgd" or "adamw", optional
            Default "sgd", with momentum 0.9. AdamW wants rates about ten times smaller.
        class_weight : "balanced" or None
            Weigh each label in the loss by the inverse of its frequency.
        progress : bool
            Show bars and a line an epoch.

        Returns
        -------
        pandas.DataFrame or None
            The history, a row an epoch (see `training.train`); None with a scikit-learn classifier.

        Raises
        ------
        ValueError
            If labels are missing or unknown, a setting is out of range, or one is given that a scikit-learn
            classifier has no use for.
        isicvision.pixels.PictureError
            If pictures cannot be read; it names all of them, before training begins.
        """
        given = {
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "l2": l2,
            "optimizer": optimizer,
            "class_weight": class_weight,
        }
        given = {name: value for name, value in given.items() if value is not None}
        targets = self._targets(dataset, "training")
        missing = [label for n, label in enumerate(self.labels) if n not in targets]
        if missing:
            raise ValueError(f"no training picture is labelled {', '.join(missing)}")
        if self.classifier is None:
            settings = self._checked(DEFAULTS | given)
            history = self._fine_tune(dataset, targets, validation, settings, progress)
            record = settings | {"history": history.reset_index().to_dict("records")}
        else:
            if given or validation is not None or dataset.augmenters:
                names = [
                    *given,
                    *["validation"] * (validation is not None),
                    *["augmenters"] * bool(dataset.augmenters),
                ]
                raise ValueError(
                    f"{', '.join(names)}: no effect on features + {self.classifier}; leave it out"
                )
            history, record = None, {}
            self._fit_classifier(dataset, targets)
        counts = dataset.table["label"].value_counts()
        self.card["training"] = record | {
            "pictures": {label: int(counts[label]) for label in self.labels},
            "groups": int(dataset.table["group"].nunique()),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return history

    def _checked(self, settings):
        for name in ("epochs", "batch_size"):
            if not isinstance(settings[name], (int, np.integer)) or settings[name] < 1:
                raise ValueError(f"{name} is a whole number of 1 or more, not {settings[name]!r}")
        if settings["class_weight"] not in (None, "balanced"):
            raise ValueError(f"class_weight is 'balanced' or None, not {settings['class_weight']!r}")
        if settings["optimizer"] not in training.OPTIMIZERS:
            raise ValueError(
                f"optimizer is {' or '.join(training.OPTIMIZERS)}, not {settings['optimizer']!r}"
            )
        if not 0 <= settings["l2"] < 1:
            raise ValueError(f"l2 is a weight decay from 0 to below 1, not {settings['l2']}")
        rates = training.learning_rates(settings["learning_rate"], settings["epochs"])
        return settings | {"learning_rate": [float(rate) for rate in rates]}

    def _fine_tune(self, dataset, targets, validation, settings, progress):
        if len(dataset) < 2:
            raise ValueError("training needs two pictures or more")
        settings = dict(settings)
        balanced = settings.pop("class_weight") == "balanced"
        classes = np.arange(len(self.labels))
        if validation is not None:
            validation = (self._pixels(validation), self._targets(validation, "validation"))
        return training.train(
            self.network,
            self._pixels(dataset),
            targets,
            validation=validation,
            augment=Pipeline(dataset.augmenters, self.seed) if dataset.augmenters else None,
            weights=compute_class_weight("balanced", classes=classes, y=targets) if balanced else None,
            seed=self.seed,
            progress=progress,
            **settings,
        )

    def _fit_classifier(self, dataset, targets):
        classifier = sklearn.base.clone(self.classifier)
        features = self.featurize(dataset)
        if not hasattr(classifier, "predict_proba"):
            folds = StratifiedGroupKFold(5).split(features, targets, dataset.table["group"])
            classifier = CalibratedClassifierCV(classifier, cv=list(folds))
        self.classifier = classifier.fit(features, targets)

    def _targets(self, dataset, what):
        unknown = set(dataset.labels) - set(self.labels)
        if unknown:
            raise ValueError(
                f"the {what} pictures have labels that the model does not know: {', '.join(sorted(unknown))}; "
                f"it knows {', '.join(self.labels)}"
            )
        return (
            dataset.table["label"]
            .map({label: n for n, label in enumerate(self.labels)})
            .to_numpy(np.int64, copy=True)
        )

    def _pixels(self, pictures):
        return pixels.load(getattr(pictures, "paths", pictures), self.image_size)

    def featurize(self, pictures):
        """Compute the network's features, the input of its last layer.

        Parameters
        ----------
        pictures : ImageDataset or sequence of paths

        Returns
        -------
        numpy.ndarray of float32, shape (pictures, features)
        """
        return training.forward(self.network.features, self._pixels(pictures), progress="features")

    def predict_proba(self, pictures):
        """Predict the probability of each label.

        Parameters
        ----------
        pictures : ImageDataset or sequence of paths

        Returns
        -------
        numpy.ndarray of float32, shape (pictures, labels)
            Rows sum to 1; columns in the order of `labels`.

        Raises
        ------
        isicvision.pixels.PictureError
            If pictures cannot be read; it names all of them.
        RuntimeError
            If the scikit-learn classifier is not fitted yet.
        """
        return self._scores(self._pixels(pictures))

    def _scores(self, array):
        if self.classifier is None:
            logits = training.forward(self.network, array, progress="predicting")
            return torch.softmax(torch.from_numpy(logits), dim=1).numpy()
        if self.card["training"] is None:
            raise RuntimeError("the model is not trained yet: call fit first")
        features = training.forward(self.network.features, array, progress="predicting")
        return self.classifier.predict_proba(features).astype(np.float32)

    def save(self, folder):
        """Write network.safetensors, model.json and, if there is one, classifier.skops; return the folder.

        An earlier model in `folder` is replaced as a whole; no file holds a pickle.

        Raises
        ------
        ValueError
            If `folder` holds something else than a model.
        """
        folder = Path(folder)
        if folder.is_dir() and any(folder.iterdir()) and not (folder / "model.json").exists():
            raise ValueError(f"{folder} holds files that are no model; choose another folder")
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        save_model(self.network, str(new / "network.safetensors"))
        if self.classifier is not None:
            skops.io.dump(self.classifier, new / "classifier.skops")
        names = ("torch", "torchvision", "timm", "scikit-learn", "imaug", "pillow", "numpy")
        versions = {name: metadata.version(name) for name in names} | {"python": platform.python_version()}
        (new / "model.json").write_text(json.dumps(self.card | {"versions": versions}, indent=2))
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        return folder

    @classmethod
    def load(cls, folder):
        """Read a model that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is none in `folder`.
        ValueError
            If classifier.skops holds types that scikit-learn does not define: they might run any code.
        """
        folder = Path(folder)
        if not (folder / "model.json").exists():
            raise FileNotFoundError(f"{folder} holds no model (no model.json): train one and save it there")
        card = json.loads((folder / "model.json").read_text())
        model = cls(
            card["backbone"], card["labels"], None, card["image_size"], card["dropout"], seed=card["seed"]
        )
        load_model(model.network, str(folder / "network.safetensors"))
        if card["classifier"] is not None:
            file = folder / "classifier.skops"
            types = skops.io.get_untrusted_types(
                file=file
            )  # scikit-learn's private helper classes are among them
            unknown = [name for name in types if not name.startswith("sklearn.")]
            if unknown:
                raise ValueError(f"{file} holds types that are not known to be safe: {', '.join(unknown)}")
            model.classifier = skops.io.load(file, trusted=types)
        model.card = card
        return model

    def to_onnx(self, path):
        """Export the whole model, normalisation included, as one ONNX graph.

        Its input ``pictures`` is uint8 (n, image_size, image_size, 3) as `pixels.decode` gives it, its output
        ``scores`` float32 (n, labels), what `predict_proba` gives. Needs the extra ``serving``.

        Returns
        -------
        pathlib.Path

        Raises
        ------
        RuntimeError
            If ONNX Runtime's scores differ from this model's by more than 1e-4, or the scikit-learn
            classifier is not fitted or has no ONNX equivalent.
        """
        from . import export  # onnx takes seconds to import, and belongs to an extra

        return export.write_onnx(self, path)
