import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from isicvision import Evaluation, evaluate
from isicvision import metrics as ours
from isicvision.checks import CALL_NONE
from isicvision.evaluation.intervals import interval
from isicvision.metrics import METRICS

CLASSES = ["benign", "malignant"]


def example(n=200, seed=0):
    random = np.random.default_rng(seed)
    positive = random.random(n) < 0.3
    scores = np.clip(random.normal(0.35 + 0.3 * positive, 0.2), 0, 1)
    return np.where(positive, "malignant", "benign"), scores, random.integers(0, n // 2, n).astype(str)


two_classes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 20), st.integers(0, 3)), min_size=2, max_size=40
)


def sensitive_part(true, scores, weights):
    """The mean specificity over sensitivities from 0.8 on, by a fine grid: slow, and independent of ours."""
    rate, recall, _ = metrics.roc_curve(true, scores, sample_weight=weights, drop_intermediate=False)
    heights = np.linspace(0.8, 1, 4001)[:-1] + 0.2 / 8000
    right = np.searchsorted(recall, heights)  # the first point at least as high
    before = np.maximum(right - 1, 0)
    rise = recall[right] - recall[before]
    part = np.divide(heights - recall[before], rise, out=np.zeros_like(heights), where=rise > 0)
    return np.mean(1 - (rate[before] + part * (rate[right] - rate[before])))


@given(two_classes)
@settings(max_examples=100, deadline=None)
def test_areas_equal_scikit_learns_with_ties_and_weights(rows):
    true, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < (weights * true).sum() < weights.sum())
    arrays = true[:, None].astype(float), None, scores[:, None] / 20, weights[None].astype(float)
    found = {
        name: float(value[0, 0])
        for name, value in (
            ours.roc_auc(*arrays) | ours.average_precision(*arrays) | ours.partial_roc_auc(*arrays)
        ).items()
    }
    assert found["roc_auc"] == pytest.approx(metrics.roc_auc_score(true, scores, sample_weight=weights))
    assert found["average_precision"] == pytest.approx(
        metrics.average_precision_score(true, scores, sample_weight=weights)
    )
    assert found["partial_roc_auc"] == pytest.approx(sensitive_part(true, scores / 20, weights), abs=1e-3)


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
        "npv": metrics.precision_score(~true, ~called),
        "partial_roc_auc": sensitive_part(true, scores, None),
        "log_loss": metrics.log_loss(true, scores),
        "ece": sum(
            abs(true[inside].sum() - scores[inside].sum())
            for inside in (np.clip(np.floor(scores * 10), 0, 9) == number for number in range(10))
        )
        / len(true),
    }
    assert set(expected) == set(METRICS)
    for name, value in expected.items():
        within = 1e-4 if name == "partial_roc_auc" else 1e-9
        assert evaluation.metric(name) == pytest.approx(value, abs=within), name


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
    # the same images four times over are not more lesions
    fourfold = Evaluation.from_scores(np.tile(labels, 4), np.tile(scores, 4), np.tile(groups, 4))
    assert fourfold.interval("roc_auc") == pytest.approx((low, high), abs=0.02)
    alone = Evaluation.from_scores(np.tile(labels, 4), np.tile(scores, 4)).interval("roc_auc")
    assert alone[1] - alone[0] < 0.7 * (high - low)


def test_intervals_hold_the_truth_over_lesions_and_too_seldom_over_images():
    # the images of a lesion, one to four, are right or wrong together, four times in five
    held, alone, repeats = 0, 0, 100
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        lesion = np.repeat(np.arange(60), random.integers(1, 5, 60))
        sick, right = random.random(60) < 0.4, random.random(60) < 0.8
        labels = np.where(sick, "malignant", "benign")[lesion]
        scores = np.where(sick == right, 0.9, 0.1)[lesion]
        intervals = [
            Evaluation.from_scores(labels, scores, groups).interval(name)
            for groups in (lesion, None)
            for name in ("accuracy", "recall")
        ]
        inside = [low <= 0.8 <= high for low, high in intervals]
        held, alone = held + np.array(inside[:2]), alone + np.array(inside[2:])
    assert (held / repeats >= 0.92).all() and (held / repeats <= 0.99).all(), held / repeats
    assert (alone / repeats < 0.85).all(), alone / repeats


