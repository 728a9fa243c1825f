import multiprocessing
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import imgaug
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imgaug import augmenters as iaa
from PIL import Image

from isicvision import augment_dataset, evaluate, plots
from isicvision.data.augmentation import Hair, Pipeline, dermoscopy, described, original_2018
from isicvision.images import ImageError, decode

FLIPS = iaa.Sequential([iaa.Fliplr(0.5), iaa.Multiply((0.5, 1.5))])
IMAGES = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), np.uint8)
# one augmenter of each way in which imgaug nests them and draws for them
NESTED = [
    FLIPS,
    dermoscopy(),
    iaa.Sometimes(0.5, iaa.OneOf([iaa.Add(40), iaa.Invert(1.0)])),
    iaa.Sometimes(1.0, iaa.Sequential([iaa.Add((-40, 40)), iaa.Invert(0.5)], random_order=True)),
    iaa.AddToHueAndSaturation((-50, 50)).to_deterministic(),
]


def test_on_the_fly_keeps_the_table_and_remembers_the_pipelines(dataset):
    augmented = augment_dataset(dataset, [FLIPS, iaa.Flipud(1)])
    assert augmented.table is dataset.table and len(augmented.augmenters) == 2
    assert augment_dataset(dataset, FLIPS).augmenters == (FLIPS,)  # which is a list too


# what an image's key decides


@pytest.mark.parametrize("augmenter", NESTED, ids=lambda augmenter: augmenter.name)
@given(order=st.lists(st.integers(0, 7), min_size=1, max_size=8), first_key=st.integers(0, 2**40))
@settings(max_examples=15, deadline=None)
def test_the_key_alone_decides_whatever_the_batch_and_the_order(augmenter, order, first_key):
    pipeline, keys = Pipeline(augmenter, seed=1), first_key + np.arange(8)
    alone = [Pipeline(augmenter, seed=1)(IMAGES[[n]], [key])[0] for n, key in enumerate(keys)]
    assert np.array_equal(pipeline(IMAGES[order], keys[order]), np.array(alone)[order])
    assert np.array_equal(pipeline(IMAGES, keys), alone)


@pytest.mark.parametrize("augmenter", NESTED, ids=lambda augmenter: augmenter.name)
def test_another_key_and_another_seed_augment_otherwise(augmenter):
    same = np.repeat(IMAGES[:1], 40, axis=0)
    first, other = (Pipeline(augmenter, seed)(same, range(40)) for seed in (1, 2))
    assert len(np.unique(first, axis=0)) > 1
    assert not np.array_equal(first, other)


def test_each_image_passes_through_one_of_the_augmenters():
    black = np.zeros((300, 2, 2, 3), np.uint8)
    values = Pipeline([iaa.Add(10), iaa.Add(20), iaa.Add(30)], seed=0)(black, range(300))[:, 0, 0, 0]
    assert set(values) == {10, 20, 30}
    assert min(np.bincount(values)[[10, 20, 30]]) > 70  # of 100 expected


def test_a_deterministic_augmenter_does_not_decide_for_the_next():
    corner = np.zeros((60, 2, 2, 3), np.uint8)
    corner[:, 0, 0] = 255
    both = iaa.Sequential([iaa.Fliplr(0.5).to_deterministic(), iaa.Flipud(0.5)])
    assert len(np.unique(Pipeline(both, seed=0)(corner, range(60)), axis=0)) == 4


def test_threads_do_not_disturb_one_another():
    pipeline = Pipeline(NESTED, seed=3)
    expected = pipeline(IMAGES, range(8))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: pipeline(IMAGES, range(8)), range(40)))
    assert all(np.array_equal(result, expected) for result in results)


def test_another_process_augments_alike():
    pipeline = Pipeline(NESTED, seed=3)
    expected = pipeline(IMAGES, range(8))
    assert np.array_equal(pickle.loads(pickle.dumps(pipeline))(IMAGES, range(8)), expected)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(pipeline, (IMAGES, range(8))), expected)


