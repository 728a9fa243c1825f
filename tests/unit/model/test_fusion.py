"""Age, sex and site beside the score of an image: what is learned, refused, saved and loaded."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from isicvision import Evaluation, ImageClassifier, ImageDataset, evaluate, fusion, patient


@pytest.fixture(scope="module")
def drawn():
    """2,000 lesions whose log-odds are 0.8 of the image's, a line of the age, and a value of each site."""
    random = np.random.default_rng(0)
    own = random.normal(-1, 2, 2000)
    ages, sites = random.uniform(10, 90, 2000), random.choice(["back", "face"], 2000)
    odds = 0.8 * own + 0.02 * (ages.clip(20, 80) - 50) + np.where(sites == "face", 1, -1)
    people = [{"age": age, "site": site} for age, site in zip(ages, sites, strict=True)]
    return expit(own), people, random.random(2000) < expit(odds)


class Network:
    """A model whose scores are a column of the table."""

    labels, positive, seen = ["benign", "malignant"], "malignant", None

    def __init__(self):
        self.metadata = {
            "decision": {"positive": "malignant", "threshold": 0.4, "rule": None},
            "patient": None,
            "training": {},
        }

    def predict_proba(self, dataset):
        scores = dataset.table["own"].to_numpy(np.float32)
        return np.column_stack([1 - scores, scores])


def as_dataset(drawn, **columns):
    scores, people, true = drawn
    table = pd.DataFrame({"path": [f"{number}.jpg" for number in range(len(true))], "own": scores})
    table["label"], table["group"] = np.where(true, "malignant", "benign"), table["path"]
    values = {"age": [each["age"] for each in people], "localization": [each["site"] for each in people]}
    return ImageDataset(table.assign(**values | columns))


@pytest.fixture(scope="module")
def both(drawn):
    return fusion.fit(Network(), as_dataset(drawn))


def test_the_numbers_are_those_that_the_labels_were_drawn_from(drawn):
    scores, people, true = drawn
    numbers, held_out = fusion.learn(scores, people, true, np.arange(len(true)))
    assert numbers["image"] == pytest.approx(0.8, abs=0.06)
    added = {(name, value): odds for name, value, odds in numbers["added"]}
    ages = {("age", 20): -0.6, ("age", 50): 0, ("age", 80): 0.6}
    assert added == pytest.approx(ages | {("site", "back"): -1, ("site", "face"): 1}, abs=0.25)
    assert roc_auc_score(true, held_out) > roc_auc_score(true, scores) + 0.03


def test_the_plain_numbers_give_scikit_learns_scores(drawn, monkeypatch):
    scores, people, true = (each[:500] for each in drawn)
    people = [person if number % 3 else {"age": person["age"]} for number, person in enumerate(people)]
    fits = []
    fit = LogisticRegression.fit
    monkeypatch.setattr(
        LogisticRegression, "fit", lambda self, x, y: fits.append((self, x)) or fit(self, x, y)
    )
    numbers, _ = fusion.learn(scores, people, true, np.arange(len(true)))
    of_all = [(model, x) for model, x in fits if len(x) == len(true)]
    [(model, matrix)] = of_all
    fused = [patient.score(numbers, p, 1 - p, person) for p, person in zip(scores, people, strict=True)]
    assert fused == pytest.approx(model.predict_proba(matrix)[:, 1], abs=1e-12)


def test_what_is_missing_adds_nothing_however_it_goes_with_the_label(drawn):
    scores, people, true = drawn
    people = [
        person if is_true else {"age": person["age"]} for person, is_true in zip(people, true, strict=True)
    ]
    numbers, _ = fusion.learn(scores, people, true, np.arange(len(true)))
    assert [row[1] for row in numbers["added"]] == [20, 50, 80, "back", "face"]
    known = {"age": 50.0}
    assert patient.added(numbers, known | {"site": "unknown"}) == patient.added(numbers, known)


