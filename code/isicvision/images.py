"""The only decoder of images: for training, prediction, plots and the web service, whose bundle has a copy."""

import base64
import io
import os
import re
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

try:
    from . import dicom
    from .errors import IsicVisionError
except ImportError:  # the copy in a bundle
    import dicom  # type: ignore[no-redef]

    class IsicVisionError(Exception):  # type: ignore[no-redef]
        """The base of ImageError."""


FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "DICOM")
EXTENSIONS = tuple(".jpg .jpeg .jpe .jfif .jif .png .tif .tiff .bmp .webp .dcm .dicom".split())
MAX_PIXELS = 120_000_000
"""Larger images are refused before they are decoded: as RGB, they take 360 MB of memory."""
ORIENTATION = ExifTags.Base.Orientation
_TURNS = dict(zip(range(2, 9), map(Image.Transpose, (0, 3, 1, 5, 4, 6, 2)), strict=True))


class ImageError(IsicVisionError, ValueError):
    """Raised for an image that cannot be read; the message names it and gives the reason."""


class _DamagedError(ImageError):
    pass


def decode(
    source: str | os.PathLike | bytes,
    size: int | None = None,
    interpolation: str = "bilinear",
    min_side: int = 1,
) -> np.ndarray:
    """Decode a JPEG, PNG, TIFF, BMP, WebP or DICOM to RGB, upright: uint8 array of shape (height, width, 3).

    With `size`, the shorter side is resized to so many pixels, with antialiasing, "bilinear" or "bicubic", and the
    center square cut out. JPEGs are then decoded at a reduced scale, at least twice `size`: much faster for camera
    images, without visible loss. ImageError if it is not an image, is damaged, an animation, larger than `MAX_PIXELS`,
    or has a side shorter than `min_side` pixels.

    >>> from isicvision import SAMPLE_DATA
    >>> decode(SAMPLE_DATA / "images/ISIC_9900259.jpg", size=224).shape
    (224, 224, 3)
    """
    if interpolation not in ("bilinear", "bicubic"):
        raise ValueError(f"interpolation must be 'bilinear' or 'bicubic', not {interpolation!r}")
    image, _, _ = _load(source, size, min_side)
    if size:
        width, height = image.size
        left, top = max(0, (width - height) / 2), max(0, (height - width) / 2)
        method = Image.Resampling[interpolation.upper()]
        image = image.resize((size, size), method, box=(left, top, width - left, height - top))
    return np.asarray(image)


def frame(source: str | os.PathLike | bytes, max_side: int) -> tuple[Image.Image, tuple[int, int], str]:
    """Decode the whole image to RGB, upright, with its longer side reduced to at most `max_side` pixels.

    Returns the image, its full (width, height), upright, and its format, one of `FORMATS`. This is also the quick
    check of a file: it reads all data, but decodes JPEGs at a reduced scale. ImageError as `decode` raises it.

    >>> from isicvision import SAMPLE_DATA
    >>> frame(SAMPLE_DATA / "images/ISIC_9900259.jpg", 100)[1:]
    ((600, 450), 'JPEG')
    """
    image, size, kind = _load(source, max_side)
    scale = max_side / max(image.size)
    if scale < 1:
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BILINEAR)
    return image, size, kind


def upright(image: Image.Image) -> Image.Image:
    """Turn a Pillow image by its EXIF orientation. Unlike `ImageOps.exif_transpose` this ignores damaged EXIF."""
    orientation = _orientation(image)
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def content(source: str | os.PathLike | bytes | bytearray) -> bytes:
    """Return the bytes of a file, in whose path ``~`` is your home, or those that are given."""
    if isinstance(source, bytes | bytearray):
        return bytes(source)
    return Path(os.path.expanduser(source)).read_bytes()


