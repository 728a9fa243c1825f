"""The journal of a download folder: what became of each image, and the tables for people that are written from it.

An SQLite file survives a killed process and a power cut, and keeps a second download out of the folder.
"""

import csv
import json
import sqlite3
import time
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

from ..files import OWN_FILES, is_stray, replacing
from ..text import counted

NAME = OWN_FILES[0]
FIRST_COLUMNS = ("isic_id", "label", "file", "attribution", "copyright_license")
LICENSES = {
    "CC-0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY": "https://creativecommons.org/licenses/by/4.0/",
    "CC-BY-NC": "https://creativecommons.org/licenses/by-nc/4.0/",
}
# a record may hold half a surrogate pair
TEXT: dict = {"encoding": "utf-8", "errors": "replace", "newline": ""}
FLUSH_SECONDS = 1.0  # how far the journal may be behind
SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS images (
    isic_id TEXT PRIMARY KEY, status TEXT, reason TEXT, file TEXT, bytes INTEGER, record TEXT
);
"""
DONE = "SELECT record, file FROM images WHERE status = 'done' ORDER BY isic_id"
MISSING = "SELECT isic_id, status, reason FROM images WHERE status != 'done' ORDER BY isic_id"


class Journal:
    """The journal of one folder, which is created if needed.

    A folder holds the images of one `source`, the archive's address, in one `variant`, such as ``"full size"``.
    ValueError if it holds something else, or if another download is writing to it.
    """

    def __init__(self, folder: Path, source: str, variant: str) -> None:
        self.folder, self._headline = Path(folder), f"Images of {source}, {variant}"
        own = {"source": source, "variant": variant}
        names = [path.name for path in self.folder.iterdir()] if self.folder.exists() else []
        if NAME not in names and any(not name.startswith(".") and not is_stray(name) for name in names):
            raise ValueError(f"{self.folder} holds other files, and no {NAME}: choose another folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(self.folder / NAME, timeout=0, isolation_level="IMMEDIATE")
        try:
            # from the first write until the journal is closed
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.executescript(SCHEMA)
            with self._db:
                self._db.executemany("INSERT OR IGNORE INTO about VALUES (?, ?)", own.items())
        except sqlite3.DatabaseError as error:
            self._db.close()
            if "locked" in str(error):
                raise ValueError(f"another download is writing to {self.folder}: wait for it") from None
            raise ValueError(f"{self.folder / NAME} cannot be used ({error}): take another folder") from error
        about = dict(self._db.execute("SELECT name, value FROM about"))
        if about | own != about:
            self._db.close()
            held = f"{self.folder} holds images of {about['source']}, {about['variant']}"
            raise ValueError(f"{held}, not of {source}, {variant}: choose another folder")
        self._pending, self._rewritten, self._is_behind = [], (time.monotonic(), 0.0), False

    def __len__(self):
        return self._db.execute("SELECT COUNT(*) FROM images WHERE status = 'done'").fetchone()[0]

    def get(self, isic_id: str) -> tuple[str, str, int, dict] | None:
        """Return (status, file, bytes, record) of an image as `put` took them, or None."""
        query = "SELECT status, file, bytes, record FROM images WHERE isic_id = ?"
        found = self._db.execute(query, (_clean(isic_id),)).fetchone()
        return found and (*found[:3], json.loads(found[3]))

    def put(
        self,
        isic_id: str,
        status: str,
        file: str = "",
        size: int | None = None,
        record: dict | None = None,
        reason: str = "",
    ) -> None:
        """Note what became of an image; on the disk after the next `flush`.

        `status` is ``done``, or ``failed`` or ``skipped`` with a `reason`. `file` is its path in the folder (with
        ``/``), `size` its bytes, `record` its flat metadata.
        """
        self._pending.append((_clean(isic_id), status, _clean(reason), file, size, json.dumps(record or {})))

    def flush(self) -> None:
        """Write what was put to the journal, then the tables; OSError or sqlite3.Error if the disk is full."""
        if self._pending:
            with self._db:  # commits, or rolls back, also after Ctrl-C
                self._db.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?)", self._pending)
            self._pending, self._is_behind = [], True
        when, took = self._rewritten
        if self._is_behind and time.monotonic() - when > 20 * took:  # rarely when they are large
            self._write_tables()

    def close(self) -> Exception | None:
        """Flush, write the tables sorted, and release the folder; return the error if the disk is full."""
        with closing(self._db):
            try:
                self.flush()
                self._write_tables()
            except (OSError, sqlite3.Error) as error:
                return error
        return None

    def _write_tables(self):
        started, columns, credits = time.monotonic(), {*FIRST_COLUMNS}, Counter()
        for text, _ in self._db.execute(DONE):
            record = json.loads(text)
            columns.update(record)
            terms = record.get("copyright_license", "unknown license")
            credits[str(record.get("attribution", "Anonymous")), str(terms)] += 1
        columns = [*FIRST_COLUMNS, *sorted(columns - {*FIRST_COLUMNS})]
        with self._writing("metadata.csv") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows({**json.loads(text), "file": name} for text, name in self._db.execute(DONE))
        rows = self._db.execute(MISSING)
        if first := rows.fetchone():
            with self._writing("missing.csv") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerows([("isic_id", "status", "reason"), first, *rows])
        else:
            (self.folder / "missing.csv").unlink(missing_ok=True)
        with self._writing("attribution.txt") as file:
            file.write(f"{self._headline}\n\n")
            for (who, terms), count in sorted(credits.items(), key=lambda item: (-item[1], item[0])):
                file.write(f"{who} ({terms}): {counted(count, 'image')}\n")
        with self._writing("licenses.txt") as file:
            for terms in sorted({terms for _, terms in credits}):
                file.write(f"{terms}: {LICENSES.get(terms, 'ask the archive')}\n")
        self._rewritten, self._is_behind = (time.monotonic(), time.monotonic() - started), False

    @contextmanager
    def _writing(self, name):
        with replacing(self.folder / name) as part, open(part, "w", **TEXT) as file:
            yield file


def _clean(text):
    """Make text fit for UTF-8 files and the journal."""
    return text.encode("utf-8", "replace").decode()[:300]