def test_without_the_image_the_score_is_that_of_the_patient_alone(drawn):
    dataset = as_dataset(drawn)
    alone = fusion.fit(Network(), dataset, image=False)
    other = dataset.table.assign(own=0.5)
    assert alone.numbers["image"] == 0
    np.testing.assert_array_equal(
        alone.predict_proba(dataset), alone.predict_proba(ImageDataset(other, positive="malignant"))
    )
    assert evaluate(alone, dataset).metric("roc_auc") > 0.6


def test_the_threshold_keeps_the_sensitivity_of_the_image_alone(drawn, both):
    model, dataset = Network(), as_dataset(drawn)
    own, fused = evaluate(model, dataset), evaluate(both, dataset)
    assert fused.threshold == both.numbers["decision"]["threshold"] != own.threshold
    assert fused.metric("recall") == pytest.approx(own.metric("recall"), abs=0.01)
    assert fused.metric("specificity") > own.metric("specificity") + 0.02
    assert f"sensitivity {own.metric('recall'):.3f}" in both.numbers["decision"]["rule"]


def test_images_of_which_nothing_is_known_keep_their_score(drawn, both):
    model, dataset = Network(), as_dataset(drawn)
    blank = ImageDataset(dataset.table.assign(age=np.nan, localization="unknown"))
    np.testing.assert_array_equal(both.predict_proba(blank)[:, 1], model.predict_proba(blank)[:, 1])
    np.testing.assert_array_equal(
        both.predict_proba(blank), both.predict_proba(ImageDataset(blank.table.drop(columns="age")))
    )


def test_columns_are_found_by_their_names_or_given():
    table = pd.DataFrame({"age_approx": [50], "sex": ["male"], "anatom_site_1": ["Trunk"], "Alter": [50]})
    found = {"age": "age_approx", "sex": "sex", "site": "anatom_site_1"}
    assert fusion.columns_of(table) == found
    assert fusion.columns_of(table, {"age": "Alter", "sex": None}) == {
        "age": "Alter",
        "site": "anatom_site_1",
    }
    with pytest.raises(ValueError, match=r"age: there is no column 'age_aprox'; did you mean age_approx\?"):
        fusion.columns_of(table, {"age": "age_aprox"})
    with pytest.raises(ValueError, match="given for age, sex and site, not for 'skin'"):
        fusion.columns_of(table, {"skin": "Alter"})


@pytest.mark.parametrize(
    ("column", "about"),
    [
        ("dx_type", "diagnosis"),
        ("diagnosis_confirm_type", "diagnosis"),
        ("mel_thick_mm", "diagnosis"),
        ("attribution", "source"),
        ("dataset", "source"),
        ("lesion_id", "identifier"),
        ("width", "frame"),
        ("label", "identifier"),
    ],
)
def test_columns_that_tell_the_label_without_the_patient_are_refused_by_name(column, about):
    with pytest.raises(ValueError, match=f"site: '{column}' is refused, it tells of the {about}"):
        fusion.columns_of(pd.DataFrame({column: ["a", "a"]}), {"site": column})


@pytest.mark.parametrize("age", [-5, 150, 999])
def test_an_impossible_age_in_the_table_is_named(drawn, both, age):
    dataset = as_dataset(drawn)
    dataset.table.loc[7, "age"] = age
    with pytest.raises(ValueError, match=f"from 0 to 120, not '{age}"):
        fusion.fit(Network(), dataset)
    with pytest.raises(ValueError, match=f"from 0 to 120, not '{age}"):
        both.predict_proba(dataset)


def test_an_age_in_words_is_named(drawn):
    dataset = as_dataset(drawn, age="middle-aged")
    with pytest.raises(ValueError, match="not 'middle-aged'"):
        fusion.fit(Network(), dataset)


