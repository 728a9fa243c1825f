"""Decode pictures, once and in one way: for training, prediction, plots and the web service.

The only place that decodes. It needs nothing but numpy and Pillow, because every service bundle carries a
copy of this very file: one definition of preprocessing, not two.
"""

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageOps

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 120_000_000
"""Larger pictures are refused before they are decoded: 120 megapixels take 360 MB of memory as RGB."""

ORIENTATION = ExifTags.Base.Orientation


class PictureError(ValueError):
    """A picture that cannot be read; the message says which one and why."""


def _name(source):
    return str(source) if isinstance(source, (str, Path)) else "the picture"


def _open(source):
    """Read the header of `source` (path, bytes or file object); return its name and the lazy Pillow image."""
    name = _name(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    try:
        # Pillow may warn of a large picture here; catch_warnings would silence it, but is not safe in threads
        image = Image.open(source, formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name}: more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
        if getattr(error, "errno", None):  # of the system: no permission, a folder, too many open files
            raise PictureError(f"{name}: cannot be read ({error.strerror})") from error
        raise PictureError(f"{name}: not a picture ({', '.join(FORMATS)} can be read)") from error
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(f"{name}: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview behind
        raise PictureError(f"{name}: an animation or a stack of {frames} pictures; save the one you mean")
    return name, image


def _to_rgb(image):
    """Turn any Pillow mode into 8-bit RGB: 16-bit is scaled, transparency is laid on white."""
    if image.mode in ("I", "F"):
        raise ValueError("32 bits per pixel, whose white is unknown; save it with 8 or 16")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def decode(
    source: str | os.PathLike | bytes | BinaryIO,
    size: int | None = None,
    interpolation: str = "bilinear",
    min_side: int = 1,
) -> np.ndarray:
    """Decode one picture to RGB, upright, as an array.

    With `size`, the shorter side is resized to it (with antialiasing) and the centre square is cut out; JPEGs
    are then decoded at a reduced scale of at least twice `size`, which costs no visible detail and saves most
    of the time on camera-size files.

    Parameters
    ----------
    source
        JPEG, PNG, TIFF, BMP or WebP.
    size
        Side of the square, in pixels; the whole picture at its own size if not given.
    interpolation : "bilinear" or "bicubic"
        Of the resizing.
    min_side
        Pictures with a shorter side, in pixels, are refused.

    Returns
    -------
    numpy.ndarray of uint8, shape (size, size, 3) or (height, width, 3)

    Raises
    ------
    PictureError
        If it is not a picture, truncated, an animation, smaller than `min_side`, or larger than `MAX_PIXELS`.
    ValueError
        If there is no such `interpolation`.
    """
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation is 'bilinear' or 'bicubic', not {interpolation!r}")
    image, ((width, height), _) = _load(source, size)
    if min(width, height) < min_side:
        few = f"{width}x{height} pixels are too few, each side needs {min_side} or more"
        raise PictureError(f"{_name(source)}: {few}")
    if size:
        width, height = image.size
        left, top = max(0, (width - height) / 2), max(0, (height - width) / 2)
        method = Image.Resampling[interpolation.upper()]
        image = image.resize((size, size), method, box=(left, top, width - left, height - top))
    return np.asarray(image)


def frame(
    source: str | os.PathLike | bytes | BinaryIO, max_side: int
) -> tuple[Image.Image, tuple[int, int], str]:
    """Decode the whole picture to RGB, upright, with its longer side reduced to at most `max_side` pixels.

    JPEGs are decoded at a reduced scale where that serves, so this is also the quick way to see whether a file is
    sound: all of its data are read. Smaller pictures stay as they are. Returns the picture, its own (width, height),
    upright, and its format (of `FORMATS`); raises PictureError as `decode` does.
    """
    image, about = _load(source, max_side)
    scale = max_side / max(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
    return image, *about


def _load(source, side=None):
    """Decode to an upright RGB Pillow image, no side below 2 * `side` by reduction; tell the full size and format."""
    name, image = _open(source)
    try:
        with image:
            kind, size = image.format, image.size
            if side:
                image.draft("RGB", (2 * side, 2 * side))  # a no-op for all but JPEG
            image.load()
            if image.getexif().get(ORIENTATION, 1) > 4:
                size = size[::-1]
            return _to_rgb(ImageOps.exif_transpose(image)), (size, kind)
    except MemoryError:  # says nothing about the picture
        raise
    except Exception as error:  # as above: truncated data raises OSError, SyntaxError, struct.error, …
        raise PictureError(f"{name}: cannot be decoded, damaged or cut short? ({error})") from error


def map_threads(function: Callable, items: Sequence, progress: str | None = None) -> list:
    """Apply `function` to `items` in as many threads as there are cores (Pillow decodes without the GIL)."""
    if len(items) == 1:  # a thread for it would cost the service a tenth of its time
        return [function(items[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        if progress:
            from tqdm.auto import tqdm  # not in the service's environment

            results = tqdm(results, total=len(items), desc=progress, unit="picture", leave=False, delay=2)
        return list(results)
