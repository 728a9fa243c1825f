"""`ImageDataset`: a table of images with labels."""

from __future__ import annotations

import hashlib
import os
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image

from .. import tables
from ..checks import check_seed, is_number, is_whole, positive_label
from ..fields import MEASURES
from ..files import user_path
from ..images import ImageError, map_threads
from ..tables import restored, stored
from ..text import apart, as_label, counted, printable
from . import cache, duplicates, folders, labelcolumns, reading, splitting
from .measures import measure

TINY, OVERSIZED = 64, 10_000
"""Sides in pixels: a shorter one below the first shows no structures, a longer one above the second is suspicious."""
OWN = ("path", "label", "group")


def _reasons(paths=(), reasons=()):
    """Return the table of what is set aside, printable although file names need not be UTF-8."""
    return pd.DataFrame({"path": [*map(printable, paths)], "reason": [*map(printable, reasons)]}, dtype=str)


@dataclass(frozen=True)
class ImageDataset:
    """Images with labels, as a table. Methods return a new dataset; only `save` writes a file.

    `table` has one row per image: ``path``, ``label`` (empty if it is not known), ``group`` (all str; a split keeps a
    group together), then the metadata. `set_aside` has ``path`` and ``reason`` of every other image or row.
    `augmenters` are imgaug pipelines applied during training. `notes` say how many rows of each table fit how many
    images. `positive` is the positive label, chosen or of two labels that of `checks.positive_label`; `save` drops it.

    >>> table = pd.DataFrame({"path": [f"{n}.jpg" for n in range(8)]})
    >>> dataset = ImageDataset(table.assign(label=["benign", "malignant"] * 4, group=[*"aabbccdd"]))
    >>> [len(part) for part in dataset.split(0.5, 0.5)]
    [4, 4]
    """

    table: pd.DataFrame
    set_aside: pd.DataFrame = field(default_factory=_reasons)
    augmenters: tuple = ()
    notes: tuple[str, ...] = ()
    positive: str | None = None

    def __post_init__(self):
        if lacking := [name for name in OWN if name not in self.table]:
            raise ValueError(f"the table lacks the column {', '.join(lacking)}: it needs path, label, group")
        labels = self.table["label"]
        if labels.isna().any() or pd.api.types.infer_dtype(labels) not in ("string", "categorical", "empty"):
            said = "the column label of the table must be text without missing values"
            raise ValueError(f"{said}: table.astype({{'label': str}})")

    @classmethod
    def from_folder(
        cls,
        root: str | os.PathLike,
        group_column: str | None = None,
        sublabel_column: str | None = None,
        positive: str | None = None,
        one_label: bool = False,
        labeled: bool = True,
    ) -> ImageDataset:
        """Read a folder with one subfolder per label; a ``metadata.csv`` in any of these is joined by file name.

        If the subfolders are parts of a split (train, validation, test), the labels are the folders in them, and the
        column ``split`` holds the part. The finer labels in `sublabel_column` become ``sublabel``. The rest
        is as in `from_csv`; it also raises FileNotFoundError or ValueError if the subfolders are not labels. With
        ``labeled=False`` the images have no labels, wherever they lie in the folder: a model can predict theirs,
        `labelissues.next_to_label` chooses which to label, and `widgets.AnnotationUI` labels them.
        """
        found = reading.read_folder(root, group_column, sublabel_column, labeled)
        return cls._read(found, positive, one_label or not labeled)

    @classmethod
    def from_csv(
        cls,
        csv: str | os.PathLike | pd.DataFrame,
        images: str | os.PathLike | None = None,
        image_column: str | None = None,
        label_column: str | Sequence[str] = "label",
        group_column: str | None = None,
        label_map: dict | None = None,
        metadata: str | os.PathLike | None = None,
        positive: str | None = None,
        one_label: bool = False,
    ) -> ImageDataset:
        """Read images and labels from a CSV file with one row per image. Columns are found in any spelling.

        `images` is their folder, by default that of `csv`; they may lie in subfolders. `image_column` has their names,
        without folder and extension if you like; by default it is the one of `fields.IMAGE_COLUMNS` that fits most
        files. `label_column` may be a list of one column per label, one of which each row marks. `group_column` says
        which images belong together; by default, and where it is empty or ``unknown``, it is ``lesion_id``, else
        ``patient_id``, else each image stands alone. `label_map` is a dict of label in the file to label in the
        dataset, see `labelcolumns.apply_map`; None leaves a label out, other labels are set aside, and ``sublabel``
        keeps those that were merged. `metadata` is a second CSV file, joined by image or lesion, that fills gaps. For
        `positive` see `checks.positive_label`. With `one_label` images of one label are enough, for a test. Other
        columns with one of our names become ``metadata_NAME``.

        Raises FileNotFoundError if a file is missing or none of the images is in `images`, ValueError if a column is
        missing, `metadata` or `label_map` matches nothing, or fewer than two labels are left. Warns about images set
        aside, contradicting rows and spellings.
        """
        columns = reading.Columns(image_column, label_column, group_column, label_map)
        return cls._read(reading.read_table(csv, images, columns, metadata), positive, one_label)

    @classmethod
    def from_parameters(cls, given: Mapping[str, Any], one_label: bool = False) -> ImageDataset:
        """Read the folder SOURCE as the parameters of 01_acquire_images say, which `files.read_source` reads too.

        >>> from isicvision import SAMPLE_DATA
        >>> ImageDataset.from_parameters({"SOURCE": SAMPLE_DATA, "LABEL_COLUMN": "diagnosis_1"}).labels
        ['Benign', 'Malignant']
        """
        source, group = user_path(given["SOURCE"]), given.get("GROUP_COLUMN")
        csv, label = given.get("CSV", "metadata.csv"), given.get("LABEL_COLUMN")
        more = given.get("METADATA_CSV")
        if isinstance(csv, Mapping):
            there = [name for name in csv if (source / user_path(name)).is_file()] or [*csv]
            csv, label = there[0], csv[there[0]]
        if label is None:
            return cls.from_folder(source, group, one_label=one_label)
        columns = given.get("IMAGE_COLUMN"), label, group, given.get("LABEL_MAP")
        more = more and source / user_path(more)
        return cls.from_csv(source / user_path(csv), source, *columns, more, one_label=one_label)

    @classmethod
    def from_table(cls, table: pd.DataFrame, images: str | os.PathLike, **options: Any) -> ImageDataset:
        """Take images and labels from a DataFrame with one row per image; the `options` are those of `from_csv`.

        >>> from isicvision import SAMPLE_DATA
        >>> table = pd.DataFrame({"image": ["ISIC_9900259", "ISIC_9900634"], "dx": ["bkl", "nv"]})
        >>> ImageDataset.from_table(table, SAMPLE_DATA, label_column="dx", positive="nv").labels
        ['bkl', 'nv']
        """
        return cls.from_csv(table, images, **options)

    @classmethod
    def _read(cls, found, positive, one_label=False):
        """Set aside the rows that have a reason, and refuse what cannot be learned from."""
        keep = found.reasons.isna()
        aside = _reasons(found.table["path"][~keep], found.reasons[~keep])
        kept = found.table[keep].astype({"path": str, "label": str})
        kept["group"] = kept["group"].fillna(kept["path"]).astype(str)
        counts = kept["label"].value_counts()
        lost = sorted({*found.table["label"][~keep].dropna()} - {*counts.index})
        reading.warn_of_set_aside(aside, lost, found.source)
        if len(counts) < 2 - one_label:
            raise ValueError(
                f"{found.source} has images of {len(counts)} label ({', '.join(counts.index) or 'none'}); a "
                f"classifier needs two. {folders.USE_CSV * Path(found.source).is_dir()}"
            )
        labelcolumns.warn_of_spellings(counts.to_dict(), found.source)
        if positive is not None or (len(counts) == 2 and not one_label):
            positive = positive_label(sorted(counts.index), positive)
        return cls(kept.reset_index(drop=True), aside, notes=tuple(found.notes), positive=positive)

    @classmethod
    def load(cls, csv: str | os.PathLike, positive: str | None = None) -> ImageDataset:
        """Read a dataset that `save` wrote, or raise ValueError. Choose the positive label again: it is not saved."""
        table = tables.load(csv, verbatim=(*OWN, "sublabel"))
        if missing := sorted({*OWN} - {*table}):
            raise ValueError(f"{csv} lacks the columns {', '.join(missing)}: not saved by ImageDataset.save")
        if table["label"].isna().all():  # of `from_folder` with labeled=False
            table["label"] = ""
        for name in ("path", "label"):
            if table[name].isna().any():
                row = int(table[name].isna().argmax()) + 1
                raise ValueError(f"{csv}, row {row}: no {name}. Complete the row or delete it.")
        if positive is not None:
            positive = positive_label(sorted(table["label"].unique()), positive)
        return cls(restored(table.assign(group=table["group"].fillna(table["path"]))), positive=positive)

    def save(self, csv: str | os.PathLike) -> Path:
        """Write the table as CSV, not the images, and return its path."""
        return tables.save(stored(self.table), csv)

    def __len__(self):
        return len(self.table)

    def __repr__(self):
        counts = self.table["label"].value_counts().sort_index()
        said = ", ".join(f"{printable(label) or 'no label'} {n:,}" for label, n in counts.head(12).items())
        alone = (self.table["group"] == self.table["path"]).all()
        groups = "unknown, no column names them" if alone else f"{self.table['group'].nunique():,}"
        lines = [
            f"ImageDataset: {counted(len(self), 'image')}",
            f"labels: {said or 'none'}" + f", and {len(counts) - 12} more" * (len(counts) > 12),
            f"positive label: {printable(self._positive)}",
            f"groups (lesions or patients): {groups}",
            f"columns: {textwrap.shorten(', '.join(map(str, self.table)), 200, placeholder=' …')}",
        ]
        lines += [f"set aside: {len(self.set_aside):,}"] * (len(self.set_aside) > 0)
        lines += [f"augmented by {counted(len(self.augmenters), 'pipeline')}"] * (len(self.augmenters) > 0)
        return "\n  ".join([*lines, *map(printable, self.notes)])

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted({*self.table["label"]} - {""})

    @property
    def _positive(self):
        return self.positive or (positive_label(self.labels, warn=False) if self.labels else None)

    @property
    def paths(self) -> list[str]:
        """The images' paths in the order of the table."""
        return self.table["path"].tolist()

    @property
    def is_augmented(self) -> bool:
        """Whether it holds augmented copies or makes them during training, see `augment_dataset`."""
        return bool(self.augmenters) or "augmented_from" in self.table

    def originals(self) -> ImageDataset:
        """Leave out the copies that `augment_dataset` wrote."""
        return self.where(self.table["augmented_from"].isna()) if "augmented_from" in self.table else self

    def manifest(self) -> str:
        """Hash the images' bytes, labels and groups, in any order: 32 hexadecimal digits."""
        table = self.table
        rows = zip(cache.keys(self.paths), table["label"], table["group"], table["path"], strict=True)
        lines = [f"{key},{label},{'' if group == path else group}" for key, label, group, path in rows]
        return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=16).hexdigest()

    def sources(self) -> list[dict]:
        """List whom to credit: dicts of ``attribution``, ``license`` (or None) and ``images``, most first."""
        names = {"attribution": "attribution", "copyright_license": "license"}
        table = self.table.reindex(columns=[*names]).rename(columns=names).astype("string")
        counts = table.value_counts(dropna=False).reset_index(name="images").astype(object)
        rows = counts.where(counts.notna(), None).to_dict("records")
        return [row for row in rows if row["attribution"] or row["license"]]

    def summary(self) -> pd.DataFrame:
        """Count images and groups (or ``unknown``) of each label and of all; ``positive`` marks the positive label."""
        rows = self.table.groupby("label")
        summary = pd.DataFrame({"images": rows.size(), "groups": rows["group"].nunique()})
        summary["share"] = summary["images"] / len(self)
        summary.loc[apart("all", self.labels)] = [len(self), self.table["group"].nunique(), 1.0]
        summary = summary.astype({"images": int, "groups": int}).round({"share": 3})
        summary["positive"] = ["yes" * (label == self._positive) for label in summary.index]
        known = splitting.group_count(self.table)["groups"] is not None
        return summary if known else summary.assign(groups="unknown")

    def sample(self, n: int, seed: int = 0, balanced: bool = False) -> ImageDataset:
        """Draw `n` images at random, or all if there are fewer; if `balanced`, equally many of each label."""
        if not is_whole(n, 1):
            raise ValueError(f"n is the number of images, a whole number of 1 or more, not {n!r}")
        check_seed(seed)
        shuffled = self.table.reset_index(drop=True).sample(frac=1, random_state=seed)
        if balanced:
            turn = shuffled.groupby("label").cumcount().sort_values(kind="stable")
            shuffled = shuffled.loc[turn.index[:n]].sort_values("label", kind="stable")
        return replace(self, table=shuffled.head(n).reset_index(drop=True))

    def where(self, rows: ArrayLike) -> ImageDataset:
        """Keep the images for which `rows`, one bool per row of the table, is true, such as ``table["age"] > 60``."""
        return replace(self, table=self.table[tables.mask(rows, self.table)].reset_index(drop=True))

    def relabel(self, labels: dict[str, str | None]) -> ImageDataset:
        """Correct labels by path; None sets the image aside. A corrected image loses its ``sublabel``."""
        labels = {path: as_label(label) for path, label in labels.items()}
        if unknown := {*labels} - {*self.table["path"]}:
            raise KeyError(f"not in this dataset: {', '.join(sorted(map(printable, unknown))[:5])}")
        table = self.table.copy()
        new = table["path"].map(labels)
        if "sublabel" in table:
            table["sublabel"] = table["sublabel"].where(new.isna() | (new == table["label"]))
        table["label"] = new.where(new.notna(), table["label"])
        excluded = {path: "excluded by hand" for path, label in labels.items() if label is None}
        positive = self.positive if self.positive in {*table["label"]} else None
        return replace(self, table=table, positive=positive).without(excluded)

    def without(self, reasons: dict[str, str]) -> ImageDataset:
        """Set aside the images of `reasons`, a dict of path to reason."""
        aside = pd.concat([self.set_aside, _reasons(reasons, reasons.values())], ignore_index=True)
        kept = self.where(~self.table["path"].isin(reasons.keys()).to_numpy())
        return replace(kept, set_aside=aside)

    def measure(self) -> ImageDataset:
        """Decode every image, add the columns of `fields.MEASURES`, and set aside files that cannot be decoded."""

        def measured(path):
            try:
                return measure(path)
            except ImageError as error:
                return str(error)

        results = map_threads(measured, self.paths, progress="measuring")
        pairs = zip(self.paths, results, strict=True)
        sound = self.without({path: result for path, result in pairs if isinstance(result, str)})
        found = pd.DataFrame([row for row in results if not isinstance(row, str)], columns=list(MEASURES))
        return replace(sound, table=sound.table.drop(columns=list(MEASURES), errors="ignore").join(found))

    def _measured(self):
        return self if {*MEASURES} <= {*self.table} else self.measure()

    def problems(self) -> pd.DataFrame:
        """List what is wrong with the files: ``path, problem, detail``. Images are measured unless they have been.

        A problem is ``unreadable``, ``tiny`` or ``oversized`` (see `TINY` and `OVERSIZED`), ``grayscale``, ``wrong
        extension``, ``exact duplicate`` of an earlier image, or ``label conflict``: equal bytes, another label.
        """
        measured = self._measured()
        table, aside = measured.table, measured.set_aside
        pairs = zip(aside["path"], aside["reason"], strict=True)
        broken = aside[np.array([reason.startswith(f"{path}: ") for path, reason in pairs], bool)]
        size = table["width"].astype(str) + "x" + table["height"].astype(str) + " pixels"
        kinds = Image.registered_extensions() | {".jif": "JPEG", ".dcm": "DICOM", ".dicom": "DICOM"}
        endings = [os.path.splitext(path)[1].lower() for path in table["path"]]
        named = pd.Series([kinds.get(ending) for ending in endings], dtype=object)
        copies = table.groupby("sha256")
        first, conflict = copies["path"].transform("first"), copies["label"].transform("nunique") > 1
        said = (table["label"] + " in " + table["path"])[conflict].groupby(table["sha256"]).agg(", ".join)
        found = [broken.rename(columns={"reason": "detail"}).assign(problem="unreadable")]
        for problem, rows, detail in (
            ("tiny", table[["width", "height"]].min(axis=1) < TINY, size),
            ("oversized", table[["width", "height"]].max(axis=1) > OVERSIZED, size),
            ("grayscale", table["gray"].astype(bool), "no pixel has a color"),
            # MPO is a camera's JPEG with a preview behind
            ("wrong extension", table["format"].replace("MPO", "JPEG") != named, "holds " + table["format"]),
            ("exact duplicate", table["path"] != first, "the same bytes as " + first),
            ("label conflict", conflict, table["sha256"].map("the same bytes are labeled " + said)),
        ):
            row = {"path": table["path"], "problem": problem, "detail": detail}
            found.append(pd.DataFrame(row)[rows])
        columns = ["path", "problem", "detail"]
        return pd.concat(found)[columns].sort_values(["path", "problem"], ignore_index=True)

    def near_duplicates(
        self, threshold: int = duplicates.THRESHOLD, parts: splitting.Parts | None = None
    ) -> pd.DataFrame:
        """List pairs of images whose perceptual hashes differ in at most `threshold` of 64 bits, the nearest first.

        The columns are ``path_a, path_b, distance, label_a, label_b, group_a, group_b, crosses_label, crosses_group``
        (NA if a lesion is unknown) and, with `parts` of a split or a column ``split``, ``part_a, part_b,
        crosses_split`` (false for an image in no part). Images are measured unless they have been.
        """
        table = self._measured().table.drop(columns="part", errors="ignore")
        if parts is not None:
            part_of = {path: name for name, part in splitting.named(parts).items() for path in part.paths}
            table = table.assign(part=table["path"].map(part_of))
        elif "split" in table:
            table = table.assign(part=table["split"])
        return duplicates.near_table(table, threshold)

    def split(
        self,
        *fractions: float,
        stratify: str = "label",
        group: str | None = "group",
        seed: int = 0,
        near_duplicates: int | None = None,
        keep: splitting.Parts | None = None,
    ) -> list[ImageDataset]:
        """Split into one part per fraction; the parts share no group and have the labels in similar proportions.

        Each part gets the values of the column `stratify` in proportion. Equal values of the column `group` stay in one
        part, and an image without one stands alone; None splits image by image. With `near_duplicates`, groups stay
        together too if images' perceptual hashes differ in at most so many bits; call `measure` first.

        `keep` are the parts of an earlier split, in the same order or by name (train, validation, test): their images,
        found by `splitting.matched`, and groups stay where they are; groups that a correction joins go to the first.

        Raises ValueError if `fractions` do not sum to 1, a column is missing, a label has fewer groups than parts, or
        `keep` does not fit. Warns if a part lacks a label, a group is in several, or `keep` has mostly other images.
        """
        positive = [is_number(share, 0) and share > 0 for share in fractions]
        if len(fractions) < 2 or not all(positive) or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must be two or more, positive and sum to 1, not {fractions}")
        parts = splitting.deal(self, fractions, stratify, group, seed, near_duplicates, keep)
        return [self.where(parts == n) for n in range(len(fractions))]

    def folds(
        self,
        k: int,
        stratify: str = "label",
        group: str | None = "group",
        seed: int = 0,
        near_duplicates: int | None = None,
    ) -> list[tuple[ImageDataset, ImageDataset]]:
        """Split into `k` parts as `split` does; return k pairs (the other parts, this part), for cross-validation."""
        if not is_whole(k, 2):
            raise ValueError(f"k must be 2 or more, and a whole number, not {k!r}")
        parts = splitting.deal(self, [1 / k] * k, stratify, group, seed, near_duplicates)
        return [(self.where(parts != n), self.where(parts == n)) for n in range(k)]

    def split_report(
        self,
        parts: splitting.Parts,
        stratify: str = "label",
        group: str = "group",
        near_duplicates: int | None = None,
    ) -> pd.DataFrame:
        """Tell how well a split keeps groups whole and labels in proportion: one row per part and one for all.

        The columns are ``images``, ``groups``, ``share`` of all images, ``share_LABEL`` of each label in the part,
        ``largest_deviation`` of these from those in all, ``shared_groups`` with another part (NaN if no lesion is
        named), ``groups_known`` (the share of images, unless all are named), and with `near_duplicates` the pairs with
        an image of another part. The arguments are those of `split`.
        """
        return splitting.report(self, parts, stratify, group, near_duplicates)
