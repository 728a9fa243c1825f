import dataclasses
import json
import re
import shutil

import markdown
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from isicvision import Evaluation, ImageClassifier, ImageDataset, cards, evaluate, record

LABELS = ["benign", "malignant"]


@pytest.fixture(scope="module")
def saved(folder, tmp_path_factory):
    """A folder with two saved models and their records: a fine-tuned network and a classifier on features."""
    train, test = ImageDataset.from_folder(folder).split(0.5, 0.5)
    parts, root = {"train": train, "test": test}, tmp_path_factory.mktemp("cards")
    network = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    network.fit(train, epochs=2, batch_size=6, learning_rate=[0.01, 0.001], progress=False)
    network.calibrate(test)
    network.decide_at(0.25, rule="a sensitivity of one | two")
    record.write(network, parts, network.save(root / "tuned"), {"SETTINGS": {}})
    record.add_metrics(evaluate(network, test), root / "tuned")
    classifier = make_pipeline(StandardScaler(), LogisticRegression())
    features = ImageClassifier("resnet18", LABELS, weights=None, image_size=64, classifier=classifier)
    features.fit(train)
    record.write(features, parts, features.save(root / "features"))
    record.add_metrics(evaluate(features, test), root / "features")
    return root


@pytest.fixture
def both(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "both")
    return tmp_path / "both" / "tuned", tmp_path / "both" / "features"


@pytest.fixture
def tuned(both):
    return both[0]


def change(path, **values):
    """Change values of a JSON file; a value None takes the key out."""
    held = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(
        json.dumps({name: value for name, value in held.items() if value is not None}), encoding="utf-8"
    )


def rows(text):
    """The rows of all tables: dict of the first cell to the others."""
    cells = [re.split(r"(?<!\\)\|", line.strip("|")) for line in text.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in cells}


def headings_and_tables(text):
    """Render a page without its head, as the site does; every table must have become one."""
    html = markdown.markdown(text.removeprefix("---").split("---\n", 1)[-1], extensions=["tables"])
    assert "| ---" not in html and "<p>|" not in html
    for table in re.findall(r"<table>.*?</table>", html, re.S):
        widths = {len(re.findall(r"<t[hd]", row)) for row in re.findall(r"<tr>.*?</tr>", table, re.S)}
        assert len(widths) == 1
    return re.findall(r"<h2>(.*?)</h2>", html), html.count("<table>")


def test_the_card_holds_the_figures_of_its_run_and_changes_with_them(tuned):
    run, model = (
        json.loads((tuned / name).read_text(encoding="utf-8")) for name in ("run.json", "model.json")
    )
    text = cards.write_model_card(tuned).read_text(encoding="utf-8")
    held = rows(text)
    assert re.search(r", \d+ threads?, accelerator: ", held["machine"][0])
    for name in ("accuracy", "recall", "roc_auc", "brier"):
        assert held[name] == [f"{run['metrics'][name][end]:.3f}" for end in ("value", "low", "high")]
    for name, part in run["split"].items():
        counts = [part["images"], part["groups"], part["labels"]["benign"], part["labels"]["malignant"]]
        assert held[name] == [*map(str, counts), part["manifest"]]
    assert held["train"][:4] == ["12", "6", "6", "6"] and "more than one part: 0." in text
    assert held["learning_rate"] == ["0.01, 0.001"] and held["torch"] == [run["packages"]["torch"]]
    commit, more = run["code"]["commit"], ", and files changed since" * bool(run["code"]["changed"])
    assert held["seconds of training"] == [str(run["seconds"])]
    assert held["commit"] == [(commit or "not recorded") + more]
    assert (
        "On 12 test images (lesions or groups: 6)" in text
        and "Synthetic test image | not recorded | 12 |" in text
    )
    assert (
        "`malignant` is predicted from a score of 0.250" in text
        and "predicted from a score of 0.250.\n" in text
    )
    assert f"temperature of {model['temperature']:.2f}." in text and "sensitivity of one \\| two" in text
    assert "--rerun MODEL/run.json" in text and model["caveat"] in text

    run["metrics"]["roc_auc"] = {"value": 0.123, "low": 0.045, "high": 0.678}
    run["metrics"]["recall"] = {"value": None, "low": None, "high": None}
    run["metrics"]["npv"] = {"value": 0.9, "low": None, "high": None}
    (tuned / "run.json").write_text(json.dumps(run), encoding="utf-8")
    held = rows(cards.write_model_card(tuned).read_text(encoding="utf-8"))
    assert held["roc_auc"] == ["0.123", "0.045", "0.678"] and held["recall"] == ["not defined"] * 3
    assert held["npv"] == ["0.900", "too few lesions", "too few lesions"]


