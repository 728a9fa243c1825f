import dataclasses
from pathlib import Path

import cv2
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from isicvision import ImageClassifier, ImageDataset, audit, plots
from isicvision.data.skin import lesion_mask, skin_mask
from isicvision.images import decode

SIDE = 64


class Pixels:
    """A model of any make: a logistic regression on pixels."""

    labels, image_size = ("benign", "malignant"), SIDE

    def __init__(self, dataset):
        self.regression = LogisticRegression(C=1e-3, max_iter=2000)
        images = [decode(path, SIDE) for path in dataset.paths]
        self.regression.fit(self.inputs(images), dataset.table["label"])

    def inputs(self, images):
        return np.stack([np.asarray(Image.fromarray(each).resize((16, 16))).ravel() / 255 for each in images])

    def scores(self, images):
        return self.regression.predict_proba(self.inputs(images))


def lesion_image(random, malignant):
    """Noisy skin with a brown disc, darker if malignant."""
    image = np.array([205, 160, 140]) + random.normal(0, 6, (SIDE, SIDE, 3)) + random.normal(0, 8)
    place = tuple(int(each) for each in random.integers(27, 37, 2))
    dark = 1 - 0.45 * malignant + random.normal(0, 0.1)
    shown = np.clip(image, 0, 255).round().astype(np.uint8)
    return cv2.circle(
        shown, place, int(random.integers(9, 14)), [int(max(20, dark * c)) for c in (120, 80, 70)], -1
    )


def drawn(folder, mark=None, count=64, seed=0, labels=("benign", "malignant")):
    """A dataset of such images; `mark` is a label, of which every image has a corner mark."""
    random = np.random.default_rng(seed)
    for number in range(count):
        label = labels[number % len(labels)]
        image = lesion_image(random, label == "malignant")
        if label == mark:
            image[3:11, -12:-4] = 90, 60, 200
        path = folder / label / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return ImageDataset.from_folder(folder)


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("tested"), seed=1)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return drawn(tmp_path_factory.mktemp("clean"), seed=2)


@pytest.fixture(scope="module")
def clean_audit(clean, tested):
    return audit.shortcuts(Pixels(clean), tested, borders=clean)


def test_a_clean_model_is_not_flagged(clean_audit):
    assert clean_audit.loc["unchanged", "roc_auc"] > 0.9
    assert set(clean_audit["verdict"]) == {"", "not flagged"}
    assert clean_audit.loc["lesion masked", "roc_auc_low"] < 0.6
    assert (clean_audit["moved_low"] <= clean_audit["moved"]).all()
    assert (clean_audit["moved"] <= clean_audit["moved_high"]).all()


@pytest.mark.parametrize("label", ["benign", "malignant"])
def test_a_planted_corner_mark_is_flagged(tmp_path, tested, label):
    learnt = drawn(tmp_path, mark=label, seed=2)
    found = audit.shortcuts(Pixels(learnt), tested, borders=learnt)
    assert found.loc[audit.SWAPPED, "verdict"] == "flagged" and found.loc[audit.SWAPPED, "moved"] > 0


def test_a_mark_in_the_images_to_test_on_is_flagged(tmp_path):
    marked = drawn(tmp_path, mark="malignant", seed=2)
    found = audit.shortcuts(Pixels(marked), marked)
    assert found.loc["border only", "verdict"] == found.loc["lesion masked", "verdict"] == "flagged"


class Cornered:
    """A model that knows the lesion, but goes by the blue of one corner first."""

    labels, image_size = ("benign", "malignant"), SIDE

    def scores(self, images):
        images = images.astype(float)
        corner = images[:, :8, -8:].mean(axis=(1, 2))
        blue = corner[:, 2] - corner[:, 0]
        dark = 180 - images[:, 24:40, 24:40].mean(axis=(1, 2, 3))
        scores = 1 / (1 + np.exp(-(0.05 * dark + 0.1 * (blue + 65)) / 4))
        return np.column_stack([1 - scores, scores])


