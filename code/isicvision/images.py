"""Decode images, once and in one way: for training, prediction, plots and the web service.

The only place that decodes. It needs nothing but numpy and Pillow, because every service bundle carries a
copy of this very file: one definition of preprocessing, not two.
"""

import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image

try:
    from .errors import IsicVisionError
except ImportError:  # the copy in a bundle stands alone

    class IsicVisionError(Exception):  # type: ignore[no-redef]
        """Base of `ImageError`."""


FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".tif", ".tiff", ".bmp", ".webp")
MAX_PIXELS = 120_000_000
"""Larger images are refused before they are decoded: 120 megapixels take 360 MB of memory as RGB."""

ORIENTATION = ExifTags.Base.Orientation
_UPRIGHT = dict(
    zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True)  # by orientation
)
# of TIFF: what says how the pixels lie in the file, and no more
_TIFF_TAGS = {254, 255, 262, 266, 273, 284, 292, 293, 317, 320, 338, 339, 347}
_TIFF_TAGS.update(range(256, 260), range(277, 280), range(322, 326), range(529, 533))


class ImageError(IsicVisionError, ValueError):
    """Raised for an image that cannot be read; the message names it and says why."""


class _DamagedError(ImageError):
    """Pillow cannot make sense of the bytes."""


def _name(source):
    return str(source) if isinstance(source, (str, Path)) else "the image"


