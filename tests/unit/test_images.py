import io
import struct
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isicvision import images
from isicvision.images import ORIENTATION, ImageError, decode, frame
from isicvision.service import client


def encode(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width=64, height=48):
    rows, columns = np.mgrid[:height, :width]
    return Image.fromarray(np.stack([rows * 4, columns * 3, rows + columns], axis=2).astype(np.uint8))


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([16, 64, 100]))
@settings(max_examples=30, deadline=None)
def test_any_shape_becomes_a_square_of_bytes(width, height, size):
    image = decode(encode(gradient(width, height), "JPEG"), size)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8


@given(st.binary(max_size=2000))
@settings(max_examples=60, deadline=None)
def test_any_other_bytes_are_refused_by_one_kind_of_error(content):
    with pytest.raises(ImageError):
        decode(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_half_a_file_is_refused_by_name(tmp_path, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    path = tmp_path / "half.jpg"
    path.write_bytes(encode(noise, kind)[:3000])
    with pytest.raises(ImageError, match=r"half\.jpg"):
        decode(path, 64)


def test_the_center_is_cut_out_and_the_shape_kept():
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    assert decode(encode(wide), 50).min() > 200


def test_reduced_decoding_stays_close_to_full_decoding():
    big = gradient(64, 48).resize((2048, 1536), Image.BICUBIC)
    reduced = decode(encode(big, "JPEG", quality=95), 128).astype(int)
    full = big.resize((128, 128), Image.BILINEAR, box=(256, 0, 1792, 1536))
    assert np.abs(reduced - np.asarray(full)).mean() < 1


def test_images_are_resized_bilinearly_or_bicubically_and_in_no_other_way():
    image = gradient(90, 60)
    box = (15, 0, 75, 60)
    for interpolation, method in (("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
        expected = np.asarray(image.resize((32, 32), method, box=box))
        assert np.array_equal(decode(encode(image), 32, interpolation), expected)
    assert np.array_equal(decode(encode(image), 32), decode(encode(image), 32, "bilinear"))
    assert not np.array_equal(decode(encode(image), 32), expected)
    with pytest.raises(ValueError, match="'bilinear' or 'bicubic', not 'nearest'"):
        decode(encode(image), 32, "nearest")


def test_exif_orientation_is_undone():
    upright = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    turned = encode(upright.transpose(Image.ROTATE_90), "PNG", exif=exif)
    assert np.array_equal(decode(turned), np.asarray(upright))


def test_gray_palette_alpha_cmyk_and_16_bit_become_rgb():
    gray = gradient().convert("L")
    as_rgb = np.asarray(gray.convert("RGB"))
    assert np.array_equal(decode(encode(gray)), as_rgb)
    sixteen = Image.fromarray(np.asarray(gray).astype(np.uint16) * 257)
    assert np.array_equal(decode(encode(sixteen)), as_rgb)
    assert np.abs(decode(encode(gradient().convert("P"))).astype(int) - np.asarray(gradient())).mean() < 40
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (decode(encode(clear)) == 255).all()
    assert decode(encode(gradient().convert("CMYK"), "JPEG")).shape == (48, 64, 3)


def test_animations_and_gigantic_images_are_refused(monkeypatch):
    frames = [gradient(), gradient().rotate(90)]
    with pytest.raises(ImageError, match="2 images"):
        decode(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match="64x48 pixels, more than 1,000"):
        decode(encode(gradient()))


def test_the_service_can_use_the_module_with_numpy_and_pillow_alone():
    source = open(images.__file__, encoding="utf-8").read()
    top_level = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].split(".")[0] for line in top_level}
    assert modules <= {*sys.stdlib_module_names, "numpy", "PIL"}


@pytest.mark.real
def test_real_images_decode(real_data):
    paths = sorted((real_data / "isic_sample").rglob("*.jpg"))
    assert min(decode(path, 224).std() for path in paths) > 5


def test_a_frame_is_the_whole_image_reduced_upright_with_its_own_size_beside_it():
    wide = gradient(640, 480)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    wide.save(turned, "JPEG", exif=exif)
    image, size, kind = frame(turned.getvalue(), 64)
    assert (image.size, size, kind) == ((48, 64), (480, 640), "JPEG")
    small, size, kind = frame(encode(wide), 1000)
    assert (small.size, size, kind) == ((640, 480), (640, 480), "PNG")


@pytest.mark.parametrize("filler", [b"", b"\0", b"x"])
def test_a_reduced_frame_still_needs_every_byte_of_the_file(filler):
    whole = encode(gradient(640, 480), "JPEG", quality=95)
    half = whole[: len(whole) // 2]
    with pytest.raises(ImageError, match="cut short"):
        frame(half + filler * (len(whole) - len(half)), 16)


def test_a_stack_cut_short_anywhere_is_refused_by_one_kind_of_error():
    stack = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stack, "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    for length in range(len(stack.getvalue()) + 1):
        with pytest.raises(ImageError):
            decode(stack.getvalue()[:length])


def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
    with pytest.raises(ImageError, match=r"cannot be read \(Is a directory\)"):
        decode(tmp_path)
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", no_memory)
    with pytest.raises(MemoryError):  # the image is sound
        decode(whole.getvalue())


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8))


def exif_of(*entries, extra=b""):
    """Of (tag, type, count, four bytes) each."""
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + extra


def with_segment(jpeg, marker, data):
    return jpeg[:2] + bytes([255, marker]) + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


def with_chunk(png, kind, data, is_whole=True, before=b"IDAT"):
    place = png.index(before) - 4
    check = zlib.crc32(kind + data) if is_whole else 1
    return png[:place] + struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check) + png[place:]


