"""Client of the ISIC Archive: count, search, and download pictures with their metadata and licences.

Speaks the ISIC Archive API v2 (https://api.isic-archive.com/api/docs/swagger/). A picture gets its name only
when it is whole, so whatever stops a download, the same call goes on from there.
"""

import csv
import html
import io
import json
import os
import re
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm.auto import tqdm
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

from . import __version__, pixels
from .project import PROJECT_ROOT
from .sample import FIELDS, SampleAdapter

ISIC = "https://api.isic-archive.com/api/v2/"
SAMPLE = "http://sample.invalid/api/v2/"  # .invalid can never be a real host (RFC 2606)
PAGE = 100  # the most that the API gives at once
BUSY = (429, 500, 502, 503, 504)
# waits of 0, 1, 2, 4 and 8 s and a random bit, unless the server says how long (Retry-After)
RETRY = Retry(total=5, backoff_factor=0.5, backoff_jitter=0.5, status_forcelist=BUSY)
LICENSES = {
    "CC-0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-NC": "https://creativecommons.org/licenses/by-nc/4.0/",
}


class ArchiveError(RuntimeError):
    """The archive cannot be reached, or answers what its API does not allow; the message says what to do."""


@dataclass
class DownloadReport:
    """What became of each picture of a download.

    Attributes
    ----------
    folder : pathlib.Path
    fetched, present : list of pathlib.Path
        Pictures that this call brought, and those that were there already.
    failed, skipped : list of tuple of str
        ``(isic_id, reason)`` of pictures that could not be had, and of those without a usable label.
    seconds : float
    """

    folder: Path
    fetched: list = field(default_factory=list)
    present: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    seconds: float = 0.0

    @property
    def table(self):
        """One row a picture, by isic_id: pandas.DataFrame of ``isic_id``, ``status``, ``reason``, ``path``."""
        import pandas as pd  # slow to import, and only a table needs it

        rows = [(path.stem, "fetched", "", str(path)) for path in self.fetched]
        rows += [(path.stem, "present", "", str(path)) for path in self.present]
        rows += [(isic_id, "failed", reason, "") for isic_id, reason in self.failed]
        rows += [(isic_id, "skipped", reason, "") for isic_id, reason in self.skipped]
        return pd.DataFrame(sorted(rows), columns=["isic_id", "status", "reason", "path"])

    def __str__(self):
        lines = [
            f"fetched {len(self.fetched)}, present {len(self.present)}, failed {len(self.failed)}, "
            f"skipped {len(self.skipped)} in {self.seconds:.1f} s: {self.folder}"
        ]
        for status, rows in (("failed", self.failed), ("skipped", self.skipped)):
            lines += [f"  {status} {isic_id}: {reason}" for isic_id, reason in rows[:5]]
            lines += [f"  … {len(rows) - 5} more {status}, see report.table"] if len(rows) > 5 else []
        lines += ["  the same call tries the failed ones again"] if self.failed else []
        return "\n".join(lines)

    def _repr_html_(self):
        first, *rest = html.escape(str(self)).split("\n")
        return f"<b>{first}</b>" + "".join(f"<br>{line}" for line in rest)


