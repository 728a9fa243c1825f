"""The network of a model, from bytes to logits, and what is done to it: freeze stages, list them, measure them."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping, Sequence

import pandas as pd
import torch
from torch import nn
from torch.nn import functional


class Network(nn.Module):
    """Input normalization, a pretrained body and a new last layer: bytes in, logits out; `backbones.build` makes one.

    `body` maps float32 (n, 3, height, width), normalized, to float32 (n, `features`); `classes` is the number of
    outputs, `dropout` the probability in front of the last layer. Input is (pixel - `mean`) / `std` of 0 to 255.
    Attribute ``detail``: the median `detail` of the training images, None for any, see `softened`.
    """

    def __init__(
        self,
        body: nn.Module,
        features: int,
        classes: int,
        dropout: float,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self.body = body
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, classes))
        self.label_of = [*range(classes)]
        self.detail: float | None = None
        self.to(memory_format=torch.channels_last)

    def set_outputs(self, label_of: Sequence[int]) -> None:
        """Give the network a new last layer; `label_of` is the label of each output, from 0: several may share one."""
        old = self.head[-1]
        self.head[-1] = nn.Linear(old.in_features, len(label_of)).to(old.weight.device)
        self.label_of = [*label_of]

    def softened(self, images: torch.Tensor) -> torch.Tensor:
        """Return uint8 images of shape (n, side, side, 3), those sharper than the training images softened: float32.

        What a `coarse` image lacks is weakened until it is as strong as in the median training image. To a network the
        images of a sharper camera look benign: docs/results.md has what this brings.
        """
        if self.detail is None:
            return images
        blunt = coarse(images)
        lost = images - blunt
        return blunt + lost * (self.detail / _strength(lost).clamp(min=self.detail))

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images of shape (n, height, width, 3) to features of shape (n, features)."""
        values = images.permute(0, 3, 1, 2).to(torch.float32, copy=True)
        # in place: to get new memory takes longer than the numbers do
        return self.body(values.sub_(self.mean).div_(self.std))

    def forward(self, images: torch.Tensor, merged: bool = True) -> torch.Tensor:
        """Map uint8 images of shape (n, height, width, 3) to logits of shape (n, labels), or (n, outputs)."""
        logits = self.head(self.features(images))
        return self.merge(logits) if merged else logits

    def merge(self, logits: torch.Tensor) -> torch.Tensor:
        """Map logits of shape (n, outputs) to (n, labels), so that a softmax adds up what belongs to one label."""
        if len(set(self.label_of)) == len(self.label_of):
            return logits
        labels = sorted({*self.label_of})
        numbers = [[n for n, each in enumerate(self.label_of) if each == label] for label in labels]
        return torch.stack([logits[:, part].logsumexp(1) for part in numbers], 1)


def load_values(network: nn.Module, values: Mapping[str, torch.Tensor]) -> None:
    """Load a state dict that was read from a file: some networks go by its versions, which safetensors lacks."""
    state = OrderedDict(values)
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state)


