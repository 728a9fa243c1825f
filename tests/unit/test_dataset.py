import shutil
import warnings

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isicvision import ImageDataset

HAM_LABELS = {label: "malignant" for label in ("mel", "bcc", "akiec")} | {
    label: "benign" for label in ("nv", "bkl", "df", "vasc")
}


@pytest.fixture
def csv(folder, tmp_path):
    rows = [f"p{n:02d},{'nv' if n % 2 == 0 else 'mel'},L{n // 4}{n % 2}" for n in range(24)]
    path = tmp_path / "metadata.csv"
    path.write_text("\n".join(["image_id,dx,lesion_id", *rows]))
    return path


def test_a_folder_per_label_is_indexed_and_metadata_joined(folder):
    dataset = ImageDataset.from_folder(folder)
    assert len(dataset) == 24 and dataset.labels == ["benign", "malignant"]
    assert dataset.table.loc[0, ["isic_id", "lesion_id", "group"]].tolist() == ["p00", "L00", "L00"]
    assert dataset.summary().loc["all", "groups"] == 12


def test_without_lesions_each_picture_is_its_own_group(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("metadata.csv"))
    assert ImageDataset.from_folder(copy).summary().loc["all"].tolist() == [24, 24, 1]


def test_a_folder_without_pictures_says_what_is_expected(tmp_path):
    (tmp_path / "benign").mkdir()
    with pytest.raises(FileNotFoundError, match="no pictures.*folder per label.*from_csv"):
        ImageDataset.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        ImageDataset.from_folder(tmp_path / "absent")


def test_one_label_only_is_refused(folder):
    with pytest.raises(ValueError, match=r"1 label \(benign\).*from_csv.*LABEL_COLUMN"):
        ImageDataset.from_folder(
            shutil.copytree(folder, folder.parent / "one", ignore=lambda *_: ["malignant"])
        )


def test_csv_labels_are_mapped_and_pictures_found_by_name(csv, folder):
    dataset = ImageDataset.from_csv(
        csv, folder, label_column="dx", group_column="lesion_id", label_map=HAM_LABELS
    )
    assert len(dataset) == 24 and dataset.labels == ["benign", "malignant"]
    assert (
        dataset.table["path"].str.contains("p00").sum() == 1 and dataset.table["dx"].isin(["nv", "mel"]).all()
    )


def test_labels_that_are_numbers_are_mapped_too(csv, folder):
    csv.write_text(csv.read_text().replace("nv", "0").replace("mel", "1"))
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
    csv.write_text(csv.read_text().replace("p05,mel", "p05,"))
    with pytest.warns(UserWarning, match="4 pictures set aside"):
        dataset = ImageDataset.from_csv(csv, folder, label_column="dx", label_map=HAM_LABELS)
    assert len(dataset) == 23
    reasons = dataset.set_aside.set_index(dataset.set_aside["path"].str[-7:])["reason"]
    assert reasons["p05.jpg"] == "no label" and "no such picture" in reasons["absent"]
    assert len(dataset) + len(dataset.set_aside) == 27


def test_csv_whose_pictures_are_elsewhere_says_so(csv, tmp_path):
    with pytest.raises(FileNotFoundError, match="none of the 24 pictures.*p00, p01, p02"):
        ImageDataset.from_csv(csv, tmp_path, label_column="dx")


def test_check_sets_broken_files_aside_and_measures_the_rest(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "benign" / "text.jpg").write_text("no picture")
    whole = copy / "benign" / "p02.jpg"
    whole.write_bytes(whole.read_bytes()[:900])
    (copy / "malignant" / "empty.png").touch()
    dataset = ImageDataset.from_folder(copy).check()
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


def test_save_and_load_keep_the_table(dataset, tmp_path):
    loaded = ImageDataset.load(dataset.save(tmp_path / "new" / "d.csv"))
    pd.testing.assert_frame_equal(loaded.table, dataset.table, check_dtype=False)
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="lacks the columns group, label, path"):
        ImageDataset.load(tmp_path / "other.csv")


def test_sample_takes_labels_in_turn_and_is_seeded(dataset):
    assert dataset.sample(6).table["label"].value_counts().tolist() == [3, 3]
    assert (
        dataset.sample(6, seed=1).paths == dataset.sample(6, seed=1).paths != dataset.sample(6, seed=2).paths
    )


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


@pytest.mark.real
def test_ham10000_is_read_without_a_warning_and_split_by_lesion(real_data):
    root = real_data / "ham10000_200x150"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = ImageDataset.from_csv(
            root / "metadata.csv", label_column="dx", group_column="lesion_id", label_map=HAM_LABELS
        )
    assert len(dataset) == 7006 and dataset.summary().loc["malignant", "pictures"] == 1366
    shares = [
        part.summary().loc["malignant", "share"] for part in dataset.split(0.6, 0.2, 0.2, group="lesion_id")
    ]
    assert max(shares) - min(shares) < 0.002
