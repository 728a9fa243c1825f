"""Get files over HTTP: resumed where they were cut, within bounds of time and size, never from a private network."""

import ipaddress
import json
import math
import os
import random
import re
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError
from urllib3.util import Retry

from .. import __version__
from ..errors import IsicVisionError
from ..text import redacted

ATTEMPTS = 6
BACKOFF = 0.5  # s before the second attempt, doubled for each further one
PATIENCE = 5  # s, read timeout of the first attempt, doubled for each further one
LONGEST_WAIT = 120  # s; a server that asks for a longer wait is not asked again in this call
LARGEST = 2**32  # bytes of a file
CHUNK = 2**20
BUSY = (408, 416, 425, 429, 500, 502, 503, 504)  # may succeed at another time, or without a Range


class TransferError(IsicVisionError):
    """Raised when a request fails: `retry` if another may succeed, `after` so many seconds; `status` is HTTP's."""

    def __init__(self, reason: object, retry: bool = False, after: float = 0.0, status: int | None = None):
        self.reason, self.retry, self.after, self.status = redacted(reason), retry, after, status
        super().__init__(self.reason)


def pause(attempt: int, after: float = 0.0) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 0), with jitter; at least `after`."""
    return after + BACKOFF * 2**attempt * random.uniform(0.5, 1.5)


class Session(requests.Session):
    """Connections of `requests` for several threads, without cookies and ~/.netrc, in half the time.

    It follows redirections itself, so that every address passes `require_allowed`. `home` is the archive's address;
    only what begins with it gets the token. `timeout` is in seconds: connection, next bytes, whole answer.
    """

    def __init__(self, home: str, token: str | None = None, timeout: Sequence[float] = (5, 30, 600)) -> None:
        super().__init__()
        parts = urlsplit(home)
        if token and parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(f"{home} would get the token unencrypted: use https, or unset ISIC_TOKEN")
        self.home, self.token, self.timeout = home, token, timeout
        self.headers["User-Agent"] = f"isicvision/{__version__} {self.headers['User-Agent']}"
        for scheme in ("https://", "http://"):
            self.mount(scheme, HTTPAdapter(pool_maxsize=64))
        self._settings = {}  # by host

    def ask(self, url: str, headers: Mapping[str, str] = {}, patience: float = math.inf) -> requests.Response:
        """Return the response to a GET, its body unread; TransferError after `patience` seconds without bytes, say."""
        timeout = self.timeout[0], min(self.timeout[1], patience)
        try:
            for _ in range(5):
                require_allowed(url, self.home)
                response = self._send_get(url, timeout, headers)
                if not response.is_redirect:
                    break
                response.close()
                url = urljoin(url, response.headers["Location"])
            else:
                raise TransferError("the server redirects without end")
        except (requests.RequestException, HTTPError, ValueError) as error:
            is_address = isinstance(error, ValueError | LocationParseError)  # as requests' InvalidURL
            raise TransferError(_cause(error), retry=not is_address) from error
        status, after = response.status_code, _asked_wait(response)
        if status in (200, 206):
            return response
        reason = f"the server answers {status} {response.reason}".rstrip()
        if status in (400, 422):
            reason += f": {_body(response, time.monotonic() + 10, 2**20)[:500].decode(errors='replace')}"
        response.close()
        if after > LONGEST_WAIT:
            raise TransferError(f"{reason} and asks to wait {after:.0f} s", status=status)
        raise TransferError(reason, status in BUSY, after, status)

    def read(self, url: str, largest: int) -> bytes:
        """Read an answer of at most `largest` bytes, or raise TransferError."""
        deadline = time.monotonic() + self.timeout[2]
        return _body(self.ask(url), deadline, largest)

    def read_json(self, url: str, largest: int) -> dict:
        """Read a JSON object of at most `largest` bytes, or raise TransferError."""
        text = self.read(url, largest)
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TransferError(f"the answer is not JSON ({error}): {text[:80]!r}", retry=True) from error
        if isinstance(answer, dict):
            return answer
        raise TransferError("the answer is not a JSON object")

    def _send_get(self, url, timeout, headers):
        request = requests.Request("GET", url, headers={**self.headers, **headers}).prepare()
        url = str(request.url)
        if self.token and url.startswith(self.home):
            request.headers["Authorization"] = f"Bearer {self.token}"
        host = urlsplit(url)[:2]
        if host not in self._settings:
            self._settings[host] = self.merge_environment_settings(url, {}, True, None, None)
        return self.get_adapter(url).send(request, timeout=timeout, **self._settings[host])


def _asked_wait(response):
    try:
        return max(0.0, Retry().parse_retry_after(response.headers["Retry-After"]))
    except (KeyError, InvalidHeader, ValueError, OverflowError):
        return 0.0


def _chunks(response, deadline, largest):
    """Yield the body as it comes, until `deadline` (time.monotonic) and at most `largest` bytes."""
    total = 0
    while True:
        if time.monotonic() > deadline:
            raise TransferError(f"too slow: only {total:,} bytes came in the time allowed", retry=True)
        try:
            chunk = response.raw.read1(CHUNK)  # what has come, without waiting for a full chunk
        except HTTPError as error:
            raise TransferError(_cause(error), retry=True) from error
        if not chunk:
            return
        total += len(chunk)
        if total > largest:
            raise TransferError(f"the answer has more than {largest:,} bytes")
        yield chunk


def _body(response, deadline, largest):
    with response:
        response.raw.decode_content = True
        return b"".join(_chunks(response, deadline, largest))


@dataclass
class Part:
    """What has come of a file, and what the server called this version of it, by which the next attempt resumes."""

    path: Path
    validator: str = ""


def fetch(
    session: Session, url: str, part: Part, attempt: int = 0, stopped: Callable[[], bool] = lambda: False
) -> Mapping[str, str]:
    """Download the file at `url` to `part`, resuming where an earlier attempt ended if the server supports it.

    The first attempts, from 0, wait less for the next bytes, see `PATIENCE`. Once `stopped()` is true, nothing more is
    written. Returns the headers; the part is then whole and on the disk. Raises TransferError if the attempt failed,
    OSError if the disk is full (what came is deleted).
    """
    deadline, validator, begun = time.monotonic() + session.timeout[2], part.validator, 0
    headers = {"Accept-Encoding": "identity"}
    if validator:
        begun = part.path.stat().st_size
        headers |= {"Range": f"bytes={begun}-", "If-Range": validator}
    part.validator = ""  # unless the answer fits, the next attempt starts anew
    with session.ask(url, headers, PATIENCE * 2**attempt) as response:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransferError("the file comes compressed, as no image does")
        tag, length = response.headers.get("ETag", ""), response.headers.get("Content-Length", "")
        named = tag if tag[:1] == '"' else response.headers.get("Last-Modified", "")
        if response.status_code == 206:
            span = re.fullmatch(rf"bytes {begun}-\d+/(\d+)", response.headers.get("Content-Range", ""))
            if not span or named not in ("", validator):
                raise TransferError("the server does not resume where the part ends", retry=True)
            named, length = validator, span[1]
        if stopped():
            raise TransferError("stopped")
        with open(part.path, "ab" if response.status_code == 206 else "wb", buffering=0) as file:
            part.validator = named
            try:
                for chunk in _chunks(response, deadline, LARGEST):
                    if stopped():
                        raise TransferError("stopped")
                    file.write(chunk)
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), 0)
                raise
            came = file.tell()
        if length.isdecimal() and came != int(length):
            part.validator = named if came < int(length) else ""
            raise TransferError(f"cut short: {came:,} of {int(length):,} bytes came", retry=True)
        return response.headers


def require_allowed(url: str, home: str) -> None:
    """Raise TransferError for an address that a record of the archive at `home` must not lead to.

    The archive's own host is always allowed; one in a private network only if the archive is in one; a link-local host,
    where cloud machines keep their secrets, never.
    """
    parts, own = urlsplit(url), urlsplit(home)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise TransferError(f"not an address of http or https: {redacted(url)[:100]!r}")
    if parts.netloc != own.netloc:
        kind = _kind_of_host(parts.hostname)
        if kind == "forbidden" or (kind == "private" and _kind_of_host(own.hostname) == "public"):
            raise TransferError(f"address in a private network: {redacted(url)[:100]!r}")


@lru_cache(maxsize=1024)
def _kind_of_host(name):
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return "public"  # a proxy may know it; without one the request fails
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    addresses = [getattr(each, "ipv4_mapped", None) or each for each in addresses]
    if any(each.is_link_local or each.is_multicast or each.is_unspecified for each in addresses):
        return "forbidden"
    return "public" if all(each.is_global for each in addresses) else "private"


def _cause(error):
    """Return the cause inside the wrappers of requests and urllib3, as text."""
    while isinstance(error, requests.RequestException | HTTPError) and error.args:
        error = getattr(error, "reason", None) or error.args[-1]
    return str(error)[:300] or type(error).__name__