def test_images_augmenters_and_global_generators_stay_untouched():
    augmenter = iaa.Sequential([dermoscopy(), iaa.Flipud(0.5).to_deterministic()])
    images = IMAGES.copy()
    images.flags.writeable = False  # as decode gives them
    imgaug.seed(1)
    np.random.seed(1)

    def draws():
        return imgaug.random.get_global_rng().state, np.random.get_state(), pickle.dumps(augmenter)

    before = draws()
    Pipeline(augmenter, seed=1)(images, range(8))
    assert str(draws()) == str(before)
    assert np.array_equal(images, IMAGES)


@pytest.mark.parametrize(
    "bad",
    [
        iaa.Crop(px=4, keep_size=False),
        iaa.Lambda(lambda images, *_: [image / 2 for image in images]),
        iaa.Lambda(lambda images, *_: [image[..., :1] for image in images]),
    ],
    ids=["size", "type", "channels"],
)
def test_a_pipeline_that_changes_the_images_kind_is_refused(bad):
    with pytest.raises(ValueError, match="must keep size, channels and type"):
        Pipeline([bad], seed=0)(np.full((2, 32, 32, 3), 9, np.uint8), [0, 1])


def test_each_image_needs_a_key():
    for keys in (range(7), range(9)):
        with pytest.raises(ValueError, match="argument 2 is"):
            Pipeline(FLIPS, seed=0)(IMAGES, keys)


def test_what_is_no_augmenter_is_refused(dataset):
    with pytest.raises(TypeError, match="is not an imgaug augmenter"):
        augment_dataset(dataset, ["flip"])
    with pytest.raises(ValueError, match="augmenters is empty"):
        augment_dataset(dataset, [])


# the ready pipelines


@pytest.mark.parametrize("ready", [original_2018, dermoscopy, Hair])
@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (60, 80)], ids=str)
def test_ready_pipelines_keep_shape_and_type(ready, shape):
    images = np.random.default_rng(0).integers(0, 255, (4, *shape, 3), np.uint8)
    images[2:] = images[2:, ..., :1]  # gray
    augmented = Pipeline(ready(), seed=0)(images, range(4))
    assert augmented.shape == images.shape and augmented.dtype == np.uint8
    assert not np.array_equal(augmented, images)


def test_dermoscopy_keeps_a_lesion_in_view_and_its_color_close():
    skin, lesion = (205, 160, 140), (110, 70, 60)
    image = np.full((1, 64, 64, 3), skin, np.uint8)
    image[:, 24:40, 20:44] = lesion
    views = Pipeline(dermoscopy(), seed=0)(np.repeat(image, 100, axis=0), range(100)).astype(int)
    of_lesion = np.abs(views - lesion).max(axis=3) < 30
    area = of_lesion.sum(axis=(1, 2)) / (16 * 24)
    assert np.quantile(area, 0.02) > 0.5  # scaled it has 0.8 to 1.3 of its area, and a cut-out may hide some
    upright = of_lesion.any(axis=2).sum(axis=1) > of_lesion.any(axis=1).sum(axis=1)
    assert 30 < upright.sum() < 70  # turned by quarters
    skins = np.median(views, axis=(1, 2))
    assert (np.abs(skins / skin - 1) < 0.2).all()


def test_an_image_that_is_no_square_is_turned_without_distortion():
    image = np.full((1, 60, 90, 3), 200, np.uint8)
    image[:, 20:40, 35:55] = 50  # a square
    for view in Pipeline(iaa.Sequential(dermoscopy()[:2]), seed=0)(np.repeat(image, 20, axis=0), range(20)):
        rows, columns = (view[..., 0] < 125).any(axis=1).sum(), (view[..., 0] < 125).any(axis=0).sum()
        assert abs(rows - columns) <= 2


@given(seed=st.integers(0, 1000), side=st.sampled_from([64, 224]))
@settings(max_examples=15, deadline=None)
def test_hairs_are_thin_dark_strokes_the_same_for_the_same_key(seed, side):
    skin = np.full((1, side, side, 3), (210, 170, 150), np.uint8)
    hairy = Pipeline(Hair(), seed)(skin, [5])
    touched = (hairy != skin).any(axis=3)
    assert 0.002 < touched.mean() < 0.35
    assert (hairy <= skin).all() and hairy[touched].min() < 90
    assert np.array_equal(hairy, Pipeline(Hair(), seed)(skin, [5]))
    assert not np.array_equal(hairy, Pipeline(Hair(), seed)(skin, [6]))


