import subprocess
import sys
import warnings
from pathlib import Path

import pandas as pd
import pytest
from conftest import POSIX
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isicvision import ImageDataset, files
from isicvision.data.annotation import COLUMNS, EXCLUDE, UNDO, Annotations


@pytest.fixture
def log(tmp_path):
    return tmp_path / "new" / "decisions.csv"


def lines(log):
    return pd.read_csv(log)[["path", "label", "previous"]].to_numpy().tolist()


def test_decisions_are_written_at_once_and_replayed_while_the_images_stay_as_they_are(dataset, log):
    annotations = Annotations(dataset, log)
    assert not log.exists()  # looking decides nothing
    first, second, third = dataset.paths[:3]
    annotations.decide(first, "malignant")
    annotations.decide(second, EXCLUDE)
    annotations.decide(third, "benign")  # it is right: that is a decision, too
    annotations.decide(third, "benign")  # no news
    expected = [[first, "malignant", "benign"], [second, EXCLUDE, "benign"], [third, "benign", "benign"]]
    assert lines(log) == expected
    again = Annotations(dataset, log)
    assert again.progress().to_dict() == {"images": 24, "decided": 3, "relabeled": 1, "excluded": 1}
    corrected = again.dataset
    assert len(corrected) == 23 and corrected.table.set_index("path").loc[first, "label"] == "malignant"
    assert corrected.set_aside["reason"].tolist() == ["excluded by hand"]
    assert dataset.table.loc[0, "label"] == "benign"


def test_undo_takes_back_decision_by_decision_also_after_a_replay(dataset, log):
    annotations = Annotations(dataset, log)
    path = dataset.paths[0]
    annotations.decide(path, "malignant")
    annotations.decide(path, EXCLUDE)
    assert annotations.undo() == path and annotations.label(path) == "malignant"
    assert Annotations(dataset, log).label(path) == "malignant"
    assert annotations.undo() == path and annotations.undo() is None
    assert annotations.label(path) == "benign" and not annotations.is_decided(path)
    again = Annotations(dataset, log)
    assert again.label(path) == "benign" and not again.is_decided(path)
    assert again.undo() is None  # what was decided before the log was opened is not undone by accident
    assert [line[1] for line in lines(log)] == ["malignant", EXCLUDE, UNDO, UNDO]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["benign", "malignant", EXCLUDE, UNDO]))))
def test_a_log_that_is_replayed_gives_the_same_labels(dataset, tmp_path_factory, moves):
    log = tmp_path_factory.mktemp("log") / "decisions.csv"
    annotations = Annotations(dataset, log)
    for number, label in moves:
        annotations.undo() if label == UNDO else annotations.decide(dataset.paths[number], label)
    again = Annotations(dataset, log)
    pd.testing.assert_frame_equal(annotations.table, again.table)
    pd.testing.assert_frame_equal(annotations.dataset.table, again.dataset.table)


def test_a_line_cut_short_is_left_out_and_the_next_decision_is_whole(dataset, log):
    annotations = Annotations(dataset, log)
    annotations.decide(dataset.paths[0], "malignant")
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{dataset.paths[1]},mali")
    with pytest.warns(UserWarning, match="line 3: left out"):
        annotations = Annotations(dataset, log)
    annotations.decide(dataset.paths[2], EXCLUDE)
    with pytest.warns(UserWarning, match="line 3"):
        again = Annotations(dataset, log)
    assert [again.label(path) for path in dataset.paths[:3]] == ["malignant", "benign", EXCLUDE]


def test_an_empty_log_is_a_new_one(dataset, log):
    log.parent.mkdir()
    log.touch()
    Annotations(dataset, log).decide(dataset.paths[0], "malignant")
    assert len(lines(log)) == 1


def test_decisions_about_other_images_stay_in_the_log(dataset, log):
    Annotations(dataset, log).decide(dataset.paths[0], "malignant")
    rest = ImageDataset(dataset.table.iloc[1:].reset_index(drop=True))
    with pytest.warns(UserWarning, match="0 of 1 decision apply, because none is about one of the 23 images"):
        others = Annotations(rest, log)
    assert others.progress()["decided"] == 0
    others.decide(rest.paths[0], EXCLUDE)
    assert Annotations(dataset, log).progress()["decided"] == 2


