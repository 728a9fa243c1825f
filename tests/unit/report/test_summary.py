import re
from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from isicvision import Evaluation, ImageDataset, associations, cards, findings, plots, summary
from isicvision.fields import MEASURES


@pytest.fixture
def checked(dataset):
    return dataset.measure()


def tabled(n=600, labels=("benign", "malignant"), seed=0, **columns):
    """A dataset of `n` rows without files: two images a group, labels in turn, and `columns` of the labels' codes."""
    code = np.arange(n) // 2 % len(labels)
    random = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "path": [f"p{number}" for number in range(n)],
            "label": np.array(labels)[code],
            "group": [f"g{number // 2}" for number in range(n)],
        }
    )
    return ImageDataset(table.assign(**{name: make(code, random) for name, make in columns.items()}))


def area_of(found, column):
    return found.set_index("column").loc[column]


def test_the_area_of_a_number_is_scikit_learns_with_its_direction_and_a_sound_interval():
    dataset = tabled(
        up=lambda code, random: code + random.normal(size=len(code)),
        down=lambda code, random: (-code + random.normal(size=len(code))).round(1),
    )
    found = associations.rank(dataset)
    for column, test in (("up", np.greater), ("down", np.less)):
        row = area_of(found, column)
        assert row["auc"] == pytest.approx(
            roc_auc_score(dataset.table["label"] == "malignant", dataset.table[column])
        )
        assert row["low"] < row["auc"] < row["high"] and test(row["low"], 0.5) and test(row["high"], 0.5)
    assert found.equals(associations.rank(dataset))  # the seed decides


def test_images_of_one_group_count_once_in_the_interval():
    alone = tabled(200, value=lambda code, random: code + random.normal(size=len(code)))
    copies = replace(alone, table=pd.concat([alone.table] * 4, ignore_index=True))
    few, many = (area_of(associations.rank(each), "value") for each in (alone, copies))
    assert many["high"] - many["low"] == pytest.approx(few["high"] - few["low"])


def test_the_order_of_the_images_moves_no_interval():
    first = tabled(200, value=lambda code, random: code + random.normal(size=len(code)))
    shuffled = replace(first, table=first.table.sample(frac=1, random_state=0, ignore_index=True))
    one, other = (area_of(associations.rank(each), "value") for each in (first, shuffled))
    assert (one["low"], one["high"]) == (other["low"], other["high"])


def test_text_of_chance_tells_nothing_and_text_that_is_the_label_tells_all():
    dataset = tabled(
        chance=lambda code, random: random.choice([f"value {n}" for n in range(40)], len(code)),
        told=lambda code, random: np.where(code == 1, "yes", "no"),
        missing_in_one=lambda code, random: pd.Series(np.where(code == 1, None, "known"), dtype=object),
    )
    found = associations.rank(dataset)
    assert found["column"].tolist()[2] == "chance"
    chance = area_of(found, "chance")
    assert chance["low"] < 0.5 < chance["high"]  # in its own sample, 40 values would seem to tell a lot
    assert area_of(found, "told")["auc"] == area_of(found, "missing_in_one")["auc"] == 1


def test_of_three_labels_the_one_told_best_is_named():
    dataset = tabled(
        labels=("a", "b", "c"), value=lambda code, random: (code == 1) * 3 + random.normal(size=len(code))
    )
    found = area_of(associations.rank(dataset), "value")
    assert found["of"] == "b" and found["auc"] > 0.95


def test_of_three_labels_one_without_any_value_does_not_hide_the_others():
    dataset = tabled(
        labels=("a", "b", "c"),
        value=lambda code, random: np.where(code == 0, np.nan, code + random.normal(0, 0.1, len(code))),
    )
    found = area_of(associations.rank(dataset), "value")
    assert found["of"] in ("b", "c") and abs(found["auc"] - 0.5) == pytest.approx(0.5)


def test_what_is_undefined_stays_so():
    dataset = tabled(
        constant=lambda code, random: np.ones(len(code)),
        empty=lambda code, random: np.full(len(code), np.nan),
        one_label_only=lambda code, random: np.where(code == 1, 1.0, np.nan),
    )
    assert associations.rank(dataset)[["auc", "low", "high"]].isna().all(axis=None)
    assert np.isnan(associations.label_from_metadata(dataset, ["constant"])["auc"])
    small = tabled(40, value=lambda code, random: code)
    assert np.isnan(associations.label_from_metadata(small, ["value"])["auc"])  # not 0.500 [0.500, 0.500]
    few = tabled(2, value=lambda code, random: random.normal(size=len(code)))
    few = replace(few, table=few.table.assign(label=["benign", "malignant"]))
    assert np.isnan(associations.label_from_metadata(few, ["value"])["auc"])


