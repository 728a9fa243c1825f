"""Augmentation by imgaug: two ready pipelines and your own, on the fly while training or as copies on disk."""

import copy
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from imgaug import augmenters as iaa
from imgaug.random import RNG
from PIL import Image

from ..fields import MEASURES
from ..files import folder_name, replacing, user_path
from ..images import decode, map_threads
from .cache import Images
from .dataset import ImageDataset

_T = np.linspace(0, 1, 24)
BEZIER = np.stack([(1 - _T) ** 2, 2 * _T * (1 - _T), _T**2], axis=1)
"""Weights of start, control and end of a quadratic Bézier curve along it, shape (24, 3)."""


def augment_dataset(
    dataset: ImageDataset,
    augmenters: iaa.Augmenter | Sequence[iaa.Augmenter],
    folder: str | os.PathLike | None = None,
    seed: int = 0,
) -> ImageDataset:
    """Augment the images of a training set with imgaug pipelines.

    Without `folder` nothing is written: `ImageClassifier.fit` passes each image in each epoch through one of the
    pipelines, chosen at random. With `folder` every pipeline makes one copy (JPEG) of every image, in a folder per
    label; `seed` is that of the copies. Each copy keeps the metadata of its image, but not its measures, and names it
    in the column ``augmented_from``. Give each dataset a folder of its own, apart from the originals.

    Pipelines keep size and channels of an image: `dermoscopy`, `original_2018`, or your own. Raises TypeError or
    ValueError for others, and one ImageError that names all unreadable images before anything is written.

    >>> from isicvision import SAMPLE_DATA
    >>> train = ImageDataset.from_csv(SAMPLE_DATA / "metadata.csv", label_column="diagnosis_1")
    >>> len(augment_dataset(train, [dermoscopy()]).augmenters)
    1
    """
    augmenters = _listed(augmenters)
    if "augmented_from" in dataset.table:
        raise ValueError(
            "the dataset holds augmented copies already (column augmented_from): augment the originals, with all "
            "pipelines in one call"
        )
    if folder is None:
        return replace(dataset, augmenters=augmenters)
    return _materialize(dataset, augmenters, user_path(folder), seed)


def _listed(augmenters):
    """Return one or several imgaug augmenters as a tuple."""
    is_one = isinstance(augmenters, iaa.Augmenter) or not isinstance(augmenters, (list, tuple))
    augmenters = (augmenters,) if is_one else tuple(augmenters)  # iaa.Sequential is a list too
    if not augmenters:
        raise ValueError("augmenters is empty; give at least one imgaug pipeline")
    for augmenter in augmenters:
        if not isinstance(augmenter, iaa.Augmenter):
            raise TypeError(f"{augmenter!r} is not an imgaug augmenter (imgaug.augmenters.…)")
    return augmenters


def _materialize(dataset, augmenters, folder, seed):
    """Write a copy of each image by each pipeline; return the dataset of originals and copies."""
    Images(dataset.paths, 64, progress="checking").require_all()
    table = dataset.table.drop(columns=list(MEASURES), errors="ignore")
    folders = [folder / (folder_name(label) or "_") for label in table["label"]]
    sources, pipelines = dataset.paths, [Pipeline(augmenter, seed) for augmenter in augmenters]

    def write(row):
        image, written = decode(sources[row])[None], []
        for number, pipeline in enumerate(pipelines):
            # with the row's number, since images from several folders may have one name
            target = folders[row] / f"{Path(sources[row]).stem}_augmented{row}_{number}.jpg"
            with replacing(target) as part:
                augmented = pipeline(image, [row * len(pipelines) + number])[0]
                Image.fromarray(augmented).save(part, "JPEG", quality=92)
            written.append(str(target))
        return written

    written = map_threads(write, range(len(sources)), progress="augmenting")
    copies = [table.assign(augmented_from=table["path"], path=paths) for paths in zip(*written, strict=True)]
    return replace(dataset, table=pd.concat([table, *copies], ignore_index=True))


