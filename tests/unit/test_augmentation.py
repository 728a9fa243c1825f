import numpy as np
import pytest
from imgaug import augmenters as iaa

from isicvision import augment_dataset, evaluate, pixels
from isicvision.augmentation import Pipeline

FLIPS = iaa.Sequential([iaa.Fliplr(0.5), iaa.Multiply((0.5, 1.5))])


def test_on_the_fly_keeps_the_table_and_remembers_the_pipelines(dataset):
    augmented = augment_dataset(dataset, [FLIPS, iaa.Flipud(1)])
    assert augmented.table is dataset.table and len(augmented.augmenters) == 2


def test_materialised_copies_remember_picture_lesion_and_licence(dataset, tmp_path):
    augmented = augment_dataset(dataset.sample(4), [iaa.Fliplr(1.0)], folder=tmp_path)
    assert len(augmented) == 8
    copies = augmented.table[augmented.table["augmented_from"].notna()]
    originals = dataset.table.set_index("path").loc[copies["augmented_from"]]
    for column in ("label", "group", "attribution"):
        assert copies[column].tolist() == originals[column].tolist()
    one = copies.iloc[0]
    flipped = pixels.decode(one["augmented_from"])[:, ::-1].astype(int)
    assert np.abs(pixels.decode(one["path"]) - flipped).mean() < 12  # JPEG noise


def test_a_pipeline_repeats_itself_for_the_same_step_and_varies_between_steps():
    pictures = np.random.default_rng(0).integers(0, 255, (8, 32, 32, 3), np.uint8)
    first, again = Pipeline([FLIPS], seed=1), Pipeline([FLIPS], seed=1)
    first(pictures, 0)
    assert np.array_equal(first(pictures, 7), again(pictures, 7))
    assert not np.array_equal(again(pictures, 7), again(pictures, 8))
    assert not np.array_equal(again(pictures, 7), Pipeline([FLIPS], seed=2)(pictures, 7))


def test_the_callers_augmenter_and_numpys_generator_stay_untouched():
    pictures = np.zeros((4, 16, 16, 3), np.uint8)
    state = np.random.get_state()[1].copy()
    Pipeline([FLIPS], seed=1)(pictures, 0)
    assert (np.random.get_state()[1] == state).all()


@pytest.mark.parametrize(
    "bad", [iaa.Crop(px=4, keep_size=False), iaa.Lambda(lambda images, *_: [i / 2 for i in images])]
)
def test_a_pipeline_that_changes_the_pictures_kind_is_refused(bad):
    with pytest.raises(ValueError, match="must keep size, channels and type"):
        Pipeline([bad], seed=0)(np.full((2, 32, 32, 3), 9, np.uint8), 0)


def test_what_is_no_augmenter_is_refused(dataset):
    with pytest.raises(TypeError, match="is no imgaug augmenter"):
        augment_dataset(dataset, ["flip"])
    with pytest.raises(ValueError, match="augmenters is empty"):
        augment_dataset(dataset, [])


def test_augmented_pictures_are_neither_split_nor_evaluated(dataset, tmp_path):
    augmented = augment_dataset(dataset, FLIPS)
    with pytest.raises(ValueError, match="split first"):
        augmented.split(0.5, 0.5)
    for pictures in (augmented, augment_dataset(dataset.sample(2), FLIPS, folder=tmp_path)):
        with pytest.raises(ValueError, match="as they were taken"):
            evaluate(None, pictures)