def test_marks_find_a_shortcut_that_is_in_no_image(tested):
    found = audit.shortcuts(Cornered(), tested)
    assert found.loc["blue marks added", ["verdict", "moved"]].tolist() == [
        "flagged",
        pytest.approx(0.5, abs=0.1),
    ]
    assert (
        found.loc["yellow marks added", "moved"] < 0 and found.loc[audit.SWAPPED, "verdict"] == "not flagged"
    )


class Ring:
    """A model that sees nothing but how dark the outer ring is."""

    labels, image_size = ("benign", "malignant"), SIDE

    def scores(self, images):
        line = np.linspace(-1, 1, SIDE)
        ring = np.hypot(line[:, None], line) > 0.85
        dark = 1 - images[:, ring].mean(axis=(1, 2)) / 255
        return np.column_stack([1 - dark, dark])


def test_a_model_that_sees_the_ring_only_is_flagged_however_little_it_finds(tmp_path, tested):
    """Its ROC AUC is some 0.8, which is less than the lesion tells others."""
    random = np.random.default_rng(0)
    for path, label in zip(tested.paths, tested.table["label"], strict=True):
        shade = random.normal(12 * (label == "malignant"), 10)
        image = np.clip(decode(path, SIDE).astype(float) - shade, 0, 255)
        (tmp_path / label).mkdir(exist_ok=True)
        Image.fromarray(image.astype(np.uint8)).save(tmp_path / label / Path(path).name)
    found = audit.shortcuts(Ring(), ImageDataset.from_folder(tmp_path))
    assert 0.7 < found.loc["unchanged", "roc_auc"] < 0.9
    hidden = found.loc[["lesion masked", "border only"]]
    assert set(hidden["verdict"]) == {"flagged"} and (hidden["kept"] > 0.95).all()
    figure = plots.audit(found)
    assert figure.axes[0].get_xlabel().startswith("kept")
    plt.close("all")


def test_what_is_kept_is_a_share_of_what_there_was(clean_audit):
    excess = clean_audit["roc_auc"] - 0.5
    assert clean_audit["kept"].to_numpy() == pytest.approx(excess / excess["unchanged"])
    assert (clean_audit["kept_low"] <= clean_audit["kept"]).all()
    assert clean_audit.loc["unchanged", ["kept_low", "kept_high"]].tolist() == [1, 1]


def test_the_same_seed_gives_the_same_table(clean, tested, clean_audit):
    assert audit.shortcuts(Pixels(clean), tested, borders=clean).equals(clean_audit)


def test_one_of_three_labels_is_audited_against_the_others(tmp_path):
    dataset = drawn(tmp_path, labels=("bkl", "malignant", "nv"))

    class Three(Pixels):
        labels = ("bkl", "malignant", "nv")

    found = audit.shortcuts(Three(dataset), dataset, positive="malignant")
    assert found.loc["unchanged", "roc_auc"] > 0.8


def test_labels_that_are_numbers_are_the_same_at_each_entry(tested):
    class Numbered(Ring):
        labels = (0, 1)

    table = tested.table.assign(label=tested.table["label"].map({"benign": "0", "malignant": "1"}))
    found = audit.shortcuts(Numbered(), dataclasses.replace(tested, table=table), positive=1)
    assert found.equals(audit.shortcuts(Numbered(), dataclasses.replace(tested, table=table)))


def test_few_lesions_are_too_few_to_say(clean, tested):
    few = dataclasses.replace(tested, table=tested.table.assign(group=tested.table["group"].str[-5:-4]))
    found = audit.shortcuts(Pixels(clean), few, borders=clean)
    assert set(found["verdict"]) == {"", "too few to say"}


