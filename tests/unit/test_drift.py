import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from isicvision import PROJECT_ROOT
from isicvision.model.outliers import quantiles

sys.path.insert(0, str(PROJECT_ROOT / "code/03_deployment"))
from drift import _kolmogorov_smirnov, drift

DAY = "2026-11-25"


@pytest.fixture
def bundle(tmp_path):
    """model.json, all that drift reads of a bundle, with what the function is called with in it."""

    def write(**more):
        metadata = {"labels": ["benign", "malignant"], "version": "abc", **more}
        (tmp_path / "model.json").write_text(json.dumps(metadata), encoding="utf-8")
        return tmp_path

    return write


def log(scores, refused=0, distances=None, version="abc"):
    """Return the lines of a log: words of the server's between them, as there are."""
    found = ["Starting gunicorn 27.0.1", '{"event": "metrics", "requests": 3}', "{broken"]
    for index, score in enumerate(scores):
        line = {
            **{"event": "request", "time": f"{DAY}T09:30:00.000+00:00", "model": version, "images": 1},
            **{"refused": 0, "scores": [{"benign": 1 - score, "malignant": score}]},
        }
        if distances is not None:
            line["distance"] = [distances[index]]
        found.append(f"2026-11-25 azure: {json.dumps(line)}" if index % 2 else json.dumps(line))
    return found + [json.dumps(line | {"scores": [], "distance": [], "refused": 1}) for _ in range(refused)]


def sample(mean, count, seed=0):
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(mean, 1, count)))


def test_the_same_is_steady_and_the_other_is_not(bundle):
    folder = bundle(scores={"malignant": sample(-1, 500).tolist()})
    verdicts = [drift(log(sample(-1, 200, seed)), folder)["verdict"].item() for seed in range(1, 41)]
    assert verdicts.count("steady") >= 38
    for mean, verdict in ((-0.55, "moved"), (0.5, "moved far")):
        [row] = drift(log(sample(mean, 400, 1)), folder).to_dict("records")
        assert row["verdict"] == verdict and row["images"] == 400 and row["p_value"] < 0.01
        assert row["now"] > row["reference"] == pytest.approx(1 / (1 + np.exp(1)), abs=0.03)
    assert drift(log(sample(0.5, 30)), folder)["verdict"].item() == "too few images"


def test_quantiles_serve_as_all_the_values_do(bundle):
    scores = sample(-1, 500)
    deciles = np.quantile(scores, np.linspace(0, 1, 11))
    all_of_them, deciles = (
        drift(log(sample(0, 300, 1)), bundle(scores={"malignant": values.tolist()}))
        for values in (scores, deciles)
    )
    assert deciles["psi"].item() == pytest.approx(all_of_them["psi"].item(), rel=0.05)


def test_few_held_out_images_make_the_test_less_sure(bundle):
    quantiles = {"malignant": np.quantile(sample(-1, 500), np.linspace(0, 1, 21)).tolist()}
    seen = log(sample(-0.6, 100, 1))
    many, few = (
        drift(seen, bundle(scores=quantiles, scores_images=count))["p_value"].item() for count in (500, 30)
    )
    assert many < 0.01 < few


def test_psi_is_that_of_its_definition_and_ties_do_no_harm(bundle):
    folder = bundle(scores={"malignant": [0.0] * 500 + [1.0] * 500})
    half = drift(log([0.0] * 500 + [1.0] * 500), folder)
    assert half["psi"].item() == pytest.approx(0, abs=0.01) and half["verdict"].item() == "steady"
    tenth = drift(log([0.0] * 900 + [1.0] * 100), folder)
    assert tenth["psi"].item() == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2), rel=0.02)


def test_distances_and_refusals(bundle):
    outliers = {
        "held_out": {"images": 300, "refused": 0.02},
        "distance_quantiles": np.linspace(0.2, 1.1, 11).tolist(),
    }
    random = np.random.default_rng(0)
    scores = sample(-1, 200)
    near, far = random.uniform(0.2, 1.1, 200), random.uniform(0.7, 1.1, 200)
    table = drift(log(scores, refused=4, distances=near), bundle(outliers=outliers))
    assert table["verdict"].to_dict() == {"distance": "steady", "refused": "steady"}
    table = drift(log(scores, refused=80, distances=far), bundle(outliers=outliers))
    assert table["verdict"].to_dict() == {"distance": "moved far", "refused": "moved far"}
    assert table.loc["refused", "now"] == pytest.approx(80 / 280)
    outliers["held_out"] = {"images": 32, "refused": 0.0}  # of so few none lies beyond
    table = drift(log(scores, refused=4, distances=near), bundle(outliers=outliers))
    assert table.loc["refused", "verdict"] == "steady"