class IsicArchive:
    """The ISIC Archive, or another one with the same API.

    Parameters
    ----------
    source : str
        ``"isic"``: the public archive at api.isic-archive.com. ``"sample"``: the synthetic pictures of this
        repository, without a network. Or the http(s) address of an archive with the same API, such as
        ``"http://localhost:8000"``.
    timeout : tuple of float
        Seconds to wait for a connection, and for the next bytes.

    Attributes
    ----------
    url : str
        Where the API begins.
    name : str
        Short name, fit for a folder: ``isic``, ``sample``, or host and port.

    Raises
    ------
    ValueError
        If `source` is none of these.
    FileNotFoundError
        If the sample is asked for outside the repository.
    """

    def __init__(self, source="isic", timeout=(5, 30)):
        self.url, self.name = _locate(source)
        self.timeout = timeout
        self._session = requests.Session()
        self._session.headers["User-Agent"] = (
            f"isicvision/{__version__} {self._session.headers['User-Agent']}"
        )
        # threads share the session: it must not keep state, and no host should see another's cookies
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=RETRY, pool_maxsize=32))
        if self.url == SAMPLE:
            self._session.mount(SAMPLE.removesuffix("api/v2/"), SampleAdapter(PROJECT_ROOT / "sample_data"))

    def __repr__(self):
        return f"IsicArchive({self.url!r})"

    def count(self, query=None):
        """Count the pictures that `query` finds.

        Parameters
        ----------
        query : str, optional
            In the archive's own language, such as ``'diagnosis_1:Malignant AND age_approx:[20 TO 40]'``; all
            pictures if not given. The fields are those of `FIELDS`; values are case-sensitive.

        Returns
        -------
        int

        Raises
        ------
        ValueError
            If the archive does not understand `query`; with what it says.
        ArchiveError
            If the archive cannot be reached.
        """
        count = self._page(f"{self.url}images/search/", {"query": query, "limit": 1}, query).get("count")
        if not isinstance(count, int):
            raise ArchiveError(f"{self.url} does not say how many pictures it has: not the API v2?")
        return count

    def search(self, query=None, limit=None):
        """Walk through the records of the pictures that `query` finds, oldest first.

        Parameters
        ----------
        query : str, optional
            As of `count`.
        limit : int, optional
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
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative, not {limit}")
        if limit == 0:  # the API would take it for 100
            return
        url, params = f"{self.url}images/search/", {"query": query, "limit": min(PAGE, limit or PAGE)}
        seen = set()
        while url:
            page = self._page(url, params, query)
            before = len(seen)
            for record in page["results"]:
                isic_id = record.get("isic_id") if isinstance(record, dict) else None
                if not isinstance(isic_id, str):
                    raise ArchiveError(f"{url} lists a picture without isic_id: not the ISIC Archive API v2?")
                if isic_id not in seen:
                    seen.add(isic_id)
                    yield record
                if len(seen) == limit:
                    return
            url, params = page.get("next"), None  # next holds all the parameters
            if url and len(seen) == before:  # so it is for a repeated next, one page later
                raise ArchiveError(
                    f"the pages of {self.url} go round in a circle after {len(seen)} pictures: a fault of the "
                    f"archive. Narrow the query {query!r}, or set limit={len(seen)} to take what came."
                )
            if url and urlsplit(url).netloc != urlsplit(self.url).netloc:
                raise ArchiveError(f"{self.url} names {url} as its next page, on another host: not followed")

    def download(self, folder, query=None, limit=None, label="diagnosis_1", connections=8, progress=True):
        """Download pictures to ``folder/<label>/<isic_id>.<extension>``; call again to go on.

        Each picture is decoded before it gets its name; one that is there is not fetched again. Beside them
        are written ``metadata.csv`` (a row a picture, those of earlier calls included), ``attribution.txt``,
        ``licenses.txt`` and ``source.json``: also when the download is interrupted.

        Parameters
        ----------
        folder : str or pathlib.Path
            Empty, new, or filled by an earlier download from the same archive.
        query, limit
            As of `search`: `limit` counts the pictures found, be they new, present or skipped.
        label : str or callable
            A name of `FIELDS`, such as the default: its value in lower case is the label (``benign``, …). Any
            other string is itself the label of all. A function gets the record and returns a str, or None
            to skip the picture. Characters unfit for a folder's name become ``_``.
        connections : int
            Pictures fetched at the same time.
        progress : bool
            Show a bar.

        Returns
        -------
        DownloadReport
            Every picture is in it, with the reason if it could not be had or has no label.

        Raises
        ------
        ValueError
            If the query is not understood, `label` is unfit for a folder, or `folder` holds something else.
        ArchiveError
            If the archive cannot be listed. What came until then is kept.
        """
        folder, started = Path(folder), time.monotonic()
        label_of = _labeller(label)
        total = self.count(query)  # refuses a bad query before anything is written
        _claim(folder, self.url)
        rows = _read_metadata(folder / "metadata.csv")
        report, jobs = DownloadReport(folder), {}

        def collect(futures):
            for future in futures:
                row = jobs.pop(future)
                if future.cancelled():
                    continue
                status, reason = future.result()
                if status == "failed":
                    report.failed.append((row["isic_id"], reason))
                else:
                    getattr(report, status).append(folder / row["file"])
                    rows[row["file"]] = row
                bar.update()

        total = min(total, total if limit is None else limit)
        bar = tqdm(total=total, unit="picture", leave=False, disable=not progress)
        pool = ThreadPoolExecutor(connections)
        try:
            for record in self.search(query, limit):
                row = {**_flatten(record), "label": label_of(record)}
                row["file"] = _place(record, row["label"])
                if row["label"] is None:
                    report.skipped.append((row["isic_id"], f"no usable label by {label!r}"))
                    bar.update()
                elif row["file"] is None:
                    reason = "its isic_id, or the address of its file, cannot make a safe file name"
                    report.failed.append((row["isic_id"], reason))
                    bar.update()
                else:
                    while len(jobs) >= 2 * connections:  # ask for pages no faster than pictures come
                        collect(wait(jobs, return_when=FIRST_COMPLETED).done)
                    url = record["files"]["full"]["url"]
                    jobs[pool.submit(self._fetch, url, folder / row["file"])] = row
            collect(wait(jobs).done)
        except (KeyboardInterrupt, ArchiveError):
            tqdm.write(f"stopped; what came is kept in {folder}, and the same call goes on from there")
            raise
        finally:
            pool.shutdown(cancel_futures=True)  # the few under way are finished
            collect([*jobs])
            bar.close()
            _write_metadata(folder, rows)
        report.seconds = time.monotonic() - started
        return report

    def _page(self, url, params, query):
        """Ask for one page of a listing."""
        try:
            response = self._session.get(url, params=params, timeout=self.timeout)
            if response.status_code in (400, 422):
                raise ValueError(
                    f"{self.url} does not understand the query {query!r}: {response.text[:300]}. A query is like "
                    "'diagnosis_1:Malignant AND sex:female'; isicvision.archive.FIELDS lists the fields."
                )
            response.raise_for_status()
            page = response.json()
        except requests.RequestException as error:
            raise ArchiveError(
                f"{url} cannot be listed: {_why(error)}. Check the network and the address, then make the same "
                "call again; IsicArchive('sample') needs no network."
            ) from error
        if not isinstance(page, dict) or not isinstance(page.get("results"), list):
            raise ArchiveError(f"{url} does not answer with a page of records: not the ISIC Archive API v2?")
        return page

    def _fetch(self, url, path):
        """Bring one picture to `path`; return "fetched" or "present" and None, or "failed" and the reason."""
        if path.is_file() and path.stat().st_size:
            return "present", None
        part = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            response = self._session.get(url, stream=True, timeout=self.timeout)
            with response, open(part, "wb") as file:
                response.raise_for_status()
                for chunk in response.iter_content(2**16):  # urllib3 raises if less than Content-Length comes
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            pixels.decode(part)
            os.replace(part, path)
        except pixels.PictureError as error:
            kind = response.headers.get("Content-Type", "unknown type")
            return "failed", f"{url} sent no sound picture ({kind}): {str(error).removeprefix(f'{part}: ')}"
        except Exception as error:  # addresses, servers and disks fail in many ways; the other pictures go on
            return "failed", _why(error)
        finally:
            with suppress(OSError):
                part.unlink()
        return "fetched", None


def _locate(source):
    """Turn what the user calls the source into the API's address and a short name."""
    known = {"isic": ISIC, "sample": SAMPLE}
    parts = urlsplit(known.get(source, source) if isinstance(source, str) else "")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        raise ValueError(
            f"source must be 'isic', 'sample' or the http(s) address of an archive, not {source!r}. For pictures in "
            "a directory use ImageDataset.from_folder or ImageDataset.from_csv."
        )
    prefix = f"{parts.netloc}{parts.path}".rstrip("/").removesuffix("/api/v2")
    url = f"{parts.scheme}://{prefix}/api/v2/"
    names = {address: name for name, address in known.items()}
    return url, names.get(url) or re.sub(r"[^\w.-]+", "_", prefix).strip("_.")