def test_bad_input_is_refused(clean, tested):
    model = Pixels(clean)

    def part(rows):
        return dataclasses.replace(tested, table=tested.table[rows].reset_index(drop=True))

    is_benign = tested.table["label"] == "benign"
    with pytest.raises(ValueError, match="dataset needs .*'malignant' and others; its labels: benign"):
        audit.shortcuts(model, part(is_benign))
    with pytest.raises(ValueError, match="borders needs .*; its labels: malignant"):
        audit.shortcuts(model, tested, borders=part(~is_benign))
    with pytest.raises(ValueError, match="dataset needs .*; its labels: none"):
        audit.shortcuts(model, part(is_benign & ~is_benign))
    with pytest.raises(ValueError, match="'nevus' is not one of"):
        audit.shortcuts(model, tested, positive="nevus")
    with pytest.raises(ValueError, match="augmented"):
        audit.shortcuts(model, dataclasses.replace(tested, augmenters=("any",)))
    unknown = tested.table.assign(label=tested.table["label"].replace("benign", "nevus"))
    with pytest.raises(ValueError, match="does not know: nevus"):
        audit.shortcuts(model, dataclasses.replace(tested, table=unknown))


def test_the_changes_change_what_they_say(tested):
    image = decode(tested.paths[0], SIDE)
    lesion, corner = lesion_mask(image), (0, 0)
    shown = {name: audit.changed(image[None], name)[0] for name in audit.CHANGES}
    assert all(each.shape == image.shape and each.dtype == np.uint8 for each in shown.values())
    skin = np.median(image[skin_mask(image)], axis=0)
    assert np.abs(shown["lesion masked"][lesion].astype(float) - skin).mean() < 15
    assert (shown["lesion masked"][corner] == image[corner]).all()
    assert np.abs(shown["border only"][SIDE // 2, SIDE // 2] - skin).max() < 3
    assert (shown["border masked"][SIDE // 2, SIDE // 2] == image[SIDE // 2, SIDE // 2]).all()
    assert np.abs(shown["border masked"][corner] - skin).max() < 3
    assert shown["dark corners added"][corner].max() < 10
    assert (shown["blue marks added"][-1, -1] == audit.INKS["blue"]).all()
    assert (shown["ruler added"][:50] == image[:50]).all() and (shown["ruler added"][-1] != image[-1]).any()
    black = np.zeros((1, 64, 64, 3), np.uint8)
    assert all(audit.changed(black, name).shape == black.shape for name in audit.CHANGES)


def test_a_border_comes_without_the_color_of_its_skin(tested):
    images = np.stack([decode(path, SIDE) for path in tested.paths[:2]])
    others = images[::-1].copy()
    others[:, :8, :8] = 0
    swapped = audit.with_borders(images, others)
    assert (swapped[:, 32, 32] == images[:, 32, 32]).all() and swapped[:, :6, :6].mean() < 40
    edges = [np.median(each[-4:], axis=(0, 1)) for each in (swapped[0], images[0])]
    assert np.abs(edges[0] - edges[1]).max() < 8


def test_severity_0_is_the_image_and_each_corruption_grows(tested):
    images = np.stack([decode(path, SIDE) for path in tested.paths[:8]])
    before, state = images.copy(), np.random.get_state()[1].copy()
    for name in audit.CORRUPTIONS:
        shown = [audit.corrupted(images, name, severity) for severity in range(6)]
        assert (shown[0] == images).all() and (shown[5] == audit.corrupted(images, name, 5)).all()
        errors = [np.abs(each - images.astype(float)).mean() for each in shown]
        assert errors[5] > 1 and (errors == sorted(errors) or name == "off-center")
    assert (images == before).all() and (np.random.get_state()[1] == state).all()


class Light:
    """A model that goes by how light an image is, and rejects what is far from that of the first."""

    labels, image_size, outliers = ("benign", "malignant"), SIDE, True
    metadata = {"decision": {"positive": "malignant", "threshold": 0.4}}

    def scores(self, images):
        dark = 1 - images.mean(axis=(1, 2, 3)) / 255
        return np.column_stack([1 - dark, dark])

    def outlier_distance(self, images):
        return 20 * np.abs(images.mean(axis=(1, 2, 3)) / 255 - 0.63)


def test_corruptions_count_decisions_at_the_threshold_and_rejections(tested):
    model = Light()
    found = audit.corruptions(model, tested)
    assert [*found.index.unique(0)] == [*audit.CORRUPTIONS] and len(found) == 42
    clean = found.xs(0, level="severity")
    assert (clean["changed"] == 0).all() and clean.nunique().max() == 1
    images = np.stack([decode(path, SIDE) for path in tested.paths])
    shown = audit.corrupted(images, "brightness", 5)
    decided = [model.scores(each)[:, 1] >= 0.4 for each in (images, shown)]
    row = found.loc["brightness", 5]
    assert row["changed"] == pytest.approx((decided[0] != decided[1]).mean()) and row["changed"] > 0.2
    assert row["rejected"] == pytest.approx((model.outlier_distance(shown) > 1).mean())
    assert row["rejected"] > clean["rejected"].iloc[0] and row["low"] <= row["roc_auc"] <= row["high"]
    model.outliers = None
    assert audit.corruptions(model, tested.sample(8, balanced=True))["rejected"].isna().all()
    figure = plots.corruptions(found)
    drawn = [line.get_ydata() for line in figure.axes[1].lines]
    assert [*drawn[3]] == [*found.loc["brightness", "changed"]]
    plt.close("all")


def test_an_image_classifier_is_audited_by_its_own_scores(clean, tested):
    model = ImageClassifier(
        "efficientnet_lite0", clean.labels, image_size=SIDE, classifier=LogisticRegression(max_iter=1000)
    )
    model.fit(clean)
    some = tested.sample(24, balanced=True)
    found = audit.shortcuts(model, some)
    scores = model.predict_proba(some)[:, 1]
    positive = (some.table["label"] == "malignant").to_numpy()
    higher = scores[positive][:, None] > scores[~positive]
    assert found.loc["unchanged", "roc_auc"] == pytest.approx(higher.mean(), abs=0.01)


def test_plots_show_the_images_and_the_bounds(clean_audit, tested):
    figure = plots.changed(tested.sample(2, balanced=True))
    assert len(figure.axes) == 2 * (len(audit.CHANGES) + 2)
    assert max(ax.get_subplotspec().colspan.stop for ax in figure.axes) == 7  # small ones show no mark
    figure = plots.audit(clean_audit)
    assert "bound" in [text.get_text() for text in figure.legends[0].get_texts()]
    names = [text.get_text() for ax in figure.axes for text in ax.get_yticklabels()]
    assert names == [*clean_audit.index]
    plt.close("all")


@pytest.mark.real
def test_of_twins_on_real_images_the_one_with_a_planted_mark_is_flagged(ham10000, tmp_path, monkeypatch):
    """A mark in one corner of every benign training image; features and a logistic regression."""
    few = ("border only", "blue marks added", "yellow marks added")  # tests/bench/bench_audit.py has all
    monkeypatch.setattr(audit, "CHANGES", {name: audit.CHANGES[name] for name in few})
    train, tested = (
        part.sample(count, balanced=True)
        for part, count in zip(ham10000.split(0.5, 0.5), (240, 120), strict=True)
    )
    paths = train.table["path"].copy()
    for number in np.flatnonzero(train.table["label"] == "benign"):
        image = decode(paths[number], 64, "bicubic").copy()
        cv2.circle(image, (8, 56), 5, (230, 120, 20), -1)
        paths[number] = str(tmp_path / f"{number}.png")
        Image.fromarray(image).save(paths[number])
    marked = dataclasses.replace(train, table=train.table.assign(path=paths))
    verdicts = []
    for learnt in (train, marked):
        classifier = LogisticRegression(C=0.003, max_iter=1000)
        model = ImageClassifier("efficientnet_lite0", train.labels, image_size=64, classifier=classifier)
        model.fit(learnt)
        verdicts.append(audit.shortcuts(model, tested, borders=learnt)["verdict"])
    assert not (verdicts[0] == "flagged").any() and verdicts[1][audit.SWAPPED] == "flagged"
