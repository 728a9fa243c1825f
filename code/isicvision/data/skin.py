"""Find lesion and skin in a dermoscopic image, and estimate the skin tone: the individual typology angle (ITA).

The regions are good enough to mask the lesion in most images, and not accurate enough to measure it.
"""

from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..images import frame, map_threads
from .dataset import ImageDataset
from .measures import NEAR_BLACK, NEAR_WHITE

BANDS = {"very light": 55, "light": 41, "intermediate": 28, "tan": 10, "brown": -30, "dark": -90}
"""Skin tones, from light to dark, and the angle in degrees above which each begins (Del Bino and Bernerd, Variations in
skin color and the biological consequences of ultraviolet radiation exposure, 2013)."""
SIDE, REGION_SIDE = 256, 128
"""The skin tone is measured, and regions are found, with the longer side at so many pixels."""
LEAST = 0.02
"""Share of the image that must be skin for an angle."""
SMALLEST, LARGEST = 0.01, 0.65
"""Shares of the view between which a dark region is taken for the lesion."""
ELLIPSE = 0.35
"""Half axes, as a share of the sides, of the ellipse that stands for a lesion that was not found."""


def estimate_tone(dataset: ImageDataset) -> ImageDataset:
    """Add the columns ``ita``, in degrees or NaN, and ``skin_tone``, with ordered categories: the names in `BANDS`.

    ITA = arctan((L* - 50) / b*) of the median color of the skin around the lesion, in CIELAB under D65 (Chardon,
    Cretois and Hourseau, Skin color typology and suntanning pathways, 1991), is defined for a colorimeter. Light and
    white balance of a dermatoscope move it by more than a band, so compare images of one source, and do not trust a
    single value. Under bluish light there is none: in 37 % of 500 images of HAM10000. It is not Fitzpatrick's skin
    type. Limits: Kinyanjui et al., Estimating skin tone and effects on classification performance in dermatology
    datasets, 2019; Bevan and Atapour-Abarghouei, Detecting melanoma fairly, 2022.

    >>> from isicvision import PROJECT_ROOT
    >>> sample = ImageDataset.from_csv(PROJECT_ROOT / "sample_data/metadata.csv", label_column="diagnosis_1")
    >>> estimate_tone(sample.sample(2)).table.columns[-2:].tolist()
    ['ita', 'skin_tone']
    """
    angles = map_threads(
        lambda path: ita(np.asarray(frame(path, SIDE)[0])), dataset.paths, progress="skin tone"
    )
    return replace(dataset, table=dataset.table.assign(ita=angles, skin_tone=tone(angles)))


def ita(image: np.ndarray) -> float:
    """Measure the typology angle of the skin in an RGB image of uint8: -90 to 90 degrees, higher for lighter skin.

    NaN if less than `LEAST` of the image is skin, or if its median color is not yellowish, as under bluish light.

    >>> round(ita(np.full((90, 120, 3), [230, 190, 160], np.uint8)))
    55
    """
    skin = image[skin_mask(image)]
    if len(skin) < LEAST * image.shape[0] * image.shape[1]:
        return float("nan")
    lab = cv2.cvtColor(skin[None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]
    lightness, _, yellow = np.median(lab, axis=0)
    return float(np.degrees(np.arctan((lightness - 50) / yellow))) if yellow > 0 else float("nan")


def tone(angles: ArrayLike) -> pd.Categorical:
    """Return the tone of each typology angle: names in `BANDS`, ordered from light to dark; none for NaN.

    >>> tone([60, 0]).tolist()
    ['very light', 'brown']
    """
    names = [*BANDS]
    edges = [-np.inf, *list(BANDS.values())[-2::-1], np.inf]
    found = pd.cut(np.asarray(angles, dtype=float), edges, labels=names[::-1])
    return pd.Categorical(found, categories=names, ordered=True)


def lesion_mask(image: np.ndarray) -> np.ndarray:
    """Find the lesion, with a small margin, in an RGB image of uint8: array of bool, shape (height, width).

    The most central region that is dark in the blue channel, by Otsu's threshold after a median filter against hair
    (Celebi et al., Lesion border detection in dermoscopy images using ensembles of thresholding methods, 2013, compare
    such thresholds). If it is smaller than `SMALLEST` or larger than `LARGEST` of the view, a central ellipse replaces
    it. Pale lesions on freckled or hairy skin are often missed.

    >>> image = np.full((90, 120, 3), 200, np.uint8)
    >>> image[40:50, 55:65] = 80
    >>> bool(lesion_mask(image)[45, 60]), bool(lesion_mask(image)[5, 5])
    (True, False)
    """
    small = _reduced(image)
    seen = _view(small)
    found = _darkest_middle(cv2.medianBlur(np.ascontiguousarray(small[..., 2]), 9), seen)
    if not SMALLEST * seen.sum() < found.sum() < LARGEST * seen.sum():
        rows, columns = (np.linspace(-1, 1, side) for side in found.shape)
        found = np.hypot(rows[:, None], columns) <= 2 * ELLIPSE
    return _enlarged(_grown(found, 0.04), image.shape)


def skin_mask(image: np.ndarray) -> np.ndarray:
    """Find the skin: neither the lesion with a margin, nor dark corners, glare or paper; see `lesion_mask`.

    Hair and rulers are included; a median ignores them.

    >>> bool(skin_mask(np.zeros((90, 120, 3), np.uint8)).any())
    False
    """
    small = _reduced(image)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    away = _grown(_reduced(lesion_mask(image).astype(np.uint8)) > 0, 0.04)
    plain = _view(small) & ~away & (gray > NEAR_BLACK) & (gray < NEAR_WHITE)
    return _enlarged(plain, image.shape)


def _darkest_middle(channel, seen):
    """Return the most central dark region, without holes: array of bool."""
    if not seen.any():
        return seen
    threshold, _ = cv2.threshold(channel[seen], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = ((channel <= threshold) & seen).astype(np.uint8)
    count, numbers = cv2.connectedComponents(dark)
    rows, columns = (np.linspace(-1, 1, side) for side in dark.shape)
    near = np.exp(-4 * (rows[:, None] ** 2 + columns**2))
    weights = np.bincount(numbers.ravel(), near.ravel(), count)
    weights[0] = 0
    best = (numbers == weights.argmax()) & (dark > 0)
    outlines, _ = cv2.findContours(best.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(dark), outlines, -1, 1, cv2.FILLED) > 0


def _view(image):
    """Leave out the dark regions that reach into a corner: around a dermatoscope's round view, or a bar."""
    gray = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5)
    _, numbers = cv2.connectedComponents((gray < NEAR_BLACK).astype(np.uint8))
    corners = numbers[[0, 0, -1, -1], [0, -1, 0, -1]]
    return ~_grown(np.isin(numbers, corners[corners > 0]), 0.04)


def _grown(mask, share):
    """Widen a mask by a share of the longer side."""
    width = 2 * round(share * max(mask.shape)) + 1
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0


def _reduced(image):
    height, width = image.shape[:2]
    scale = REGION_SIDE / max(height, width)
    size = [max(1, round(scale * side)) for side in (width, height)]
    method = cv2.INTER_AREA if image.ndim == 3 and scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(image, size, interpolation=method)


def _enlarged(mask, shape):
    return cv2.resize(mask.astype(np.uint8), shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
