"""Where in a dermoscopic image the lesion is, and where the skin: simple, quick, and right most of the time."""

import cv2
import numpy as np

SIDE = 128
"""Regions are found with the longer side at this many pixels."""
NEAR_BLACK, NEAR_WHITE = 40, 245
"""Gray levels of the dark corners of a round view, and of glare or paper."""
SMALLEST, LARGEST = 0.01, 0.65
"""Shares of the view between which a dark region is taken for the lesion."""
ELLIPSE = 0.35
"""Half axes of the ellipse that stands for a lesion that is not found, as a share of the sides."""


def lesion(image: np.ndarray) -> np.ndarray:
    """Find the lesion in a uint8 RGB image of shape (height, width, 3), with a small margin: a mask of bool.

    Otsu's threshold of the blue channel, in which pigment and blood are dark, after a median filter against hair
    (Celebi et al., Lesion border detection in dermoscopy images using ensembles of thresholding methods, 2013, compare
    such thresholds); of the dark regions the one with most of its area near the center. Where that has less than
    `SMALLEST` or more than `LARGEST` of the view, an ellipse in the middle stands for it. Pale lesions on freckled or
    hairy skin are missed by it: it serves to hide the lesion in most images, and measures nothing.
    """
    small = _reduced(image)
    seen = _view(small)
    found = _darkest_middle(cv2.medianBlur(np.ascontiguousarray(small[..., 2]), 9), seen)
    if not SMALLEST * seen.sum() < found.sum() < LARGEST * seen.sum():
        found = _ellipse(found.shape)
    return _enlarged(_grown(found, 0.04), image.shape)


def skin(image: np.ndarray) -> np.ndarray:
    """Find the skin: what is neither the lesion with a margin, nor dark corners, nor glare or paper.

    Hair and rulers stay in; a median leaves them out. Image and mask are as of `lesion`; nowhere is it true if there
    is no skin.
    """
    small = _reduced(image)
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    away = _grown(_reduced(lesion(image).astype(np.uint8)) > 0, 0.04)
    plain = _view(small) & ~away & (gray > NEAR_BLACK) & (gray < NEAR_WHITE)
    return _enlarged(plain, image.shape)


def _darkest_middle(channel, seen):
    """Return the dark region that is most in the middle, without holes: array of bool."""
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
    """Leave out the dark regions that reach into a corner: those of a dermatoscope's round view, or a bar."""
    gray = cv2.medianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 5)
    _, numbers = cv2.connectedComponents((gray < NEAR_BLACK).astype(np.uint8))
    corners = numbers[[0, 0, -1, -1], [0, -1, 0, -1]]
    return ~_grown(np.isin(numbers, corners[corners > 0]), 0.04)


def _ellipse(shape):
    rows, columns = (np.linspace(-1, 1, side) for side in shape)
    return np.hypot(rows[:, None], columns) <= 2 * ELLIPSE


def _grown(mask, share):
    """Widen a mask by a share of the longer side."""
    width = 2 * round(share * max(mask.shape)) + 1
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0


def _reduced(image):
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = [max(1, round(scale * side)) for side in (width, height)]
    method = cv2.INTER_AREA if image.ndim == 3 and scale < 1 else cv2.INTER_NEAREST
    return cv2.resize(image, size, interpolation=method)


def _enlarged(mask, shape):
    return cv2.resize(mask.astype(np.uint8), shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