def test_the_interval_is_scipys_bca_where_it_reaches_as_far():
    values = np.random.default_rng(0).exponential(size=40) ** 1.5
    without = np.array([np.delete(values, row).mean() for row in range(40)])
    freedom = min(2 * 40 / (stats.kurtosis(values, fisher=False) - 1), 39)
    reach = stats.t.ppf(0.975, freedom) * np.sqrt(1 + 1 / freedom)
    theirs = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=2000,
        confidence_level=2 * stats.norm.cdf(reach) - 1,
        method="BCa",
        rng=np.random.default_rng(1),
    )
    found = interval(values.mean(), theirs.bootstrap_distribution, jackknife=without)
    assert found == pytest.approx(tuple(theirs.confidence_interval), rel=1e-6)


@given(two_classes)
@settings(max_examples=20, deadline=None)
def test_intervals_enclose_the_value_and_stay_in_range_whatever_the_images(rows):
    true, scores, groups = (np.array(column) for column in zip(*rows, strict=True))
    evaluation = Evaluation.from_scores(np.where(true, "malignant", "benign"), scores / 20, groups)
    for name in METRICS:
        with np.errstate(invalid="raise", divide="raise"):
            value, (low, high) = evaluation.metric(name), evaluation.interval(name)
        if np.isnan(value) or (
            name == "partial_roc_auc" and np.isnan(low)
        ):  # of fewer than 30 positive lesions
            assert np.isnan(low) and np.isnan(high), name
        else:
            assert 0 <= low <= value <= high, name
            assert high <= 1 + 1e-9 or name == "log_loss", name


def test_the_interval_of_the_calibration_error_reaches_below_what_chance_adds():
    random = np.random.default_rng(0)
    scores = random.random(200)  # calibrated: the error of many images is 0
    labels = np.where(random.random(200) < scores, "malignant", "benign")
    evaluation = Evaluation.from_scores(labels, scores)
    low, high = evaluation.interval("ece")
    assert low < 0.01 < evaluation.metric("ece") < high
    assert np.quantile(evaluation.draws("ece"), 0.025) > evaluation.metric("ece") / 2


def clopper_pearson(right, lesions):
    return tuple(stats.binomtest(right, lesions).proportion_ci(method="exact"))


def test_shares_of_lesions_that_are_all_right_have_the_exact_binomial_interval():
    labels = ["malignant"] * 10 + ["benign"] * 50
    evaluation = Evaluation.from_scores(labels, [0.9] * 10 + [0.1] * 50)
    for name, lesions in {
        "recall": 10,
        "precision": 10,
        "specificity": 50,
        "npv": 50,
        "accuracy": 60,
    }.items():
        assert evaluation.interval(name) == pytest.approx(clopper_pearson(lesions, lesions)), name
    # five images of each lesion are not more lesions
    many = Evaluation.from_scores(
        np.repeat(labels, 5), np.repeat([0.9, 0.1], [50, 250]), np.repeat(np.arange(60), 5)
    )
    assert many.interval("recall") == pytest.approx(clopper_pearson(10, 10))
    none = Evaluation.from_scores(labels, [0.1] * 60)
    assert none.interval("recall") == pytest.approx(clopper_pearson(0, 10))
    assert none.text("recall") == "0.000 [0.000, 0.308]"


