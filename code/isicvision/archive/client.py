"""Client of the ISIC Archive: ask what it has, walk through its records, download images.

Speaks the ISIC Archive API v2 (https://api.isic-archive.com/api/docs/swagger/).
"""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm

from .. import __version__
from ..checks import is_number, is_whole
from ..files import PROJECT_ROOT, user_path
from ..text import redacted, secret
from . import transfer
from .download import Download, DownloadReport, StoppedError, choose, labeler
from .sample import SampleAdapter
from .transfer import TransferError

ISIC = "https://api.isic-archive.com/api/v2/"
SAMPLE = "http://sample.invalid/api/v2/"  # .invalid can never be a real host (RFC 2606)
PAGE = 100  # the most that the API gives at once
LARGEST_PAGE = 2**26  # bytes of JSON; a hundred records take some 300 kB
DEEPEST = 50  # levels of a record that are read
IDLE_PAGES = 3  # pages in a row without a new image


class ArchiveError(RuntimeError):
    """The archive cannot be reached, or answers what its API does not allow; the message says what to do.

    Attributes
    ----------
    report : DownloadReport or None
        What a download had brought until then.
    """

    report: DownloadReport | None = None


class IsicArchive:
    """The ISIC Archive, or another one with the same API.

    Parameters
    ----------
    source
        ``"isic"``: the public archive at api.isic-archive.com. ``"sample"``: the synthetic images of this
        repository, without a network. Or the http(s) address of an archive with the same API, such as
        ``"http://localhost:8000"``.
    timeout
        Seconds to wait for a connection, for the next bytes, and for a whole answer (600 if not given). An image
        that takes longer is gone on with in the next attempt, where the host allows.
    token
        OAuth2 bearer token, for images that are not public. Default: the environment variable ``ISIC_TOKEN``. It is
        sent to the API alone, never to the hosts of files, and over https only (or to loopback).

    Attributes
    ----------
    url : str
        Where the API begins.
    name : str
        Short name, fit for a folder: ``isic``, ``sample``, or host and port.

    Raises
    ------
    ValueError
        If `source` is none of these, or a token would travel in the clear.
    FileNotFoundError
        If the sample is asked for outside the repository.
    """

    def __init__(
        self, source: str = "isic", timeout: tuple[float, ...] = (5, 30, 600), token: str | None = None
    ) -> None:
        self.url, self.name = _locate(source)
        if not isinstance(timeout, tuple | list) or len(timeout) not in (2, 3):
            raise ValueError(f"timeout is two or three numbers of seconds, such as (5, 30), not {timeout!r}")
        if not all(is_number(seconds, 0.001) for seconds in timeout):
            raise ValueError(f"timeout: each number of seconds is above 0 and finite, not {timeout!r}")
        self.timeout = (*timeout, 600)[:3]
        self.guard = transfer.outsider_guard(self.url)
        self.session = transfer.Session()
        self.session.headers["User-Agent"] = f"isicvision/{__version__} {self.session.headers['User-Agent']}"
        for scheme in ("https://", "http://"):
            self.session.mount(scheme, HTTPAdapter(pool_maxsize=64))
        if self.url == SAMPLE:
            self.session.mount(SAMPLE.removesuffix("api/v2/"), SampleAdapter(PROJECT_ROOT / "sample_data"))
        if self.url != SAMPLE:
            token = secret(token, "token") or secret(os.environ.get("ISIC_TOKEN"), "ISIC_TOKEN")
        self._auth = _Bearer(token, self.url) if token and self.url != SAMPLE else None
        self._is_known = self._auth is None

    def __repr__(self):
        return f"IsicArchive({self.url!r})"

    def count(self, query: str | None = None, collections: int | Sequence[int] | None = None) -> int:
        """Count the images that `query` finds.

        Parameters
        ----------
        query
            In the archive's own language, such as ``'diagnosis_1:Malignant AND age_approx:[20 TO 40]'``; all
            images if not given. The fields are those of `isicvision.fields.SEARCHABLE`; values are case-sensitive.
        collections
            Only images in any of these, see `collections`.

        Raises
        ------
        ValueError
            If the archive does not understand `query`; with what it says.
        ArchiveError
            If the archive cannot be reached.
        """
        count = self._ask("images/search/", query, collections, limit=1).get("count")
        if not isinstance(count, int):
            raise ArchiveError(f"{self.url} does not say how many images it has: not the API v2?")
        return count

    def size(self, query: str | None = None, collections: int | Sequence[int] | None = None) -> int:
        """Return the bytes of the full-size images that `query` finds, as the archive's nightly index has it."""
        size = self._ask("images/search/size/", query, collections).get("size")
        if not isinstance(size, int | float) or not 0 <= size < math.inf:
            raise ArchiveError(f"{self.url} does not say how large its images are: not the API v2?")
        return int(size)

    def facets(
        self, query: str | None = None, collections: int | Sequence[int] | None = None
    ) -> dict[str, dict[str | None, int]]:
        """Count the images that `query` finds by the values of each field, before anything is downloaded.

        Returns
        -------
        dict of str to dict of str to int
            Field to value to images, the most frequent first; ``None`` stands for a missing value. The archive's
            index is of the last night: `count` may differ a little.
        """
        answer = self._ask("images/facets/", query, collections)
        facets = {}
        for name, field in answer.items():
            try:
                counts = {b.get("key_as_string", b["key"]): b["doc_count"] for b in field["buckets"]}
                missing = (field.get("meta") or {}).get("missing_count")
            except (TypeError, KeyError, AttributeError):
                raise ArchiveError(f"{self.url}images/facets/ answers in no shape of the API v2") from None
            facets[name] = counts | ({None: missing} if missing else {})
        return facets

    def collections(self) -> list[dict]:
        """List the archive's collections, each with ``id``, ``name``, ``description``, ``doi`` and more."""
        url: str | None = f"{self.url}collections/?limit={PAGE}"
        found: dict = {}
        while url:
            page = self._page(url)
            before = len(found)
            found |= {each["id"]: each for each in page["results"] if isinstance(each, dict) and "id" in each}
            url = self._next(page) if len(found) > before else None
        return [*found.values()]

    def record(self, isic_id: str) -> dict:
        """Read the record of one image: dict, as `search` yields it.

        Raises
        ------
        ArchiveError
            If there is none, or the archive cannot be reached.
        """
        return self._json(f"{self.url}images/{isic_id}/")

    def search(
        self,
        query: str | None = None,
        limit: int | None = None,
        collections: int | Sequence[int] | None = None,
    ) -> Iterator[dict]:
        """Walk through the records of the images that `query` finds, oldest first.

        Parameters
        ----------
        query, collections
            As of `count`.
        limit
            Stop after as many records; all if not given. Pages are asked for only as they are needed.

        Yields
        ------
        dict
            A record of the ISIC Archive API v2: ``isic_id``, ``files``, ``metadata``, ``attribution``,
            ``copyright_license``. No ``isic_id`` comes twice.

        Raises
        ------
        ValueError
            If `limit` is negative or the archive does not understand `query`.
        ArchiveError
            If the archive cannot be reached, its pages go round in a circle or lead to another host.
        """
        return iter(Listing(self, query, limit, collections))

    def download(
        self,
        folder: str | os.PathLike,
        query: str | None = None,
        limit: int | None = None,
        label: str | Mapping[str, str] | Callable[[dict], str | None] = "diagnosis_1",
        *,
        collections: int | Sequence[int] | None = None,
        per_label: dict[str, int | None] | None = None,
        seed: int | None = None,
        max_side: int | None = None,
        thumbnails: bool = False,
        connections: int = 8,
        progress: bool = True,
    ) -> DownloadReport:
        """Download images to ``folder/<label>/<isic_id>.<extension>``; the same call again goes on.

        Each image is checked and on the disk before it gets its name; one that is there is not fetched again, and
        one of which a part came is gone on with, where the host allows. Beside the images are kept up to date:
        ``metadata.csv`` (a row an image, those of earlier calls included), ``attribution.txt``, ``licenses.txt``,
        ``missing.csv`` (what could not be had, and why) and the ``journal.sqlite`` that remembers all this.

        Parameters
        ----------
        folder
            Empty, new, or filled by an earlier download from the same archive.
        query, collections
            As of `count`.
        limit
            As of `search`: counts the images found, be they new, present or without a label.
        label
            A field, such as the default: its value in lower case is the label (``benign``, …). Any other string is
            itself the label of all. A mapping gives the label of an isic_id or of a diagnosis, the finest level
            first. A function gets the record and returns a str, or None. Images without a label are listed as
            skipped. Characters unfit for a folder's name become ``_``.
        per_label
            How many images of each label, such as ``{"benign": 200, "malignant": 200}``, None for all; no others.
        seed
            With `limit` or `per_label`: a random sample, the same for the same seed, instead of the oldest images.
            The API cannot shuffle, so the whole listing is walked first, 100 records a request.
        max_side
            Store larger images reduced to this many pixels on the longer side, as JPEG; ``original_width`` and
            ``original_height`` in metadata.csv are in pixels.
        thumbnails
            Fetch the archive's small images (at most 256 pixels a side) instead of the full ones.
        connections
            Images fetched at the same time.
        progress
            Show a bar.

        Returns
        -------
        DownloadReport
            Every image is in it, with the reason if it could not be had or has no label.

        Raises
        ------
        ValueError
            If the query is not understood, `label` is unfit for a folder, `folder` holds something else, or
            arguments do not go together.
        ArchiveError
            If the archive cannot be listed, the disk is (or would be) full, or image after image is refused. What
            came until then is kept and in the error's ``report``.
        """
        folder, started, label_of = user_path(folder), time.monotonic(), labeler(label)
        _require_sense(limit, per_label, seed, max_side, thumbnails, connections)
        listing = Listing(self, query, limit if seed is None else None, collections)
        listing.begin()  # refuses a bad query before anything is written
        ends = [limit, listing.count]
        if per_label and None not in per_label.values():
            ends.append(sum(number or 0 for number in per_label.values()))
        wanted = min((number for number in ends if number is not None), default=None)
        bar = tqdm(total=wanted, unit="image", leave=False, disable=not progress)
        run = Download(self, folder, label_of, max_side, thumbnails, connections, bar)

        def records():
            if not max_side and not thumbnails:
                to_come = (wanted or 0) - len(run.journal)
                self._require_room(folder, query, collections, to_come, listing.count)
            yield from choose(listing, label_of, limit, per_label, seed)

        goes_on = f"what came is kept in {folder}, and the same call goes on from there"
        try:
            run.run(records())
        except (ArchiveError, StoppedError) as error:
            stop = ArchiveError(f"{error}\nThe download stopped; {goes_on}.")
            stop.report = run.report
            raise stop from error
        except KeyboardInterrupt:
            tqdm.write(f"stopped; {goes_on}")
            raise
        finally:
            run.report.seconds = time.monotonic() - started
            run.report.notes += listing.notes()
        if per_label:
            came = Counter(path.parent.name for path in run.report.fetched + run.report.present)
            run.report.notes += [
                f"{name}: {came[name]} of the {number} wanted"
                for name, number in per_label.items()
                if came[name] < (number or 0)
            ]
        return run.report

    def _require_room(self, folder, query, collections, wanted, count):
        """Refuse a download that cannot fit on the disk, by the archive's own sum of sizes."""
        if wanted <= 0 or not count:
            return
        try:
            needed = self.size(query, collections) * wanted / count
        except (ArchiveError, ValueError):  # an undocumented part of the API: good to have, no more
            return
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise ArchiveError(
                f"about {needed / 1e6:,.0f} MB are to come, {free / 1e6:,.0f} MB are free in {folder}: choose another "
                "folder, or take less by limit=, max_side= or thumbnails=True"
            )

    def _ask(self, path, query, collections, **params):
        self._require_login()
        return self._json(self._address(path, query, collections, **params), query)

    def _require_login(self):
        """See once whether the token is good: the open parts of the API take a bad one for none, and list less."""
        if not self._is_known:
            try:
                self._json(f"{self.url}users/me/")
            except ArchiveError as error:
                if error.__cause__.status in (401, 403):
                    raise ArchiveError(
                        f"{self.url} does not accept the token of ISIC_TOKEN: get a new one, or unset it"
                    ) from None
                raise
            self._is_known = True

    def _address(self, path, query, collections, **params):
        if collections is not None:
            numbers = [collections] if isinstance(collections, int) else [*collections]
            if not numbers or not all(isinstance(number, int) for number in numbers):
                raise ValueError(f"collections must be one number or a list of them, not {collections!r}")
            params["collections"] = ",".join(map(str, numbers))
        if query is not None and not isinstance(query, str):
            raise ValueError(f"query is text, such as 'sex:female', not {query!r}")
        if query:
            params["query"] = query
        return f"{self.url}{path}?{urlencode(params)}"

    def _page(self, url, query=None, first=True):
        page = self._json(url, query, first)
        if not isinstance(page.get("results"), list):
            raise ArchiveError(f"{url} does not answer with a page of records: not the ISIC Archive API v2?")
        return page

    def _next(self, page):
        """Return the address of the next page, which must be of this archive; None if there is none."""
        url = page.get("next")
        if not url:
            return None
        if not isinstance(url, str) or urlsplit(url)[:2] != urlsplit(self.url)[:2]:
            raise ArchiveError(
                f"{self.url} names a next page on another host, not followed: {redacted(url):.200}"
            )
        return url

    def _json(self, url, query=None, first=True):
        """Ask for a JSON object, again and again where that may help."""
        attempt = 0
        while True:
            try:
                return self._attempt(url)
            except TransferError as fault:
                if fault.status in (400, 422) and first:
                    raise ValueError(
                        f"{self.url} does not understand the query {query!r}: {fault.reason}. A query is like "
                        "'diagnosis_1:Malignant AND sex:female'; isicvision.fields.SEARCHABLE lists the fields."
                    ) from None
                attempt += 1
                if not fault.again or attempt == transfer.ATTEMPTS:
                    raise ArchiveError(
                        f"{url[:300]} cannot be read: {fault.reason}. Check the network and the address, then make the "
                        "same call again; IsicArchive('sample') needs no network."
                    ) from fault
                time.sleep(transfer.pause(attempt - 1, fault.after))

    def _attempt(self, url):
        connect, read, overall = self.timeout
        deadline = time.monotonic() + overall
        response = transfer.get(self.session, url, {}, (connect, read), auth=self._auth)
        text = transfer.body(response, deadline, LARGEST_PAGE)
        try:
            answer = _parse(text)
        except ValueError as error:
            raise TransferError(f"the answer is no JSON ({error}): {text[:80]!r}", again=True) from error
        if not isinstance(answer, dict):
            raise TransferError("the answer is no JSON object: not the ISIC Archive API v2?")
        return answer


