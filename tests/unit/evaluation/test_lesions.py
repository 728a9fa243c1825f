"""One answer a lesion: `Evaluation.by_group` and `Evaluation.units`."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import rankdata

from isicvision import PROJECT_ROOT, Evaluation, comparison, plots

KEPT = PROJECT_ROOT / "docs" / "measurements" / "presets"


def made(n=300, seed=0, classes=("benign", "malignant")):
    """Scores of lesions with one to four images, with metadata of the lesion and of the image."""
    random = np.random.default_rng(seed)
    lesion = np.repeat(np.arange(n), random.integers(1, 5, n))
    label = random.integers(0, len(classes), n)[lesion]
    logits = random.normal(0, 1, (len(lesion), len(classes))) + 1.5 * np.eye(len(classes))[label]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    table = pd.DataFrame({"path": [f"{row}.jpg" for row in range(len(lesion))], "group": lesion.astype(str)})
    table["site"] = np.array(["arm", "leg"])[random.integers(0, 2, n)][lesion]
    table["age"] = np.where(random.random(n) < 0.2, np.nan, random.integers(20, 80, n))[lesion]
    return Evaluation.from_scores(np.array(classes)[label], scores, classes=classes, metadata=table)


def area(positive, scores):
    """The ROC AUC by the ranks of Mann and Whitney."""
    count = positive.sum()
    ranks = rankdata(scores)[positive].sum()
    return (ranks - count * (count + 1) / 2) / (count * (~positive).sum())


@pytest.mark.parametrize(
    ("split", "images", "lesions"), [(0, 0.931, 0.952), (1, 0.921, 0.946), (2, 0.921, 0.942)]
)
def test_kept_scores_by_lesion_equal_an_independent_computation(split, images, lesions):
    kept = pd.read_csv(KEPT / f"accurate-{split}.csv")
    labels = np.where(kept["malignant"], "malignant", "benign")
    evaluation = Evaluation.from_scores(labels, kept["score"], kept["lesion"], threshold=0.3)
    by_lesion = evaluation.by_group()
    positive, scores, alone = [], [], []
    for _, rows in kept.groupby("lesion", sort=False):
        positive.append(rows["malignant"].iloc[0] == 1)
        alone.append(rows["score"].iloc[0] if len(rows) == 1 else np.nan)
        scores.append(expit(logit(rows["score"].clip(1e-6, 1 - 1e-6)).mean()))
    positive, scores, alone = map(np.array, (positive, scores, alone))
    found = by_lesion.table["score_malignant"].to_numpy()
    np.testing.assert_allclose(found, scores, atol=2e-6)
    assert (found == alone)[~np.isnan(alone)].all(), "a lesion with one image keeps its exact score"
    called = scores >= 0.3
    independent = {
        "roc_auc": area(positive, scores),
        "recall": called[positive].mean(),
        "specificity": (~called)[~positive].mean(),
        "accuracy": (called == positive).mean(),
        "brier": ((scores - positive) ** 2).mean(),
    }
    for metric, value in independent.items():
        assert by_lesion.metric(metric) == pytest.approx(value, abs=1e-6), metric
    assert evaluation.metric("roc_auc") == pytest.approx(images, abs=5e-4)
    assert by_lesion.metric("roc_auc") == pytest.approx(lesions, abs=5e-4)


def test_a_row_a_lesion_with_its_number_of_images_and_its_first_path():
    evaluation = made()
    by_lesion = evaluation.at(0.3).by_group()
    table, groups = by_lesion.table, evaluation.table.groupby("group", sort=False)
    assert table["group"].tolist() == [*groups.groups] and not table["group"].duplicated().any()
    assert table["images"].tolist() == groups.size().tolist() and table["images"].sum() == len(
        evaluation.table
    )
    assert table["path"].tolist() == groups["path"].first().tolist()
    assert (by_lesion.threshold, by_lesion.positive, by_lesion.classes) == (
        0.3,
        "malignant",
        evaluation.classes,
    )
    assert (table["prediction"] == np.where(table["score_malignant"] >= 0.3, "malignant", "benign")).all()
    assert repr(by_lesion).startswith("Evaluation of 300 lesions")


def test_without_lesions_of_several_images_nothing_changes():
    evaluation = made(classes=["a", "b", "c"])
    alone = evaluation.where(~evaluation.table["group"].duplicated())
    pd.testing.assert_frame_equal(alone.by_group().table.drop(columns="images"), alone.table)
    pd.testing.assert_frame_equal(alone.by_group().metrics(), alone.metrics())
    assert [*alone.units] == ["image"] and [*evaluation.units] == ["lesion", "image"]
    nameless = Evaluation.from_scores(evaluation.table["label"], evaluation.scores, classes=["a", "b", "c"])
    assert [*nameless.units] == ["image"]


def test_many_classes_are_averaged_as_the_softmax_of_mean_log_scores():
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    evaluation = Evaluation.from_scores([*"aac"], scores, [*"xxy"], classes=[*"abc"])
    mean = np.sqrt(scores[0] * scores[1])
    np.testing.assert_allclose(evaluation.by_group().scores, [mean / mean.sum(), scores[2]])
    with pytest.raises(ValueError, match="call by_group before against"):
        Evaluation.from_scores([*"aab"], [[0.4, 0.35, 0.25]] * 3, [*"xxy"], classes=[*"abc"]).against(
            "a"
        ).by_group()
    assert evaluation.by_group().against("a").metric("roc_auc") == 1


def test_scores_of_0_and_1_are_averaged_too():
    evaluation = Evaluation.from_scores(["benign"] * 4, [0.0, 1.0, 0.0, 0.0], [*"aabb"])
    np.testing.assert_allclose(evaluation.by_group().table["score_malignant"], [0.5, 1e-6], rtol=1e-5)


def test_metadata_is_kept_where_all_images_of_a_lesion_agree():
    metadata = pd.DataFrame(
        {
            "group": [*"aabbcc", "d"],
            "age": [50, 50, 40, 45, np.nan, 30, 60],
            "seen": [True, True, True, False, False, False, True],
            "tone": pd.Categorical(["dark", "dark", "light", "dark", None, None, "light"], ["light", "dark"]),
        }
    )
    table = Evaluation.from_scores(["benign"] * 7, np.full(7, 0.5), metadata=metadata).by_group().table
    assert table["age"].fillna(-1).tolist() == [50, -1, -1, 60]  # a missing age agrees with no other
    assert table["seen"].astype(object).where(table["seen"].notna(), None).tolist() == [
        True,
        None,
        False,
        True,
    ]
    assert table["tone"].astype(object).where(table["tone"].notna(), None).tolist() == [
        "dark",
        None,
        None,
        "light",
    ]
    assert table["tone"].cat.categories.tolist() == ["light", "dark"]


def test_contradicting_labels_are_named_and_only_image_figures_are_left():
    evaluation = Evaluation.from_scores(
        ["benign", "malignant", "benign"], [0.1, 0.2, 0.3], ["L7", "L7", "L8"]
    )
    with pytest.raises(ValueError, match="lesion L7 have the labels benign and malignant"):
        evaluation.by_group()
    with pytest.warns(UserWarning, match="not for each lesion: .*L7"):
        assert [*evaluation.units] == ["image"]


def test_intervals_slices_plots_and_files_work_by_lesion(tmp_path):
    by_lesion = made().at(0.5).by_group()
    low, high = by_lesion.interval("roc_auc")
    assert low < by_lesion.metric("roc_auc") < high
    found = comparison.slices(by_lesion, "site")
    assert found["images"].sum() == 300 and (found["images"] == found["lesions"]).all()
    assert plots.roc(by_lesion).get_title().endswith("(n = 300)")
    loaded = Evaluation.load(by_lesion.save(tmp_path / "lesions.csv"))
    pd.testing.assert_frame_equal(loaded.metrics(), by_lesion.metrics())
    assert loaded.table["images"].tolist() == by_lesion.table["images"].tolist()


def test_a_column_of_ones_own_called_images_is_no_obstacle():
    labels, scores, lesions = ["benign", "benign", "malignant"], [0.2, 0.4, 0.8], ["a", "a", "b"]
    made = Evaluation.from_scores(labels, scores, lesions, metadata=pd.DataFrame({"images": [7, 8, 9]}))
    assert made.units["lesion"].table["images"].tolist() == [2, 1]
    assert "Evaluation of 3 images" in repr(made) and "Evaluation of 2 lesions" in repr(made.by_group())