def test_where_every_draw_agrees_no_interval_is_without_width():
    perfect = Evaluation.from_scores(["malignant"] * 10 + ["benign"] * 50, [1.0] * 10 + [0.0] * 50)
    bound = clopper_pearson(10, 10)[0]  # ten pairs that share no lesion, all in order
    for name in METRICS:
        low, high = perfect.interval(name)
        assert name == "partial_roc_auc" or high - low > 0.05, name
    assert perfect.interval("roc_auc") == pytest.approx((bound, 1))
    assert perfect.text("roc_auc") == f"1.000 [≥ {bound:.3f}]"
    one = Evaluation.from_scores(["malignant", "benign"], [0.7, 0.2], groups=["a", "a"])
    assert all(np.ptp(one.interval(name)) > 0.9 for name in ("accuracy", "roc_auc", "brier", "f1"))
    three = np.resize(["a", "b", "c"], 30)
    means = Evaluation.from_scores(three, np.eye(3)[np.arange(30) % 3], classes=["a", "b", "c"])
    for name in ("recall", "balanced_accuracy", "roc_auc"):
        assert means.interval(name) == pytest.approx((bound, 1)), name


def test_half_of_what_is_all_right_makes_the_whole_as_wide():
    labels = ["malignant"] * 10 + ["benign"] * 200
    evaluation = Evaluation.from_scores(labels, [0.9] * 30 + [0.1] * 180)
    value, (low, _) = evaluation.metric("balanced_accuracy"), evaluation.interval("balanced_accuracy")
    assert low <= value - (1 - clopper_pearson(10, 10)[0]) / 2 + 1e-9


def test_the_binomial_interval_takes_the_place_of_the_bootstrap_only_where_few_lesions_are_on_one_side():
    for wrong, few in ((1, True), (4, True), (12, False)):
        scores = np.where(np.arange(40) < wrong, 0.1, 0.9).tolist() + [0.1] * 60
        evaluation = Evaluation.from_scores(["malignant"] * 40 + ["benign"] * 60, scores)
        found, value = evaluation.interval("recall"), evaluation.metric("recall")
        by_bootstrap = interval(value, evaluation.draws("recall"), jackknife=evaluation.jackknife("recall"))
        assert (found == pytest.approx(by_bootstrap)) != few
        if few:  # each lesion has one image, so that it is nearly Clopper's and Pearson's
            assert found == pytest.approx(clopper_pearson(40 - wrong, 40), abs=0.02)


def test_few_positive_lesions_are_too_few_for_the_end_of_the_curve():
    labels, scores = ["malignant"] * 29 + ["benign"] * 60, np.linspace(1, 0, 89)
    few = Evaluation.from_scores(labels, scores)
    assert np.isnan(few.interval("partial_roc_auc")).all()
    assert few.text("partial_roc_auc") == ("1.000 (too few lesions for an interval: 29 positive, 30 needed)")
    assert few.metrics()["value"].notna().all()
    enough = Evaluation.from_scores(["malignant"] * 30 + ["benign"] * 59, scores)
    assert not np.isnan(enough.interval("partial_roc_auc")).any()


def test_a_high_recall_of_few_lesions_is_held_by_its_interval():
    held, repeats = 0, 100
    for seed in range(repeats):
        random = np.random.default_rng(seed)
        lesion = np.repeat(np.arange(60), random.integers(1, 5, 60))
        sick = np.arange(60) < 10
        found = random.random(60) < 0.95  # all images of a lesion or none
        labels = np.where(sick, "malignant", "benign")[lesion]
        low, high = Evaluation.from_scores(labels, np.where(sick & found, 0.9, 0.1)[lesion], lesion).interval(
            "recall"
        )
        held += low <= 0.95 <= high
    assert held / repeats >= 0.93  # by the bootstrap alone some 40 %


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
        (["benign", "benign"], [[0.5, 0.5], [0.9, 0.3]], "sum to 1; row 1 has"),
        (["benign"], [0.1, 0.2], "do not fit"),
        ([], [], "do not fit"),
        (["benign", None], [0.1, 0.2], "label 1 is missing"),
        (["benign", "benign"], [0.1, "high"], "scores must be numbers"),
        ([["benign"], ["benign"]], [0.1, 0.2], "array of shape"),
    ],
)
def test_impossible_scores_are_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        Evaluation.from_scores(labels, scores)


