"""What goes into a network: decoded images, the numbers of their labels, and batches of them in time."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from ..data.cache import Images
from ..data.dataset import ImageDataset
from ..errors import warn
from ..text import as_label, listed
from .backbones import Backbone
from .settings import Settings

BATCH = 64
"""Images of up to 224 px at a time where nothing is learnt; of larger ones fewer."""
WORTH_EXPORTING = 500
"""From this number of 224 px images on, ONNX Runtime scores them sooner on a CPU, its export included."""
Augment = Callable[[np.ndarray, Sequence[int]], np.ndarray]
"""Images and their keys to images, see `augmentation.Pipeline`."""


def checked_labels(labels: Iterable[object]) -> list[str]:
    """Return the names of a model's classes. Raises ValueError unless they are a list of two or more different ones."""
    if isinstance(labels, (str, set, frozenset)):
        raise ValueError(f"labels is a list, in the order of the scores' columns, not {labels!r}")
    given = [*labels]
    found = [label for label in map(as_label, given) if label]
    if len(found) < 2 or len({*found}) < len(given):
        raise ValueError(f"labels must be two or more different names, not {given}")
    return found


def decoded(images: Any, size: int, backbone: Backbone) -> Any:
    """Return the decoded images of a dataset, of a path or of a list of paths, as `backbone` expects them."""
    paths = [images] if isinstance(images, (str, Path)) else getattr(images, "paths", images)
    paths = [*paths] if isinstance(paths, Iterable) else [paths]
    if wrong := [path for path in paths if not isinstance(path, (str, Path))]:
        problem = f"images must be an ImageDataset, a path or a list of paths, not {type(wrong[0]).__name__}"
        raise TypeError(f"{problem}; `scores` takes decoded images")
    if backbone.rows:
        return backbone.rows([*map(str, paths)])
    return Images(paths, size, backbone.interpolation)


def readable(dataset: ImageDataset, what: str, size: int, backbone: Backbone) -> tuple[ImageDataset, Any]:
    """Set aside the images that cannot be read, with a warning; return the rest, and its decoded images."""
    images = decoded(dataset, size, backbone)
    reasons = getattr(images, "broken", {}).values()
    if len(reasons) == len({*dataset.paths}):
        raise ValueError(f"there is no {what} image that can be read:{listed(reasons)}")
    if reasons:
        counts = f"{len(reasons)} of {len(images)}"
        warn(f"{counts} {what} images cannot be read and are set aside:{listed(reasons)}")
        dataset = dataset.without(images.broken)
        images = decoded(dataset, size, backbone)
    return dataset, images


def targets(dataset: ImageDataset, labels: Sequence[str], what: str, complete: bool = False) -> np.ndarray:
    """Return the number of each image's label, int64 (images,); ValueError for others, or if `complete` lacks one."""
    if unknown := {*dataset.labels} - {*labels}:
        problem = f"labels that the model does not know: {', '.join(sorted(unknown))}"
        raise ValueError(f"the {what} images have {problem}; it knows {', '.join(labels)}")
    if complete and (missing := [label for label in labels if label not in dataset.labels]):
        raise ValueError(f"no {what} image is labeled {', '.join(missing)}")
    return np.array([labels.index(label) for label in dataset.table["label"]], np.int64)


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

    By default there are as many `workers`, processes, as cores for a GPU; none for a CPU, which the network needs.
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

    Images are of shape (n, height, width, 3); `numbers` says which to take (default: all); `progress` titles a bar.
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


def apply(
    module: nn.Module, images: Images | np.ndarray, title: str, numbers: ArrayLike | None = None
) -> np.ndarray:
    """Apply a module to many images as `forward` does, by ONNX Runtime where that is faster and installed."""
    count = len(images) if numbers is None else np.size(numbers)
    runs = module.views * len(module.networks) if hasattr(module, "views") else 1
    on_cpu = next(module.parameters()).device.type == "cpu"
    if on_cpu and count * runs * (images.shape[1] / 224) ** 2 >= WORTH_EXPORTING:
        with suppress(ModuleNotFoundError):  # ONNX Runtime belongs to an extra
            from .onnx import Compiled

            module = Compiled(module.eval(), images.shape[1], BATCH)
    return forward(module, images, numbers, progress=title)