def _open(source, name):
    """Read the header of `source` (path, bytes or file object); return the lazy Pillow image."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    try:
        # Pillow may warn of a large image here; catch_warnings would silence it, but is not safe in threads
        image = Image.open(source, formats=FORMATS)
        frames = getattr(image, "n_frames", 1)
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: more than {MAX_PIXELS:,} pixels") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's parsers raise many kinds on damaged headers
        if getattr(error, "errno", None):  # of the system: no permission, a folder, too many open files
            raise ImageError(f"{name}: cannot be read ({error.strerror})") from error
        raise _DamagedError(f"{name}: not an image ({', '.join(FORMATS)} can be read)") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{name}: {image.width}x{image.height} is more than {MAX_PIXELS:,} pixels")
    if frames > 1 and image.format != "MPO":  # MPO: a camera's JPEG with a preview behind
        raise ImageError(f"{name}: an animation or a stack of {frames} images; save the one you mean")
    return image


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
    """Decode one image to RGB, upright, as an array.

    With `size`, the shorter side is resized to it (with antialiasing) and the center square is cut out; JPEGs
    are then decoded at a reduced scale of at least twice `size`, which costs no visible detail and saves most
    of the time on camera-size files.

    Parameters
    ----------
    source
        JPEG, PNG, TIFF, BMP or WebP.
    size
        Side of the square, in pixels; the whole image at its own size if not given.
    interpolation : "bilinear" or "bicubic"
        Of the resizing.
    min_side
        Images with a shorter side, in pixels, are refused.

    Returns
    -------
    numpy.ndarray of uint8, shape (size, size, 3) or (height, width, 3)

    Raises
    ------
    ImageError
        If it is not an image, truncated, an animation, smaller than `min_side`, or larger than `MAX_PIXELS`.
    ValueError
        If there is no such `interpolation`.
    """
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation is 'bilinear' or 'bicubic', not {interpolation!r}")
    image, ((width, height), _) = _load(source, size)
    if min(width, height) < min_side:
        few = f"{width}x{height} pixels are too few, each side needs {min_side} or more"
        raise ImageError(f"{_name(source)}: {few}")
    if size:
        width, height = image.size
        left, top = max(0, (width - height) / 2), max(0, (height - width) / 2)
        method = Image.Resampling[interpolation.upper()]
        image = image.resize((size, size), method, box=(left, top, width - left, height - top))
    return np.asarray(image)


def frame(
    source: str | os.PathLike | bytes | BinaryIO, max_side: int
) -> tuple[Image.Image, tuple[int, int], str]:
    """Decode the whole image to RGB, upright, with its longer side reduced to at most `max_side` pixels.

    JPEGs are decoded at a reduced scale where that serves, so this is also the quick way to see whether a file is
    sound: all of its data are read. Smaller images stay as they are. Returns the image, its own (width, height),
    upright, and its format (of `FORMATS`); raises ImageError as `decode` does.
    """
    image, about = _load(source, max_side)
    scale = max_side / max(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
    return image, *about


def orientation(image: Image.Image) -> int:
    """Read the EXIF orientation of a Pillow image: 1 to 8, and 1 where it is absent, damaged or none of these."""
    try:
        found = image.getexif().get(ORIENTATION)
        return found if found in _UPRIGHT else 1
    except Exception:  # notes may be damaged in any way
        return 1


def upright(image: Image.Image) -> Image.Image:
    """Turn a Pillow image as its orientation says; its notes stay as they are.

    `ImageOps.exif_transpose` writes them anew, and fails on damaged ones.
    """
    turn = _UPRIGHT.get(orientation(image))
    return image if turn is None else image.transpose(turn)


def _load(source, side=None):
    """Decode to an upright RGB Pillow image, no side below 2 * `side` by reduction; tell the full size and format.

    A file that Pillow gives up on is tried once more without its notes: a damaged comment spoils no pixel.
    """
    name = _name(source)
    try:
        return _load_pixels(source, side, name)
    except _DamagedError as damage:
        bare = _bare(source)
        with suppress(_DamagedError):
            if bare is not None:
                return _load_pixels(bare, side, name)
        raise ImageError(str(damage)) from damage.__cause__


def _load_pixels(source, side, name):
    image = _open(source, name)
    try:
        with image:
            kind, size = image.format, image.size
            if side:
                image.draft("RGB", (2 * side, 2 * side))  # a no-op for all but JPEG
            image.load()
            if orientation(image) > 4:
                size = size[::-1]
            return _to_rgb(upright(image)), (size, kind)
    except MemoryError:  # says nothing about the image
        raise
    except Exception as error:  # as above: truncated data raises OSError, SyntaxError, struct.error, …
        raise _DamagedError(f"{name}: cannot be decoded, damaged or cut short? ({error})") from error


def _bare(source):
    """Return the file without what its pixels do not need, None if it is of no kind that this can be done to."""
    try:
        if isinstance(source, (str, os.PathLike)):
            data = Path(source).read_bytes()
        elif hasattr(source, "read"):
            source.seek(0)
            data = source.read()
        else:
            data = bytes(source)
    except OSError:
        return None
    kinds = {b"\x89PNG": _bare_png, b"\xff\xd8\xff": _bare_jpeg, b"II*\0": _bare_tiff, b"MM\0*": _bare_tiff}
    return next((strip(data) for start, strip in kinds.items() if data.startswith(start)), None)


def _bare_png(data):
    """Keep the chunks that make pixels, and an orientation that came whole."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        kind, sum_ = data[place + 4 : place + 8], data[end - 4 : end]
        is_whole = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) == sum_
        if not kind[0] & 32 or (kind in (b"tRNS", b"eXIf") and is_whole):  # a capital: needed for the pixels
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _bare_jpeg(data):
    """Keep the segments that make pixels; those that say how colors are coded (JFIF, Adobe) if they are whole."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data):
        marker = re.compile(rb"\xff+([\x01-\xfe])").search(data, place)  # as libjpeg, pass over what is none
        if marker is None:
            break
        place = marker.end()
        if marker[1] == b"\xda":  # the pixels begin
            return b"".join([*kept, data[place - 2 :]])
        end = place + int.from_bytes(data[place : place + 2])
        is_note = b"\xe0" <= marker[1] <= b"\xef" or marker[1] == b"\xfe"
        if not is_note or (marker[1] in (b"\xe0", b"\xee") and end - place >= 14):
            kept.append(data[place - 2 : end])
        place = end
    return None


def _bare_tiff(data):
    """Keep the tags of the first image that make pixels, and an orientation that is a number."""
    order = "<" if data[:1] == b"I" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        tags = [data[start + 2 + 12 * number : start + 14 + 12 * number] for number in range(count)]
        kept = [tag for tag in tags if _makes_pixels(*struct.unpack_from(f"{order}HHI", tag))]
        following = data[start + 2 + 12 * count : start + 6 + 12 * count]
    except struct.error:
        return None
    table = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + following
    return data[:start] + table + data[start + len(table) :]


def _makes_pixels(tag, kind, count):
    return tag in _TIFF_TAGS or (tag == ORIENTATION and kind == 3 and count == 1)


def map_threads(function: Callable, items: Sequence, progress: str | None = None) -> list:
    """Apply `function` to `items` in as many threads as there are cores (Pillow decodes without the GIL)."""
    if len(items) == 1:  # a thread for it would cost the service a tenth of its time
        return [function(items[0])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(function, items)
        if progress:
            from tqdm.auto import tqdm  # not in the service's environment

            results = tqdm(results, total=len(items), desc=progress, unit="image", leave=False, delay=2)
        return list(results)
