"""How often `drift` says that something has moved where nothing has: 1 % of its verdicts should (monitoring.SURE).

    python tests/bench/bench_drift.py      # some two minutes on two cores

Held-out images and requests are drawn from one distribution, drawn anew for each run: the
median score is 0.3 to 0.000001, scores and distances depend on each other. As `ImageClassifier.familiarize` and
`calibrate` do it, the limit and the quantiles come from the held-out images, and the log is written by requestlog.py.
``deciles`` is a model of an earlier version, with 11 quantiles of the distance and 21 of the scores, and a log of an
earlier service: rounded, and without the distances of what it refused.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from isicvision import PROJECT_ROOT, drift, familiarity
from isicvision.classifier import _quantiles

sys.path.insert(0, str(PROJECT_ROOT / "code" / "03_deployment"))
import requestlog

LABELS = ["benign", "malignant"]
HELD_OUT, REQUESTS = (100, 500, 1500), (200, 1000, 5000, 20_000)


def draw(random, count, about):
    """Draw scores and distances of as many images."""
    middle, spread, width, together = about
    common, own = random.normal(size=(2, count))
    odds = middle + spread * (together * common + np.sqrt(1 - together**2) * own)
    return 1 / (1 + np.exp(-odds)), np.exp(width * common)


def line(scores, distances):
    """Let the service log images that were scored or, beyond 1, refused."""
    predictions = [
        {"distance": distance}
        | ({"error": "unlike"} if distance > 1 else {"scores": {"benign": 1 - score, "malignant": score}})
        for score, distance in zip(scores.tolist(), distances.tolist(), strict=True)
    ]
    answer = {"predictions": predictions, "model": {"version": "v"}}
    response = SimpleNamespace(is_json=True, get_json=lambda silent: answer)
    return {"event": "request", "time": "2026-11-25", **requestlog._result(response)}


def older(line):
    """Return a line as services of earlier versions wrote it."""
    scores = [{label: round(score, 4) for label, score in each.items()} for each in line["scores"]]
    return line | {"scores": scores, "distance": [value for value in line["distance"] if value <= 1]}


def run(random, held_out, requests, folder):
    """Return the verdicts of one run, as it is and with deciles: dict."""
    about = random.uniform((-14, 1, 0.05, -1), (-1, 4, 0.5, 1))
    scores, distances = draw(random, held_out, about)
    rank = int(np.ceil((held_out + 1) * (1 - familiarity.REFUSED)))
    limit = np.sort(distances)[min(rank, held_out) - 1]
    known = scores[distances <= limit]  # the service scores no others
    about_distance = {
        "held_out": {"pictures": held_out, "refused": float((distances > limit).mean())},
        "distance_quantiles": _quantiles(distances / limit),
    }
    card = {"version": "v", "labels": LABELS, "scores_pictures": len(known), "familiarity": about_distance}
    card["scores"] = {"malignant": _quantiles(known)}
    scores, distances = draw(random, requests, about)
    log = line(scores, distances / limit)
    (folder / "model.json").write_text(json.dumps(card))
    found = drift([json.dumps(log)], folder)["verdict"].to_dict()
    card["scores"] = {"malignant": np.quantile(known, np.linspace(0, 1, 21)).round(5).tolist()}
    deciles = np.array(about_distance.pop("distance_quantiles"))[::10].round(4)
    about_distance["distance_deciles"] = deciles.tolist()
    (folder / "model.json").write_text(json.dumps(card))
    before = drift([json.dumps(older(log))], folder)["verdict"]
    return found | {f"{name}, deciles": verdict for name, verdict in before.items() if name != "refused"}


def main():
    """Simulate, and print the shares of alarms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--runs", type=int, default=1000, help="of each size; a tenth of it with most requests"
    )
    arguments = parser.parse_args()
    random, rows = np.random.default_rng(0), {}
    with tempfile.TemporaryDirectory() as folder:
        for held_out in HELD_OUT:
            for requests in REQUESTS:
                verdicts = [
                    run(random, held_out, requests, Path(folder))
                    for _ in range(min(arguments.runs, 4000 * arguments.runs // requests))
                ]
                table = pd.DataFrame(verdicts) != "steady"
                rows[held_out, requests] = pd.concat([table.mean() * 100, pd.Series({"runs": len(table)})])
                print(held_out, requests, rows[held_out, requests].round(2).to_dict(), flush=True)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["held out", "requests"])
    print("verdicts other than steady, %:")
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
