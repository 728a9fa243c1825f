"""A whole archive scored by Ray Data; skipped where the extra `ray` is not installed."""

import dataclasses
import json
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest

from isicvision import PROJECT_ROOT, ImageClassifier, ImageDataset

pytest.importorskip("ray", reason='the extra "ray" is not installed: pip install -e ".[ray]"')
pytestmark = pytest.mark.xdist_group("ray")  # each run has three processes of its own

SCRIPT = PROJECT_ROOT / "code" / "02_modeling" / "score_archive.py"
SAMPLE = PROJECT_ROOT / "sample_data"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A saved model, and a table of the sample's images of which two are broken."""
    folder = tmp_path_factory.mktemp("archive")
    dataset = ImageDataset.from_csv(
        SAMPLE / "metadata.csv", images=SAMPLE / "images", label_column="diagnosis_1"
    )
    model = ImageClassifier("efficientnet_lite0", dataset.labels, image_size=96, views=2)
    model.save(folder / "model")
    broken = folder / "broken.jpg"
    broken.write_bytes(b"no image")
    rows = pd.DataFrame({"path": [str(broken), str(folder / "absent.jpg")], "label": "x", "group": "y"})
    table = pd.concat([dataset.table, rows], ignore_index=True)
    return model, dataset.paths, dataclasses.replace(dataset, table=table).save(folder / "dataset.csv")


def command(archive, to, *more):
    _, _, table = archive
    return [sys.executable, SCRIPT, "--model", table.parent / "model", "--table", table, "--to", to, *more]


def run(*given):
    for _ in range(3):  # Ray gives up where its own processes take more than 15 seconds to start (ray#65983)
        done = subprocess.run(command(*given), capture_output=True, text=True, timeout=600)
        if "timed out during startup" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def written(folder, paths):
    """Return what is in the folder of each path, in their order; each stands there once."""
    table = pd.read_parquet(folder)
    assert table["path"].is_unique
    return table.set_index("path").loc[list(map(str, paths))]


def test_two_workers_score_what_one_process_scores_and_broken_images_are_reported(archive, tmp_path):
    model, paths, _ = archive
    said = run(archive, tmp_path / "scores", "--workers", "2")
    scores = written(tmp_path / "scores", paths)
    assert np.abs(scores[model.labels].to_numpy() - model.predict_proba(paths)).max() < 1e-5
    assert scores["error"].isna().all()

    broken = pd.read_parquet(tmp_path / "scores").dropna(subset=["error"]).set_index("path")
    assert len(broken) == 2 and broken[model.labels].isna().all(axis=None)
    assert f"{len(paths)} images" in said and "2 could not be read" in said
    assert "absent.jpg: it cannot be read (No such file" in said and "broken.jpg: it is not an image" in said

    # again: nothing to do; half of a file, as a kill leaves it: the images in it, and no others
    assert f"{len(paths) + 2} images done, 0 to do" in run(archive, tmp_path / "scores")
    file = next((tmp_path / "scores").glob("*.parquet"))
    inside = len(pd.read_parquet(file))
    file.write_bytes(file.read_bytes()[:-100])
    assert f"done, {inside} to do" in run(archive, tmp_path / "scores", "--workers", "1")
    assert written(tmp_path / "scores", paths)[model.labels].equals(scores[model.labels])


def test_features(archive, tmp_path):
    model, paths, _ = archive
    run(archive, tmp_path / "features", "--workers", "2", "--features")
    features = np.stack(written(tmp_path / "features", paths)["features"])
    assert np.abs(features - model.featurize(paths)).max() < 1e-4
    # a folder holds results of one kind, of one model
    for folder, more in ((tmp_path / "features", []), (tmp_path / "features", ["--features"])):
        card = folder / "_model" / "model.json"
        if more:
            card.write_text(json.dumps({"labels": ["another"]}), encoding="utf-8")
        done = subprocess.run(command(archive, folder, *more), capture_output=True, text=True)
        assert done.returncode == 1 and "choose another folder" in done.stderr


def test_a_worker_that_is_killed_midway_loses_nothing(archive, tmp_path):
    model, paths, table = archive
    rows = []
    for number in range(4000):  # links: images enough to be in the middle of
        link = tmp_path / "links" / f"{number}.jpg"
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(paths[number % len(paths)])
        rows.append({"path": str(link), "label": "x", "group": "y"})
    many = dataclasses.replace(ImageDataset.load(table), table=pd.DataFrame(rows))
    given = command(archive, tmp_path / "scores", "--workers", "2")
    given[given.index("--table") + 1] = many.save(tmp_path / "many.csv")
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    for _ in range(3):  # as above
        with subprocess.Popen(given, **options) as process:
            try:
                killed = kill_a_worker(process, tmp_path / "scores")
                said, errors = process.communicate(timeout=600)
            except BaseException:
                for each in [*psutil.Process(process.pid).children(recursive=True), process]:
                    each.kill()
                raise
        if "timed out during startup" not in errors:
            break
    assert process.returncode == 0, errors[-3000:]
    assert killed and "4000 images in" in said
    scores = written(tmp_path / "scores", many.paths)
    expected = model.predict_proba(paths)[np.arange(4000) % len(paths)]
    assert len(pd.read_parquet(tmp_path / "scores")) == 4000
    assert np.abs(scores[model.labels].to_numpy() - expected).max() < 1e-5


def kill_a_worker(driver, folder):
    """Kill a process that scores once the first file is written; return its pid, or None if the run ended before."""
    while driver.poll() is None:
        if any(folder.glob("*.parquet")):
            for each in psutil.Process(driver.pid).children(recursive=True):
                if "MapWorker" in " ".join(each.cmdline()):
                    each.kill()
                    return each.pid
        time.sleep(0.05)