def data_url(image: Image.Image, quality: int = 85) -> str:
    """Return an image as a JPEG in a ``data:`` URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def map_threads(function: Callable, items: Sequence, progress: str | None = None) -> list:
    """Apply `function` to `items` in one thread per core: Pillow decodes without the GIL."""
    if len(items) == 1:  # starting a thread would cost the service a tenth of its time
        return [function(items[0])]
    if progress:
        from tqdm.contrib.concurrent import thread_map  # not in the service's environment

        options = {"max_workers": os.cpu_count(), "unit": "image", "leave": False, "delay": 2}
        return thread_map(function, items, desc=progress, **options)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, items))


def _load(source, side, min_side=1):
    """Decode to upright RGB, with JPEGs reduced to no side below 2 * `side`: the image, its full size, its format.

    A file that Pillow cannot decode is tried once more without its metadata: a damaged comment spoils no pixel.
    """
    try:
        data = content(source)
        if is_dicom := data[128:132] == b"DICM":
            data = dicom.content(data, MAX_PIXELS)
        formats = ("JPEG", "JPEG2000") if is_dicom else FORMATS[:-1]
        try:
            image, size, kind = _decode(data, side, formats)
        except _DamagedError:
            bare = next((strip(data) for start, strip in _BARE.items() if data.startswith(start)), None)
            if bare is None:
                raise
            image, size, kind = _decode(bare, side, formats)
        if min(size) < min_side:
            raise ImageError(f"it has {size[0]}x{size[1]} pixels, each side needs {min_side} or more")
    except (ValueError, OSError) as error:
        name = str(source) if isinstance(source, (str, Path)) else "the image"
        reason = f"it cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        raise ImageError(f"{name}: {reason}") from error
    return image, size, "DICOM" if is_dicom else kind


def _decode(data, side, formats):
    try:
        # Pillow may warn of a large image here; catch_warnings would silence it, but is not thread-safe
        image = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data), formats=formats)
        kind, size, frames = image.format, image.size, getattr(image, "n_frames", 1)
        if image.width * image.height > MAX_PIXELS:
            raise ImageError(f"it has {image.width}x{image.height} pixels, more than {MAX_PIXELS:,} pixels")
        if not isinstance(data, Image.Image) and image.width * image.height > 10**6 + 1000 * len(data):
            raise ImageError(f"it is damaged: {len(data):,} bytes cannot hold {size[0]}x{size[1]} pixels")
        if frames > 1 and kind != "MPO":  # MPO: a camera's JPEG with a preview behind it
            raise ImageError(f"it is an animation or a stack of {frames} images: save the one you mean")
        if image.mode in ("I", "F"):
            raise ImageError("it has 32 bits per pixel, whose white is unknown: save it with 8 or 16 bits")
        if side:
            image.draft("RGB", (2 * side, 2 * side))  # reduces JPEGs only
        image.load()
        return _to_rgb(upright(image)), size[::-1] if _orientation(image) > 4 else size, kind
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"it has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError as error:
        raise _DamagedError(f"it is not an image ({', '.join(FORMATS)} can be read)") from error
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise _DamagedError(f"it is damaged or cut short ({error})") from error


def _orientation(image):
    """Return the EXIF orientation: 1 to 8; 1 if it is absent, damaged or undefined."""
    try:
        found = image.getexif().get(ORIENTATION)
        return found if found in _TURNS else 1
    except Exception:  # of damaged EXIF Pillow raises struct.error, SyntaxError, TypeError and others
        return 1


def _to_rgb(image):
    """Turn any Pillow mode into 8-bit RGB: 16 bits are scaled, transparency is laid on white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _bare_png(data):
    """Keep the chunks that make pixels, and an undamaged orientation."""
    kept, place = [data[:8]], 8
    while place + 12 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4])
        kind = data[place + 4 : place + 8]
        is_note = kind[0] & 32  # its name begins with a small letter
        is_whole = zlib.crc32(data[place + 4 : end - 4]).to_bytes(4) == data[end - 4 : end]
        if not is_note or (kind in (b"tRNS", b"eXIf") and is_whole):
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _bare_jpeg(data):
    """Keep the segments that make pixels; JFIF and Adobe, which say how colors are coded, if they are whole."""
    kept, place = [data[:2]], 2
    while marker := re.compile(rb"\xff+([\x01-\xfe])").search(data, place):  # like libjpeg, skip other bytes
        place = marker.end()
        if marker[1] == b"\xda":  # the pixels begin
            return b"".join([*kept, data[place - 2 :]])
        end = place + int.from_bytes(data[place : place + 2])
        is_note = b"\xe0" <= marker[1] <= b"\xef" or marker[1] == b"\xfe"
        if not is_note or (marker[1] in (b"\xe0", b"\xee") and end - place >= 14):
            kept.append(data[place - 2 : end])
        place = end
    return None


# what strips a file of its metadata, by the file's first bytes
_BARE = {b"\x89PNG": _bare_png, b"\xff\xd8\xff": _bare_jpeg}
