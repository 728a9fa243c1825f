"""The web service on this machine: a bundle run by Azure's own inference server, on loopback."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from contextlib import ExitStack
from pathlib import Path

import requests

from ..checks import is_number, is_whole
from ..files import user_path
from .bundle import read_metadata
from .client import ServiceClient

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


class LocalService(ServiceClient):
    """A service on this machine, and its client; made by `deploy_local`.

    It ends by ``stop()``, at the end of a ``with`` block, or with this process at the latest. `log` is the file of
    its log, which `drift` reads; it goes when this object does.
    """

    def __init__(self, bundle: str | Path, workers: int, threads: int, timeout: float):
        self._folder = tempfile.TemporaryDirectory(prefix="isicvision-service-")
        self.log = Path(self._folder.name, "log.txt")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            super().__init__(f"http://127.0.0.1:{listener.getsockname()[1]}/score")
            self._process, pipe = self._start(
                user_path(bundle).resolve(), workers, threads, listener.fileno()
            )
        self._session.trust_env = False  # the user's proxy does not lead to this machine
        self._end = weakref.finalize(self, _end, self._process, pipe)  # runs at this process's exit, too
        with ExitStack() as failed:  # Ctrl-C too must leave no server behind
            failed.callback(self.stop)
            self._wait(timeout)
            failed.pop_all()

    def _start(self, bundle, workers, threads, listener):
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
        command = f"-m gunicorn --bind fd://{listener} --worker-class gthread --workers {workers} --threads {threads}"
        limits = "--timeout 300 --graceful-timeout 5"
        application = "azureml_inference_server_http.server.entry:app"
        with open(self.log, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, *command.split(), *limits.split(), "--config", config, application],
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
        deadline = time.monotonic() + timeout
        with requests.Session() as session:  # without the client's patience
            session.trust_env = False
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if session.get(self.scoring_uri.removesuffix("score"), timeout=1).ok:
                        return
                except requests.RequestException:
                    time.sleep(0.05)
        state = f"was not ready in {timeout} s" if self._process.poll() is None else "ended while it started"
        raise RuntimeError(f"the service {state}. The end of its log:\n{self.logs(25)}")

    def logs(self, lines: int = 50) -> str:
        """Return the last `lines` lines of the service's log."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self) -> None:
        """End the service; requests under way get 5 seconds more. A second call does nothing."""
        self._session.close()  # else its workers wait 2 s for another request on each open connection
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


def deploy_local(bundle: str | Path, workers: int = 1, threads: int = 8, timeout: float = 60) -> LocalService:
    """Run a bundle as a web service on this machine, by the inference server that Azure ML runs.

    It listens on 127.0.0.1 only, on a free port; any number may run at once.

    Parameters
    ----------
    bundle
        Folder made by `build_bundle`.
    workers
        Processes that answer requests, each with its own copy of the model. They share the cores.
    threads
        Requests that one process reads and answers at a time. With more than one it is found healthy while it
        scores, and slow clients do not keep the others waiting.
    timeout
        Seconds that the start may take.

    Raises
    ------
    FileNotFoundError, ImportError, ValueError
        If `bundle` is no bundle; if the server is not installed; if there are no `workers` or `threads`.
    RuntimeError
        If the service does not start; the message holds the end of its log. On Windows always, where Azure's
        server cannot be kept to this machine.
    """
    if os.name != "posix":
        raise RuntimeError("deploy_local needs Linux or macOS: on Windows use WSL or the bundle's Dockerfile")
    for module in ("gunicorn", "azureml_inference_server_http", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'{module} is not installed: pip install -e ".[serving]"')
    if not is_whole(workers, 1) or not is_whole(threads, 1):
        raise ValueError(f"a service has 1 or more workers and threads, not {workers!r} and {threads!r}")
    if not is_number(timeout, 0.001):
        raise ValueError(f"timeout is a number of seconds above 0, not {timeout!r}")
    read_metadata(bundle)
    return LocalService(bundle, workers, threads, timeout)