@pytest.mark.parametrize("kind", [str, int])
def test_a_prediction_table_survives_saving(kind, tmp_path):
    labels, scores, groups = example()
    evaluation = Evaluation.from_scores(labels, scores, groups.astype(kind))
    loaded = Evaluation.load(evaluation.save(tmp_path / "p.csv"))
    assert loaded.metrics().equals(evaluation.metrics())
    (tmp_path / "other.csv").write_text("a\n1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="other.csv is not a table of predictions: its columns are a"):
        Evaluation.load(tmp_path / "other.csv")


def test_labels_that_look_like_numbers_or_like_nothing_survive_saving(tmp_path):
    for classes in (["0", "1"], ["NA", "None"]):
        evaluation = Evaluation.from_scores(classes * 3, np.linspace(0, 1, 6), classes=classes)
        loaded = Evaluation.load(evaluation.save(tmp_path / "predictions.csv"))
        assert loaded.positive == classes[1] and loaded.metric("roc_auc") == evaluation.metric("roc_auc")


@pytest.mark.parametrize(
    "column", ["score_7pt", "score_malignant", "prediction", "positive", "threshold", "isicvision"]
)
def test_a_column_of_the_metadata_stays_one_whatever_its_name(column, tmp_path):
    labels, scores, groups = example(20)
    metadata = pd.DataFrame({column: np.linspace(0, 1, 20), "label": "another", "note": "a"})
    before = Evaluation.from_scores(labels, scores, groups, metadata=metadata).at(0.3)
    kept = column if column in ("score_7pt", "positive", "threshold") else f"metadata_{column}"
    after = Evaluation.load(before.save(tmp_path / "p.csv"))
    for evaluation in (before, after):
        assert evaluation.table[kept].tolist() == pytest.approx(np.linspace(0, 1, 20))
        assert evaluation.classes == CLASSES and evaluation.threshold == 0.3
        assert evaluation.table["label"].tolist() == list(labels)
    assert after.table.columns.equals(before.table.columns)
    assert after.metrics(["recall", "roc_auc"]).equals(before.metrics(["recall", "roc_auc"]))


def test_the_table_of_an_evaluation_may_be_the_metadata_of_the_next(tmp_path):
    made = Evaluation.from_scores(*example(20))
    for _ in range(2):
        made = Evaluation.from_scores(*example(20), metadata=made.table)
    loaded = Evaluation.load(made.save(tmp_path / "p.csv"))
    assert loaded.table.columns.equals(made.table.columns) and made.table.columns.is_unique


@pytest.mark.parametrize("pair", [(0, 1), (False, True), (0.0, 1.0), (np.int64(0), np.int64(1))])
def test_labels_may_be_numbers_wherever_they_enter(pair, tmp_path):
    evaluation = Evaluation.from_scores([*pair] * 3, np.linspace(0, 0.9, 6), classes=pair, positive=pair[1])
    assert evaluation.positive == str(pair[1]).removesuffix(".0")
    assert evaluation.against(pair[1]).metric("roc_auc") == evaluation.metric("roc_auc")
    csv = evaluation.save(tmp_path / "p.csv")
    assert Evaluation.load(csv, positive=pair[0]).metric("specificity") == evaluation.metric("recall")


def test_evaluate_takes_a_number_for_the_positive_label(dataset):
    class Model:
        labels = ["0", "1"]

        def predict_proba(self, dataset):
            return np.tile([0.4, 0.6], (len(dataset), 1))

    numbers = {label: str(number) for number, label in enumerate(dataset.labels)}
    table = dataset.table.assign(label=dataset.table["label"].map(numbers))
    assert evaluate(Model(), replace(dataset, table=table), positive=0).positive == "0"


@pytest.mark.parametrize("scores", [[0.1, 1.0000000000000002], np.float32([-1e-9, 1.0000001])])
def test_scores_outside_by_rounding_are_clipped(scores):
    table = Evaluation.from_scores(CLASSES, scores).table
    assert table["score_malignant"].between(0, 1).all() and table["score_malignant"][1] == 1


def test_an_evaluation_shows_itself_on_one_screen_without_a_bootstrap():
    labels, scores, groups = example()
    evaluation = Evaluation.from_scores(labels, scores, groups, threshold=0.3)
    text = repr(evaluation)
    assert f"accuracy {evaluation.metric('accuracy'):.3f}" in text and "roc_auc 0." in text
    assert "malignant" in text and "0.300" in text and len(text.splitlines()) < 8
    assert not evaluation._drawn


@pytest.mark.parametrize("named", ["groups", "paths", "nothing"])
def test_the_order_of_the_rows_moves_no_interval(named):
    labels, scores, groups = example()
    labels, order = np.where(groups < "3", "malignant", "benign"), np.random.default_rng(1).permutation(200)
    names = {
        "groups": {"groups": groups},
        "paths": {"metadata": pd.DataFrame({"path": [f"{n}.jpg" for n in range(200)]})},
    }
    more = names.get(named, {})
    first = Evaluation.from_scores(labels, scores, **more)
    other = Evaluation.from_scores(
        labels[order],
        scores[order],
        **{name: values[order] if named == "groups" else values.iloc[order] for name, values in more.items()},
    )
    for name in METRICS:
        assert np.array_equal(other.interval(name), first.interval(name), equal_nan=True), name
    assert other.bands().equals(first.bands())


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


def test_per_class_takes_each_class_against_the_others():
    random = np.random.default_rng(1)
    classes = ["a", "b", "c", "never"]
    labels = random.choice(classes[:3], 120)
    scores = random.dirichlet([1] * 4, 120) + 0.7 * np.eye(4)[[classes.index(label) for label in labels]]
    evaluation = Evaluation.from_scores(labels, scores / scores.sum(axis=1, keepdims=True), classes=classes)
    table = evaluation.per_class()
    for name in classes[:3]:
        true, called = labels == name, evaluation.table["prediction"] == name
        expected = {
            "recall": metrics.recall_score(true, called),
            "precision": metrics.precision_score(true, called),
            "roc_auc": metrics.roc_auc_score(true, evaluation.table[f"score_{name}"]),
        }
        for metric, value in expected.items():
            row = table.loc[(name, metric)]
            assert row["value"] == pytest.approx(value) and row["low"] <= value <= row["high"]
    assert (
        np.isnan(table.loc[("never", "recall"), "value"]) and table.loc[("never", "roc_auc"), "images"] == 0
    )
    # a mean over classes one of which has no image is not defined either
    assert np.isnan(evaluation.metric("roc_auc")) and evaluation.text("roc_auc") == "undefined"
    assert evaluation.text("accuracy").startswith(f"{evaluation.metric('accuracy'):.3f} [")


def test_images_without_a_group_stand_alone():
    evaluation = Evaluation.from_scores(
        ["benign", "malignant", "benign"], [0.1, 0.9, 0.2], groups=["L", None, float("nan")]
    )
    assert evaluation.table["group"].nunique() == 3 and evaluation.table["group"][0] == "L"
    with pytest.raises(ValueError, match="2 groups do not fit 3 labels"):
        Evaluation.from_scores(["benign"] * 3, [0.1] * 3, groups=["a", "b"])


def test_equal_scores_and_a_single_image_have_figures_or_say_undefined():
    equal = Evaluation.from_scores(["benign", "malignant"] * 5, [0.5] * 10)
    assert equal.metric("roc_auc") == 0.5 and equal.interval("roc_auc") == (0.5, 0.5)
    one = Evaluation.from_scores(["malignant"], [0.7])
    assert one.metric("accuracy") == 1 and one.text("roc_auc") == "undefined"
    assert one.metrics().loc["specificity"].isna().all()


# Thresholds ------------------------------------------------------------------------------------------------------


def test_decisions_follow_the_threshold_and_survive_saving(tmp_path):
    labels, scores, groups = example()
    evaluation = Evaluation.from_scores(labels, scores, groups)
    lower = evaluation.at(0.3)
    assert lower.metric("recall") == metrics.recall_score(labels == "malignant", scores >= 0.3)
    assert lower.metric("roc_auc") == evaluation.metric("roc_auc")
    loaded = Evaluation.load(lower.save(tmp_path / "p.csv"))
    assert loaded.metrics().equals(lower.metrics()) and loaded.threshold == 0.3
    assert loaded.table.columns.equals(lower.table.columns)
    assert Evaluation.load(tmp_path / "p.csv", positive="benign").threshold is None
    swapped = Evaluation.from_scores(labels, scores, groups, CLASSES[::-1], "malignant", threshold=0.3)
    assert swapped.metric("recall") == lower.metric("recall")
    assert evaluation.at(0.3).at(None).metrics().equals(evaluation.metrics())
    with pytest.raises(ValueError, match="from 0 to 1, not 1.5"):
        evaluation.at(1.5)


@given(two_classes, st.floats(0.05, 1))
@settings(max_examples=100, deadline=None)
def test_the_chosen_threshold_is_the_highest_that_finds_enough(rows, target):
    true, scores, _ = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < true.sum() < len(true))
    scores = scores / 20
    evaluation = Evaluation.from_scores(np.where(true, "malignant", "benign"), scores)
    threshold = evaluation.choose_threshold(sensitivity=target)
    recall = (scores[true] >= threshold).mean()
    assert recall >= target - 1e-9 and evaluation.at(threshold).metric("recall") == pytest.approx(recall)
    higher = scores[scores > scores[scores >= threshold].min()]
    if len(higher):
        assert (scores[true] >= higher.min()).mean() < target