class Pipeline:
    """Augmenters with a seed: the result depends only on the image, the seed and the image's key.

    Each image passes through one of the augmenters, chosen at random; ``to_deterministic()`` has no effect. The global
    generators of numpy and imgaug do not change, except that `iaa.MotionBlur`, `iaa.Rain` and
    `iaa.KMeansColorQuantization` advance imgaug's, and `iaa.imgcorruptlike` seeds numpy's (use it in one thread only).

    >>> Pipeline(original_2018(), seed=0)(np.zeros((2, 64, 64, 3), np.uint8), keys=[0, 1]).shape
    (2, 64, 64, 3)
    """

    def __init__(self, augmenters: iaa.Augmenter | Sequence[iaa.Augmenter], seed: int) -> None:
        augmenters = copy.deepcopy(_listed(augmenters))
        nodes = [node for augmenter in augmenters for node in _nodes(augmenter)]
        for node in nodes:  # else the next one would draw the same random numbers again
            node.deterministic = False
        self._original = augmenters, nodes
        self._idle = []  # copies that no thread is using: augmenters have state
        self._seed = seed

    def __setstate__(self, state):
        # imgaug fills a table of this class when one is constructed, not when one is unpickled
        iaa.AddToHueAndSaturation(seed=0)
        self.__dict__.update(state)

    def __call__(self, images: np.ndarray, keys: Sequence[int]) -> np.ndarray:
        """Augment uint8 images of shape (n, height, width, 3), each by its key: an array like them.

        Keys are whole numbers from 0, such as epoch * number of images + index of the image. Raises ValueError if a
        pipeline changes size, channels or type of an image, or there is not one key for each image.
        """
        try:
            augmenters, nodes = copied = self._idle.pop()
        except IndexError:  # other threads use them all
            augmenters, nodes = copied = copy.deepcopy(self._original)
        augmented = np.empty(images.shape, np.uint8)
        for number, (image, key) in enumerate(zip(images, keys, strict=True)):
            random = RNG(np.random.SeedSequence(self._seed, spawn_key=(key,)))
            for node in nodes:
                node.random_state = random
            augmenter = augmenters[random.integers(0, len(augmenters))]
            image = augmenter.augment_image(np.ascontiguousarray(image))
            if image.shape != images.shape[1:] or image.dtype != np.uint8:
                raise ValueError(
                    f"an augmentation pipeline turned an image of {images.shape[1:]} uint8 into {image.shape} "
                    f"{image.dtype}; it must keep size, channels and type, such as by iaa.Crop(keep_size=True)"
                )
            augmented[number] = image
        self._idle.append(copied)
        return augmented


def _nodes(augmenter):
    """Yield an augmenter and all augmenters inside it."""
    yield augmenter
    for children in augmenter.get_children_lists():
        # of iaa.Sometimes(0.5, iaa.OneOf(…)) this list is the OneOf itself, which imgaug's own seed_ passes over
        if isinstance(children, iaa.Augmenter) and children is not augmenter:
            yield children
        for child in children:
            yield from _nodes(child)


def described(augmenters: iaa.Augmenter | Sequence[iaa.Augmenter]) -> str:
    """Return the text of pipelines as imgaug writes it, the same before and after use and in each process.

    >>> described(iaa.Fliplr(0.5))
    'Fliplr(parameters=[Binomial(0.5)])'
    """
    text = ", ".join(str(augmenter) for augmenter in _listed(augmenters))
    text = re.sub(r" at 0x[0-9a-f]+", "", text)  # addresses of functions differ between processes
    ahead = r"AutoPrefetcher\(nb_prefetch=.*?, last_rng_idx=\w+, other_param=(\w+\((?:[^()]|\([^()]*\))*\))\)"
    text = re.sub(ahead, r"\1", text)
    text = re.sub(r"Deterministic\((?:(?:int|float|str) )?([^()]*)\)", r"\1", text)
    text = re.sub(r"name=Unnamed[\w-]+, |, deterministic=False|, else_list=None", "", text)
    return re.sub(r"(\.\d*?[1-9]|\.)0+(?=\D|$)", lambda found: found[1].rstrip("."), text)


def original_2018() -> iaa.Sequential:
    """Return Microsoft's augmentation of 2018: mirror half of the images, crop up to a tenth of each side."""
    return iaa.Sequential([iaa.Fliplr(0.5), iaa.Crop(percent=(0, 0.1))])


