"""Images from an archive's records into a folder: in parallel, each checked, and what became of each.

`IsicArchive.download` is the way in. One thread walks the records, keeps the journal and says who is next; a few others
fetch. They are daemons, so that Ctrl-C need not wait for a server that says nothing.
"""

from __future__ import annotations

import errno
import hashlib
import heapq
import itertools
import json
import math
import os
import queue
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .. import images as pixels
from ..fields import SEARCHABLE
from ..files import folder_name
from ..text import counted
from .journal import FLUSH_SECONDS, Journal
from .transfer import ATTEMPTS, Part, TransferError, fetch, pause

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

    from .client import IsicArchive

PARTS = ".parts"
WAITING = 256  # images that may wait for their next attempt while others are fetched
HOPELESS = 50  # images in a row that no server gives, after which the rest is left for another call
WRONG = 3  # attempts at an image whose bytes come whole and are no image
QUALITY = 95  # of the JPEG that max_side makes
CORES = os.cpu_count() or 1
DECODING = threading.BoundedSemaphore(CORES)  # at the same time: a large PNG takes 360 MB


@dataclass
class DownloadReport:
    """What became of each image of a download.

    Attributes
    ----------
    folder : pathlib.Path
    failed, skipped : list of tuple of str
        ``(isic_id, reason)`` of images that could not be had, and of those without a usable label.
    notes : list of str
        What else a person should know: an archive that lists less than it counted, a label of which there is less
        than was asked for.
    seconds : float
    """

    folder: Path
    failed: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    notes: list = field(default_factory=list)
    seconds: float = 0.0
    _files: dict = field(default_factory=lambda: {"fetched": [], "present": []})

    @property
    def fetched(self) -> list[Path]:
        """Images that this call brought."""
        return [self.folder / name for name in self._files["fetched"]]

    @property
    def present(self) -> list[Path]:
        """Images that were there already."""
        return [self.folder / name for name in self._files["present"]]

    @property
    def table(self) -> pd.DataFrame:
        """One row an image, by isic_id: ``isic_id``, ``status``, ``reason``, ``path``."""
        import pandas as pd  # slow to import, and only a table needs it

        rows = [(path.stem, "fetched", "", str(path)) for path in self.fetched]
        rows += [(path.stem, "present", "", str(path)) for path in self.present]
        rows += [(isic_id, "failed", reason, "") for isic_id, reason in self.failed]
        rows += [(isic_id, "skipped", reason, "") for isic_id, reason in self.skipped]
        return pd.DataFrame(sorted(rows), columns=["isic_id", "status", "reason", "path"])

    def __repr__(self):
        counts = [f"{status} {len(files)}" for status, files in self._files.items()]
        counts += [f"failed {len(self.failed)}", f"skipped {len(self.skipped)}"]
        lines = [f"{', '.join(counts)} in {self.seconds:.1f} s: {self.folder}"]
        for status, rows in (("failed", self.failed), ("skipped", self.skipped)):
            lines += [f"  {status} {isic_id}: {reason}" for isic_id, reason in rows[:5]]
            lines += [f"  … {len(rows) - 5} more {status}, see report.table"] if len(rows) > 5 else []
        lines += [f"  {note}" for note in self.notes]
        lines += ["  the same call tries the failed ones again"] if self.failed else []
        return "\n".join(lines)


class StoppedError(Exception):
    """The download cannot go on; the message says why."""


@dataclass
class Job:
    """One image to be fetched."""

    isic_id: str
    url: str
    file: str  # where it goes, below the folder
    row: dict
    part: Part
    known: bool  # the journal has it already
    attempt: int = 0
    renewed: int = 0  # times that its address had expired
    wrong: int = 0  # times that all bytes came and were no image
    digest: str = ""  # of bytes that came and did not fit their ETag
    size: int = 0  # bytes, once it is there


