import hashlib
import os
import shutil
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ANY_NAME, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isicvision import ImageDataset, associations, cards, plots, summary
from isicvision.data import cache
from isicvision.fields import MEASURES

CODE = Path(__file__).resolve().parents[3] / "code"

HAM_LABELS = {label: "malignant" for label in ("mel", "bcc", "akiec")} | {
    label: "benign" for label in ("nv", "bkl", "df", "vasc")
}


@pytest.fixture
def csv(folder, tmp_path):
    rows = [f"p{n:02d},{'nv' if n % 2 == 0 else 'mel'},L{n // 4}{n % 2}" for n in range(24)]
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join(["image_id,dx,lesion_id", *rows]), encoding="utf-8")
    return path


def test_a_folder_per_label_is_indexed_and_metadata_joined(folder):
    dataset = ImageDataset.from_folder(folder)
    assert len(dataset) == 24 and dataset.labels == ["benign", "malignant"]
    assert dataset.table.loc[0, ["isic_id", "lesion_id", "group"]].tolist() == ["p00", "L00", "L00"]
    assert dataset.summary().loc["all", "groups"] == 12


def test_without_lesions_each_image_is_its_own_group(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("metadata.csv"))
    dataset = ImageDataset.from_folder(copy)
    assert dataset.table["group"].nunique() == 24
    assert dataset.summary().loc["all"].tolist() == [24, "unknown", 1, ""]


def test_a_folder_without_images_says_what_is_expected(tmp_path):
    (tmp_path / "benign").mkdir()
    with pytest.raises(FileNotFoundError, match="no images.*folder per label.*from_csv"):
        ImageDataset.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        ImageDataset.from_folder(tmp_path / "absent")


def test_one_label_only_is_refused(folder):
    with pytest.raises(ValueError, match=r"1 label \(benign\).*from_csv.*LABEL_COLUMN"):
        ImageDataset.from_folder(
            shutil.copytree(folder, folder.parent / "one", ignore=lambda *_: ["malignant"])
        )


def test_the_positive_label_is_derived_or_chosen_kept_and_printed(csv, folder, dataset):
    assert dataset.positive == "malignant" and "positive label: malignant" in repr(dataset)
    read = {"csv": csv, "images": folder, "label_column": "dx"}
    with pytest.warns(
        UserWarning, match="neither 'mel' nor 'nv' is known as the positive label: 'nv' is taken"
    ):
        assert ImageDataset.from_csv(**read).positive == "nv"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = ImageDataset.from_csv(**read, positive=" mel ")
        nevi = chosen.where(chosen.table["label"] == "nv")
        parts = chosen.sample(20).relabel({chosen.sample(20).paths[0]: "mel"}).split(0.5, 0.5)
        assert {chosen.positive, nevi.positive, *(part.positive for part in parts)} == {"mel"}
        assert chosen.summary()["positive"].to_dict() == {"mel": "yes", "nv": "", "all": ""}
        assert ImageDataset.load(chosen.save(folder.parent / "saved.csv"), positive="mel").positive == "mel"
        assert ImageDataset.from_folder(folder, positive="benign").positive == "benign"
        assert chosen.relabel({path: "benign" for path in chosen.paths}).positive is None
    for read in (
        lambda: ImageDataset.from_folder(folder, positive="wart"),
        lambda: ImageDataset.load(folder.parent / "saved.csv", positive="wart"),
    ):
        with pytest.raises(ValueError, match="the positive label 'wart' is not one of"):
            read()


def test_a_data_frame_is_read_as_its_csv_is(csv, folder, tmp_path):
    options = {"images": folder, "label_column": "dx", "label_map": HAM_LABELS}
    read = ImageDataset.from_csv(csv, **options)
    taken = ImageDataset.from_table(pd.read_csv(csv).set_index("dx", drop=False), **options)
    pd.testing.assert_frame_equal(taken.table, read.table, check_dtype=False)
    assert taken.positive == "malignant" and taken.notes[0].startswith(
        "the table: 24 of 24 rows fit 24 of 24"
    )
    numbers = pd.DataFrame(
        {"Image Name": [0.0, 1.0, None], "Lesion ID": ["L", "L", "M"], "is": [True, False, True]}
    )
    for n in range(2):
        shutil.copy(folder / "benign" / "p00.jpg", tmp_path / f"{n}.jpg")
    with pytest.warns(UserWarning, match="no name in the column 'image_name'"):
        two = ImageDataset.from_table(numbers, tmp_path, label_column="is")
    assert two.labels == ["False", "True"] and two.table["group"].tolist() == ["L", "L"]
    with pytest.raises(ValueError, match="the table has no column 'label'; it has: image_id, dx, lesion_id"):
        ImageDataset.from_table(pd.read_csv(csv), folder)
    with pytest.raises(ValueError, match="the table has two columns 'dx'"):
        ImageDataset.from_table(pd.concat([pd.read_csv(csv)] * 2, axis=1)[["dx"]], folder)


def test_csv_labels_are_mapped_and_images_found_by_name(csv, folder):
    dataset = ImageDataset.from_csv(
        csv, folder, label_column="dx", group_column="lesion_id", label_map=HAM_LABELS
    )
    assert len(dataset) == 24 and dataset.labels == ["benign", "malignant"]
    assert (
        dataset.table["path"].str.contains("p00").sum() == 1 and dataset.table["dx"].isin(["nv", "mel"]).all()
    )


def test_labels_that_are_numbers_are_mapped_too(csv, folder):
    csv.write_text(csv.read_text(encoding="utf-8").replace("nv", "0").replace("mel", "1"), encoding="utf-8")
    dataset = ImageDataset.from_csv(csv, folder, label_column="dx", label_map={0: "benign", 1: "malignant"})
    assert dataset.labels == ["benign", "malignant"] and len(dataset) == 24


def test_csv_without_the_label_column_names_those_it_has(csv, folder):
    with pytest.raises(ValueError, match=r"no column 'label'; it has: image_id, dx, lesion_id"):
        ImageDataset.from_csv(csv, folder)
    with pytest.raises(ValueError, match=r"no column 'patient'"):
        ImageDataset.from_csv(csv, folder, label_column="dx", group_column="patient")