def test_only_this_model_counts(bundle, tmp_path):
    folder = bundle(scores={"malignant": sample(-1, 500).tolist()})
    file = tmp_path / "log.txt"
    other = log(sample(2, 300), version="old")
    file.write_text("\n".join(other + log(sample(-1, 200, 1))), encoding="utf-8")
    table = drift(file, folder)
    assert table["images"].item() == 200 and table["verdict"].item() == "steady"
    later = drift(log(sample(3, 200)) + log(sample(-1, 80, 1)), folder, last=80)
    assert later["images"].item() == 80 and later["verdict"].item() == "steady"
    with pytest.raises(ValueError, match="no scored request of model abc"):
        drift(other, folder)
    file.write_text("\n".join(log(sample(-1, 200, 1))), encoding="utf-16")  # by > of PowerShell
    assert drift(file, folder)["images"].item() == 200
    for last in (0, -1, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match="last is a whole number of requests, 1 or more, not "):
            drift(file, folder, last=last)


def test_says_what_is_missing(bundle, tmp_path):
    with pytest.raises(ValueError, match="holds neither scores nor distances.*build the bundle again"):
        drift(log([0.5]), bundle())
    (tmp_path / "model.json").write_text('{"labels": ["a", "b"]}', encoding="utf-8")  # as a saved model's
    for _ in range(2):
        with pytest.raises(FileNotFoundError, match="is not a bundle: build_bundle"):
            drift(log([0.5]), tmp_path)
        (tmp_path / "model.json").unlink(missing_ok=True)


# where nothing has changed


