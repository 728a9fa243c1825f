import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isicvision import ImageDataset, project
from isicvision.annotation import COLUMNS, EXCLUDE, UNDO, Annotations


@pytest.fixture
def log(tmp_path):
    return tmp_path / "new" / "decisions.csv"


def lines(log):
    return pd.read_csv(log)[["path", "label", "previous"]].to_numpy().tolist()


def test_decisions_are_written_at_once_and_replayed_while_the_pictures_stay_as_they_are(dataset, log):
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
    assert again.progress().to_dict() == {"pictures": 24, "decided": 3, "relabelled": 1, "excluded": 1}
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
    with open(log, "a") as file:
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


def test_decisions_about_other_pictures_stay_in_the_log(dataset, log):
    Annotations(dataset, log).decide(dataset.paths[0], "malignant")
    rest = ImageDataset(dataset.table.iloc[1:].reset_index(drop=True))
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
            r"line 2: the label 'wart' is none of .*benign, mal",
        ),
    ],
)
def test_a_wrong_log_is_refused_with_file_and_line(dataset, log, content, message):
    log.parent.mkdir()
    log.write_text(content.replace("PATH", dataset.paths[0]))
    with pytest.raises(ValueError, match=message):
        Annotations(dataset, log)


def test_unknown_labels_and_pictures_are_refused_and_nothing_is_written(dataset, log):
    annotations = Annotations(dataset, log)
    with pytest.raises(ValueError, match="unknown label 'wart'; there are: benign, malignant and"):
        annotations.decide(dataset.paths[0], "wart")
    with pytest.raises(KeyError, match="not in this dataset: nowhere.jpg"):
        annotations.decide("nowhere.jpg", "benign")
    assert not log.exists()


@pytest.mark.parametrize("mark", [EXCLUDE, UNDO])
def test_a_label_that_reads_as_a_mark_of_the_log_is_refused(dataset, log, mark):
    odd = ImageDataset(dataset.table.assign(label=[mark, "benign"] * 12))
    with pytest.raises(ValueError, match=rf"the label '\{mark[:-1]}\)' has another meaning .* another name"):
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
    monkeypatch.setattr(project, "PROJECT_ROOT", folder)
    by_hand = ImageDataset.from_folder(folder)
    monkeypatch.chdir(folder)
    by_command = ImageDataset(by_hand.table.assign(path=[project.portable(path) for path in by_hand.paths]))
    log, first, last = tmp_path / "decisions.csv", by_hand.paths[0], by_command.paths[-1]
    Annotations(by_hand, log).decide(first, "malignant")
    Annotations(by_command, log).decide(last, "benign")
    for dataset in (by_hand, by_command):
        labels = Annotations(dataset, log).dataset.table["label"].tolist()
        assert (labels[0], labels[-1]) == ("malignant", "benign")
    assert str(folder) not in log.read_text()
