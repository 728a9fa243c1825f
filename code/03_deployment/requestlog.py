"""The service's log: one line of JSON per request, and one per minute that sums them up.

    {"event": "request", "time": "2026-11-25T09:30:00.123+00:00", "request_id": "5f0c…", "client_request_id": "",
     "method": "POST", "status": 200, "ms": 12.3, "bytes": 45120, "images": 1, "refused": 0,
     "model": "4c9e0569e9d7", "scores": [{"benign": 0.93, "malignant": 0.07}]}
    {"event": "metrics", "time": …, "seconds": 60.2, "requests": 812, "statuses": {"200": 809, "422": 3},
     "images": 812, "refused": 3, "ms": {"p50": 11.9, "p95": 18.2, "p99": 31.0}, "process": 4711}

The lines go to standard output, where gunicorn, a container and Azure collect them. They contain nothing of an image
and no header but the two ids. They hold the scores of each image that was scored, and other numbers of the answer, such
as the distance, for every image (null where there is none). drift.py compares a day of them with the validation
images.
"""

import atexit
import functools
import json
import os
import sys
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime

import flask
import numpy as np

INTERVAL = 60  # least seconds between two lines of metrics, which are written after a request or at the end


class _Metrics:
    """Counts of this process's requests since the last line of metrics."""

    def __init__(self):
        self.started = time.monotonic()
        self.statuses = Counter()
        self.images = self.refused = 0
        self.ms = deque(maxlen=10_000)

    def add(self, line):
        self.statuses[str(line["status"])] += 1
        self.images += line.get("images", 0)
        self.refused += line.get("refused", 0)
        self.ms.append(line["ms"])

    def line(self):
        percentiles = np.percentile(self.ms, (50, 95, 99)).round(1).tolist()
        return {
            "event": "metrics",
            "time": _now(),
            "seconds": round(time.monotonic() - self.started, 1),
            "requests": self.statuses.total(),
            "statuses": self.statuses,
            "images": self.images,
            "refused": self.refused,
            "ms": dict(zip(("p50", "p95", "p99"), percentiles, strict=True)),
            "process": os.getpid(),
        }


_lock = threading.Lock()  # of the metrics and of standard output, so that lines stay whole
_metrics = _Metrics()


def logged(run):
    """Decorate the `run` of an entry script, so that it logs each request."""

    @functools.wraps(run)  # the server looks at the names of its parameters
    def run_and_log(request):
        started, response = time.perf_counter(), None
        try:
            response = run(request)
            return response
        finally:  # the server answers 500 if `run` raises
            _record(request, response, 1000 * (time.perf_counter() - started))

    return run_and_log


def _record(request, response, ms):
    global _metrics
    line = {
        "event": "request",
        "time": _now(),
        "request_id": _id(request, "request_id"),
        "client_request_id": _id(request, "client_request_id"),
        "method": request.method,
        "status": response.status_code if response else 500,
        "ms": round(ms, 1),
        "bytes": request.content_length or 0,
        **_result(response),
    }
    with _lock:
        _write(line)
        _metrics.add(line)
        if time.monotonic() - _metrics.started > INTERVAL:
            _write(_metrics.line())
            _metrics = _Metrics()


def _id(request, name):
    """Return the id that Azure's server has for the request; without that server, the one that the client sent."""
    if flask.has_app_context() and name in flask.g:
        return flask.g.get(name)
    return request.headers.get({"request_id": "x-request-id"}.get(name, "x-ms-client-request-id"), "")


def _result(response):
    """Return the numbers of the answer, without messages or images."""
    answer = response.get_json(silent=True) if response and response.is_json else None
    if not isinstance(answer, dict) or "predictions" not in answer:
        return {}
    predictions = answer["predictions"]
    numbers = {name for each in predictions for name, value in each.items() if type(value) in (int, float)}
    return {
        "images": len(predictions),
        "refused": sum("error" in each for each in predictions),
        "model": answer["model"]["version"],
        "scores": [
            {label: _rounded(score) for label, score in each["scores"].items()}
            for each in predictions
            if "scores" in each
        ],
    } | {name: [_rounded(each.get(name)) for each in predictions] for name in sorted(numbers - {"threshold"})}


def _rounded(value):
    """Round to six significant digits."""
    return None if value is None else float(f"{value:.6g}")


def _now():
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _write(line):
    sys.stdout.write(json.dumps(line) + "\n")  # print would add the server's prefix
    sys.stdout.flush()


@atexit.register
def _write_the_rest():
    if _metrics.statuses:
        _write(_metrics.line())