@pytest.mark.parametrize("labels", [("benign", "malignant"), ("a", "b", "c")])
def test_the_shortcut_model_finds_a_source_that_tells_the_label_and_is_at_chance_without(labels):
    dataset = tabled(
        900,
        labels,
        attribution=lambda code, random: np.where(random.random(len(code)) < 0.8, code, 0).astype(str),
        width=lambda code, random: random.integers(100, 900, len(code)),
        age=lambda code, random: code,
    )
    told, chance = (
        associations.label_from_metadata(dataset),
        associations.label_from_metadata(dataset, ["width"]),
    )
    assert told["columns"] == ["attribution", "width"] and told["low"] > 0.7
    assert chance["low"] < 0.55 and chance["high"] > 0.45


def test_what_only_tells_how_a_lesion_was_confirmed_is_no_shortcut_among_those_confirmed_alike():
    def watched(code):
        return (np.arange(len(code)) % 6 < 4) & (code == 0)  # most of the benign ones, and they have a border

    measures = dict.fromkeys(associations.FRAME, lambda code, random: np.zeros(len(code)))
    measures["border"] = lambda code, random: watched(code) + random.normal(0, 0.1, len(code))
    dataset = tabled(
        1200, **measures, dx_type=lambda code, random: np.where(watched(code), "follow_up", "histo")
    )
    whole, alike = summary.shortcut_words(dataset).split("**Confirmed alike.**")
    areas = [float(re.search(r"ROC AUC of \*\*([\d.]+)", words)[1]) for words in (whole, alike)]
    assert areas[0] > 0.75 and 0.4 < areas[1] < 0.6
    for silent in (dataset.table.drop(columns="dx_type"), dataset.table.assign(dx_type="histo")):
        words = summary.shortcut_words(replace(dataset, table=silent))
        assert "Confirmed alike" not in words and "undefined" not in words
    constant = replace(dataset, table=dataset.table.assign(border=0.0))
    assert "no defined ROC AUC (nothing varies" in summary.shortcut_words(constant)


def test_leaks_of_a_random_split_are_counted_and_said():
    dataset = tabled(100)
    hashes = [f"{number:016x}" for number in np.random.default_rng(1).integers(0, 2**63, 100)]
    measures = dict.fromkeys(MEASURES, 0) | {"sha256": hashes, "phash": hashes}
    counts = findings.leaks(replace(dataset, table=dataset.table.assign(**measures)))
    with pytest.warns(UserWarning, match=f"^{counts['random']} groups"):
        dataset.split(0.6, 0.2, 0.2, group=None)
    assert counts["several"] == counts["groups"] == 50 and counts["by_group"] == 0 < counts["random"]
    words = summary.leak_words(counts)
    assert (
        f"**{counts['random']} lesions on more than one side**" in words and "by lesion puts **0**" in words
    )


def test_leaks_of_too_few_lesions_to_split_are_counted_without_a_split():
    few = tabled(8)
    hashes = [f"{number:016x}" for number in range(8)]
    measures = dict.fromkeys(MEASURES, 0) | {"sha256": hashes, "phash": hashes}
    counts = findings.leaks(replace(few, table=few.table.assign(**measures)))
    assert counts["groups"] == 4 and "random" not in counts
    assert "too few lesions to split" in summary.leak_words(counts)


def test_both_sides_of_a_label_conflict_are_found_and_left_out(checked):
    table = checked.table.copy()
    benign, malignant = (table.index[table["label"] == label][0] for label in checked.labels)
    table.loc[malignant, ["sha256", "phash"]] = table.loc[benign, ["sha256", "phash"]]
    dataset = replace(checked, table=table)
    found = findings.find(dataset)
    paths = set(table.loc[[benign, malignant], "path"])
    assert set(found.loc[found["problem"] == "label conflict", "path"]) == paths
    rest = findings.exclude(dataset, found, ["label conflict"])
    assert len(rest) == 22 and set(rest.set_aside["path"]) == paths
    assert rest.set_aside["reason"].str.startswith("label conflict: ").all()
    table = findings.count(dataset, found, ["label conflict"])
    assert table.loc["label conflict", ["images", "excluded", "of benign"]].tolist() == [2, "yes", 1]
    with pytest.raises(ValueError, match="unknown problem 'typo'; there are: unreadable, tiny"):
        findings.count(dataset, found, ["typo"])


def test_unknown_is_missing_too(checked):
    sex = checked.table["sex"].where(checked.table["label"] == "benign", "unknown")
    shares = associations.missing(replace(checked, table=checked.table.assign(sex=sex)))
    assert shares.index[0] == "sex" and shares.loc["sex", "malignant"] == 1
    assert shares.loc["sex", "benign"] == pytest.approx(
        checked.table.query("label == 'benign'")["sex"].isna().mean()
    )


