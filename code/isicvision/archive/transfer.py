"""Bring bytes from an address to the disk: asked again where that may help, bounded in time and size.

Knows HTTP, and neither the ISIC Archive nor what the bytes mean.
"""

import errno
import ipaddress
import os
import random
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError, InvalidHeader, LocationParseError
from urllib3.util import Retry

from ..text import redacted

ATTEMPTS = 6
BACKOFF = 0.5  # s before the second attempt, doubled for each further one
PATIENCE = 5  # s without a byte that the first attempt bears; each further one bears twice as much
LONGEST_WAIT = 120  # s; of a server that asks for more we ask nothing until the next call
SLOWEST = 1000  # bytes a second, on the average of an attempt after its first SETTLED seconds
SETTLED = 30
LARGEST = 2**32  # bytes of a file
ROOM = 2**22  # bytes left free on the disk, for the journal and the metadata
CHUNK = 2**20
BUSY = (408, 425, 429, 500, 502, 503, 504)


class TransferError(Exception):
    """An attempt failed, for `reason`; if `again` is true, another may succeed, not before `after` seconds.

    `status` is the server's, an int; None if it did not answer.
    """

    def __init__(
        self, reason: object, again: bool = False, after: float = 0.0, status: int | None = None
    ) -> None:
        self.reason, self.again, self.after, self.status = redacted(reason), again, after, status
        super().__init__(self.reason)


def pause(attempt: int, after: float = 0.0) -> float:
    """Return the seconds to wait after attempt number `attempt` (from 0), with jitter; at least `after`."""
    return after + BACKOFF * 2**attempt * random.uniform(0.5, 1.5)