class Listing:
    """The records that a query finds, page by page as they are asked for.

    `count` is how many the archive says there are, known after `begin`, or None; `listed` how many came, `twice` how
    many came once more and were left out.
    """

    def __init__(
        self,
        archive: IsicArchive,
        query: str | None,
        limit: int | None,
        collections: int | Sequence[int] | None,
    ) -> None:
        if limit is not None and not is_whole(limit, 0):
            raise ValueError(f"limit must not be negative but a whole number, not {limit!r}")
        self.archive, self.query, self.limit = archive, query, limit
        # the API would take a limit of 0 for 100
        size = max(1, min(PAGE, limit or PAGE))
        self._url = archive._address("images/search/", query, collections, limit=size)
        self._page: Any = None
        self.count: int | None = None
        self._is_whole, self.listed, self.twice = False, 0, 0

    def begin(self) -> None:
        """Ask for the first page."""
        self.archive._require_login()
        self._page = self.archive._page(self._url, self.query)
        count = self._page.get("count")
        self.count = count if isinstance(count, int) else None

    def __iter__(self):
        if self.limit == 0:
            return
        if self._page is None:
            self.begin()
        seen, pages, idle = _Seen(), {self._url}, 0
        while True:
            before = self.listed
            for record in self._page["results"]:
                isic_id = record.get("isic_id") if isinstance(record, dict) else None
                if isinstance(isic_id, str) and not seen.add(isic_id):
                    self.twice += 1
                    continue
                self.listed += 1
                yield record
                if self.listed == self.limit:
                    return
            url = self.archive._next(self._page)
            if url is None:
                self._is_whole = True
                return
            idle = idle + 1 if self.listed == before else 0
            if url in pages or idle == IDLE_PAGES:
                raise ArchiveError(
                    f"the pages of {self.archive.url} go round in a circle after {self.listed} images: a fault "
                    f"of the archive. Narrow the query {self.query!r}, or set limit={self.listed} to take what came."
                )
            pages.add(url)
            self._page = self.archive._page(url, self.query, first=False)

    def notes(self) -> list[str]:
        """Say what is odd about the listing."""
        notes = [f"the archive listed {self.twice} images twice; each was taken once"] if self.twice else []
        if self._is_whole and self.count not in (None, self.listed):
            notes.append(f"the archive counted {self.count} images and listed {self.listed}")
        return notes