def test_the_dictionary_describes_every_column(checked):
    found = findings.dictionary(checked, checked.table.columns).set_index("column")
    assert found.index.tolist() == checked.table.columns.tolist()
    assert found.loc["width", ["type", "unit", "values", "example"]].tolist() == [
        "whole number",
        "pixels, upright",
        "96 to 96",
        96,
    ]
    assert found.loc["sex", "values"] == "male (16)" and found.loc["sex", "missing"] == "33.3%"
    assert found.loc["label", "values"] == "benign (12), malignant (12)"
    empty = replace(checked, table=checked.table.assign(empty=np.nan))
    assert findings.dictionary(empty, ["empty"])[["values", "missing"]].to_numpy().tolist() == [
        ["none", "100.0%"]
    ]


def test_the_report_is_written_from_the_data_with_all_its_images(checked, tmp_path):
    table = checked.table.assign(
        note="a | b\nc", dx=checked.table["label"].map({"benign": "nv", "malignant": "mel"})
    )
    kept = replace(checked, table=table.iloc[2:].assign(label=["malignant", *table["label"].iloc[3:]]))
    paths = summary.write(replace(checked, table=table), tmp_path / "new", kept, ["label conflict"])
    text, raw, processed = (path.read_text(encoding="utf-8") for path in paths)
    assert (
        "24 sound images (lesions or groups: 12)" in text
        and "Then left out: 2 images; corrected: 1 label. Later steps read 22 images" in text
    )
    for plot in ("label", "missing", "measures", "associations"):
        assert f"({plot}.png)" in text and (tmp_path / "new" / f"{plot}.png").stat().st_size > 1000
    assert "Synthetic test image" in text and "| mel | 0 | 12 |" in text
    assert "| sha256 |" in processed and "| sha256 |" not in raw and "| lesion_id |" in raw
    assert "a \\| b c" in raw  # a cell stays a cell
    for page in (text, raw, processed):
        rows = [line for line in page.splitlines() if line.startswith("|")]
        assert rows and all(row.endswith("|") for row in rows)


def test_images_without_metadata_have_a_report_too(checked, tmp_path):
    bare = replace(checked, table=checked.table[["path", "label", "group", *MEASURES]])
    text = summary.write(bare, tmp_path)[0].read_text(encoding="utf-8")
    assert "The source has no further columns." in text and "neither license nor attribution" in text


def test_only_images_confirmed_in_a_way_that_every_label_knows_are_alike():
    table = pd.DataFrame({"label": ["benign"] * 3 + ["malignant"] * 2})
    assert associations.confirmed_alike(table).all()
    ways = ["follow_up", "histo", None, "histo", None]
    for column in ("dx_type", "diagnosis_confirm_type"):
        alike = associations.confirmed_alike(table.assign(**{column: ways}))
        assert alike.tolist() == [False, True, False, True, False]
    evaluation = Evaluation.from_scores(table["label"], [0.1, 0.2, 0.3, 0.8, 0.9], groups=[*"abcde"])
    part = evaluation.where(alike)
    assert part.table["group"].tolist() == ["b", "d"] and part.metric("roc_auc") == 1


def test_without_a_column_that_names_lesions_nothing_is_said_to_be_safe(checked, tmp_path):
    table = checked.table.drop(columns="lesion_id")
    bare = replace(checked, table=table.assign(group=table["path"]))
    counts = findings.leaks(bare)
    assert counts["groups"] is None and "random" not in counts and "by_group" not in counts
    text = summary.write(bare, tmp_path)[0].read_text(encoding="utf-8")
    card = cards.write_data_card(bare, tmp_path / "card.md").read_text(encoding="utf-8")
    assert "24 sound images (lesions or groups: unknown: no column names lesions or patients)" in text
    assert "| lesions (or groups) | unknown: no column names lesions or patients |" in card
    for page in (text, card):
        assert "Lesions with several images: **unknown: no column names" in page
        assert "`split(…, near_duplicates=2)` keeps these in one part" in page
        assert "by lesion puts" not in page and "24 lesions" not in page
    ax = plots.class_balance(bare)
    assert [text.get_text() for text in ax.texts] == [" 12 images", " lesions unknown"] * 2


def test_of_lesions_that_are_named_for_some_images_the_share_is_said(checked):
    half = checked.table["group"].where(np.arange(24) < 18, checked.table["path"])
    words = summary.leak_words(findings.leaks(replace(checked, table=checked.table.assign(group=half))))
    assert "A lesion is named for 75% of the images; the lesions of the others are unknown." in words
