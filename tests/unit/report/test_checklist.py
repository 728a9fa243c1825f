import json
import re
import shutil

import markdown
import pandas as pd
import pytest

from isicvision import (
    Evaluation,
    ImageClassifier,
    Outputs,
    cards,
    comparison,
    evaluate,
    record,
    write_results,
)

LABELS = ["benign", "malignant"]
OPEN = ("not recorded", "not done")


def external_tests(*names):
    """A table as of external tests: the internal one, then those of `names`."""
    tests, figures = ["internal test", *names], {"images": "60", "ROC AUC": "0.8 [0.7, 0.9]"}
    index = pd.MultiIndex.from_product([tests, figures], names=["test", "figure"])
    texts = [*figures.values()] * len(tests)
    return pd.DataFrame({"value": 0.8, "low": 0.7, "high": 0.9, "text": texts}, index)


@pytest.fixture(scope="module")
def made(dataset_of_clinic, tmp_path_factory):
    """Outputs of a whole tiny run whose table says much, with the paths that `write_results` returned."""
    outputs = Outputs(tmp_path_factory.mktemp("run") / "outputs")
    parts = dict(zip(record.PARTS, dataset_of_clinic.split(0.5, 0.25, 0.25), strict=True))
    model = ImageClassifier("resnet18", LABELS, weights=None, image_size=64)
    model.fit(parts["train"], epochs=1, batch_size=6, progress=False)
    model.finish(parts["train"], parts["validation"])
    record.save_parts(parts, outputs.split)
    record.write(model, parts, model.save(outputs.model), {"SETTINGS": {}})
    cards.write_data_card(dataset_of_clinic, outputs.data_card)
    (outputs.data_report / "data_summary.md").write_text("# Data summary report", encoding="utf-8")
    evaluation = evaluate(model, parts["test"])
    evaluation.save(outputs.predictions)
    slices = comparison.slices(evaluation, ["sex", "skin_tone"])
    paths = write_results(evaluation, model, parts, outputs, slices, external_tests("clinic | two"))
    return outputs, paths


@pytest.fixture(scope="module")
def dataset_of_clinic(folder):
    from dataclasses import replace

    from isicvision import ImageDataset

    dataset = ImageDataset.from_folder(folder).measure()
    histology = (dataset.table["label"] == "malignant") | (dataset.table.index % 2 == 0)
    more = {
        "diagnosis_confirm_type": histology.map({True: "histopathology", False: "expert consensus"}),
        "patient_id": [f"P{number // 6}" for number in range(len(dataset))],
        "image_type": "dermoscopic",
        "camera": "one | two",
        "age_approx": 50,
        "fitzpatrick_skin_type": "II",
        "skin_tone": "light",
        "copyright_license": "CC-0",
        "dataset": "A",
        "ethnicity": "not asked",
    }
    return replace(dataset, table=dataset.table.assign(**more))


@pytest.fixture
def outputs(made, tmp_path):
    shutil.copytree(made[0].folder, tmp_path / "outputs")
    return Outputs(tmp_path / "outputs")


def answers(outputs, parts=None):
    """Write the checklist; return answer and place of each item, by item."""
    parts = record.earlier_parts(outputs.split) if parts is None else parts
    text = cards.write_checklist(outputs, parts).read_text(encoding="utf-8")
    cells = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("| ")]
    rows = [row for row in cells if row[0] not in ("item", "---")]
    assert len({item for item, *_ in rows}) == len(rows)
    return {item: (answer.replace("**", ""), where) for item, _, answer, where in rows}


def change(path, **values):
    """Change values of a JSON file; a value None takes the key out."""
    held = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(
        json.dumps({name: value for name, value in held.items() if value is not None}), encoding="utf-8"
    )


def test_the_model_card_shows_the_tests_elsewhere(made):
    card = (made[0].model / "README.md").read_text(encoding="utf-8")
    table = "| figure | internal test | clinic \\| two |\n| --- | --- | --- |\n| images | 60 | 60 |\n"
    assert table + "| ROC AUC | 0.8 [0.7, 0.9] | 0.8 [0.7, 0.9] |\n" in card