def test_csv_that_is_absent_empty_or_no_csv_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.csv"):
        ImageDataset.from_csv(tmp_path / "no.csv")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(ValueError, match=r"empty\.csv cannot be read"):
        ImageDataset.from_csv(tmp_path / "empty.csv")


def test_rows_that_cannot_be_used_are_set_aside_with_the_reason(csv, folder):
    with csv.open("a") as file:
        file.write("\nabsent,nv,L9\np00,nv,L9\np01,unheard,L9\n")
    csv.write_text(csv.read_text(encoding="utf-8").replace("p05,mel", "p05,"), encoding="utf-8")
    with pytest.warns(UserWarning, match="4 images set aside"):
        dataset = ImageDataset.from_csv(csv, folder, label_column="dx", label_map=HAM_LABELS)
    assert len(dataset) == 23
    reasons = dataset.set_aside.set_index(dataset.set_aside["path"].str[-7:])["reason"]
    assert reasons["p05.jpg"] == "no label" and "no such image" in reasons["absent"]
    assert len(dataset) + len(dataset.set_aside) == 27


def test_csv_whose_images_are_elsewhere_says_so(csv, tmp_path):
    with pytest.raises(FileNotFoundError, match="none of the 24 images.*p00, p01, p02"):
        ImageDataset.from_csv(csv, tmp_path, label_column="dx")


def touch(root, *files):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return root


