import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from isicvision import Evaluation, comparison


def made(n=600, seed=0, strength=1.2, noise=1.0, sites=None):
    """Scores of images of which one to four show the same lesion."""
    random = np.random.default_rng(seed)
    lesions = np.repeat(np.arange(n), random.integers(1, 5, n))[:n]
    positive = (random.random(n) < 0.3)[lesions]
    signal = strength * positive + random.normal(0, 1, n)[lesions] + random.normal(0, 0.5, len(lesions))
    scores = 1 / (1 + np.exp(-(signal + noise * random.normal(0, 1, len(lesions)))))
    metadata = pd.DataFrame(
        {"path": [f"{row}.jpg" for row in range(len(lesions))], "group": lesions.astype(str)}
    )
    if sites is not None:
        metadata["site"] = random.choice(sites, n)[lesions]
    return np.where(positive, "malignant", "benign"), scores, metadata


def test_a_better_model_is_called_better_and_its_twin_is_not():
    labels, scores, metadata = made()
    good = Evaluation.from_scores(labels, scores, metadata=metadata)
    random = np.random.default_rng(1)
    worse = Evaluation.from_scores(labels, (scores + 2 * random.random(len(scores))) / 3, metadata=metadata)
    found = comparison.compare(good, worse)
    assert found["low"] > 0 and "The first model's ROC AUC is" in found["sentence"]
    assert comparison.compare(worse, good)["difference"] == -found["difference"]
    assert "The second model's ROC AUC is" in comparison.compare(worse, good)["sentence"]
    twin = Evaluation.from_scores(
        labels, np.clip(scores + 1e-3 * random.normal(size=len(scores)), 0, 1), metadata=metadata
    )
    assert "do not show which model is better" in comparison.compare(good, twin)["sentence"]


def test_two_models_that_are_right_about_all_few_lesions_may_differ():
    labels = ["malignant"] * 10 + ["benign"] * 50
    first, second = (Evaluation.from_scores(labels, [high] * 10 + [0.1] * 50) for high in (0.9, 0.8))
    found = comparison.compare(first, second, "recall")
    assert found["low"] < -0.3 and found["high"] > 0.3 and "do not show which" in found["sentence"]
    same = comparison.compare(first, first, "recall")
    assert (same["low"], same["high"]) == (0, 0)


def test_the_order_of_the_images_makes_no_difference():
    labels, scores, metadata = made()
    first = Evaluation.from_scores(labels, scores, metadata=metadata)
    order = np.random.default_rng(2).permutation(len(labels))
    other = Evaluation.from_scores(labels[order], 1 - scores[order], metadata=metadata.iloc[order])
    straight = Evaluation.from_scores(labels, 1 - scores, metadata=metadata)
    assert comparison.compare(first, other).equals(comparison.compare(first, straight))
    with pytest.raises(ValueError, match="same images"):
        comparison.compare(first, Evaluation.from_scores(labels[1:], scores[1:], metadata=metadata[1:]))
    with pytest.raises(ValueError, match="other labels"):
        comparison.compare(first, Evaluation.from_scores(labels[::-1], scores, metadata=metadata))


def test_a_slice_that_is_worse_is_found_and_a_small_one_is_not_judged():
    labels, scores, metadata = made(1500, sites=["arm", "back", "leg", "face"])
    metadata.loc[metadata.index[:12], "site"] = "toe"
    random = np.random.default_rng(4)
    bad = (metadata["site"] == "face").to_numpy()
    scores[bad] = random.random(bad.sum())
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "site")
    assert found.loc["face", "verdict"] == "differs" and found.loc["face", "difference"] < 0
    assert found.loc["toe", "verdict"] == "too few to say" and found.loc["toe", "images"] == 12
    assert found["images"].sum() == len(labels)


