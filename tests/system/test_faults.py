"""Workers of the service that are killed under load, as a client with retries sees it."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from test_deployment import StandIn, family, gone, image

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
def test_killed_workers_lose_no_image(service, at_once):
    """One worker of the two, then the other; or both, when nobody answers until there are new ones."""
    images = [image(seed) for seed in range(8)]
    expected = service.score_many(images)
    killed = []
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(service.score_many, images * 100, connections=8)
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
    assert service.score_many(images) == expected
