"""The notebooks as users run them: by papermill, in order, on the bundled sample, and alone."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from isicvision import Evaluation, ImageDataset, record

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "code"))
from run import notebooks  # noqa: E402

NOTEBOOKS = [path.as_posix() for path in notebooks()]
FEW = {"image_size": 96, "train_image_size": 96, "epochs": 2, "views": 1, "precision": "fp32"}
QUICK = {"SETTINGS": FEW, "AUDITED": 12}

pytestmark = pytest.mark.notebooks
of_the_walk = pytest.mark.xdist_group("walk")  # one process has it


def run(name, outputs, cwd=None, **parameters):
    """Run one notebook with those of `parameters` that it has; return what its cells printed."""
    declared = papermill.inspect_notebook(str(ROOT / name))
    wanted = {key: value for key, value in parameters.items() if key in declared} | {"OUTPUTS": str(outputs)}
    target = outputs / "executed" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    result = papermill.execute_notebook(
        str(ROOT / name), str(target), wanted, progress_bar=False, store_widget_state=False, cwd=cwd
    )
    texts = [
        o.get("text") or o.get("data", {}).get("text/plain", "")
        for c in result.cells
        for o in c.get("outputs", [])
    ]
    return "\n".join(texts)


@pytest.fixture(scope="module", autouse=True)
def no_bars():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TQDM_DISABLE", "1")
        yield


@pytest.fixture(scope="module")
def walk(tmp_path_factory, folder):
    """One quick run of all notebooks: the folder of outputs, and what each notebook printed."""
    outputs = tmp_path_factory.mktemp("walk")
    given = QUICK | {"EXTERNAL": [str(folder)]}
    return outputs, {name: run(name, outputs, **given) for name in NOTEBOOKS}


@of_the_walk
def test_the_walk_leaves_images_model_report_and_bundle(walk):
    outputs, _ = walk
    images = list((outputs / "data" / "sample").rglob("*.jpg"))
    assert len(images) == len(list((ROOT / "sample_data" / "images").iterdir()))
    for name in (
        "data/sample/metadata.csv",
        "data/sample/attribution.txt",
        "dataset.csv",
        "split/test.csv",
        "model/network.safetensors",
        "model/model.json",
        "model/run.json",
        "model/README.md",
        "model_features/README.md",
        "model_patient/README.md",
        "data_report/data_card.md",
        "evaluation/predictions.csv",
        "evaluation/report.html",
        "evaluation/checklist.md",
        "bundle/model.onnx",
        "bundle/score.py",
    ):
        assert (outputs / name).stat().st_size > 0, name
    card = json.loads((outputs / "model" / "model.json").read_text(encoding="utf-8"))
    assert card["training"]["epochs"] == 2 and len(card["training"]["history"]) == 2
    run = json.loads((outputs / "model" / "run.json").read_text(encoding="utf-8"))
    for name in ("model", "model_features", "model_patient"):
        assert "On 32 test images" in (outputs / name / "README.md").read_text(encoding="utf-8")
    assert run["metrics"]["roc_auc"]["value"] > 0 and run["parameters"]["SETTINGS"]["epochs"] == 2


@of_the_walk
def test_the_walk_tests_the_model_on_another_clinics_images_and_labels(walk):
    printed = walk[1]["code/02_modeling/02_evaluate.ipynb"]
    assert "internal test" in printed and "calibration slope" in printed and "No external test" not in printed


@of_the_walk
def test_the_service_answers_what_the_notebook_predicts(walk):
    printed = walk[1]["code/03_deployment/01_deploy_locally.ipynb"]
    assert "the service and the notebook agree within 1e-4" in printed
    assert "422 No image could be scored" in printed and "400 The body is empty" in printed
    assert "stopped>" in printed


@of_the_walk
def test_the_patient_is_learned_from_the_columns_of_the_sample_and_compared(walk):
    printed = walk[1]["code/02_modeling/05_age_sex_and_site.ipynb"]
    assert "from the columns age_approx, sex, anatom_site_1" in printed
    assert "all 32 test images" in printed and printed.count("First: both. Second: image.") == 2
    saved = json.loads((walk[0] / "model_patient" / "model.json").read_text(encoding="utf-8"))
    assert [*saved["patient"]["columns"]] == ["age", "sex", "site"]
    assert json.loads((walk[0] / "model" / "model.json").read_text(encoding="utf-8"))["patient"] is None


@of_the_walk
@pytest.mark.parametrize(
    ("columns", "found"),
    [
        ({"age": None, "sex": None, "site": None}, "no column of age, sex or site"),
        ({"site": "sex"}, "learned on"),
    ],
)
def test_the_patient_is_left_out_where_no_column_tells_of_it(walk, tmp_path, columns, found):
    for name in ("model", "split"):
        shutil.copytree(walk[0] / name, tmp_path / name)
    printed = run("code/02_modeling/05_age_sex_and_site.ipynb", tmp_path, PATIENT_COLUMNS=columns)
    assert found in printed and (tmp_path / "model_patient").exists() == ("learned" in found)


@of_the_walk
def test_the_azure_notebook_skips_without_a_workspace_and_says_so(walk):
    printed = walk[1]["code/03_deployment/02_deploy_to_azure.ipynb"]
    assert printed.count("Skipped:") == 3 and "without .azureml/config.json" in printed
    assert "entry script: score.py" in printed and "Model.deploy(workspace, 'isicvision'" in printed
    assert "load_online_deployment('code/03_deployment/azure/deployment-blue.yml'" in printed


def test_a_notebook_opened_in_its_folder_reads_and_writes_what_make_run_does(tmp_path):
    how = {"SOURCE": "sample_data", "LABEL_COLUMN": "diagnosis_1", "IMAGE_COLUMN": "isic_id"}
    tables = []
    for number, cwd in enumerate((None, ROOT / Path(NOTEBOOKS[0]).parent)):
        for name in NOTEBOOKS[:2]:
            run(name, tmp_path / str(number), cwd=cwd, **how)
        tables.append((tmp_path / str(number) / "dataset.csv").read_text(encoding="utf-8"))
    assert tables[0] == tables[1] and "\nsample_data/images/" in tables[0]


def test_a_field_that_the_archive_lacks_is_named_before_the_download(tmp_path):
    with pytest.raises(PapermillExecutionError, match="no field diagnosis_33; it has: .*diagnosis_3,"):
        run(NOTEBOOKS[0], tmp_path, SUBLABEL_COLUMN="diagnosis_33")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", NOTEBOOKS[1:])
def test_a_notebook_run_too_early_names_the_one_to_run_first(name, tmp_path):
    with pytest.raises(PapermillExecutionError) as error:
        run(name, tmp_path)
    assert error.value.ename == "FileNotFoundError"
    first = re.search(r"Run (code/\S+\.ipynb) first", error.value.evalue)[1]
    assert first in NOTEBOOKS[: NOTEBOOKS.index(name)]


@of_the_walk
def test_training_as_a_job_and_a_rerun_from_its_record_give_the_notebooks_model(walk, tmp_path):
    outputs, _ = walk
    before = (outputs / "model" / "network.safetensors").read_bytes()
    job = [sys.executable, "code/02_modeling/train.py"]
    parameters = tmp_path / "quick.yaml"
    parameters.write_text(yaml.safe_dump(QUICK | {"LABEL_COLUMN": "dx"}), encoding="utf-8")
    (tmp_path / "dataset.csv").write_text(
        (outputs / "dataset.csv").read_text(encoding="utf-8"), encoding="utf-8"
    )
    for options in (["--parameters", parameters], ["--rerun", outputs / "model" / "run.json"]):
        command = [*job, *options, "--outputs", tmp_path]
        printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        assert (tmp_path / "model" / "network.safetensors").read_bytes() == before
        for part in ("train", "validation", "test"):  # the same seed, the same split
            assert (tmp_path / "split" / f"{part}.csv").read_text(encoding="utf-8") == (
                outputs / "split" / f"{part}.csv"
            ).read_text(encoding="utf-8")
        assert (
            json.loads((tmp_path / "model" / "run.json").read_text(encoding="utf-8"))["split"]["test"][
                "images"
            ]
            == 32
        )
        assert "| test | 32 |" in (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "roc_auc" in printed and "before:" not in printed  # all metrics are as before

    (tmp_path / "model" / "run.json").write_text(
        (outputs / "model" / "run.json").read_text(encoding="utf-8"), encoding="utf-8"
    )
    table = (tmp_path / "dataset.csv").read_text(encoding="utf-8").splitlines()
    (tmp_path / "dataset.csv").write_text("\n".join(table[:-1]), encoding="utf-8")
    command = [*job, "--rerun", tmp_path / "model" / "run.json", "--outputs", tmp_path]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "images are not those of the record" in refused.stderr

    command = [*job, "--rerun", outputs / "model_features" / "run.json", "--outputs", tmp_path]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "has no parameters of this job" in refused.stderr

    (tmp_path / "dataset.csv").unlink()
    command = [*job, "--rerun", tmp_path / "model" / "run.json", "--outputs", tmp_path]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "say by --data where" in refused.stderr


def test_the_job_names_a_parameter_file_that_it_cannot_read(tmp_path):
    (tmp_path / "odd.yaml").write_text("SEED: [1, 2", encoding="utf-8")
    command = [sys.executable, "code/02_modeling/train.py", "--parameters", tmp_path / "odd.yaml"]
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2 and "odd.yaml cannot be read as a parameter file" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_metric_that_is_not_defined_is_as_before_in_a_rerun(monkeypatch, capsys):
    job = runpy.run_path(str(ROOT / "code/02_modeling/train.py"))
    all_positive = Evaluation.from_scores(["benign", "malignant"], [0.9, 0.8])
    monkeypatch.setitem(job["compare"].__globals__, "evaluate", lambda *_: all_positive)
    job["compare"]({"metrics": {"npv": {"value": None}, "recall": {"value": 1.0}}}, None, None)
    assert capsys.readouterr().out == "npv: None as before\nrecall: 1.0 as before\n"


def test_the_jobs_defaults_are_the_notebooks():
    text = (ROOT / "code/02_modeling/train.py").read_text(encoding="utf-8")
    defaults = eval(re.search(r"PARAMETERS = (\{.*?\n\})", text, re.S)[1])
    declared = papermill.inspect_notebook(str(ROOT / "code/02_modeling/01_train.ipynb"))
    assert defaults == {name: eval(parameter["default"]) for name, parameter in declared.items()}


@pytest.mark.real
def test_a_csv_of_real_images_goes_the_same_way(real_data, tmp_path):
    source, few = real_data / "ham10000_200x150", tmp_path / "few"
    rows = (source / "metadata.csv").read_text(encoding="utf-8").splitlines()
    (few / "images").mkdir(parents=True)
    (few / "metadata.csv").write_text("\n".join(rows[:1] + rows[1:161:2]), encoding="utf-8")
    for row in rows[1:161:2]:
        name = row.split(",")[1] + ".jpg"
        os.symlink(source / "images" / name, few / "images" / name)
    parameters = yaml.safe_load((ROOT / "code/parameters/ham10000.yaml").read_text(encoding="utf-8"))
    parameters |= QUICK | {"SOURCE": str(few), "AUDITED": 20}
    for name in NOTEBOOKS[:4]:
        run(name, tmp_path / "outputs", **parameters)
    assert (tmp_path / "outputs" / "evaluation" / "report.html").exists()


def test_three_labels_go_the_whole_way_by_the_parameters_of_the_how_to_page(tmp_path):
    page = (ROOT / "docs/howto/more_than_two_classes.md").read_text(encoding="utf-8")
    parameters = yaml.safe_load(re.search(r"```yaml\n(.*?)```", page, re.S)[1])
    printed = {}
    for name in NOTEBOOKS:
        printed[name] = run(name, tmp_path, **QUICK | parameters | {"SOURCE": str(ROOT / "sample_data")})
    run_record = json.loads((tmp_path / "model" / "run.json").read_text(encoding="utf-8"))
    assert run_record["model"]["labels"] == ["melanoma", "nevus", "other"]
    assert 0 < run_record["metrics"]["balanced_accuracy"]["value"] < 1
    search = printed["code/02_modeling/03_features_and_classifier.ipynb"].partition("mean_test_score")[2]
    assert not re.search(r"^0\.0.*NaN", search, re.MULTILINE)  # it was scored, with three labels
    assert "'nevus': 0." in printed["code/03_deployment/01_deploy_locally.ipynb"]


def test_features_and_classifier_says_what_a_label_of_three_lesions_does_not_allow(tmp_path):
    csv = ROOT / "sample_data" / "metadata.csv"
    sample = ImageDataset.from_csv(csv, images=csv.parent / "images", label_column="diagnosis_1")
    rare = sample.table["group"].isin(sample.table["group"].unique()[:3])
    sample = sample.relabel(dict.fromkeys(sample.table["path"][rare], "suspicious"))
    parts = sample.split(0.6, 0.2, 0.2)
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        part.save(tmp_path / "split" / f"{name}.csv")
    test = parts[2].table
    scores = np.random.default_rng(0).dirichlet([1, 1, 1], len(test))
    evaluation = Evaluation.from_scores(test["label"], scores, classes=sample.labels, metadata=test)
    evaluation.save(tmp_path / "evaluation" / "predictions.csv")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("{}", encoding="utf-8")
    known = {
        "parameters": {},
        "split": {},
        "training": {},
        "metrics": {"predictions": record.digest(evaluation)},
    }
    (tmp_path / "model" / "run.json").write_text(json.dumps(known), encoding="utf-8")
    printed = run("code/02_modeling/03_features_and_classifier.ipynb", tmp_path)
    assert "a label has one training lesion only" in printed and "README.md" in printed  # it was saved


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_notebooks_are_executed_in_order_and_clean(name):
    path = ROOT / name
    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [
        o for cell in cells for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"
    ]
    tags = [tag for cell in cells for tag in cell.metadata.get("tags", [])]
    assert tags == ["parameters"]  # and none that papermill injected
    assert path.stat().st_size < 1_000_000
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text and "/home/" not in text and "/tmp/" not in text
    outputs = [o.get("text") or o.get("data", {}).get("text/plain", "") for c in cells for o in c.outputs]
    # wherever the repository lay when they were executed
    assert not re.findall(
        r"(?<![\w.…-])(?:/[\w.-]+)+/(?:outputs|code|docs|sample_data)\b", "\n".join(outputs)
    )
    titles = [line for cell in notebook.cells for line in cell.source.splitlines() if line.startswith("#")]
    assert titles[0].startswith("# ") and "## What next" in titles


def test_links_between_notebooks_and_documents_resolve():
    pages = [ROOT / name for name in NOTEBOOKS] + [
        page
        for pattern in ("*.md", "docs/*.md", "code/*/*.md", "sample_data/*.md")
        for page in ROOT.glob(pattern)
    ]
    broken = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".ipynb":
            text = "\n".join(
                cell["source"] for cell in nbformat.read(page, 4).cells if cell.cell_type == "markdown"
            )
        for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
            if not (page.parent / link).exists():
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken
