"""Estimate skin tone from the image, where the metadata do not say: the individual typology angle (ITA)."""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .. import images as pixels
from . import regions
from .dataset import ImageDataset

BANDS = {"very light": 55, "light": 41, "intermediate": 28, "tan": 10, "brown": -30, "dark": -90}
"""Each tone, from light to dark, and the angle above which it begins, in degrees (Del Bino and Bernerd, Variations in
skin color and the biological consequences of ultraviolet radiation exposure, 2013)."""
SIDE = 256
"""Images are measured with the longer side at this many pixels."""
LEAST = 0.02
"""Share of the image that must be skin, or nothing is measured."""


def estimate(dataset: ImageDataset) -> ImageDataset:
    """Measure the skin around each lesion, for slices by skin tone.

    ITA = arctan((L* - 50) / b*), in degrees (Chardon, Cretois and Hourseau, Skin color typology and suntanning
    pathways, 1991), of the median color of `regions.skin`, in CIELAB under D65.

    The angle is made for a colorimeter. A dermatoscope's light, polarization and white balance, and the camera's own
    processing, move it by more than a band, and one clinic's images all in the same direction: compare images of
    one source, and believe no single value. Under bluish light there is no angle at all: so it is in 37 % of 500
    images of HAM10000, and in all ten of the archive that this was tried on. Red or sun-damaged skin, hair, and a
    lesion that fills the image move it too. It is not Fitzpatrick's type, which asks how skin burns. Peers who
    measured skin tone like this, and their doubts: Kinyanjui et al., Estimating skin tone and effects on classification
    performance in dermatology datasets, 2019; Groh et al., Evaluating deep neural networks trained on clinical images
    in dermatology with the Fitzpatrick 17k dataset, 2021; Bevan and Atapour-Abarghouei, Detecting melanoma fairly,
    2022.

    Returns
    -------
    ImageDataset
        With two more columns, which `comparison.slices` takes: ``ita`` (float, degrees, NaN where there is no skin to
        measure) and ``skin_tone`` (ordered categories, the names of `BANDS`; missing where ``ita`` is).

    Raises
    ------
    pixels.ImageError
        If an image cannot be read; `ImageDataset.check` sets such ones aside.
    """

    def measure(path):
        return ita(np.asarray(pixels.frame(path, SIDE)[0]))

    angles = pixels.map_threads(measure, dataset.paths, progress="skin tone")
    return replace(dataset, table=dataset.table.assign(ita=angles, skin_tone=tone(angles)))


def ita(image: np.ndarray) -> float:
    """Measure the typology angle of the skin in one image, RGB of uint8, the skin around a lesion included.

    Returns -90 to 90 degrees, higher for lighter skin. NaN if less than `LEAST` of the image is skin, or its median
    is not yellowish (b* not above 0): under a bluish white balance the angle says nothing.
    """
    skin = image[regions.skin(image)]
    if len(skin) < LEAST * image.shape[0] * image.shape[1]:
        return float("nan")
    lab = cv2.cvtColor(skin[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]
    lightness, _, yellow = np.median(lab, axis=0)
    return float(np.degrees(np.arctan((lightness - 50) / yellow))) if yellow > 0 else float("nan")


def tone(angles: ArrayLike) -> pd.Categorical:
    """Name the bands of typology angles in degrees: the keys of `BANDS`, ordered from light to dark; NaN has none."""
    names = [*BANDS]
    edges = [-np.inf, *list(BANDS.values())[-2::-1], np.inf]
    found = pd.cut(np.asarray(angles, dtype=float), edges, labels=names[::-1])
    return pd.Categorical(found, categories=names, ordered=True)