def test_hair_and_cut_out_are_occasional():
    gray = np.full((600, 32, 32, 3), 200, np.uint8)
    views = Pipeline(iaa.Sequential(dermoscopy()[-2:]), seed=0)(gray, range(600))
    square = (views == 127).all(axis=3).sum(axis=(1, 2)) > 9  # 36 pixels, fewer at the border
    assert 0.15 < square.mean() < 0.25
    assert 0.06 < ((views < 100).any(axis=(1, 2, 3))).mean() < 0.14


# materialized


def test_materialized_copies_remember_image_lesion_and_license(dataset, tmp_path):
    some = dataset.sample(4, balanced=True)
    some = replace(some, table=some.table.assign(copyright_license="CC-0"))
    augmented = augment_dataset(some, [iaa.Fliplr(1.0), iaa.Flipud(1.0)], folder=tmp_path)
    assert len(augmented) == 12
    copies = augmented.table[augmented.table["augmented_from"].notna()]
    originals = some.table.set_index("path").loc[copies["augmented_from"]]
    for column in ("label", "group", "attribution", "copyright_license"):
        assert copies[column].tolist() == originals[column].tolist()
    for row, flip in ((0, np.s_[:, ::-1]), (4, np.s_[::-1])):
        one = copies.iloc[row]
        flipped = decode(one["augmented_from"])[flip].astype(int)
        assert np.abs(decode(one["path"]) - flipped).mean() < 12  # JPEG noise
    assert {path.parent.name for path in tmp_path.rglob("*.jpg")} == set(some.labels)
    assert len([*tmp_path.rglob("*.*")]) == 8  # nothing temporary is left


def test_the_same_seed_materializes_the_same_files(dataset, tmp_path):
    first, again, other = (
        augment_dataset(
            dataset.sample(6, balanced=True), [FLIPS, dermoscopy()], folder=tmp_path / name, seed=seed
        )
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )

    def contents(name):
        return {path.name: path.read_bytes() for path in (tmp_path / name).rglob("*.jpg")}

    assert contents("a") == contents("b") != contents("c")
    assert len(first) == len(again) == len(other) == 18


def test_images_of_one_name_from_several_folders_do_not_overwrite_one_another(dataset, tmp_path):
    table, shades = dataset.sample(3, balanced=True).table, [40, 120, 200]
    for number, shade in enumerate(shades):
        path = tmp_path / str(number) / "same.png"
        path.parent.mkdir()
        Image.new("RGB", (20, 20), (shade,) * 3).save(path)
        table.loc[number, ["path", "label"]] = str(path), "nevus"
    augmented = augment_dataset(replace(dataset, table=table), iaa.Fliplr(1), folder=tmp_path / "copies")
    assert [decode(path)[0, 0, 0] for path in augmented.paths] == pytest.approx(shades * 2, abs=2)


@pytest.mark.parametrize("label", ["../escaped", "a/b", "..", "C:\\x", "naevus, common"])
def test_a_label_stays_in_its_folder(dataset, tmp_path, label):
    table = dataset.sample(2, balanced=True).table.assign(label=["benign", label])
    augmented = augment_dataset(replace(dataset, table=table), iaa.Fliplr(1), folder=tmp_path / "in" / "here")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert sorted(map(str, files)) == sorted(augmented.paths[2:])
    assert {path.parent.parent for path in files} == {tmp_path / "in" / "here"}
    assert augmented.table["label"].tolist() == ["benign", label] * 2


def test_broken_images_are_named_before_anything_is_written(dataset, tmp_path):
    some = dataset.sample(4, balanced=True)
    for number, content in ((1, b"no image"), (3, open(some.paths[3], "rb").read()[:600])):
        (tmp_path / f"broken{number}.jpg").write_bytes(content)
        some.table.loc[number, "path"] = str(tmp_path / f"broken{number}.jpg")
    with pytest.raises(ImageError, match=r"2 of 4 images cannot be read(.|\n)*broken1(.|\n)*broken3"):
        augment_dataset(some, FLIPS, folder=tmp_path / "copies")
    assert not (tmp_path / "copies").exists()


