"""From a classifier to a web service: the bundle of files, the service here or in Azure, and its client.

A bundle is a folder with all that a service needs and no training code: the network as ONNX, the entry
script, the preprocessing, pinned requirements, a Dockerfile. It runs on this machine (`deploy_local`), in a
container, or in Azure (`deploy_azure`).
"""

import hashlib
import importlib.util
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path

import numpy as np
import requests
from PIL import Image, ImageOps
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.util import Retry

from . import pixels
from .project import PROJECT_ROOT

# config.json, logging.json and swagger.json are missing here for a reason: Azure's server takes them for its own
_FILES = "model.onnx model.onnx.data model.json score.py pixels.py requirements.txt conda.yml Dockerfile"
_REQUIREMENTS = ("onnxruntime", "numpy", "pillow", "azureml-inference-server-http")

_CONDA = """\
name: isicvision-service
channels: [conda-forge]
dependencies:
- python=3.11
- pip
- pip:
"""

_DOCKERFILE = """\
# docker build --tag isicvision . && docker run --rm --publish 127.0.0.1:5001:5001 isicvision
FROM python:3.11-slim
WORKDIR /service
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt && useradd --create-home service
COPY . .
USER service
EXPOSE 5001
CMD ["azmlinfsrv", "--entry_script", "score.py"]
"""

# gunicorn's own configuration, in Python. The process that called deploy_local holds the other end of the
# pipe, which closes when that process ends, however it ends: no service outlives a killed notebook.
_GUNICORN = """\
import os, signal, threading

control_socket_disable = True  # it would lie in the home folder; a gunicorn too old for it ignores the name

def post_fork(server, worker):
    threading.Thread(target=end_with_notebook, daemon=True).start()

def end_with_notebook():
    os.read({pipe}, 1)
    os.kill(os.getpid(), signal.SIGTERM)

post_fork(None, None)  # the main process watches, too
"""


def build_bundle(model, folder):
    """Write everything that a service of `model` needs into one folder.

    It is complete or absent: an interrupted build leaves what was there before.

    Parameters
    ----------
    model : ImageClassifier
    folder : str or pathlib.Path
        New, empty, or an earlier bundle, which is replaced. Anything else raises ValueError.

    Returns
    -------
    pathlib.Path
        `folder`, with model.onnx (uint8 pictures in, probabilities out), model.json (the model's card, labels,
        image size, id, version, checksums), score.py, pixels.py, requirements.txt, conda.yml and Dockerfile.
    """
    script = PROJECT_ROOT / "code" / "03_deployment" / "score.py"
    if not script.exists():
        raise FileNotFoundError(
            f"{script} is missing: install isicvision from its repository, pip install -e ."
        )
    target = Path(folder).resolve()
    strange = {path.name for path in target.glob("*")} - {*_FILES.split(), "__pycache__"}
    if strange or target.is_file():
        raise ValueError(f"{folder} holds {min(strange, default='a file')}, no bundle: choose another folder")

    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        new = Path(temporary) / "new"
        new.mkdir()
        model.to_onnx(new / "model.onnx")
        shutil.copyfile(pixels.__file__, new / "pixels.py")
        # of what makes the scores; the other files are the user's to change
        checksums = {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(new.iterdir())
        }
        card = {
            "licence": "MIT",
            **model.card,
            "id": f"isicvision-{model.card.get('backbone', 'model')}".replace("_", "-"),
            "version": checksums["model.onnx"][:12],
            "labels": list(model.labels),
            "image_size": model.image_size,
            "sha256": checksums,
        }
        (new / "model.json").write_text(json.dumps(card, indent=2) + "\n")
        shutil.copyfile(script, new / "score.py")
        pins = [f"{name}=={metadata.version(name)}" for name in _REQUIREMENTS]
        (new / "requirements.txt").write_text("\n".join(pins) + "\n")
        (new / "conda.yml").write_text(_CONDA + "".join(f"  - {pin}\n" for pin in pins))
        (new / "Dockerfile").write_text(_DOCKERFILE)
        if target.exists():
            target.rename(Path(temporary) / "old")
        new.rename(target)
    return Path(folder)


class ServiceError(RuntimeError):
    """The service refused, failed or is not there; `status` is its HTTP status, None if no answer came."""

    def __init__(self, message, status=None):
        super().__init__(message)
        self.status = status