def test_the_card_has_the_offsets_of_a_calibration(tuned):
    for name in ("model.json", "run.json"):
        content = json.loads((tuned / name).read_text(encoding="utf-8"))
        content.get("model", content)["offsets"] = content["offsets"] = [0.0, -0.5]
        (tuned / name).write_text(json.dumps(content), encoding="utf-8")
    assert "and an offset for each label (benign 0.00, malignant -0.50)." in cards.write_model_card(
        tuned
    ).read_text(encoding="utf-8")


def test_a_full_record_fills_everything_but_what_no_record_holds(tuned):
    table = [
        line
        for line in cards.write_model_card(tuned).read_text(encoding="utf-8").splitlines()
        if "not recorded" in line
    ]
    missing = {line.split("|")[1].strip() for line in table if line.startswith("|")}
    # the images have no license here; whether a commit is known depends on where the tests run
    assert missing - {"commit"} == {"Synthetic test image"}
    assert not [line for line in table if not line.startswith("|")]


def test_cards_of_two_runs_differ(both):
    tuned, features = (cards.write_model_card(folder).read_text(encoding="utf-8") for folder in both)
    assert "fine-tuned network" in tuned and "No network was trained" not in tuned
    assert rows(features)["kind"][0].startswith("features of the network, then Pipeline(")
    assert "No network was trained." in features and "there is no threshold" in features
    assert "predicted where its score is the higher one" in features
    assert "repeat the run with the code that made it" in features and "--rerun" not in features
    assert rows(tuned)["train"] == rows(features)["train"] and rows(tuned)["roc_auc"] != ["not recorded"]
    assert rows(features)["seconds of training"] == ["not recorded"]  # nobody took the time
    for text in (tuned, features):
        headings, tables = headings_and_tables(text)
        assert tables >= 6 and headings[:4] == ["Model details", "Intended use", "Metrics", "Factors"]


def test_the_hub_reads_the_head(tuned):
    hub = pytest.importorskip("huggingface_hub")  # a dependency of timm
    card = hub.ModelCard(cards.write_model_card(tuned).read_text(encoding="utf-8"))
    assert card.data.pipeline_tag == "image-classification" and card.data.tags == ["isicvision", "resnet18"]
    assert card.text.lstrip().startswith("# Model card: resnet18, benign or malignant")


def test_what_is_missing_is_said_and_no_reason_to_stop(tuned):
    change(tuned / "run.json", metrics=None, machine=None, code=None, packages=None, shared_groups=None)
    text = cards.write_model_card(tuned).read_text(encoding="utf-8")
    assert "Not recorded. `02_evaluate.ipynb` adds them" in text
    for name in ("machine", "commit"):
        assert rows(text)[name] == ["not recorded"]
    run = record.read(tuned / "run.json")  # as older records were
    split = {name: {"images": part["images"], "manifest": "abc"} for name, part in run["split"].items()}
    metrics = {"images": 12, "accuracy": {"value": 0.5, "low": 0.25, "high": 0.75}}
    change(tuned / "run.json", split=split, metrics=metrics)
    text = cards.write_model_card(tuned).read_text(encoding="utf-8")
    assert rows(text)["test"] == ["12", "not recorded", "not recorded", "not recorded", "abc"]
    assert "groups: not recorded)" in text and "The positive label" not in text
    (tuned / "run.json").unlink()
    (tuned / "network.safetensors").unlink()
    text = cards.write_model_card(tuned).read_text(encoding="utf-8")
    assert rows(text)["train"][:4] == ["12", "6", "6", "6"] and "test" not in rows(text)
    headings_and_tables(text)


