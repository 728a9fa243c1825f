"""How unlike the training images an image is: a distance, whose limit few held-out images pass.

A network is as sure of a cat or an invoice as of a lesion: the service rejects what lies beyond the limit.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from sklearn.covariance import LedoitWolf
from torch import nn

from ..data.augmentation import Pipeline, other_camera
from ..data.cache import Images
from . import inputs
from .network import Network, stages

REFUSED = 0.03
"""Share of held-out images that may lie beyond the limit."""
IMAGES = 2000
"""So many images are enough."""
FEWEST = 10
"""So few local images, or more, move a limit."""
STAGES = 2
"""The last so many stages count twice: by themselves they tell least about the camera (bench_refusal.py)."""


class Outliers(nn.Module):
    """The larger of two distances from the training images: of all stages, and of the last ones."""

    def __init__(self, parts: Sequence[Distance]):
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, means: torch.Tensor) -> torch.Tensor:
        """Map vectors of shape (n, width) to distances of shape (n,), in units of the limit."""
        return torch.stack([part(means) for part in self.parts]).amax(0)

    def distances(self, means: np.ndarray) -> np.ndarray:
        """Return the distances of an array of vectors."""
        with torch.inference_mode():
            return self(torch.from_numpy(means).to(self.parts[0].mean.device)).cpu().numpy()


class Distance(nn.Module):
    """The Mahalanobis distance from the mean of the training images.

    Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, 2018, on the means of layers over
    all positions, with one Gaussian for all labels. A fine-tuned network's last features tell far less
    (bench_refusal.py has both). `width` is the length of the vectors; of longer ones the last values count.
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("whitening", torch.zeros(width, width))

    def forward(self, means: torch.Tensor) -> torch.Tensor:
        """Map vectors of shape (n, width) or longer to distances of shape (n,)."""
        return ((means[:, -len(self.mean) :] - self.mean) @ self.whitening).square().sum(1).sqrt()


def fit(training: np.ndarray) -> Distance:
    """Fit the mean and covariance to training images: floats of shape (images, width). The limit is to follow.

    Raises ValueError if the images are copies of one, or a value is not finite.
    """
    if not np.isfinite(training).all():
        raise ValueError("the network's values are not finite: train it again, at a lower learning rate")
    deviations = training.std(axis=0)
    if (deviations <= 1e-6 * np.abs(training).max()).all():
        raise ValueError("the training images are copies of one: a distance from them means nothing")
    scale = np.maximum(deviations, 1e-6)  # a channel that is always 0
    values, axes = np.linalg.eigh(LedoitWolf().fit(training / scale).covariance_)
    fitted = Distance(training.shape[1])
    fitted.mean[:] = torch.from_numpy(training.mean(axis=0))
    fitted.whitening[:] = torch.from_numpy(axes / np.sqrt(values.clip(1e-6 * values.max())) / scale[:, None])
    return fitted


def limit(distances: np.ndarray) -> float:
    """Return the distance that the share `REFUSED` of more images like these will pass.

    The quantile of conformal prediction (Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005).
    Raises ValueError if it is 0 or not finite.
    """
    rank = int(np.ceil((len(distances) + 1) * (1 - REFUSED)))
    found = float(np.sort(distances)[min(rank, len(distances)) - 1])
    if not (np.isfinite(distances).all() and found > 0):
        raise ValueError(f"the limit of the distance would be {found}: give more images, and other ones")
    return found


def quantiles(values: np.ndarray) -> list[float]:
    """Return 101 quantiles, from the least to the greatest, with the six digits of the service's log."""
    return [float(f"{value:.6g}") for value in np.quantile(values, np.linspace(0, 1, 101))]


def learn(
    network: Network, training: Images, held_out: Images, seed: int
) -> tuple[Outliers, np.ndarray, dict]:
    """Fit the outliers of a network, and return what `moved` does.

    The limit is that of the held-out images or, if it is larger, of these as another camera might have taken them.
    """

    def some(images):
        return np.sort(np.random.default_rng(seed).permutation(len(images))[:IMAGES])

    with taps(network) as found, torch.inference_mode():
        size = (1, *training.shape[1:])
        network.features(torch.zeros(size, dtype=torch.uint8, device=network.mean.device))
    width = sum(each.shape[1] for each in found[-STAGES:])
    known, new = _means(network, training, some(training)), _means(network, held_out)
    varied = _means(network, Pipeline(other_camera(), seed)(held_out[some(held_out)], some(held_out)))
    fitted = Outliers([fit(known), fit(known[:, -width:])])
    for part in fitted.parts:
        alone = Outliers([part])
        part.whitening /= max(limit(alone.distances(new)), limit(alone.distances(varied)))
    return _told(fitted.to(network.mean.device), new)


def moved(known: Outliers, network: Network, held_out: Images) -> tuple[Outliers, np.ndarray, dict]:
    """Return outliers whose limit is that of held-out images, their distances, and both in figures for model.json."""
    fitted, means = copy.deepcopy(known), _means(network, held_out)
    at = limit(found := known.distances(means))
    if np.ptp(found) <= 1e-6 * at:
        raise ValueError("these images are copies of one: they say nothing of others")
    for part in fitted.parts:
        part.whitening /= at
    return _told(fitted, means)


def _told(fitted, means):
    distances = fitted.distances(means)
    held = {"images": len(distances), "refused": float((distances > 1).mean())}
    return fitted, distances, {"held_out": held, "distance_quantiles": quantiles(distances)}


def _means(network, images, numbers=None):
    return inputs.apply(StageMeans(network), images, "outliers", numbers)


@contextmanager
def taps(network: Network) -> Iterator[list[torch.Tensor]]:
    """Yield a list that each run of the network fills with the means of its stages' outputs over all positions.

    The tensors, of shape (n, channels), are in the order of the stages, without the last, see `Outliers`, and without
    those that have no positions. If none has (a vision transformer), the features take their place.
    """
    found, earlier = [], 0

    def keep(_, __, output):
        if output.ndim == 4:  # images are square: where the last two sides differ, the channels are last
            found.append(output.mean((2, 3) if output.shape[2] == output.shape[3] else (1, 2)))

    def keep_features(_, __, output):
        nonlocal earlier
        if len(found) == earlier:
            found.append(output)
        earlier = len(found)

    *body, _ = stages(network.body)
    with ExitStack() as hooks:
        for _, modules in body:
            hooks.enter_context(modules[-1].register_forward_hook(keep))
        hooks.enter_context(network.body.register_forward_hook(keep_features))
        yield found


class StageMeans(nn.Module):
    """The means of `taps` of a network."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images (n, height, width, 3) to float32 (n, width)."""
        with taps(self.network) as found:
            self.network.features(self.network.softened(images))
        return torch.cat(found, 1)


class WithDistance(nn.Module):
    """A module that returns scores or features, and the distances of `Outliers`, from one run of the network.

    `scoring` runs `network`, one of its parts, on the images as they are before any other view of them.
    """

    def __init__(self, scoring: nn.Module, network: Network, outliers: Outliers):
        super().__init__()
        self.scoring, self.network, self.outliers = scoring, network, outliers

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map uint8 images of shape (n, height, width, 3) to what `scoring` returns, and distances of shape (n,)."""
        with taps(self.network) as found:
            result = self.scoring(images)
        runs = 1 if torch.compiler.is_exporting() else getattr(self.scoring, "views", 1)
        of_first_view = [each[: images.shape[0]] for each in found[: len(found) // runs]]
        return result, self.outliers(torch.cat(of_first_view, 1))