@given(two_classes, st.floats(0.1, 50))
@settings(max_examples=100, deadline=None)
def test_the_threshold_of_a_cost_costs_least(rows, cost):
    true, scores, _ = (np.array(column) for column in zip(*rows, strict=True))
    assume(0 < true.sum() < len(true))
    scores = scores / 20.5  # below 1, so that a threshold can lie above all of them

    def total(threshold):
        called = scores >= threshold
        return cost * (true & ~called).sum() + (~true & called).sum()

    evaluation = Evaluation.from_scores(np.where(true, "malignant", "benign"), scores)
    found = total(evaluation.choose_threshold(cost=cost))
    assert found == pytest.approx(min(total(each) for each in [*scores, 1.0]))


@pytest.mark.parametrize("highest", [1.0, np.nextafter(1, 0), 0.9])
def test_where_calling_none_costs_least_the_threshold_calls_none(highest):
    evaluation = Evaluation.from_scores(["benign", "malignant", "benign"] * 3, [highest, 0.2, 0.1] * 3)
    threshold = evaluation.choose_threshold(cost=0.1)
    assert not (evaluation.at(threshold).table["prediction"] == "malignant").any()
    assert np.float32(highest) < np.float32(threshold) or highest != 1
    assert threshold <= CALL_NONE


def test_between_neighboring_scores_the_threshold_is_the_higher_one():
    low = np.nextafter(0.5, 1)
    evaluation = Evaluation.from_scores(["benign", "malignant"] * 3, [low, np.nextafter(low, 1)] * 3)
    assert evaluation.at(evaluation.choose_threshold()).metric("accuracy") == 1


def test_youdens_threshold_and_impossible_wishes():
    labels, scores, _ = example()
    evaluation = Evaluation.from_scores(labels, scores)
    best = max(evaluation.at(each).metric("balanced_accuracy") for each in scores)
    assert evaluation.at(evaluation.choose_threshold()).metric("balanced_accuracy") == pytest.approx(best)
    for wish in ({"sensitivity": 1.2}, {"cost": -1}, {"sensitivity": 0.9, "cost": 3}):
        with pytest.raises(ValueError, match="sensitivity|cost"):
            evaluation.choose_threshold(**wish)
    with pytest.raises(ValueError, match="with and without"):
        Evaluation.from_scores(["benign"] * 3, [0.1, 0.2, 0.3]).choose_threshold()


def test_bands_enclose_the_curves():
    labels, scores, groups = example()
    evaluation = Evaluation.from_scores(labels, scores, groups)
    bands, curve = evaluation.bands(), evaluation.roc()
    recall = np.interp(bands["place"], curve["false_positive_rate"], curve["recall"])
    inside = (bands["recall_low"] <= recall + 1e-9) & (recall <= bands["recall_high"] + 1e-9)
    assert inside.mean() > 0.95
    assert (bands["precision_low"] <= bands["precision_high"]).all()


