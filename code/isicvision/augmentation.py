"""imgaug pipelines: on the fly while training, or materialised as pictures on disk."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from imgaug import augmenters as iaa
from PIL import Image

from . import pixels


def augment_dataset(dataset, augmenters, folder=None, seed=0):
    """Augment the pictures of a training set with imgaug pipelines.

    Without `folder` nothing is written: `ImageClassifier.fit` passes each picture, in every epoch anew, through
    one of the pipelines chosen at random. With `folder` every pipeline makes one copy of every picture; the
    originals stay in the dataset too, and each copy keeps label, group and metadata of its picture and
    names it in the column ``augmented_from``.

    Parameters
    ----------
    dataset : ImageDataset
        The training part of a split. Never validation or test pictures: `evaluate` refuses augmented ones.
    augmenters : imgaug.augmenters.Augmenter or list of them
        Pipelines that keep size and channels of a picture, such as ``iaa.Sequential([iaa.Fliplr(0.5)])``.
    folder : str or pathlib.Path, optional
        Where to write the copies (JPEG), in a folder per label.
    seed : int
        For the materialised copies; on the fly the seed of the classifier counts.

    Returns
    -------
    ImageDataset

    Raises
    ------
    TypeError
        If an element of `augmenters` is no imgaug augmenter.
    ValueError
        If `augmenters` is empty, or a pipeline changes size, channels or type of the pictures.

    Notes
    -----
    imgaug: https://imgaug.readthedocs.io; installed from its maintained fork, the distribution ``imaug``.
    """
    augmenters = (augmenters,) if isinstance(augmenters, iaa.Augmenter) else tuple(augmenters)
    if not augmenters:
        raise ValueError("augmenters is empty; give at least one imgaug pipeline")
    for augmenter in augmenters:
        if not isinstance(augmenter, iaa.Augmenter):
            raise TypeError(f"{augmenter!r} is no imgaug augmenter (imgaug.augmenters.…)")
    if folder is None:
        return replace(dataset, augmenters=augmenters)
    folder = Path(folder)
    copies = []
    for number, augmenter in enumerate(augmenters):
        pipeline = Pipeline([augmenter], seed + number)
        rows = dataset.table.assign(augmented_from=dataset.table["path"])
        rows["path"] = [
            str(folder / label / f"{Path(path).stem}_augmented{number}.jpg")
            for path, label in zip(rows["path"], rows["label"], strict=True)
        ]
        for index, (source, target) in enumerate(zip(rows["augmented_from"], rows["path"], strict=True)):
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            picture = pipeline(pixels.decode(source)[None], index)[0]
            Image.fromarray(picture).save(target, quality=92)
        copies.append(rows)
    return replace(dataset, table=pd.concat([dataset.table, *copies], ignore_index=True))


class Pipeline:
    """Augmenters with a seed: the same `step` gives the same pictures, whatever was augmented before.

    Parameters
    ----------
    augmenters : sequence of imgaug.augmenters.Augmenter
        Each picture passes through one of them, chosen at random.
    seed : int
    """

    def __init__(self, augmenters, seed):
        self._augmenter = iaa.OneOf([copy.deepcopy(augmenter) for augmenter in augmenters])
        self._seed = seed

    def __call__(self, pictures, step):
        """Augment `pictures`, uint8 of shape (n, height, width, 3); return an array of the same kind."""
        self._augmenter.seed_(int(np.random.SeedSequence([self._seed, step]).generate_state(1)[0] >> 1))
        augmented = self._augmenter(images=np.ascontiguousarray(pictures))
        kinds = {(picture.shape, str(picture.dtype)) for picture in augmented}
        if kinds != {(pictures.shape[1:], "uint8")}:
            raise ValueError(
                f"an augmentation pipeline turned pictures of {pictures.shape[1:]} uint8 into {sorted(kinds)}; "
                "it must keep size, channels and type (iaa.Crop and iaa.Affine have keep_size/fit_output for that)"
            )
        return np.asarray(augmented)
