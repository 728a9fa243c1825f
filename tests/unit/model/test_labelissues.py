import dataclasses

import numpy as np
import pandas as pd
import pytest

from isicvision import labelissues


def test_flipped_labels_of_real_images_are_found_early(ham10000):
    """One of twenty labels flipped: half of those or more must be in the first tenth of the queue."""
    lesions = ham10000.table["group"].drop_duplicates().sample(700, random_state=0)
    rows = ham10000.table[ham10000.table["group"].isin(lesions)].reset_index(drop=True)
    flipped = np.random.default_rng(0).random(len(rows)) < 0.05
    other = rows["label"].map({"benign": "malignant", "malignant": "benign"})
    wrong = dataclasses.replace(ham10000, table=rows.assign(label=rows["label"].where(~flipped, other)))
    found = labelissues.find(wrong, image_size=96).table
    first = found["path"][: len(found) // 10]
    truly = set(np.array(wrong.paths)[flipped])
    assert sum(path in truly for path in first) >= len(truly) / 2
    assert sorted(found["path"]) == sorted(wrong.paths) and found["issue"].any()


def test_given_scores_are_ranked_and_must_fit(dataset):
    scores = np.full((24, 2), 0.1)
    scores[np.arange(24), (dataset.table["label"] == "malignant").astype(int)] = 0.9
    scores[5] = scores[5][::-1]
    found = labelissues.find(dataset, scores).table
    assert found["path"][0] == dataset.paths[5] and found["quality"][0] == pytest.approx(0.1)
    assert found["suggested"][0] != found["label"][0]
    with pytest.raises(ValueError, match="do not fit 24 images"):
        labelissues.find(dataset, scores[:5])
    with pytest.raises(ValueError, match="not finite"):
        labelissues.find(dataset, np.where(scores == 0.9, np.nan, scores))
    with pytest.raises(ValueError, match="not finite numbers from 0 to 1"):
        labelissues.find(dataset, scores * 3 - 1)


def test_three_lesions_of_a_label_are_enough(dataset):
    few = dataset.relabel({path: None for path in dataset.table.query("label == 'malignant'")["path"][6:]})
    assert few.summary().loc["malignant", "groups"] < labelissues.FOLDS
    scores = labelissues.out_of_fold(few, image_size=64)
    assert scores.shape == (18, 2) and (scores > 0).all()


def test_folds_need_lesions_of_each_label(dataset):
    few = dataset.relabel({path: None for path in dataset.table.query("label == 'malignant'")["path"][1:]})
    with pytest.raises(ValueError, match="'malignant' has one lesion"):
        labelissues.out_of_fold(few, image_size=64)


def calibrated_scores(count, labels=2, seed=0):
    """Scores, and labels that are true as often as they say."""
    random = np.random.default_rng(seed)
    scores = random.dirichlet(np.full(labels, 0.7), count)
    drawn = (scores.cumsum(axis=1) > random.random((count, 1))).argmax(axis=1)
    return scores, drawn


@pytest.mark.parametrize("labels", [2, 5])
def test_labels_without_a_mistake_are_as_doubtful_as_is_said(dataset, labels):
    scores, drawn = calibrated_scores(2000, labels)
    names = np.array(["a", "b", "c", "d", "e"])[drawn]
    rows = {"path": [f"{number}.jpg" for number in range(2000)], "label": names, "group": np.arange(2000)}
    found = labelissues.find(dataclasses.replace(dataset, table=pd.DataFrame(rows)), scores)
    low, high = found.by_chance
    assert 0 < low <= high and abs(found.table["issue"].sum() - (low + high) / 2) < 0.2 * high
    assert f"without a single mistake it would be {low:,} to {high:,}" in str(found)
    found.table.loc[: 2 * high, "issue"] = True
    assert "more than chance gives" in str(found)
    found.table["issue"] = False
    assert "0 of 2,000 labels are doubtful" in str(found) and "not a sign" in str(found)


def test_a_label_that_is_never_drawn_does_no_harm():
    scores = np.column_stack([np.linspace(0.1, 0.9, 50), 1 - np.linspace(0.1, 0.9, 50), np.zeros(50)])
    assert labelissues.by_chance(scores)[0] > 0
    assert labelissues.by_chance(np.tile([1.0, 0, 0], (9, 1))) == (0, 0)