def _requestlog():
    """The log of the service: its code lies outside of the package."""
    path = PROJECT_ROOT / "code" / "03_deployment" / "requestlog.py"
    spec = importlib.util.spec_from_file_location("requestlog_alone", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logged(predictions, version="abc"):
    """Return the line that the service writes about predictions."""
    answer = {"predictions": predictions, "model": {"version": version}}
    response = SimpleNamespace(is_json=True, get_json=lambda silent: answer)
    return json.dumps({"event": "request", "time": DAY, **_requestlog()._result(response)})


@pytest.mark.parametrize("old", [True, False], ids=["rounded", "as now"])
@pytest.mark.parametrize("middle", [-1, -6, -8, -12])
def test_the_very_same_images_are_steady_however_small_their_scores(bundle, middle, old):
    scores = 1 / (1 + np.exp(-np.random.default_rng(0).normal(middle, 3, 1000)))
    if old:  # the log had 4 digits, model.json 5
        kept = np.quantile(scores, np.linspace(0, 1, 21)).round(5).tolist()
        lines = log(scores.round(4).tolist())
    else:
        kept = quantiles(scores)
        lines = [logged([{"scores": {"benign": 1 - score, "malignant": score}} for score in scores.tolist()])]
    [row] = drift(lines, bundle(scores={"malignant": kept}, scores_images=1000)).to_dict("records")
    assert row["verdict"] == "steady" and row["p_value"] > 0.9


def test_small_scores_that_have_moved_are_found(bundle):
    before, now = (
        1 / (1 + np.exp(-np.random.default_rng(seed).normal(middle, 1, 1000))).astype(float)
        for seed, middle in ((0, -14), (1, -13))
    )
    lines = [logged([{"scores": {"benign": 1 - score, "malignant": score}} for score in now.tolist()])]
    folder = bundle(scores={"malignant": quantiles(before)}, scores_images=1000)
    assert drift(lines, folder)["verdict"].item() == "moved far"


@pytest.mark.parametrize("held_out", [100, 500, 1500])
def test_as_few_rows_are_called_moved_as_promised(bundle, held_out):
    """5,000 requests from where the held-out images came from: of 60 rows two or fewer, in 99.7 % of such tests."""
    random, alarms = np.random.default_rng(held_out), []
    for _ in range(60):
        distances = np.exp(random.normal(0, 0.2, held_out))
        limit = np.sort(distances)[min(int(np.ceil((held_out + 1) * 0.97)), held_out) - 1]
        about = {"held_out": {"images": held_out, "refused": float((distances > limit).mean())}}
        about["distance_quantiles"] = quantiles(distances / limit)
        now = np.exp(random.normal(0, 0.2, 5000)) / limit
        line = {"event": "request", "time": DAY, "model": "abc", "images": 5000, "scores": []}
        line |= {"refused": int((now > 1).sum()), "distance": now.tolist()}
        alarms.append(drift([json.dumps(line)], bundle(outliers=about))["verdict"] != "steady")
    assert (np.sum(alarms, axis=0) <= 3).all()


def test_refused_images_are_compared_count_with_count(bundle):
    def verdict(before, refused_before, now, refused):
        held_out = {"images": before, "refused": refused_before / before}
        folder = bundle(scores={"malignant": [0, 0.5, 1]}, outliers={"held_out": held_out})
        return drift(log(sample(0, now - refused), refused), folder).loc["refused"]

    for none in ((100, 0, 1000, 0), (500, 5, 5000, 20), (100, 2, 1000, 60)):
        assert verdict(*none)["verdict"] == "steady", none
    assert verdict(500, 15, 1000, 60)["verdict"] == "moved"
    assert verdict(500, 15, 1000, 100)["verdict"] == "moved far"
    assert verdict(500, 50, 1000, 20)["verdict"] == "moved"  # far fewer
    row = verdict(200, 6, 300, 20)
    one_sided = stats.fisher_exact([[20, 280], [6, 194]], "greater").pvalue
    assert one_sided < row["p_value"] < 2 * one_sided


@given(st.integers(60, 400), st.integers(1, 6), st.integers(0, 2**32))
def test_with_all_values_known_the_test_is_that_of_scipy(count, digits, seed):
    random = np.random.default_rng(seed)
    before, now = random.random(count).round(digits), random.beta(1.2, 1, 300).round(digits)  # with ties
    found = _kolmogorov_smirnov(np.sort(now), np.sort(before), count)
    assert found == pytest.approx(stats.ks_2samp(now, before, method="asymp").pvalue, abs=1e-9)


def test_the_log_has_the_distance_of_what_was_refused_and_small_scores_whole():
    predictions = [
        {
            "label": "benign",
            "scores": {"benign": 0.99998765432, "malignant": 0.0000123456789},
            "distance": 0.5,
        },
        {"error": "unlike", "distance": 1.23456789},
        {"error": "blank"},
    ]
    line = json.loads(logged(predictions))
    assert line["distance"] == [0.5, 1.23457, None] and line["refused"] == 2
    assert line["scores"] == [{"benign": 0.999988, "malignant": 0.0000123457}]


def test_a_label_may_be_called_distance(bundle):
    scores, distances = sample(-1, 300), np.linspace(0.2, 1.1, 101).tolist()
    about = {"held_out": {"images": 300, "refused": 0.03}, "distance_quantiles": distances}
    folder = bundle(labels=["benign", "distance"], scores={"distance": quantiles(scores)}, outliers=about)
    lines = [
        line.replace('"malignant"', '"distance"') for line in log(sample(-1, 100, 1), distances=[0.6] * 100)
    ]
    table = drift(lines, folder)
    assert table["verdict"].to_dict() == {
        "score of distance": "steady",
        "distance": "moved far",
        "refused": "steady",
    }


def test_damaged_lines_and_scores_are_passed_over(bundle):
    scores = np.linspace(0, 1, 60)
    folder = bundle(scores={"malignant": scores.tolist()})
    lines = log(scores)
    whole = {"event": "request", "model": "abc", "time": f"{DAY}T10", "images": 1, "refused": 0}
    damaged = [{"scores": None}, {"time": None, "scores": []}, {"scores": [None]}, {"scores": [{"x": 1}]}]
    damaged += [{"scores": [{"malignant": value}]} for value in (float("nan"), None, "0.5")]
    damaged += [{"images": None, "scores": []}]
    lines += [json.dumps(whole | each) for each in damaged]
    found = drift(lines, folder)
    assert found.loc["score of malignant", "images"] == 60
    assert found.equals(drift(log(scores), folder))


def test_nothing_to_compare_is_said(bundle):
    with pytest.raises(ValueError, match="neither scores nor distances"):
        drift(log([0.5]), bundle(scores={"malignant": []}, outliers={"distance_quantiles": []}))
    empty = json.dumps(json.loads(log([0.5])[3]) | {"images": 0, "scores": []})
    held_out = {"images": 50, "refused": 1}
    folder = bundle(
        scores={"malignant": [0, 1]}, outliers={"distance_quantiles": [0, 1], "held_out": held_out}
    )
    assert set(drift([empty], folder)["verdict"]) == {"too few images"}


def test_a_scheduler_learns_from_the_status_that_something_moved(bundle, tmp_path):
    folder = bundle(scores={"malignant": sample(0, 1000).tolist()}, scores_images=1000)
    file = tmp_path / "log.txt"
    script = [sys.executable, PROJECT_ROOT / "code/03_deployment/drift.py", file]
    for mean, status, word in ((0, 0, "steady"), (2, 1, "moved far")):
        file.write_text("\n".join(log(sample(mean, 400, 1))), encoding="utf-8")
        done = subprocess.run([*script, folder], capture_output=True, text=True)
        assert (done.returncode, word in done.stdout) == (status, True), done
    done = subprocess.run([*script, tmp_path / "absent"], capture_output=True, text=True)
    assert done.returncode == 2 and "absent" in done.stderr and "Traceback" not in done.stderr
