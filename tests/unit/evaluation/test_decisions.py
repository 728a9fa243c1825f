import numpy as np
import pandas as pd
import pytest

from isicvision import Evaluation, decisions


def calibrated(n=4000, seed=0, sharpness=2.0):
    """Labels that are true as often as their scores say."""
    random = np.random.default_rng(seed)
    logits = random.normal(-1, sharpness, n)
    scores = 1 / (1 + np.exp(-logits))
    return random.random(n) < scores, np.column_stack([1 - scores, scores]), logits


def test_another_prevalence_moves_the_scores_to_what_bayes_says():
    positive, scores, _ = calibrated(200000)
    share = positive.mean()
    random = np.random.default_rng(1)
    kept = ~positive | (random.random(len(positive)) < 0.1)  # a tenth of the positive ones
    rare = positive[kept].mean()
    moved = decisions.at_prevalence(scores[kept], [1 - share, share], [1 - rare, rare])
    assert moved[:, 1].mean() == pytest.approx(rare, rel=0.02)
    assert np.allclose(decisions.at_prevalence(moved, [1 - rare, rare], [1 - share, share]), scores[kept])
    for trained, expected in (([0, 1], [0.5, 0.5]), ([0.5, 0.5], [-1, 2]), ([0.5, 0.5], [1, np.nan])):
        with pytest.raises(ValueError, match="above 0, not"):
            decisions.at_prevalence(scores, trained, expected)
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="above 0, not"):
        decisions.at_prevalence(scores, [0.5, 0.5], [0, 0])


def test_a_thousand_people_by_hand():
    labels = ["malignant"] * 10 + ["benign"] * 90
    scores = [0.9] * 8 + [0.1] * 2 + [0.9] * 9 + [0.1] * 81  # sensitivity 0.8, specificity 0.9
    table = decisions.per_thousand(Evaluation.from_scores(labels, scores), prevalence=0.05)
    assert table["value"].round(6).to_dict() == {
        "referred": 135,
        "found": 40,
        "missed": 10,
        "false_alarms": 95,
    }
    assert (table["low"] <= table["value"]).all() and (table["value"] <= table["high"]).all()
    with pytest.raises(ValueError, match="prevalence must be above 0"):
        decisions.per_thousand(Evaluation.from_scores(labels, scores), prevalence=5)


def test_found_and_missed_lesions_are_as_uncertain_as_the_recall():
    labels = ["malignant"] * 10 + ["benign"] * 90
    evaluation = Evaluation.from_scores(labels, [0.9] * 10 + [0.9] * 9 + [0.1] * 81)
    table, (low, _) = decisions.per_thousand(evaluation, prevalence=0.1), evaluation.interval("recall")
    assert low < 0.7  # ten of ten
    assert table.loc["found", ["low", "high"]].tolist() == pytest.approx([100 * low, 100])
    assert table.loc["missed", ["low", "high"]].tolist() == pytest.approx([0, 100 - 100 * low])
    assert table.loc["referred", "low"] <= table.loc["referred", "value"] - (100 - 100 * low)


def test_the_chance_in_two_sets_is_no_less_than_in_one():
    labels, scores = ["malignant"] * 10 + ["benign"] * 50, np.linspace(1, 0, 60)
    validation, test = (Evaluation.from_scores(labels, each) for each in (scores, scores**2))
    threshold, table = decisions.at_sensitivity(validation, test, 1.0)
    at = test.at(threshold)
    for name in ("recall", "specificity"):
        low, high = at.interval(name)
        assert table.loc[name, "low"] <= low and high <= table.loc[name, "high"]


def test_net_benefit_by_hand():
    labels = ["malignant"] * 10 + ["benign"] * 90
    scores = [0.9] * 8 + [0.1] * 2 + [0.9] * 9 + [0.1] * 81
    evaluation = Evaluation.from_scores(labels, scores)
    row = decisions.net_benefit(evaluation).loc[19]
    assert row["threshold"] == 0.2 and row["model"] == pytest.approx(8 / 100 - 9 / 100 * 0.25)
    assert row["all"] == pytest.approx(10 / 100 - 90 / 100 * 0.25) and row["none"] == 0
    with pytest.raises(ValueError, match="no threshold"):
        decisions.risk(evaluation)
    # from odds of 1 to 9 to those of 1 to 99
    assert decisions.risk(evaluation.at(0.5), prevalence=0.01) == pytest.approx(1 / 12)


