import json

import numpy as np
import pytest

from isicvision import drift

DAY = "2026-11-25"


@pytest.fixture
def bundle(tmp_path):
    """model.json, all that drift reads of a bundle, with what the function is called with in it."""

    def write(**more):
        card = {"labels": ["benign", "malignant"], "version": "abc", **more}
        (tmp_path / "model.json").write_text(json.dumps(card))
        return tmp_path

    return write


def log(scores, refused=0, distances=None, version="abc", day=DAY):
    """Return the lines of a log: words of the server's between them, as there are."""
    found = ["Starting gunicorn 27.0.1", '{"event": "metrics", "requests": 3}', "{broken"]
    for index, score in enumerate(scores):
        line = {
            **{"event": "request", "time": f"{day}T09:30:00.000+00:00", "model": version, "pictures": 1},
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
        assert row["verdict"] == verdict and row["pictures"] == 400 and row["p_value"] < 0.01
        assert row["now"] > row["reference"] == pytest.approx(1 / (1 + np.exp(1)), abs=0.03)
    assert drift(log(sample(0.5, 30)), folder)["verdict"].item() == "too few pictures"


def test_quantiles_serve_as_all_the_values_do(bundle):
    scores = sample(-1, 500)
    all_of_them = drift(log(sample(0, 300, 1)), bundle(), {"malignant": scores})
    deciles = drift(
        log(sample(0, 300, 1)), bundle(), {"malignant": np.quantile(scores, np.linspace(0, 1, 11))}
    )
    assert deciles["psi"].item() == pytest.approx(all_of_them["psi"].item(), rel=0.05)


def test_few_held_out_pictures_make_the_test_less_sure(bundle):
    quantiles = {"malignant": np.quantile(sample(-1, 500), np.linspace(0, 1, 21)).tolist()}
    seen = log(sample(-0.6, 100, 1))
    many, few = (
        drift(seen, bundle(scores=quantiles, scores_pictures=count))["p_value"].item() for count in (500, 30)
    )
    assert many < 0.01 < few


def test_psi_is_that_of_its_definition_and_ties_do_no_harm(bundle):
    half = drift(log([0.0] * 500 + [1.0] * 500), bundle(), {"malignant": [0.0] * 500 + [1.0] * 500})
    assert half["psi"].item() == pytest.approx(0, abs=0.01) and half["verdict"].item() == "steady"
    tenth = drift(log([0.0] * 900 + [1.0] * 100), bundle(), {"malignant": [0.0] * 500 + [1.0] * 500})
    assert tenth["psi"].item() == pytest.approx(0.4 * np.log(1.8) - 0.4 * np.log(0.2), rel=0.02)


def test_distances_and_refusals(bundle):
    familiarity = {
        "held_out": {"pictures": 300, "refused": 0.02},
        "distance_deciles": np.linspace(0.2, 1.1, 11).tolist(),
    }
    random = np.random.default_rng(0)
    scores = sample(-1, 200)
    near, far = random.uniform(0.2, 1.1, 200), random.uniform(0.7, 1.1, 200)
    table = drift(log(scores, refused=4, distances=near), bundle(familiarity=familiarity))
    assert table["verdict"].to_dict() == {"distance": "steady", "refused": "steady"}
    table = drift(log(scores, refused=80, distances=far), bundle(familiarity=familiarity))
    assert table["verdict"].to_dict() == {"distance": "moved far", "refused": "moved far"}
    assert table.loc["refused", "now"] == pytest.approx(80 / 280)
    familiarity["held_out"] = {"pictures": 32, "refused": 0.0}  # of so few none lies beyond
    table = drift(log(scores, refused=4, distances=near), bundle(familiarity=familiarity))
    assert table.loc["refused", "verdict"] == "steady"


def test_only_this_model_and_this_day_count(bundle, tmp_path):
    folder = bundle(scores={"malignant": sample(-1, 500).tolist()})
    file = tmp_path / "log.txt"
    other = log(sample(2, 300), version="old") + log(sample(2, 300), day="2026-11-24")
    file.write_text("\n".join(other + log(sample(-1, 200, 1))))
    table = drift(file, folder, day=DAY)
    assert table["pictures"].item() == 200 and table["verdict"].item() == "steady"
    with pytest.raises(ValueError, match="no scored request of model abc on 2026-12-01"):
        drift(str(file), folder, day="2026-12-01")


def test_says_what_is_missing(bundle, tmp_path):
    with pytest.raises(
        ValueError, match=r'holds neither scores nor distances.*reference=\{"malignant": scores\}'
    ):
        drift(log([0.5]), bundle())
    (tmp_path / "model.json").unlink()
    with pytest.raises(FileNotFoundError, match="no bundle"):
        drift(log([0.5]), tmp_path)
