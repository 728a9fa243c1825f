"""Find lesion and skin in a dermoscopic image, not accurately enough to measure them, and estimate the skin tone."""

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
MARGIN, LEAST = 0.04, 0.02
"""The lesion's margin, as a share of the longer side; the share of the image that must be skin for an angle."""
SMALLEST, LARGEST, FAINT = 0.01, 0.65, 0.15
"""The lesion's least share of the view; its largest, unless it is darker than the skin by the third share."""
BEGINS, GAP, DIM = 0.45, 0.2, 80
"""Where the lesion begins from the skin's color (0) to that of what is dark (1); the gap that it bridges, as a share of
the root of its area; green tells it from the skin where blue is darker than the third."""
CLOSING, OPENING = (cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)) for side in (9, 5))
ELLIPSE = 0.35
"""Half axes, as a share of the sides, of the ellipse that stands for a lesion that was not found."""


def estimate_tone(dataset: ImageDataset) -> ImageDataset:
    """Add the columns ``ita``, in degrees or NaN, and ``skin_tone``, with ordered categories: the names in `BANDS`.

    ITA = arctan((L* - 50) / b*) of the median color of the skin around the lesion, in CIELAB under D65 (Chardon,
    Cretois and Hourseau, Skin color typology and suntanning pathways, 1991), is defined for a colorimeter. Light and
    white balance of a dermatoscope move it by more than a band, so compare images of one source, and do not trust a
    single value. Under bluish light there is none: in 39 % of 500 images of HAM10000. It is not Fitzpatrick's skin
    type. Limits: Kinyanjui et al., Estimating skin tone and effects on classification performance in dermatology
    datasets, 2019; Bevan and Atapour-Abarghouei, Detecting melanoma fairly, 2022.

    >>> from isicvision import SAMPLE_DATA
    >>> sample = ImageDataset.from_csv(SAMPLE_DATA / "metadata.csv", label_column="diagnosis_1")
    >>> estimate_tone(sample.sample(2)).table.columns[-2:].tolist()
    ['ita', 'skin_tone']
    """
    angles = map_threads(lambda path: ita(np.asarray(frame(path, SIDE)[0])), dataset.paths, "skin tone")
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

    The most central region that is darker than the skin in the blue channel, without hair, and those near it, because
    melanomas are patchy, in one convex outline; else a central ellipse. Often too large on freckled or unevenly lit
    skin. tests/bench/bench_mask.py compares it with outlines that physicians drew (Mendonça et al., PH2, a dermoscopic
    image database for research and benchmarking, 2013).

    >>> image = np.full((90, 120, 3), 200, np.uint8)
    >>> image[40:50, 55:65] = 80
    >>> bool(lesion_mask(image)[45, 60]), bool(lesion_mask(image)[5, 5])
    (True, False)
    """
    return _enlarged(_grown(_lesion(_reduced(image)), MARGIN), image.shape)


def skin_mask(image: np.ndarray) -> np.ndarray:
    """Find the skin: neither the lesion with a margin, nor dark corners, glare or paper; see `lesion_mask`.

    Hair and rulers are included; a median ignores them.

    >>> bool(skin_mask(np.zeros((90, 120, 3), np.uint8)).any())
    False
    """
    small = _reduced(image)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    away = _grown(_lesion(small), 2 * MARGIN)
    plain = _view(small) & ~away & (gray > NEAR_BLACK) & (gray < NEAR_WHITE)
    return _enlarged(plain, image.shape)


def _lesion(image):
    """Find the lesion in a reduced image, without a margin: array of bool."""
    seen, squared = _view(image), _squared_radius(image.shape[:2])
    found, limit = seen, LARGEST
    if seen.any():
        hairless = cv2.medianBlur(cv2.morphologyEx(image, cv2.MORPH_CLOSE, CLOSING), 5)
        channel = 1 if np.percentile(hairless[seen, 2], 75) < DIM else 2
        light, lit = np.log1p(hairless[..., channel].astype(np.float32)), seen
        for _ in range(3):  # light falls off from the center, never to it: lesions are dark in the middle
            slope, base = np.polyfit(squared[lit], light[lit], 1)
            lit = seen & (light > base + slope * squared - 0.1)
        channel = np.clip(np.expm1(light - min(slope, 0) * squared), 0, 255).astype(np.uint8)
        threshold, _ = cv2.threshold(channel[seen], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        parts = (channel[seen & side] for side in (channel <= threshold, channel > threshold))
        dark, skin = (np.median(part) if len(part) else 0 for part in parts)
        found = _outline(seen & (channel <= skin - BEGINS * (skin - dark)))  # Otsu's lies within a melanoma
        limit = LARGEST if skin - dark < FAINT * skin else 2
    is_lesion = SMALLEST * seen.sum() < found.sum() < limit * seen.sum()
    return found if is_lesion else squared <= (2 * ELLIPSE) ** 2


def _outline(dark):
    """Return the convex hull of the most central dark region and those near it: array of bool."""
    opened = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, OPENING)
    count, numbers = cv2.connectedComponents(opened)
    if count == 1:
        return numbers > 0
    near = np.exp(-4 * _squared_radius(dark.shape)) * (numbers > 0)
    central = numbers == np.bincount(numbers.ravel(), near.ravel(), count).argmax()
    reach = _grown(central, GAP * np.sqrt(central.sum()) / max(dark.shape))
    places = np.argwhere(np.isin(numbers, numbers[reach & (numbers > 0)]))[:, ::-1]
    hull = cv2.convexHull(places.astype(np.int32))
    return cv2.fillConvexPoly(np.zeros(dark.shape, np.uint8), hull, 1) > 0


def _view(image):
    """Leave out the dark regions that reach into a corner: around a dermatoscope's round view, or a bar."""
    gray = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5)
    _, numbers = cv2.connectedComponents((gray < NEAR_BLACK).astype(np.uint8))
    corners = numbers[[0, 0, -1, -1], [0, -1, 0, -1]]
    return ~_grown(np.isin(numbers, corners[corners > 0]), 0.04)


def _squared_radius(shape):
    """Return the squared distance of each pixel from the center, in units of half the sides."""
    rows, columns = (np.linspace(-1, 1, side) for side in shape)
    return rows[:, None] ** 2 + columns**2


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