class Download:
    """One call of `IsicArchive.download`; raises ValueError if `folder` holds something else.

    The archive lends its session, time limits and guard, and reads a record again whose address has expired. `label_of`
    is as `labeler` makes it. Images larger than `max_side` are stored reduced to it; with `thumbnails` the archive's
    small images are fetched.
    """

    def __init__(
        self,
        archive: IsicArchive,
        folder: Path,
        label_of: Callable[[dict], str | None],
        max_side: int | None,
        thumbnails: bool,
        connections: int,
        bar: tqdm,
    ) -> None:
        self.archive, self.folder, self.label_of, self.bar = archive, Path(folder), label_of, bar
        self.max_side, self.size_name = max_side, "thumbnail_256" if thumbnails else "full"
        variant = f"at most {max_side} pixels a side" if max_side else "full size"
        self.journal = Journal(self.folder, archive.url, "thumbnails" if thumbnails else variant)
        self.report = DownloadReport(self.folder)
        self.left = Part.left_in(self.folder / PARTS)
        self.todo, self.done = queue.SimpleQueue(), queue.SimpleQueue()
        self.later, self.turn = [], itertools.count()  # a heap of (when, turn, job)
        self.under_way, self.refused = 0, 0
        self.endless: list = []  # records with a number that is not finite
        self.connections, self.slots = connections, threading.BoundedSemaphore(connections)
        self.stop, self.flushed, self.tags_fit = threading.Event(), time.monotonic(), False

    def run(self, records: Iterable[dict]) -> None:
        """Take every record; return when each image is there, or given up.

        Raises StoppedError if the disk takes no more, or one image after the other is refused; and what `records`
        raises, after the images before it are there.
        """
        number = self.connections + CORES  # some look at images while the others fetch
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]
        failure = None
        try:
            (self.folder / PARTS).mkdir(exist_ok=True)
            for worker in workers:
                worker.start()
            try:
                for record in records:
                    self._take(record)
                    while self._is_full():  # ask for pages no faster than images come
                        self._collect(wait=True)
                    self._collect(wait=False)
                    if self.refused >= HOPELESS:
                        raise StoppedError(
                            f"{self.refused} images in a row were refused, at last: {self.report.failed[-1][1]}"
                        )
            except StoppedError:
                raise
            except Exception as error:
                failure = error
            while self.under_way:
                self._collect(wait=True)
        except (OSError, sqlite3.Error) as error:
            raise StoppedError(_disk_trouble(error, self.folder)) from error
        finally:
            self._finish(workers)
        if failure:
            raise failure

    def _is_full(self):
        waiting = len(self.later)
        return self.under_way - waiting >= 2 * self.connections or waiting >= WAITING

    def _take(self, record):
        """Decide what becomes of one record."""
        isic_id = record.get("isic_id") if isinstance(record, dict) else None
        if not isinstance(isic_id, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", isic_id):
            name = isic_id[:80] if isinstance(isic_id, str) else str(record)[:80]
            return self._close(name, "failed", "its isic_id cannot make a safe file name")
        row = {**flatten(record), "isic_id": isic_id, "label": self.label_of(record)}
        self.endless += [f"{isic_id} ({', '.join(names)})"] if (names := without_number(record)) else []
        known = self.journal.get(isic_id)
        if row["label"] is None:
            return self._close(isic_id, "skipped", "no usable label", row, known)
        if known and known[0] == "done" and self._is_there(isic_id, row, *known[1:]):
            return None
        url, suffix = self._address(record)
        if url is None:
            reason = "its record names no file that can be an image"
            return self._close(isic_id, "failed", reason, row, known)
        part = Part(self.folder / PARTS, isic_id, self.left.pop(isic_id, None))
        self.todo.put(Job(isic_id, url, f"{row['label']}/{isic_id}{suffix}", row, part, known is not None))
        self.under_way += 1

    def _is_there(self, isic_id, row, file, size, before):
        """See whether an image of the journal is in its place, moved there if its label has changed."""
        try:
            if not size or (self.folder / file).stat().st_size != size:
                return False
            place = f"{row['label']}/{PurePosixPath(file).name}"
            if place != file:
                (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.folder / file, self.folder / place)
        except FileNotFoundError:
            return False
        if place != file or {**before, **row} != before:  # the archive knows more than it did
            self.journal.put(isic_id, "done", place, size, {**before, **row}, known=True)
        self.report._files["present"].append(place)
        self.bar.update()
        return True

    def _address(self, record):
        """Give the address of the image and its extension, or None twice."""
        try:
            url = record["files"][self.size_name]["url"]
            suffix = PurePosixPath(urlsplit(url).path).suffix.lower()
        except (KeyError, TypeError, AttributeError, ValueError):
            return None, None
        return (url, suffix) if suffix in pixels.EXTENSIONS else (None, None)

    def _close(self, isic_id, status, reason, row=None, known=None):
        """Note an image that will not be fetched."""
        getattr(self.report, status).append((isic_id, reason))
        if not known or known[0] != "done":  # one that is there stays known, whatever became of its record
            self.journal.put(isic_id, status, record=row, reason=reason, known=known is not None)
        self.bar.update()

    def _collect(self, wait):
        """Take in what the workers have done, send those whose time has come again, write the journal."""
        while True:
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                self.todo.put(heapq.heappop(self.later)[2])
            if now - self.flushed > FLUSH_SECONDS:
                self.journal.flush()
                self.flushed = time.monotonic()
            patience = min(FLUSH_SECONDS, self.later[0][0] - now if self.later else FLUSH_SECONDS)
            try:
                self._settle(*self.done.get(block=wait, timeout=max(patience, 0.001)))
            except queue.Empty:
                if not wait:
                    return
            wait = False

    def _settle(self, job, outcome):
        """Note what became of one attempt."""
        if isinstance(outcome, str):
            self.report._files[outcome].append(job.file)
            self.journal.put(job.isic_id, "done", job.file, job.size, job.row, known=job.known)
            self.refused = 0
        elif isinstance(outcome, OSError):
            raise outcome
        elif outcome.again and job.attempt + 1 < ATTEMPTS:
            due = time.monotonic() + pause(job.attempt, outcome.after)
            job.attempt += 1
            heapq.heappush(self.later, (due, next(self.turn), job))
            return
        else:
            if not outcome.again:
                job.part.drop()
            self.refused += outcome.again
            self.report.failed.append((job.isic_id, outcome.reason))
            self.journal.put(job.isic_id, "failed", record=job.row, reason=outcome.reason, known=job.known)
        self.under_way -= 1
        self.bar.update()

    def _work(self):
        while (job := self.todo.get()) is not None and not self.stop.is_set():
            try:
                outcome = self._bring(job)
            except (TransferError, OSError) as error:
                outcome = error
            except Exception as error:  # whatever it is, the others shall come
                outcome = TransferError(f"{type(error).__name__}: {error}")
            self.done.put((job, outcome))

    def _bring(self, job):
        """Put the image in its place; return "fetched", or "present" if it was there unknown to the journal."""
        place = self.folder / job.file
        for there in {place, place.with_suffix(".jpg")} if not job.known else ():
            if os.path.exists(there) and self._is_sound(there):
                job.file, job.size = there.relative_to(self.folder).as_posix(), there.stat().st_size
                return "present"
        try:
            with self.slots:
                headers = fetch(
                    self.archive.session, job.url, job.part, self.archive.timeout, job.attempt, self.archive.guard,
                    self.stop.is_set,
                )  # fmt: skip
        except TransferError as fault:
            if fault.status in (401, 403, 410) and self._renew(job):
                raise TransferError(f"{fault.reason}: its address had expired", again=True) from fault
            raise
        try:
            with DECODING:
                image, size, _ = pixels.frame(job.part.path, self.max_side or 16)
        except pixels.ImageError as error:
            kind, reason = headers.get("Content-Type"), str(error).replace(f"{job.part.path}: ", "")
            raise self._wrong(job, f"what came ({kind}) is no sound image: {reason}") from error
        self._compare(job, headers.get("ETag", ""))
        if self.max_side and max(size) > self.max_side:
            job.row |= {"original_width": size[0], "original_height": size[1]}
            job.file = str(PurePosixPath(job.file).with_suffix(".jpg"))
            with open(job.part.path, "wb") as file:
                image.save(file, "JPEG", quality=QUALITY)
                file.flush()
                os.fsync(file.fileno())
        if self.stop.is_set():
            raise TransferError("stopped")
        place = self.folder / job.file
        job.size = job.part.size
        try:
            os.replace(job.part.path, place)
        except FileNotFoundError:
            place.parent.mkdir(exist_ok=True)
            os.replace(job.part.path, place)
        job.part.path = None
        return "fetched"

    def _wrong(self, job, reason):
        """Throw away what came whole and wrong; give the error to raise."""
        job.part.drop()
        job.wrong += 1
        return TransferError(reason, again=job.wrong < WRONG)

    def _compare(self, job, tag):
        """Compare the bytes with the ETag, on many hosts (S3: files sent in one part) their MD5.

        Elsewhere it may look like an MD5 and be none: so where no ETag has fitted yet, the same bytes coming a second
        time are believed.
        """
        if not re.fullmatch('"[0-9a-f]{32}"', tag):
            return
        with open(job.part.path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if digest == tag.strip('"'):
            self.tags_fit = True
        elif self.tags_fit or digest != job.digest:
            job.digest = digest
            raise self._wrong(job, "the bytes that came do not fit the checksum that the server names (ETag)")

    def _is_sound(self, path):
        try:
            with DECODING:
                size = pixels.frame(path, 16)[1]
        except pixels.ImageError:
            return False
        return not self.max_side or max(size) <= self.max_side

    def _renew(self, job):
        """Read the record again for a fresh address; say whether there is one."""
        url, _ = self._address(self.archive.record(job.isic_id))
        job.renewed += 1
        fresh = url is not None and url != job.url and job.renewed < WRONG
        job.url = url if fresh else job.url
        return fresh

    def _finish(self, workers):
        """Let the workers go, write the journal, and sweep."""
        self.stop.set()
        for _ in workers:
            self.todo.put(None)
        # one that hears nothing from its server is left behind: it writes no more
        until = time.monotonic() + 2
        for worker in workers:
            if worker.ident:
                worker.join(max(0, until - time.monotonic()))
        while not self.done.empty():
            job, outcome = self.done.get()
            if isinstance(outcome, str):
                self._settle(job, outcome)
        for isic_id, path in self.left.items():
            known = self.journal.get(isic_id)
            if known and known[0] == "done":
                path.unlink(missing_ok=True)
        with suppress(OSError):  # parts are left that another call can go on with
            (self.folder / PARTS).rmdir()
        if self.endless:
            number = counted(len(self.endless), "record")
            note = f"{number} with a number that is not finite, left empty in metadata.csv: {self.endless[0]}"
            self.report.notes.append(note + ", …" * (len(self.endless) > 1))
        problem = self.journal.close()
        if problem:
            note = f"metadata.csv is behind ({problem}); the same call brings it up to date"
            self.report.notes.append(note)
        self.bar.close()


def _disk_trouble(error, folder):
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "is full" in str(error):
        return f"the disk of {folder} is full ({error}): make room, or take less by max_side or thumbnails"
    return f"{folder} cannot be written to: {error}"


def choose(
    records: Iterable[dict],
    label_of: Callable[[dict], str | None],
    limit: int | None = None,
    per_label: dict[str, int | None] | None = None,
    seed: int | None = None,
) -> Iterator[dict]:
    """Pick records: the first ones, or a random sample that is the same for the same seed.

    The API lists the oldest images first and cannot shuffle. So a sample walks the whole listing, 100 records a
    request, and keeps those whose isic_id, hashed with the seed, comes first (bottom-k sampling): every image has the
    same chance, whatever the order, and an archive that has grown changes few of them.

    `limit` says how many in all, `per_label` how many of each label (None for all), and then no others are taken.
    Records to which `label_of` gives None are passed on, to be listed as skipped. Without a seed the first ones are
    taken.
    """
    if seed is None and not per_label:
        yield from records
        return
    wanted: dict = per_label or {"": limit}  # "": all labels together
    room = {label: math.inf if number is None else number for label, number in wanted.items()}
    drawn: dict[str, list] = {label: [] for label in room}
    for turn, record in enumerate(records):
        label = label_of(record) if isinstance(record, dict) else None
        pool = label if label and per_label else ""
        if label is None:
            yield record
        elif not room.get(pool):
            continue
        elif seed is None:
            room[pool] -= 1
            yield record
            if not any(room.values()):
                return
        else:
            name = f"{seed}:{record.get('isic_id')}".encode("utf-8", "replace")
            key = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest())
            heapq.heappush(drawn[pool], (-key, turn, record))
            if len(drawn[pool]) > room[pool]:
                heapq.heappop(drawn[pool])
    for heap in drawn.values():
        for *_, record in sorted(heap, key=lambda entry: -entry[0]):
            yield record


def labeler(label: str | Mapping[str, str] | Callable[[dict], str | None]) -> Callable[[dict], str | None]:
    """Turn `label` of `IsicArchive.download` into a function of the record that gives a folder's name or None.

    Raises ValueError if it is neither a field, a function, a mapping nor fit to name a folder.
    """
    if isinstance(label, Mapping):
        fields = ("isic_id", *(f"diagnosis_{level}" for level in (5, 4, 3, 2, 1)))

        def mapped(record):
            row = flatten(record)
            return next((folder_name(label[row[name]]) for name in fields if row.get(name) in label), None)

        return mapped
    if callable(label):
        return lambda record: folder_name(label(record))
    if label in SEARCHABLE:
        return lambda record: folder_name(flatten(record).get(label), lower=True)
    if not isinstance(label, str) or folder_name(label) != label:
        raise ValueError(
            f"label must be a field, a function, a mapping or a word that can name a folder, not {label!r}"
        )
    return lambda record: label


def flatten(record: dict) -> dict:
    """Put what is known of an image into one flat dict; unknown keys are kept, as the archive adds some.

    A number that is not finite is left out, as `without_number` says.
    """
    return {
        name: value if isinstance(value, int | float) else _text(value)
        for name, value in _fields(record).items()
        if value is not None and not _is_endless(value)
    }


def without_number(record: dict) -> list[str]:
    """List the fields of a record whose number is not finite, such as 1e999: no table can hold them."""
    return [name for name, value in _fields(record).items() if _is_endless(value)]


def _is_endless(value):
    return isinstance(value, float) and not math.isfinite(value)


def _fields(record):
    metadata = record.get("metadata")
    flat = {}
    for part in ("acquisition", "clinical"):
        values = metadata.get(part) if isinstance(metadata, dict) else None
        flat |= values if isinstance(values, dict) else {}
    flat |= {name: record[name] for name in ("isic_id", "attribution", "copyright_license") if name in record}
    return {
        name: value for name, value in flat.items() if name.replace("_", "").isalnum() and len(name) <= 64
    }


def _text(value):
    text = value if isinstance(value, str) else json.dumps(value)
    return text.encode("utf-8", "replace").decode().replace("\0", "")[:10_000]
