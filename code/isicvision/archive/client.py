"""Ask the ISIC Archive's API v2 (https://api.isic-archive.com/api/docs/swagger/), and download its images."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from tqdm.auto import tqdm

from ..checks import is_number, is_whole
from ..files import SAMPLE_DATA, user_path
from ..text import near, redacted, secret
from . import transfer
from .download import ArchiveError, Download, DownloadReport
from .labels import choose, labeler
from .transfer import TransferError

ISIC = "https://api.isic-archive.com/api/v2/"
SAMPLE = "http://sample.invalid/api/v2/"  # .invalid can never be a real host (RFC 2606)
KNOWN = {"isic": ISIC, "sample": SAMPLE}
Numbers = int | str | Sequence[int | str] | None
PAGE = 100  # the most records that the API gives at once
LARGEST_PAGE = 2**26  # bytes of JSON; a hundred records take some 300 kB


def _sample():
    """Return what answers for the bundled sample, a program beside its images."""
    file = SAMPLE_DATA / "sample_archive.py"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: install isicvision again")
    spec: Any = importlib.util.spec_from_file_location(file.stem, file)
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module.SampleArchive(file.parent)


class IsicArchive:
    """The ISIC Archive, or another one with the same API.

    `source` is ``"isic"``, the public archive; ``"sample"``, the synthetic images of this package, which need no
    network; or an address such as ``"http://localhost:8000"``. `token` is an OAuth2 bearer token for images that are
    not public, by default the environment variable ``ISIC_TOKEN``; it goes to the API only, and over https only (or to
    loopback). `url` is where the API begins; `name` is fit for a folder.

    >>> archive = IsicArchive("sample")
    >>> archive.count("diagnosis_1:Malignant"), archive.facets()["sex"]
    (79, {'female': 90, 'male': 63, None: 6})
    """

    def __init__(self, source: str = "isic", token: str | None = None):
        self.url, self.name = _locate(source)
        if self.url == SAMPLE:
            self.session = transfer.Session(self.url)
            self.session.mount(SAMPLE.removesuffix("api/v2/"), _sample())
        else:
            token = secret(token, "token") or secret(os.environ.get("ISIC_TOKEN"), "ISIC_TOKEN")
            self.session = transfer.Session(self.url, token)
        self._is_known = self.session.token is None
        self._names: dict[str, str] = {}  # of the collections, by number

    def __repr__(self):
        return f"IsicArchive({self.url!r})"

    def count(self, query: str | None = None, collections: Numbers = None) -> int:
        """Count the images that `query` finds; ValueError if the archive does not understand it.

        `query` is in the archive's own language, such as ``'diagnosis_1:Malignant AND age_approx:[20 TO 40]'``:
        `isicvision.fields.SEARCHABLE` lists the fields; values are case-sensitive. `collections` narrows it to those,
        by number or by name; ValueError if there is none of that number or name.
        """
        return self._number("count", "images/search/", query, collections, limit=1)

    def size(self, query: str | None = None, collections: Numbers = None) -> int:
        """Return the bytes of the full-size images that `query` finds, from the archive's nightly index."""
        return self._number("size", "images/search/size/", query, collections)

    def facets(
        self, query: str | None = None, collections: Numbers = None
    ) -> dict[str, dict[str | None, int]]:
        """Count images by the values of each field, the most frequent first; ``None`` counts those without one."""
        facets = {}
        for name, field in self._json(self._url("images/facets/", query, collections), query).items():
            try:
                buckets, missing = field["buckets"], field["meta"]["missing_count"]
                counts = {each.get("key_as_string", each["key"]): each["doc_count"] for each in buckets}
            except (TypeError, KeyError, AttributeError):
                raise ArchiveError(f"{self.url} does not count by {name} as the API v2 does") from None
            facets[name] = counts | ({None: missing} if missing else {})
        return facets

    def collections(self) -> list[dict]:
        """List the archive's collections, each with ``id``, ``name``, ``description``, ``doi`` and more."""
        pages = self._pages(f"{self.url}collections/?limit={PAGE}")
        return [each for page in pages for each in page["results"]]

    def record(self, isic_id: str) -> dict:
        """Return the record of one image, as `search` yields it; ArchiveError if there is none."""
        return self._json(f"{self.url}images/{isic_id}/")

    def search(
        self, query: str | None = None, limit: int | None = None, collections: Numbers = None
    ) -> Iterator[dict]:
        """Yield the records of at most `limit` images that `query` finds (see `count`), each once, the oldest first.

        A record is a dict of the API, with ``isic_id``, ``files``, ``metadata``, ``attribution`` and
        ``copyright_license``. Pages are asked for as needed; ArchiveError if they form a circle or leave the host.
        """
        return self._listing(query, limit, collections)[1]

    def download(
        self,
        folder: str | os.PathLike,
        query: str | None = None,
        limit: int | None = None,
        *,
        label_field: str | None = None,
        label: str | Mapping[str, str] | Callable[[dict], str | None] | None = None,
        collections: Numbers = None,
        per_label: dict[str, int | None] | None = None,
        seed: int | None = None,
        max_side: int | None = None,
        thumbnails: bool = False,
        connections: int = 8,
        progress: bool = True,
    ) -> DownloadReport:
        """Download images to ``folder/<label>/<isic_id>.<extension>``; the same call again resumes.

        Beside the images stand ``metadata.csv`` (a row an image), ``attribution.txt``, ``licenses.txt``,
        ``missing.csv`` (images that could not be had, and why) and ``journal.sqlite``, which remembers all this.
        `folder` is empty, new, or filled by an earlier download from the same archive.

        Images are chosen by `query`, `limit` and `collections` as in `search` (`limit` also counts images that are
        present or have no label), or by `per_label`: the most images of each label, such as ``{"benign": 200,
        "malignant": None}`` (None: all), and of no other. With a `seed` they are a random sample, not the oldest
        images; the whole listing is walked first.

        The label is the value, in lower case, of the archive's field `label_field` (default ``diagnosis_1``), or it is
        given by `label`: a word for all images; a mapping from isic_ids or diagnoses (the finest level counts) to
        labels; or a function of the record. Images without a label are skipped and listed.

        Images larger than `max_side` pixels are reduced to that, as JPEG; metadata.csv keeps their size in
        ``original_width`` and ``original_height``. `thumbnails` (at most 256 pixels a side) are fetched instead if so
        wanted, by at most so many `connections` at once.

        Raises ValueError if `folder` or an argument is unfit, ArchiveError if the archive cannot be listed, the disk is
        (or would be) full, or many images in a row are refused; its ``report`` says what came, which is kept.

        >>> IsicArchive("sample").download("images", limit=2, progress=False)
        fetched 2, present 0, failed 0, skipped 0 in ... s: images
        """
        folder, label_of = user_path(folder), labeler(label_field, label)
        _require_sense(limit, per_label, seed, max_side, thumbnails, connections)
        # refuses a bad query before anything is written
        count, listing = self._listing(query, limit if seed is None else None, collections)
        numbers = [*(per_label or {"": None}).values()]
        ends = [limit, count, None if None in numbers else sum(number or 0 for number in numbers)]
        wanted = min((number for number in ends if number is not None), default=0)
        bar = tqdm(total=wanted or None, unit="image", leave=False, disable=not progress)
        run = Download(folder, self.session, self.record, label_of, max_side, thumbnails, connections, bar)

        def records():
            to_come = wanted - len(run.journal)
            if to_come > 0 and count and not max_side and not thumbnails:
                self._require_room(folder, to_come / count, query, collections)
            yield from choose(listing, label_of, limit, per_label, seed)

        resumes = f"what came is kept in {folder}, and the same call resumes from there"
        try:
            run.run(records())
        except ArchiveError as error:
            stop = ArchiveError(f"{error}\nThe download stopped; {resumes}.")
            stop.report = run.report
            raise stop from error
        except KeyboardInterrupt:
            tqdm.write(f"stopped; {resumes}")
            raise
        run.report.note_lack(per_label or {})
        return run.report

    def _require_room(self, folder, share, query, collections):
        """Refuse a download that cannot fit on the disk, by the archive's own sum of sizes."""
        try:
            needed = self.size(query, collections) * share
        except (ArchiveError, ValueError):  # an undocumented part of the API, which may be missing
            return
        free = shutil.disk_usage(folder).free
        if needed > free:
            lack = f"about {needed / 1e6:,.0f} MB are to come, {free / 1e6:,.0f} MB are free in {folder}"
            raise ArchiveError(f"{lack}: take less by limit=, max_side= or thumbnails=True")

    def _number(self, name, path, query, collections, **params):
        number = self._json(self._url(path, query, collections, **params), query).get(name)
        if not is_number(number, 0):
            raise ArchiveError(f"{self.url} does not tell the {name} of its images: not the API v2?")
        return int(number)

    def _url(self, path, query, collections, **params):
        """Return the address of a question, once the token is known to be good."""
        if collections is not None:
            params["collections"] = ",".join(self._numbers(collections))
        if query is not None and not isinstance(query, str):
            raise ValueError(f"query is text, such as 'sex:female', not {query!r}")
        if query:
            params["query"] = query
        if not self._is_known:  # the open parts of the API ignore a bad token, and list less
            try:
                self._json(f"{self.url}users/me/")
            except ArchiveError as error:
                if error.__cause__.status not in (401, 403):
                    raise
                raise ArchiveError(f"{self.url} does not accept the token: get a new one, or none") from None
            self._is_known = True
        return f"{self.url}{path}?{urlencode(params)}"

    def _numbers(self, collections):
        """Return the numbers of collections, given by number or by name, as text."""
        given = [collections] if isinstance(collections, int | float | str) else [*collections]
        if not given or not all(isinstance(each, int | str) for each in given):
            raise ValueError(f"collections must be one number or name or a list of them, not {collections!r}")
        self._names = self._names or {str(each["id"]): str(each["name"]) for each in self.collections()}
        known = {name.casefold(): number for number, name in self._names.items()}
        found = {each: known.get(str(each).casefold(), str(each)) for each in given}
        for each in [each for each in given if found[each] not in self._names]:
            hint = near(each, [*self._names.values()]) or "; collections() lists them"
            raise ValueError(f"{self.url} has no collection {each!r}{hint}")
        return found.values()

    def _listing(self, query, limit, collections):
        """Return the archive's count, or None, and the records; only the first page is asked for at once."""
        if limit is not None and not is_whole(limit, 0):
            raise ValueError(f"limit is a whole number from 0, not {limit!r}")
        size = min(PAGE, limit or PAGE)  # the API takes a limit of 0 for 100
        pages = self._pages(self._url("images/search/", query, collections, limit=size), query)
        first = next(pages)
        count = first.get("count")
        records = _records(itertools.chain([first], pages))
        return count if isinstance(count, int) else None, itertools.islice(records, limit)

    def _pages(self, url, query=None):
        """Yield the pages of a listing, each once, all of which must be of this archive."""
        asked = set()
        while url:
            if url in asked:
                raise ArchiveError(f"the pages of {self.url} form a circle: take what came with limit=")
            asked.add(url)
            page = self._json(url, query)
            if not isinstance(page.get("results"), list):
                raise ArchiveError(f"{url} answers without a page of records: not the ISIC Archive API v2?")
            yield page
            url, query = page.get("next"), None
            if url and (not isinstance(url, str) or urlsplit(url)[:2] != urlsplit(self.url)[:2]):
                raise ArchiveError(f"{self.url} names a next page on another host: {redacted(url):.200}")

    def _json(self, url, query=None):
        """Read a JSON object, retrying where that may help."""
        for attempt in itertools.count(1):
            try:
                return self.session.read_json(url, LARGEST_PAGE)
            except TransferError as fault:
                if fault.status in (400, 422) and query:
                    raise ValueError(
                        f"{self.url} does not understand the query {query!r}: {fault.reason}. A query is like "
                        "'diagnosis_1:Malignant AND sex:female'; isicvision.fields.SEARCHABLE lists the fields."
                    ) from None
                if not fault.retry or attempt == transfer.ATTEMPTS:
                    raise ArchiveError(
                        f"{url[:300]} cannot be read: {fault.reason}. Check the network and the address, then make the "
                        "same call again; IsicArchive('sample') needs no network."
                    ) from fault
                time.sleep(transfer.pause(attempt - 1, fault.after))


