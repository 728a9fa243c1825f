"""Download images into a folder: in parallel, each checked, with a report of what became of each.

One thread walks the records and keeps the journal; daemon threads fetch, so that Ctrl-C waits for no server.
"""

from __future__ import annotations

import errno
import itertools
import os
import queue
import re
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import IsicVisionError
from ..files import replacing
from ..images import EXTENSIONS, ImageError, frame
from .journal import FLUSH_SECONDS, Journal
from .labels import flatten
from .transfer import ATTEMPTS, Part, Session, TransferError, fetch, pause

if TYPE_CHECKING:
    import pandas as pd
    from tqdm import tqdm

WAITING = 256  # images that may wait for their next attempt while others are fetched
HOPELESS = 50  # images in a row that no server gives, after which the download stops
QUALITY = 95  # of the JPEG that max_side makes
CORES = os.cpu_count() or 1
DECODING = threading.BoundedSemaphore(CORES)  # at the same time: a large PNG takes 360 MB


@dataclass
class DownloadReport:
    """What became of each image of a download, and `notes` on the whole."""

    folder: Path
    fetched: list[Path] = field(default_factory=list)  # downloaded by this call
    present: list[Path] = field(default_factory=list)  # there already
    failed: list[tuple[str, str]] = field(default_factory=list)  # isic_id and reason
    skipped: list[tuple[str, str]] = field(default_factory=list)  # without a usable label
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def table(self) -> pd.DataFrame:
        """One row an image, by isic_id: ``isic_id``, ``status``, ``reason``, ``path``."""
        import pandas as pd  # slow to import, and only a table needs it

        here, absent = ("fetched", "present"), ("failed", "skipped")
        rows = [(path.stem, status, "", str(path)) for status in here for path in getattr(self, status)]
        rows += [(isic_id, status, why, "") for status in absent for isic_id, why in getattr(self, status)]
        return pd.DataFrame(sorted(rows), columns=["isic_id", "status", "reason", "path"])

    def note_lack(self, wanted: Mapping[str, int | None]) -> None:
        """Note of which labels fewer images came than were wanted."""
        came = Counter(path.parent.name for path in self.fetched + self.present)
        for label, number in wanted.items():
            if came[label] < (number or 0):
                self.notes.append(f"{label}: {came[label]} of the {number} wanted")

    def __repr__(self):
        names = ("fetched", "present", "failed", "skipped")
        words = ", ".join(f"{name} {len(getattr(self, name))}" for name in names)
        lines = [f"{words} in {self.seconds:.1f} s: {self.folder}"]
        for status, rows in (("failed", self.failed), ("skipped", self.skipped)):
            lines += [f"  {status} {isic_id}: {reason}" for isic_id, reason in rows[:5]]
            lines += [f"  … {len(rows) - 5} more {status}, see report.table"] if len(rows) > 5 else []
        lines += [f"  {note}" for note in self.notes]
        lines += ["  the same call tries the failed ones again"] if self.failed else []
        return "\n".join(lines)


class ArchiveError(IsicVisionError, RuntimeError):
    """Raised when the archive cannot be read, or a download must stop; then `report` says what came until then."""

    report: DownloadReport | None = None


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
    size: int = 0  # bytes, once it is there


