"""Decisions about labels: a log on disk that is only ever added to, and a dataset with the decisions applied."""

import csv
import os
import warnings
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from .dataset import ImageDataset
from .project import as_label, portable

EXCLUDE = "(exclude)"
UNDO = "(undo)"
COLUMNS = ["path", "label", "previous", "time"]


class Annotations:
    """Labels of a dataset as someone corrects them.

    Each decision is at once a line of the log, and all are applied again when the log is opened anew. Pictures and
    metadata on disk never change; `dataset` has the labels as decided.

    Parameters
    ----------
    log
        CSV file, made with the first decision: ``path``; ``label``, or `EXCLUDE` to leave the picture out, or `UNDO` to
        take back the decision before; ``previous``, the label until then; ``time``, in UTC. Decisions about pictures
        that the dataset lacks stay in it.

    Raises
    ------
    ValueError
        If the log is no such file, or decides for a label that the dataset does not have; the message names the line.
        If the dataset has a label `EXCLUDE` or `UNDO`, which the log could not tell from its own marks.
    """

    def __init__(self, dataset: ImageDataset, log: str | os.PathLike) -> None:
        self._original = dataset
        self.log = Path(log)
        self.labels = dataset.labels
        if marks := {EXCLUDE, UNDO} & {*self.labels}:
            raise ValueError(
                f"the label {min(marks)!r} has another meaning in the log of decisions: give it another name in "
                "the table, or rename its folder, and read the dataset again"
            )
        self._given = dict(zip(dataset.paths, dataset.table["label"], strict=True))
        self._stored = {portable(path): path for path in dataset.paths}  # as the log has them
        self._decided = defaultdict(list)  # path to all decisions about it, the last one counts
        self._undoable = []
        self._is_cut = False
        if self.log.exists() and self.log.stat().st_size:
            # without a last line break the machine went down in the middle of a line
            self._is_cut = not self.log.read_bytes().endswith(b"\n")
            self._replay()

    def _replay(self):
        with open(self.log, newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            if next(rows, None) != COLUMNS:
                first = ",".join(COLUMNS)
                raise ValueError(f"{self.log} is no log of decisions: its first line is not {first}")
            for row in rows:
                where = f"{self.log}, line {rows.line_num}"
                if len(row) != len(COLUMNS):  # as above
                    warnings.warn(f"{where}: left out, it was cut short", stacklevel=3)
                elif path := self._stored.get(portable(row[0])):
                    label = row[1]
                    if label == UNDO:
                        self._decided[path] = self._decided[path][:-1]
                    elif label in (*self.labels, EXCLUDE):
                        self._decided[path].append(label)
                    else:
                        raise ValueError(
                            f"{where}: the label {label!r} is none of this dataset's ({', '.join(self.labels)}) nor "
                            f"{EXCLUDE}; correct the line or take another file"
                        )

    def label(self, path: str) -> str:
        """Return the present label of a picture, or `EXCLUDE`."""
        decided = self._decided.get(path)
        return decided[-1] if decided else self._given[path]

    def is_decided(self, path: str) -> bool:
        """Say whether someone has decided about a picture, if only that its label is right."""
        return bool(self._decided.get(path))

    def decide(self, path: str | os.PathLike, label: object) -> None:
        """Give a picture a label, or `EXCLUDE` it; the label that it has already confirms it.

        A label may be given as it stands in a table, such as the number 1: `project.as_label`.

        Raises
        ------
        ValueError
            If the dataset has no such label.
        KeyError
            If it has no such picture.
        """
        path, label = os.fspath(path), as_label(label)
        if label not in (*self.labels, EXCLUDE):
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self.labels)} and {EXCLUDE}")
        if path not in self._given:
            raise KeyError(f"not in this dataset: {path}")
        if self.is_decided(path) and label == self.label(path):
            return
        self._write(path, label)
        self._decided[path].append(label)
        self._undoable.append(path)

    def undo(self) -> str | None:
        """Take back the last decision since the log was opened; return its picture's path, or None if there is none."""
        if not self._undoable:
            return None
        self._write(self._undoable[-1], UNDO)
        path = self._undoable.pop()
        self._decided[path].pop()
        return path

    def _write(self, path, label):
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            if not file.tell():
                rows.writerow(COLUMNS)
            elif self._is_cut:
                file.write("\n")
                self._is_cut = False
            rows.writerow(
                [portable(path), label, self.label(path), datetime.now(UTC).isoformat(timespec="seconds")]
            )

    @property
    def dataset(self) -> ImageDataset:
        """The dataset with all decisions applied: a new `ImageDataset`."""
        labels = {path: self.label(path) for path in self._decided if self.is_decided(path)}
        return self._original.relabel({p: None if label == EXCLUDE else label for p, label in labels.items()})

    @property
    def table(self) -> pd.DataFrame:
        """All pictures as they stand: the dataset's table with the present ``label``, ``given`` and ``decided``."""
        table = self._original.table
        return table.assign(
            given=table["label"],
            label=[self.label(path) for path in table["path"]],
            decided=[self.is_decided(path) for path in table["path"]],
        )

    def progress(self) -> pd.Series:
        """Count the pictures: pandas.Series with ``pictures``, ``decided``, ``relabelled`` and ``excluded``."""
        table = self.table
        excluded = table["label"] == EXCLUDE
        return pd.Series(
            {
                "pictures": len(table),
                "decided": int(table["decided"].sum()),
                "relabelled": int(((table["label"] != table["given"]) & ~excluded).sum()),
                "excluded": int(excluded.sum()),
            }
        )