def test_tables_and_models_that_do_not_fit_are_refused(drawn):
    dataset, model = as_dataset(drawn), Network()
    with pytest.raises(ValueError, match="no column of age, sex or site was found"):
        fusion.fit(model, ImageDataset(dataset.table.drop(columns=["age", "localization"])))
    few = dataset.table["label"].eq("benign") | (dataset.table["path"] == dataset.paths[0])
    few = ImageDataset(
        dataset.table[few].assign(label=lambda t: np.where(t.index == 0, "malignant", "benign"))
    )
    with pytest.raises(ValueError, match="two lesions or more of each label"):
        fusion.fit(model, few)
    model.labels = ["bcc", "mel", "nv"]
    with pytest.raises(ValueError, match="two labels; this one has 3"):
        fusion.fit(model, dataset)
    with pytest.raises(ValueError, match="takes no age, sex or site"):
        fusion.Fusion(Network())


# with a real network


@pytest.fixture(scope="module")
def people(folder):
    dataset = ImageDataset.from_folder(folder)
    ages = np.random.default_rng(1).integers(20, 80, len(dataset))
    return ImageDataset(dataset.table.assign(age=ages, site="back"), positive="malignant")


@pytest.fixture(scope="module")
def network(people):
    model = ImageClassifier("squeezenet1_1", people.labels, weights=None, image_size=64)
    model.decide_at(0.5)
    return model


def test_the_numbers_are_saved_with_the_model(network, people, tmp_path):
    both = fusion.fit(copy.deepcopy(network), people)
    loaded = fusion.Fusion(ImageClassifier.load(both.save(tmp_path / "model")))
    assert loaded.numbers == both.numbers
    np.testing.assert_allclose(loaded.predict_proba(people), both.predict_proba(people), atol=1e-6)
    assert "age, sex, site" in repr(loaded.model)
    assert [file.suffix for file in (tmp_path / "model").iterdir() if file.suffix in (".pkl", ".skops")] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda numbers: numbers.pop("added"),
        lambda numbers: numbers.update(positive="nevus"),
        lambda numbers: numbers.update(image="much"),
        lambda numbers: numbers["added"].append(["sex", "male", None]),
        lambda numbers: numbers.update(added=3),
        lambda numbers: numbers["decision"].update(threshold=7),
    ],
)
def test_damaged_numbers_are_refused_when_loaded(network, people, tmp_path, change):
    folder = fusion.fit(copy.deepcopy(network), people).save(tmp_path / "model")
    saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    change(saved["patient"])
    (folder / "model.json").write_text(json.dumps(saved), encoding="utf-8")
    with pytest.raises(ValueError, match="does not describe a model"):
        ImageClassifier.load(folder)


def test_without_a_threshold_of_the_model_there_is_none(people):
    model = ImageClassifier("squeezenet1_1", people.labels, weights=None, image_size=64)
    assert fusion.fit(model, people).numbers["decision"] is None


def test_a_model_that_was_saved_earlier_loads_without_them(network, tmp_path):
    folder = network.save(tmp_path / "model")
    saved = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    del saved["patient"]
    (folder / "model.json").write_text(json.dumps(saved), encoding="utf-8")
    assert ImageClassifier.load(folder).metadata["patient"] is None


def test_another_calibration_or_training_drops_them(network, people, tmp_path):
    model = fusion.fit(copy.deepcopy(network), people).model
    fusion.fit(model, people).save(tmp_path / "model")
    with pytest.warns(UserWarning, match="learn again, by fusion.fit"):
        model.calibrate(people)
    assert model.metadata["patient"] is None


def test_images_that_were_trained_on_are_warned_of(network, people):
    from isicvision import splitting

    model = copy.deepcopy(network)
    model.seen = splitting.fingerprints(people)
    with pytest.warns(UserWarning, match="to learn age, sex and site from were trained on"):
        fusion.fit(model, people)


def test_an_evaluation_takes_a_fusion_of_the_other_positive_label(drawn):
    model, dataset = Network(), as_dataset(drawn)
    model.metadata["decision"]["positive"] = "benign"
    both = fusion.fit(model, dataset)
    evaluation = evaluate(both, dataset)
    assert isinstance(evaluation, Evaluation) and evaluation.positive == "benign"
    assert evaluation.metric("roc_auc") > roc_auc_score(drawn[2], logit(drawn[0])) + 0.03