class Session(requests.Session):
    """The connections, proxies and certificates of `requests`, used by several threads at once.

    Without its cookies, the passwords of ~/.netrc and its following of redirections, which also halves its time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._settings = {}  # by host

    def ask(
        self,
        url: str,
        headers: dict,
        timeout: tuple[float, float],
        auth: requests.auth.AuthBase | None = None,
    ) -> requests.Response:
        """Send a GET; the body of the answer is not read."""
        request = requests.Request("GET", url, headers={**self.headers, **headers}, auth=auth).prepare()
        url = str(request.url)
        host = urlsplit(url)[:2]
        if host not in self._settings:
            self._settings[host] = self.merge_environment_settings(url, {}, True, None, None)
        return self.get_adapter(url).send(request, timeout=timeout, **self._settings[host])


def get(
    session: Session,
    url: str,
    headers: dict,
    timeout: tuple[float, float],
    guard: Callable[[str], None] | None = None,
    auth: requests.auth.AuthBase | None = None,
) -> requests.Response:
    """Ask for `url`, following redirections itself so that `guard(url)` and `auth` see each address.

    `auth` must keep a secret to the host that it is for, as archive's `_Bearer` does; `timeout` is in seconds: for the
    connection, the next bytes. Returns a successful response (or 416 to a request with a Range), its body not read yet.
    Raises TransferError if there is no answer, or another one than success.
    """
    try:
        for _ in range(5):
            if guard:
                guard(url)
            response = session.ask(url, headers, timeout, auth)
            if not response.is_redirect:
                break
            response.close()
            url = urljoin(url, response.headers["Location"])
        else:
            raise TransferError("redirected without end")
    except (requests.RequestException, HTTPError, UnicodeError) as error:
        is_address = isinstance(error, ValueError | LocationParseError)  # requests' InvalidURL and its like
        raise TransferError(why(error), again=not is_address) from error
    status, after = response.status_code, _asked_wait(response)
    if status in (200, 206) or (status == 416 and "Range" in headers):
        return response
    reason = f"the server answers {status} {response.reason}".rstrip()
    if status in (400, 422):
        reason += f": {body(response, time.monotonic() + 10, 2**20)[:500].decode(errors='replace')}"
    response.close()
    if after > LONGEST_WAIT:
        raise TransferError(f"{reason} and asks to wait {after:.0f} s", status=status)
    raise TransferError(reason, again=status in BUSY, after=after, status=status)


def _asked_wait(response):
    try:
        return max(0.0, Retry().parse_retry_after(response.headers["Retry-After"]))
    except (KeyError, InvalidHeader, ValueError, OverflowError):
        return 0.0


def chunks(response: requests.Response, deadline: float, largest: int) -> Iterator[bytes]:
    """Read the body piece by piece, no longer than to `deadline` (time.monotonic), and at most `largest` bytes.

    Raises TransferError if the connection breaks, stalls or trickles (`SLOWEST`), it takes too long, or too much comes.
    """
    total, started = 0, time.monotonic()
    while True:
        now = time.monotonic()
        if now > deadline or (now - started > SETTLED and total < SLOWEST * (now - started)):
            raise TransferError(f"too slow: {total:,} bytes in {now - started:.0f} s", again=True)
        try:
            chunk = response.raw.read1(CHUNK)  # what has come, without waiting for a full chunk
        except HTTPError as error:
            raise TransferError(why(error), again=True) from error
        if not chunk:
            return
        total += len(chunk)
        if total > largest:
            raise TransferError(f"more than {largest:,} bytes come")
        yield chunk


def body(response: requests.Response, deadline: float, largest: int) -> bytes:
    """Read a body into memory, unpacked if it comes packed."""
    with response:
        response.raw.decode_content = True
        return b"".join(chunks(response, deadline, largest))


class Part:
    """What has come of one file, under a name that says how to go on: ``<name>~<validator>``.

    The validator is the strong ETag, else the date, of what the server sent (RFC 9110, 13.1.5 If-Range); a server that
    gives neither starts from the beginning. `folder` is for the parts of one download; `name` is unique in it, and has
    no ``~``.
    """

    def __init__(self, folder: Path, name: str, path: Path | None = None) -> None:
        self.folder, self.name = folder, name
        self.path: Any = path  # or None

    @staticmethod
    def left_in(folder: Path) -> dict[str, Path]:
        """Find the parts that an earlier call left, by their names."""
        return {path.name.partition("~")[0]: path for path in folder.iterdir()} if folder.is_dir() else {}

    @property
    def size(self) -> int:
        """Bytes that are there."""
        try:
            return os.stat(self.path).st_size if self.path else 0
        except FileNotFoundError:
            return 0

    @property
    def validator(self) -> str:
        """What the server called this version of the file, or an empty string."""
        return unquote(self.path.name.partition("~")[2]) if self.path else ""

    def begin(self, validator: str) -> None:
        """Forget what is there and name the file for a new beginning."""
        self.drop()
        self.path = self.folder / f"{self.name}~{quote(validator, safe='')[:150]}"

    def drop(self) -> None:
        """Delete what is there."""
        if self.path:
            self.path.unlink(missing_ok=True)
            self.path = None


def fetch(
    session: Session,
    url: str,
    part: Part,
    timeout: tuple[float, float, float],
    attempt: int = 0,
    guard: Callable[[str], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Mapping[str, str]:
    """Bring the file at `url` to `part`, going on where an earlier attempt ended if the server allows.

    `timeout` is in seconds: for the connection, the next bytes, the whole attempt. The first attempts (from 0) bear
    less silence, see `PATIENCE`. `guard(url)` sees every address and raises TransferError to forbid it; once
    `stopped()`, nothing is written. Returns the headers; the part is then as long as the server said, and on the disk.
    Raises TransferError if the attempt failed (what came stays if it can be gone on with), OSError if the disk takes no
    more (what came is deleted).
    """
    connect, read, overall = timeout
    deadline = time.monotonic() + overall
    begun = part.size
    headers = {"Accept-Encoding": "identity"}
    if begun and part.validator:
        headers |= {"Range": f"bytes={begun}-", "If-Range": part.validator}
    response = get(session, url, headers, (connect, min(read, PATIENCE * 2**attempt)), guard)
    with response:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise TransferError("the body comes packed, which no image is")
        whole, mode = _expected(response, part, begun), "ab"
        if response.status_code == 416:
            return response.headers
        if response.status_code == 200:
            validator = response.headers.get("ETag", "")
            if not validator or validator.startswith("W/"):
                validator = response.headers.get("Last-Modified", "")
            part.begin(validator)
            mode = "wb"
        try:
            _require_room(part.folder, (whole or 0) - (begun if mode == "ab" else 0))
            with open(part.path, mode, buffering=0) as file:  # a killed process leaves what came
                for chunk in chunks(response, deadline, LARGEST):
                    if stopped():
                        raise TransferError("stopped")
                    file.write(chunk)
                os.fsync(file.fileno())
        except OSError:
            part.drop()
            raise
        except TransferError:
            if not part.validator:
                part.drop()
            raise
        if whole is not None and part.size != whole:
            came = part.size
            if came > whole or not part.validator:
                part.drop()
            raise TransferError(f"cut short: {came:,} of {whole:,} bytes came", again=True)
        return response.headers


def _expected(response, part, begun):
    """Return how many bytes the whole file has, None if the server does not say; refuse what does not fit the part."""
    try:
        if response.status_code == 200:
            return int(response.headers["Content-Length"])
        if response.status_code == 416 and response.headers["Content-Range"] == f"bytes */{begun}":
            return begun  # all of it had come
        unit, _, span = response.headers["Content-Range"].partition(" ")
        first, total = int(span.partition("-")[0]), span.partition("/")[2]
        tag = response.headers.get("ETag")
        other = tag and part.validator.startswith('"') and tag != part.validator
        if unit == "bytes" and first == begun > 0 and not other:
            return int(total) if total != "*" else None
    except (KeyError, ValueError):
        if response.status_code == 200:
            return None
    part.drop()
    raise TransferError("the server does not go on where the part that is there ends", again=True)


def _require_room(folder, size):
    free = shutil.disk_usage(folder).free
    if size + ROOM > free:
        reason = f"{free / 1e6:.1f} MB are free, less than the next file needs"
        raise OSError(errno.ENOSPC, reason, str(folder))


def outsider_guard(home: str) -> Callable[[str], None]:
    """Make a guard that keeps the addresses in an archive's records from reaching into private networks.

    Files at the host of `home`, the archive's own address, are always allowed, and so are private hosts if it is itself
    at one (an archive on loopback, or in a hospital); link-local hosts, where cloud machines keep their secrets, never
    are. The guard gets an address, and raises TransferError.
    """
    own = urlsplit(home)

    def guard(url):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise TransferError(f"not an address of http or https: {redacted(url)[:100]!r}")
        if parts.netloc != own.netloc:
            kind = _kind_of_host(parts.hostname)
            if kind == "forbidden" or (kind == "private" and _kind_of_host(own.hostname) == "public"):
                raise TransferError(
                    "an address in a private network, which this archive has no business to name: "
                    f"{redacted(url)[:100]!r}"
                )

    return guard


@lru_cache(maxsize=1024)
def _kind_of_host(name):
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):
        return "public"  # unknown here: a proxy may know it, and without one the request fails by itself
    addresses = [ipaddress.ip_address(address.partition("%")[0]) for address in found]
    addresses = [getattr(each, "ipv4_mapped", None) or each for each in addresses]
    if any(each.is_link_local or each.is_multicast or each.is_unspecified for each in addresses):
        return "forbidden"
    return "public" if all(each.is_global for each in addresses) else "private"


def why(error: BaseException) -> str:
    """Dig the cause out of the wrappers of requests and urllib3."""
    while isinstance(error, requests.RequestException | HTTPError) and error.args:
        error = getattr(error, "reason", None) or error.args[-1]
    return str(error)[:300] or type(error).__name__
