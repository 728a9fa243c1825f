import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from isicvision import Evaluation, evaluate
from isicvision.evaluation import METRICS, _areas

CLASSES = ["benign", "malignant"]


def example(n=200, seed=0):
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.3
    scores = np.clip(random.normal(0.35 + 0.3 * positive, 0.2), 0, 1)
    return np.where(positive, "malignant", "benign"), scores, random.integers(0, n // 2, n).astype(str)


two_classes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=40
)


@given(two_classes)
@settings(max_examples=100, deadline=None)
def test_areas_equal_scikit_learns_with_ties_and_weights(rows):
    true, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < (weights * true).sum() < weights.sum())
    roc_auc, average_precision = _areas(true.astype(float), scores / 20, weights[None].astype(float))
    assert roc_auc[0] == pytest.approx(metrics.roc_auc_score(true, scores, sample_weight=weights))
    assert average_precision[0] == pytest.approx(
        metrics.average_precision_score(true, scores, sample_weight=weights)
    )


def test_every_metric_equals_scikit_learns():
    labels, scores, _ = example()
    evaluation = Evaluation.from_scores(labels, scores)
    true, called = labels == "malignant", scores > 0.5
    expected = {
        "accuracy": metrics.accuracy_score(true, called),
        "balanced_accuracy": metrics.balanced_accuracy_score(true, called),
        "precision": metrics.precision_score(true, called),
        "recall": metrics.recall_score(true, called),
        "specificity": metrics.recall_score(~true, ~called),
        "f1": metrics.f1_score(true, called),
        "roc_auc": metrics.roc_auc_score(true, scores),
        "average_precision": metrics.average_precision_score(true, scores),
        "brier": metrics.brier_score_loss(true, scores),
    }
    assert set(expected) == set(METRICS)
    for name, value in expected.items():
        assert evaluation.metric(name) == pytest.approx(value), name


def test_more_than_two_classes_are_averaged_as_scikit_learn_does():
    random = np.random.default_rng(0)
    classes = ["a", "b", "c"]
    labels = random.choice(classes, 90)
    scores = (
        random.dirichlet([1, 1, 1], 90) * 0.5
        + 0.5 * np.eye(3)[[classes.index(label) for label in labels]] * 0.8
    )
    evaluation = Evaluation.from_scores(labels, scores / scores.sum(axis=1, keepdims=True), classes=classes)
    table = evaluation.table
    assert evaluation.metric("roc_auc") == pytest.approx(
        metrics.roc_auc_score(labels, evaluation.scores, multi_class="ovr", labels=classes)
    )
    assert evaluation.metric("f1") == pytest.approx(
        metrics.f1_score(labels, table["prediction"], average="macro")
    )
    assert evaluation.confusion_matrix().to_numpy().sum() == 90


def test_an_undefined_metric_is_nan_and_never_0_or_1():
    evaluation = Evaluation.from_scores(["benign"] * 5, [0.1] * 5)
    for name in ("roc_auc", "average_precision", "recall", "precision", "balanced_accuracy"):
        assert math.isnan(evaluation.metric(name)), name
        assert all(map(math.isnan, evaluation.interval(name)))
    assert evaluation.metric("accuracy") == 1
    with pytest.raises(ValueError, match="with and without the label 'malignant'"):
        evaluation.roc()


def test_intervals_enclose_the_value_repeat_themselves_and_widen_with_few_lesions():
    labels, scores, groups = example()
    evaluation = Evaluation.from_scores(labels, scores, groups)
    low, high = evaluation.interval("roc_auc")
    assert low < evaluation.metric("roc_auc") < high
    assert Evaluation.from_scores(labels, scores, groups).interval("roc_auc") == (low, high)
    # the same pictures four times over are not more lesions
    fourfold = Evaluation.from_scores(np.tile(labels, 4), np.tile(scores, 4), np.tile(groups, 4))
    assert fourfold.interval("roc_auc") == pytest.approx((low, high), abs=0.02)
    alone = Evaluation.from_scores(np.tile(labels, 4), np.tile(scores, 4)).interval("roc_auc")
    assert alone[1] - alone[0] < 0.7 * (high - low)


def test_the_positive_label_can_be_chosen():
    labels, scores, _ = example()
    benign = Evaluation.from_scores(labels, scores, classes=CLASSES[::-1], positive="malignant")
    assert benign.classes[-1] == "benign"
    assert benign.metric("recall") == Evaluation.from_scores(labels, scores).metric("recall")


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (["benign", "wart"], [0.1, 0.2], "'wart' are not among the classes"),
        (["benign", "benign"], [0.1, float("nan")], "row 1 has"),
        (["benign", "benign"], [0.1, 1.5], "from 0 to 1"),
        (["benign"], [0.1, 0.2], "do not fit"),
        ([], [], "do not fit"),
    ],
)
def test_impossible_scores_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        Evaluation.from_scores(labels, scores)


def test_a_prediction_table_survives_saving(tmp_path):
    labels, scores, groups = example()
    evaluation = Evaluation.from_scores(labels, scores, groups)
    loaded = Evaluation.load(evaluation.save(tmp_path / "p.csv"))
    assert loaded.metrics().equals(evaluation.metrics())
    (tmp_path / "other.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match="no prediction table"):
        Evaluation.load(tmp_path / "other.csv")


def test_errors_come_most_confident_first():
    errors = Evaluation.from_scores(["benign", "benign", "malignant"], [0.6, 0.9, 0.8]).errors()
    assert errors["score_malignant"].tolist() == [0.9, 0.6]


def test_evaluate_takes_scores_in_the_models_order(dataset):
    class Oracle:
        labels = ["malignant", "benign"]

        def predict_proba(self, dataset):
            malignant = (dataset.table["label"] == "malignant").to_numpy(float)
            return np.column_stack([malignant, 1 - malignant])

    evaluation = evaluate(Oracle(), dataset, positive="malignant")
    assert evaluation.metric("roc_auc") == 1 and evaluation.metric("recall") == 1
    assert evaluation.table["path"].tolist() == dataset.paths
    assert evaluation.table["group"].equals(dataset.table["group"])
    assert evaluation.table["attribution"].equals(dataset.table["attribution"])
