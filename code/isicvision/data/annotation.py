"""Correct labels: a log of decisions that only ever grows, and the dataset with these decisions applied."""

import csv
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import IO

import pandas as pd

from ..errors import warn
from ..files import portable, user_path
from ..text import as_label, counted
from .dataset import ImageDataset

EXCLUDE = "(exclude)"
UNDO = "(undo)"
COLUMNS = ["path", "label", "previous", "time"]
_UNDO = re.compile(r"\(undo(?: ([0-9]+))?\)")


class Annotations:
    """Labels of a dataset as people correct them, each written at once to a log, which is applied when it is opened.

    Images and metadata on disk never change. Several people or tabs may share a log: each sees all and undoes its own.

    The log is a CSV file: ``path``; ``label``, or `EXCLUDE` to leave the image out, `UNDO` to take back the decision
    before, ``(undo 2)`` the second one about this image; ``previous``, the label until then; ``time``, in UTC. Raises
    ValueError, which names the line, if the file is not such a log or has a label that the dataset lacks. `labels` are
    those to choose from, by default the dataset's own; images without a label need them.

    >>> table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": ["nevus", "wart"], "group": ["a", "b"]})
    >>> annotations = Annotations(ImageDataset(table), "decisions.csv")
    >>> annotations.decide("a.jpg", "wart")
    >>> annotations.dataset.table["label"].tolist(), annotations.undo(), annotations.label("a.jpg")
    (['wart', 'wart'], 'a.jpg', 'nevus')
    """

    def __init__(self, dataset: ImageDataset, log: str | os.PathLike, labels: Iterable[str] = ()) -> None:
        self._original = dataset
        self.log = user_path(log)
        if self.log.is_dir():
            raise ValueError(f"{self.log} is a folder: name a CSV file for the decisions")
        self.labels = [*dict.fromkeys((*dataset.labels, *labels))]
        if len(dataset) and not self.labels:
            raise ValueError("these images have no labels: say which there are, as labels=model.labels")
        if marks := [label for label in self.labels if label == EXCLUDE or _UNDO.fullmatch(label)]:
            raise ValueError(f"the label {marks[0]!r} means something else in the log of labels: rename it")
        self._given = dict(zip(dataset.paths, dataset.table["label"], strict=True))
        self._stored = {portable(path): path for path in dataset.paths}  # as in the log
        self._decided = defaultdict(list)  # path to its standing decisions, (number, label): the last counts
        self._said = defaultdict(int)  # path to the number of its decisions, including those taken back
        self._strange = 0  # decisions about images that the dataset lacks
        self._own: list = []  # (path, number) of the decisions made here that can be taken back
        self._data = b""  # the log as it was read last
        self._catch_up()
        if self._strange and not self._said and dataset.labels:
            warn(
                f"{self.log}: 0 of {counted(self._strange, 'decision')} apply, because none is about one of the "
                f"{counted(len(dataset), 'image')} of this dataset. If images have moved, correct the log's paths."
            )

    def _catch_up(self):
        if self.log.is_file():
            with self._held("rb"):
                pass

    @contextmanager
    def _held(self, mode: str = "a+b") -> Iterator[IO[bytes]]:
        """Open the log, up to date, while no other process writes to it."""
        if mode != "rb":
            self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, mode) as file:
            with suppress(ImportError, OSError):  # no locks on Windows and some network drives
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            self._replay(file)
            yield file

    def _replay(self, file):
        """Read the log, if it has changed, and apply its decisions from the first one on."""
        file.seek(0)
        data = file.read()
        if data == self._data:
            return
        if not data.startswith(self._data):  # another file has replaced it
            self._own = []
        known, self._data = len(self._data.splitlines()), data
        self._decided.clear()
        self._said.clear()
        self._strange = 0
        text = data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        rows = csv.reader(io.StringIO(text, newline=""))
        if text and next(rows) != COLUMNS:
            raise ValueError(f"{self.log} is no log of decisions: its first line is not {','.join(COLUMNS)}")
        for row in rows:
            where = f"{self.log}, line {rows.line_num}"
            if len(row) == len(COLUMNS):
                self._apply(self._stored.get(portable(row[0])), row[1], where)
            elif row and rows.line_num > known:
                warn(f"{where}: left out, because it was cut short")

    def _apply(self, path, label, where):
        """Apply one decision, or take one back."""
        if path is None:
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
            raise ValueError(f"{where}: the label {label!r} is none of {', '.join(self.labels)}, {EXCLUDE}")

    def label(self, path: str) -> str:
        """Return the present label of an image, or `EXCLUDE`."""
        decided = self._decided.get(path)
        return decided[-1][1] if decided else self._given[path]

    def is_decided(self, path: str) -> bool:
        """Return whether someone has decided about an image, even if only to confirm its label."""
        return bool(self._decided.get(path))

    def decide(self, path: str | os.PathLike, label: object) -> None:
        """Give an image a label, which may be the present one to confirm it, or `EXCLUDE` it.

        Raises ValueError for an unknown label, KeyError for an unknown image.
        """
        path, label = os.fspath(path), as_label(label)
        if label not in (*self.labels, EXCLUDE):
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self.labels)} and {EXCLUDE}")
        if path not in self._given:
            raise KeyError(f"not in this dataset: {path}")
        with self._held() as file:
            decided = self._decided[path]
            if not (decided and decided[-1][1] == label and (path, decided[-1][0]) in self._own):
                self._write(file, path, label)
                self._own.append((path, self._said[path]))

    def undo(self) -> str | None:
        """Take back the last decision made by this object, not by others; return the path of its image, or None."""
        while self._own:
            with self._held() as file:
                path, number = self._own.pop() if self._own else ("", 0)  # the log may be another one now
                standing = [said for said, _ in self._decided[path]]
                if number in standing:
                    self._write(file, path, UNDO if number == standing[-1] else f"(undo {number})")
                    return path
        return None

    def _write(self, file, path, label):
        """Add one line, on the disk at once, and apply it."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        if not self._data:
            rows.writerow(COLUMNS)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        rows.writerow([portable(path), label, self.label(path), now])
        # a last line without a line break was cut short, perhaps within quotes
        is_whole = not self._data or self._data.endswith(b"\n")
        ending = b"" if is_whole else b'"\n' if self._data.count(b'"') % 2 else b"\n"
        file.write(ending + text.getvalue().encode("utf-8", "surrogateescape"))
        file.flush()
        self._replay(file)

    @property
    def dataset(self) -> ImageDataset:
        """A new dataset with all decisions applied; images that have no label yet are set aside."""
        self._catch_up()
        labels = {path: self.label(path) for path in self._decided if self.is_decided(path)}
        found = self._original.relabel({p: None if each == EXCLUDE else each for p, each in labels.items()})
        return found.without(dict.fromkeys(found.table["path"][found.table["label"] == ""], "no label yet"))

    @property
    def table(self) -> pd.DataFrame:
        """The dataset's table with the present ``label``, the ``given`` one, and whether it was ``decided``."""
        self._catch_up()
        table = self._original.table
        return table.assign(
            given=table["label"],
            label=[self.label(path) for path in table["path"]],
            decided=[self.is_decided(path) for path in table["path"]],
        )

    def progress(self) -> pd.Series:
        """Count ``images`` and how many are ``decided``, ``relabeled`` and ``excluded``."""
        table = self.table
        excluded, known = table["label"] == EXCLUDE, table["given"] != ""
        relabeled = (table["label"] != table["given"]) & known & ~excluded
        table = table.assign(relabeled=relabeled, excluded=excluded)
        return pd.Series({"images": len(table), **table[["decided", "relabeled", "excluded"]].sum()})
