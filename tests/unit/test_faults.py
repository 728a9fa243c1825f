"""Processes of the service that end under load: killed, or asked to. It is the service as built, not a slowed one."""

import http.client
import io
import itertools
import os
import select
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image
from test_deployment import GOOD, StandIn, family, gone, picture

from isicvision import build_bundle, deploy_local


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("faults") / "bundle")


@pytest.fixture
def service(bundle):
    with deploy_local(bundle, workers=2) as service:
        yield service


def workers(service, count=2, within=10):
    """Wait for so many workers that are alive; return them."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        alive = [each for each in family(service)[1:] if each.status() != psutil.STATUS_ZOMBIE]
        if len(alive) == count:
            return alive
        time.sleep(0.02)
    raise AssertionError(f"{len(alive)} workers, not {count}:\n{service.logs()}")


@pytest.mark.parametrize("at_once", [1, 2])
def test_killed_workers_lose_no_picture(service, at_once):
    """One worker of the two, then the other; or both, when nobody answers until there are new ones."""
    pictures = [picture(seed) for seed in range(8)]
    expected = service.score_many(pictures)
    killed = []
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(service.score_many, pictures * 100, connections=8)
        for _ in range(2):
            time.sleep(0.2)
            assert not answers.done()
            victims = workers(service)[:at_once]
            for each in victims:
                os.kill(each.pid, signal.SIGKILL)
            killed += victims
            assert gone(victims)
        assert answers.result(60) == expected * 100
    assert not {each.pid for each in workers(service)} & {each.pid for each in killed}
    assert service.score_many(pictures) == expected


def test_requests_that_were_sent_are_answered_after_sigterm(service):
    """More of them than threads, and some on connections that had a request before."""
    cells = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    buffer = io.BytesIO()  # few bytes, which are sent at once, and some time to decode
    Image.fromarray(cells).resize((1400, 1050), Image.NEAREST).save(buffer, "PNG")
    headers, address = {"Content-Type": "image/png"}, urlsplit(service.scoring_uri).netloc
    connections = [http.client.HTTPConnection(address, timeout=30) for _ in range(20)]
    for connection in connections[:4]:
        connection.request("POST", "/score", GOOD, headers)
        assert connection.getresponse().read()
    processes = family(service)
    for connection in connections:
        connection.request("POST", "/score", buffer.getvalue(), headers)
    time.sleep(0.1)  # they are sent, not yet all taken
    waiting, _, _ = select.select([each.sock for each in connections], [], [], 0)
    if len(waiting) > 15:
        pytest.skip("this machine has answered them already")
    os.kill(service._process.pid, signal.SIGTERM)
    with ThreadPoolExecutor(20) as pool:
        responses = pool.map(http.client.HTTPConnection.getresponse, connections)
        answers = [(response.status, response.read()) for response in responses]
    assert [status for status, _ in answers] == [200] * 20
    assert all(a == b for a, b in itertools.pairwise(answers))
    assert gone(processes)