def _claim(folder, url):
    """Make `folder` that of the archive at `url`, unless something else is in it."""
    mark = folder / "source.json"
    if mark.is_file():
        owner = json.loads(mark.read_text(encoding="utf-8")).get("source")
    else:
        is_new = not folder.exists() or all(path.name.startswith(".") for path in folder.iterdir())
        owner = url if is_new else "another origin, or files that no download put there"
    if owner != url:
        raise ValueError(
            f"{folder} holds pictures of {owner}; those of {url} must not be mixed with them: choose another folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    _write(mark, json.dumps({"source": url}) + "\n")


def _labeller(label):
    """Turn `label` of `IsicArchive.download` into a function of the record that gives a folder's name or None."""
    if callable(label):
        return lambda record: _folder_name(label(record))
    if label in FIELDS:
        return lambda record: _folder_name(_flatten(record).get(label), lower=True)
    if not isinstance(label, str) or _folder_name(label) != label:
        raise ValueError(f"label must be a field, a function or a word that can name a folder, not {label!r}")
    return lambda record: label


def _folder_name(value, lower=False):
    """Make a label fit to name a folder; None if nothing is left of it."""
    if not isinstance(value, str | int | float):
        return None
    text = str(value).lower() if lower else str(value)
    name = re.sub(r"\s*[^\w ,()+.-]+\s*", "_", text).strip(" .")
    return name if name.strip("_") and len(name.encode()) < 200 else None


def _place(record, label):
    """Give the picture's path below the download folder, or None if the record allows no safe one."""
    try:
        suffix = PurePosixPath(urlsplit(record["files"]["full"]["url"]).path).suffix.lower()
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    is_safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", record["isic_id"])
    return f"{label}/{record['isic_id']}{suffix}" if is_safe and suffix in pixels.EXTENSIONS else None


def _flatten(record):
    """Put all that is known of a picture into one dict; unknown keys are kept, as the archive adds some."""
    metadata = record.get("metadata") or {}
    names = ("isic_id", "attribution", "copyright_license")
    top = {name: record[name] for name in names if name in record}
    return {**(metadata.get("acquisition") or {}), **(metadata.get("clinical") or {}), **top}


def _read_metadata(path):
    """Read the rows of earlier calls, by file."""
    if not path.exists():
        return {}
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = [*csv.DictReader(file)]
    if any(not row.get("file") or None in row for row in rows):
        raise ValueError(f"{path} is not as a download left it (column file, a value a column): move it away")
    return {row["file"]: row for row in rows}


def _write_metadata(folder, rows):
    """Write metadata.csv, attribution.txt and licenses.txt for `rows`, a dict of file to row."""
    first = ["isic_id", "label", "file", "attribution", "copyright_license"]
    columns = [*first, *sorted({name for row in rows.values() for name in row} - {*first})]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows.values(), key=lambda row: (row["isic_id"], row["file"])))
    _write(folder / "metadata.csv", text.getvalue())

    counts = Counter(
        (row.get("attribution") or "Anonymous", row.get("copyright_license") or "unknown licence")
        for row in rows.values()
    )
    credits = [f"{who} ({terms}): {count} pictures" for (who, terms), count in counts.most_common()]
    _write(folder / "attribution.txt", "\n".join([*credits, ""]))
    licences = [
        f"{name}: {LICENSES.get(name, 'ask the archive')}" for name in sorted({terms for _, terms in counts})
    ]
    _write(folder / "licenses.txt", "\n".join([*licences, ""]))


def _write(path, text):
    """Write a text file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="replace", newline="")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _why(error):
    """Dig the cause out of the wrappers of requests and urllib3."""
    while isinstance(error, requests.RequestException | HTTPError) and error.args:
        error = getattr(error, "reason", None) or error.args[0]
    return str(error) or type(error).__name__