def test_an_interrupted_write_leaves_no_half_image(dataset, tmp_path, monkeypatch):
    def full(self, file, *_, **__):
        with open(file, "wb") as half:
            half.write(b"\xff\xd8 half a pic")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        augment_dataset(dataset.sample(2, balanced=True), FLIPS, folder=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and not path.name.startswith(".")]


def test_copies_are_not_augmented_again(dataset, tmp_path):
    augmented = augment_dataset(dataset.sample(2, balanced=True), FLIPS, folder=tmp_path)
    for folder in (None, tmp_path / "more"):
        with pytest.raises(ValueError, match="holds augmented copies already"):
            augment_dataset(augmented, FLIPS, folder=folder)


def test_copies_do_not_pass_for_measured(dataset, tmp_path):
    augmented = augment_dataset(dataset.sample(2, balanced=True).measure(), iaa.Fliplr(1), folder=tmp_path)
    assert not {"sha256", "phash"} & set(augmented.table)
    assert augmented.measure().table["sha256"].nunique() == 4


def test_augmented_images_are_neither_split_nor_evaluated(dataset, tmp_path):
    augmented = augment_dataset(dataset, FLIPS)
    with pytest.raises(ValueError, match="split first"):
        augmented.split(0.5, 0.5)
    for images in (augmented, augment_dataset(dataset.sample(2, balanced=True), FLIPS, folder=tmp_path)):
        with pytest.raises(ValueError, match="as they were taken"):
            evaluate(None, images)


# the preview


def test_the_preview_shows_each_image_and_what_becomes_of_it(dataset):
    augmented = augment_dataset(dataset.sample(2, balanced=True), iaa.Add((10, 90)))
    figure = plots.augmented(augmented, images=5, views=3, size=32)
    assert len(figure.axes) == 2 * 4
    shown = [ax.images[0].get_array() for ax in figure.axes]
    assert np.array_equal(shown[0], decode(augmented.sample(2, balanced=True).paths[0], 32))
    assert len({view.tobytes() for view in shown}) == 8
    assert "Synthetic test image" in figure.get_supxlabel()
    plt.close(figure)


def test_the_augmentation_of_2018_mirrors_half_of_the_images_and_crops_each():
    image = np.tile(np.linspace(0, 255, 100, dtype=np.uint8)[None, :, None], (100, 1, 3))
    views = original_2018().augment_images([image] * 60)
    mirrored = [view[50, 0, 0] > view[50, -1, 0] for view in views]
    assert 15 < sum(mirrored) < 45
    ranges = [np.ptp(view[50, :, 0].astype(int)) for view in views]
    assert min(ranges) < 225 and all(
        view.shape == image.shape for view in views
    )  # up to a fifth of the width went


def test_a_description_is_the_same_before_and_after_use_and_tells_pipelines_apart():
    pipeline = dermoscopy()
    text = described(pipeline)
    pipeline(images=[np.zeros((64, 64, 3), np.uint8)] * 3)
    assert described([pipeline]) == text
    assert "Uniform(0.9, 1.15)" in text and "Choice(a=[0, 90, 180, 270]" in text and "Hair(" in text
    assert "Auto" not in text and "Deterministic" not in text and "Unnamed" not in text
    others = dermoscopy(shift=0.06), iaa.Add(10), iaa.Add(100), iaa.Multiply(1.05)
    assert len({text, *map(described, others)}) == 5


@pytest.mark.parametrize(
    "wrong",
    [iaa.Fliplr, None, lambda image: image, "dermoscopy", {"flip": iaa.Fliplr(0.5)}, {}, 3, b"x", [None]],
)
def test_what_is_no_augmenter_is_named(dataset, wrong):
    name = wrong[0] if isinstance(wrong, list) else wrong
    with pytest.raises(TypeError, match=re.escape(f"{name!r} is not an imgaug augmenter")):
        augment_dataset(dataset, wrong)
