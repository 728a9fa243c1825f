"""The service under load, and what it writes down: against Azure's own inference server on this machine."""

import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import psutil
import pytest
import requests
from conftest import POSIX
from dicomfiles import PLANTED, dicom_file, encoded
from PIL import Image
from pydicom.uid import JPEG2000Lossless
from test_deployment import GOOD, SIZE, StandIn, b64, family, gone, image

from isicvision import ServiceClient, build_bundle, deploy_local
from isicvision.images import decode
from isicvision.service.client import ServiceError

SLOW = """
import time
_quick = predict

def predict(*arguments):
    time.sleep({seconds})
    return _quick(*arguments)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("service") / "bundle")


@pytest.fixture
def slow(bundle, tmp_path):
    """A function that deploys a service which takes so many seconds for an image."""
    services = []

    def deploy(seconds, **options):
        folder = shutil.copytree(bundle, tmp_path / f"bundle{len(services)}")
        with open(folder / "score.py", "a", encoding="utf-8") as script:
            script.write(SLOW.format(seconds=seconds))
        services.append(deploy_local(folder, **options))
        return services[-1]

    yield deploy
    for service in services:
        service.stop()


def post(uri):
    """Post one image without a second try; return the status, or None if no answer came."""
    try:
        headers = {"Content-Type": "image/jpeg"}
        return requests.post(uri, data=GOOD, headers=headers, timeout=30).status_code
    except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
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


@POSIX
def test_a_killed_worker_costs_the_requests_in_flight_and_no_more(slow):
    service = slow(0.02, workers=2)
    with ThreadPoolExecutor(8) as pool:
        statuses = [pool.submit(post, service.scoring_uri) for _ in range(200)]
        time.sleep(0.3)
        family(service)[1].kill()
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


@POSIX
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


# DICOM


def test_a_dicom_file_gets_the_answer_of_its_jpeg_and_leaves_no_trace_of_the_patient(bundle, tmp_path):
    jpeg = image(3, (640, 480))
    data, broken = dicom_file(jpeg, size=(640, 480)), dicom_file(jpeg[:900], size=(640, 480))
    path = tmp_path / "lesion.dcm"
    path.write_bytes(data)
    with deploy_local(bundle) as service:

        def post(body, kind):
            answer = requests.post(service.scoring_uri, body, headers={"Content-Type": kind}, timeout=20)
            return answer.status_code, answer.json(), answer.text

        one = service.score(jpeg)
        assert service.score(path) == service.score(data) == one and "label" in one
        for kind in ("application/dicom", "application/octet-stream", "image/dicom"):
            assert post(data, kind)[1]["predictions"] == [one]
        assert post(json.dumps([{"image_in_base64": b64(data)}]), "application/json")[1]["predictions"] == [
            one
        ]
        form = requests.post(service.scoring_uri, files={"file": ("lesion.dcm", data)}, timeout=20)
        assert form.json()["predictions"] == [one]
        status, answer, text = post(broken, "application/dicom")
        assert status == 422 and "damaged or cut short" in answer["message"]
        stack = post(dicom_file(jpeg, size=(640, 480), NumberOfFrames=9), "application/dicom")
        assert stack[0] == 422 and "a stack of images" in stack[1]["message"]
        said = [text, stack[2], form.text, service.logs(10**6)]
    assert PLANTED.encode() in data and not [each for each in said if PLANTED.lower() in each.lower()]


def test_the_client_sends_only_the_image_of_a_dicom_file(tmp_path):
    class Asked(ServiceClient):
        def _ask(self, body, *_):
            sent.append(body)
            return {"predictions": [{"label": "benign", "scores": {"benign": 1.0}}]}

    sent, client = [], Asked("http://127.0.0.1:1/score")
    jpeg = image(3, (640, 480))
    wavelets = encoded(Image.open(io.BytesIO(jpeg)), "JPEG2000", no_jp2=True)
    path = tmp_path / "wavelets.dcm"
    path.write_bytes(dicom_file(wavelets, JPEG2000Lossless, (640, 480), "YBR_RCT"))
    client.score(dicom_file(jpeg, size=(640, 480)))
    client.score(path)
    assert sent[0] == jpeg and (decode(sent[1]) == decode(jpeg)).all() and len(sent) == 2
    path.write_bytes(path.read_bytes()[:-500])
    assert client.score(path)["error"].startswith(f"{path}: it is a DICOM file without an image")
    assert len(sent) == 2 and not any(PLANTED.encode() in each for each in sent)


# what the service writes down


def lines(service, event="request"):
    found = [json.loads(line) for line in service.logs(10**6).splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def test_log_has_a_line_of_json_for_each_request_and_no_image(bundle):
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
    shown = service.requests(last=2)
    assert list(shown["status"]) == [405, 200] and shown["scores"].iloc[-1] == last["scores"]
    assert (first["request_id"], first["client_request_id"]) == ("one", 'two "')
    assert first["status"] == 200 and first["images"] == 1 and first["bytes"] == len(GOOD)
    assert first["scores"] == last["scores"] == [pytest.approx(score["scores"], abs=1e-4)]
    assert second["request_id"] == answer.headers["x-request-id"]
    assert (second["images"], second["refused"], len(second["scores"])) == (2, 1, 1)
    assert (third["status"], fourth["status"], fourth["method"]) == (400, 405, "GET")
    assert b64(GOOD)[:40] not in service.logs(10**6) and "Jane" not in service.logs(10**6)

    [metrics] = lines(service, "metrics")  # written at the end
    assert metrics["requests"] == 5 and metrics["statuses"] == {"200": 3, "400": 1, "405": 1}
    assert (metrics["images"], metrics["refused"]) == (4, 1)
    assert 0 < metrics["ms"]["p50"] <= metrics["ms"]["p95"] <= metrics["ms"]["p99"]


def test_log_tells_of_a_fault_and_sums_up_every_minute(bundle, tmp_path):
    faulty = shutil.copytree(bundle, tmp_path / "bundle")
    with open(faulty / "score.py", "a", encoding="utf-8") as script:
        script.write("\nrequestlog.INTERVAL = 0\n\ndef predict(images):\n    1 / 0\n")
    with deploy_local(faulty) as service:
        assert post(service.scoring_uri) == 500
        assert [line["status"] for line in lines(service)] == [500]
        assert [line["statuses"] for line in lines(service, "metrics")] == [{"500": 1}]


@POSIX
def test_log_takes_whole_lines_from_many_threads(bundle):
    with deploy_local(bundle, workers=2) as service:
        service.score_many([GOOD] * 200, connections=8)
    assert len(lines(service)) == sum(line["requests"] for line in lines(service, "metrics")) == 200


# the client


@pytest.fixture(scope="module")
def service(bundle):
    with deploy_local(bundle) as service:
        yield service


def test_client_resizes_before_it_sends_and_the_scores_stay(service):
    small = ServiceClient(service.scoring_uri, image_size=SIZE)
    files = [image(seed, (400, 300), quality=95) for seed in range(4)] + [image(5, (300, 500), "PNG")]
    assert small.score_many(files) == service.score_many(files)
    with mock.patch.object(ServiceClient, "_ask", return_value={"predictions": [{"scores": {}}]}) as ask:
        small.score(files[0])
        small.score(image(size=(20, 20)))  # is smaller as it is
    sent = [call.args[0] for call in ask.call_args_list]
    assert len(sent[0]) < len(files[0]) and sent[0].startswith(b"\x89PNG")
    assert sent[1] == image(size=(20, 20))
    assert small.score(b"This is no image.")["error"].startswith("the image: it is not an image")


def test_client_gives_labels_other_names(service):
    renamed = ServiceClient(service.scoring_uri, class_map={"malignant": "refer"})
    scores = service.score(GOOD)["scores"]
    answer = renamed.score(GOOD)
    assert answer["scores"] == {"benign": scores["benign"], "refer": scores["malignant"]}
    assert answer["label"] == max(answer["scores"], key=answer["scores"].get)
    with pytest.raises(ValueError, match="'melanoma'; the service's labels are benign, malignant"):
        ServiceClient(service.scoring_uri, class_map={"melanoma": "refer"}).score(GOOD)
    with pytest.raises(ValueError, match="one name"):
        ServiceClient(service.scoring_uri, class_map={"malignant": "benign"}).score(GOOD)


@pytest.fixture
def web():
    """A host of files on loopback: paths to bytes, or to a function that writes to the connection."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server.seen.append(self.headers)
            content = server.files.get(self.path)
            self.send_response(404 if content is None else 200)
            self.end_headers()
            try:
                content(self.wfile) if callable(content) else self.wfile.write(content or b"")
            except OSError:
                pass  # the client had enough

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.seen = {}, []
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_client_fetches_an_image_from_the_web(service, web):
    def drip(file):
        while True:
            file.write(b"\xff")
            time.sleep(0.05)

    web.files = {"/lesion.jpg": GOOD, "/huge": bytes(21 * 2**20), "/slow": drip}
    client = ServiceClient(service.scoring_uri, key="secret", timeout=2)
    assert client.score(f"{web.address}/lesion.jpg") == service.score(GOOD)
    assert "secret" not in str(web.seen[0])  # the key is for the service
    started = time.monotonic()
    answers = client.score_many([f"{web.address}/{name}" for name in ("huge", "slow", "absent")])
    for answer, word in zip(answers, ("more than 20,971,520 bytes", "too slow", "404"), strict=True):
        assert word in answer["error"] and web.address in answer["error"]
    assert time.monotonic() - started < 10
    for address in ("file:///etc/hostname", "ftp://127.0.0.1/lesion.jpg"):
        with pytest.raises(ValueError, match="http and https only"):
            client.score(address)


def test_client_says_where_the_time_goes(slow):
    service = slow(0.3)
    times = service.timing(GOOD)
    assert list(times) == ["prepare", "connect", "send", "wait", "read", "total", "service"]
    assert {*map(type, times.values())} == {float}
    assert 300 < times["service"] < times["wait"] < times["total"] < 10_000
    assert times["total"] == pytest.approx(sum([*times.values()][:5]))
    service.stop()
    with pytest.raises(ServiceError, match="no answer"):
        service.timing(GOOD)


def test_large_requests_leave_the_memory_as_it_was(service):
    master = psutil.Process(service._process.pid)

    def post(megabytes):
        headers = {"Content-Type": "image/jpeg"}
        return requests.post(service.scoring_uri, data=bytes(megabytes * 2**20), headers=headers).status_code

    def memory():
        return sum(each.memory_info().rss for each in master.children()) / 2**20

    with ThreadPoolExecutor(8) as pool:
        assert {*pool.map(post, [1] * 16)} == {422}
        before = memory()
        assert {*pool.map(post, [*range(4, 20)] * 3)} == {422}
    assert memory() - before < 100
