"""External tests: what is read and refused, the figures beside the internal test, and what local labels buy."""

import shutil
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from conftest import draw
from sklearn.linear_model import LogisticRegression

import notebook_parameters as parameters
from isicvision import (
    Evaluation,
    ImageClassifier,
    ImageDataset,
    evaluate,
    external,
    plots,
    summary,
)

COLORS = {"benign": (170, 120, 100), "malignant": (100, 120, 170)}


@pytest.fixture(scope="module")
def model(folder):
    """A small network, fitted to the 24 images of `folder` for a moment and finished."""
    train, validation = ImageDataset.from_folder(folder).split(0.5, 0.5)
    model = ImageClassifier("squeezenet1_1", ["benign", "malignant"], weights=None, image_size=64)
    model.fit(train, epochs=1, batch_size=6, precision="fp32", progress=False)
    model.finish(train, validation)
    return model


@pytest.fixture
def clinic(tmp_path):
    """A folder per label with images of other lesions."""
    for number in range(12):
        label = [*COLORS][number % 3 == 0]
        draw(tmp_path / "clinic" / label / f"c{number}.png", COLORS[label], 100 + number)
    return tmp_path / "clinic"


def test_folders_and_parameter_files_are_read_by_their_names(clinic, model, tmp_path):
    rows = "\n".join(
        f"{path.stem},{'nv' if path.parent.name == 'benign' else 'mel'}" for path in clinic.rglob("*.png")
    )
    (clinic / "table.csv").write_text(f"image,dx\n{rows}", encoding="utf-8")
    (tmp_path / "other.yaml").write_text(
        "SOURCE: clinic\nCSV: table.csv\nLABEL_COLUMN: dx\nLABEL_MAP: {nv: benign, mel: malignant}\nSEED: 3",
        encoding="utf-8",
    )
    found = external.read([clinic, tmp_path / "other.yaml"], model)
    assert [*found] == ["clinic", "other"]
    assert [len(each) for each in found.values()] == [12, 12]
    assert sorted(found["clinic"].paths) == sorted(found["other"].paths)