def test_sensitivity_and_specificity_stand_beside_the_metric_also_with_one_label():
    labels, scores, metadata = made(400)
    metadata["dx_type"] = np.where((labels == "benign") & (scores < 0.6), "follow_up", "histo")
    evaluation = Evaluation.from_scores(labels, scores, metadata=metadata, threshold=0.5)
    found = comparison.slices(evaluation, "dx_type")
    watched = evaluation.where(metadata["dx_type"] == "follow_up")
    row = found.loc["follow_up"]
    assert row[["positive", "sensitivity", "sensitivity_low"]].isna().tolist() == [False, True, True]
    assert row["specificity"] == watched.metric("specificity") and np.isnan(row["value"])
    assert (row["specificity_low"], row["specificity_high"]) == watched.interval("specificity")
    assert found.loc["histo", "sensitivity"] == evaluation.metric("recall")
    shown = comparison.written(found)
    assert shown.loc["follow_up", "sensitivity"] == "" == shown.loc["follow_up", "value"]
    ends = row[["specificity", "specificity_low", "specificity_high"]]
    assert shown.loc["follow_up", "specificity"] == "{:.2f} [{:.2f}, {:.2f}]".format(*ends)
    assert [*shown] == [
        *("images", "lesions", "positive", "value", "difference"),
        *("sensitivity", "specificity", "p_value", "verdict"),
    ]


def test_random_slices_are_rarely_flagged():
    labels, scores, metadata = made(800)
    flagged = 0
    for seed in range(30):
        parts = np.random.default_rng(seed).integers(0, 4, 800).astype(str)
        metadata["part"] = parts[metadata["group"].astype(int)]
        found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "part")
        flagged += (found["verdict"] == "differs").any()
    assert flagged <= 5  # of 30; at a rate of 5 % more come once in some hundred tries


def test_slices_of_a_high_recall_are_rarely_flagged():
    flagged = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        positive = np.arange(500) < 150
        scores = np.where(positive, random.random(500) < 0.95, random.random(500) < 0.2) * 0.9
        metadata = pd.DataFrame({"part": random.integers(0, 10, 500).astype(str)})
        labels = np.where(positive, "malignant", "benign")
        found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "part", "recall")
        flagged += (found["verdict"] == "differs").any()
    assert flagged <= 2  # of 12; a test by the bootstrap's variance flags a third


def test_ten_of_ten_found_do_not_differ_from_95_of_100():
    labels = np.repeat(["malignant", "benign"], [110, 110])
    scores = np.where(np.arange(220) < 105, 0.9, 0.1)
    metadata = pd.DataFrame({"part": np.where(np.arange(220) % 110 < 10, "a", "b")})
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "part", "recall")
    assert found.loc["a", "value"] == 1 and (found["verdict"] == "no difference seen").all()


def test_slices_that_are_all_perfect_do_not_differ():
    labels = np.resize(["benign", "malignant"], 120)
    metadata = pd.DataFrame({"part": np.resize(["a", "a", "b", "b", "c", "c"], 120)})
    evaluation = Evaluation.from_scores(labels, (labels == "malignant") * 0.9, metadata=metadata)
    for metric in ("recall", "roc_auc"):
        found = comparison.slices(evaluation, "part", metric)
        assert (found["verdict"] == "no difference seen").all() and (found["p_value"] == 1).all()


def test_each_further_column_makes_a_flag_harder_to_earn():
    labels, scores, metadata = made(600, sites=["arm", "back"])
    random = np.random.default_rng(8)
    bad = (metadata["site"] == "arm").to_numpy()
    scores[bad] = random.random(bad.sum())
    for number in range(4):
        metadata[f"chance {number}"] = random.integers(0, 4, 600).astype(str)[metadata["group"].astype(int)]
    evaluation = Evaluation.from_scores(labels, scores, metadata=metadata)
    alone = comparison.slices(evaluation, "site")
    tables = comparison.slices(evaluation, ["site", *(f"chance {number}" for number in range(4))])
    assert [table.index.name for table in tables[:2]] == ["site", "chance 0"]
    figures = [name for name in alone if name not in ("p_value", "verdict")]
    pd.testing.assert_frame_equal(tables[0][figures], alone[figures])
    one, many = alone.loc["arm", "p_value"], tables[0].loc["arm", "p_value"]
    assert many > 8 * one  # some 18 values are looked at in place of 2
    assert alone.loc["arm", "verdict"] == "differs"
    assert comparison.slices(evaluation, []) == []


def test_lesions_whose_images_differ_in_label_or_value_are_exchanged_as_wholes():
    labels, scores, metadata = made(400)
    metadata["tone"] = np.resize(["light", "dark", "dark"], 400)  # changes within lesions
    labels = np.where(np.arange(400) % 20 == 0, "malignant", labels)
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "tone")
    assert found["p_value"].between(1 / (comparison.PERMUTATIONS + 1), 1).all()
    order = np.random.default_rng(3).permutation(400)
    shuffled = Evaluation.from_scores(labels[order], scores[order], metadata=metadata.iloc[order])
    pd.testing.assert_frame_equal(comparison.slices(shuffled, "tone"), found)


