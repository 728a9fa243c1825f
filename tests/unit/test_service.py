"""The service under load, and what it writes down: against Azure's own inference server on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
from test_deployment import GOOD, StandIn, b64, family, gone

from isicvision import build_bundle, deploy_local

SLOW = """
import time
_quick = _predict

def _predict(pictures):
    time.sleep({seconds})
    return _quick(pictures)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("service") / "bundle")


@pytest.fixture
def slow(bundle, tmp_path):
    """A function that deploys a service which takes so many seconds for a picture."""
    services = []

    def deploy(seconds, **options):
        folder = shutil.copytree(bundle, tmp_path / f"bundle{len(services)}")
        with open(folder / "score.py", "a") as script:
            script.write(SLOW.format(seconds=seconds))
        services.append(deploy_local(folder, **options))
        return services[-1]

    yield deploy
    for service in services:
        service.stop()


def post(uri):
    """Post one picture without a second try; return the status, or None if no answer came."""
    try:
        headers = {"Content-Type": "image/jpeg"}
        return requests.post(uri, data=GOOD, headers=headers, timeout=30).status_code
    except requests.ConnectionError:
        return None


# load


def test_health_answers_while_the_service_scores(slow):
    service = slow(3)
    busy = threading.Thread(target=post, args=[service.scoring_uri])
    busy.start()
    time.sleep(0.5)
    assert requests.get(service.scoring_uri.removesuffix("score"), timeout=1.5).text == "Healthy"
    assert busy.is_alive()
    busy.join()


def test_a_killed_worker_costs_the_requests_in_flight_and_no_more(slow):
    service = slow(0.02, workers=2)
    with ThreadPoolExecutor(8) as pool:
        statuses = [pool.submit(post, service.scoring_uri) for _ in range(200)]
        time.sleep(0.3)
        os.kill(family(service)[1].pid, signal.SIGKILL)
        statuses = [each.result() for each in statuses]
    assert statuses.count(None) <= 8 and statuses.count(200) == 200 - statuses.count(None)

    # a client that tries again sees nothing of it
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(service.score_many, [GOOD] * 200, connections=8)
        time.sleep(0.5)
        assert not answers.done()
        worker = family(service)[1]
        worker.kill()
        assert all("label" in answer for answer in answers.result(60))
    assert gone([worker]) and len(family(service)) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_in_flight_finish_after_sigterm(slow, workers):
    service = slow(1.5, workers=workers)
    processes = family(service)
    with ThreadPoolExecutor(6) as pool:
        statuses = [pool.submit(post, service.scoring_uri) for _ in range(6)]
        time.sleep(0.7)
        started = time.monotonic()
        os.kill(processes[0].pid, signal.SIGTERM)
        assert [each.result() for each in statuses] == [200] * 6
    assert gone(processes) and time.monotonic() - started < 8
    assert post(service.scoring_uri) is None


def test_no_service_outlives_a_script_that_fails(bundle):
    code = (
        "import sys; from isicvision import deploy_local\n"
        "service = deploy_local(sys.argv[1]); print(service._process.pid, flush=True); 1 / 0"
    )
    script = subprocess.run([sys.executable, "-c", code, bundle], capture_output=True, text=True, timeout=60)
    assert "ZeroDivisionError" in script.stderr
    assert not psutil.pid_exists(int(script.stdout))


def test_deploy_local_refuses_no_workers(bundle):
    with pytest.raises(ValueError, match="not 1 and 0"):
        deploy_local(bundle, threads=0)


# what the service writes down


def lines(service, event="request"):
    found = [json.loads(line) for line in service.logs(10**6).splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def test_log_has_a_line_of_json_for_each_request_and_no_picture(bundle):
    with deploy_local(bundle) as service:
        ids = {"x-request-id": "one", "x-ms-client-request-id": 'two "'}
        requests.post(
            service.scoring_uri, data=GOOD, headers={"Content-Type": "image/jpeg", **ids}, timeout=20
        )
        answer = requests.post(service.scoring_uri, json=["AAAA", b64(GOOD)], timeout=20)
        requests.post(service.scoring_uri, json={"patient": "Jane Doe"}, timeout=20)
        requests.get(service.scoring_uri, timeout=20)
        score = service.score(GOOD)
    first, second, third, fourth, last = lines(service)
    assert (first["request_id"], first["client_request_id"]) == ("one", 'two "')
    assert first["status"] == 200 and first["pictures"] == 1 and first["bytes"] == len(GOOD)
    assert first["scores"] == last["scores"] == [pytest.approx(score["scores"], abs=1e-4)]
    assert second["request_id"] == answer.headers["x-request-id"]
    assert (second["pictures"], second["refused"], len(second["scores"])) == (2, 1, 1)
    assert (third["status"], fourth["status"], fourth["method"]) == (400, 405, "GET")
    assert b64(GOOD)[:40] not in service.logs(10**6) and "Jane" not in service.logs(10**6)

    [metrics] = lines(service, "metrics")  # written at the end
    assert metrics["requests"] == 5 and metrics["statuses"] == {"200": 3, "400": 1, "405": 1}
    assert (metrics["pictures"], metrics["refused"]) == (4, 1)
    assert 0 < metrics["ms"]["p50"] <= metrics["ms"]["p95"] <= metrics["ms"]["p99"]


def test_log_tells_of_a_fault_and_sums_up_every_minute(bundle, tmp_path):
    faulty = shutil.copytree(bundle, tmp_path / "bundle")
    with open(faulty / "score.py", "a") as script:
        script.write("\nrequestlog.INTERVAL = 0\n\ndef _predict(pictures):\n    1 / 0\n")
    with deploy_local(faulty) as service:
        assert post(service.scoring_uri) == 500
        assert [line["status"] for line in lines(service)] == [500]
        assert [line["statuses"] for line in lines(service, "metrics")] == [{"500": 1}]


def test_log_takes_whole_lines_from_many_threads(bundle):
    with deploy_local(bundle, workers=2) as service:
        service.score_many([GOOD] * 200, connections=8)
    assert len(lines(service)) == sum(line["requests"] for line in lines(service, "metrics")) == 200