def test_a_flat_folder_is_read_by_the_column_label_of_its_metadata(clinic, model, tmp_path):
    flat = tmp_path / "flat"
    rows = ["image,label"]
    for path in sorted(clinic.rglob("*.png")):
        (flat / "images").mkdir(parents=True, exist_ok=True)
        (flat / "masks").mkdir(exist_ok=True)
        shutil.copy(path, flat / "images")
        draw(flat / "masks" / path.name, (0, 0, 0), 1)
        rows.append(f"{path.stem},{path.parent.name}")
    (flat / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    dataset = external.read([flat], model)["flat"]
    assert len(dataset) == 12 and all("/images/" in path for path in dataset.paths)
    assert (dataset.table["label"] == "malignant").sum() == 4


def test_labels_that_the_model_does_not_know_are_refused_by_name(clinic, model):
    (clinic / "benign").rename(clinic / "naevus")
    message = "the clinic images have labels that the model does not know: naevus; it knows benign, malignant"
    with pytest.raises(ValueError, match=message):
        external.read([clinic], model)


def test_images_of_the_training_are_refused_by_name(clinic, model, folder):
    train, validation = ImageDataset.from_folder(folder).split(0.5, 0.5)
    shutil.copy(train.paths[0], clinic / "benign" / "renamed.jpg")
    with pytest.raises(ValueError, match=r"clinic is no external test: .* these images:\n  .*/renamed\.jpg$"):
        external.read([clinic], model)
    (clinic / "benign" / "renamed.jpg").unlink()
    shutil.copy(validation.paths[0], clinic / "benign" / "renamed.jpg")
    assert len(external.read([clinic], model)["clinic"]) == 13


def test_an_image_that_cannot_be_read_is_set_aside_with_a_warning(clinic, model):
    (clinic / "benign" / "broken.jpg").write_bytes(b"not an image")
    with pytest.warns(
        UserWarning, match=r"1 of 13 clinic images cannot be read and are set aside:\n.*broken\.jpg"
    ):
        dataset = external.read([clinic], model)["clinic"]
    assert len(dataset) == 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "EXTERNAL: .*p.yaml is not there: name a folder of images, or a parameter file with SOURCE"),
        ("LABEL_COLUMN: dx", "EXTERNAL: .*p.yaml does not say where the images are: add a line SOURCE:"),
        ("SOURCE: nowhere", "EXTERNAL: .*p.yaml: SOURCE is no folder: neither .*nowhere nor"),
        ("SOURCE: clinic\nLABEL: dx", "EXTERNAL: .*p.yaml: no notebook has a parameter LABEL"),
        ("SOURCE: clinic\nLABEL_MAP: 3", "EXTERNAL: LABEL_MAP is lines such as"),
        ("SOURCE: clinic\nLABEL_COLUMN: dx\nCSV: t.csv", "EXTERNAL: .*p.yaml: there is no t.csv in .*clinic"),
        ("SOURCE: clinic\nCSV: {a.csv: x, b.csv: y}", "EXTERNAL: .*p.yaml: there is no a.csv or b.csv in"),
    ],
)
def test_what_is_wrong_with_external_is_named_before_anything_runs(content, message, clinic, tmp_path):
    if content:
        (tmp_path / "p.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        parameters.check({"EXTERNAL": [str(tmp_path / "p.yaml")], "OUTPUTS": str(tmp_path)})
    assert parameters.check({"EXTERNAL": [str(clinic)]}) == {"EXTERNAL": [str(clinic)]}


def made(labels, scores, distance, threshold=None):
    evaluation = Evaluation.from_scores(labels, scores, threshold=threshold)
    evaluation.table["distance"] = distance
    return evaluation


def test_the_figures_are_those_of_the_evaluation_and_of_the_model(clinic, model, dataset):
    internal = evaluate(model, dataset)
    tests = external.score(model, internal, external.read([clinic], model))
    assert [*tests] == ["internal test", "clinic"]
    assert tests["clinic"].threshold == internal.threshold
    compared = external.compare(tests)
    for name, each in tests.items():
        rows = compared.loc[name]
        assert rows.loc["images", "value"] == len(each.table)
        assert rows.loc["lesions", "text"] == (
            "unknown" if name == "clinic" else str(each.table["group"].nunique())
        )
        for metric, title in (
            ("recall", "sensitivity"),
            ("roc_auc", "ROC AUC"),
            ("ece", "calibration error"),
        ):
            assert rows.loc[title, ["value", "low", "high"]].tolist() == [
                each.metric(metric),
                *each.interval(metric),
            ]
        far = model.outlier_distance(each.table["path"].tolist()) > 1
        assert rows.loc["rejected", "value"] == pytest.approx(far.mean())
        assert rows.loc["rejected", "low"] <= far.mean() <= rows.loc["rejected", "high"]


def test_with_one_label_what_is_defined_is_shown_and_the_rest_is_undefined():
    home = made(["benign", "malignant"] * 10, np.tile([0.3, 0.7, 0.6, 0.4], 5), 0.5, threshold=0.35)
    away = made(["benign"] * 20, np.linspace(0.1, 0.6, 20), 2.0, threshold=0.35)
    compared = external.compare({"internal test": home, "away": away})
    text = compared["text"].loc["away"]
    undefined = ["ROC AUC", "sensitivity", "calibration intercept", "calibration slope"]
    assert (text[undefined] == "undefined").all() and (text.drop(undefined) != "undefined").all()
    assert text["rejected"] == "1.000 [0.832, 1.000]"
    said = summary.external_words(compared, 0.9)
    assert said.startswith("* **away**: nothing is known of the sensitivity there") and "home" not in said
    assert "100% of the images would be rejected, 3% were to be expected" in said
    plt.close(plots.external(compared))


def test_intercept_and_slope_are_those_of_a_logistic_regression():
    random = np.random.default_rng(0)
    odds = random.normal(-0.5, 1.5, 400)
    true = random.random(400) < 1 / (1 + np.exp(-(0.7 + 0.6 * odds)))
    evaluation = made(np.where(true, "malignant", "benign"), 1 / (1 + np.exp(-odds)), 0.5)
    fitted = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:, None], true)
    assert evaluation.metric("calibration_slope") == pytest.approx(fitted.coef_[0, 0], abs=1e-5)
    low, high = evaluation.interval("calibration_slope")
    assert low < 0.6 < high and high < 0.9
    moved = made(np.where(true, "malignant", "benign"), 1 / (1 + np.exp(-odds - 2)), 0.5)
    shift = evaluation.metric("calibration_intercept") - moved.metric("calibration_intercept")
    assert shift == pytest.approx(2, abs=1e-6)  # the slope is held at 1
    assert moved.interval("calibration_intercept")[1] < 0  # an interval below 0 is not cut off there
    chance = 1 / (1 + np.exp(-odds - evaluation.metric("calibration_intercept")))
    assert chance.mean() == pytest.approx(true.mean(), abs=1e-6)


def test_the_words_say_whether_the_threshold_holds():
    names = pd.MultiIndex.from_product([["home", "away"], external.TITLES.values()])

    def say(value, low, high):
        rows = pd.DataFrame({"value": value, "low": low, "high": high}, names)
        return summary.external_words(rows, 0.9)

    assert "finds 20% [6%, 44%] of the positive images. **It does not hold there**" in say(0.2, 0.06, 0.44)
    assert "contains what was asked for, but these images are too few to rely on it." in say(0.85, 0.6, 0.95)
    assert "The interval contains what was asked for." in say(0.88, 0.85, 0.95)
    assert "more than was asked for, at a specificity of 97%: a higher threshold" in say(0.97, 0.92, 1.0)
    assert "rejected" not in say(0.02, 0.01, 0.05)


def away(count=120, each=1, seed=0):
    """Scores whose order holds and whose level does not, and distances all beyond the limit."""
    random = np.random.default_rng(seed)
    labels = np.where(np.arange(count) % 4 == 0, "malignant", "benign")
    odds = random.normal(np.where(labels == "malignant", -2, -5), 1)
    lesions = [f"L{number // each}{label}" for number, label in enumerate(labels)]
    evaluation = Evaluation.from_scores(labels, 1 / (1 + np.exp(-odds)), lesions, threshold=0.4)
    evaluation.table["distance"] = random.uniform(1.2, 2, count)
    return evaluation


