import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from isicvision import Evaluation, calibration


def calibrated(n=4000, seed=0, sharpness=2.0):
    """Labels that are true as often as their scores say."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, sharpness, n)
    scores = 1 / (1 + np.exp(-logits))
    return random.random(n) < scores, np.column_stack([1 - scores, scores]), logits


def test_the_temperature_of_logits_scaled_by_three_is_three():
    positive, _, logits = calibrated(20000)
    sure = 1 / (1 + np.exp(-3 * logits))
    scores = np.column_stack([1 - sure, sure])
    value = calibration.fit_temperature(positive.astype(int), scores)
    assert value == pytest.approx(3, rel=0.05)
    cooled = calibration.apply(scores, value)
    assert cooled.sum(axis=1) == pytest.approx(1)
    assert metrics.roc_auc_score(positive, cooled[:, 1]) == metrics.roc_auc_score(positive, scores[:, 1])
    labels = np.where(positive, "malignant", "benign")
    before, after = (Evaluation.from_scores(labels, each) for each in (scores, cooled))
    assert after.metric("ece") < 0.02 < before.metric("ece")
    assert after.metric("log_loss") < before.metric("log_loss")


@pytest.mark.parametrize(("right", "end"), [(0.6, 0.1), (0.4, 10)])
def test_scores_that_are_all_right_or_all_wrong_have_a_temperature_too(right, end):
    labels = np.arange(12) % 2
    scores = np.where(labels[:, None] == [0, 1], right, 1 - right)
    scores += np.outer(np.linspace(-0.05, 0.05, 12), [1, -1])
    value = calibration.fit_temperature(labels, scores)
    assert value == pytest.approx(end)
    assert np.isfinite(calibration.apply(scores, value)).all()


def test_the_temperature_of_three_classes():
    random = np.random.default_rng(0)
    logits = random.normal(0, 1.5, (20000, 3))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) > random.random((20000, 1))).argmax(axis=1)
    flat = calibration.apply(chances, 2)
    assert calibration.fit_temperature(labels, flat) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_images_of_each_class_have_a_temperature(count):
    labels = np.repeat([0, 1], count)
    scores = np.clip(0.3 + 0.4 * labels + np.linspace(-0.3, 0.25, 2 * count), 0.01, 0.99)
    assert 0.1 <= calibration.fit_temperature(labels, np.column_stack([1 - scores, scores])) <= 10


def test_scores_above_1_by_rounding_have_the_same_temperature():
    positive, scores, _ = calibrated(300, sharpness=6)
    labels, rounded = positive.astype(int), scores.copy()
    rounded[scores[:, 1].argmax()] = -2e-16, 1 + 2e-16
    scores[scores[:, 1].argmax()] = 0, 1
    assert calibration.fit_temperature(labels, rounded) == calibration.fit_temperature(labels, scores)
    with pytest.raises(ValueError, match="not finite"):
        calibration.fit_temperature(labels, np.full_like(scores, np.nan))


def distorted(classes, count=4000, seed=0):
    """Labels, scores that say too little of some classes, and what would put them right."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (count, classes))
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (chances.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    offsets = [0, 0.8, -0.5, 0.3][:classes]
    scores = np.exp(2 * (logits - offsets))
    return labels, scores / scores.sum(axis=1, keepdims=True), offsets, chances


@pytest.mark.parametrize("classes", [2, 4])
def test_offsets_say_how_frequent_a_class_is(classes):
    labels, scores, known, chances = distorted(classes)
    value, offsets = calibration.fit(labels, scores, np.arange(len(labels)))
    assert value == pytest.approx(2, rel=0.1) and offsets == pytest.approx(known, abs=0.15)
    after = calibration.apply(scores, value, offsets)
    assert after.mean(axis=0) == pytest.approx(
        np.bincount(labels) / len(labels), abs=1e-3
    )  # observed as expected
    assert np.abs(after - chances).mean() < 0.02
    alone = calibration.apply(scores, calibration.fit_temperature(labels, scores))
    assert metrics.log_loss(labels, after) < metrics.log_loss(labels, alone) - 0.01
    if classes == 2:  # Platt scaling
        odds = np.log(scores[:, 1:] / scores[:, :1])
        platt = LogisticRegression(C=1e10).fit(odds, labels)
        assert (1 / value, offsets[1]) == pytest.approx(
            (platt.coef_.item(), platt.intercept_.item()), abs=1e-3
        )
        assert metrics.roc_auc_score(labels, after[:, 1]) == metrics.roc_auc_score(labels, scores[:, 1])


def test_offsets_need_enough_lesions_and_are_left_out_where_they_do_not_help():
    labels, scores, _, _ = distorted(2, 400)
    few = np.where(labels == 1, np.arange(400) % (calibration.ENOUGH - 1), np.arange(400))
    assert calibration.fit(labels, scores, few) == (
        calibration.fit_temperature(labels, scores),
        None,
    )
    kept = [
        calibration.fit(labels, chances, np.arange(400))[1]
        for labels, _, _, chances in (distorted(2, 400, seed) for seed in range(20))
    ]
    assert kept.count(None) >= 10