def test_a_whole_run_answers_every_item_that_its_files_can_answer(made):
    outputs, paths = made
    page = outputs.evaluation.with_name("checklist.md")
    assert paths[-1] == page and paths[0] == outputs.evaluation
    found = answers(outputs)
    assert all(answer and where for answer, where in found.values())
    assert {item for item, (answer, _) in found.items() if answer.startswith(OPEN)} == {
        *("Effect on patients and care", "Who made the diagnoses, and what they knew", "Sample size"),
        *(
            "Comparison with clinicians or other models",
            "Ethics approval and consent",
            "Funding and interests",
        ),
        *("Protocol and registration", "Patients and public involved"),
    }
    metrics = record.read(outputs.model / "run.json")["metrics"]
    assert f"ROC AUC {metrics['per_lesion']['roc_auc']['value']:.3f}" in found["Performance per lesion"][0]
    assert "clinic \\| two: images 60, ROC AUC 0.8 [0.7, 0.9]" in found["Test on images from elsewhere"][0]
    assert "internal test" not in found["Test on images from elsewhere"][0]
    assert found["Cameras and their settings"][0] == "camera: one \\| two (24)"
    ways = found["How diagnoses were confirmed"][0]
    assert "benign by histopathology (6), benign by expert consensus (6), malignant by" in ways
    tested = record.earlier_parts(outputs.split)
    shared = {*tested["test"].table["patient_id"]} & {*tested["train"].table["patient_id"]}
    assert found["Leaks between them: patients"][0].startswith(f"{len(shared)} of ")
    predicted = Evaluation.load(outputs.predictions).table.query("label == 'malignant'")["prediction"]
    missed = f"missed: {sum(predicted != 'malignant')} of {len(predicted)} malignant test images"
    assert found["Mistakes"][0].startswith(missed)
    text = page.read_text(encoding="utf-8")
    missing = sum(answer.startswith("not recorded") for answer, _ in found.values())
    undone = sum(answer.startswith("not done") for answer, _ in found.values())
    assert (
        f"Of {len(found)} items, {len(found) - missing - undone} are answered. {missing} are not recorded"
        in text
    )
    for link in re.findall(r"\]\((?!http)([^)#]*)", text):
        assert (page.parent / link).exists(), link


def test_the_page_renders_as_tables_of_four_columns(made):
    html = markdown.markdown(
        (made[0].folder / "evaluation" / "checklist.md").read_text(encoding="utf-8"), extensions=["tables"]
    )
    assert html.count("<table>") == 5 and "<p>|" not in html
    for row in re.findall(r"<tr>.*?</tr>", html, re.S):
        assert len(re.findall(r"<t[hd]", row)) == 4
    for paper in ("10.1001/jamadermatol.2021.4915", "10.1136/bmj-2023-078378"):
        assert paper in html


@pytest.mark.parametrize(
    ("column", "item"),
    [
        ("attribution,copyright_license", "Synthetic images"),
        ("dataset", "Place and time"),
        ("image_type", "Kind of image"),
        ("camera", "Cameras and their settings"),
        ("ruler,dark_corners,border", "Rulers, pen marks, hair, dark corners"),
        ("age_approx,sex", "Age, sex, site"),
        ("diagnosis_confirm_type", "How diagnoses were confirmed"),
        ("patient_id", "Leaks between them: patients"),
        ("ethnicity", "Ethnicity, social status"),
    ],
)
def test_without_its_column_an_item_is_not_recorded(outputs, column, item):
    from isicvision import ImageDataset

    parts = record.earlier_parts(outputs.split)
    bare = {name: ImageDataset(part.table.drop(columns=column.split(","))) for name, part in parts.items()}
    change(
        outputs.model / "model.json",
        training=record.read(outputs.model / "run.json")["training"] | {"sources": []},
    )
    assert answers(outputs, bare)[item][0].startswith("not recorded")


@pytest.mark.parametrize(
    ("changed", "item", "said"),
    [
        ({"metrics": {"slices": None}}, "Groups for whom it may be worse", "not done"),
        ({"metrics": {"external": None}}, "Test on images from elsewhere", "not done"),
        (
            {"metrics": {"per_lesion": None}},
            "Performance per lesion",
            "not recorded: no lesion has several images",
        ),
        ({"metrics": None}, "Performance per image", "not recorded: run `02_evaluate`"),
        ({"metrics": None}, "Are scores probabilities", "not recorded: run `02_evaluate`"),
        ({"metrics": None}, "Mistakes", "not recorded: run `02_evaluate`"),
        ({"code": None}, "Code", "not recorded: run `01_train`"),
        ({"packages": None}, "Environment", "not recorded: run `01_train`"),
        ({"shared_groups": None}, "Leaks between them: lesions", "not recorded: run `01_train`"),
    ],
)
def test_without_its_record_an_item_says_so(outputs, changed, item, said):
    run = record.read(outputs.model / "run.json")
    assert not answers(outputs)[item][0].startswith(OPEN)
    name, value = next(iter(changed.items()))
    held = {k: v for k, v in run[name].items() if k not in value} if value else None
    change(outputs.model / "run.json", **{name: held})
    assert answers(outputs)[item][0].startswith(said)