def with_tag(tiff, tag, kind, count, value):
    (start,) = struct.unpack_from("<I", tiff, 4)
    (number,) = struct.unpack_from("<H", tiff, start)
    tags = [tiff[start + 2 + 12 * n : start + 14 + 12 * n] for n in range(number)]
    tags = sorted([*tags, struct.pack("<HHI", tag, kind, count) + value], key=lambda t: t[1::-1])
    tiff += bytes(len(tiff) % 2)
    table = struct.pack("<H", len(tags)) + b"".join(tags) + bytes(4)
    return tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + table


SIX = (0x112, 3, 1, struct.pack("<HH", 6, 0))
JPEG, PNG, TIFF = (encode(noise(), kind) for kind in ("JPEG", "PNG", "TIFF"))
COMMENT = (b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 2_000_000))
STRAIGHT = {
    "orientation as text": with_segment(JPEG, 0xE1, exif_of((0x112, 2, 2, b"6\0\0\0"))),
    "orientation as a byte": with_segment(JPEG, 0xE1, exif_of((0x112, 1, 1, b"\6\0\0\0"))),
    "orientation undefined": with_segment(JPEG, 0xE1, exif_of((0x112, 7, 1, b"\6\0\0\0"))),
    "orientation 9": with_segment(JPEG, 0xE1, exif_of((0x112, 3, 1, struct.pack("<HH", 9, 0)))),
    "EXIF of a wrong length": JPEG[:2] + b"\xff\xe1\0\x09" + exif_of(SIX) + JPEG[2:],
    "ICC profile cut short": with_segment(JPEG, 0xE2, b"ICC_PROFILE\0"),
    "JFIF cut short": with_segment(JPEG, 0xE0, b"JFIF\0"),
    "eXIf that is none": with_chunk(PNG, b"eXIf", b"\0\x08\0\x02\x01\x12\0\x03nothing"),
    "raw profile cut short": with_chunk(PNG, b"tEXt", b"Raw profile type exif\0\nexif\n  4\nzzzz"),
    "a comment of 2 MB": with_chunk(PNG, *COMMENT),
    "a comment with a wrong checksum": with_chunk(PNG, b"tEXt", b"Comment\0x", is_whole=False),
    "resolution cut short": with_chunk(PNG, b"pHYs", b"\0\0"),
    "EXIF that is none, in WebP": encode(noise(), "WEBP", lossless=True, exif=b"Exif\0\0nothing"),
    "orientation as text, in TIFF": with_tag(TIFF, 0x112, 2, 2, b"6\0\0\0"),
}
TURNED = {
    "orientation twice": with_segment(JPEG, 0xE1, exif_of((0x112, 3, 2, struct.pack("<HH", 6, 6)))),
    "resolution as text": with_segment(JPEG, 0xE1, exif_of(SIX, (282, 2, 3, b"72\0\0"))),
    "date as a fraction": with_segment(
        JPEG, 0xE1, exif_of(SIX, (306, 5, 1, struct.pack("<I", 38)), extra=bytes(8))
    ),
    "XMP in the EXIF": with_segment(JPEG, 0xE1, exif_of(SIX, (700, 2, 4, b"x\0\0\0"))),
    "a large comment": with_chunk(with_chunk(PNG, b"eXIf", exif_of(SIX)[6:]), *COMMENT),
    "a date as a number, in TIFF": with_tag(with_tag(TIFF, *SIX), 306, 3, 1, b"\1\0\0\0"),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("content", [*STRAIGHT.values(), *TURNED.values()], ids=[*STRAIGHT, *TURNED])
def test_a_damaged_note_spoils_no_image_and_measuring_agrees_with_decoding(content):
    expected = decode(JPEG) if content.startswith(b"\xff\xd8") else np.asarray(noise())
    decoded = decode(content)
    assert np.array_equal(decoded, np.rot90(expected, -1) if content in TURNED.values() else expected)
    assert frame(content, 16)[1] == (decoded.shape[1], decoded.shape[0])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore:Palette images")
@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_note_of_random_bytes_changes_more_than_which_side_is_up(data):
    note = data.draw(
        st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(lambda b: exif_of(SIX, extra=b)))
    )
    starts = [
        b"",
        b"Exif\0\0II*\0\x08\0\0\0",
        b"ICC_PROFILE\0",
        b"MPF\0",
        b"Photoshop 3.0\0",
        b"x\0\0",
        b"x\0",
    ]
    note = data.draw(st.sampled_from(starts)) + note
    kind = data.draw(st.sampled_from(["JPEG", "CMYK", "PNG", "palette", "16 bit"]))
    image = {
        "CMYK": noise().convert("CMYK"),
        "palette": noise().quantize(9),
        "16 bit": noise().getchannel(0),
    }.get(kind, noise())
    if kind in ("JPEG", "CMYK"):
        whole = encode(image, "JPEG")
        marker = data.draw(st.sampled_from([0xE1, 0xE1, 0xE2, 0xE3, 0xED, 0xEF, 0xFE]))
        changed = with_segment(whole, marker, note)
    else:
        whole = encode(image, "PNG", **({"transparency": bytes([0, 9])} if kind == "palette" else {}))
        chunk = data.draw(
            st.sampled_from([b"eXIf", b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"gAMA", b"cHRM", b"pHYs", b"xyZw"])
        )
        before = data.draw(st.sampled_from([b"IDAT", b"IEND"]))
        changed = with_chunk(whole, chunk, note, data.draw(st.booleans()), before)
    expected, decoded = decode(whole), decode(changed)
    turned = [np.rot90(each, quarters) for each in (expected, expected[:, ::-1]) for quarters in range(4)]
    assert any(np.array_equal(decoded, each) for each in turned)
    assert frame(changed, 16)[1] == (decoded.shape[1], decoded.shape[0])


def test_an_image_with_a_damaged_note_is_sent_to_a_service_as_it_is_seen():
    for content in (STRAIGHT["orientation as text"], TURNED["XMP in the EXIF"]):
        sent = client._to_bytes(Image.open(io.BytesIO(content)))
        assert np.array_equal(decode(sent), decode(content))