def test_three_labels_have_no_threshold_and_a_column_each(tmp_path, dataset):
    names = ["benign", "malignant", "a | b"]
    labels = {path: names[n // 2 % 3] for n, path in enumerate(dataset.paths)}
    dataset = dataset.relabel(labels)
    model = ImageClassifier("resnet18", names, weights=None, image_size=64)
    model.fit(dataset, epochs=1, batch_size=12, progress=False)
    shares = np.random.default_rng(0).dirichlet([1, 1, 1], len(dataset))
    evaluation = Evaluation.from_scores(dataset.table["label"], shares, classes=names)
    record.write(model, {"train": dataset}, model.save(tmp_path / "m"))
    record.add_metrics(evaluation, tmp_path / "m")
    text = cards.write_model_card(tmp_path / "m").read_text(encoding="utf-8")
    assert "means over the labels" in text and "there is no threshold" in text and "not calibrated" in text
    assert rows(text)["train"][:5] == ["24", "12", "8", "8", "8"]
    headings_and_tables(text)


def test_a_model_that_was_never_trained_and_began_at_random_has_a_card(tmp_path):
    ImageClassifier("resnet18", LABELS, weights=None, image_size=64).save(tmp_path / "m")
    held = rows(cards.write_model_card(tmp_path / "m").read_text(encoding="utf-8"))
    assert held["initial weights"] == ["random"] and held["trained"] == ["not recorded"]


def test_what_is_broken_is_named(tuned):
    change(tuned / "run.json", model={"backbone": "alexnet"})
    with pytest.raises(ValueError, match=r"run\.json is of another model than model\.json"):
        cards.write_model_card(tuned)
    (tuned / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        cards.write_model_card(tuned)
    for text in ("{", "[]"):
        (tuned / "model.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"model\.json is damaged"):
            cards.write_model_card(tuned)
    (tuned / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        cards.write_model_card(tuned)
    assert not (tuned / "README.md").exists()


def test_the_card_goes_with_the_model_it_is_of(tuned):
    cards.write_model_card(tuned)
    model = ImageClassifier.load(tuned)
    model.decide_at(0.75)
    model.save(tuned)
    assert not (tuned / "README.md").exists()  # one that says 0.25 would be wrong
    assert "from a score of 0.750. How this threshold was chosen: not recorded." in cards.write_model_card(
        tuned
    ).read_text(encoding="utf-8")


def test_the_data_card_counts_what_the_table_holds(dataset, tmp_path):
    checked = dataset.measure().without({dataset.paths[0]: "blurred"})
    table = checked.table.assign(copyright_license=["CC-0"] * 20 + [None] * 3)
    text = cards.write_data_card(
        dataclasses.replace(checked, table=table), tmp_path / "new" / "card.md"
    ).read_text(encoding="utf-8")
    held = rows(text)
    assert held["images"] == ["23"] and held["set aside before"] == ["1"]
    assert held["manifest"] == [checked.manifest()]
    assert held["benign"][:2] == ["11", "6"] and held["malignant"][:2] == ["12", "6"]
    assert "| Synthetic test image | CC-0 | 20 |" in text
    assert "| Synthetic test image | not recorded | 3 |" in text
    share = table["sex"].isna().mean()
    assert f"| sex | {share:.1%} |" in text and "lesion_id" not in text
    assert "Of 12 lesions (or groups), 11 have more than one image" in text
    assert held["exact duplicate"][:3] == ["0", "0", "0"] and "Gradient boosting" in text
    headings, tables = headings_and_tables(text)
    assert headings == [
        "Summary",
        "Labels",
        "People",
        "Sources and licenses",
        "Missing values",
        "Splits",
        "Known findings",
        "Use",
    ]
    assert tables >= 5


def test_images_without_metadata_have_a_data_card_too(dataset, tmp_path):
    checked = dataset.measure()
    bare = checked.table.drop(columns=["isic_id", "lesion_id", "sex", "attribution"])
    text = cards.write_data_card(dataclasses.replace(checked, table=bare), tmp_path / "card.md").read_text(
        encoding="utf-8"
    )
    assert "neither license nor attribution" in text and text.count("None.") >= 3


def test_a_card_says_where_lesions_are_unknown_and_where_figures_are_of_other_images(tuned):
    run = record.read(tuned / "run.json")
    split = {name: part | {"groups": None, "groups_known": 0.0} for name, part in run["split"].items()}
    metrics = run["metrics"] | {"groups": None, "groups_known": 0.0}
    change(tuned / "run.json", split=split, metrics=metrics)
    held = json.loads((tuned / "run.json").read_text(encoding="utf-8")) | {
        "shared_groups": None,
        "groups_known": 0.0,
    }
    (tuned / "run.json").write_text(json.dumps(held), encoding="utf-8")
    text = cards.write_model_card(tuned).read_text(encoding="utf-8")
    assert rows(text)["test"][1] == "unknown: no column names lesions or patients"
    assert "in more than one part: unknown, because no column names lesions" in text
    assert "interval over images, which is too narrow where several show one lesion" in text
    assert "These are other images" not in text
    change(tuned / "run.json", metrics=metrics | {"manifest": "abc", "images": 1})
    text = cards.write_model_card(tuned).read_text(encoding="utf-8")
    assert "**These are other images than the test part below** (manifest abc)." in text
    assert "On 1 test image (lesions" in text


def test_a_record_of_an_earlier_training_is_refused(tuned):
    run = record.read(tuned / "run.json")
    change(tuned / "run.json", training=run["training"] | {"manifest": "of other images"})
    with pytest.raises(ValueError, match=r"run\.json is of another model"):
        cards.write_model_card(tuned)
