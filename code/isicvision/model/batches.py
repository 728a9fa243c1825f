"""Batches: which image comes when, read and augmented in time, and a network applied to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from ..data.cache import Images
    from .settings import Settings

BATCH = 64
"""Images of up to 224 px at a time where nothing is learnt; of larger ones fewer."""
Augment = Callable[[np.ndarray, Sequence[int]], np.ndarray]
"""Images and their keys to images, see `augmentation.Pipeline`."""


def order_of(targets: np.ndarray, settings: Settings, seed: int, epoch: int) -> np.ndarray:
    """Return which image comes when in an epoch: array of int, shape (images,)."""
    random = np.random.default_rng([seed, epoch])
    if settings.sampling == "shuffle":
        return random.permutation(len(targets))
    weights = 1 / np.bincount(targets)[targets]
    return random.choice(len(targets), len(targets), p=weights / weights.sum())


def steps(count: int, batch_size: int, least: int = 2) -> list[tuple[int, int]]:
    """Cut an epoch into steps: list of (first, last), without a last step of fewer than `least` images.

    Batch norm cannot learn from a single image. Another epoch leaves out other images.

    >>> steps(9, 4), steps(10, 4)
    ([(0, 4), (4, 8)], [(0, 4), (4, 8), (8, 10)])
    """
    cuts = [*range(0, count, batch_size), count]
    found = [*pairwise(cuts)]
    return found[:-1] if len(found) > 1 and count - cuts[-2] < least else found


class Parts(Dataset):
    """Augmented images by (numbers in the set, keys for the augmentation)."""

    def __init__(self, images: Images | np.ndarray, augment: Augment | None):
        self.images, self.augment = images, augment

    def __getitem__(self, part):
        numbers, keys = part
        batch = np.asarray(self.images[numbers])
        return torch.from_numpy(self.augment(batch, keys) if self.augment else batch)


def load(
    parts: Parts, wanted: Sequence[tuple], device: torch.device, workers: int | None
) -> Generator[torch.Tensor, None, None]:
    """Yield what is `wanted` of `parts`, in order, read and augmented: uint8 (n, height, width, 3), on `device`.

    By default there are as many `workers`, processes, as cores for a GPU, and none for the CPU: there the network needs
    the cores, and its threads wait for one another where another thread takes one of them.
    """
    if workers is None:
        workers = 0 if device.type == "cpu" else min(os.cpu_count() or 1, 16) - 1
    pinned = device.type == "cuda"
    options = {"worker_init_fn": _single_threaded, "prefetch_factor": 4} if workers else {}
    options |= {"batch_size": None, "sampler": wanted, "num_workers": workers, "pin_memory": pinned}
    for batch in DataLoader(parts, **options):
        yield batch.to(device, non_blocking=pinned)


def _single_threaded(_):
    cv2.setNumThreads(0)  # there are as many processes as cores


def forward(
    network: nn.Module,
    images: Images | np.ndarray,
    numbers: ArrayLike | None = None,
    progress: str | None = None,
) -> np.ndarray:
    """Apply a network to images in batches, without gradients: float32 of shape (n, outputs).

    Images are `cache.Images` or an array of uint8, shape (n, height, width, 3), of which `numbers` says which to take
    (default: all); `progress` is the title of a bar.
    """
    device = next(network.parameters()).device
    network.eval()
    numbers = np.arange(len(images)) if numbers is None else np.asarray(numbers)
    at_once = max(1, min(BATCH, BATCH * 224**2 // (images.shape[1] * images.shape[2])))
    batches = np.split(numbers, range(at_once, len(numbers), at_once))
    loaded = load(Parts(images, None), [(batch, None) for batch in batches], device, 0)
    options = {"desc": progress, "unit": "batch", "leave": False, "delay": 2, "disable": not progress}
    loaded = tqdm(loaded, total=len(batches), **options)
    with torch.inference_mode():
        return torch.cat([network(batch).float().cpu() for batch in loaded]).numpy()
