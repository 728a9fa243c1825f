import dataclasses

import cv2
import numpy as np
import pytest
from PIL import Image

from isicvision import Evaluation, ImageDataset, comparison
from isicvision.data.skin import LEAST, estimate_tone, ita, lesion_mask, skin_mask, tone
from isicvision.images import decode

ANGLES = {"very light": 65, "light": 48, "intermediate": 35, "tan": 20, "brown": -10, "dark": -50}
SIZE = (150, 200)


def lab(lightness, red, yellow):
    """The 8-bit color with these coordinates, by scikit-image: another implementation than the module's."""
    from skimage.color import lab2rgb

    return (255 * lab2rgb([[[lightness, red, yellow]]])[0, 0]).round().astype(np.uint8)


def skin(angle, seed=0, yellow=16.0):
    """Noisy skin of this typology angle."""
    color = lab(50 + yellow * np.tan(np.radians(angle)), 12, yellow)
    noise = np.random.default_rng(seed).normal(0, 4, (*SIZE, 3))
    return np.clip(color + noise, 0, 255).round().astype(np.uint8)


def with_lesion(image, axes=(40, 30)):
    shown = cv2.ellipse(image.copy(), (100, 75), axes, 20, 0, 360, (70, 40, 35), -1)
    return cv2.GaussianBlur(shown, (0, 0), 1.5)


@pytest.mark.parametrize("angle", ANGLES.values())
def test_the_angle_of_plain_skin_is_right(angle):
    assert ita(skin(angle)) == pytest.approx(angle, abs=1.5)


@pytest.mark.parametrize("angle", [48, 20, -10])
def test_lesion_hair_ruler_and_dark_corners_hardly_move_it(angle):
    image = with_lesion(skin(angle))
    assert ita(image) == pytest.approx(angle, abs=2)
    for start in range(0, 200, 12):  # hair
        cv2.line(image, (start, 0), (start + 40, 149), (30, 25, 25), 1)
    for start in range(10, 190, 6):  # ruler
        cv2.line(image, (start, 140), (start, 149), (20, 20, 20), 1)
    assert ita(image) == pytest.approx(angle, abs=3)
    rows, columns = np.mgrid[-75:75, -100:100]
    image[np.hypot(rows, columns) > 95] = 8
    assert ita(image) == pytest.approx(angle, abs=3)


def test_the_lesion_is_found_and_the_skin_is_not_in_it():
    image = with_lesion(skin(48))
    drawn = cv2.ellipse(np.zeros(SIZE, np.uint8), (100, 75), (40, 30), 20, 0, 360, 1, -1) > 0
    found = lesion_mask(image)
    assert found[drawn].all() and found.mean() < 2 * drawn.mean()
    assert not (skin_mask(image) & found).any() and skin_mask(image).mean() > 0.5


def test_an_ellipse_stands_for_a_lesion_that_is_not_found():
    found = lesion_mask(np.full((*SIZE, 3), skin(48)[0, 0]))
    assert found[75, 100] and not found[0, 0] and 0.3 < found.mean() < 0.6


@pytest.mark.parametrize("image", [np.zeros((90, 120, 3)), np.full((90, 120, 3), 255), np.full((1, 1, 3), 7)])
def test_where_there_is_no_skin_nothing_is_measured(image):
    assert np.isnan(ita(image.astype(np.uint8)))


def test_bluish_light_has_no_angle():
    assert np.isnan(ita(np.full((90, 120, 3), lab(70, 5, -4))))


def test_the_bands_and_their_edges():
    assert [*tone([*ANGLES.values()])] == [*ANGLES]
    assert [*tone([55, 41, 28, 10, -30])] == ["light", "intermediate", "tan", "brown", "dark"]
    assert tone([np.nan, 90, -90]).isna().tolist() == [True, False, False]
    assert tone([0.0]).ordered


def test_slices_by_skin_tone_are_in_order(tmp_path):
    paths = []
    for number, angle in enumerate([*ANGLES.values()] * 4):
        paths.append(str(tmp_path / f"{number}.png"))
        image = np.zeros((*SIZE, 3), np.uint8) if number == 23 else with_lesion(skin(angle, number))
        Image.fromarray(image).save(paths[-1])
    labels = np.tile(["benign", "malignant"], 12)
    rows = [f"{path},{label}" for path, label in zip(paths, labels, strict=True)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]))
    dataset = estimate_tone(ImageDataset.from_csv(tmp_path / "labels.csv"))
    assert dataset.table["ita"].isna().tolist() == [False] * 23 + [True]
    evaluation = Evaluation.from_scores(labels, np.linspace(0, 1, 24), metadata=dataset.table)
    found = comparison.slices(evaluation, "skin_tone")
    assert [*found.index] == [*ANGLES, "missing"] and found["images"].tolist() == [4, 4, 4, 4, 4, 3, 1]
    read = ImageDataset.load(dataset.save(tmp_path / "saved.csv")).table["skin_tone"]
    assert read.dropna().tolist() == dataset.table["skin_tone"].dropna().tolist()
    again = estimate_tone(dataclasses.replace(dataset, table=dataset.table.iloc[::-1]))
    assert again.table["ita"].dropna().tolist() == dataset.table["ita"].dropna().tolist()[::-1]


@pytest.mark.real
def test_of_real_images_those_in_bluish_light_are_left_out(real_data):
    bluish = estimate_tone(ImageDataset.from_folder(real_data / "isic_sample")).table
    assert bluish["ita"].isna().all()  # all ten are: see for yourself
    assert all(skin_mask(decode(path)).mean() > LEAST for path in bluish["path"])
    paths = sorted((real_data / "ham10000_200x150" / "images").glob("*.jpg"))[:300]
    angles = np.array([ita(decode(path)) for path in paths])
    assert 0.4 < np.isfinite(angles).mean() < 0.8 and np.nanmedian(angles) > 41