def test_without_a_jackknife_an_interval_is_that_of_the_percentiles():
    assert np.allclose(interval(0.5, np.linspace(0, 1, 1001)), [0.025, 0.975])


def test_a_label_called_all_others_can_stand_against_all_others():
    scores = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    labels = ["(all others)", "b", "c"] * 10
    one = Evaluation.from_scores(labels, scores, classes=["(all others)", "b", "c"]).against("(all others)")
    assert one.classes == ["((all others))", "(all others)"]
    assert one.confusion_matrix().to_numpy().sum() == 30


def test_columns_of_a_frame_of_scores_go_by_their_names():
    scores = pd.DataFrame({"malignant": [0.9, 0.2], "benign": [0.1, 0.8]})
    found = Evaluation.from_scores(["malignant", "benign"], scores)
    assert found.metric("accuracy") == 1 and found.scores[0].tolist() == [0.1, 0.9]
    with pytest.raises(ValueError, match="the columns are x, benign, classes benign, malignant"):
        Evaluation.from_scores(["malignant", "benign"], scores.rename(columns={"malignant": "x"}))


@pytest.mark.parametrize("value", ["0.9", True, math.nan, 0, -1])
def test_what_a_threshold_is_chosen_by_is_a_number(value):
    for name in ("sensitivity", "cost"):
        with pytest.raises(ValueError, match=f"{name} is a"):
            Evaluation.from_scores(*example()).choose_threshold(**{name: value})


def test_the_positive_label_is_the_models_the_datasets_or_a_well_known_one(dataset):
    class Model:
        labels = CLASSES

        def predict_proba(self, dataset):
            return np.full((len(dataset), 2), 0.5)

    model = Model()
    assert evaluate(model, dataset).positive == "malignant"
    chosen = replace(dataset, positive="benign")
    assert evaluate(model, chosen).positive == "benign"
    model.positive = "malignant"
    assert evaluate(model, chosen).positive == "malignant"
    model.metadata = {"decision": {"positive": "benign", "threshold": 0.6}}
    assert evaluate(model, dataset).threshold == 0.6 and evaluate(model, dataset).positive == "benign"
    assert evaluate(model, dataset, positive="malignant").threshold is None
    known = Evaluation.from_scores(["nevus", "melanoma"], [0.1, 0.9], classes=["melanoma", "nevus"])
    assert known.positive == "melanoma" and "positive: melanoma" in repr(known)
    with pytest.warns(UserWarning, match="neither 'a' nor 'b' is known as the positive label: 'b' is taken"):
        Evaluation.from_scores(["a", "b"], [0.1, 0.9], classes=["a", "b"])


def test_an_empty_positive_label_is_no_default(dataset):
    class Model:
        labels = CLASSES

        def predict_proba(self, dataset):
            return np.full((len(dataset), 2), 0.5)

    with pytest.raises(ValueError, match="the positive label '' is not one of benign, malignant"):
        evaluate(Model(), dataset, positive="")


def test_a_damaged_prediction_table_is_named(tmp_path):
    path = Evaluation.from_scores(*example()).save(tmp_path / "scores.csv")
    table = pd.read_csv(path)
    table.assign(isicvision="{").to_csv(path, index=False)
    with pytest.raises(ValueError, match="scores.csv is damaged: its column isicvision holds"):
        Evaluation.load(path)


def test_scores_that_were_rounded_to_two_digits_are_taken():
    thirds = Evaluation.from_scores(["a", "b", "c"], np.full((3, 3), 0.33), classes=["a", "b", "c"])
    assert thirds.metric("accuracy") == pytest.approx(1 / 3)
