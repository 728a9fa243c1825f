"""What is known of each image of a download folder, and the tables beside the images that tell people.

An SQLite file outlives a killed process and a power cut, answers for one image without holding all in memory, and
keeps a second download out of the folder. metadata.csv, missing.csv and the credits are written from it; if it is lost,
it is made anew from them.
"""

import csv
import json
import os
import sqlite3
import time
from contextlib import contextmanager
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
FLUSH_SECONDS = 1.0
"""How far the journal may be behind."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS images (isic_id TEXT PRIMARY KEY, status TEXT, reason TEXT, file TEXT, bytes INTEGER,
                                     record TEXT, attribution TEXT, license TEXT)
"""


class Journal:
    """The journal of one folder, which is made if it is not there.

    A folder holds images of one `source`, the archive's address, of one `variant`, such as ``"full size"``. Raises
    ValueError if it holds something else, or another download is writing to it.
    """

    def __init__(self, folder: Path, source: str, variant: str) -> None:
        self.folder = Path(folder)
        found = (self.folder / NAME).exists()
        if not found:
            self._require_own(source)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ValueError(
                    f"another download is writing to {self.folder}: wait, or choose another folder"
                ) from None
            raise
        except sqlite3.DatabaseError:  # damaged
            self._db.close()
            os.replace(self.folder / NAME, self.folder / f"{NAME}.damaged")
            found = False
            self._open()
        about = dict(self._db.execute("SELECT name, value FROM about"))
        for name, value in (("source", source), ("variant", variant)):
            if about.setdefault(name, value) != value:
                self._db.close()
                raise ValueError(
                    f"{self.folder} holds images of {about['source']}, {about.get('variant', variant)}; those of "
                    f"{source}, {variant}, must not be mixed with them: choose another folder"
                )
        with self._transaction():
            self._db.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", about.items())
        self._source, self._pending, self._rewritten = source, [], (time.monotonic(), 0.0)
        self._columns: list[str] = []  # of metadata.csv
        self._is_behind = True  # it must be written anew
        if not found:
            self._adopt_metadata()
        elif about.get("tables") == "whole" and (self.folder / "metadata.csv").exists():
            with open(self.folder / "metadata.csv", encoding="utf-8", newline="") as file:
                self._columns, self._is_behind = next(csv.reader(file), []), False

    def _open(self):
        self._db = sqlite3.connect(self.folder / NAME, timeout=0, isolation_level=None)
        # from the first write until the journal is closed
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        with self._transaction():
            for statement in SCHEMA.split(";"):
                self._db.execute(statement)

    def _require_own(self, source):
        """Refuse a folder that holds what no download put there."""
        if not self.folder.exists():
            return
        credits = self.folder / "attribution.txt"
        if credits.is_file() and credits.read_text(encoding="utf-8").startswith(_headline(source)):
            return  # of this archive, its journal was lost
        if any(not path.name.startswith(".") and not is_stray(path.name) for path in self.folder.iterdir()):
            raise ValueError(
                f"{self.folder} holds images of another origin, or files that no download put there: choose "
                "another folder"
            )

    @contextmanager
    def _transaction(self):
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:  # commits, or rolls back, also after Ctrl-C
            yield

    def _adopt_metadata(self):
        """Take over the images that metadata.csv tells of and that are still there."""
        path = self.folder / "metadata.csv"
        if not path.exists():
            return
        with open(path, encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                image = self.folder / (row.pop("file", None) or ".")
                if image.is_file():
                    known = {name: value for name, value in row.items() if name and value}
                    name = image.relative_to(self.folder).as_posix()
                    self.put(row.get("isic_id") or image.stem, "done", name, image.stat().st_size, known)
        self.flush()

    def __len__(self):
        return self._db.execute("SELECT COUNT(*) FROM images WHERE status = 'done'").fetchone()[0]

    def get(self, isic_id: str) -> tuple[str, str, int, dict] | None:
        """Return (status, file, bytes, record) of an image, or None; ``status`` is done, failed or skipped."""
        query = "SELECT status, file, bytes, record FROM images WHERE isic_id = ?"
        found = self._db.execute(query, (_clean(isic_id),)).fetchone()
        return found and (*found[:3], json.loads(found[3]))

    def put(
        self,
        isic_id: str,
        status: str,
        file: str | None = None,
        size: int | None = None,
        record: dict | None = None,
        reason: str | None = None,
        known: bool = False,
    ) -> None:
        """Note what became of an image; on the disk after the next `flush`.

        `status` is ``done``, ``failed`` or ``skipped``, for which there is a `reason`; `file` the image's path in the
        folder, with ``/``, and `size` its bytes; `record` its flat metadata; `known` says that the journal has it
        already.
        """
        self._pending.append((isic_id, status, reason, file, size, record or {}, known))

    def flush(self) -> None:
        """Write what was put to the journal, then bring metadata.csv and the credits up to date.

        Raises OSError or sqlite3.Error if the disk takes no more; nothing that was written before is lost.
        """
        if not self._pending:
            return
        # the journal must not tell of an image whose name a power cut may take back
        for folder in {self.folder / file.rpartition("/")[0] for _, _, _, file, *_ in self._pending if file}:
            _sync_folder(folder)
        with self._transaction():
            self._db.executemany(
                "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                map(self._row, self._pending),
            )
            self._db.execute("INSERT OR REPLACE INTO about VALUES ('tables', 'behind')")
        done = [{**record, "file": file} for _, how, _, file, _, record, _ in self._pending if how == "done"]
        self._is_behind |= any(known for *_, known in self._pending)
        self._is_behind |= not set().union(*done) <= {*self._columns}
        self._pending = []
        when, took = self._rewritten
        if not self._is_behind:
            with open(self.folder / "metadata.csv", "a", **TEXT) as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerows(done)
        elif time.monotonic() - when > 20 * took:  # not again and again when it is large
            self._write_tables()

    def close(self) -> Exception | None:
        """Flush, write the tables sorted, and give the folder free; return the error if the disk takes no more."""
        problem = None
        try:
            self.flush()
            about = dict(self._db.execute("SELECT name, value FROM about"))
            if about.get("tables") != "whole":
                self._write_tables()
                with self._transaction():
                    self._db.execute("INSERT OR REPLACE INTO about VALUES ('tables', 'whole')")
        except (OSError, sqlite3.Error) as error:
            problem = error
        finally:
            self._db.close()
        return problem

    @staticmethod
    def _row(entry):
        isic_id, status, reason, file, size, record, _ = entry
        credit = (record.get(name) for name in ("attribution", "copyright_license"))
        texts = (None if text is None else _clean(str(text)) for text in credit)
        return (_clean(isic_id), status, reason and _clean(reason), file, size, json.dumps(record), *texts)

    def _write_tables(self):
        started = time.monotonic()
        self._columns = self._write_metadata()
        self._write_missing()
        self._write_credits()
        self._rewritten, self._is_behind = (time.monotonic(), time.monotonic() - started), False

    def _write_metadata(self):
        query = "SELECT record, file FROM images WHERE status = 'done' ORDER BY isic_id"
        names = self._db.execute(
            "SELECT DISTINCT json_each.key FROM images, "
            "json_each(CASE WHEN json_valid(record) THEN record ELSE '{}' END) WHERE status = 'done'"
        )
        columns = [*FIRST_COLUMNS, *sorted({name for (name,) in names} - {*FIRST_COLUMNS})]
        with replacing(self.folder / "metadata.csv") as part, open(part, "w", **TEXT) as file:
            # of an earlier version's record with 1e999, which is not JSON, some columns may be unknown
            writer = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
            writer.writeheader()
            for record, name in self._db.execute(query):
                writer.writerow({**json.loads(record), "file": name})
        return columns

    def _write_missing(self):
        query = "SELECT isic_id, status, reason FROM images WHERE status != 'done' ORDER BY isic_id"
        rows = self._db.execute(query)
        first = rows.fetchone()
        if first is None:
            (self.folder / "missing.csv").unlink(missing_ok=True)
            return
        with replacing(self.folder / "missing.csv") as part, open(part, "w", **TEXT) as file:
            csv.writer(file, lineterminator="\n").writerows([("isic_id", "status", "reason"), first, *rows])

    def _write_credits(self):
        counts = self._db.execute(
            "SELECT COALESCE(attribution, 'Anonymous'), COALESCE(license, 'unknown license'), COUNT(*) AS n "
            "FROM images WHERE status = 'done' GROUP BY 1, 2 ORDER BY n DESC, 1, 2"
        ).fetchall()
        variant = self._db.execute("SELECT value FROM about WHERE name = 'variant'").fetchone()[0]
        with replacing(self.folder / "attribution.txt") as part, open(part, "w", **TEXT) as file:
            file.write(f"{_headline(self._source)}, {variant}\n\n")
            file.writelines(f"{who} ({terms}): {counted(count, 'image')}\n" for who, terms, count in counts)
        with replacing(self.folder / "licenses.txt") as part, open(part, "w", **TEXT) as file:
            for terms in sorted({terms for _, terms, _ in counts}):
                file.write(f"{terms}: {LICENSES.get(terms, 'ask the archive')}\n")


def _headline(source):
    return f"Images of {source}"


def _clean(text):
    """Make any text of a record fit for UTF-8 files and the journal."""
    return text.encode("utf-8", "replace").decode()[:300]


def _sync_folder(path):
    """Make renames in a folder last through a power cut, where the system can."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
