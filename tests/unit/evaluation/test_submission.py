import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from isicvision import Evaluation

pytest.importorskip("isic_challenge_scoring", reason="it is installed on Linux only")
from isic_challenge_scoring import load_csv, metrics

SEVEN = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
NAMES = [f"ISIC_{number:07d}" for number in range(140)]
GROUPS = [f"IL_{number // 2}" for number in range(140)]


def scored(classes, seed=0):
    """An evaluation of 140 images of 70 lesions; the scores lean to the truth."""
    random = np.random.default_rng(seed)
    true = np.array(classes)[np.arange(140) // 2 % len(classes)]
    scores = random.dirichlet(np.ones(len(classes)), 140)
    scores = (scores + 0.3 * (true[:, None] == np.array(classes))) / 1.3
    metadata = pd.DataFrame({"path": [f"images/{name}.jpg" for name in NAMES]})
    return Evaluation.from_scores(true, scores, GROUPS, classes, classes[0], metadata)


def read_as_the_challenge_does(csv, columns, monkeypatch):
    """Read a submission by the package of the organizers, which was written for pandas 2."""
    monkeypatch.setattr(pd.DataFrame, "applymap", pd.DataFrame.map, raising=False)
    with pd.option_context("future.infer_string", False):
        return load_csv.parse_csv(io.StringIO(Path(csv).read_text(encoding="utf-8")), pd.Index(columns))


def test_a_submission_for_isic_2018_is_accepted_and_scored_as_we_score_it(tmp_path, monkeypatch):
    evaluation = scored(SEVEN)
    given = read_as_the_challenge_does(evaluation.submission(tmp_path / "s.csv"), SEVEN, monkeypatch)
    assert given.index.tolist() == NAMES and np.allclose(given, evaluation.scores)
    truth = pd.DataFrame(
        np.equal.outer(evaluation.table["label"].to_numpy(), SEVEN) * 1.0, given.index, SEVEN
    )
    weights = pd.Series(1.0, given.index)
    balanced = metrics.balanced_multiclass_accuracy(truth, given, weights)
    assert balanced == pytest.approx(evaluation.metric("recall"))  # its mean over the classes
    for name in SEVEN:
        theirs = metrics.auc(truth[name], given[name], weights)
        assert theirs == pytest.approx(evaluation.against(name).metric("roc_auc"))
        theirs = metrics.average_precision(truth[name], given[name], weights)
        assert theirs == pytest.approx(evaluation.against(name).metric("average_precision"), abs=0.01)


def test_columns_of_a_challenge_take_our_classes_in_any_spelling_and_0_for_the_others(tmp_path, monkeypatch):
    evaluation = scored([name.lower() for name in ["AK", *SEVEN[:3]]])
    columns = ["image", "MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK"]
    csv = evaluation.submission(tmp_path / "s.csv", columns)
    given = read_as_the_challenge_does(csv, columns[1:], monkeypatch)
    assert np.array_equal(given[["MEL", "UNK"]], np.c_[evaluation.table["score_mel"], np.zeros(140)])
    with pytest.raises(ValueError, match="columns MEL, NV have none for the class"):
        evaluation.submission(tmp_path / "t.csv", ["image", "MEL", "NV"])
    assert not (tmp_path / "t.csv").exists()


@pytest.mark.parametrize("columns", [None, ["image_name", "target"]])
def test_two_classes_give_the_score_of_the_positive_one(tmp_path, columns):
    evaluation = scored(["malignant", "benign"])
    table = pd.read_csv(evaluation.submission(tmp_path / "s.csv", columns))
    assert [*table] == (columns or ["isic_id", "target"])
    assert table.iloc[:, 0].tolist() == NAMES
    assert np.allclose(table["target"], evaluation.table["score_malignant"])


def test_a_submission_by_lesion_needs_one_answer_a_lesion(tmp_path):
    evaluation, columns = scored(SEVEN), ["lesion_id", *SEVEN]
    with pytest.raises(ValueError, match="IL_0 would have two rows: .*for lesions see by_group"):
        evaluation.submission(tmp_path / "s.csv", columns)
    table = pd.read_csv(evaluation.by_group().submission(tmp_path / "s.csv", columns))
    assert table["lesion_id"].tolist() == [f"IL_{n}" for n in range(70)]
    assert np.allclose(table[SEVEN].sum(axis=1), 1)


def test_two_images_of_one_name_are_no_matter_of_lesions(tmp_path):
    table = pd.DataFrame({"path": ["a/1.jpg", "b/1.jpg"]})
    evaluation = Evaluation.from_scores(["x", "y"], [0.2, 0.8], None, ["x", "y"], "y", table)
    with pytest.raises(ValueError, match="1 would have two rows: rename it"):
        evaluation.submission(tmp_path / "s.csv")


def test_a_row_per_lesion_needs_lesions(tmp_path):
    table = pd.DataFrame({"path": ["a.jpg", "b.jpg"]})
    evaluation = Evaluation.from_scores(["x", "y"], [0.2, 0.8], None, ["x", "y"], "y", table)
    with pytest.raises(ValueError, match="lesion_id: not every image has a lesion; .* groups="):
        evaluation.submission(tmp_path / "s.csv", ["lesion_id", "x", "y"])


def test_classes_that_differ_in_signs_keep_their_own_scores_and_no_column_is_named_twice(tmp_path):
    table = pd.DataFrame({"path": ["x/lesion.2.5", "x/b.jpg"]})
    made = Evaluation.from_scores(
        ["<1 mm", ">1 mm"], [[0.7, 0.3], [0.4, 0.6]], None, ["<1 mm", ">1 mm"], ">1 mm", table
    )
    given = pd.read_csv(made.submission(tmp_path / "s.csv", ["image", "<1 mm", ">1 mm"]))
    assert given.to_numpy().tolist() == [["lesion.2.5", 0.7, 0.3], ["b", 0.4, 0.6]]
    for columns in (["image", "<1 mm", ">1 mm", "image"], ["image", "<1 mm", ">1 mm", ">1 mm"]):
        with pytest.raises(ValueError, match="name one of them twice"):
            made.submission(tmp_path / "s.csv", columns)
