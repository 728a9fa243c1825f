"""Folders as people keep them: parts of a split, folders of the system, other formats, links, twins."""

import os
import warnings
import zipfile
from pathlib import Path

import pytest
from conftest import ANY_NAME, LINKS, POSIX, draw
from PIL import Image

from isicvision import ImageDataset


def touch(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


TWO = [f"{label}/{n}.jpg" for label in ("benign", "malignant") for n in range(3)]


@pytest.mark.parametrize("above", ["", "kaggle/"])
@pytest.mark.parametrize(
    "parts",
    [
        ("train", "test"),
        ("Train", "Val", "TEST"),
        ("training", "validation", "test/test"),
        ("train_set", "test data"),
        ("train", "dev", "test"),
        ("Training Data", "val_data", "testset"),
    ],
)
def test_a_folder_per_part_of_a_split_is_read_by_the_folders_below(tmp_path, above, parts):
    touch(tmp_path, *(f"{above}{part}/{file}" for part in parts for file in TWO))
    with pytest.warns(UserWarning, match="has a folder per part of a split .*column split"):
        dataset = ImageDataset.from_folder(tmp_path)
    assert dataset.labels == ["benign", "malignant"] and len(dataset) == 6 * len(parts)
    expected = {"train", "test"} | ({"validation"} if len(parts) == 3 else set())
    assert set(dataset.table["split"]) == expected
    assert (dataset.table["split"] == "test").sum() == 6


def test_images_of_a_part_that_have_no_label_are_set_aside(tmp_path):
    touch(tmp_path, *(f"train/{file}" for file in TWO), "test/a.jpg", "test/b.jpg")
    with pytest.warns(UserWarning, match="2 × it lies in no label's folder"):
        dataset = ImageDataset.from_folder(tmp_path)
    assert len(dataset) == 6 and [Path(path).name for path in dataset.set_aside["path"]] == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/a.jpg", "test/b.jpg"], "parts of a split .* without a folder per label in them.*from_csv"),
        ([*TWO, "test/a.jpg"], r"has folders of a split \(test\) beside others \(benign, malignant\)"),
        (
            ["HAM10000_images_part_1/a.jpg", "HAM10000_images_part_2/b.jpg"],
            "are no labels but parts of one collection",
        ),
        (["images/a.jpg", "masks/a.png"], "are no labels but parts of one collection.*from_csv"),
        (
            [f"data/{file}" for file in TWO],
            r"has one folder with images, data, .*\(benign, malignant\) are",
        ),
        *(
            (
                [f"{above}/{file}" for above in names for file in TWO],
                "are no labels but parts of one collection. Move the images into one folder per label",
            )
            for names in (
                ("fold1", "fold2"),
                ("hospitalA", "hospitalB"),
                ("2018", "2019"),
                ("set_1", "set_2"),
                ("patient 1", "patient 2"),
                ("2019-01-05", "2019-02-05"),
                ("100CANON", "101CANON"),
                ("images", "labels"),
            )
        ),
        *(
            ([*TWO, f"{copy}/a.jpg"], "has the folders benign and .*seems to be a copy")
            for copy in (
                "benign - Copy",
                "benign (1)",
                "Copy of benign",
                "benign copy 2",
                "benign - Copy (2)",
                "benign (copy)",
                "benign_old",
                "benign.bak",
                "benign~",
                "Copia de benign",
                "benign - Kopie",
            )
        ),
    ],
)
def test_folders_that_are_no_labels_are_refused_with_what_to_do(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        ImageDataset.from_folder(touch(tmp_path, *files))


@pytest.mark.parametrize(
    "names",
    [
        ("grade_1", "grade_2"),
        ("0", "1"),
        ("class 1", "class 2"),
        ("testis", "trainings"),
        ("nevus", "copy of nothing"),
        ("nevus", "nevus 2"),
    ],
)
def test_labels_that_look_a_little_like_parts_are_labels(tmp_path, names):
    touch(tmp_path, *(f"{name}/{n}.jpg" for name in names for n in range(2)))
    assert ImageDataset.from_folder(tmp_path).labels == sorted(names)


def test_folders_and_files_of_the_system_are_passed_over_at_any_depth(tmp_path):
    system = [
        "@eaDir",
        "$RECYCLE.BIN",
        "lost+found",
        "System Volume Information",
        "__MACOSX",
        "#recycle",
        ".Trash-0",
        *("@tmp", "Network Trash Folder", "Temporary Items", "CachedImages", "~snapshot"),
    ]
    touch(tmp_path, *TWO, *(f"{place}{name}/x/0.jpg" for name in system for place in ("", "benign/")))
    touch(tmp_path, "benign/._0.jpg", "benign/Thumbs.db", "malignant/.DS_Store")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = ImageDataset.from_folder(tmp_path)
    assert len(dataset) == 6 and dataset.set_aside.empty


def test_formats_that_cannot_be_read_are_set_aside_and_a_label_that_vanishes_is_named(tmp_path):
    touch(
        tmp_path,
        *TWO,
        *(f"suspicious/{n}.HEIC" for n in range(4)),
        "benign/a.gif",
        "benign/b.avif",
        "benign/c.jp2",
    )
    with pytest.warns(
        UserWarning, match="7 images set aside.*Nothing is left of the label suspicious"
    ) as said:
        dataset = ImageDataset.from_folder(tmp_path)
    assert "4 × HEIC files cannot be read: save it as JPEG or PNG (such as 0.HEIC)" in str(said[0].message)
    assert len(dataset) == 6 and len(dataset.set_aside) == 7
    touch(tmp_path / "heic", "benign/a.heic", "malignant/b.heic")
    with pytest.raises(ValueError, match="0 label"), pytest.warns(UserWarning, match="2 images set aside"):
        ImageDataset.from_folder(tmp_path / "heic")
    (tmp_path / "t.csv").write_text("image,label\n0,a\n1,b\nb,b\n2.jpg,a\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="1 × AVIF files cannot be read"):
        ImageDataset.from_csv(tmp_path / "t.csv", images=tmp_path / "benign")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF"])
def test_images_whose_names_do_not_say_so_are_set_aside_and_not_passed_over(tmp_path, kind):
    touch(tmp_path, *TWO, "benign/notes", "benign/list.json")
    for name in ("IMG_1", "b.jpg_large", "c.jpg.crdownload", "d.mpo"):
        Image.new("RGB", (9, 9)).save(tmp_path / "benign" / name, kind)
    with pytest.warns(UserWarning, match="4 × it is an image, but its name .* rename it, .*such as IMG_1"):
        dataset = ImageDataset.from_folder(tmp_path)
    assert len(dataset) == 6 and len(dataset.set_aside) == 4
    (tmp_path / "t.csv").write_text("image,label\n0,a\n1,b\nIMG_1,b\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="1 × it is an image, but its name"):
        ImageDataset.from_csv(tmp_path / "t.csv", images=tmp_path / "benign")


def test_jpegs_by_other_endings_are_read(tmp_path):
    for n, ending in enumerate(("jfif", "jpe", "jif", "JPG")):
        draw(tmp_path / ("benign", "malignant")[n % 2] / "x.jpg", (170, 120, 100), n).rename(
            tmp_path / ("benign", "malignant")[n % 2] / f"{n}.{ending}"
        )
    dataset = ImageDataset.from_folder(tmp_path).measure()
    assert (
        len(dataset) == 4
        and set(dataset.table["format"]) == {"JPEG"}
        and dataset.problems()["problem"].tolist() == ["tiny"] * 0
    )


@LINKS
def test_links_are_followed_but_not_in_circles(tmp_path):
    store = touch(tmp_path / "store", *TWO)
    root = tmp_path / "data"
    (root / "benign").mkdir(parents=True)
    (root / "benign" / "linked.jpg").symlink_to(store / "benign" / "0.jpg")
    (root / "benign" / "again").symlink_to(root)
    (root / "malignant").symlink_to(store / "malignant")
    dataset = ImageDataset.from_folder(root)
    assert dataset.summary()["images"].to_dict() == {"benign": 1, "malignant": 3, "all": 4}


def test_images_beside_the_folders_of_the_labels_are_set_aside(tmp_path):
    with pytest.warns(UserWarning, match=r"1 × it lies in no label's folder \(such as loose\.jpg\)"):
        dataset = ImageDataset.from_folder(touch(tmp_path, *TWO, "loose.jpg"))
    assert len(dataset) == 6


@ANY_NAME
def test_labels_that_differ_only_in_case_are_named(tmp_path):
    with pytest.warns(UserWarning, match=r"'Benign' \(1\) and 'benign' \(3\) differ only in spelling"):
        ImageDataset.from_folder(touch(tmp_path, *TWO, "Benign/x.jpg"))


def test_what_is_no_folder_says_what_it_is(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        file.writestr("benign/a.jpg", "")
    with pytest.raises(FileNotFoundError, match=r"data\.zip is not a folder but a file: .*unpack an archive"):
        ImageDataset.from_folder(tmp_path / "data.zip")
    touch(tmp_path, *TWO)
    with pytest.raises(FileNotFoundError, match=r"0\.jpg is not a folder but a file: give its folder"):
        ImageDataset.from_folder(tmp_path / "benign" / "0.jpg")
    with pytest.raises(FileNotFoundError, match=r"If it is itself the folder of a label, give "):
        ImageDataset.from_folder(tmp_path / "benign")
    with pytest.raises(ValueError, match="the path is empty"):
        ImageDataset.from_folder("")
    monkeypatch.setenv("HOME", str(tmp_path.parent))
    assert len(ImageDataset.from_folder(f"~/{tmp_path.name}")) == 6


@pytest.mark.parametrize("below", [("2018", "2019"), ("train", "test")])
def test_labels_with_the_same_folders_in_each_are_labels(tmp_path, below):
    touch(tmp_path, *(f"{label}/{name}/0.jpg" for label in ("benign", "malignant") for name in below))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageDataset.from_folder(tmp_path).labels == ["benign", "malignant"]


def test_folders_that_may_be_labels_on_two_levels_are_named(tmp_path):
    touch(tmp_path, *(f"{color}/{file}" for color in ("blue", "red") for file in TWO))
    with pytest.warns(
        UserWarning, match="labels are blue, red; each of .* has the folders benign, malignant"
    ):
        assert ImageDataset.from_folder(tmp_path).labels == ["blue", "red"]


@pytest.mark.parametrize(
    "name", ["masks", "Segmentation", "thumbs", "backup", "_cache", "Superpixels", "overlay", "tmp", "Trash"]
)
@pytest.mark.parametrize("above", ["", "train/"])
def test_masks_beside_the_labels_are_set_aside(tmp_path, name, above):
    touch(tmp_path, *(above + file for file in TWO), f"{above}{name}/benign/0.jpg")
    touch(tmp_path, *(f"test/{file}" for file in TWO if above))
    with pytest.warns(UserWarning, match=f"1 × the folder {name} is not a label"):
        assert ImageDataset.from_folder(tmp_path).labels == ["benign", "malignant"]
    touch(tmp_path / "two", "benign/0.jpg", f"{name}/0.jpg")
    assert len(ImageDataset.from_folder(tmp_path / "two").labels) == 2


@POSIX
def test_a_pipe_called_as_an_image_is_set_aside(tmp_path):
    touch(tmp_path, *TWO)
    os.mkfifo(tmp_path / "benign" / "pipe.jpg")
    os.mkfifo(tmp_path / "metadata.csv")
    with pytest.warns(UserWarning, match=r"1 × it is not a file but .* \(such as pipe\.jpg\)"):
        assert len(ImageDataset.from_folder(tmp_path)) == 6