def coarse(images: torch.Tensor) -> torch.Tensor:
    """Reduce images of shape (n, side, side, 3) to half their side and enlarge them again: float32, the same shape."""
    side, values = images.shape[1], images.permute(0, 3, 1, 2).float()
    half = functional.interpolate(values, size=(side // 2, side // 2), mode="bilinear", antialias=True)
    return functional.interpolate(half, size=(side, side), mode="bilinear").permute(0, 2, 3, 1)


def detail(images: torch.Tensor) -> torch.Tensor:
    """Return how much detail images of shape (n, side, side, 3) have: float32 (n, 1, 1, 1), in gray levels.

    It is the root of the mean square of what they lose as `coarse` ones.
    """
    return _strength(images - coarse(images))


def _strength(values):
    return values.square().mean((1, 2, 3), keepdim=True).sqrt()


class Scores(nn.Module):
    """The softmax of networks, its logarithm averaged over networks and views of each image, and calibrated.

    Images are `Network.softened`. Each view is flipped or turned, and every second one is `coarse`. `temperature` and
    `offsets`, one for each class, are as in `calibration.apply`.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        views: int = 1,
        temperature: float = 1.0,
        offsets: Sequence[float] | None = None,
    ):
        super().__init__()
        self.networks, self.views, self.temperature = nn.ModuleList(networks), views, temperature
        device = networks[0].mean.device
        given = None if offsets is None else torch.tensor(offsets, dtype=torch.float32, device=device)
        self.register_buffer("offsets", given)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images of shape (n, height, width, 3) to probabilities of shape (n, classes)."""
        seen = [soft := self.networks[0].softened(images)]
        for view in range(1, self.views):
            turned = [axis for axis, bit in ((2, 1), (1, 2)) if view & bit]
            way = (soft.transpose(1, 2) if view & 4 else soft).flip(turned)
            seen.append(coarse(way) if view & 1 else way)
        if torch.compiler.is_exporting():
            seen = [torch.cat(seen)]  # a graph as small as that of one view
        runs = [torch.log_softmax(network(each), dim=1) for each in seen for network in self.networks]
        logits = torch.stack(runs).reshape(-1, images.shape[0], runs[0].shape[1]).mean(0) / self.temperature
        return torch.softmax(logits if self.offsets is None else logits + self.offsets, dim=1)


class Features(nn.Module):
    """A network that gives its features, of images that are `Network.softened`."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images of shape (n, height, width, 3) to features of shape (n, features)."""
        return self.network.features(self.network.softened(images))


class WithFeatures(nn.Module):
    """A module that also returns the features of `network`, one of its parts, of the first view: from one run of it."""

    def __init__(self, scoring: nn.Module, network: Network):
        super().__init__()
        self.scoring, self.network = scoring, network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Map uint8 images of shape (n, height, width, 3) to what `scoring` returns, and features (n, features)."""
        found: list[torch.Tensor] = []
        with self.network.body.register_forward_hook(lambda *given: found.append(given[2])):
            results = self.scoring(images)
        return (*(results if isinstance(results, tuple) else (results,)), found[0][: images.shape[0]])


def stages(body: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """List the parts of a network from input to output, for freezing the first of them: (name, modules) of each.

    These are the children of `body`; where they are fewer than four, the one with most layers is replaced by its own
    children, and so on, if there are any. A normalization belongs to the layer in front of it. The first is called
    ``"stem"``, the others after their (first) module, such as ``"layer1"``.
    """
    found, loose = [("", [body])], []
    while len(found) < 4:
        at = max(range(len(found)), key=lambda n: sum(map(_count, found[n][1])))
        name, (whole, *rest) = found[at]
        inner = []
        for child, module in whole.named_children():
            vectors = all(parameter.ndim < 2 for parameter in module.parameters())
            if inner and vectors and _count(module):  # a normalization has vectors only
                inner[-1][1].append(module)
            elif _count(module):
                inner.append((f"{name}.{child}".lstrip("."), [module]))
        if not inner:  # a single layer
            break
        inner[-1][1].extend(rest)
        found[at : at + 1] = inner
        loose += whole.parameters(recurse=False)
    stem = [nn.ParameterList(loose)] if loose else []  # ViT's class token and position embedding
    return [("stem", stem + found[0][1]), *found[1:]]


def _has_own(layer):
    """Say whether a layer has parameters of its own."""
    return any(True for _ in layer.parameters(recurse=False))


def _count(module):
    """Count the layers with parameters of their own."""
    return sum(map(_has_own, module.modules()))


def summary(network: Network, image_size: int) -> pd.DataFrame:
    """Tabulate the stages of a network, its head and their total.

    Columns: ``stage``; the number of ``layers`` with parameters; ``parameters``, and how many of them are
    ``trainable``; ``output_shape``, a tuple, for one image with sides of `image_size` pixels; ``activations_mib``, an
    estimate of the memory that training takes for each image of a batch, in MiB: the outputs of all layers, in float32.
    Parameters, gradients and the optimizer's state come on top, once.
    """
    network = copy.deepcopy(network).to("meta").eval()  # the meta device computes shapes only
    parts = [*stages(network.body), ("head", [network.head])]
    stage_of = {layer: name for name, modules in parts for module in modules for layer in module.modules()}
    current, numbers, shapes = "stem", dict.fromkeys(dict(parts), 0), {}

    def watch(layer, _, output):
        nonlocal current
        output = output[0] if isinstance(output, tuple) else output  # attention also returns its weights
        if layer in stage_of:  # layers between the stages, such as pooling, go to the former
            current = stage_of[layer]
            shapes[current] = tuple(output.shape[1:])
        if (_has_own(layer) or not [*layer.children()]) and not isinstance(layer, nn.Identity):
            numbers[current] += output.numel()

    for layer in network.modules():
        layer.register_forward_hook(watch)
    with torch.no_grad():
        network(torch.empty(1, image_size, image_size, 3, dtype=torch.uint8, device="meta"))
    rows = []
    for name, modules in parts:
        weights = [parameter for module in modules for parameter in module.parameters()]
        row = {"stage": name, "layers": sum(map(_count, modules))}
        row["parameters"] = sum(each.numel() for each in weights)
        row["trainable"] = sum(each.numel() for each in weights if each.requires_grad)
        rows.append(row | {"output_shape": shapes[name], "activations_mib": numbers[name] * 4 / 2**20})
    table = pd.DataFrame(rows)
    total = table.drop(columns=["stage", "output_shape"]).sum().to_dict()
    table.loc[len(table)] = {"stage": "total", "output_shape": shapes["head"]} | total
    return table.astype({"layers": int, "parameters": int, "trainable": int})


def set_training(network: Network, frozen_stages: int = 0, head_only: bool = False) -> None:
    """Freeze the first `frozen_stages` of `stages`, weights and batch statistics, or with `head_only` the whole body.

    Call it after ``network.train()``, which would wake their batch norms. Raises ValueError if there are fewer stages.
    """
    parts = stages(network.body)
    if frozen_stages > len(parts):
        raise ValueError(f"frozen_stages is {frozen_stages}, but the network has {len(parts)} stages")
    for number, (_, modules) in enumerate(parts):
        frozen = head_only or number < frozen_stages
        for module in modules:
            module.requires_grad_(not frozen)
            if frozen:
                module.eval()
    if head_only:
        network.body.eval()