SHIPPED = SimpleNamespace(metadata={"temperature": 1.0, "offsets": None}, is_fine_tuned=True)


def test_local_labels_restore_the_decision_and_the_limit():
    table = external.local_labels(SHIPPED, away(), 0.9, repeats=20)
    mean = table["mean"].unstack("figure")
    assert mean.index.tolist() == [0, 20, 40, 80]
    assert mean.loc[0, "sensitivity"] < 0.2 and mean.loc[0, "rejected"] == 1
    assert mean.loc[80, "sensitivity"] > 0.8 and mean.loc[80, "rejected"] < 0.1
    assert mean.loc[80, "calibration error"] < mean.loc[0, "calibration error"]
    assert (table["low"] <= table["mean"]).all() and (table["mean"] <= table["high"]).all()
    plt.close(plots.local_labels(table, 0.9))


def test_a_model_without_a_limit_rejects_nothing():
    evaluation = away()
    evaluation.table["distance"] = 0.0
    assert (external.local_labels(SHIPPED, evaluation, repeats=5)["mean"].unstack()["rejected"] == 0).all()


def test_too_few_malignant_lesions_to_draw_from_leave_the_model_as_it_is():
    labels = ["malignant"] * 8 + ["benign"] * 392
    table = external.local_labels(SHIPPED, made(labels, np.linspace(0.9, 0.1, 400), 0.5), repeats=5)
    assert {*table.index.get_level_values("labels")} == {0, 80}


def test_without_a_stored_threshold_no_decision_is_judged():
    tests = dict.fromkeys(("home", "away"), made(["benign", "malignant"] * 10, [0.3, 0.7] * 10, 0.5))
    compared = external.compare(tests)
    assert compared["text"].loc["away", "sensitivity"] == "no threshold is stored"
    assert "nothing is known of the sensitivity there" in summary.external_words(compared, 0.9)


def test_of_two_images_of_one_label_the_line_has_no_interval():
    few = made(["benign", "malignant"], [0.9, 0.95], 0.5)
    assert np.isnan(few.interval("calibration_intercept")).all()


def test_a_steep_slope_is_found():
    random = np.random.default_rng(0)
    odds = random.normal(0, 0.02, 300)
    true = random.random(300) < 1 / (1 + np.exp(-30 * odds))
    evaluation = made(np.where(true, "malignant", "benign"), 1 / (1 + np.exp(-odds)), 0.5)
    fitted = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds[:, None] * 50, true)
    assert evaluation.metric("calibration_slope") == pytest.approx(50 * fitted.coef_[0, 0], rel=1e-3)


def test_a_number_of_labels_that_leaves_nothing_to_measure_is_left_out():
    table = external.local_labels(SHIPPED, away(60), 0.9, repeats=5)
    assert {*table.index.get_level_values("labels")} == {0, 20, 40}
    with pytest.raises(ValueError, match="needs images with and without the label"):
        external.local_labels(SHIPPED, made(["benign"] * 9, [0.2] * 9, 0.5), repeats=5)


def test_lesions_are_drawn_whole_and_both_labels_with_them(monkeypatch):
    seen = []
    measured = external._measured
    monkeypatch.setattr(external, "_measured", lambda *given: seen.append(given) or measured(*given))
    external.local_labels(SHIPPED, away(240, each=4), 0.9, counts=(20,), repeats=10)
    sizes = away(240, each=4).table["group"].value_counts()
    assert len(sizes) == 120 and {*sizes} == {1, 3}
    for positive, *_ in seen[1:]:  # 60 lesions of each label; 10 of each are drawn
        assert (positive.sum(), (~positive).sum()) == (50, 150)


def test_local_labels_do_what_finish_does_with_the_same_images(clinic, model, monkeypatch):
    images = external.read([clinic], model)["clinic"]
    tested = external.score(model, evaluate(model, images), {})["internal test"]
    local, rest = images.split(0.5, 0.5)
    rows = tested.table["group"].isin(local.table["group"]).to_numpy()
    drawn = SimpleNamespace(split=lambda lesions, _: [(lesions.index.isin(local.table["group"]), None)])
    monkeypatch.setattr(external, "StratifiedShuffleSplit", lambda *_, **__: drawn)
    table = external.local_labels(model, tested, 0.9, counts=(4,), repeats=1)
    assert 0 < rows.sum() < len(rows)
    monkeypatch.setattr(external.outliers, "FEWEST", 5)
    model.finish(None, local, 0.9)
    assert model.metadata["decision"]["rule"] == "sensitivity 0.9 on 6 local images"
    compared = external.compare(external.score(model, evaluate(model, rest), {})).loc[
        "internal test", "value"
    ]
    expected = compared[[*external.LOCAL]].tolist()
    assert table["mean"].loc[4].tolist() == pytest.approx(expected, abs=1e-3)
