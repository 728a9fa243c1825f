"""What goes into a network: decoded images, the numbers of their labels, and many images in batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from ..data.cache import Images
from ..text import as_label, listed
from .batches import forward

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset

WORTH_EXPORTING = 500
"""From this number of 224 px images on, ONNX Runtime scores them sooner on a CPU, its export included."""


def checked_labels(labels: Iterable[object]) -> list[str]:
    """Return the names of a model's classes. Raises ValueError unless they are a list of two or more different ones."""
    if isinstance(labels, (str, set, frozenset)):
        raise ValueError(f"labels is a list, in the order of the scores' columns, not {labels!r}")
    given = [*labels]
    found = [label for label in map(as_label, given) if label]
    if len(found) < 2 or len({*found}) < len(given):
        raise ValueError(f"labels must be two or more different names, not {given}")
    return found


def decoded(images: Any, size: int, interpolation: str) -> Images:
    """Return the decoded images of a dataset, of a path or of a list of paths.

    >>> from isicvision import PROJECT_ROOT
    >>> decoded(PROJECT_ROOT / "sample_data" / "images" / "ISIC_9900259.jpg", 64, "bilinear").shape
    (1, 64, 64, 3)
    """
    paths = [images] if isinstance(images, (str, Path)) else getattr(images, "paths", images)
    paths = [*paths] if isinstance(paths, Iterable) else [paths]
    if wrong := [path for path in paths if not isinstance(path, (str, Path))]:
        problem = f"images must be an ImageDataset, a path or a list of paths, not {type(wrong[0]).__name__}"
        raise TypeError(f"{problem}; `scores` takes decoded images")
    return Images(paths, size, interpolation)


def readable(
    dataset: ImageDataset, what: str, size: int, interpolation: str, stacklevel: int
) -> tuple[ImageDataset, Images]:
    """Set aside the images that cannot be read, with a warning; return the rest, and its decoded images."""
    images = decoded(dataset, size, interpolation)
    if not images.broken:
        return dataset, images
    reasons = images.broken.values()
    if len(images.broken) == len({*dataset.paths}):
        raise ValueError(f"there is no {what} image that can be read:{listed(reasons)}")
    warnings.warn(
        f"{len(reasons)} of {len(images)} {what} images cannot be read and are set aside:{listed(reasons)}",
        stacklevel=stacklevel,
    )
    dataset = dataset.without(images.broken)
    return dataset, decoded(dataset, size, interpolation)


def targets(dataset: ImageDataset, labels: Sequence[str], what: str, complete: bool = False) -> np.ndarray:
    """Return the number of each image's label, int64 (images,).

    Raises ValueError if the dataset has other labels or, with `complete`, if it lacks one.
    """
    if unknown := {*dataset.labels} - {*labels}:
        problem = f"labels that the model does not know: {', '.join(sorted(unknown))}"
        raise ValueError(f"the {what} images have {problem}; it knows {', '.join(labels)}")
    if complete and (missing := [label for label in labels if label not in dataset.labels]):
        raise ValueError(f"no {what} image is labeled {', '.join(missing)}")
    return np.array([labels.index(label) for label in dataset.table["label"]], np.int64)


def apply(
    module: nn.Module, images: Images | np.ndarray, title: str, numbers: ArrayLike | None = None
) -> np.ndarray:
    """Apply a module to many images, by ONNX Runtime where that is faster and installed: see `batches.forward`."""
    numbers = np.arange(len(images)) if numbers is None else np.asarray(numbers)
    runs = module.views * len(module.networks) if hasattr(module, "views") else 1
    on_cpu = next(module.parameters()).device.type == "cpu"
    if on_cpu and len(numbers) * runs * (images.shape[1] / 224) ** 2 >= WORTH_EXPORTING:
        with suppress(ModuleNotFoundError):  # ONNX Runtime belongs to an extra
            from .onnx import Compiled

            module = Compiled(module.eval(), images.shape[1])
    return forward(module, images, numbers, progress=title)
