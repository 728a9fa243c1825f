"""Names of images in tables, joined with the files; labels and columns in any spelling."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ANY_LETTER, ANY_NAME, draw

from isicvision import Evaluation, ImageDataset, plots, summary
from isicvision.data.annotation import Annotations

NAMES = [f"ISIC_{n:07d}" for n in range(8)]
PLAIN = "isic_id,lesion_id\n" + "".join(f"{name},IL_{n // 2}\n" for n, name in enumerate(NAMES))
ROWS = "image,label\n" + "".join(f"p{n},{('benign', 'malignant')[n % 2]}\n" for n in range(8))


@pytest.fixture
def per_label(tmp_path):
    """A folder per label with four (empty) images each."""
    for n, name in enumerate(NAMES):
        file = tmp_path / "data" / ("benign" if n < 4 else "malignant") / f"{name}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return tmp_path / "data"


@pytest.fixture
def flat(tmp_path):
    """A folder of eight (empty) images, p0.jpg to p7.jpg."""
    (tmp_path / "images").mkdir()
    for n in range(8):
        (tmp_path / "images" / f"p{n}.jpg").touch()
    return tmp_path


def from_csv(folder, content, name="m.csv", **options):
    (folder / name).write_text(content, encoding="utf-8")
    return ImageDataset.from_csv(folder / name, **options)


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t").encode("utf-16"),
        *(
            PLAIN.replace("isic_id", name)
            for name in ("img_id", "file_name", "ISIC_ID", "Image Name", "image-path")
        ),
        *(PLAIN.replace("lesion_id", name) for name in ("Lesion_ID", "lesion id", "LesionId", " lesion_id ")),
        PLAIN.replace("ISIC", "isic"),
        PLAIN.replace(",IL", " ,IL"),
        PLAIN.replace("\nISIC", ",\nISIC").replace("lesion_id,", "lesion_id"),
        PLAIN.replace("isic_id,", "name,image,").replace("\nISIC", "\nsomebody,ISIC"),
        PLAIN.replace("ISIC", "\N{LEFT-TO-RIGHT MARK}ISIC").replace(",IL", ",\N{SOFT HYPHEN}IL"),
        PLAIN.replace("isic_id", "isic_\N{ZERO WIDTH SPACE}id").replace("\nISIC", "\n\N{WORD JOINER}ISIC"),
        PLAIN.replace("ISIC_0", "ISIC_\N{FULLWIDTH DIGIT ZERO}"),
    ],
)
def test_a_folders_metadata_is_joined_however_it_is_spelled(per_label, content):
    (per_label / "metadata.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = ImageDataset.from_folder(per_label)
    assert dataset.table["group"].tolist() == [f"IL_{n // 2}" for n in range(8)]
    assert "lesion_id" in dataset.table
    assert dataset.notes[0].endswith("metadata.csv: 8 of 8 rows fit 8 of 8 images")


@pytest.mark.parametrize(
    "places",
    [
        ["Metadata.csv"],
        ["benign/metadata.csv", "malignant/METADATA.CSV"],
        ["metadata.csv.txt"],
        ["Metadata.tsv"],
        ["metadata.txt"],
    ],
)
def test_metadata_is_found_in_any_case_and_in_the_folders_of_the_labels(per_label, places):
    lines = PLAIN.splitlines()
    for number, place in enumerate(places):
        rows = lines[1:] if len(places) == 1 else lines[1 + 4 * number : 5 + 4 * number]
        (per_label / place).write_text("\n".join([lines[0], *rows]), encoding="utf-8")
    (per_label / "metadata.xlsx").write_bytes(b"PK\x03\x04")  # the table that it was saved from
    dataset = ImageDataset.from_folder(per_label)
    assert dataset.summary().loc["all", "groups"] == 4 and len(dataset.notes) == len(places)


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("metadata.xlsx", b"PK\x03\x04", "an Excel workbook .*save its table as CSV"),
        ("metadata.ods", b"PK\x03\x04", "an Excel workbook or a zip archive: save"),
        ("Metadata.parquet", b"PAR1", ".*a Parquet file: save its table as CSV"),
        ("metadata.jsonl", b'{"file_name": "a.jpg"}', "JSON: save it as CSV"),
    ],
)
def test_metadata_that_is_only_there_in_another_format_is_not_passed_over(per_label, name, content, what):
    (per_label / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is {what}"):
        ImageDataset.from_folder(per_label)


@pytest.mark.parametrize("name", ["patient", "Lesion", "subject_id", "case id", "PatID", "MRN", "lesion_no"])
def test_a_column_that_may_name_lesions_is_pointed_out(per_label, flat, name):
    (per_label / "metadata.csv").write_text(PLAIN.replace("lesion_id", name), encoding="utf-8")
    said = f"each image counts as a lesion of its own. If the column {name} names .* group_column='{name}'"
    with pytest.warns(UserWarning, match=said):
        dataset = ImageDataset.from_folder(per_label)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageDataset.from_folder(per_label, group_column=name).table["group"].nunique() == 4
    assert dataset.table["group"].nunique() == 8
    with pytest.warns(UserWarning, match=said):
        from_csv(flat, f"image,label,{name}\n" + "".join(f"p{n},{'ab'[n % 2]},{n // 2}\n" for n in range(8)))


@pytest.mark.parametrize("values", ["abcdefgh", "xxxxxxxx", "xy      "])
def test_a_column_that_names_none_twice_or_one_for_all_is_not_pointed_out(per_label, values):
    rows = [f"{name},{value}" for name, value in zip(NAMES, values, strict=True)]
    (per_label / "metadata.csv").write_text("\n".join(["isic_id,case", *rows]), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageDataset.from_folder(per_label)


def test_metadata_that_fits_some_warns_with_numbers_and_that_fits_none_is_refused(per_label):
    half = "\n".join([*PLAIN.splitlines()[:5], "ISIC_99,L9"])
    (per_label / "metadata.csv").write_text(half, encoding="utf-8")
    said = r"4 of 5 rows fit 4 of 8 images\. malignant/ISIC_0000004\.jpg has no row, and ISIC_99 in the table"
    with pytest.warns(UserWarning, match=said):
        ImageDataset.from_folder(per_label)
    (per_label / "metadata.csv").write_text(PLAIN.replace("ISIC_", "OTHER_"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"fits none of the 8 images: .*OTHER_0000000.*benign/ISIC_0000000\.jpg"
    ):
        ImageDataset.from_folder(per_label)
    (per_label / "metadata.csv").write_text(PLAIN.replace("isic_id", "number"), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"has no column that names the images.*it has: number, lesion_id\. Rename"
    ):
        ImageDataset.from_folder(per_label)


def test_rows_of_one_image_that_contradict_each_other_are_named(per_label, flat):
    (per_label / "metadata.csv").write_text(PLAIN + "ISIC_0000000,IL_9\n", encoding="utf-8")
    said = r"contradict each other in lesion_id for 1 image, such as .*ISIC_0000000\.jpg, which has IL_0 and IL_9"
    with pytest.warns(UserWarning, match=said):
        ImageDataset.from_folder(per_label)
    with pytest.warns(UserWarning, match="2 × its rows contradict each other: 'benign' and 'malignant'"):
        dataset = from_csv(flat, ROWS + "p0.jpg,malignant\np1,malignant\n")
    assert len(dataset) == 7 and not any(path.endswith("p0.jpg") for path in dataset.paths)
    assert dataset.set_aside["reason"].str.startswith("the same image stands in an earlier row").sum() == 1


def test_a_second_table_finds_the_images_of_the_first_by_the_same_rules(flat):
    lesions = "Image;Lesion ID\n" + "".join(f"P{n}.JPG{' ' if n else ''};L{n // 2}\n" for n in range(8))
    (flat / "lesions.csv").write_text(lesions, encoding="utf-8")
    dataset = from_csv(flat, ROWS, metadata=flat / "lesions.csv", group_column="Lesion_ID")
    assert dataset.table["group"].tolist() == [f"L{n // 2}" for n in range(8)]
    (flat / "lesions.csv").write_text("\n".join(lesions.splitlines()[:5]), encoding="utf-8")
    with pytest.warns(UserWarning, match=r"lesions\.csv: 4 of 4 rows fit 4 of 8 images\. p4 has no row"):
        dataset = from_csv(flat, ROWS, metadata=flat / "lesions.csv", group_column="Lesion_ID")
    assert dataset.table["group"].tolist()[4:] == dataset.paths[4:]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("12.jpg", "12.0"),
        ("scan_2.5.png", "scan_2.5"),
        pytest.param(
            "b\N{LATIN SMALL LETTER E WITH ACUTE}.jpg", "be\N{COMBINING ACUTE ACCENT}", marks=ANY_LETTER
        ),
        pytest.param(
            "be\N{COMBINING ACUTE ACCENT}.jpg", "b\N{LATIN SMALL LETTER E WITH ACUTE}.JPG", marks=ANY_LETTER
        ),
        pytest.param("m\udce4l.jpg", "mäl", marks=ANY_NAME),
        ("a b.jpg", "A  b.jpeg"),
        ("x.jfif", "x.jpg"),
        pytest.param("\N{RIGHT-TO-LEFT MARK}y.jpg", "y", marks=ANY_LETTER),
        ("n7.jpg", "n\N{FULLWIDTH DIGIT SEVEN}"),
        (" z.jpg", "z"),
    ],
)
def test_a_name_finds_its_file_though_it_is_written_otherwise(flat, file, name):
    (flat / "images" / file).touch()
    dataset = from_csv(flat, ROWS + f"{name},benign\n")
    assert Path(dataset.paths[-1]).name == file and len(dataset) == 9


def test_a_name_with_a_dot_takes_no_other_image(flat):
    (flat / "images" / "scan_2.png").touch()
    with pytest.warns(UserWarning, match=r"1 × no such image below .* \(such as scan_2\.5\)"):
        assert len(from_csv(flat, ROWS + "scan_2.5,benign\n")) == 8


def test_of_several_columns_the_one_that_fits_most_files_names_the_images(flat):
    rows = "name,image,photo,label\n" + "".join(f"Anna,{n},p{n},{'ab'[n % 2]}\n" for n in range(8))
    assert len(from_csv(flat, rows)) == 8
    with pytest.raises(
        FileNotFoundError, match=r"column 'image' begins with 0, 1, 2; below the folder lie p0\.jpg"
    ):
        from_csv(flat, rows, image_column="image", images=flat / "images")


def test_columns_that_are_named_as_ours_keep_apart(flat):
    rows = "image,dx,path,label,group,split,width,sublabel,augmented_from\n"
    rows += "".join(f"p{n},{'ab'[n % 2]},x,y,z,hair,7,q,r\n" for n in range(8))
    dataset = from_csv(flat, rows, label_column="dx")
    assert dataset.labels == ["a", "b"] and dataset.table["group"].tolist() == dataset.paths
    theirs = ["path", "label", "group", "split", "width", "sublabel", "augmented_from"]
    assert dataset.table.loc[0, [f"metadata_{name}" for name in theirs]].tolist() == [
        *"xyz",
        "hair",
        7,
        "q",
        "r",
    ]
    assert not {"split", "width", "sublabel", "augmented_from"} & {*dataset.table}
    dataset = from_csv(flat, rows, label_column="dx", group_column="group")
    assert set(dataset.table["group"]) == {"z"} and "metadata_group" not in dataset.table


def test_the_label_that_a_download_writes_beside_its_folders_is_no_second_one(per_label):
    lines = PLAIN.splitlines()
    rows = [f"{line},{'benign' if n < 4 else 'malignant'}" for n, line in enumerate(lines[1:])]
    (per_label / "metadata.csv").write_text("\n".join([f"{lines[0]},label", *rows]), encoding="utf-8")
    assert ImageDataset.from_folder(per_label).table.columns.tolist() == [
        *("path", "label", "group", "isic_id", "lesion_id")
    ]
    (per_label / "metadata.csv").write_text(
        "\n".join([f"{lines[0]},label", *rows[:-1], rows[-1] + "?"]), encoding="utf-8"
    )
    assert ImageDataset.from_folder(per_label).table["metadata_label"].tolist()[-1] == "malignant?"


@pytest.mark.parametrize(
    ("values", "label_map"),
    [
        (["0", "1"], {0: "benign", 1: "malignant"}),
        (["0.0", "1.0"], {0: "benign", 1: "malignant"}),
        (["0", "1"], {0.0: "benign", 1.0: "malignant"}),
        (["0", "1"], {False: "benign", True: "malignant"}),
        (["no", "yes"], {False: "benign", True: "malignant"}),
        (["FALSE", "TRUE"], {False: "benign", True: "malignant"}),
        (["0", "1"], {"no": "benign", "Yes": "malignant"}),
        (["01", "02"], {1: "benign", 2: "malignant"}),
        (["nv", "mel"], {"nv ": "benign", " mel": " malignant"}),
        (["NV", "MEL"], {"nv": "benign", "mel": "malignant"}),
        (["benign_nevus", "Melanoma in_situ"], {"benign nevus": "benign", "melanoma_in_situ": "malignant"}),
    ],
)
def test_a_label_map_fits_however_its_keys_are_written(flat, values, label_map):
    rows = "image,dx\n" + "".join(f"p{n},{values[n % 2]}\n" for n in range(8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = from_csv(flat, rows, label_column="dx", label_map=label_map)
    assert dataset.table["label"].tolist() == ["benign", "malignant"] * 4


def test_a_label_map_says_what_it_read_loosely_leaves_out_null_and_refuses_what_fits_nothing(flat):
    rows = "image,dx\n" + "".join(f"p{n},{('NV', 'mel', 'bkl')[n % 3]}\n" for n in range(8))
    kinds = {"nv": "benign", "mel": "malignant", "bcc": "malignant", "bkl": None}
    with pytest.warns(UserWarning) as said:
        dataset = from_csv(flat, rows, label_column="dx", label_map=kinds)
    assert any("label_map has other spellings; read 'NV' as 'nv'" in str(each.message) for each in said)
    assert dataset.labels == ["benign", "malignant"] and set(dataset.table["sublabel"]) == {"nv", "mel"}
    assert dataset.set_aside["reason"].tolist() == ["left out by label_map: 'bkl'"] * 2
    with pytest.raises(
        ValueError, match=r"the labels are 'NV' \(3\), 'mel' \(3\), 'bkl' \(2\); the map has 'x'"
    ):
        from_csv(flat, rows, label_column="dx", label_map={"x": "y"})
    with pytest.raises(ValueError, match="label_map has '1' twice, as 'a' and 'b'"):
        from_csv(flat, rows, label_column="dx", label_map={1: "a", "1": "b"})
    with pytest.raises(ValueError, match="label_map is a dict such as"):
        from_csv(flat, rows, label_column="dx", label_map=["nv"])


def test_a_key_that_fits_two_ways_is_not_guessed(flat):
    rows = "image,dx\n" + "".join(f"p{n},{('NV', 'nv', 'Nv')[n % 3]}\n" for n in range(8))
    with pytest.warns(UserWarning, match="label 'Nv' is not in label_map"):
        dataset = from_csv(flat, rows, label_column="dx", label_map={"NV": "a", "nv": "b"})
    assert dataset.table["label"].value_counts().to_dict() == {"a": 3, "b": 3}


def test_labels_that_differ_only_in_spelling_are_named(flat):
    rows = "image,dx\n" + "".join(f"p{n},{('Benign', 'benign', 'mel')[n % 3]}\n" for n in range(8))
    with pytest.warns(UserWarning, match=r"labels 'Benign' \(3\) and 'benign' \(3\) differ only in spelling"):
        from_csv(flat, rows, label_column="dx")


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("1,0", "0,0"),
        ("x", ""),
        ("1.0", "0.0"),
        ("TRUE", "FALSE"),
        ("yes", "no"),
        ("t", "f"),
        ("1", "-1"),
        ("x", "–"),
        ("present", "absent"),
    ],
)
def test_one_column_a_label_may_mark_it_in_many_ways(flat, yes, no):
    rows = "image;MEL;NV\n" + "".join(f"p{n};{(yes, no)[n % 2]};{(no, yes)[n % 2]}\n" for n in range(8))
    for content in (
        rows,
        "\n".join(",".join(f'"{c}"' for c in line.split(";")) for line in rows.splitlines()),
    ):
        assert (
            from_csv(flat, content, label_column=["mel", "nv"]).table["label"].tolist() == ["mel", "nv"] * 4
        )


def test_whole_numbers_with_a_decimal_point_are_the_labels_of_folders_too(flat):
    rows = "image,target\n" + "".join(f"p{n},{float(n % 2)}\n" for n in range(8))
    assert from_csv(flat, rows, label_column="target").labels == ["0", "1"]


def test_relabel_takes_numbers_as_labels(flat):
    dataset = from_csv(flat, ROWS.replace("benign", "0").replace("malignant", "1"))
    assert dataset.relabel({dataset.paths[0]: 1}).table["label"].tolist()[0] == "1"
    assert len(dataset.relabel({dataset.paths[0]: float("nan")})) == 7


def test_a_saved_dataset_that_lacks_a_label_is_refused_by_row(flat):
    dataset = from_csv(flat, ROWS)
    file = dataset.save(flat / "saved.csv")
    file.write_text(file.read_text(encoding="utf-8").replace("p1.jpg,malignant", "p1.jpg,"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"saved\.csv, row 2: no label"):
        ImageDataset.load(file)


@ANY_NAME
def test_a_label_that_is_not_utf8_can_be_printed_and_its_files_are_found(tmp_path):
    for n in range(4):
        folder = tmp_path / os.fsdecode((b"gut", b"b\xf6se")[n % 2])
        folder.mkdir(exist_ok=True)
        (folder / os.fsdecode(b"\xe4%d.jpg" % n)).touch()
    dataset = ImageDataset.from_folder(tmp_path)
    assert dataset.labels == ["böse", "gut"] and all(map(os.path.exists, dataset.paths))
    loaded = ImageDataset.load(dataset.save(tmp_path / "saved.csv"))
    pd.testing.assert_frame_equal(loaded.table, dataset.table)


@ANY_NAME
def test_names_of_files_that_are_not_utf8_survive_every_writer(tmp_path):
    for n in range(24):
        path = draw(tmp_path / "d" / ("gut", "schlecht")[n % 2] / f"{n}.jpg", (170, 120, 100), n)
        path.rename(os.fsdecode(os.fsencode(path.parent) + b"/m\xe4l%d.jpg" % n))
    (tmp_path / "d" / "gut" / os.fsdecode(b"\xe4.heic")).touch()
    (tmp_path / "d" / "gut" / os.fsdecode(b"br\xe4.jpg")).write_text("no image", encoding="utf-8")
    with pytest.warns(
        UserWarning, match=r"HEIC files cannot be read: save it as JPEG or PNG \(such as ä\.heic\)"
    ):
        dataset = ImageDataset.from_folder(tmp_path / "d").measure()
    assert len(dataset) == 24 and len(dataset.set_aside) == 2
    shown = dataset.problems().query("problem == 'unreadable'")
    for text in (repr(dataset), dataset.set_aside.to_html(), dataset.set_aside.to_json(), shown.to_html()):
        text.encode()
    summary.write(dataset, tmp_path / "report")
    plots.grid(dataset.sample(2), titles=dataset.sample(2).paths).savefig(tmp_path / "grid.png")
    scores = np.linspace(0, 1, 24)
    evaluation = Evaluation.from_scores(
        dataset.table["label"], scores, classes=dataset.labels, metadata=dataset.table
    )
    loaded = Evaluation.load(evaluation.save(tmp_path / "predictions.csv"))
    assert loaded.table["path"].tolist() == dataset.paths
    annotations = Annotations(dataset, tmp_path / "log.csv")
    annotations.decide(dataset.paths[0], "schlecht")
    assert Annotations(dataset, tmp_path / "log.csv").label(dataset.paths[0]) == "schlecht"
    json.dumps(dataset.manifest()).encode()


def test_a_second_table_fills_gaps_and_the_first_wins_where_they_contradict(flat):
    first = "image,label,lesion_id\n" + "".join(f"p{n},{'ab'[n % 2]},{'X' * (n == 0)}\n" for n in range(8))
    (flat / "second.csv").write_text(
        "image,Lesion ID\n" + "".join(f"p{n},L{n // 2}\n" for n in range(8)), encoding="utf-8"
    )
    with pytest.warns(
        UserWarning,
        match=r"m\.csv with .*second\.csv: .* lesion_id for 1 image, such as p0, which has X and L0; the first counts",
    ):
        dataset = from_csv(flat, first, metadata=flat / "second.csv")
    assert dataset.table["group"].tolist() == ["X", *(f"L{n // 2}" for n in range(1, 8))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = from_csv(flat, first.replace("X", ""), metadata=flat / "second.csv", positive="b")
    assert dataset.table["group"].tolist() == [f"L{n // 2}" for n in range(8)]


@pytest.mark.parametrize(
    ("ids", "group"),
    [(["1", "1.0"], "1"), (["IL_0", " IL_0 "], "IL_0"), (["IL_0", "il_0"], "IL_0"), (["007", "007"], "007")],
)
def test_one_patient_has_one_id_however_it_is_written(per_label, ids, group):
    for label, numbers, name in (("benign", range(4), ids[0]), ("malignant", range(4, 8), ids[1])):
        rows = "".join(f"{NAMES[n]},{name}\n" for n in numbers)
        (per_label / label / "metadata.csv").write_text("isic_id,patient_id\n" + rows, encoding="utf-8")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert set(ImageDataset.from_folder(per_label).table["group"]) == {group}
    assert len(said) == ("il_0" in ids) and (
        "such as il_0 and IL_0" in str(said[0].message) if said else True
    )


@pytest.mark.parametrize("word", ["unknown", "-", "N/A", "None", "?", "  ", "n.a.", "#N/A", "nil"])
def test_a_word_for_an_unknown_lesion_is_no_lesion(flat, word):
    rows = "image,label,lesion_id\n" + "".join(f"p{n},{'ab'[n % 2]},{word}\n" for n in range(7)) + "p7,b,0\n"
    dataset = from_csv(flat, rows)
    assert dataset.table["group"].tolist() == [*dataset.paths[:7], "0"]


@pytest.mark.parametrize(("word", "images"), [("x", 20), ("-1", 50)])
def test_an_id_of_many_images_is_named(flat, word, images):
    for n in range(8, images):
        (flat / "images" / f"p{n}.jpg").touch()
    rows = "image,label,lesion_id\n" + "".join(
        f"p{n},{'ab'[n % 2]},{word if n < 11 else n}\n" for n in range(images)
    )
    with pytest.warns(UserWarning, match=f"11 of {images} images have the lesion or patient '{word}'"):
        from_csv(flat, rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "11 of")
        from_csv(flat, rows.replace(f"p10,a,{word}", "p10,a,own"))


@pytest.mark.parametrize("column", ["lesion_id", "age"])
def test_many_images_of_which_no_lesion_is_known_stand_alone(flat, column):
    for n in range(8, 20):
        (flat / "images" / f"p{n}.jpg").touch()
    rows = f"image,label,{column}\n" + "".join(f"p{n},{'ab'[n % 2]},\n" for n in range(20))
    dataset = from_csv(flat, rows)
    assert dataset.table["group"].tolist() == dataset.paths


def test_a_blank_group_of_scores_is_unknown():
    evaluation = Evaluation.from_scores(["benign", "malignant"], [0.1, 0.9], groups=["", " "])
    assert evaluation.table["group"].nunique() == 2


@pytest.mark.parametrize("label", ["benign", "zebra"])
def test_the_nearest_of_two_metadata_tables_counts(per_label, label):
    (per_label / "benign").rename(per_label / label)
    (per_label / "metadata.csv").write_text(PLAIN, encoding="utf-8")
    (per_label / label / "metadata.csv").write_text(
        "isic_id,lesion_id\nISIC_0000000,other\nISIC_0000001,\n", encoding="utf-8"
    )
    with pytest.warns(UserWarning) as said:
        table = ImageDataset.from_folder(per_label).table.set_index("isic_id")
    assert any("in lesion_id for 1 image, such as " in str(each.message) for each in said)
    assert table["group"][NAMES[:3]].tolist() == ["other", "IL_0", "IL_1"]


def test_images_may_be_called_as_what_is_missing(flat):
    for name in ("nan", "NA", "null"):
        (flat / "images" / f"{name}.jpg").touch()
    dataset = from_csv(flat, ROWS + "nan,benign\nNA,benign\nnull,benign\n")
    assert len(dataset) == 11 and dataset.set_aside.empty


def test_a_label_map_takes_one_label_for_each(flat):
    for value in (["b"], {"b": 1}):
        with pytest.raises(ValueError, match="label_map has .* for 'benign': give one label, or None"):
            from_csv(flat, ROWS, label_map={"benign": value, "malignant": "m"})


@pytest.mark.parametrize("sign", ["\u200d", "\u200c"])
def test_labels_that_differ_in_an_invisible_character_are_named(flat, sign):
    rows = "image,label\n" + "".join(f"p{n},{('nevus', f'ne{sign}vus', 'mel')[n % 3]}\n" for n in range(8))
    with pytest.warns(UserWarning, match="differ only in spelling"):
        from_csv(flat, rows)


@pytest.mark.parametrize("option", ["group_column", "sublabel_column"])
def test_a_column_of_metadata_that_is_not_there_is_said(per_label, option):
    with pytest.raises(ValueError, match=r"the column 'lesion' is not there: .* has no metadata\.csv"):
        ImageDataset.from_folder(per_label, **{option: "lesion"})