class ServiceClient:
    """Send pictures to a scoring service, on this machine or in Azure.

    A picture is a path, the bytes of a file, a Pillow image, or a uint8 array of shape (height, width, 3).
    Lost connections and the statuses 429 and 503 are tried again: to score twice does no harm.

    `url` is the scoring URI (``http://127.0.0.1:5001/score``), `timeout` the seconds to wait for an answer,
    `key` the service's key or token: read it from the environment, it has no place in a notebook.
    """

    def __init__(self, url, key=None, timeout=30):
        self.scoring_uri = url
        self._timeout = timeout
        self._session = requests.Session()
        busy = (429, 503)
        retry = Retry(
            3, status_forcelist=busy, allowed_methods=None, backoff_factor=0.3, raise_on_status=False
        )
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry, pool_maxsize=32))
        if key:  # as `auth`, because the user's .netrc would replace a mere header
            self._session.auth = lambda request: (
                request.headers.update(Authorization=f"Bearer {key}") or request
            )

    def score(self, picture):
        """Score one picture: ``{"label": "malignant", "scores": {"benign": 0.1, "malignant": 0.9}}``.

        Raises ServiceError if the service cannot read the picture (its status is 422 then), refuses the
        request or is not there; OSError if `picture` is a path that cannot be read.
        """
        prediction = self._ask(_to_bytes(picture))
        if "error" in prediction:
            name = str(picture) if isinstance(picture, (str, Path)) else "the picture"
            raise ServiceError(prediction["error"].replace("the picture", name, 1), status=422)
        return prediction

    def score_many(self, pictures, connections=4):
        """Score a sequence of pictures, `connections` at a time; return a list of dict in their order.

        Each is as of `score`, or ``{"error": reason}`` for a picture that cannot be read. Raises ServiceError
        if the service itself fails or is not there.
        """

        def ask(picture):
            try:
                return self.score(picture)
            except (ServiceError, OSError) as error:
                if isinstance(error, ServiceError) and error.status != 422:
                    raise
                return {"error": str(error)}

        pictures = list(pictures)
        pool = ThreadPoolExecutor(connections)
        try:
            answers = pool.map(ask, pictures)
            return list(tqdm(answers, total=len(pictures), desc="scoring", unit="picture", leave=False))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest need not be tried

    def _ask(self, body):
        """Post one picture and return the service's answer to it, which may be {"error": reason}."""
        try:
            response = self._session.post(
                self.scoring_uri,
                data=body,
                headers={"Content-Type": "application/octet-stream"},
                timeout=self._timeout,
                allow_redirects=False,  # key and picture go to this address and to no other
            )
        except requests.RequestException as error:
            raise ServiceError(
                f"no answer from {self.scoring_uri} ({type(error).__name__}). Is that the scoring URI of a "
                "running service? `deploy_local(bundle)` starts one on this machine."
            ) from error
        # Azure's managed endpoints answer 424 for any error of the service, whose own status is here
        status = int(response.headers.get("ms-azureml-model-error-statuscode", response.status_code))
        try:
            answer = response.json()
            if status in (200, 422):
                return answer["predictions"][0]
            message = answer["message"]
        except (ValueError, KeyError, IndexError, TypeError):
            message = response.text[:300].strip() or response.reason
        raise ServiceError(f"{self.scoring_uri} answered {status}: {message}", status)


def _to_bytes(picture):
    """Return a picture as the bytes of a file; pixels are written as PNG, which loses nothing."""
    if isinstance(picture, (bytes, bytearray)):
        return bytes(picture)
    if isinstance(picture, (str, Path)):
        return Path(picture).read_bytes()
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"an array of uint8 (height, width, 3) is sent, not {picture.dtype} {picture.shape}"
            )
        picture = Image.fromarray(picture)
    picture = ImageOps.exif_transpose(picture)  # PNG would lose which side is up
    if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV"):  # not in PNG
        picture = picture.convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class LocalService(ServiceClient):
    """A service on this machine, and its client; made by `deploy_local`.

    It ends by ``stop()``, at the end of a ``with`` block, or with this process at the latest.
    """

    def __init__(self, bundle, workers, timeout):
        self._folder = tempfile.TemporaryDirectory(prefix="isicvision-service-")
        self._log = Path(self._folder.name, "log.txt")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            super().__init__(f"http://127.0.0.1:{listener.getsockname()[1]}/score")
            self._process, pipe = self._start(Path(bundle).resolve(), workers, listener.fileno())
        self._session.trust_env = False  # the user's proxy does not lead to this machine
        self._end = weakref.finalize(self, _end, self._process, pipe)  # runs at this process's exit, too
        try:
            self._wait(timeout)
        except BaseException:  # Ctrl-C too must leave no server behind; it is raised again
            self.stop()
            raise

    def _start(self, bundle, workers, listener):
        """Start gunicorn with Azure's server on an open socket, whose port nobody can take in between."""
        # settings meant for another server would change this one: its route, its script, its kind of worker
        theirs = ("AML_", "AZUREML_", "GUNICORN_", "SERVICE_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(theirs)} | {
            "AML_APP_ROOT": str(bundle),
            "AZUREML_ENTRY_SCRIPT": "score.py",
            "WORKER_COUNT": str(workers),  # score.py divides the cores by it
            "PYTHONDONTWRITEBYTECODE": "1",  # the bundle stays as it was built
        }
        watched, pipe = os.pipe()
        config = Path(self._folder.name, "gunicorn.py")
        config.write_text(_GUNICORN.format(pipe=watched))
        command = f"-m gunicorn --bind fd://{listener} --workers {workers} --timeout 300 --graceful-timeout 5"
        application = "azureml_inference_server_http.server.entry:app"
        with open(self._log, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command.split(), "--config", config, application],
                cwd=bundle,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(listener, watched),
                start_new_session=True,  # else "interrupt the kernel" would end the service
            )
        os.close(watched)
        return process, pipe

    def _wait(self, timeout):
        """Return once the service is healthy."""
        session = requests.Session()  # without the client's patience
        session.trust_env = False
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if session.get(self.scoring_uri.removesuffix("score"), timeout=1).ok:
                    return
            except requests.RequestException:
                time.sleep(0.05)
        state = f"was not ready in {timeout} s" if self._process.poll() is None else "ended while it started"
        raise RuntimeError(f"the service {state}. The end of its log:\n{self.logs(25)}")

    def logs(self, lines=50):
        """Return the last `lines` lines of the service's log."""
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self):
        """End the service; requests under way get 5 seconds more. A second call does nothing."""
        self._end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def __repr__(self):
        state = "running" if self._process.poll() is None else "stopped"
        return f"<LocalService {self.scoring_uri}, {state}>"


