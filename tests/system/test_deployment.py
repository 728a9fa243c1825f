"""The service's contract, against Azure's own inference server on this machine."""

import base64
import fnmatch
import http.server
import importlib.util
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path
from unittest import mock

import numpy as np
import onnx
import psutil
import pytest
import requests
from conftest import POSIX
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from isicvision import ServiceClient, build_bundle, deploy_local, images
from isicvision.images import decode
from isicvision.service.client import ServiceError

SIZE = 32


class StandIn:
    """A classifier as far as build_bundle sees it: the mean colors of the rows decide."""

    labels = ("benign", "malignant")
    image_size = SIZE
    metadata = {
        "backbone": "stand_in",
        "training": {"epochs": 1},
        "caveat": "A teaching sample, not a diagnostic device.",
    }

    def __init__(self, seed=0, size=SIZE):
        self.seed, self.image_size = seed, size

    def to_onnx(self, path, _=None):
        weight = np.random.default_rng(self.seed).normal(size=(3 * SIZE, 2)).astype(np.float32) / 400
        constants = {"weight": weight, "axes": np.array([2])}
        graph = helper.make_graph(
            [
                helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
                helper.make_node("ReduceMean", ["floats", "axes"], ["means"], keepdims=0),
                helper.make_node("Flatten", ["means"], ["rows"]),
                helper.make_node("MatMul", ["rows", "weight"], ["logits"]),
                helper.make_node("Softmax", ["logits"], ["scores"], axis=1),
            ],
            "stand-in",
            [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE, 3])],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
            [numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        onnx.save(model, path)


def image(seed=0, size=(60, 45), kind="JPEG", **options):
    """Smooth random colors, as the bytes of a file."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize(size, Image.BICUBIC).save(buffer, kind, **options)
    return buffer.getvalue()


def b64(data):
    return base64.b64encode(data).decode()


GOOD = image()
TEXT = b"This is no image but a note about one. " * 20
TRUNCATED = image(size=(400, 300))[:1500]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return build_bundle(StandIn(), tmp_path_factory.mktemp("deployment") / "bundle")


@pytest.fixture(scope="module")
def service(bundle):
    with deploy_local(bundle) as service:
        yield service


@pytest.fixture(scope="module")
def expected(bundle):
    """Scores by ONNX Runtime alone, on what decode makes of a file's bytes."""
    from onnxruntime import InferenceSession

    session = InferenceSession(bundle / "model.onnx")
    return lambda data: session.run(None, {"images": decode(data, SIZE)[None]})[0][0]


def load_score(bundle):
    """Import the entry script of a bundle as the server does, and leave no trace of it."""
    path, modules = list(sys.path), sys.modules.pop("images", None)
    try:
        spec = importlib.util.spec_from_file_location("entry_module", bundle / "score.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path[:] = path
        sys.modules.pop("images", None)
        if modules:
            sys.modules["images"] = modules


@pytest.fixture(scope="module")
def score(bundle):
    module = load_score(bundle)
    with mock.patch.dict(os.environ):
        os.environ.pop("AZUREML_MODEL_DIR", None)
        module.init()
    return module


def run(score, data=b"", content_type="application/json", method="POST", query_string=None, **environ):
    """Call run() without a server; return status and answer."""
    builder = EnvironBuilder(
        method=method, data=data, content_type=content_type, path="/score", query_string=query_string
    )
    response = score.run(Request(builder.get_environ() | environ))
    return response.status_code, response.get_json()


def run_json(score, document):
    return run(score, json.dumps(document))


# the bundle


def test_bundle_holds_all_a_service_needs(bundle):
    assert {path.name for path in bundle.iterdir()} == {
        *("model.onnx", "model.json", "score.py", "images.py", "dicom.py", "requirements.txt", "conda.yml"),
        *("Dockerfile", "page.html", "requestlog.py", "nearest.py", "patient.py"),
    }
    card = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    assert card["labels"] == ["benign", "malignant"] and card["image_size"] == SIZE
    assert card["training"] == {"epochs": 1} and card["version"] == card["sha256"]["model.onnx"][:12]
    assert card["packages"]["onnxruntime"] == metadata.version("onnxruntime")
    assert "not a diagnostic device" in card["caveat"]
    assert (bundle / "images.py").read_bytes() == Path(images.__file__).read_bytes()
    pins = (bundle / "requirements.txt").read_text(encoding="utf-8").split()
    assert f"onnxruntime=={metadata.version('onnxruntime')}" in pins
    conda = (bundle / "conda.yml").read_text(encoding="utf-8")
    assert all(f"  - {pin}\n" in conda for pin in pins)


def test_bundle_is_reproducible_and_replaces_an_earlier_one(bundle, tmp_path):
    folder = build_bundle(StandIn(seed=1), tmp_path / "new" / "bundle")
    other = (folder / "model.json").read_bytes()
    build_bundle(StandIn(), folder)
    assert (folder / "model.json").read_bytes() == (bundle / "model.json").read_bytes() != other
    assert [path.name for path in folder.parent.iterdir()] == ["bundle"]


def test_bundle_refuses_a_folder_of_other_things(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        build_bundle(StandIn(), tmp_path)
    with pytest.raises(ValueError, match="is not a bundle: it is a file"):
        build_bundle(StandIn(), tmp_path / "thesis.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_interrupted_build_leaves_the_earlier_bundle(tmp_path):
    folder = build_bundle(StandIn(), tmp_path / "bundle")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    broken = StandIn(seed=2)
    broken.to_onnx = mock.Mock(side_effect=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        build_bundle(broken, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# the entry script, without a server


def test_run_scores_the_2018_form(score, expected):
    document = [{"image_in_base64": b64(GOOD), "parameters": {"threshold": 0.5}}]
    status, answer = run_json(score, document)
    assert status == 200
    [prediction] = answer["predictions"]
    assert prediction["scores"] == pytest.approx(
        dict(zip(StandIn.labels, expected(GOOD), strict=True)), abs=1e-6
    )
    assert prediction["label"] == max(prediction["scores"], key=prediction["scores"].get)
    assert answer["model"] == {"id": "isicvision-stand-in", "version": score.metadata["version"]}
    assert answer["caveat"] == "A teaching sample, not a diagnostic device."


@pytest.mark.parametrize(
    "text",
    [
        b64(GOOD),
        "data:image/jpeg;base64," + b64(GOOD),
        base64.encodebytes(GOOD).decode(),  # lines of 76 characters
    ],
)
def test_run_scores_the_list_of_images(score, text):
    one = run(score, GOOD, "image/jpeg")[1]["predictions"][0]
    status, answer = run_json(score, {"images": [text, {"image_in_base64": text}]})
    assert status == 200 and answer["predictions"] == [one, one]


def test_run_decides_at_the_threshold_of_the_model(expected, tmp_path):
    model = StandIn()
    score_of_benign = float(expected(GOOD)[0])
    for threshold, label in ((score_of_benign - 1e-3, "benign"), (score_of_benign + 1e-3, "malignant")):
        model.metadata = StandIn.metadata | {
            "decision": {"positive": "benign", "threshold": threshold, "rule": None}
        }
        module = load_score(build_bundle(model, tmp_path / "bundle"))
        module.init()
        [prediction] = run_json(module, {"images": [b64(GOOD)]})[1]["predictions"]
        assert prediction["label"] == label and prediction["threshold"] == threshold
        assert prediction["positive"] == "benign"


def test_run_keeps_the_order_of_a_long_mixed_batch(score, expected):
    files = [image(seed) for seed in range(20)]
    texts = [b64(file) for file in files]
    for bad in (3, 9):
        texts[bad] = b64(TEXT)
    texts[19] = "not base64!"
    status, answer = run_json(score, {"images": texts})
    assert status == 200
    for index, (file, prediction) in enumerate(zip(files, answer["predictions"], strict=True)):
        if index in (3, 9):
            assert "not an image" in prediction["error"]
        elif index == 19:
            assert "base64" in prediction["error"]
        else:
            assert prediction["scores"]["benign"] == pytest.approx(expected(file)[0], abs=1e-6)


@pytest.mark.parametrize("data", [TEXT, TRUNCATED, b"\0", b"\x89PNG\r\n\x1a\n"])
@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream"])
def test_run_unreadable_image_is_422(score, data, content_type):
    status, answer = run(score, data, content_type)
    assert status == 422
    assert "No image could be scored" in answer["message"] and "error" in answer["predictions"][0]


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"", 400, "empty"),
        (b"[", 400, "not valid JSON"),
        (TEXT, 400, "not valid JSON"),
        (GOOD, 400, "not valid JSON"),
        (b"\xff\xfe\xfa", 400, "not valid JSON"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b'{"a":' * 100_000, 400, "not valid JSON"),
        (b'{"images": [NaN]}', 400, "not valid JSON"),
        (b'{"images": [' + b"9" * 5000 + b"]}", 400, "not valid JSON"),
        (b"[]", 400, "has no list of images"),
        (b"3", 400, "has no list of images"),
        (b"null", 400, "has no list of images"),
        (b'"image"', 400, "has no list of images"),
        (b'{"images": {}}', 400, "has no list of images"),
        (b'{"images": []}', 400, "has no list of images"),
        (b'{"image_in_base64": "AAAA"}', 400, "has no list of images"),
        (b"[1]", 400, "Item 0"),
        (b'["AAAA", {"image": "AAAA"}]', 400, "Item 1"),
        (b'[{"image_in_base64": null}]', 400, "Item 0"),
        (b'[""]', 422, "not an image"),
        (b'["\\ud800"]', 422, "base64"),
        (b'["data:image/jpeg;base64"]', 422, "not an image"),
        (json.dumps({"images": ["AAAA"] * 65}).encode(), 413, "at most 64"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else str(value),
)
def test_run_refuses(score, body, status, word):
    got, answer = run(score, body)
    assert got == status and word in answer["message"]
    if status == 400:
        assert "image_in_base64" in answer["message"] and "images" in answer["message"]


def test_run_reads_a_bounded_part_of_a_huge_body(score):
    class Endless(io.RawIOBase):
        read_so_far = 0

        def read(self, size=-1):
            Endless.read_so_far += size
            return b"\0" * size

    for length in ("10000000000", ""):  # said before, or not at all (chunks)
        Endless.read_so_far = 0
        environ = {"CONTENT_LENGTH": length, "wsgi.input": Endless(), "wsgi.input_terminated": True}
        status, answer = run(score, content_type="image/jpeg", **environ)
        assert status == 413 and "20 MiB" in answer["message"]
        assert Endless.read_so_far <= score.MAX_DRAIN + 2**16


def test_run_methods_and_forms(score):
    assert run(score, method="GET")[0] == 405
    assert "image_in_base64" in run(score, method="GET")[1]["message"]
    assert run(score, method="PUT")[0] == 405
    assert run(score, {"file": (io.BytesIO(GOOD), "lesion.jpg")}, "multipart/form-data")[0] == 200
    client_gone = mock.Mock(read=mock.Mock(side_effect=ConnectionResetError))
    gone = {"wsgi.input": client_gone, "wsgi.input_terminated": True}
    assert run(score, content_type="image/jpeg", **gone)[0] == 400


@pytest.mark.parametrize(
    "stray", [".DS_Store", ".ipynb_checkpoints/x.py", "Thumbs.db", "desktop.ini", "__pycache__/x"]
)
def test_a_bundle_that_was_looked_into_is_built_again_without_what_that_left(tmp_path, stray):
    folder = build_bundle(StandIn(), tmp_path / "bundle")
    expected = {path.name for path in folder.iterdir()}
    (folder / stray).parent.mkdir(exist_ok=True)
    (folder / stray).touch()
    build_bundle(StandIn(), folder)
    assert {path.name for path in folder.iterdir()} == expected
    copied = re.search(
        "^COPY (model.*) ./$", (folder / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE
    )[1].split()
    needed = expected - {"requirements.txt", "conda.yml", "Dockerfile"}
    assert all(any(fnmatch.fnmatch(name, pattern) for pattern in copied) for name in needed)
    assert not any(fnmatch.fnmatch(stray.split("/")[0], pattern) for pattern in copied)
    (folder / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"notes\.txt"):
        build_bundle(StandIn(), folder)


def test_init_takes_the_registered_model(bundle, tmp_path, monkeypatch):
    registered = build_bundle(StandIn(seed=5), tmp_path / "models" / "isicvision" / "1" / "bundle")
    module = load_score(bundle)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(tmp_path / "models"))
    module.init()
    assert module.metadata == json.loads((registered / "model.json").read_text(encoding="utf-8"))

    shutil.copytree(registered, tmp_path / "models" / "isicvision" / "2" / "bundle")
    with pytest.raises(RuntimeError, match="holds several models"):
        module.init()

    link = tmp_path / "mount" / "1"
    link.parent.mkdir()
    link.symlink_to(registered.parent, target_is_directory=True)
    (link.parent / "again").symlink_to(link.parent, target_is_directory=True)  # round in a circle
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(link.parent))
    module.init()
    assert module.metadata == json.loads((registered / "model.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("there", ["missing", "empty", "file", "strays"])
def test_a_registered_model_that_is_not_there_is_never_replaced_by_the_packed_one(
    bundle, tmp_path, monkeypatch, there
):
    place = tmp_path / there
    if there == "file":
        place.touch()
    elif there != "missing":
        place.mkdir()
    if there == "strays":
        shutil.copytree(bundle, place / ".ipynb_checkpoints")
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(place))
    with pytest.raises(RuntimeError, match=f"AZUREML_MODEL_DIR is {place}, which .* or unset the variable"):
        load_score(bundle).init()
    monkeypatch.setenv("AZUREML_MODEL_DIR", "")
    module = load_score(bundle)
    module.init()
    assert module.metadata == json.loads((bundle / "model.json").read_text(encoding="utf-8"))


def test_init_refuses_another_preprocessing_or_other_labels(tmp_path):
    folder = build_bundle(StandIn(), tmp_path / "bundle")
    with open(folder / "images.py", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    with pytest.raises(RuntimeError, match=r"images\.py"):
        load_score(folder).init()

    three = StandIn()
    three.labels = ("benign", "malignant", "other")
    with pytest.raises(RuntimeError, match="3 labels"):
        load_score(build_bundle(three, folder)).init()


# the service


def test_service_scores_as_onnxruntime_does(service, expected, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    files = [
        GOOD,
        image(1, (1600, 1200), quality=90),  # decoded at a reduced scale
        image(2, (31, 200), "PNG"),
        image(3, kind="WEBP"),
        image(4, (90, 45), exif=turned),
    ]
    for data in files:
        answer = service.score(data)
        assert list(answer["scores"].values()) == pytest.approx(expected(data), abs=1e-6)

    path = tmp_path / "lesion.jpg"
    path.write_bytes(files[4])
    assert service.score(path) == service.score(str(path)) == service.score(files[4])
    opened = Image.open(io.BytesIO(files[4]))  # sent as PNG, the right way up
    assert service.score(opened) == service.score(decode(files[4]))
    assert list(service.score(opened.convert("CMYK"))["scores"]) == list(StandIn.labels)
    with pytest.raises(ValueError, match="uint8"):
        service.score(np.zeros((4, 4, 3)))


def test_service_scores_many_in_order(service, tmp_path):
    path = tmp_path / "note.jpg"
    path.write_bytes(TEXT)
    files = [image(seed) for seed in range(8)]
    answers = service.score_many([*files, path, tmp_path / "absent.jpg"], connections=3)
    assert answers[:8] == [service.score(file) for file in files]
    assert answers[8]["error"].startswith(f"{path}: it is not an image (JPEG")
    assert answers[9] == service.score(tmp_path / "absent.jpg") and "absent.jpg" in answers[9]["error"]
    assert answers[8] == service.score(path) and set(answers[8]) == {"error"}


def test_service_answers_over_http(service):
    def post(data, content_type=None, **options):
        headers = {"Content-Type": content_type} if content_type else {}
        response = requests.post(service.scoring_uri, data=data, headers=headers, timeout=20, **options)
        return response.status_code, response.json()

    one = service.score(GOOD)
    document = json.dumps([{"image_in_base64": b64(GOOD)}])
    assert post(GOOD, "image/jpeg")[1]["predictions"] == [one]
    assert post(document, "application/json; charset=utf-8")[1]["predictions"] == [one]
    assert post(document, "application/x-www-form-urlencoded")[1]["predictions"] == [one]  # curl -d
    assert post(document.encode())[1]["predictions"] == [one]  # no Content-Type at all
    assert post(iter([GOOD[:100], GOOD[100:]]), "image/jpeg")[1]["predictions"] == [one]  # chunks
    assert post(b"")[0] == 400
    assert post(TEXT, "image/jpeg")[0] == 422
    assert post(GOOD, "application/x-www-form-urlencoded")[0] == 400
    assert post(bytes(21 * 2**20), "image/jpeg")[0] == 413
    assert post(iter([bytes(2**20)] * 21), "image/jpeg")[0] == 413
    assert requests.get(service.scoring_uri, timeout=20).status_code == 405
    assert requests.options(service.scoring_uri, timeout=20).status_code == 200
    assert requests.put(service.scoring_uri, data=GOOD, timeout=20).status_code == 405


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([b64(GOOD), b64(TEXT)]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["images", "image_in_base64", "a"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def damage(seed):
    data, rng = bytearray(GOOD), random.Random(seed)
    for _ in range(rng.randrange(1, 40)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.randrange(1, len(data))]) if seed % 2 else bytes(data)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    body=st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.integers(0).map(damage),
    content_type=st.sampled_from(
        [
            *("image/jpeg", "image/png", "application/octet-stream", "application/json", "text/plain"),
            *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "nonsense", ""),
        ]
    ),
)
def test_service_never_fails(service, body, content_type):
    headers = {"Content-Type": content_type}
    response = requests.post(service.scoring_uri, data=body, headers=headers, timeout=20)
    assert response.status_code in (200, 400, 413, 415, 422)
    assert ("message" in response.json()) == (response.status_code != 200)


def test_service_logs_nothing_of_the_images(service):
    secret = "bGVzaW9uIG9mIGEgcGF0aWVudA=="
    document = {"images": [secret], "parameters": {"patient": "Jane Doe"}}
    requests.post(service.scoring_uri, json=document, timeout=20)
    log = service.logs(10**6)
    assert "POST /score 422" in log
    assert secret not in log and "Jane" not in log and "Traceback" not in log


def family(service):
    master = psutil.Process(service._process.pid)
    return [master, *master.children(recursive=True)]


@POSIX
def test_two_services_at_once_on_loopback_only_and_stopped_for_good(bundle, service, monkeypatch, tmp_path):
    monkeypatch.chdir(bundle.parent)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # led around
    monkeypatch.setenv("GUNICORN_CMD_ARGS", f"--access-logfile {tmp_path}/log")  # meant for another server
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    second = deploy_local("bundle", workers=2)
    try:
        assert second.scoring_uri != service.scoring_uri
        assert second.score(GOOD) == service.score(GOOD)
        processes = family(second)
        assert len(processes) == 3
        # "interrupt the kernel" signals the notebook's process group, which is not the service's
        assert os.getpgid(processes[0].pid) != os.getpgid(0)
        listening = [
            each.laddr.ip
            for process in processes
            for each in process.net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        ]
        assert listening and set(listening) == {"127.0.0.1"}
        assert "running" in repr(second)
    finally:
        second.stop()
    second.stop()
    assert not any(process.is_running() for process in processes)
    assert "stopped" in repr(second) and "POST /score 200" in second.logs()
    assert list(tmp_path.iterdir()) == []  # nothing in the user's home
    assert "__pycache__" not in os.listdir(bundle)
    with pytest.raises(ServiceError, match=r"no answer.*deploy_local"):
        second.score(GOOD)
    assert service.score(GOOD)


def gone(processes, within=10):
    _, alive = psutil.wait_procs(processes, within)
    for process in alive:  # a failing test leaves none behind
        process.kill()
    return not alive


def test_no_service_outlives_a_killed_notebook(bundle, tmp_path):
    notebook = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, time; from isicvision import deploy_local\n"
            "service = deploy_local(sys.argv[1]); print(service._process.pid, flush=True); time.sleep(60)",
            bundle,
        ],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},  # a killed process leaves its log
    )
    with notebook:
        master = psutil.Process(int(notebook.stdout.readline()))
        processes = [master, *master.children()]
        assert len(processes) == 2 or os.name == "nt"
        notebook.kill()
    assert gone(processes)


FORKING = """
import multiprocessing, sys, time
from isicvision import deploy_local
service = deploy_local(sys.argv[1])
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
child.start()
print(child.pid, flush=True)
if sys.argv[2] == "stop":
    service.stop()
    print(child.is_alive(), flush=True)
time.sleep(60)
"""


@POSIX
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_the_service_ends_though_a_process_forked_in_the_notebook_lives_on(bundle, tmp_path, how):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", FORKING, bundle, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as notebook:
        child = psutil.Process(int(notebook.stdout.readline()))
        try:
            processes = [p for p in psutil.Process(notebook.pid).children(recursive=True) if p != child]
            if how == "stop":
                assert notebook.stdout.readline() == "True\n"
            notebook.kill()
            assert gone(processes)
        finally:
            child.kill()


@POSIX
def test_workers_end_with_a_killed_server(bundle):
    service = deploy_local(bundle)
    master, worker = family(service)
    time.sleep(0.5)  # until the worker waits for requests, unaware of its parent
    master.kill()
    service.stop()
    assert gone([worker])


def test_a_changed_model_does_not_start(bundle, tmp_path):
    changed = shutil.copytree(bundle, tmp_path / "bundle")
    data = bytearray((changed / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (changed / "model.onnx").write_bytes(data)
    started = time.monotonic()
    with pytest.raises(RuntimeError, match=r"model\.onnx is not the file that the bundle was built with"):
        deploy_local(changed)
    assert time.monotonic() - started < 20


def test_deploy_local_says_what_is_missing(tmp_path, bundle):
    with pytest.raises(FileNotFoundError, match="build_bundle"):
        deploy_local(tmp_path)
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
        with pytest.raises(ImportError, match=r'pip install -e "\.\[serving\]"'):
            deploy_local(bundle)


# the client, against a service that misbehaves


@pytest.fixture
def answers():
    """A server that gives the answers of a list, one after the other, and keeps the requests' headers."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            server.seen.append(self.headers)
            status, headers, body = server.answers.pop(0)
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answers = [], []
    server.uri = f"http://127.0.0.1:{server.server_port}/score"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


FINE = (200, {}, json.dumps({"predictions": [{"label": "benign", "scores": {"benign": 1.0}}]}).encode())


def test_client_sends_the_key_and_tries_again(answers, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    answers.answers = [(503, {}, b""), (429, {"Retry-After": "0"}, b""), FINE]
    client = ServiceClient(answers.uri, key="a-key")
    assert client.score(GOOD)["label"] == "benign"
    assert [headers["Authorization"] for headers in answers.seen] == ["Bearer a-key"] * 3
    assert "a-key" not in repr(client)


def test_client_asks_again_when_an_answer_is_cut_short(answers):
    short = (200, {"Content-Length": 999}, FINE[2][:20])
    answers.answers = [short, short, FINE, short, short, short]
    client = ServiceClient(answers.uri)
    assert client.score(GOOD)["label"] == "benign"
    with pytest.raises(ServiceError, match="no answer"):
        client.score(GOOD)
    assert answers.answers == []


@pytest.mark.parametrize("wrong", [None, 3, ["a.jpg"]])
def test_client_says_what_an_image_may_be(answers, wrong):
    with pytest.raises(TypeError, match="an image is a path, bytes, an array or one of Pillow, not "):
        ServiceClient(answers.uri).score(wrong)
    for one in ("a.jpg", b"x"):
        with pytest.raises(ValueError, match="give a list of images"):
            ServiceClient(answers.uri).score_many(one)


def test_client_gives_up_when_the_service_stays_busy(answers):
    answers.answers = [(429, {"Retry-After": "0"}, b'{"message": "too many"}')] * 4
    with pytest.raises(ServiceError, match="429: too many") as caught:
        ServiceClient(answers.uri).score(GOOD)
    assert caught.value.status == 429


def test_client_unwraps_a_managed_endpoint(answers):
    wrapped = {"ms-azureml-model-error-statuscode": "413"}
    answers.answers = [(424, wrapped, b'{"message": "The body is larger"}')]
    with pytest.raises(ServiceError, match="The body is larger") as caught:
        ServiceClient(answers.uri).score(GOOD)
    assert caught.value.status == 413


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ((401, {}, b""), "401: Unauthorized"),
        ((200, {}, b"<html>Please log in"), "Please log in"),
        ((302, {"Location": "http://127.0.0.1:9/"}, b""), "302"),
    ],
)
def test_client_reports_other_answers(answers, answer, word):
    answers.answers = [answer]
    with pytest.raises(ServiceError, match=word):
        ServiceClient(answers.uri).score_many([GOOD])