@dataclass
class Download:
    """One call of `IsicArchive.download`; ValueError if `folder` holds something else."""

    folder: Path
    session: Session
    record_of: Callable[[str], dict]  # reads the record of an isic_id again, for a fresh address
    label_of: Callable[[dict], str | None]
    max_side: int | None
    thumbnails: bool
    connections: int
    bar: tqdm

    def __post_init__(self) -> None:
        variant = f"at most {self.max_side} pixels a side" if self.max_side else "full size"
        self.journal = Journal(self.folder, self.session.home, "thumbnails" if self.thumbnails else variant)
        self.report, self.parts = DownloadReport(self.folder), self.folder / ".parts"
        self.todo = queue.PriorityQueue()  # of (when, turn, job)
        self.done = queue.SimpleQueue()  # of (job, outcome)
        self.under_way, self.refused, self.turn = 0, 0, itertools.count()
        self.again: set = set()  # images under way that have failed before
        self.slots, self.stop = threading.BoundedSemaphore(self.connections), threading.Event()
        self.started = self.flushed = time.monotonic()

    def run(self, records: Iterable[dict]) -> None:
        """Take every record until each image is there or given up; raise ArchiveError, and what `records` raises."""
        number = self.connections + CORES  # some look at images while the others fetch
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(number)]
        failures = []  # raised once the images before them are there

        def listed():
            try:
                yield from records
            except Exception as error:
                failures.append(error)

        try:
            shutil.rmtree(self.parts, ignore_errors=True)
            self.parts.mkdir()
            for worker in workers:
                worker.start()
            for record in listed():
                self._take(record)
                self._collect(2 * number, WAITING)  # ask for pages no faster than images come
                if self.refused >= HOPELESS:
                    reason = self.report.failed[-1][1]
                    raise ArchiveError(f"{self.refused} images in a row were refused, the last: {reason}")
            self._collect(0, 0)
        except (OSError, sqlite3.Error) as error:
            reason = f"{self.folder} cannot be written to: {error}"
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "is full" in str(error):
                reason = f"the disk of {self.folder} is full: make room, or take less by max_side"
            raise ArchiveError(reason) from error
        finally:
            self._finish(workers)
        if failures:
            raise failures[0]

    def _take(self, record):
        """Decide what becomes of one record."""
        isic_id = record.get("isic_id") if isinstance(record, dict) else None
        if not isinstance(isic_id, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", isic_id):
            name = str(isic_id if isinstance(isic_id, str) else record)[:80]
            return self._note(name, "failed", "its isic_id cannot make a safe file name", {})
        row = flatten(record) | {"isic_id": isic_id, "label": self.label_of(record)}
        known = self.journal.get(isic_id)
        is_done = bool(known) and known[0] == "done"
        if row["label"] is None:
            return self._note(isic_id, "skipped", "no usable label", None if is_done else row)
        if is_done and self._is_there(isic_id, row, *known[1:]):
            return None
        url = self._address(record)
        if url is None:
            return self._note(isic_id, "failed", "its record names no image file", None if is_done else row)
        file = f"{row['label']}/{isic_id}{_suffix(url)}"
        self._put(Job(isic_id, url, file, row, Part(self.parts / isic_id), known is not None))
        self.under_way += 1

    def _put(self, job, after=0.0):
        """Have an image fetched in so many seconds."""
        self.todo.put((time.monotonic() + after, next(self.turn), job))

    def _is_there(self, isic_id, row, file, size, before):
        """Say whether an image of the journal is in its place, moved there if its label has changed."""
        try:
            if not size or (self.folder / file).stat().st_size != size:
                return False
            place = f"{row['label']}/{PurePosixPath(file).name}"
            if place != file:
                (self.folder / place).parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.folder / file, self.folder / place)
        except FileNotFoundError:
            return False
        news = place != file or {**before, **row} != before  # the archive knows more than it did
        self._note(isic_id, "present", "", {**before, **row} if news else None, place, size)
        return True

    def _note(self, isic_id, status, reason, record, file="", size=None):
        """Put an image into the report and, unless the record is None, into the journal."""
        getattr(self.report, status).append(self.folder / file if file else (isic_id, reason))
        if record is not None:
            self.journal.put(isic_id, "done" if file else status, file, size, record, reason)
        self.bar.update()

    def _address(self, record):
        """Return the address of the image, or None."""
        try:
            url = record["files"]["thumbnail_256" if self.thumbnails else "full"]["url"]
            return url if _suffix(url) in EXTENSIONS else None
        except (KeyError, TypeError, AttributeError, ValueError):
            return None

    def _collect(self, most, waiting):
        """Settle images and write the journal until at most so many are under way, `waiting` besides that failed."""
        while True:
            if time.monotonic() - self.flushed > FLUSH_SECONDS:
                self.journal.flush()
                self.flushed = time.monotonic()
            if self.under_way <= most + min(waiting, len(self.again)) and self.done.empty():
                return
            with suppress(queue.Empty):
                self._settle(*self.done.get(timeout=FLUSH_SECONDS))

    def _settle(self, job, outcome):
        """Note what became of an image, or have it tried again."""
        if isinstance(outcome, TransferError) and outcome.retry and job.attempt + 1 < ATTEMPTS:
            job.attempt += 1
            self.again.add(job.isic_id)
            return self._put(job, pause(job.attempt - 1, outcome.after))
        self.under_way -= 1
        self.again.discard(job.isic_id)
        if isinstance(outcome, str):
            self.refused = 0
            self._note(job.isic_id, outcome, "", job.row, job.file, job.size)
        elif isinstance(outcome, OSError):
            raise outcome
        else:
            self.refused += outcome.retry
            self._note(job.isic_id, "failed", outcome.reason, job.row)
        return None

    def _work(self):
        while not self.stop.is_set():
            when, turn, job = self.todo.get()
            if when > time.monotonic():  # so is every other
                self.todo.put((when, turn, job))
                self.stop.wait(0.05)
                continue
            if job is None:
                return
            try:
                outcome = self._bring(job)
            except (TransferError, OSError) as error:
                outcome = error
            except Exception as error:  # whatever it is, the other images are fetched
                outcome = TransferError(f"{type(error).__name__}: {error}")
            self.done.put((job, outcome))

    def _bring(self, job):
        """Put the image in its place; return "fetched", or "present" if it was there unknown to the journal."""
        place = self.folder / job.file
        for there in {place, place.with_suffix(".jpg")} if not job.known else ():  # the last call was killed
            if there.exists():
                job.file, job.size = there.relative_to(self.folder).as_posix(), there.stat().st_size
                return "present"
        try:
            with self.slots:
                headers = fetch(self.session, job.url, job.part, job.attempt, self.stop.is_set)
        except TransferError as fault:
            raise self._renewed(job, fault) if fault.status in (401, 403, 410) else fault from None
        self._store(job, headers.get("Content-Type"))
        return "fetched"

    def _renewed(self, job, fault):
        """Read the record again, in case the address had expired; return the error with which to go on."""
        url = self._address(self.record_of(job.isic_id))
        if url in (None, job.url):
            return fault
        job.url = url
        return TransferError(f"{fault.reason}: its address had expired", retry=True)

    def _store(self, job, kind):
        """Check what came and move it to its place."""
        try:
            with DECODING:
                image, size, _ = frame(job.part.path, self.max_side or 16)
        except ImageError as error:
            reason = str(error).replace(f"{job.part.path}: ", "")
            job.part.validator = ""
            raise TransferError(f"what came ({kind}) is not a sound image: {reason}", retry=True) from error
        if self.stop.is_set():
            raise TransferError("stopped")
        if self.max_side and max(size) > self.max_side:
            job.row |= {"original_width": size[0], "original_height": size[1]}
            job.file = str(PurePosixPath(job.file).with_suffix(".jpg"))
            with replacing(self.folder / job.file) as new:
                image.save(new, "JPEG", quality=QUALITY)
            job.part.path.unlink()
        else:
            (self.folder / job.file).parent.mkdir(exist_ok=True)
            os.replace(job.part.path, self.folder / job.file)  # already on the disk
        job.size = (self.folder / job.file).stat().st_size

    def _finish(self, workers):
        """End the workers, write the journal."""
        self.stop.set()
        # a worker that waits for a silent server is left behind: it writes nothing more
        until = time.monotonic() + 2
        for _ in workers:
            self.todo.put((0.0, next(self.turn), None))
        for worker in [worker for worker in workers if worker.ident]:
            worker.join(max(0, until - time.monotonic()))
        while not self.done.empty():
            job, outcome = self.done.get()
            if isinstance(outcome, str):
                self._settle(job, outcome)
        shutil.rmtree(self.parts, ignore_errors=True)
        if problem := self.journal.close():
            self.report.notes.append(f"metadata.csv is behind ({problem}); the same call updates it")
        self.bar.close()
        self.report.seconds = time.monotonic() - self.started


def _suffix(url):
    return PurePosixPath(urlsplit(url).path).suffix.lower()