def _end(process, pipe):
    process.terminate()
    os.close(pipe)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the group of its own session: itself and its workers
        process.wait()


def deploy_local(bundle, workers=1, timeout=60):
    """Run a bundle as a web service on this machine, by the inference server that Azure ML runs.

    It listens on 127.0.0.1 only, on a free port; any number may run at once.

    Parameters
    ----------
    bundle : str or pathlib.Path
        Folder made by `build_bundle`.
    workers : int
        Processes that answer requests, each with its own copy of the model. They share the cores.
    timeout : float
        Seconds that the start may take.

    Returns
    -------
    LocalService

    Raises
    ------
    FileNotFoundError, ImportError
        If `bundle` is no bundle; if the server is not installed.
    RuntimeError
        If the service does not start; the message holds the end of its log. On Windows always, where Azure's
        server cannot be kept to this machine.
    """
    if os.name != "posix":
        raise RuntimeError("deploy_local needs Linux or macOS: on Windows use WSL or the bundle's Dockerfile")
    for module in ("gunicorn", "azureml_inference_server_http", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'{module} is not installed: pip install -e ".[serving]"')
    _card(bundle)
    return LocalService(bundle, workers, timeout)


def _card(bundle):
    try:
        return json.loads(Path(bundle, "model.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(f"{bundle} is no bundle: build_bundle(model, folder) makes one") from None


def azure_plan(bundle):
    """Build what describes a service in Azure, as objects of azureml-core; needs no account and no network.

    Returns
    -------
    tuple of (Environment, InferenceConfig, AciServiceDeploymentConfiguration)
        The last is a container instance with one core and 2 GB that asks for a key.
    """
    try:
        from azureml.core import Environment
        from azureml.core.model import InferenceConfig
        from azureml.core.webservice import AciWebservice
    except ImportError as error:
        raise ImportError('azureml-core is not installed: pip install -e ".[azure]"') from error
    _card(bundle)
    environment = Environment.from_conda_specification("isicvision-service", str(Path(bundle, "conda.yml")))
    environment.python.conda_dependencies.add_pip_package(
        "azureml-defaults"
    )  # asked for by Azure's own hosts
    inference = InferenceConfig("score.py", source_directory=str(bundle), environment=environment)
    container = AciWebservice.deploy_configuration(cpu_cores=1, memory_gb=2, auth_enabled=True)
    return environment, inference, container


def deploy_azure(bundle, workspace, name, overwrite=False):
    """Register the bundle's model in an `azureml.core.Workspace` and run it there as a container instance.

    `name` is the service's: 3 to 32 letters, digits and dashes; `overwrite` replaces a service of that name.
    Returns the running `AciWebservice`, which costs money until its ``delete()``; talk to it with
    ``ServiceClient(service.scoring_uri, key=service.get_keys()[0])``.
    """
    _, inference, container = azure_plan(bundle)
    from azureml.core.model import Model

    card = _card(bundle)
    model = Model.register(workspace, str(bundle), card["id"], tags={"version": card["version"]})
    service = Model.deploy(workspace, name, [model], inference, container, overwrite=overwrite)
    service.wait_for_deployment(show_output=True)
    return service