def test_a_score_that_equals_the_threshold_counts_at_it_whatever_the_rounding():
    steps = np.arange(1, 51) / 100
    for prevalence in (None, 0.5):  # the share of these images, so that no score moves but by rounding
        evaluation = Evaluation.from_scores(["malignant", "benign"] * 50, np.repeat(steps, 2))
        table = decisions.net_benefit(evaluation, prevalence)
        reached = np.arange(50, 0, -1) / 50
        odds = table["threshold"] / (1 - table["threshold"])
        assert table["model"].to_numpy() == pytest.approx(0.5 * reached - 0.5 * reached * odds)


def test_a_threshold_that_calls_none_has_a_net_benefit_and_a_risk():
    evaluation = Evaluation.from_scores(["malignant", "benign"] * 5, [0.2, 1.0] * 5)
    none = evaluation.at(evaluation.choose_threshold(cost=0.1))
    assert none.metric("recall") == 0 and decisions.risk(none, 0.05) == 1


def test_reliability_of_calibrated_scores_lies_on_the_diagonal():
    positive, scores, _ = calibrated(20000)
    table = decisions.reliability(Evaluation.from_scores(np.where(positive, "malignant", "benign"), scores))
    assert table["images"].sum() == 20000 and len(table) == 10
    inside = (table["low"] <= table["score"]) & (table["score"] <= table["high"])
    assert inside.sum() >= 8


def test_the_interval_of_a_chosen_threshold_holds_the_chance_in_both_sets():
    held, alone = 0, 0
    for seed in range(60):
        parts = []
        for part in (0, 1):
            positive, scores, _ = calibrated(300, seed=2 * seed + part)
            parts.append(Evaluation.from_scores(np.where(positive, "malignant", "benign"), scores))
        threshold, table = decisions.at_sensitivity(*parts, sensitivity=0.9)
        assert parts[1].at(threshold).metric("recall") == table.loc["recall", "value"]
        held += table.loc["recall", "low"] <= 0.9 <= table.loc["recall", "high"]
        low, high = parts[1].at(threshold).interval("recall")
        alone += low <= 0.9 <= high
    assert held >= 52 and held > alone  # of 60, where 57 are expected


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5, "0.3", True, np.nan, None])
def test_a_prevalence_is_a_share(value):
    evaluation = Evaluation.from_scores(["benign", "malignant"] * 5, np.linspace(0, 1, 10))
    with pytest.raises(ValueError, match="prevalence must be above 0"):
        decisions.per_thousand(evaluation, value)


def test_decisions_about_three_classes_or_other_labels_are_refused():
    three = Evaluation.from_scores([*"abc"], np.eye(3), classes=[*"abc"])
    for call in (lambda: decisions.net_benefit(three), lambda: decisions.per_thousand(three, 0.1)):
        with pytest.raises(ValueError, match="needs an evaluation with two classes, not 3"):
            call()
    first = Evaluation.from_scores(["benign", "malignant"] * 5, np.linspace(0, 1, 10))
    other = Evaluation.from_scores(["benign", "malignant"] * 5, np.linspace(0, 1, 10), positive="benign")
    with pytest.raises(ValueError, match="same classes and the same positive label"):
        decisions.at_sensitivity(first, other, 0.9)


@pytest.mark.parametrize("shares", [["a", "b"], [0.5], [np.nan, 1], "0.5"])
def test_shares_of_classes_are_numbers_for_each(shares):
    with pytest.raises(ValueError, match="shares"):
        decisions.at_prevalence(np.full((2, 2), 0.5), [0.5, 0.5], shares)


def test_a_figure_is_said_of_all_and_of_those_confirmed_alike():
    ways = pd.DataFrame({"dx_type": ["follow_up"] * 20 + ["histo"] * 20})
    labels = ["benign"] * 20 + ["benign", "malignant"] * 10
    scores = [0.1] * 20 + [0.6, 0.7] * 5 + [0.1, 0.7] * 5
    evaluation = Evaluation.from_scores(labels, scores, metadata=ways, threshold=0.5)
    found = decisions.populations(evaluation)
    referred = {
        name: decisions.per_thousand(each, 0.1).loc["referred", "value"] for name, each in found.items()
    }
    assert referred == pytest.approx({"all": 100 + 900 * 5 / 30, "confirmed alike": 100 + 900 / 2})
    for metadata in (None, ways.assign(dx_type="histo")):
        alone = Evaluation.from_scores(labels, scores, metadata=metadata)
        assert [*decisions.populations(alone)] == ["all"]