def test_without_record_card_and_report_every_item_still_has_an_answer(outputs):
    for path in (outputs.model / "run.json", outputs.data_card, outputs.evaluation):
        path.unlink()
    found = answers(outputs)
    assert all(answer and where for answer, where in found.values())
    assert found["Training, validation and test set"][0] == "not recorded: run `01_train`"
    assert found["Kind of image"][1] == "no data card"
    (outputs.data_report / "data_summary.md").unlink()
    assert answers(outputs)["Images set aside"][0].startswith("not recorded: run `02_understand_and_correct`")
    assert found["Performance per image"] == (
        "not recorded: run `02_evaluate`",
        "no report",
    )
    items = {
        "decision": "From score to decision",
        "scores": "Calibration of the scores",
        "outliers": "Images unlike the training images",
    }
    for name, item in items.items():
        change(outputs.model / "model.json", **{name: None})
        assert answers(outputs)[item][0].startswith("not done")


def test_three_labels_have_a_checklist(dataset_of_clinic, tmp_path):
    names = [*LABELS, "unclear"]
    labels = {path: names[number // 2 % 3] for number, path in enumerate(dataset_of_clinic.paths)}
    part = dataset_of_clinic.relabel(labels)
    outputs = Outputs(tmp_path / "outputs")
    model = ImageClassifier("resnet18", names, weights=None, image_size=64)
    model.fit(part, epochs=1, batch_size=12, progress=False)
    parts = dict.fromkeys(record.PARTS, part)
    record.write(model, parts, model.save(outputs.model))
    record.add_metrics(evaluate(model, part), outputs.model)
    found = answers(outputs, parts)
    assert "recall, mean of the labels, 0." in found["Performance per image"][0]
    assert found["Mistakes"][0] == "not recorded" and found["From score to decision"][0].startswith(
        "not done"
    )


def test_record_and_card_have_the_metrics_of_each_group(outputs):
    metadata = pd.DataFrame({"sex": ["female", "male"] * 40, "dx_type": ["histo"] * 60 + ["follow_up"] * 20})
    labels = ["benign", "malignant", "malignant", "benign"] * 15 + ["benign"] * 20
    scores = [0.2, 0.3, 0.7, 0.6] * 15 + [0.1] * 20
    evaluation = Evaluation.from_scores(labels, scores, classes=LABELS, metadata=metadata)
    tables = comparison.slices(evaluation, ["sex", "dx_type"])
    record.add_metrics(evaluation, outputs.model, tables)
    kept = record.read(outputs.model / "run.json")["metrics"]["slices"]
    assert [(row["column"], row["slice"]) for row in kept] == [
        *(("sex", "female"), ("sex", "male"), ("dx_type", "follow_up"), ("dx_type", "histo"))
    ]
    followed = kept[2]
    assert followed["value"] is None and followed["sensitivity"] is None and followed["specificity"] == 1
    names = ["images", "positive", "value", "low", "high"]
    assert [kept[0][name] for name in names] == pytest.approx(tables[0].loc["female", names].tolist())
    assert kept[0]["verdict"] == tables[0].loc["female", "verdict"] and kept[0]["metric"] == "roc_auc"
    page = (
        cards.write_model_card(outputs.model)
        .read_text(encoding="utf-8")
        .partition("## Factors")[2]
        .partition("\n## ")[0]
    )
    of_women = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**kept[0])
    assert f"| sex | female | 40 | {of_women} |" in page and "| ROC AUC |" in page
    assert "| dx_type | follow_up | 20 |  |  | 1.000 [" in page
    differs = sum(row["verdict"] == "differs" for row in kept)
    groups = answers(outputs)["Groups for whom it may be worse"][0]
    assert differs and groups.startswith(f"By sex, dx_type: {differs} of 4 values differ")
    assert f"Different: sex female (ROC AUC {of_women}, 40 images); sex male (ROC AUC" in groups
    record.add_metrics(evaluation, outputs.model)
    assert "slices" not in record.read(outputs.model / "run.json")["metrics"]
    assert "Not recorded. `02_evaluate.ipynb` adds" in cards.write_model_card(outputs.model).read_text(
        encoding="utf-8"
    )
