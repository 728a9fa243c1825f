import dataclasses

import numpy as np
import pytest

from isicvision import labelissues


def test_flipped_labels_of_real_pictures_are_found_early(ham10000):
    """One of twenty labels flipped: half of those or more must be in the first tenth of the queue."""
    lesions = ham10000.table["group"].drop_duplicates().sample(700, random_state=0)
    rows = ham10000.table[ham10000.table["group"].isin(lesions)].reset_index(drop=True)
    flipped = np.random.default_rng(0).random(len(rows)) < 0.05
    other = rows["label"].map({"benign": "malignant", "malignant": "benign"})
    wrong = dataclasses.replace(ham10000, table=rows.assign(label=rows["label"].where(~flipped, other)))
    found = labelissues.find(wrong, image_size=96)
    first = found["path"][: len(found) // 10]
    truly = set(np.array(wrong.paths)[flipped])
    assert sum(path in truly for path in first) >= len(truly) / 2
    assert sorted(found["path"]) == sorted(wrong.paths) and found["issue"].any()


def test_given_scores_are_ranked_and_must_fit(dataset):
    scores = np.full((24, 2), 0.1)
    scores[np.arange(24), (dataset.table["label"] == "malignant").astype(int)] = 0.9
    scores[5] = scores[5][::-1]
    found = labelissues.find(dataset, scores)
    assert found["path"][0] == dataset.paths[5] and found["quality"][0] == pytest.approx(0.1)
    assert found["suggested"][0] != found["label"][0]
    with pytest.raises(ValueError, match="do not fit 24 pictures"):
        labelissues.find(dataset, scores[:5])
    with pytest.raises(ValueError, match="not finite"):
        labelissues.find(dataset, np.where(scores == 0.9, np.nan, scores))


def test_folds_need_lesions_of_each_label(dataset):
    few = dataset.relabel({path: None for path in dataset.table.query("label == 'malignant'")["path"][3:]})
    with pytest.raises(ValueError, match="'malignant' has 2 lesions"):
        labelissues.out_of_fold(few, image_size=64)