class _Seen:
    """A set of isic_ids that stays small: ``ISIC_`` and 7 digits, as the archive has them, take a bit each."""

    def __init__(self) -> None:
        self._bits, self._others = bytearray(10**7 // 8), set()

    def add(self, isic_id: str) -> bool:
        """Add one; say whether it is new."""
        if not re.fullmatch(r"ISIC_[0-9]{7}", isic_id):
            new = isic_id not in self._others
            self._others.add(isic_id)
            return new
        place, bit = divmod(int(isic_id[5:]), 8)
        new = not self._bits[place] >> bit & 1
        self._bits[place] |= 1 << bit
        return new


class _Bearer(requests.auth.AuthBase):
    """Sends the token to the API's own host (`requests` would else prefer what ~/.netrc says)."""

    def __init__(self, token: str, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                f"{url} is not https, a token would travel in the clear: unset ISIC_TOKEN, or use https"
            )
        self._token, self._origin = token, parts[:2]

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if urlsplit(request.url)[:2] == self._origin:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _require_sense(limit, per_label, seed, max_side, thumbnails, connections):
    """Refuse arguments of `download` that do not go together."""
    if per_label is not None and limit is not None:
        raise ValueError("limit counts all images, per_label those of each label: give one of the two")
    if seed is not None and per_label is None and limit is None:
        raise ValueError("seed draws a sample: say how many by limit= or per_label=")
    if max_side and thumbnails:
        raise ValueError("thumbnails are small already: give max_side or thumbnails, not both")
    for name, value in (("connections", connections), ("max_side", max_side), *(per_label or {}).items()):
        if value is not None and not is_whole(value, 1):
            raise ValueError(f"{name} must be a whole number from 1, not {value!r}")


def _parse(text):
    """Read JSON; what is nested deeper than `DEEPEST` becomes null, before Python's own reader runs out of stack."""
    kept, depth, start = [], 0, 0
    for match in re.finditer(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', text, re.DOTALL):
        if match[0] in (b"[", b"{"):
            depth += 1
            if depth == DEEPEST:
                kept += [text[start : match.start()], b"null"]
        elif match[0] in (b"]", b"}"):
            if depth == DEEPEST:
                start = match.end()
            depth -= 1
    return json.loads(b"".join([*kept, text[start:]]), parse_int=_whole)


def _whole(digits):
    """Read a whole number; one of hundreds of digits, on which Python may give up, as a number that is not finite."""
    return int(digits) if len(digits) < 300 else math.inf


def _locate(source):
    """Turn what the user calls the source into the API's address and a short name."""
    known = {"isic": ISIC, "sample": SAMPLE}
    parts = urlsplit(known.get(source, source) if isinstance(source, str) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            "source must be 'isic', 'sample' or the http(s) address of an archive, not "
            f"{redacted(repr(source))}. For images in a directory use ImageDataset.from_folder or "
            "ImageDataset.from_csv."
        )
    prefix = f"{parts.netloc}{parts.path}".rstrip("/").removesuffix("/api/v2")
    url = f"{parts.scheme}://{prefix}/api/v2/"
    names = {address: name for name, address in known.items()}
    return url, names.get(url) or re.sub(r"[^\w.-]+", "_", prefix).strip("_.")
