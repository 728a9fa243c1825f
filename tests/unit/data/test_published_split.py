"""A published split is taken as it is, and refused if it leaks or says anything but train, validation and test."""

import numpy as np
import pandas as pd
import pytest
from conftest import draw

from isicvision import ImageDataset, splitting

SAID = ["train"] * 4 + ["val"] * 2 + ["test"] * 2


def tabled(said, groups=None, hashes=None, column="split"):
    paths = [f"p{number}.jpg" for number in range(len(said))]
    table = pd.DataFrame({"path": paths, "label": ["benign", "malignant"] * (len(said) // 2)})
    table["group"] = groups or paths
    table["phash"] = hashes or [f"{number:016x}" for number in range(len(said))]
    return ImageDataset(table.assign(**{column: said}))


def test_the_parts_are_those_of_the_column_in_any_spelling():
    said = ["Train", "training", "TRAIN ", "train_set", "val", "valid", "testing", "test"]
    parts = splitting.published(tabled(said), "split")
    assert [*parts] == ["train", "validation", "test"]
    assert [part.paths for part in parts.values()] == [
        ["p0.jpg", "p1.jpg", "p2.jpg", "p3.jpg"],
        ["p4.jpg", "p5.jpg"],
        ["p6.jpg", "p7.jpg"],
    ]


def test_a_column_split_of_the_users_table_is_found_under_the_name_that_reading_gave_it():
    parts = splitting.published(tabled(SAID, column="metadata_split"), "split")
    assert [len(part) for part in parts.values()] == [4, 2, 2]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            [*SAID[:-1], "holdout"],
            "the column split has 'holdout' for 1 image: it may say train, validation or",
        ),
        ([*SAID[:-2], None, None], "the column split is empty for 2 images"),
        ([*SAID[:-2], "val", "val"], "the column split puts no image into test: a split needs"),
        (["train", "test", "train", "test", "val", "val"], "no image labeled malignant into train"),
    ],
)
def test_a_column_that_says_anything_else_or_lacks_a_part_is_refused(said, message):
    with pytest.raises(ValueError, match=message):
        splitting.published(tabled(said), "split")


def test_a_lesion_in_two_parts_is_named():
    groups = ["L0", "L1", "L2", "L3", "L4", "L5", "L1", "L7"]
    with pytest.raises(
        ValueError, match=r"split leaks: 1 lesions or patients in several parts, such as L1\."
    ):
        splitting.published(tabled(SAID, groups), "split")


def test_a_copy_of_an_image_in_two_parts_is_named():
    hashes = [f"{number:016x}" for number in [0, 1, 2, 3, 4, 5, 0, 7]]
    with pytest.raises(ValueError, match=r"1 images with a copy in several parts, such as p0\.jpg = p6\.jpg"):
        splitting.published(tabled(SAID, hashes=hashes), "split")


def test_without_validation_images_a_quarter_of_the_training_lesions_is_taken():
    dataset = tabled(["train"] * 16 + ["test"] * 4, [f"L{n // 4}{n % 2}" for n in range(20)])
    with pytest.warns(UserWarning, match="has no validation images: a quarter of the training lesions"):
        parts = splitting.published(dataset, "split", seed=3)
    assert [len(part) for part in parts.values()] == [12, 4, 4]
    assert not {*parts["train"].table["group"]} & {*parts["validation"].table["group"]}


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(ValueError, match="no column 'fold' to split by; there are: path, label"):
        splitting.published(tabled(SAID), "fold")


def test_folders_of_parts_are_a_published_split(tmp_path):
    number = 0
    for part, count in (("training", 3), ("valid", 2), ("test", 2)):
        for label, color in (("benign", (170, 120, 100)), ("malignant", (100, 120, 170))):
            for _ in range(count):
                number += 1
                draw(tmp_path / part / label / f"p{number}.png", color, number)
    with pytest.warns(UserWarning, match="SPLIT_COLUMN: split"):
        dataset = ImageDataset.from_folder(tmp_path)
    parts = splitting.published(dataset, "split")
    assert [len(part) for part in parts.values()] == [6, 4, 4]
    assert np.all(["/valid/" in path for path in parts["validation"].paths])
