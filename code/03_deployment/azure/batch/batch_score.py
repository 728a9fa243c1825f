"""Entry script of a batch deployment: files of images in, a line of JSON an image out, as the web service answers.

Azure ML calls `init` once in every worker process and `run` for every mini-batch. The work is done by the score.py
of the bundle, so that a batch and the service agree.
"""

import importlib
import json
import os
import sys
from pathlib import Path

score = None  # the module, set by init


def init():
    """Load the bundle that Azure has mounted as the model."""
    global score
    mounted = os.environ["AZUREML_MODEL_DIR"]
    folders = [folder for folder, _, files in os.walk(mounted, followlinks=True) if "score.py" in files]
    if len(folders) != 1:
        raise RuntimeError(
            f"the model in {mounted} must be one bundle: score.py is in {', '.join(folders) or 'no folder'}"
        )
    sys.path.insert(0, folders[0])
    score = importlib.import_module("score")
    score.init()


def run(mini_batch):
    """Score the files of a mini-batch: list of str (JSON), in their order; Azure appends them to one file."""
    rows = []
    for start in range(0, len(mini_batch), score.CHUNK):
        paths = [Path(path) for path in mini_batch[start : start + score.CHUNK]]
        predictions = score.predict([path.read_bytes() for path in paths])
        rows += [
            json.dumps({"image": path.name, **prediction})
            for path, prediction in zip(paths, predictions, strict=True)
        ]
    return rows