def read_names(root, *names):
    """Read a table of these names, the first benign and the rest malignant, and a sound image for either label."""
    touch(root, "one_benign.jpg", "one_malignant.jpg")
    labels = ["benign"] + ["malignant"] * (len(names) - 1)
    rows = [*zip(names, labels, strict=True), ("one_benign", "benign"), ("one_malignant", "malignant")]
    pd.DataFrame(rows, columns=["image", "label"]).to_csv(root / "table.csv", index=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = ImageDataset.from_csv(root / "table.csv")
    paths = [str(Path(path).relative_to(root)) for path in dataset.paths]
    return paths[: len(paths) - 2], dataset.set_aside


stems = st.sampled_from(["p1", "p2", "P1", "p.1", "0012", "nan"])
trees = st.sets(
    st.tuples(st.sampled_from(["", "a/", "b/", "a/b/"]), stems, st.sampled_from([".jpg", ".png", ".JPG"])),
    min_size=1,
    max_size=8,
)


@given(trees, st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_a_name_with_folder_and_extension_finds_that_very_file(tree, random):
    names = sorted("".join(parts) for parts in tree)
    random.shuffle(names)
    with tempfile.TemporaryDirectory() as folder:
        found, _ = read_names(touch(Path(folder), *names), *names)
        assert found == names
        inner = [name for name in names if "/" in name]
        if inner:  # from a table that stood one folder up
            outer, _ = read_names(Path(folder), *(f"{Path(folder).name}/{name}" for name in inner))
            assert outer == inner


def test_names_that_fit_several_images_are_set_aside_not_guessed(tmp_path):
    touch(tmp_path, "a/p1.jpg", "b/p1.jpg", "c/p2.jpg", "c/p2.png")
    found, aside = read_names(tmp_path, "p1", "p1.jpg", "p2", "b/p1", "c\\p2.png", "d/p1.jpg")
    assert found == ["b/p1.jpg", "c/p2.png"]
    assert aside["path"].tolist() == ["p1", "p1.jpg", "p2", "d/p1.jpg"]
    assert aside["reason"].str.contains("several images below .* give folder and extension").all()


def test_an_image_of_a_folder_that_is_lost_is_not_replaced_by_its_namesake(tmp_path):
    touch(tmp_path, "patient1/image.jpg")
    found, aside = read_names(tmp_path, "patient2/image.jpg", "patient1/image.jpg")
    assert found == ["patient1/image.jpg"] and aside["path"].tolist() == ["patient2/image.jpg"]


def test_names_from_another_machine_find_their_file_and_never_leave_the_folder(tmp_path):
    touch(tmp_path, "secret.jpg", "images/p1.jpg", "images/p2.jpg")
    root = tmp_path / "images"
    found, aside = read_names(root, "/home/me/p1.dcm", "C:\\data\\p2.jpg", "../secret.jpg", "../../secret")
    assert found == ["p1.jpg", "p2.jpg"] and aside["path"].tolist() == ["../secret.jpg", "../../secret"]


def test_ids_stay_text_and_a_row_without_a_name_is_set_aside_by_its_number(tmp_path):
    touch(tmp_path, "0012.jpg", "12.jpg", "nan.jpg")
    (tmp_path / "t.csv").write_text("number,who,is\n0012,007,0\n12,7,1\n,8,1\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="no name in the column 'number'"):
        dataset = ImageDataset.from_csv(
            tmp_path / "t.csv", image_column="number", label_column="is", group_column="who"
        )
    assert [Path(path).name for path in dataset.paths] == ["0012.jpg", "12.jpg"]
    assert dataset.table["group"].tolist() == ["007", "7"] and dataset.labels == ["0", "1"]
    assert dataset.set_aside["path"].str.endswith("t.csv, row 3").all()


def test_a_folders_metadata_is_joined_by_folder_and_not_guessed(tmp_path):
    touch(tmp_path, "benign/1.jpg", "malignant/1.jpg", "malignant/2.jpg", "benign/.thumbnails/1.jpg")
    (tmp_path / "metadata.csv").write_text(
        "image,lesion_id\nmalignant/1.jpg,L1\n1,L0\n2.jpg,L2\n2.jpg,L9\n", encoding="utf-8"
    )
    with pytest.warns(UserWarning, match="1 row not joined, as each names several images, such as 1;"):
        dataset = ImageDataset.from_folder(tmp_path)
    assert dataset.table["group"].tolist() == [dataset.paths[0], "L1", "L2"]


def test_of_an_image_that_stands_in_two_rows_the_usable_one_is_taken(tmp_path):
    touch(tmp_path, "p1.jpg", "p2.jpg")
    (tmp_path / "t.csv").write_text("image,label\np1,\np1,benign\np2,malignant\n", encoding="utf-8")
    with pytest.warns(UserWarning, match="no label"):
        assert len(ImageDataset.from_csv(tmp_path / "t.csv")) == 2


def test_columns_named_as_the_datasets_own_can_be_read(tmp_path):
    touch(tmp_path, "p1.jpg", "p2.jpg")
    (tmp_path / "t.csv").write_text(
        "path,label,group\np1.jpg,benign,G\np2.jpg,malignant,G\n", encoding="utf-8"
    )
    dataset = ImageDataset.from_csv(tmp_path / "t.csv", image_column="path", group_column="group")
    assert dataset.table["group"].tolist() == ["G", "G"] and dataset.paths[0] == str(tmp_path / "p1.jpg")


def read_as_the_notebook_does(source, parameters):
    """Run the notebook's own cells on `source` with a parameter file of the repository."""
    name = "01_data_acquisition_and_understanding/01_acquire_images.ipynb"
    cells = [c.source for c in nbformat.read(CODE / name, 4).cells if c.cell_type == "code"]
    space = {"Path": Path, "ImageDataset": ImageDataset, "is_folder": True}
    exec(cells[0], space)
    known = yaml.safe_load((CODE / "parameters" / parameters).read_text(encoding="utf-8"))
    space |= {key: value for key, value in known.items() if key in space} | {"SOURCE": str(source)}
    exec(next(cell for cell in cells if "from_csv" in cell), space)
    return space["dataset"]


def one_hot(names, columns):
    """Write a challenge's ground truth: the columns in turn are 1.0."""
    rows = [
        [name, *("1.0" if n % len(columns) == k else "0.0" for k in range(len(columns)))]
        for n, name in enumerate(names)
    ]
    return "\n".join(",".join(row) for row in [["image", *columns], *rows])


def test_isic_2018_is_read(tmp_path):
    names = [f"ISIC_{n:07d}" for n in range(14)]
    touch(tmp_path, *(f"ISIC2018_Task3_Training_Input/{name}.jpg" for name in names))
    truth = tmp_path / "ISIC2018_Task3_Training_GroundTruth" / "ISIC2018_Task3_Training_GroundTruth.csv"
    truth.parent.mkdir()
    truth.write_text(one_hot(names, ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]), encoding="utf-8")
    groupings = [f"{name},HAM_{n // 2:07d},histopathology" for n, name in enumerate(names)]
    (tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv").write_text(
        "\n".join(["image,lesion_id,diagnosis_confirm_type", *groupings]), encoding="utf-8"
    )
    dataset = read_as_the_notebook_does(tmp_path, "isic2018.yaml")
    assert dataset.summary()["images"].to_dict() == {"benign": 8, "malignant": 6, "all": 14}
    assert dataset.table.loc[3, "group"] == "HAM_0000001" and dataset.table.loc[3, "AKIEC"] == 1
    assert dataset.table["diagnosis_confirm_type"].eq("histopathology").all()


def test_isic_2019_is_read_and_none_of_the_others_set_aside(tmp_path):
    names = [f"ISIC_{n:07d}_downsampled" for n in range(9)]
    touch(tmp_path, *(f"ISIC_2019_Training_Input/{name}.jpg" for name in names))
    truth = one_hot(names, ["MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"])
    (tmp_path / "ISIC_2019_Training_GroundTruth.csv").write_text(truth, encoding="utf-8")
    metadata = [
        f"{name},55.0,anterior torso,{'MSK4_1' if n < 2 else ''},female" for n, name in enumerate(names)
    ]
    (tmp_path / "ISIC_2019_Training_Metadata.csv").write_text(
        "\n".join(["image,age_approx,anatom_site_general,lesion_id,sex", *metadata]), encoding="utf-8"
    )
    with pytest.warns(UserWarning, match="1 image set aside.*label 'UNK' is not in label_map"):
        dataset = read_as_the_notebook_does(tmp_path, "isic2019.yaml")
    assert dataset.table["label"].tolist() == [
        "malignant" if name in ("MEL", "BCC", "AK", "SCC") else "benign"
        for name in ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
    ]
    assert dataset.table["group"].tolist() == ["MSK4_1"] * 2 + dataset.paths[2:]
    assert dataset.table["age_approx"].eq(55).all()


def test_isic_2020_is_read_and_grouped_by_patient(tmp_path):
    touch(tmp_path, *(f"train/ISIC_{n:07d}.jpg" for n in range(4)))
    header = (
        "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target"
    )
    rows = [
        f"ISIC_{n:07d},IP_{n // 2},IL_{n},male,45.0,head/neck,unknown,{'malignant' if n == 1 else 'benign'},0"
        for n in range(4)
    ]
    (tmp_path / "ISIC_2020_Training_GroundTruth.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    dataset = read_as_the_notebook_does(tmp_path, "isic2020.yaml")
    assert dataset.table["group"].tolist() == ["IP_0", "IP_0", "IP_1", "IP_1"]
    assert dataset.table["label"].tolist() == ["benign", "malignant", "benign", "benign"]


def test_isic_2024_is_read_and_grouped_by_patient_without_its_hdf5_file(tmp_path):
    touch(tmp_path, *(f"train-image/image/ISIC_{n:07d}.jpg" for n in range(4)))
    (tmp_path / "train-image.hdf5").write_bytes(b"\x89HDF\r\n")
    header = "isic_id,target,patient_id,age_approx,sex,anatom_site_general,clin_size_long_diam_mm,lesion_id"
    rows = [
        f"ISIC_{n:07d},{int(n == 1)},IP_{n // 2},45.0,male,posterior torso,3.04,{'IL_1' * (n == 1)}"
        for n in range(4)
    ]
    (tmp_path / "train-metadata.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    dataset = read_as_the_notebook_does(tmp_path, "isic2024.yaml")
    assert dataset.table["label"].tolist() == ["benign", "malignant", "benign", "benign"]
    assert dataset.table["group"].tolist() == ["IP_0", "IP_0", "IP_1", "IP_1"]


MILK10K = ["AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC"]


def milk10k(root, truth):
    """Write two images of each of eleven lesions, as MILK10k has them."""
    kinds, rows = ("clinical: close-up", "dermoscopic"), ["lesion_id,image_type,isic_id,age_approx,sex,site"]
    for n in range(22):
        lesion, image = f"IL_{n // 2:07d}", f"ISIC_{n:07d}"
        touch(root, f"MILK10k_Training_Input/{lesion}/{image}.jpg")
        rows.append(f"{lesion},{kinds[n % 2]},{image},55,female,trunk")
    (root / "MILK10k_Training_Metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    (root / "MILK10k_Training_GroundTruth.csv").write_text(truth, encoding="utf-8")


def test_milk10k_is_read_both_images_of_a_lesion_with_the_label_of_its_row(tmp_path):
    truth = one_hot([f"IL_{n:07d}" for n in range(11)], MILK10K)
    milk10k(tmp_path, truth.replace("image,", "lesion_id,", 1))
    dataset = read_as_the_notebook_does(tmp_path, "milk10k.yaml")
    table = dataset.table
    assert len(table) == 22 and table["group"].tolist() == [f"IL_{n // 2:07d}" for n in range(22)]
    assert table["sublabel"].tolist() == [MILK10K[n // 2] for n in range(22)]
    malignant = {"AKIEC", "BCC", "MAL_OTH", "MEL", "SCCKA"}
    assert table["label"].tolist() == [
        "malignant" if MILK10K[n // 2] in malignant else "benign" for n in range(22)
    ]
    assert table["image_type"].value_counts().to_dict() == {"clinical: close-up": 11, "dermoscopic": 11}


def test_a_table_of_lesions_names_those_that_it_lacks_and_one_of_others_is_refused(tmp_path):
    truth = one_hot([f"IL_{n:07d}" for n in range(11)], MILK10K).replace("image,", "lesion_id,", 1)
    milk10k(tmp_path, truth.rsplit("\n", 1)[0])
    with pytest.warns(UserWarning) as said:
        dataset = read_as_the_notebook_does(tmp_path, "milk10k.yaml")
    assert "IL_0000010 has no row" in str(said[0].message) and len(dataset) == 20
    milk10k(tmp_path, truth.replace("IL_", "OTHER_"))
    with pytest.raises(
        ValueError, match=r"GroundTruth.csv fits none of the 11 .* 'lesion_id' begins with OTHER"
    ):
        read_as_the_notebook_does(tmp_path, "milk10k.yaml")
    milk10k(tmp_path, truth.replace("lesion_id", "case"))
    with pytest.raises(ValueError, match=r"GroundTruth.csv has no column 'isic_id'; it has: case"):
        read_as_the_notebook_does(tmp_path, "milk10k.yaml")


def test_bcn20000_is_read_and_grouped_by_lesion(tmp_path):
    kinds = ["MEL", "NV", "BCC", "BKL", "AK", "SCC", "DF", "VASC"]
    touch(tmp_path, *(f"bcn_20k_train/BCN_{n:010d}.jpg" for n in range(8)))
    rows = [
        f"BCN_{n:010d}.jpg,55.0,anterior torso,{kind},BCN_{n // 2:07d},2012-05-16,male,train"
        for n, kind in enumerate(kinds)
    ]
    header = "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split"
    (tmp_path / "bcn_20k_train.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    table = read_as_the_notebook_does(tmp_path, "bcn20000.yaml").table
    assert table["sublabel"].tolist() == kinds
    assert table["label"].eq("malignant").tolist() == [kind in ("MEL", "BCC", "AK", "SCC") for kind in kinds]
    assert table["group"].tolist() == [f"BCN_{n // 2:07d}" for n in range(8)]
    assert table["metadata_split"].eq("train").all()


def test_hiba_is_read_and_an_unknown_diagnosis_set_aside(tmp_path):
    kinds = ["melanoma", "nevus", "basal cell carcinoma", "vascular lesion", "acrochordon"]
    touch(tmp_path, *(f"ISIC_{n:07d}.jpg" for n in range(5)))
    rows = [f"ISIC_{n:07d},{kind},dermoscopic,IL_{n // 2},IP_0" for n, kind in enumerate(kinds)]
    header = "isic_id,diagnosis,image_type,lesion_id,patient_id"
    (tmp_path / "metadata.csv").write_text("\n".join([header, *rows]), encoding="utf-8")
    with pytest.warns(UserWarning, match="1 image set aside.*'acrochordon' is not in label_map"):
        table = read_as_the_notebook_does(tmp_path, "hiba.yaml").table
    assert table["label"].tolist() == ["malignant", "benign", "malignant", "benign"]
    assert table["group"].tolist() == ["IL_0", "IL_0", "IL_1", "IL_1"]


def test_where_the_patient_is_not_known_the_lesion_groups_and_where_neither_is_the_image(tmp_path):
    touch(tmp_path, *(f"p{n}.jpg" for n in range(5)))
    rows = "image,label,lesion_id,patient_id\np0,a,L1,P1\np1,b,L2,P1\np2,a,L3,\np3,b,L3,\np4,a,,\n"
    (tmp_path / "table.csv").write_text(rows, encoding="utf-8")
    options = {"images": tmp_path, "image_column": "image", "label_column": "label"}
    for column, groups in (("patient_id", ["P1", "P1", "L3", "L3"]), (None, ["L1", "L2", "L3", "L3"])):
        dataset = ImageDataset.from_csv(tmp_path / "table.csv", **options, group_column=column)
        assert dataset.table["group"].tolist() == [*groups, dataset.paths[4]]


PH2 = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network ||  Colors ||\n"
    "|| IMD002 ||                        ||                  0 ||         0 |               T ||       4 ||\n"
    "|| IMD003 ||                        ||                  1 ||         0 |               T ||    3  4 ||\n"
    "|| IMD004 ||   Superficial Melanoma ||                  2 ||         2 |              AT || 1  3  6 ||\n"
    "\nLegends:\nClinical Diagnosis:    0 - Common Nevus; 1 - Atypical Nevus; 2 - Melanoma.\n"
)


def test_ph2_is_read_as_published_without_its_masks(tmp_path):
    for name in ("IMD002", "IMD003", "IMD004"):
        below = f"PH2 Dataset images/{name}"
        touch(
            tmp_path,
            f"{below}/{name}_Dermoscopic_Image/{name}.bmp",
            f"{below}/{name}_lesion/{name}_lesion.bmp",
        )
        touch(tmp_path, f"{below}/{name}_roi/{name}_R1_Label3.bmp")
    (tmp_path / "PH2_dataset.txt").write_text(PH2, encoding="utf-8")
    with pytest.warns(UserWarning, match="2 images set aside.*no name in the column 'name'"):
        dataset = read_as_the_notebook_does(tmp_path, "ph2.yaml")
    assert dataset.table["label"].tolist() == ["benign", "benign", "malignant"]
    assert dataset.table["sublabel"].tolist() == ["0", "1", "2"]
    assert [Path(path).name for path in dataset.paths] == ["IMD002.bmp", "IMD003.bmp", "IMD004.bmp"]


def test_ph2_is_read_in_one_folder_too_beside_masks_of_the_same_names(tmp_path):
    names = ("IMD002", "IMD003", "IMD004")
    touch(tmp_path, *(f"images/{name}.jpg" for name in names), *(f"masks/{name}.png" for name in names))
    rows = ["image_id,diagnosis", "IMD002,common nevus", "IMD003,atypical nevus", "IMD004,melanoma"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = read_as_the_notebook_does(tmp_path, "ph2.yaml")
    assert dataset.table["label"].tolist() == ["benign", "benign", "malignant"]
    assert dataset.paths == [str(tmp_path / "images" / f"{name}.jpg") for name in names]


def test_what_a_parameter_file_maps_is_text_as_papermill_sorts_it():
    for path in (CODE / "parameters").glob("*.yaml"):
        keys = yaml.safe_load(path.read_text(encoding="utf-8")).get("LABEL_MAP", {})
        assert all(isinstance(key, str) for key in keys), path


def test_one_label_is_enough_where_it_is_said(tmp_path):
    touch(tmp_path, "benign/p1.jpg", "benign/p2.jpg")
    with pytest.raises(ValueError, match="a classifier needs two"):
        ImageDataset.from_folder(tmp_path)
    assert ImageDataset.from_folder(tmp_path, one_label=True).labels == ["benign"]
    (tmp_path / "metadata.csv").write_text("image,dx\np1,nv\np2,nv\n", encoding="utf-8")
    given = {"SOURCE": tmp_path, "LABEL_COLUMN": "dx", "LABEL_MAP": {"nv": "benign"}}
    assert ImageDataset.from_parameters(given, one_label=True).labels == ["benign"]


def test_rows_that_mark_no_label_or_several_are_set_aside(tmp_path):
    touch(tmp_path, *(f"p{n}.jpg" for n in range(5)))
    (tmp_path / "t.csv").write_text(
        "image,nv,mel\np0,1,0\np1,0,1\np2,0,0.0\np3,1,1\np4,,\n", encoding="utf-8"
    )
    with pytest.warns(UserWarning, match="3 images set aside"):
        dataset = ImageDataset.from_csv(tmp_path / "t.csv", label_column=["nv", "mel"])
    assert dataset.table["label"].tolist() == ["nv", "mel"]
    assert dataset.set_aside["reason"].tolist() == [
        "none of the columns nv, mel is marked",
        "more than one of the columns nv, mel is marked",
        "none of the columns nv, mel is marked",
    ]
    with pytest.raises(ValueError, match="no column 'bkl'; it has: image, nv, mel"):
        ImageDataset.from_csv(tmp_path / "t.csv", label_column=["nv", "bkl"])


def test_metadata_of_other_images_or_without_names_is_refused(csv, folder, tmp_path):
    (tmp_path / "other.csv").write_text("image_id,sex\nq1,male\n", encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"other\.csv fits none of the 24 images: its column 'image_id' begins with q1"
    ):
        ImageDataset.from_csv(csv, folder, label_column="dx", metadata=tmp_path / "other.csv")
    (tmp_path / "other.csv").write_text("sex\nmale\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.csv has no column 'image_id'"):
        ImageDataset.from_csv(csv, folder, label_column="dx", metadata=tmp_path / "other.csv")


@pytest.fixture
def flawed(tmp_path):
    """A folder with one image of each flaw that validate knows."""
    for n in range(4):
        draw(tmp_path / "benign" / f"p{n}.jpg", (170, 120, 100), n)
    draw(tmp_path / "malignant" / "p5.png", (100, 120, 170), 5).rename(tmp_path / "malignant" / "p5.jpg")
    shutil.copy(tmp_path / "benign" / "p0.jpg", tmp_path / "benign" / "p1.jpg")
    shutil.copy(tmp_path / "benign" / "p0.jpg", tmp_path / "malignant" / "p4.jpg")
    whole = (tmp_path / "benign" / "p2.jpg").read_bytes()
    (tmp_path / "benign" / "cut.jpg").write_bytes(whole[:900])
    Image.new("L", (96, 80), 100).save(tmp_path / "benign" / "p2.jpg")
    draw(tmp_path / "malignant" / "p6.png", (100, 120, 170), 6, size=(20, 40))
    draw(tmp_path / "malignant" / "p7.jpg", (100, 120, 170), 7, size=(300, 70))
    return tmp_path


def test_validate_finds_each_flaw_and_names_it(flawed, monkeypatch):
    dataset = ImageDataset.from_folder(flawed)
    monkeypatch.setattr("isicvision.data.dataset.OVERSIZED", 299)
    findings = dataset.problems()
    rows = [(Path(row.path).name, row.problem) for row in findings.itertuples()]
    assert rows == [
        ("cut.jpg", "unreadable"),
        ("p0.jpg", "label conflict"),
        ("p1.jpg", "exact duplicate"),
        ("p1.jpg", "label conflict"),
        ("p2.jpg", "grayscale"),
        ("p4.jpg", "exact duplicate"),
        ("p4.jpg", "label conflict"),
        ("p5.jpg", "wrong extension"),
        ("p6.png", "tiny"),
        ("p7.jpg", "oversized"),
    ]
    details = findings["detail"].str.replace(str(flawed), "")
    assert "cut short" in details[0] and details[2] == "the same bytes as /benign/p0.jpg"
    both = "benign in /benign/p0.jpg, benign in /benign/p1.jpg, malignant in /malignant/p4.jpg"
    assert details[1] == details[6] == f"the same bytes are labeled {both}"
    assert details[7] == "holds PNG" and details[8] == "20x40 pixels"
    checked = dataset.measure()
    monkeypatch.setattr("isicvision.data.measures.measure", None)  # measured once is enough
    pd.testing.assert_frame_equal(checked.problems(), findings)
    assert len(checked) == len(dataset) - 1


def test_a_sound_dataset_has_no_findings(dataset, tmp_path):
    for sound in (dataset, ImageDataset.load(dataset.save(tmp_path / "saved.csv"))):
        findings = sound.problems()
        assert findings.empty and list(findings) == ["path", "problem", "detail"]


def test_checking_again_replaces_the_measures_and_they_survive_saving(dataset, tmp_path):
    checked = dataset.measure()
    again = checked.measure()
    pd.testing.assert_frame_equal(again.table, checked.table)
    assert [*checked.table][-len(MEASURES) :] == [*MEASURES] and checked.table["ruler"].between(0, 1).all()
    loaded = ImageDataset.load(checked.save(tmp_path / "d.csv"))
    assert loaded.table[["sha256", "phash", "gray"]].equals(checked.table[["sha256", "phash", "gray"]])


def test_check_sets_broken_files_aside_and_measures_the_rest(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "benign" / "text.jpg").write_text("no image", encoding="utf-8")
    whole = copy / "benign" / "p02.jpg"
    whole.write_bytes(whole.read_bytes()[:900])
    (copy / "malignant" / "empty.png").touch()
    dataset = ImageDataset.from_folder(copy).measure()
    assert len(dataset) == 23 and set(dataset.table["width"]) == {96} and set(dataset.table["height"]) == {80}
    aside = {path.split("/")[-1]: reason for path, reason in dataset.set_aside.itertuples(index=False)}
    assert set(aside) == {"text.jpg", "p02.jpg", "empty.png"} and "cut short" in aside["p02.jpg"]
    assert whole.exists()


def test_relabel_corrects_excludes_and_refuses_strangers(dataset):
    first, second = dataset.paths[:2]
    corrected = dataset.relabel({first: "malignant", second: None})
    assert corrected.table.set_index("path").loc[first, "label"] == "malignant"
    assert len(corrected) == 23 and corrected.set_aside["path"].tolist() == [second]
    assert dataset.table.loc[0, "label"] == "benign"
    with pytest.raises(KeyError, match="stranger"):
        dataset.relabel({"stranger.jpg": "benign"})


def test_names_that_look_like_numbers_or_like_nothing_survive_saving(dataset, tmp_path):
    names = ["01", "1", "None", "NA", "1e1", "10"]
    table = dataset.table.assign(
        label=[names[n % 4] for n in range(len(dataset))], group=[names[n % 6] for n in range(len(dataset))]
    )
    table["sublabel"] = table["label"].where(table["label"] != "1")
    loaded = ImageDataset.load(replace(dataset, table=table).save(tmp_path / "saved.csv")).table
    for column in ("label", "group"):
        assert loaded[column].tolist() == table[column].tolist()
    assert loaded["sublabel"].isna().tolist() == (table["label"] == "1").tolist()


@ANY_NAME
def test_names_that_are_no_utf8_survive_saving_and_are_read(folder, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(folder, images)
    (images / "benign" / "p00.jpg").rename(os.fsdecode(bytes(images / "benign") + b"/m\xe4l.jpg"))
    dataset = ImageDataset.from_folder(images).measure()
    assert len(dataset) == 24
    loaded = ImageDataset.load(dataset.save(tmp_path / "saved.csv"))
    assert sorted(loaded.paths) == sorted(dataset.paths)
    assert sum(not path.isascii() for path in loaded.paths) == 1
    assert not cache.Images(loaded.paths, 64).broken


def test_save_and_load_keep_the_table(dataset, tmp_path):
    loaded = ImageDataset.load(dataset.save(tmp_path / "new" / "d.csv"))
    pd.testing.assert_frame_equal(loaded.table, dataset.table, check_dtype=False)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks the columns group, label, path"):
        ImageDataset.load(tmp_path / "other.csv")


@pytest.mark.parametrize("name", ["all", "(all)"])
def test_a_label_may_be_called_all(dataset, tmp_path, name):
    labels = dict(zip(dataset.paths, [name, "all", "benign"] * (len(dataset) // 3), strict=True))
    named = replace(dataset.relabel(labels), positive=name).measure()
    names = sorted({name, "all", "benign"})
    assert named.labels == names
    found = named.summary()
    assert [*found.index] == [*names, "((all))" if name == "(all)" else "(all)"]
    assert found["images"].tolist()[-1] == len(named) and found.loc["benign", "images"] == 8
    shares = associations.missing(named)
    assert [*shares] == [found.index[-1], *names]
    assert plots.missing(shares) and len(plots.class_balance(named).get_yticklabels()) == len(names)
    assert f"\n| all | {found['images']['all']} |" in cards.write_data_card(
        named, tmp_path / "card.md"
    ).read_text(encoding="utf-8")
    assert summary.write(named, tmp_path / "report")


def test_a_balanced_sample_takes_labels_in_turn_and_is_seeded(dataset):
    assert dataset.sample(6, balanced=True).table["label"].value_counts().tolist() == [3, 3]
    one, again, other = (dataset.sample(6, seed=seed, balanced=True).paths for seed in (1, 1, 2))
    assert one == again != other


def test_a_sample_has_the_labels_as_they_come(dataset):
    many = ImageDataset(pd.concat([dataset.table.query("label == 'benign'")] * 90 + [dataset.table]))
    assert many.sample(300).table["label"].eq("malignant").mean() < 0.05
    assert many.sample(300, seed=1).paths == many.sample(300, seed=1).paths != many.sample(300).paths
    assert sorted(dataset.sample(99).paths) == sorted(dataset.paths) and len(dataset.sample(np.int64(3))) == 3


@pytest.mark.parametrize("n", [0, -1, 2.5, 3.0, float("nan"), "3", None])
@pytest.mark.parametrize("balanced", [True, False])
def test_the_size_of_a_sample_is_a_whole_number(dataset, n, balanced):
    with pytest.raises(ValueError, match="n is the number of images, a whole number of 1 or more, not"):
        dataset.sample(n, balanced=balanced)


def test_a_dataset_says_on_one_screen_what_it_is(dataset):
    said = repr(dataset.relabel({dataset.paths[0]: None}))
    assert said.startswith("ImageDataset: 23 images\n  labels: benign 11, malignant 12\n")
    for words in ("lesions", "12", "set aside: 1", "metadata.csv: 24 of 24 rows fit 24 of 24 images"):
        assert words in said
    assert len(said.splitlines()) < 12 and max(map(len, said.splitlines())) < 250


lesions = st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 5)), min_size=30, max_size=80)


@given(lesions, st.sampled_from([(0.6, 0.2, 0.2), (0.5, 0.5), (0.8, 0.1, 0.1)]), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_split_keeps_lesions_whole_loses_nothing_and_is_proportional(lesions, fractions, seed):
    rows = [(f"{n}-{k}", label, f"L{n}") for n, (label, size) in enumerate(lesions) for k in range(size)]
    table = pd.DataFrame(rows, columns=["path", "label", "group"])
    dataset = ImageDataset(table)
    if min(table.groupby("label")["group"].nunique().reindex(["a", "b"], fill_value=0)) < len(fractions):
        return
    parts = dataset.split(*fractions, seed=seed)
    assert sorted(path for part in parts for path in part.paths) == sorted(dataset.paths)
    groups = [set(part.table["group"]) for part in parts]
    assert sum(map(len, groups)) == len(set.union(*groups))
    for label, count in table["label"].value_counts().items():
        for fraction, part in zip(fractions, parts, strict=True):
            have = (part.table["label"] == label).sum()
            assert 0 < have and abs(have - fraction * count) <= max(10, 0.1 * count)


def test_split_is_the_same_for_the_same_seed_and_differs_for_another(dataset):
    def split(seed):
        return [part.paths for part in dataset.split(0.6, 0.2, 0.2, seed=seed)]

    assert split(3) == split(3) != split(4)


def test_split_refuses_a_label_with_too_few_lesions(dataset):
    few = dataset.relabel({path: None for path in dataset.table.query("label == 'malignant'")["path"][4:]})
    with pytest.raises(ValueError, match="'malignant' has 2 different 'group'.*too few to split into 3"):
        few.split(0.6, 0.2, 0.2)


@pytest.mark.parametrize("fractions", [(1.0,), (0.5, 0.6), (1.2, -0.2), ()])
def test_split_refuses_impossible_fractions(dataset, fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        dataset.split(*fractions)


def test_split_by_an_unknown_column_names_the_columns(dataset):
    with pytest.raises(ValueError, match="no column 'lesion' to split by; there are: path, label, group"):
        dataset.split(0.5, 0.5, group="lesion")
    for wrong in ({"group": ""}, {"stratify": ""}, {"stratify": None}):
        with pytest.raises(ValueError, match="no column .* to split by"):
            dataset.split(0.5, 0.5, **wrong)


def measured(rows):
    """Make a dataset of rows (label, group, hash) as if it had been checked."""
    table = pd.DataFrame(rows, columns=["label", "group", "phash"])
    table.insert(0, "path", [f"p{n:03d}.jpg" for n in range(len(table))])
    table["phash"] = [f"{value:016x}" for value in table["phash"]]
    return ImageDataset(table.assign(**{name: 0 for name in MEASURES if name != "phash"}))


@pytest.fixture
def alike():
    """80 images of 40 lesions; lesions 0, 1 and 2 are connected by images that look alike."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**62, 80).tolist()
    hashes[2] = hashes[0] ^ 0b11
    hashes[4] = hashes[3] ^ 0b1
    return measured([("ab"[n // 2 % 2], f"L{n // 2:02d}", value) for n, value in enumerate(hashes)])


@pytest.mark.parametrize("seed", range(8))
def test_split_keeps_lesions_that_look_alike_in_one_part(alike, seed):
    for parts in (
        alike.split(0.5, 0.3, 0.2, near_duplicates=2, seed=seed),
        alike.folds(5, near_duplicates=2)[0],
    ):
        where = [{"L00", "L01", "L02"} & set(part.table["group"]) for part in parts]
        assert sorted(map(len, where))[-2:] == [0, 3]
        report = alike.split_report(parts, near_duplicates=2)
        assert (report["near_duplicates"] == 0).all() and (report["shared_groups"] == 0).all()


def test_near_duplicates_change_nothing_where_there_are_none(alike):
    few = alike.relabel({path: None for path in alike.paths[:6]})
    for plain, merged in zip(few.split(0.6, 0.4), few.split(0.6, 0.4, near_duplicates=2), strict=True):
        assert plain.paths == merged.paths


def test_split_by_near_duplicates_wants_hashes(dataset):
    with pytest.raises(ValueError, match=r"near_duplicates needs perceptual hashes.*measure\(\)"):
        dataset.split(0.5, 0.5, near_duplicates=2)


def test_split_image_by_image_counts_the_lesions_that_leak(alike):
    with pytest.warns(UserWarning, match="in more than one part") as caught:
        parts = alike.split(0.5, 0.5, group=None)
    both = set(parts[0].table["group"]) & set(parts[1].table["group"])
    assert str(caught[0].message).startswith(
        f"{len(both)} groups (lesions or patients, {2 * len(both)} images)"
    )
    report = alike.split_report(parts)
    assert report["shared_groups"].tolist() == [len(both)] * 3 and len(both) > 5
    alone = alike.table.assign(group=alike.paths)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImageDataset(alone).split(0.5, 0.5, group=None)


def test_split_loses_no_image_whose_value_is_missing(alike):
    table = alike.table.assign(
        sex=["male", "female", None, "male"] * 20, patient=[None] * 40 + ["P"] * 2 + [None] * 38
    )
    parts = ImageDataset(table).split(0.5, 0.5, stratify="sex", group="patient")
    assert sum(map(len, parts)) == 80
    assert all(abs(part.table["sex"].isna().sum() - 10) <= 2 for part in parts)
    with pytest.raises(ValueError, match="sex nan has 1 different 'group'"):
        ImageDataset(table.assign(sex=[None] * 2 + ["male"] * 78)).split(0.5, 0.5, stratify="sex")


def test_folds_hold_each_image_out_once_and_keep_lesions_whole(alike):
    folds = alike.folds(4, seed=1)
    assert sorted(path for _, held_out in folds for path in held_out.paths) == alike.paths
    for train, held_out in folds:
        assert not set(train.table["group"]) & set(held_out.table["group"])
        assert sorted(train.paths + held_out.paths) == alike.paths
        assert held_out.table["label"].value_counts().tolist() == [10, 10]
    assert [v.paths for _, v in folds] == [v.paths for _, v in alike.folds(4, seed=1)]
    with pytest.raises(ValueError, match="k must be 2 or more"):
        alike.folds(1)


def test_split_report_says_how_far_the_shares_are_off(alike):
    parts = {
        "left": alike.relabel({p: None for p in alike.paths[8:]}),
        "right": alike.where(np.arange(80) >= 10),
    }
    report = alike.split_report(parts, near_duplicates=2)
    assert report.index.tolist() == ["left", "right", "all"]
    assert report["images"].tolist() == [8, 70, 80] and report["groups"].tolist() == [4, 35, 40]
    assert report.loc["right", "share_a"] == pytest.approx(34 / 70)
    assert report["largest_deviation"].tolist() == pytest.approx([0, 0.5 - 34 / 70, 0])


def test_near_duplicates_say_what_they_cross(alike):
    pairs = alike.near_duplicates(2)
    assert pairs[["path_a", "path_b", "distance"]].to_numpy().tolist() == [
        ["p003.jpg", "p004.jpg", 1],
        ["p000.jpg", "p002.jpg", 2],
    ]
    assert pairs["crosses_label"].tolist() == [True, True] and pairs["crosses_group"].all()
    assert "crosses_split" not in pairs
    first, rest = alike.where(np.arange(80) < 4), alike.where(np.arange(80) >= 4)
    pairs = alike.near_duplicates(2, parts=(first, rest))
    assert pairs["crosses_split"].tolist() == [True, False]
    assert pairs.loc[0, ["part_a", "part_b"]].tolist() == ["train", "test"]
    column = ImageDataset(alike.table.assign(split=["x"] * 4 + ["y"] * 76))
    assert column.near_duplicates(2)["crosses_split"].tolist() == [True, False]
    assert not alike.near_duplicates(2, parts={"x": first})["crosses_split"].any()


def test_images_saved_again_and_made_smaller_are_found(tmp_path):
    samples = sorted((CODE.parent / "sample_data" / "images").glob("*.jpg"))[:2]
    for name in ("benign", "malignant"):
        (tmp_path / name).mkdir()
    for sample in samples:
        shutil.copy(sample, tmp_path / "benign")
    Image.open(samples[0]).resize((240, 180)).save(tmp_path / "malignant" / "smaller.jpg", quality=60)
    pairs = ImageDataset.from_folder(tmp_path).near_duplicates()
    assert (
        len(pairs) == 1 and pairs.loc[0, "crosses_label"] and pairs.loc[0, "path_a"].endswith(samples[0].name)
    )


@pytest.mark.real
def test_ham10000_is_read_without_a_warning_and_split_by_lesion(real_data):
    root = real_data / "ham10000_200x150"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = ImageDataset.from_csv(
            root / "metadata.csv", label_column="dx", group_column="lesion_id", label_map=HAM_LABELS
        )
    assert len(dataset) == 7006 and dataset.summary().loc["malignant", "images"] == 1366
    shares = [
        part.summary().loc["malignant", "share"] for part in dataset.split(0.6, 0.2, 0.2, group="lesion_id")
    ]
    assert max(shares) - min(shares) < 0.002


@pytest.mark.real
def test_the_split_of_ham10000_that_the_results_quote_stays(real_data):
    root = real_data / "ham10000_200x150"
    dataset = ImageDataset.from_csv(root / "metadata.csv", label_column="dx", label_map=HAM_LABELS)
    parts = dataset.split(0.6, 0.2, 0.2)
    names = "\n".join(sorted(Path(path).stem for path in parts[2].paths))
    assert hashlib.sha256(names.encode()).hexdigest().startswith("0a7284537dc8f6f5")
    assert [len(part) for part in parts] == [4203, 1402, 1401]
    report = dataset.split_report(parts)
    assert report["shared_groups"].sum() == 0 and report["largest_deviation"].max() < 0.001


def test_a_table_made_by_hand_needs_our_columns_and_labels_that_are_text(dataset):
    table = dataset.table
    with pytest.raises(ValueError, match="lacks the column group"):
        ImageDataset(table.drop(columns="group"))
    for labels in ([0, 1], ["a", None], ["a", float("nan")], ["a", 1]):
        with pytest.raises(ValueError, match="column label of the table must be text"):
            ImageDataset(table.assign(label=labels * 12))


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "0"])
def test_a_seed_to_sample_by_is_a_whole_number(dataset, seed):
    with pytest.raises(ValueError, match="seed is a whole number from 0"):
        dataset.sample(3, seed=seed)


@pytest.mark.parametrize(
    "rows",
    [
        [0, 1] * 12,
        [True] * 23 + [np.nan],
        ["yes"] * 24,
        [True] * 23,
        np.ones((24, 1), bool),
        pd.Series(True, [0] * 24),
    ],
)
def test_rows_to_keep_are_a_bool_each(dataset, rows):
    with pytest.raises(ValueError, match="the rows to keep are a bool for each"):
        dataset.where(rows)


def test_a_series_of_rows_to_keep_goes_by_its_index(dataset):
    first = dataset.table["path"] == dataset.paths[0]
    assert dataset.where(first[::-1]).paths == dataset.where(first.tolist()).paths == dataset.paths[:1]
    with pytest.raises(ValueError, match="the rows to keep are a bool for each"):
        dataset.where(first.set_axis(range(100, 124)))
