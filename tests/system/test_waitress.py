"""The service under waitress, which Azure's inference server takes on Windows: here on every platform."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from test_deployment import GOOD, TEXT, StandIn, family, gone
from test_service import SLOW, lines, post

from isicvision import build_bundle, deploy_local
from isicvision.service import local

pytest.importorskip("waitress")


@pytest.fixture(autouse=True)
def under_waitress(monkeypatch):
    monkeypatch.setattr(local, "_SERVER", "waitress")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("waitress") / "bundle")


def with_script(bundle, folder, code):
    """Copy a bundle and add code to its entry script."""
    with open(shutil.copytree(bundle, folder) / "score.py", "a", encoding="utf-8") as script:
        script.write(code)
    return folder


def test_two_services_score_refuse_and_stop(bundle):
    with deploy_local(bundle) as one, deploy_local(bundle) as other:
        assert one.scoring_uri != other.scoring_uri
        assert one.score(GOOD) == other.score(GOOD) and "label" in one.score(GOOD)
        assert "not an image" in one.score(TEXT)["error"]
        answer = requests.post(one.scoring_uri, TEXT, headers={"Content-Type": "image/jpeg"}, timeout=20)
        assert answer.status_code == 422
        processes = family(one) + family(other)
        if hasattr(psutil.Process, "net_connections"):  # from 6 on
            ports = [each for process in processes for each in process.net_connections("inet")]
            assert {each.laddr.ip for each in ports if each.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        large = requests.post(one.scoring_uri, bytes(21 * 2**20), headers={"Content-Type": "image/jpeg"})
        assert large.status_code == 413 and "larger than 20 MiB" in large.json()["message"]
    assert gone(processes) and "stopped" in repr(one)
    assert [line["status"] for line in lines(one)] == [200, 200, 422, 422, 413]
    assert [line["requests"] for line in lines(one, "metrics")] == [5]  # written at the end


def test_health_answers_while_it_scores_and_stop_waits_for_the_answer(bundle, tmp_path):
    service = deploy_local(with_script(bundle, tmp_path / "slow", SLOW.format(seconds=2)))
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(post, service.scoring_uri)
        time.sleep(0.5)
        assert requests.get(service.scoring_uri.removesuffix("score"), timeout=1).text == "Healthy"
        assert not status.done()
        service.stop()
        assert status.result() == 200
    assert post(service.scoring_uri) is None


def test_stop_waits_for_no_longer_than_five_seconds(bundle, tmp_path):
    service = deploy_local(with_script(bundle, tmp_path / "slow", SLOW.format(seconds=30)))
    with ThreadPoolExecutor(1) as pool:
        status = pool.submit(post, service.scoring_uri)
        time.sleep(0.5)
        started = time.monotonic()
        service.stop()
        assert status.result() is None and 4 < time.monotonic() - started < 9


NOTEBOOK = """
import sys, time
from isicvision import deploy_local
from isicvision.service import local

local._SERVER = "waitress"
service = deploy_local(sys.argv[1])
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("loading", [False, True])
def test_no_service_outlives_a_killed_notebook(bundle, tmp_path, loading):
    folder = with_script(bundle, tmp_path / "bundle", "\nimport time\ntime.sleep(60)\n" if loading else "")
    environment = os.environ | dict.fromkeys(
        ("TMPDIR", "TEMP"), str(tmp_path)
    )  # a killed process leaves its log
    command = [sys.executable, "-c", NOTEBOOK, folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as notebook:
        if loading:
            while not any(
                "Initializing" in path.read_text(encoding="utf-8")
                for path in tmp_path.glob("isicvision-*/log.txt")
            ):
                time.sleep(0.1)
        else:
            assert notebook.stdout.readline().strip() == b"ready"
        processes = psutil.Process(notebook.pid).children(recursive=True)
        assert processes
        notebook.kill()
    assert gone(processes)


def test_a_service_that_cannot_load_says_why(bundle, tmp_path):
    folder = with_script(bundle, tmp_path / "bundle", "\nraise OSError('the disk is gone')\n")
    with pytest.raises(RuntimeError, match=r"(?s)ended while it started.*the disk is gone"):
        deploy_local(folder)


def test_a_service_that_hangs_while_it_loads_is_ended(bundle, tmp_path):
    folder = with_script(bundle, tmp_path / "bundle", "\nimport time\ntime.sleep(60)\n")
    before = {*psutil.Process().children(recursive=True)}
    with pytest.raises(RuntimeError, match=r"was not ready within 3 s"):
        deploy_local(folder, timeout=3)
    assert not {*psutil.Process().children(recursive=True)} - before


def test_more_workers_than_it_has_give_a_warning(bundle):
    with pytest.warns(UserWarning, match="runs 1 worker, not 2"), deploy_local(bundle, workers=2) as service:
        assert "label" in service.score(GOOD)
