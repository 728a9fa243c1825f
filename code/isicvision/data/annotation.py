"""Decisions about labels: a log on disk that is only ever added to, and a dataset with the decisions applied."""

import csv
import hashlib
import io
import os
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO

import pandas as pd

from ..files import portable, user_path
from ..text import as_label, counted
from .dataset import ImageDataset

EXCLUDE = "(exclude)"
UNDO = "(undo)"
COLUMNS = ["path", "label", "previous", "time"]
_UNDO = re.compile(r"\(undo(?: ([0-9]+))?\)")


class Annotations:
    """Labels of a dataset as someone corrects them.

    Each decision is at once a line of the log, and all are applied again when the log is opened anew. Images and
    metadata on disk never change; `dataset` has the labels as decided. Several people, or browser tabs, may decide
    into one log: each sees what the others wrote, and takes back only what they decided themselves.

    Parameters
    ----------
    log
        CSV file, made with the first decision: ``path``; ``label``, or `EXCLUDE` to leave the image out, or `UNDO` to
        take back the decision before, or ``(undo 2)`` to take back the second of this image, where another's came
        after it; ``previous``, the label until then; ``time``, in UTC. Decisions about images that the dataset lacks
        stay in it.

    Warns
    -----
    UserWarning
        If the log holds decisions, and none is about an image of the dataset.

    Raises
    ------
    ValueError
        If the log is no such file, or decides for a label that the dataset does not have; the message names the line.
        If the dataset has a label `EXCLUDE` or `UNDO`, which the log could not tell from its own marks.
    """

    def __init__(self, dataset: ImageDataset, log: str | os.PathLike) -> None:
        self._original = dataset
        self.log = user_path(log)
        self.labels = dataset.labels
        if marks := [label for label in self.labels if label == EXCLUDE or _UNDO.fullmatch(label)]:
            raise ValueError(
                f"the label {min(marks)!r} has another meaning in the log of decisions: give it another name in "
                "the table, or rename its folder, and read the dataset again"
            )
        self._given = dict(zip(dataset.paths, dataset.table["label"], strict=True))
        self._stored = {portable(path): path for path in dataset.paths}  # as the log has them
        self._forget()
        self._catch_up()
        if self._strange and not self._said:
            warnings.warn(
                f"{self.log}: 0 of {counted(self._strange, 'decision')} apply, because none is about one of the "
                f"{counted(len(dataset), 'image')} of this dataset. If the images moved, correct the paths in the "
                "log's first column.",
                stacklevel=2,
            )

    def _forget(self):
        self._decided = defaultdict(
            list
        )  # path to the decisions that stand, each (number, label); the last one counts
        self._said = defaultdict(int)  # path to the number of decisions, those taken back included
        self._strange = 0  # decisions about images that the dataset lacks
        self._hash = hashlib.blake2b()  # of what has been read, to see that it is still the same log
        self._own: list = []  # (path, number) of those of this object, as far as they can be taken back
        self._bytes, self._lines, self._ending = (
            0,
            0,
            b"",
        )  # read so far; what a line that was cut short lacks

    def _catch_up(self):
        """Apply what the log has had since it was read last, by others too."""
        if self.log.is_file():
            with self._held("rb"):
                pass

    @contextmanager
    def _held(self, mode: str = "a+b") -> Iterator[IO[bytes]]:
        """Open the log, up to date, while no other process adds to it."""
        if mode != "rb":
            self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, mode) as file:
            with suppress(ImportError, OSError):  # no locks on Windows and some network drives
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            self._replay(file)
            yield file

    def _replay(self, file):
        file.seek(0)
        if (
            hashlib.blake2b(file.read(self._bytes)).digest() != self._hash.digest()
        ):  # another file took its place
            self._forget()
        file.seek(self._bytes)
        data = file.read()
        if not data:
            return
        text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        rows = csv.reader(io.StringIO(text, newline=""))
        if not self._bytes and next(rows, None) != COLUMNS:
            first = ",".join(COLUMNS)
            raise ValueError(f"{self.log} is no log of decisions: its first line is not {first}")
        for row in rows:
            where = f"{self.log}, line {self._lines + rows.line_num}"
            if len(row) == len(COLUMNS):
                self._apply(self._stored.get(portable(row[0])), row[1], where)
            elif row:
                warnings.warn(f"{where}: left out, it was cut short", stacklevel=5)
        # without a last line break the machine went down in the middle of a line, perhaps within quotes
        self._ending = b"" if data.endswith(b"\n") else b'"\n' if data.count(b'"') % 2 else b"\n"
        self._bytes, self._lines = self._bytes + len(data), self._lines + rows.line_num
        self._hash.update(data)

    def _apply(self, path, label, where):
        """Note one decision, or take one back."""
        if path is None:  # an image that the dataset lacks
            self._strange += 1
            return
        decided, undo = self._decided[path], _UNDO.fullmatch(label)
        if undo:
            number = int(undo[1]) if undo[1] else decided[-1][0] if decided else 0
            self._decided[path] = [one for one in decided if one[0] != number]
        elif label in (*self.labels, EXCLUDE):
            self._said[path] += 1
            decided.append((self._said[path], label))
        else:
            raise ValueError(
                f"{where}: the label {label!r} is none of this dataset's ({', '.join(self.labels)}) nor "
                f"{EXCLUDE}; correct the line or take another file"
            )

    def label(self, path: str) -> str:
        """Return the present label of an image, or `EXCLUDE`."""
        decided = self._decided.get(path)
        return decided[-1][1] if decided else self._given[path]

    def is_decided(self, path: str) -> bool:
        """Say whether someone has decided about an image, if only that its label is right."""
        return bool(self._decided.get(path))

    def decide(self, path: str | os.PathLike, label: object) -> None:
        """Give an image a label, or `EXCLUDE` it; the label that it has already confirms it.

        Nothing is written if that is what was decided here last, and no one has decided otherwise since.
        A label may be given as it stands in a table, such as the number 1: `project.as_label`.

        Raises
        ------
        ValueError
            If the dataset has no such label.
        KeyError
            If it has no such image.
        """
        path, label = os.fspath(path), as_label(label)
        if label not in (*self.labels, EXCLUDE):
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self.labels)} and {EXCLUDE}")
        if path not in self._given:
            raise KeyError(f"not in this dataset: {path}")
        with self._held() as file:
            decided = self._decided[path]
            if decided and decided[-1][1] == label and (path, decided[-1][0]) in self._own:
                return
            self._write(file, path, label)
            self._own.append((path, self._said[path]))

    def undo(self) -> str | None:
        """Take back the last decision of this object; return its image's path, or None if there is none left.

        What was decided before the log was opened, and what others decide into it, stays.
        """
        while self._own:
            with self._held() as file:
                path, number = self._own[-1] if self._own else ("", 0)  # the log may be another one now
                standing = [said for said, _ in self._decided[path]]
                if number in standing:
                    self._write(file, path, UNDO if number == standing[-1] else f"(undo {number})")
                del self._own[-1:]
                if number in standing:
                    return path
        return None

    def _write(self, file, path, label):
        """Add one line at once, and apply it."""
        line = io.StringIO()
        rows = csv.writer(line, lineterminator="\n")
        if not self._bytes:
            rows.writerow(COLUMNS)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows.writerow([portable(path), label, self.label(path), now])
        data = self._ending + line.getvalue().encode("utf-8", "surrogateescape")
        file.write(data)
        file.flush()
        self._bytes, self._lines, self._ending = self._bytes + len(data), self._lines + data.count(b"\n"), b""
        self._hash.update(data)
        self._apply(path, label, self.log)

    @property
    def dataset(self) -> ImageDataset:
        """The dataset with all decisions applied: a new `ImageDataset`."""
        self._catch_up()
        labels = {path: self.label(path) for path in self._decided if self.is_decided(path)}
        return self._original.relabel({p: None if label == EXCLUDE else label for p, label in labels.items()})

    @property
    def table(self) -> pd.DataFrame:
        """All images as they stand: the dataset's table with the present ``label``, ``given`` and ``decided``."""
        self._catch_up()
        table = self._original.table
        return table.assign(
            given=table["label"],
            label=[self.label(path) for path in table["path"]],
            decided=[self.is_decided(path) for path in table["path"]],
        )

    def progress(self) -> pd.Series:
        """Count the images: pandas.Series with ``images``, ``decided``, ``relabeled`` and ``excluded``."""
        table = self.table
        excluded = table["label"] == EXCLUDE
        return pd.Series(
            {
                "images": len(table),
                "decided": int(table["decided"].sum()),
                "relabeled": int(((table["label"] != table["given"]) & ~excluded).sum()),
                "excluded": int(excluded.sum()),
            }
        )
