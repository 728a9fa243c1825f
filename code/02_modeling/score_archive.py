"""Scores, or features, of a whole archive of images as Parquet files, by several workers of Ray Data.

    python code/02_modeling/score_archive.py --workers 2
    python code/02_modeling/score_archive.py --workers 2 --features --to outputs/features

It reads outputs/model and the paths in outputs/dataset.csv, and writes outputs/scores: one row an image with its path,
a column a label (or `features`), and `error`, which says why an image could not be read. `pandas.read_parquet` reads
the folder as one table; the rows are in no particular order. Memory stays flat: a worker holds a few images at a
time and keeps none. A worker that dies is replaced, and what it had in hand is done again; a run that was stopped goes
on by the same command, from what is in the folder.

Scores of images that the model was trained on flatter it: --table outputs/split/test.csv has none of them.

Each worker is one processor core. With RAY_ADDRESS the workers are on the Ray cluster there, whose machines must see
the images and the folders under the same paths; without it Ray starts on this machine, for this run.

Needs the extra `ray`: pip install -c constraints.txt -e ".[ray]"
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else it reports to its maker
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # so does this; Ray's workers inherit both

import numpy as np
import onnx

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
    import ray
    from ray.data import ActorPoolStrategy
except ImportError as error:
    MISSING = str(error)
else:
    MISSING = None

from isicvision import ImageClassifier, ImageDataset
from isicvision.images import ImageError, decode
from isicvision.model import network
from isicvision.model import onnx as export
from isicvision.text import counted, listed
from notebook_parameters import unwritable
from pipeline import absolute, print_any_letter
from steps import plain_errors

ROWS = 512  # at most, of a block: the part of the table that is written, or done again, as a whole
BATCH = 32  # images in a worker's memory


class Worker:
    """What each process of Ray makes once, and then gives batches to.

    Parameters
    ----------
    graph : str
        ONNX file: uint8 images in, one array out.
    size, interpolation
        As for `images.decode`.
    columns : list of str or None
        Of the array's columns; None: it stays one column, ``features``.
    """

    def __init__(self, graph, size, interpolation, columns):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        self.size, self.interpolation, self.columns = size, interpolation, columns

    def __call__(self, table):
        """Map a table with the column ``path`` to one with the results: pyarrow.Table."""
        arrays, errors = [], []
        for path in table["path"].to_pylist():
            try:
                arrays.append(decode(path, self.size, self.interpolation))
                errors.append(None)
            except ImageError as error:
                errors.append(str(error))
        sound = np.array([error is None for error in errors])
        given = np.stack(arrays or [np.zeros((self.size, self.size, 3), np.uint8)])
        (found,) = self.session.run([self.session.get_outputs()[0].name], {"images": given})
        values = np.zeros((len(table), found.shape[1]), np.float32)
        values[sound] = found[: sound.sum()]
        if self.columns is None:
            flat = pa.array(values.ravel())
            results = {
                "features": pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=pa.array(~sound))
            }
        else:
            results = {
                name: pa.array(column, mask=~sound)
                for name, column in zip(self.columns, values.T, strict=True)
            }
        return pa.table({"path": table["path"], **results, "error": pa.array(errors, pa.string())})


def write_graph(model, folder, features):
    """Write what the workers run into `folder`, once, and return the file: pathlib.Path.

    A folder holds the results of one model: with those of another the script ends.
    """
    folder = folder / "_model"  # readers of Parquet pass over names with an underscore
    graph, metadata = folder / ("features.onnx" if features else "scores.onnx"), folder / "model.json"
    if metadata.exists():
        if json.loads(metadata.read_text(encoding="utf-8")) != model.metadata or not graph.exists():
            sys.exit(f"{folder.parent} holds results of another kind or model: choose another folder")
        return graph
    folder.mkdir(parents=True, exist_ok=True)
    if features:
        module = network.Features(model.network)
        onnx.save(export.network_graph(module, model.image_size, ["features"]), graph)
    else:
        model.to_onnx(graph)
    metadata.write_text(json.dumps(model.metadata), encoding="utf-8")
    return graph


def done(folder):
    """Return the paths of the images that earlier runs wrote to `folder`: set of str.

    A file that such a run left half written is deleted.
    """
    paths = set()
    for file in folder.glob("*.parquet"):
        try:
            paths |= set(pq.read_table(file, columns=["path"])["path"].to_pylist())
        except pa.ArrowInvalid:
            file.unlink()
    return paths


def summary(folder):
    """Return how many images `folder` has results of, and the errors of the others: int, list of str."""
    tables = [pq.read_table(file, columns=["error"]) for file in sorted(folder.glob("*.parquet"))]
    errors = [error for table in tables for error in table["error"].to_pylist()]
    broken = [error for error in errors if error is not None]
    return len(errors) - len(broken), broken


def score(model, table, folder, workers, features=False):
    """Write the scores or features of all images of a saved ImageDataset to `folder`."""
    folder = Path(folder).resolve()
    model = ImageClassifier.load(model)
    graph = write_graph(model, folder, features)
    known = done(folder)
    paths = [
        path
        for path in dict.fromkeys(map(os.path.abspath, ImageDataset.load(table).paths))
        if path not in known
    ]
    print(f"{counted(len(known), 'image')} done, {len(paths)} to do", flush=True)
    if not paths:
        return
    rows = min(ROWS, math.ceil(len(paths) / workers / 4))  # so many that the workers end together
    blocks = [pa.table({"path": paths[start : start + rows]}) for start in range(0, len(paths), rows)]
    columns = None if features else model.labels
    # the core more is for writing; none more is busy
    cores = None if os.environ.get("RAY_ADDRESS") else workers + 1
    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False)
    started = time.perf_counter()
    try:
        ray.data.from_arrow(blocks).map_batches(
            Worker,
            fn_constructor_args=(str(graph), model.image_size, model.backbone.interpolation, columns),
            batch_format="pyarrow",
            batch_size=BATCH,
            # else the worker that is there first takes four blocks, and the others wait in vain
            compute=ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        ).write_parquet(str(folder))
        print(f"{counted(len(paths), 'image')} in {time.perf_counter() - started:.1f} s", flush=True)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    print_any_letter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", type=absolute, default="outputs/model", help="folder of a saved ImageClassifier"
    )
    parser.add_argument(
        "--table", type=absolute, default="outputs/dataset.csv", help="written by ImageDataset.save"
    )
    parser.add_argument("--to", type=absolute, default="outputs/scores", help="folder of the results")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="default: one a core")
    parser.add_argument("--features", action="store_true", help="instead of scores")
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers is 1 or more, not {arguments.workers}")
    if MISSING:
        parser.error(f'{MISSING}. Run pip install -c constraints.txt -e ".[ray]"')
    if reason := unwritable(arguments.to):
        parser.error(f"--to: {reason}")
    with plain_errors():
        score(arguments.model, arguments.table, arguments.to, arguments.workers, arguments.features)
    count, broken = summary(arguments.to)
    print(f"{counted(count, 'image')} in {arguments.to}, {len(broken)} could not be read{listed(broken)}")
