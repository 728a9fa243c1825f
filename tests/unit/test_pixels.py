import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isicvision import pixels


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
    picture = pixels.decode(encode(gradient(width, height), "JPEG"), size)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8


@given(st.binary(max_size=2000))
@settings(max_examples=60, deadline=None)
def test_any_other_bytes_are_refused_by_one_kind_of_error(content):
    with pytest.raises(pixels.PictureError):
        pixels.decode(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP"])
def test_half_a_file_is_refused_by_name(tmp_path, kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    path = tmp_path / "half.jpg"
    path.write_bytes(encode(noise, kind)[:3000])
    with pytest.raises(pixels.PictureError, match=r"half\.jpg"):
        pixels.decode(path, 64)


def test_the_centre_is_cut_out_and_the_shape_kept():
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    assert pixels.decode(encode(wide), 50).min() > 200


def test_reduced_decoding_stays_close_to_full_decoding():
    big = gradient(64, 48).resize((2048, 1536), Image.BICUBIC)
    reduced = pixels.decode(encode(big, "JPEG", quality=95), 128).astype(int)
    full = big.resize((128, 128), Image.BILINEAR, box=(256, 0, 1792, 1536))
    assert np.abs(reduced - np.asarray(full)).mean() < 1


def test_pictures_are_resized_bilinearly_or_bicubically_and_in_no_other_way():
    image = gradient(90, 60)
    box = (15, 0, 75, 60)
    for interpolation, method in (("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
        expected = np.asarray(image.resize((32, 32), method, box=box))
        assert np.array_equal(pixels.decode(encode(image), 32, interpolation), expected)
    assert np.array_equal(pixels.decode(encode(image), 32), pixels.decode(encode(image), 32, "bilinear"))
    assert not np.array_equal(pixels.decode(encode(image), 32), expected)
    with pytest.raises(ValueError, match="'bilinear' or 'bicubic', not 'nearest'"):
        pixels.decode(encode(image), 32, "nearest")


def test_exif_orientation_is_undone():
    upright = gradient()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    turned = encode(upright.transpose(Image.ROTATE_90), "PNG", exif=exif)
    assert np.array_equal(pixels.decode(turned), np.asarray(upright))


def test_grey_palette_alpha_cmyk_and_16_bit_become_rgb():
    grey = gradient().convert("L")
    as_rgb = np.asarray(grey.convert("RGB"))
    assert np.array_equal(pixels.decode(encode(grey)), as_rgb)
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert np.array_equal(pixels.decode(encode(sixteen)), as_rgb)
    assert (
        np.abs(pixels.decode(encode(gradient().convert("P"))).astype(int) - np.asarray(gradient())).mean()
        < 40
    )
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert (pixels.decode(encode(clear)) == 255).all()
    assert pixels.decode(encode(gradient().convert("CMYK"), "JPEG")).shape == (48, 64, 3)


def test_animations_and_gigantic_pictures_are_refused(monkeypatch):
    frames = [gradient(), gradient().rotate(90)]
    with pytest.raises(pixels.PictureError, match="2 pictures"):
        pixels.decode(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
    with pytest.raises(pixels.PictureError, match="64x48 is more than 1,000"):
        pixels.decode(encode(gradient()))


def test_the_service_can_use_the_module_with_numpy_and_pillow_alone():
    source = open(pixels.__file__, encoding="utf-8").read()
    top_level = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    modules = {line.split()[1].split(".")[0] for line in top_level}
    assert modules <= {*sys.stdlib_module_names, "numpy", "PIL"}


@pytest.mark.real
def test_real_pictures_decode(real_data):
    paths = sorted((real_data / "isic_sample").rglob("*.jpg"))
    assert min(pixels.decode(path, 224).std() for path in paths) > 5


def test_a_frame_is_the_whole_picture_reduced_upright_with_its_own_size_beside_it():
    wide = gradient(640, 480)
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[pixels.ORIENTATION] = 6
    wide.save(turned, "JPEG", exif=exif)
    picture, size, kind = pixels.frame(turned.getvalue(), 64)
    assert (picture.size, size, kind) == ((48, 64), (480, 640), "JPEG")
    small, size, kind = pixels.frame(encode(wide), 1000)
    assert (small.size, size, kind) == ((640, 480), (640, 480), "PNG")


@pytest.mark.parametrize("filler", [b"", b"\0", b"x"])
def test_a_reduced_frame_still_needs_every_byte_of_the_file(filler):
    whole = encode(gradient(640, 480), "JPEG", quality=95)
    half = whole[: len(whole) // 2]
    with pytest.raises(pixels.PictureError, match="cut short"):
        pixels.frame(half + filler * (len(whole) - len(half)), 16)


def test_a_stack_cut_short_anywhere_is_refused_by_one_kind_of_error():
    stack = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stack, "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    for length in range(len(stack.getvalue()) + 1):
        with pytest.raises(pixels.PictureError):
            pixels.decode(stack.getvalue()[:length])


def test_what_the_system_refuses_is_not_called_damaged(tmp_path, monkeypatch):
    with pytest.raises(pixels.PictureError, match=r"cannot be read \(Is a directory\)"):
        pixels.decode(tmp_path)
    whole = io.BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", no_memory)
    with pytest.raises(MemoryError):  # the picture is sound
        pixels.decode(whole.getvalue())