def dermoscopy(
    scale: tuple[float, float] = (0.9, 1.15),
    shift: float = 0.05,
    brightness: float = 0.1,
    tint: float = 0.016,
    saturation: float = 0.15,
    hair: float = 0.1,
    cutout: float = 0.2,
) -> iaa.Sequential:
    """Return an augmentation for dermoscopic images; the arguments are the largest changes either way, or shares.

    Images are mirrored and turned by quarters in all eight ways (a lesion has no up and no left), scaled and shifted a
    little, the border mirrored, and changed a little in brightness, white balance (`tint`) and saturation: only a
    little, because color is diagnostic. The share `hair` of them gets `Hair`, the share `cutout` a gray square of a
    fifth of the side (DeVries and Taylor, Improved Regularization of Convolutional Neural Networks with Cutout, 2017).

    >>> dermoscopy()(image=np.full((64, 64, 3), 200, np.uint8)).shape
    (64, 64, 3)
    """
    return iaa.Sequential(
        [
            iaa.Fliplr(0.5),
            iaa.Affine(
                scale=tuple(scale),
                translate_percent={"x": (-shift, shift), "y": (-shift, shift)},
                rotate=[0, 90, 180, 270],
                mode="reflect",
                backend="cv2",
            ),
            # the same as iaa.Multiply, in a sixth of the time
            iaa.pillike.EnhanceBrightness((1 - brightness, 1 + brightness)),
            iaa.Add((-round(255 * tint), round(255 * tint)), per_channel=True),
            iaa.pillike.EnhanceColor((1 - saturation, 1 + saturation)),
            iaa.Sometimes(hair, Hair()),
            iaa.Sometimes(cutout, iaa.Cutout(nb_iterations=1, size=0.2, squared=True, cval=127)),
        ]
    )


def other_camera() -> iaa.Sequential:
    """Return an augmentation after which an image looks as if another camera had taken it.

    It changes framing, resolution, sharpness, white balance, exposure and contrast.

    >>> other_camera()(image=np.full((64, 64, 3), 200, np.uint8)).shape
    (64, 64, 3)
    """
    fewer = iaa.Resize((0.4, 1.0), interpolation="area")
    return iaa.Sequential(
        [
            iaa.Affine(scale=(0.8, 2.0), mode="reflect", backend="cv2"),
            iaa.Sometimes(0.5, iaa.KeepSizeByResize(fewer, interpolation=["linear", "cubic"])),
            iaa.Sometimes(0.5, iaa.Sharpen((0, 0.5))),
            iaa.Multiply((0.85, 1.15), per_channel=True),
            iaa.GammaContrast((0.8, 1.25)),
        ]
    )


class Hair(iaa.Augmenter):
    """Draw a few thin, dark, curved hairs, of one color and direction, over each image: RGB of uint8, any size.

    >>> Hair()(image=np.full((64, 64, 3), 200, np.uint8)).min() < 190
    np.True_
    """

    def _augment_batch_(self, batch, random_state, parents, hooks):
        for image in batch.images if batch.images is not None else ():
            image[...] = _with_hair(image, random_state)
        return batch

    def get_parameters(self) -> list:
        """Return the parameters that imgaug prints: none."""
        return []


def _with_hair(image, random):
    """Return a copy of an image with hairs drawn by the RNG `random`."""
    height, width = image.shape[:2]
    side = min(height, width)
    drawn = np.ascontiguousarray(image).copy()
    growth = random.uniform(0, 2 * np.pi)
    color = random.uniform(10, 60) * np.array([1, 0.8, 0.65])
    for _ in range(random.integers(3, 10)):
        angle = growth + random.normal(0, 0.35)
        along = np.array([np.cos(angle), np.sin(angle)])
        middle = random.uniform(0, 1, 2) * [width, height]
        reach = random.uniform(0.2, 0.6) * side * along
        bend = random.normal(0, 0.12) * side * along[::-1] * [-1, 1]
        curve = BEZIER @ [middle - reach, middle + bend, middle + reach]
        thickness = max(1, round(random.uniform(0.003, 0.008) * side))
        # in sixteenths of a pixel
        cv2.polylines(drawn, [np.int32(16 * curve)], False, color, thickness, cv2.LINE_AA, shift=4)
    return cv2.addWeighted(drawn, 0.85, image, 0.15, 0)  # hair lets some light through
