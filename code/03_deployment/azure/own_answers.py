"""What a bundle answers on this machine: `managed.py release` compares a deployment with it."""

import json
import os
import subprocess
from pathlib import Path

from isicvision.files import read_json

ASKED = 4  # images by which `release` compares
TOLERANCE = 1e-4  # of scores: another machine rounds otherwise
_SCORE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import score
score.init()
found = []
for path in sys.argv[3:]:
    with open(path, "rb") as file:
        found += [(path, each["scores"]) for each in score.predict([file.read()]) if "scores" in each]
    if len(found) == int(sys.argv[2]):
        break
print(json.dumps(found))
"""


def own_answers(bundle, images, python):
    """Return what the bundle's own score.py answers for a few images: the model's version, their bytes and scores."""
    version = read_json(Path(bundle, "model.json"))["version"]
    paths = sorted(path for path in Path(images).glob("*") if path.is_file())[:20]
    command = [str(python), "-c", _SCORE, str(Path(bundle).resolve()), str(ASKED), *map(str, paths)]
    environment = {name: value for name, value in os.environ.items() if name != "AZUREML_MODEL_DIR"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    except (OSError, subprocess.CalledProcessError) as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        hint = "give by --python one with its requirements.txt"
        raise SystemExit(f"{python} cannot run {bundle}: {hint} ({last})") from error
    scored = [(Path(path).read_bytes(), scores) for path, scores in json.loads(done.stdout)]
    if not scored:
        raise SystemExit(f"The bundle can score no image in {images}: give by --images another folder")
    return version, *zip(*scored, strict=True)


def require_same_answer(answer, version, expected):
    """ValueError unless `answer`, a service's text, has this model version and, within TOLERANCE, these scores.

    `expected` has for each image a dict of label to score.

    >>> require_same_answer('{"model": {"version": "3"}, "predictions": [{"scores": {"a": 1}}]}', "3", [{"a": 0.99999}])
    >>> require_same_answer('{"model": {"version": "3"}, "predictions": [{"scores": {"a": NaN}}]}', "3", [{"a": 1}])
    Traceback (most recent call last):
    ValueError: it answers {'a': nan}, the bundle {'a': 1}
    """
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    match document:
        case {"model": {"version": answering}, "predictions": [*predictions]}:
            pass
        case _:
            raise ValueError(f"it answers without predictions and the model's version: {answer[:200]}")
    if answering != version:
        raise ValueError(f"model {answering} answers, not {version}")
    if len(predictions) != len(expected):
        raise ValueError(f"it answers {len(predictions)} predictions for {len(expected)} images")
    for prediction, scores in zip(predictions, expected, strict=True):
        given = prediction
        if isinstance(prediction, dict):
            given = prediction.get("scores", prediction.get("error"))
        if not _agree(given, scores):
            raise ValueError(f"it answers {given}, the bundle {scores}")


def _agree(given, scores):
    return (
        isinstance(given, dict)
        and given.keys() == scores.keys()
        and all(type(each) in (float, int) for each in given.values())
        and all(abs(given[label] - scores[label]) <= TOLERANCE for label in scores)  # False of NaN
    )