def test_numbers_are_cut_into_bands_and_missing_ones_are_a_slice():
    labels, scores, metadata = made(600)
    metadata["age"] = np.random.default_rng(5).integers(20, 90, len(labels)).astype(float)
    metadata.loc[:99, "age"] = np.nan
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "age")
    assert len(found) == 5 and found.loc["missing", "images"] == 100
    with pytest.raises(ValueError, match="no column 'mood'"):
        comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "mood")


def test_bands_and_ordered_values_keep_their_order():
    labels, scores, metadata = made(600)
    metadata["thickness"] = (np.arange(len(labels)) % 120) ** 2 / 100  # as text "(8.85" comes after "(35.4"
    metadata["size"] = pd.Categorical(
        ["large", "small", None] * 200, ["small", "middle", "large"], ordered=True
    )
    evaluation = Evaluation.from_scores(labels, scores, metadata=metadata)
    names = [*comparison.slices(evaluation, "thickness").index]
    ends = [float(word) for name in names for word in name.split() if word[0].isdigit()]
    assert [name.split()[0] for name in names] == ["up", "over", "over", "over"]
    assert ends == sorted(ends)
    assert [*comparison.slices(evaluation, "size").index] == ["small", "large", "missing"]


def test_few_numbers_are_written_and_ordered_as_numbers():
    labels, scores, metadata = made(90)
    metadata["age"] = np.resize([5.0, 15.0, 100.0, np.nan], len(labels))
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "age")
    assert [*found.index] == ["5", "15", "100", "missing"]
    metadata["clinic"] = pd.array(np.resize([20000001, 20000002, None], len(labels)), "Int64")
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "clinic")
    assert [*found.index] == ["20000001", "20000002", "missing"]


def test_of_many_labels_the_slices_are_of_the_positive_one_against_the_rest():
    labels, scores, metadata = made(600, sites=["arm", "back"])
    scores = np.stack([1 - scores, scores * 0.9, scores * 0.1], axis=1)
    three = ["naevus", "keratosis", "melanoma"]
    names = np.array(three)[np.where(labels == "malignant", 2, np.arange(len(labels)) % 2)]
    many = Evaluation.from_scores(names, scores, classes=three, positive="melanoma", metadata=metadata)
    found = comparison.slices(many, "site")
    alone = comparison.slices(many.against("melanoma"), "site")
    pd.testing.assert_frame_equal(found, alone)
    part = many.table[many.table["site"] == "arm"]
    area = roc_auc_score(part["label"] == "melanoma", part["score_melanoma"])
    assert found.loc["arm", "value"] == pytest.approx(area)


def test_p_values_allow_for_being_several_as_holm_did():
    # times 3, 1 and 2, and never below a smaller one
    assert np.allclose(comparison._holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (lambda n: np.where(n < 180, 0, n), ["up to 0", "over 0"]),
        (lambda n: np.where(n < 180, 300, n), ["up to 199", "over 199"]),
        (lambda n: 20240100 + n // 2, 4),
        (lambda n: [["a"], ["b"]] * 100, ["['a']", "['b']"]),
    ],
)
def test_columns_of_any_kind_are_cut_into_slices_with_names_of_their_own(values, names):
    labels, scores = np.tile(["benign", "malignant"], 100), np.linspace(0, 1, 200)
    metadata = pd.DataFrame({"column": values(np.arange(200))})
    found = comparison.slices(Evaluation.from_scores(labels, scores, metadata=metadata), "column")
    assert found["images"].sum() == 200 and found.index.is_unique
    assert len(found) == names if isinstance(names, int) else [*found.index] == names


def test_infinite_numbers_are_no_slices():
    metadata = pd.DataFrame({"age": [*range(19), np.inf]})
    evaluation = Evaluation.from_scores(
        ["benign", "malignant"] * 10, np.linspace(0, 1, 20), metadata=metadata
    )
    with pytest.raises(ValueError, match="column 'age' holds infinite values"):
        comparison.slices(evaluation, "age")
