"""The map in JupyterLab: a lasso around a planted cluster, keys, hovering, and 10,000 points."""

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from browser.test_widgets import cells, shoot
from isicvision import PROJECT_ROOT, ImageClassifier, ImageDataset, featuremap

OPEN = """
import numpy as np
from isicvision import ImageDataset, widgets
dataset = ImageDataset.load({table!r})
features = np.load({features!r})
ui = widgets.MapUI(dataset, features, "decisions.csv", color={color!r})
ui
"""


BLUE = 0, 40, 150


@pytest.fixture(scope="module")
def cast(tmp_path_factory):
    """The sample, a tenth of it with another camera's color cast, and what a pretrained network sees of it."""
    folder, sample = tmp_path_factory.mktemp("cast"), PROJECT_ROOT / "sample_data"
    labels = {"Benign": "benign", "Malignant": "malignant"}
    dataset = ImageDataset.from_csv(
        sample / "metadata.csv", images=sample / "images", label_column="diagnosis_1", label_map=labels
    )
    is_cast = np.arange(len(dataset)) % 10 == 0
    paths = [str(folder / f"{number}.png") for number in range(len(dataset))]
    for old, new, turned in zip(dataset.paths, paths, is_cast, strict=True):
        with Image.open(old) as image:
            pixels = np.asarray(image.convert("RGB").resize((150, 150)))
        Image.fromarray((0.35 * pixels + BLUE).astype(np.uint8) if turned else pixels).save(new)
    camera = np.where(is_cast, "new", "old")
    dataset = ImageDataset(dataset.table.assign(path=paths, group=paths, camera=camera))
    features = ImageClassifier("efficientnet_lite0", dataset.labels, image_size=96).featurize(dataset)
    np.save(folder / "features.npy", features)
    dataset.save(folder / "images.csv")
    return dataset, features, folder


def opened(cast, color):
    """Return a cell that opens the map of these images."""
    folder = cast[-1]
    return OPEN.format(table=str(folder / "images.csv"), features=str(folder / "features.npy"), color=color)


def canvas(lab):
    found = lab.page.locator(".isic-stage canvas")
    found.scroll_into_view_if_needed()
    lab.page.wait_for_function("() => performance.getEntriesByName('isic-map').length > 0")
    return found


def spots(lab, numbers):
    """Return where points are on the page: array of shape (n, 2)."""
    box = canvas(lab).bounding_box()
    places = np.array(
        lab.value(f"np.frombuffer(ui.map.places, np.float32).reshape(-1, 2)[{numbers}].tolist()")
    )
    return np.array([box["x"], box["y"]]) + 8 + places * (box["width"] - 16)


def lasso(lab, corners):
    mouse = lab.page.mouse
    mouse.move(*corners[0])
    mouse.down()
    for corner in [*corners[1:], corners[0]]:
        mouse.move(*corner, steps=4)
    mouse.up()


def test_a_planted_color_cast_is_a_cluster_that_the_lasso_catches_and_the_purity_names(lab, cast):
    dataset, features, _ = cast
    first = featuremap.purity(dataset, features).table.iloc[0]
    assert first["column"] == "camera" and first["low"] > 0.9 > first["chance"]
    lab.show([opened(cast, "camera")])
    planted = np.flatnonzero(dataset.table["camera"] == "new")
    there = spots(lab, planted.tolist())
    away = np.linalg.norm(there - np.median(there, axis=0), axis=1)
    angles = np.linspace(0, 2 * np.pi, 13)[:-1]
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    lasso(lab, np.median(there, axis=0) + 1.1 * np.quantile(away, 0.85) * circle)
    lab.wait_for("len(ui.map.chosen) > 0")
    chosen = lab.value("ui.map.chosen")
    assert len({*chosen} & {*planted}) >= 0.8 * max(len(planted), len(chosen))
    lab.page.get_by_role("status").get_by_text(f"{len(chosen)} images: ").wait_for()
    lab.expect(cells(lab)).to_have_count(min(12, len(chosen)))
    cells(lab).first.click()
    lab.page.keyboard.press("x")
    lab.wait_for("ui.images.counts['excluded']", 1)
    lab.page.get_by_role("button", name="benign [1]").click()
    lab.wait_for("ui.images.counts['decided']", 2)
    shoot(lab, "map")
    rows = pd.read_csv(lab.folder / "decisions.csv")
    assert (
        rows["label"].tolist() == ["(exclude)", "benign"] and len(lab.value("ui.images.dataset.paths")) == 158
    )


def test_hovering_shows_the_image_and_keys_and_the_legend_open_images(lab, cast):
    lab.show([opened(cast, "label")])
    page = lab.page
    spot = spots(lab, [3])[0]
    page.mouse.move(*(spot - 30))
    page.mouse.move(*spot)
    page.locator(".isic-tip").get_by_text("3: ").wait_for()
    lab.expect(page.locator(".isic-tip img")).to_have_attribute("src", re.compile("^data:image/jpeg"))
    page.mouse.move(0, 0)
    page.locator(".isic-tip").wait_for(state="hidden")
    page.get_by_role("button", name="malignant (79)").click()
    lab.wait_for("len(ui.map.chosen)", 79)
    page.get_by_text("1 to 12 of 79").wait_for()
    canvas(lab).focus()
    for key in ("ArrowLeft", "ArrowUp", "+", "Enter"):
        page.keyboard.press(key)
    lab.wait_for("0 < len(ui.map.chosen) < 79")
    count = lab.value("len(ui.map.chosen)")
    page.get_by_role("status").get_by_text(f"{count} images: ").wait_for()
    assert page.locator(".jp-Notebook .jp-Cell").count() == 1
    page.keyboard.press("Escape")
    lab.wait_for("len(ui.map.chosen)", 0)
    page.locator(".jp-OutputArea select").first.select_option("camera")
    page.get_by_role("button", name="new (16)").wait_for()
    page.get_by_text("share its camera").wait_for()


def test_ten_thousand_points_open_and_are_drawn(lab, cast, tmp_path):
    dataset, _, _ = cast
    paths = [str(tmp_path / f"{number}.png") for number in range(10_000)]
    rows = dataset.table.iloc[np.arange(10_000) % len(dataset)]
    for path, original in zip(paths, rows["path"], strict=True):
        Path(path).symlink_to(original)
    many = ImageDataset(rows.assign(path=paths, group=paths).reset_index(drop=True))
    features = np.random.default_rng(0).normal(size=(10_000, 50)).astype(np.float32)
    many.save(tmp_path / "images.csv")
    np.save(tmp_path / "features.npy", features)
    known = "from isicvision import featuremap\nfeaturemap.places = lambda dataset, model: model[:, :2]"
    lab.show([known, opened((tmp_path,), "label")])  # t-SNE has been computed before
    canvas(lab)
    lab.page.evaluate("() => performance.clearMeasures()")
    started = time.perf_counter()
    lab.command("notebook:run-cell")  # the last one, anew
    lab.page.wait_for_function("() => performance.getEntriesByName('isic-map').length > 0")
    print(f"\n  open MapUI, 10,000 points                 {time.perf_counter() - started:6.2f} s")
    lasso(lab, spots(lab, [0])[0] + np.array([[-60, -60], [60, -60], [60, 60], [-60, 60]]))
    lab.wait_for("len(ui.map.chosen) > 0")
    took = lab.page.evaluate("() => performance.getEntriesByName('isic-map').map(each => each.duration)")
    print(f"  draw 10,000 points, median of {len(took)}          {np.median(took):6.1f} ms")
    assert len(took) > 3
