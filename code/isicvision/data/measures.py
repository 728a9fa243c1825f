"""Measure an image without interpreting it: size, color, sharpness, and what reveals its source."""

import hashlib
import os
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageStat

from ..images import ImageError, content, frame

SIDE = 256
"""Images are measured with the longer side at this many pixels, so that images of any size are comparable."""
NEAR_BLACK, NEAR_WHITE = 40, 245
PLAIN = 4.0
"""Standard deviation of gray levels below which a line is plain."""
REGULAR = 0.5
"""42 of 7,006 images of HAM10000, at 200x150, reach it. About three of four show a ruler; many rulers are missed."""


def measure(path: str | os.PathLike) -> dict:
    """Read and decode one image once, and return a value for each of `fields.MEASURES`, in their units.

    ``sharpness`` is the variance of the Laplacian (Pech-Pacheco et al., *Diatom autofocusing in brightfield
    microscopy*, ICPR 2000), ``phash`` ImageHash's, of 8 x 8 bits. Raises ImageError, which names the file.

    >>> Image.new("RGB", (300, 200), (0, 0, 255)).save("blue.png")
    >>> measure("blue.png")["blue"]
    255.0
    """
    import cv2  # slow to import, as are SciPy and imagehash
    import imagehash

    try:
        data = content(path)
        image, (width, height), kind = frame(data, SIDE)
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except ImageError as error:
        raise ImageError(str(error).replace("the image", str(path), 1)) from error
    gray_image = image.convert("L")
    scale = SIDE / max(gray_image.size)
    if scale > 1:
        gray_image = gray_image.resize([max(1, round(side * scale)) for side in gray_image.size])
    gray = np.asarray(gray_image, np.float32)
    red, green, blue = image.split()
    spread = [np.asarray(ImageChops.difference(*pair)).max() for pair in ((red, green), (green, blue))]
    return {
        "width": width,
        "height": height,
        "bytes": len(data),
        "format": kind,
        "gray": bool(max(spread) <= 8),  # JPEG may tint a gray pixel by a few levels
        "brightness": float(gray.mean()),
        "contrast": float(gray.std()),
        "saturation": ImageStat.Stat(image.convert("HSV").getchannel("S")).mean[0],
        **dict(zip(("red", "green", "blue"), ImageStat.Stat(image).mean, strict=True)),
        "sharpness": float(cv2.Laplacian(gray, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE).var()),
        "dark_corners": float((gray[_corners(gray.shape)] < NEAR_BLACK).mean()),
        "border": _border(gray),
        **dict(zip(("edge_red", "edge_green", "edge_blue"), _edge(image), strict=True)),
        "ruler": _ruler(np.asarray(red.resize(gray_image.size), np.float32)),
        "sha256": hashlib.sha256(data).hexdigest(),
        "phash": str(imagehash.phash(gray_image)),
    }


@lru_cache(64)
def _corners(shape):
    """Mark the corners: pixels farther from the center than nine tenths of the diagonal."""
    rows, columns = (np.linspace(-1, 1, side) if side > 1 else np.ones(1) for side in shape)
    return np.hypot(rows[:, None], columns) >= 0.9 * np.sqrt(2)


def _edge(image):
    """Return the mean color along the edge, where there is more skin than lesion."""
    inner = Image.new("L", image.size, 255)
    width, height = image.size
    inner.paste(0, (width // 8, height // 8, width - width // 8, height - height // 8))
    return ImageStat.Stat(image, inner).mean


def _border(gray):
    """Return the share of plain lines at the sides, nearly black or white: smooth skin is plain too."""
    inner = 1.0
    for axis in (0, 1):
        lines = gray.mean(axis=1 - axis)
        plain = (gray.std(axis=1 - axis) < PLAIN) & ((lines < NEAR_BLACK) | (lines > NEAR_WHITE))
        first, last = np.argmin(plain), np.argmin(plain[::-1])
        inner *= 0.0 if plain.all() else 1 - (first + last) / len(plain)
    return float(1 - inner)


def _ruler(red):
    """Return how strongly dark marks repeat, at one to three times a distance, in strips along the edges."""
    from scipy.ndimage import uniform_filter1d

    best = 0.0
    for side in range(4):
        strip = np.rot90(red, side)
        depth, band = strip.shape[0] // 4, max(2, strip.shape[0] // 24)
        if depth < band or strip.shape[1] < 64:
            continue
        lines = strip[: depth // band * band].reshape(-1, band, strip.shape[1]).mean(axis=1)
        marks = np.maximum(uniform_filter1d(lines, 15) - lines, 0)[:, 8:-8]
        marks -= marks.mean(axis=1, keepdims=True)
        length = marks.shape[1]
        power = np.abs(np.fft.rfft(marks, 2 * length, axis=1)) ** 2
        correlation = np.fft.irfft(power, axis=1)[:, :length] / np.arange(length, 0, -1)
        variance = correlation[:, :1]
        correlation = np.where(variance > 1, correlation / np.maximum(variance, 1e-9), 0)
        lags = np.arange(4, min(32, length // 4))
        repeated = np.minimum.reduce([correlation[:, n * lags] for n in (1, 2, 3)])
        best = max(best, float(repeated.max(initial=0)))
    return min(best, 1.0) if best >= REGULAR else 0.0
