import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter

from isicvision import PROJECT_ROOT
from isicvision.data import duplicates
from isicvision.data.measures import REGULAR, measure
from isicvision.fields import FIELDS, MEASURES
from isicvision.images import FORMATS, ImageError

SKIN = (200, 150, 130)


@pytest.fixture
def measured(tmp_path):
    def save_and_measure(image, name="p.png", **options):
        image.save(tmp_path / name, **options)
        return measure(tmp_path / name)

    return save_and_measure


def skin(size=(256, 192), seed=0):
    """Noisy skin with a brown lesion: no frame, no ruler."""
    noise = np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 3))
    image = Image.fromarray(np.clip(np.array(SKIN) + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for left, top, right, bottom, color in ((2, 3, 6, 7, (90, 60, 40)), (5, 4, 8, 6, (140, 90, 60))):
        draw.ellipse(
            [part * side / 10 for part, side in zip((left, top, right, bottom), 2 * size, strict=True)],
            color,
        )
    return image


def test_plain_skin_has_every_measure_and_no_frame_or_ruler(measured):
    found = measured(skin())
    assert tuple(found) == MEASURES
    assert (found["width"], found["height"], found["format"], found["gray"]) == (256, 192, "PNG", False)
    assert found["dark_corners"] == found["border"] == found["ruler"] == 0
    assert found["red"] > found["green"] > found["blue"]


def test_the_data_dictionary_names_every_format_that_is_read():
    assert FIELDS["format"].unit.split("/") == [*FORMATS]


def test_the_color_of_the_edge_is_that_of_the_skin_around_the_lesion(measured):
    image = skin()
    clean = measured(image)
    ImageDraw.Draw(image).ellipse([40, 30, 216, 162], "black")
    found = measured(image)
    assert found["red"] < clean["red"] - 30
    for name in ("edge_red", "edge_green", "edge_blue"):
        assert found[name] == pytest.approx(clean[name], abs=1)
    tinted = measured(
        Image.merge("RGB", (*image.split()[:2], image.split()[2].point(lambda value: value // 2)))
    )
    assert tinted["edge_blue"] == pytest.approx(found["edge_blue"] / 2, abs=1)


def test_a_round_view_has_dark_corners_but_no_border(measured):
    image, mask = skin(), Image.new("L", (256, 192), 0)
    ImageDraw.Draw(mask).ellipse([-10, -40, 266, 232], 255)
    found = measured(Image.composite(image, Image.new("RGB", image.size), mask))
    assert found["dark_corners"] > 0.5 and found["border"] == 0


@pytest.mark.parametrize("color", ["black", "white"])
def test_a_bar_along_an_edge_is_measured_by_its_share(measured, color):
    image = skin()
    image.paste(color, (0, 0, 256, 48))
    assert measured(image)["border"] == pytest.approx(0.25, abs=0.01)


def test_smooth_skin_is_no_border(measured):
    image = Image.new("RGB", (256, 192), SKIN)
    ImageDraw.Draw(image).ellipse([90, 60, 160, 130], (90, 60, 40))
    assert measured(image)["border"] == 0


@pytest.mark.parametrize("turned", [0, 90])
def test_a_ruler_is_found_in_ink_and_not_in_the_color_of_blood(measured, turned):
    def ruled(ink):
        image = skin()
        draw = ImageDraw.Draw(image)
        for x in range(20, 240, 8):
            draw.line([x, 170, x, 184], ink, 2)
        return measured(image.rotate(turned, expand=True))["ruler"]

    assert ruled("black") >= REGULAR
    assert ruled((200, 40, 40)) == 0  # as dark as blood vessels, which are no ruler


def test_blur_lowers_sharpness(measured):
    sharp = measured(skin())
    assert measured(skin().filter(ImageFilter.GaussianBlur(2)))["sharpness"] < 0.2 * sharp["sharpness"]


def test_a_copy_saved_again_has_another_sha256_and_nearly_the_same_perceptual_hash(measured):
    one, other = sorted((PROJECT_ROOT / "sample_data" / "images").iterdir())[:2]
    first, second = measure(one), measure(other)
    again = measured(Image.open(one).resize((400, 300)), "again.jpg", quality=70)
    assert again["sha256"] != first["sha256"]
    assert bits(again, first) <= duplicates.THRESHOLD < bits(second, first)


def bits(one, other):
    return (int(one["phash"], 16) ^ int(other["phash"], 16)).bit_count()


def test_size_hardly_changes_what_is_measured(measured):
    large, small = measured(skin((1024, 768))), measured(skin((1024, 768)).resize((256, 192), Image.BILINEAR))
    assert (large["width"], small["width"]) == (1024, 256)
    assert large["brightness"] == pytest.approx(small["brightness"], abs=1)
    assert large["sharpness"] == pytest.approx(small["sharpness"], rel=0.1)


def test_gray_is_seen_through_jpegs_tint(measured):
    assert measured(skin().convert("L").convert("RGB"), "gray.jpg", quality=60)["gray"]


def test_a_rotated_camera_file_is_measured_upright(measured):
    turned = Image.Exif()
    turned[0x0112] = 6
    found = measured(skin((256, 192)), "turned.jpg", exif=turned)
    assert (found["width"], found["height"]) == (192, 256)


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (3, 2)])
def test_tiny_and_thin_images_are_measured(measured, size):
    found = measured(Image.new("RGB", size, SKIN))
    assert (found["width"], found["height"]) == size and found["ruler"] == 0


@pytest.mark.parametrize("missing", ["absent.jpg", "."])
def test_a_file_that_cannot_be_read_is_named(tmp_path, missing):
    with pytest.raises(ImageError, match="absent" if missing != "." else tmp_path.name):
        measure(tmp_path / missing)


def damaged():
    buffer = io.BytesIO()
    skin((32, 24)).save(buffer, "JPEG")
    whole = buffer.getvalue()
    cut = st.integers(0, len(whole)).map(lambda n: whole[:n])
    changed = st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=4)).map(
        lambda change: whole[: change[0]] + change[1] + whole[change[0] + len(change[1]) :]
    )
    return st.binary(max_size=200) | cut | changed


@settings(max_examples=150, deadline=None)
@given(content=damaged())
def test_any_bytes_are_measured_or_refused_by_name(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.jpg"
    path.write_bytes(content)
    try:
        found = measure(path)
    except ImageError as error:
        assert "any.jpg" in str(error)
    else:
        assert tuple(found) == MEASURES
        assert all(0 <= found[name] <= 1 for name in ("dark_corners", "border", "ruler"))
        assert found["bytes"] == len(content)
