"""Saliency: which parts of an image move the score of a fine-tuned network."""

from __future__ import annotations

from contextlib import ExitStack

import cv2
import numpy as np
import torch
from torch import nn

from .classifier import ImageClassifier


def grad_cam(model: ImageClassifier, images: np.ndarray, label: str | None = None) -> np.ndarray:
    """Return which parts of each image speak for a label: float32 of shape (n, height, width), 0 to 1.

    Captum's LayerGradCam at the last layer that still has places (Selvaraju et al., Grad-CAM: Visual Explanations from
    Deep Networks via Gradient-based Localization, 2017); the maps of several networks are added up. A map is coarse and
    proves nothing. `images` are uint8 as `images.decode` returns them; `label` is by default the model's positive one.
    Raises ValueError if the model has no such label, is a scikit-learn classifier, or has no places (a transformer).

    >>> from isicvision import ImageClassifier
    >>> model = ImageClassifier("squeezenet1_1", ["benign", "malignant"], weights=None, image_size=64)
    >>> grad_cam(model, np.zeros((1, 64, 64, 3), np.uint8)).shape
    (1, 64, 64)
    """
    from captum.attr import LayerGradCam  # takes a second to load, and belongs to an extra

    label = model.positive if label is None else label
    if label not in model.labels:
        raise ValueError(f"unknown label {label!r}; there are: {', '.join(model.labels)}")
    if not model.is_fine_tuned:
        raise ValueError("a scikit-learn classifier has no gradient: saliency needs a fine-tuned network")
    batch = torch.from_numpy(np.array(images)).to(next(model.network.parameters()).device)
    batch = model.network.softened(batch)
    target, maps = model.labels.index(label), np.zeros(1, np.float32)
    for network in model.networks:
        cam = LayerGradCam(network, _last_with_places(network, batch[:1]))
        maps = maps + cam.attribute(batch, target=target, relu_attributions=True)[:, 0].detach().cpu().numpy()
    maps = maps / np.maximum(maps.max(axis=(1, 2), keepdims=True), 1e-12)
    side = images.shape[1:3][::-1]
    return np.stack([cv2.resize(each, side, interpolation=cv2.INTER_LINEAR) for each in maps])


def _last_with_places(network, batch):
    """Return the last module with convolutions whose output has channels and more than one row and column."""
    modules, found = [*network.body.modules()], []

    def note(module, _, output):
        layers = [each for each in module.modules() if isinstance(each, (nn.Conv2d, nn.BatchNorm2d))]
        widths = [getattr(each, "out_channels", None) or each.num_features for each in layers[-2:]]
        is_map = isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1
        if is_map and output.shape[1] in widths:  # else channels come last, as in transformers
            found.append(module)

    with ExitStack() as hooks, torch.no_grad():
        for module in modules:
            hooks.enter_context(module.register_forward_hook(note))
        network(batch)
    # transformers, too, begin with a convolution, but most of their modules come after it
    if not found or modules.index(found[-1]) + len([*found[-1].modules()]) < len(modules) / 2:
        raise ValueError("this network keeps no places for Grad-CAM to show; take a convolutional one")
    return found[-1]


def overlay(image: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Return an image with its map laid over it, red where the map is high: uint8 of shape (height, width, 3).

    >>> overlay(np.zeros((2, 2, 3), np.uint8), np.ones((2, 2), np.float32))[0, 0].tolist()
    [64, 0, 0]
    """
    heat = cv2.applyColorMap((255 * saliency).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    weight = saliency[..., None] / 2
    return (image * (1 - weight) + heat * weight).round().astype(np.uint8)