def test_paths_with_commas_quotes_and_other_scripts_survive(dataset, log):
    table = dataset.table.assign(path=[f'a,"b"\n ü{number}.jpg' for number in range(len(dataset))])
    odd = ImageDataset(table)
    Annotations(odd, log).decide(odd.paths[3], EXCLUDE)
    assert Annotations(odd, log).label(odd.paths[3]) == EXCLUDE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n", "decisions.csv is no log of decisions: its first line is not path,label"),
        (
            f"{','.join(COLUMNS)}\nPATH,wart,benign,now\n",
            r"line 2: the label 'wart' is none of benign, mal",
        ),
    ],
)
def test_a_wrong_log_is_refused_with_file_and_line(dataset, log, content, message):
    log.parent.mkdir()
    log.write_text(content.replace("PATH", dataset.paths[0]), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        Annotations(dataset, log)


def test_a_folder_is_no_log(dataset, tmp_path):
    with pytest.raises(ValueError, match="is a folder: name a CSV file for the decisions"):
        Annotations(dataset, tmp_path)


def test_unknown_labels_and_images_are_refused_and_nothing_is_written(dataset, log):
    annotations = Annotations(dataset, log)
    with pytest.raises(ValueError, match="unknown label 'wart'; there are: benign, malignant and"):
        annotations.decide(dataset.paths[0], "wart")
    with pytest.raises(KeyError, match="not in this dataset: nowhere.jpg"):
        annotations.decide("nowhere.jpg", "benign")
    assert not log.exists()


@pytest.mark.parametrize("mark", [EXCLUDE, UNDO])
def test_a_label_that_reads_as_a_mark_of_the_log_is_refused(dataset, log, mark):
    odd = ImageDataset(dataset.table.assign(label=[mark, "benign"] * 12))
    with pytest.raises(
        ValueError, match=rf"the label '\{mark[:-1]}\)' means something else in the log .*: rename it"
    ):
        Annotations(odd, log)


def test_labels_and_paths_are_taken_as_tables_and_pathlib_have_them(dataset, log):
    numbers = ImageDataset(dataset.table.assign(label=["0", "1"] * 12))
    annotations = Annotations(numbers, log)
    annotations.decide(Path(numbers.paths[0]), 1.0)
    assert annotations.label(numbers.paths[0]) == "1" == Annotations(numbers, log).label(numbers.paths[0])


def test_no_warning_without_need(dataset, log):
    Annotations(dataset, log).decide(dataset.paths[0], "malignant")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Annotations(dataset, log)


def test_a_decision_counts_whatever_folder_the_notebook_runs_in(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PROJECT_ROOT", folder)
    by_hand = ImageDataset.from_folder(folder)
    monkeypatch.chdir(folder)
    by_command = ImageDataset(by_hand.table.assign(path=[files.portable(path) for path in by_hand.paths]))
    log, first, last = tmp_path / "decisions.csv", by_hand.paths[0], by_command.paths[-1]
    Annotations(by_hand, log).decide(first, "malignant")
    Annotations(by_command, log).decide(last, "benign")
    for dataset in (by_hand, by_command):
        labels = Annotations(dataset, log).dataset.table["label"].tolist()
        assert (labels[0], labels[-1]) == ("malignant", "benign")
    assert str(folder) not in log.read_text(encoding="utf-8")


HANDS = st.tuples(
    st.integers(0, 1), st.integers(0, 1), st.sampled_from(["benign", "malignant", EXCLUDE, UNDO])
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(HANDS, max_size=12))
def test_of_two_people_on_one_log_each_takes_back_only_their_own_decisions(dataset, tmp_path_factory, moves):
    log = tmp_path_factory.mktemp("log") / "decisions.csv"
    hands = [Annotations(dataset, log) for _ in range(2)]
    stands, own = {path: [] for path in dataset.paths[:2]}, ([], [])  # what is to be
    for hand, number, label in moves:
        path = dataset.paths[number]
        if label != UNDO:
            hands[hand].decide(path, label)
            if stands[path][-1:] != [(hand, label)] or (path, label) not in own[hand]:
                stands[path].append((hand, label))
                own[hand].append((path, label))
        else:
            undone = hands[hand].undo()
            assert undone == (own[hand][-1][0] if own[hand] else None)
            if own[hand]:
                path, label = own[hand].pop()
                place = max(n for n, one in enumerate(stands[path]) if one == (hand, label))
                del stands[path][place]
    for path, decisions in stands.items():
        expected = decisions[-1][1] if decisions else dataset.table.set_index("path").loc[path, "label"]
        for each in (*hands, Annotations(dataset, log)):
            each.progress()  # reads what the other wrote
            assert each.label(path) == expected and each.is_decided(path) == bool(decisions)


def test_what_others_decide_is_seen_and_a_decision_said_again_is_written_then(dataset, log):
    one, two = Annotations(dataset, log), Annotations(dataset, log)
    path = dataset.paths[0]
    one.decide(path, "malignant")
    assert two.progress()["relabeled"] == 1 and len(two.dataset) == 24
    two.decide(path, EXCLUDE)
    one.decide(path, "malignant")
    assert [line[1:] for line in lines(log)] == [
        ["malignant", "benign"],
        [EXCLUDE, "malignant"],
        ["malignant", EXCLUDE],
    ]
    log.unlink()  # begun anew by hand
    assert one.undo() is None
    one.decide(path, EXCLUDE)
    assert Annotations(dataset, log).label(path) == EXCLUDE


@POSIX
def test_many_processes_at_once_write_one_header_and_whole_lines(dataset, log, tmp_path):
    table = tmp_path / "table.json"
    dataset.table.to_json(table)
    code = f"""
import pandas as pd
from isicvision import ImageDataset
from isicvision.data.annotation import Annotations
dataset = ImageDataset(pd.read_json({str(table)!r}))
annotations = Annotations(dataset, {str(log)!r})
for path in dataset.paths * 2:
    annotations.decide(path, "malignant")
    annotations.undo()
    annotations.decide(path, "benign")
"""
    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    found = pd.read_csv(log)
    assert found.columns.tolist() == COLUMNS and not found.isna().any(axis=None) and len(found) > 3 * 24 * 3
    assert set(Annotations(dataset, log).table["label"]) == {"benign"}


def test_a_line_cut_short_within_quotes_swallows_none_of_those_after_it(dataset, log):
    odd = ImageDataset(dataset.table.assign(path=[f"a,{number}.jpg" for number in range(len(dataset))]))
    Annotations(odd, log).decide(odd.paths[0], "malignant")
    with open(log, "a", encoding="utf-8") as file:
        file.write('"a,1')
    with pytest.warns(UserWarning, match="cut short"):
        Annotations(odd, log).decide(odd.paths[2], EXCLUDE)
    with pytest.warns(UserWarning, match="cut short"):
        assert Annotations(odd, log).label(odd.paths[2]) == EXCLUDE


def test_a_log_saved_by_a_spreadsheet_and_names_that_are_not_utf_8_are_read(dataset, log):
    odd = ImageDataset(dataset.table.assign(path=[f"\udcff{number}.jpg" for number in range(len(dataset))]))
    Annotations(odd, log).decide(odd.paths[0], "malignant")
    log.write_bytes(b"\xef\xbb\xbf" + log.read_bytes().replace(b"\n", b"\r\n"))
    assert Annotations(odd, log).label(odd.paths[0]) == "malignant"


def test_a_log_of_the_same_length_that_took_its_place_is_read_anew(dataset, log):
    annotations = Annotations(dataset, log)
    annotations.decide(dataset.paths[0], EXCLUDE)
    first, second = (files.portable(path).encode() for path in dataset.paths[:2])
    assert len(first) == len(second)
    log.write_bytes(log.read_bytes().replace(first, second))
    assert annotations.table["decided"].tolist() == [False, True] + [False] * 22