def _records(pages):
    """Yield the records of pages, each once."""
    seen = set()
    for page in pages:
        for record in page["results"]:
            name = str(record.get("isic_id", record) if isinstance(record, dict) else record)
            if name not in seen:
                seen.add(name)
                yield record


def _require_sense(limit, per_label, seed, max_side, thumbnails, connections):
    """Refuse arguments of `download` that exclude each other."""
    if per_label is not None and limit is not None:
        raise ValueError("limit counts all images, per_label those of each label: give one of the two")
    if seed is not None and per_label is None and limit is None:
        raise ValueError("seed draws a sample: say how many by limit= or per_label=")
    if max_side and thumbnails:
        raise ValueError("thumbnails are small already: give max_side or thumbnails, not both")
    for name, value in (("connections", connections), ("max_side", max_side), *(per_label or {}).items()):
        if value is not None and not is_whole(value, 1):
            raise ValueError(f"{name} must be a whole number from 1, not {value!r}")


def _locate(source):
    """Return the API's address and a short name for what the user calls the source."""
    parts = urlsplit(KNOWN.get(source, source) if isinstance(source, str) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        said = f"'isic', 'sample' or the http(s) address of an archive, not {redacted(repr(source))}"
        raise ValueError(f"source must be {said}. ImageDataset.from_folder reads images in a directory.")
    prefix = f"{parts.netloc}{parts.path}".rstrip("/").removesuffix("/api/v2")
    url = f"{parts.scheme}://{prefix}/api/v2/"
    return url, {ISIC: "isic", SAMPLE: "sample"}.get(url) or re.sub(r"[^\w.-]+", "_", prefix).strip("_.")
