"""DICOM files: the image of one and, on request, columns of its header; copied into every bundle.

Not by pydicom, which the tests compare it with: that is busy for seconds with 1 MB of empty items, inflates without a
limit, and quotes the header in warnings. Here each element is looked at once, and no message quotes the file.
"""

import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

COLUMNS = ("laterality", "body_part", "acquisition_date")
MAX_ELEMENTS = 20_000  # an image has some hundred
HEADER = 2**20  # bytes that `columns` reads
_TAGS = (0x00200062, 0x00200060), (0x00180015, 0x00080104), (0x00080022, 0x0008002A)  # of a pair the first
_SIDES = {"R": "right", "L": "left", "B": "both", "U": "unpaired"}
_PART = r"[A-Z0-9_ ]{1,16}|[A-Z][a-z ,()/'-]{1,63}"  # a code or a phrase, no "Jane Doe" and no "DOE^JANE"
_KINDS = {b".4.50": "JPEG", b".4.51": "JPEG", b".4.90": "JPEG 2000", b".4.91": "JPEG 2000", b".5": "RLE"}
_KINDS |= dict.fromkeys((b"", b".1", b".1.99", b".2"), "raw")  # implicit, explicit, deflated, big-endian
_COLORS = {b"MONOCHROME2": "L", b"RGB": "RGB", b"YBR_FULL": "YCbCr", b"YBR_FULL_422": "YCbCr"}
_COLORS_2000 = (b"MONOCHROME2", b"RGB", b"YBR_ICT", b"YBR_RCT")  # the decoder turns the last two into RGB
# planar configuration, samples, rows, columns, bits allocated and stored, highest bit, sign; colors, frames
_NUMBERS = (0x00280006, 0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
_WORDS, _REGION = (0x00280004, 0x00280008), 0x00082218
_PIXELS, _END, _ALL = 0x7FE00010, 0xFFFEE0DD, 0xFFFFFFFF
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()
_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # calls a JPEG's colors RGB, unless another mark does not
_DAMAGED = "it is damaged or cut short"


def content(data: bytes, max_pixels: int) -> bytes | Image.Image:
    """Return the image in a DICOM file: a JPEG or JPEG 2000 as bytes, any other as a Pillow image, L, RGB or YCbCr.

    16 bits are scaled to 8; windows are not applied. Raises ValueError, whose message quotes nothing of the file, if
    it has no image or several, more than `max_pixels` pixels, or is stored in a way that is not read.
    """
    syntax, found = _read(data, {*_NUMBERS, *_WORDS, _PIXELS}, 3 * max_pixels + HEADER)
    numbers = (int.from_bytes(found.get(tag, b"")[:2], "little") for tag in _NUMBERS)
    planar, samples, rows, columns, bits, stored, high, signed = numbers
    colors, frames = (found.get(tag, b"").strip(b" \0") for tag in _WORDS)
    kind, mode = _KINDS.get(syntax), _COLORS.get(colors, "RGB")
    value, count = found.get(_PIXELS), rows * columns
    if not value or not count:
        raise ValueError("it is a DICOM file without an image, or cut short")
    if frames not in (b"", b"1"):
        raise ValueError("it is a stack of images: save the one you mean")
    if count > max_pixels:
        raise ValueError(f"it has more than {max_pixels:,} pixels")
    is_known = colors in (_COLORS_2000 if kind == "JPEG 2000" else _COLORS) and not signed
    if not kind or not kind.startswith("JPEG"):
        is_known &= samples == (1 if mode == "L" else 3) and high == stored - 1
    if not is_known or not 0 < stored <= bits <= (8 if kind == "JPEG" else 16) or bits % 8 or kind is None:
        raise ValueError("it is stored in a way that is not read: save it as 8-bit RGB, uncompressed or JPEG")
    try:
        if (value[:4] == b"\xfe\xff\x00\xe0") == (kind == "raw"):  # the mark of a part
            raise ValueError
        if kind != "raw":  # the parts of the image follow a table of offsets
            value = b"".join([part for _, part, _ in _walk(value, 0, _ALL)][1:])
        if kind.startswith("JPEG"):
            return value[:2] + _RGB + value[2:] if (kind, colors) == ("JPEG", b"RGB") else value
        values = _pixels(value, count, samples, planar, bits // 8, kind, colors)
        if (stored, bits) != (8, 8):
            white = 2**stored - 1
            values = ((np.arange(2**bits) & white) * (255 / white)).round().astype(np.uint8)[values]
        return Image.frombytes(mode, (columns, rows), values.tobytes())
    except (ValueError, struct.error):  # too few bytes
        raise ValueError(_DAMAGED) from None


def columns(paths: Sequence[str | os.PathLike], names: Sequence[str] = COLUMNS[:2]) -> Any:
    """Return columns of the headers of DICOM files, `names` out of `COLUMNS`: DataFrame, its index the paths.

    ``laterality`` is left, right, both or unpaired, ``body_part`` the body part examined or else the name of the
    anatomic region, ``acquisition_date`` datetime64. What is not given, as in other files, is missing. Nothing else of
    a header is read out. Raises OSError if a file cannot be read, KeyError if a name is not in `COLUMNS`.

    >>> from isicvision import SAMPLE_DATA
    >>> columns([SAMPLE_DATA / "images/ISIC_9900259.jpg"])["laterality"].isna().tolist()
    [True]
    """
    import pandas as pd  # not in the service's environment

    index = pd.Index([*map(str, paths)], dtype=object, name="path")
    found = pd.DataFrame([*map(_texts, paths)], index, COLUMNS, "string")
    return found.assign(
        laterality=found["laterality"].map(_SIDES),
        body_part=found["body_part"].where(found["body_part"].str.fullmatch(_PART)),
        acquisition_date=pd.to_datetime(found["acquisition_date"].str[:8], format="%Y%m%d", errors="coerce"),
    )[[*names]]


def _texts(path):
    """Return the text of each of `COLUMNS` in a file's header, None where there is none."""
    with open(os.path.expanduser(path), "rb") as file:
        data = file.read(HEADER)
    try:
        syntax, found = _read(data, {*sum(_TAGS, (_REGION,))}, HEADER)
        region = found.get(_REGION, b"")[8:]  # the name stands in its first item
        found |= {tag: value for tag, value, _ in _walk(region, 0, 0x00080104, syntax)}
    except (ValueError, struct.error):  # no DICOM file, or a damaged one
        return [None] * 3
    texts = {tag: value.strip(b" \0").decode("utf-8", "replace") for tag, value in found.items()}
    return [next(filter(None, map(texts.get, tags)), None) for tags in _TAGS]


def _read(data, wanted, limit):
    """Return the end of the transfer syntax's name, and the values of the `wanted` elements by tag."""
    try:
        place, syntax = 132, b""
        for tag, value, after in _walk(data, place, 0x0002FFFF):
            place, syntax = after, value if tag == 0x00020010 else syntax
        syntax = syntax.strip(b" \0").removeprefix(b"1.2.840.10008.1.2")
        if syntax == b".1.99":
            data, place = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[place:], limit), 0
        elements = _walk(data, place, max(wanted), syntax)
        return syntax, {tag: value for tag, value, _ in elements if tag in wanted}
    except (ValueError, struct.error, zlib.error):
        raise ValueError(_DAMAGED) from None


def _walk(data, place, last, syntax=b".1"):
    """Yield tag, value and end of each element up to the tag `last`; what is nested in one is its value."""
    order, depth, opened = ">" if syntax == b".2" else "<", 0, ()
    for _ in range(MAX_ELEMENTS):
        if place + 8 > len(data):
            return
        group, element, kind, length = struct.unpack_from(f"{order}HH2sH", data, place)
        tag, place = group << 16 | element, place + 8
        if not depth and tag > last:
            return
        is_implicit = not syntax or group == 0xFFFE or not (kind.isalpha() and kind.isupper())
        if is_implicit or kind in _LONG:
            place += 0 if is_implicit else 4
            (length,) = struct.unpack_from(f"{order}I", data, place - 4)
        start = place
        if tag == _END:
            depth -= 1
            if not depth:
                yield opened[0], data[opened[1] : start - 8], start
        elif length == _ALL:  # of unknown length: an item's content just follows
            if group != 0xFFFE:
                opened, depth = opened if depth else (tag, start), depth + 1
        else:
            place += length
            if not depth:
                value = data[start:place]
                if order == ">" and kind in (b"OW", b"US"):
                    value = np.frombuffer(value, ">u2").astype("<u2").tobytes()
                if place > len(data):
                    raise ValueError
                yield tag, value, place
    raise ValueError


def _pixels(value, count, samples, planar, size, kind, colors):
    """Return uncompressed or RLE pixels: array in the order of samples. ValueError if there are too few bytes."""
    if kind == "RLE":  # PackBits to Pillow, plane by plane, the higher byte first
        planes, *starts = struct.unpack_from("<16I", value)
        if planes != samples * size:
            raise ValueError
        places = zip(starts, [*starts[1:planes], len(value)], strict=False)
        parts = [Image.frombytes("L", (count, 1), value[a:b], "packbits", "L") for a, b in places]
        return np.stack(parts, axis=-1).reshape(count, samples, size).view(f">u{size}")
    halved = colors == b"YBR_FULL_422" and size == 1
    if len(value) > (2 * count if halved else count * samples * size) + 64:  # more than the header says
        raise ValueError
    if halved:  # each two pixels share their last two samples
        return np.frombuffer(value, np.uint8, 2 * count).reshape(-1, 4)[:, [[0, 2, 3], [1, 2, 3]]]
    values = np.frombuffer(value, f"<u{size}", count * samples)
    return values.reshape(samples, count).T if planar else values
