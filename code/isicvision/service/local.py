"""The web service on this machine: a bundle run by Azure's own inference server, on loopback only."""

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import warnings
import weakref
from pathlib import Path

import pandas as pd
import requests

from ..checks import is_whole
from ..files import user_path
from .bundle import read_metadata
from .client import ServiceClient

_SERVER = "gunicorn" if os.name == "posix" else "waitress"  # as in Azure's inference server


class LocalService(ServiceClient):
    """A service on this machine and its client, made by `deploy_local`.

    It ends with `stop`, with the ``with`` block or with this process. `log` is its log file, which `drift` reads; the
    file is deleted with this object.
    """

    def __init__(self, bundle: str | Path, workers: int, threads: int, timeout: float):
        self._folder = tempfile.TemporaryDirectory(prefix="isicvision-service-")
        self.log = Path(self._folder.name, "log.txt")
        self._process = self._start(user_path(bundle).resolve(), workers, threads)
        self._end = weakref.finalize(self, _end, self._process)  # runs when this process exits, too
        try:
            port = int(self._process.stdout.readline() or 0)  # nothing listens on port 0
            super().__init__(f"http://127.0.0.1:{port}/score")
            self._session.trust_env = False  # no proxy
            # not by the client's session, which would try again; the open socket lets the request wait
            with requests.Session() as session:
                session.trust_env = False
                session.get(self.scoring_uri.removesuffix("score"), timeout=timeout).raise_for_status()
        except BaseException as error:  # Ctrl-C must not leave a server behind either
            self._end()
            if not isinstance(error, requests.RequestException):
                raise
            is_slow = isinstance(error, requests.Timeout)
            state = f"was not ready within {timeout} s" if is_slow else "ended while it started"
            raise RuntimeError(f"the service {state}. The end of its log:\n{self.logs(25)}") from None

    def _start(self, bundle, workers, threads):
        # settings meant for another server would change this one: its route, its script, its kind of worker
        theirs = ("AML_", "AZUREML_", "GUNICORN_", "SERVICE_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(theirs)}
        environment |= {"AML_APP_ROOT": str(bundle), "AZUREML_ENTRY_SCRIPT": "score.py"}
        environment["WORKER_COUNT"] = str(workers)  # score.py divides the cores by it
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the bundle stays as it was built
        environment["PYTHONIOENCODING"] = "utf-8"  # of the log
        script = Path(__file__).with_name("serve.py.j2").read_text(encoding="utf-8")
        for name, value in {"server": _SERVER, "workers": workers, "threads": threads}.items():
            script = script.replace(f"{{{{ {name} }}}}", str(value))
        with open(self.log, "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-c", script],
                cwd=bundle,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # otherwise interrupting the notebook's kernel would end the service
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # on Windows
            )

    def logs(self, lines: int = 50) -> str:
        """Return the last `lines` lines of the service's log."""
        return "\n".join(self._lines()[-lines:])

    def requests(self, last: int = 10) -> pd.DataFrame:
        """Return the last requests in the service's log, with time, status, milliseconds, bytes, scores and so on."""
        found = [json.loads(line) for line in self._lines() if line.startswith('{"event": "request"')]
        return pd.DataFrame(found[-last:]).drop(columns="event", errors="ignore")

    def _lines(self):
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def stop(self) -> None:
        """End the service; requests under way get 5 more seconds. A second call does nothing."""
        self._session.close()  # otherwise its workers wait 2 s for another request on each open connection
        self._end()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def __repr__(self):
        state = "running" if self._process.poll() is None else "stopped"
        return f"<LocalService {self.scoring_uri}, {state}>"


def _end(process):
    with contextlib.suppress(OSError):  # it has ended already
        process.stdin.write(b"\n")  # closing is not enough where a process forked here holds the pipe, too
        process.stdin.close()
    process.wait()
    process.stdout.close()


def deploy_local(bundle: str | Path, workers: int = 1, threads: int = 8, timeout: float = 60) -> LocalService:
    """Run a bundle as a web service on 127.0.0.1, by the inference server that Azure ML uses; several may run at once.

    `workers` are processes that answer requests, each with its own copy of the model; they share the cores. `threads`
    are the requests that one process handles at a time: with two or more, it answers health checks while it scores.
    On Windows, where Azure's server runs under waitress, there is one worker; more give a warning. RuntimeError, with
    the end of the log, if the start takes more than `timeout` seconds.

    >>> deploy_local("outputs/bundle").score("lesion.jpg")  # doctest: +SKIP
    {'label': 'benign', 'scores': {'benign': 0.93, 'malignant': 0.07}}
    """
    for module in (_SERVER, "azureml_inference_server_http", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            raise ImportError(f'{module} is not installed: pip install -e ".[serving]"')
    if not is_whole(workers, 1) or not is_whole(threads, 1):
        raise ValueError(f"workers and threads are whole numbers from 1, not {workers!r} and {threads!r}")
    read_metadata(bundle)
    if _SERVER == "waitress" and workers > 1:
        warnings.warn(f"waitress, the server on Windows, runs 1 worker, not {workers}", stacklevel=2)
        workers = 1
    return LocalService(bundle, workers, threads, timeout)
