"""`ImageDataset`: a table of images with labels; create, look, correct, check, split, save."""

from __future__ import annotations

import hashlib
import os
import textwrap
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .. import images as pixels
from .. import tables
from ..checks import check_seed, is_number, is_whole, positive_label
from ..files import user_path
from ..tables import restored, stored
from ..text import as_label, counted, printable
from . import cache, duplicates, folders, labelcolumns, reading, splitting

TINY, OVERSIZED = 64, 10_000
"""Pixels: a shorter side below the first shows no structures, a longer one above the second is no camera's."""


def _reasons(paths=(), reasons=()):
    """Return the table of what is set aside, fit to print: names of files need not be UTF-8."""
    return pd.DataFrame({"path": [*map(printable, paths)], "reason": [*map(printable, reasons)]}, dtype=str)


@dataclass(frozen=True)
class ImageDataset:
    """Images with labels, as a table.

    Make one with `from_folder`, `from_csv` or `load`. Methods return a new dataset; nothing on disk
    changes but by `save`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row an image: ``path`` (str), ``label`` (str), ``group`` (str: images of one lesion or patient
        share it, and a split keeps them together), then whatever else the metadata holds.
    set_aside : pandas.DataFrame
        ``path`` and ``reason`` of every image or row that is not in `table`: nothing is dropped in silence.
    augmenters : tuple
        imgaug pipelines applied while training, see `augment_dataset`.
    notes : tuple of str
        How many rows of each table fitted how many images.
    positive : str or None
        The positive label, which recall, thresholds and audits are about, if it was chosen or if there were two
        labels when the dataset was read. Every method keeps it, `save` does not. See `checks.positive_label`.
    """

    table: pd.DataFrame
    set_aside: pd.DataFrame = field(default_factory=_reasons)
    augmenters: tuple = ()
    notes: tuple[str, ...] = ()
    positive: str | None = None

    def __post_init__(self):
        if lacking := [name for name in ("path", "label", "group") if name not in self.table]:
            raise ValueError(
                f"the table lacks the column {', '.join(lacking)}: it needs path, label and group"
            )
        labels = self.table["label"]
        if labels.isna().any() or pd.api.types.infer_dtype(labels) not in ("string", "categorical", "empty"):
            raise ValueError(
                "the column label of the table must be text without missing values: leave out images without a "
                "label, and write numbers as text, such as table.astype({'label': str})"
            )

    @classmethod
    def from_folder(
        cls,
        root: str | os.PathLike,
        group_column: str | None = None,
        sublabel_column: str | None = None,
        positive: str | None = None,
    ) -> ImageDataset:
        """Index a folder that has one subfolder a label; a ``metadata.csv`` in it or in these is joined by file name.

        Where the subfolders are parts of a split (train, validation, test), the labels are those of the folders in
        them, and the column ``split`` keeps the part. Columns of the metadata that are called as our own
        (`reading.OWN_COLUMNS`) become ``metadata_NAME``.

        Parameters
        ----------
        group_column
            Column of metadata.csv that says which images belong together, in any spelling. Default, and where it is
            empty: ``lesion_id``, else ``patient_id``, else each image stands alone. Blanks and words of
            `reading.UNNAMED`, such as ``unknown``, count as empty.
        sublabel_column
            Column of metadata.csv with finer labels, the archive's ``diagnosis_3`` say: it becomes ``sublabel``, see
            `settings.Settings`.
        positive
            The positive label, see `checks.positive_label`.

        Raises
        ------
        FileNotFoundError
            If `root` is no folder or holds no image in a subfolder.
        ValueError
            If all images have one label, the subfolders are no labels, a column is not in metadata.csv, or that fits
            none of the images.

        Warns
        -----
        UserWarning
            Of what is set aside, of images without a row in the metadata, of rows that contradict each other, and of
            labels or files whose names differ only in spelling.
        """
        root = folders.folder(root)
        files, unreadable, csvs = folders.walk(root)
        labels, parts = folders.arrange(root, files + unreadable)
        folders.warn_of_twins(root, files)
        names = {label: as_label(label) for label in {*labels}}
        table = pd.DataFrame(
            {"path": reading.below(root, files + unreadable), "label": [names[label] for label in labels]},
            dtype=str,
        )
        reasons = pd.Series(index=table.index, dtype=object)
        nowhere = np.flatnonzero(table["label"].isna())
        reasons[nowhere] = [folders.why_no_label((files + unreadable)[number]) for number in nowhere]
        reasons[len(files) :] = [*map(folders.why_unreadable, unreadable)]
        if parts:
            table["split"] = parts
        metadata, notes = reading.join_metadata(root, files, csvs, group_column)
        for name in filter(None, (group_column, sublabel_column) if metadata.empty else ()):
            raise ValueError(
                f"the column {name!r} is not there: {root} has no metadata.csv. Put one into this folder."
            )
        if group_column:
            group_column = tables.require_column(metadata, group_column, f"the metadata of {root}")
        table = table.join(reading.set_apart(metadata, table["label"], group_column))
        if sublabel_column:
            column = tables.require_column(metadata, sublabel_column, f"the metadata of {root}")
            table["sublabel"] = metadata[column]
        table.insert(2, "group", reading.groups(metadata, group_column, root).reindex(table.index))
        return cls._checked(table, reasons, root, notes, positive)

    @classmethod
    def from_csv(
        cls,
        csv: str | os.PathLike,
        images: str | os.PathLike | None = None,
        image_column: str | None = None,
        label_column: str | Sequence[str] = "label",
        group_column: str | None = None,
        label_map: dict | None = None,
        metadata: str | os.PathLike | None = None,
        positive: str | None = None,
    ) -> ImageDataset:
        """Read images and labels from a CSV file.

        Parameters
        ----------
        csv
            One row an image.
        images
            Folder that holds the images, in subfolders or not. Default: the folder of `csv`.
        image_column
            Column that names the image, with or without its folder and its extension. Default: the one of
            `reading.IMAGE_COLUMNS` that fits most files. Names of columns fit in any spelling, see
            `tables.find_column`.
        label_column
            Column that holds the label; or one column a label, of which each row marks one (with 1, x, …).
        group_column
            Column that says which images belong together. Default, and where it is empty: ``lesion_id``, else
            ``patient_id``, else each image stands alone.
        label_map
            Label in the file to label in the dataset, see `labelcolumns.apply_map`; None leaves a label out. Rows with
            another label are set aside. Where it merges labels, the column ``sublabel`` keeps those of the file, see
            `settings.Settings`.
        metadata
            Second CSV file, whose columns are joined by the image's name. It also fills gaps in columns that both

        Columns that are called as our own (`reading.OWN_COLUMNS`) become ``metadata_NAME``, unless they are named here.

        Raises
        ------
        FileNotFoundError
            If a file is missing, or not one of the images is below `images`.
        ValueError
            If a column is missing, `metadata` knows none of the images, no label is in `label_map`, or fewer than two
            labels are left.

        Warns
        -----
        UserWarning
            As `from_folder` does, and of labels that fit a key of `label_map` in another spelling.
        """
        csv = user_path(csv)
        one_hot = not isinstance(label_column, str)
        label_columns = [label_column] if isinstance(label_column, str) else [*dict.fromkeys(label_column)]
        if not label_columns:
            raise ValueError("label_column is an empty list: name a column for each label")
        rows = reading.read_table(csv, image_column, group_column, *([] if one_hot else label_columns))
        columns = [tables.require_column(rows, name, csv) for name in label_columns]
        images = folders.folder(csv.parent if images is None else images)
        files, unreadable, _ = folders.walk(images)
        column, found = reading.image_names(rows, files, csv, image_column)
        names = rows[column].astype("string").str.strip()
        if (found < 0).all():
            raise reading.none_found(csv, images, column, names, found, [*files, *unreadable])
        notes = [reading.say_fit(csv, found, files, images)]
        if metadata:
            rows, note = reading.join(rows, names, metadata, column, group_column)
            notes.append(note)
        if group_column:
            source = f"{csv} with {metadata}" if metadata else csv
            group_column = tables.require_column(rows, group_column, source)
        if one_hot:
            labels, reasons = labelcolumns.one_hot_labels(rows[columns].set_axis(label_columns, axis=1))
        else:
            labels, reasons = labelcolumns.plain_labels(rows[columns[0]])
        if label_map is not None:
            labels, kept, not_mapped = labelcolumns.apply_map(labels, label_map, csv)
            reasons = reasons.fillna(not_mapped)
        paths = reading.locate(csv, found, names, files, unreadable, images, column, reasons)
        reading.set_aside_copies(paths, labels, reasons)
        table = pd.DataFrame(
            {"path": paths, "label": labels, "group": reading.groups(rows, group_column, csv)}
        )
        table = table.join(reading.set_apart(rows, labels, column, group_column, *columns))
        if label_map is not None and labelcolumns.merges(label_map):
            table["sublabel"] = kept
        reading.warn_of_contradictions(csv, names, rows, found, group_column)
        return cls._checked(table, reasons, csv, notes, positive)

    @classmethod
    def _checked(cls, table, reasons, source, notes, positive):
        """Set aside the rows that have a reason, refuse what cannot be learnt from, and say what was set aside."""
        keep = reasons.isna()
        aside = _reasons(table["path"][~keep], reasons[~keep])
        kept = table[keep].astype({"path": str, "label": str})
        kept["group"] = kept["group"].fillna(kept["path"]).astype(str)
        counts = kept["label"].value_counts()
        if len(aside):
            said = aside.groupby("reason", sort=False)["path"].agg(["size", "first"])
            said = said.sort_values("size", ascending=False, kind="stable").head(5)
            lost = sorted({*table["label"][~keep].dropna()} - {*counts.index})
            warnings.warn(
                f"{source}: {counted(len(aside), 'image')} set aside, listed in dataset.set_aside: "
                + "; ".join(
                    f"{row.size_} × {row.Index} (such as {printable(os.path.basename(row.first))})"
                    for row in said.rename(columns={"size": "size_"}).itertuples()
                )
                + (f". Nothing is left of the label {', '.join(lost[:5])}" if lost else ""),
                stacklevel=3,
            )
        if len(counts) < 2:
            advice = " If a CSV file holds the labels, use from_csv (in the notebooks: set LABEL_COLUMN)."
            raise ValueError(
                f"{source} has images of {len(counts)} label ({', '.join(counts.index) or 'none'}); a classifier "
                f"needs two.{advice * Path(source).is_dir()}"
            )
        labelcolumns.warn_of_spellings(sorted(counts.index), counts, source)
        if positive is not None or len(counts) == 2:
            positive = positive_label(sorted(counts.index), positive)
        aside = aside.reset_index(drop=True)
        return cls(kept.reset_index(drop=True), aside, notes=tuple(notes), positive=positive)

    @classmethod
    def load(cls, csv: str | os.PathLike, positive: str | None = None) -> ImageDataset:
        """Read a dataset that `save` wrote; choose the positive label again, since the file does not hold it.

        Raises FileNotFoundError if it is not there, ValueError if it is none.
        """
        table = tables.load(csv, verbatim=("path", "label", "group", "sublabel"))
        if missing := sorted({"path", "label", "group"} - set(table)):
            raise ValueError(f"{csv} lacks the columns {', '.join(missing)}: not saved by ImageDataset.save")
        for name in ("path", "label"):
            if table[name].isna().any():
                row = int(table[name].isna().argmax()) + 1
                raise ValueError(f"{csv}, row {row}: no {name}. Complete the row or delete it.")
        if positive is not None:
            positive = positive_label(sorted(table["label"].unique()), positive)
        return cls(restored(table.assign(group=table["group"].fillna(table["path"]))), positive=positive)

    def save(self, csv: str | os.PathLike) -> Path:
        """Write the table as CSV (the images stay where they are) and return its path."""
        return tables.save(stored(self.table), csv)

    def __len__(self):
        return len(self.table)

    def __repr__(self):
        counts = self.table["label"].value_counts().sort_index()
        said = ", ".join(f"{printable(label)} {count:,}" for label, count in counts.head(12).items())
        alone = "group" not in self.table or (self.table["group"] == self.table["path"]).all()
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
        return sorted(self.table["label"].unique())

    @property
    def _positive(self):
        return self.positive or (positive_label(self.labels, warn=False) if len(self) else None)

    @property
    def paths(self) -> list[str]:
        """The images' paths in the table's order."""
        return self.table["path"].tolist()

    def summary(self) -> pd.DataFrame:
        """Count images and groups per label: a row a label and one for all; the column ``positive`` marks one.

        The column ``groups`` says ``unknown`` where no column names lesions or patients.
        """
        rows = self.table.groupby("label")
        summary = pd.DataFrame({"images": rows.size(), "groups": rows["group"].nunique()})
        summary["share"] = summary["images"] / len(self)
        summary.loc["all"] = [len(self), self.table["group"].nunique(), 1.0]
        summary = summary.astype({"images": int, "groups": int}).round({"share": 3})
        summary["positive"] = ["yes" * (label == self._positive) for label in [*summary.index[:-1], None]]
        known = splitting.group_count(self.table)["groups"] is not None
        return summary if known else summary.assign(groups="unknown")

    @property
    def is_augmented(self) -> bool:
        """Whether it has augmented copies or makes them while training, see `augment_dataset`."""
        return bool(self.augmenters) or "augmented_from" in self.table

    def originals(self) -> ImageDataset:
        """Return the images as they were taken, without the copies that `augment_dataset` wrote."""
        return self.where(self.table["augmented_from"].isna()) if "augmented_from" in self.table else self

    def manifest(self) -> str:
        """Hash the bytes of the images, their labels, and which belong together: 32 hexadecimal digits.

        Where the files lie and in which order makes no difference.
        """
        table = self.table
        rows = zip(cache.keys(self.paths), table["label"], table["group"], table["path"], strict=True)
        lines = [f"{key},{label},{'' if group == path else group}" for key, label, group, path in rows]
        return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=16).hexdigest()

    def sources(self) -> list[dict]:
        """List whom to name for the images and under which license, by two columns of the ISIC Archive.

        Returns
        -------
        list of dict
            ``attribution`` and ``license`` (str or None) and the number of ``images``, most first. Empty without the
            columns ``attribution`` and ``copyright_license``.
        """
        table = self.table.reindex(columns=["attribution", "copyright_license"])
        rows = [
            (*(None if pd.isna(value) else str(value) for value in values), int(count))
            for values, count in table.value_counts(dropna=False).items()
        ]
        return [
            dict(zip(("attribution", "license", "images"), row, strict=True)) for row in rows if any(row[:2])
        ]

    def sample(self, n: int, seed: int = 0, balanced: bool = False) -> ImageDataset:
        """Draw `n` images at random, all if there are fewer: a smaller `ImageDataset`.

        Parameters
        ----------
        balanced
            Draw as many of each label as there are, and list them label by label: good to look at, but the shares of
            the labels are then not those of the dataset.
        """
        if not is_whole(n, 1):
            raise ValueError(f"n is the number of images, a whole number of 1 or more, not {n!r}")
        check_seed(seed)
        shuffled = self.table.reset_index(drop=True).sample(frac=1, random_state=seed)
        if balanced:
            turn = shuffled.groupby("label").cumcount().sort_values(kind="stable")
            shuffled = shuffled.loc[turn.index[:n]].sort_values("label", kind="stable")
        return replace(self, table=shuffled.head(n).reset_index(drop=True))

    def where(self, rows: ArrayLike) -> ImageDataset:
        """Keep the images for which `rows`, a bool for each row of the table, is true: ``table["age"] > 60``, say."""
        return replace(self, table=self.table[tables.mask(rows, self.table)].reset_index(drop=True))

    def relabel(self, labels: dict[str, str | None]) -> ImageDataset:
        """Correct labels: of each path its right one, which then has no ``sublabel``; None sets the image aside.

        Labels are read by `project.as_label`. Raises KeyError if a path is not in the dataset.
        """
        labels = {path: as_label(label) for path, label in labels.items()}
        unknown = set(labels) - set(self.table["path"])
        if unknown:
            raise KeyError(f"not in this dataset: {', '.join(sorted(map(printable, unknown))[:5])}")
        table = self.table.copy()
        new = table["path"].map(labels)
        if "sublabel" in table:  # nobody has said which one of the new label it is
            table["sublabel"] = table["sublabel"].where(new.isna() | (new == table["label"]))
        table["label"] = new.where(new.notna(), table["label"])
        excluded = {path: "excluded by hand" for path, label in labels.items() if label is None}
        positive = self.positive if self.positive in {*table["label"]} else None
        return replace(self, table=table, positive=positive).without(excluded)

    def measure(self) -> ImageDataset:
        """Decode and measure every image; return the dataset of the sound ones, with `quality.MEASURES`.

        Broken, truncated or empty files and files that are no images go to `set_aside` with the reason.
        """
        from . import measures as quality

        def measured(path):
            try:
                return quality.measure(path)
            except pixels.ImageError as error:
                return str(error)

        results = pixels.map_threads(measured, self.paths, progress="measuring")
        pairs = zip(self.paths, results, strict=True)
        sound = self.without({path: result for path, result in pairs if isinstance(result, str)})
        measures = [result for result in results if not isinstance(result, str)]
        table = sound.table.drop(columns=list(quality.MEASURES), errors="ignore")
        return replace(sound, table=table.join(pd.DataFrame(measures, columns=list(quality.MEASURES))))

    def problems(self) -> pd.DataFrame:
        """List what is wrong with the files. They are measured (`measure`) if they have not been.

        Returns
        -------
        pandas.DataFrame
            ``path, problem, detail``, a row a finding, sorted by path and problem. The problems: ``unreadable`` (so are
            images of more than `pixels.MAX_PIXELS`), ``tiny``, ``oversized`` (see `TINY` and `OVERSIZED`),
            ``grayscale``, ``wrong extension``, ``exact duplicate`` (the same bytes as an earlier image), ``label
            conflict`` (the same bytes as an image with another label; each of them is listed).
        """
        from PIL import Image

        checked = self._measured()
        table, aside = checked.table, checked.set_aside
        pairs = zip(aside["path"], aside["reason"], strict=True)
        broken = aside[np.array([reason.startswith(f"{path}: ") for path, reason in pairs], bool)]
        size = table["width"].astype(str) + "x" + table["height"].astype(str) + " pixels"
        kinds = Image.registered_extensions() | {".jif": "JPEG"}
        endings = [os.path.splitext(path)[1].lower() for path in table["path"]]
        named = pd.Series([kinds.get(ending) for ending in endings], dtype=object)
        copies = table.groupby("sha256")
        first, conflict = copies["path"].transform("first"), copies["label"].transform("nunique") > 1
        said = (table["label"] + " in " + table["path"])[conflict].groupby(table["sha256"]).agg(", ".join)
        findings = [broken.rename(columns={"reason": "detail"}).assign(problem="unreadable")]
        for problem, rows, detail in (
            ("tiny", table[["width", "height"]].min(axis=1) < TINY, size),
            ("oversized", table[["width", "height"]].max(axis=1) > OVERSIZED, size),
            ("grayscale", table["gray"].astype(bool), "no pixel has a color"),
            # MPO is a camera's JPEG with a preview behind
            ("wrong extension", table["format"].replace("MPO", "JPEG") != named, "holds " + table["format"]),
            ("exact duplicate", table["path"] != first, "the same bytes as " + first),
            ("label conflict", conflict, table["sha256"].map("the same bytes are labeled " + said)),
        ):
            found = pd.DataFrame({"path": table["path"], "problem": problem, "detail": detail})
            findings.append(found[rows])
        found = pd.concat(findings)[["path", "problem", "detail"]]
        return found.sort_values(["path", "problem"], ignore_index=True)

    def near_duplicates(
        self,
        threshold: int = duplicates.THRESHOLD,
        parts: Sequence[ImageDataset] | dict[str, ImageDataset] | None = None,
    ) -> pd.DataFrame:
        """List pairs of images that look alike. They are measured (`measure`) if they have not been.

        Parameters
        ----------
        threshold
            Bits of 64 in which their perceptual hashes may differ, see `duplicates.near_pairs`.
        parts
            Parts of this dataset, as `split` gives them. Default: the column ``split``, if there is one.

        Returns
        -------
        pandas.DataFrame
            A row a pair, the nearest first: ``path_a, path_b, distance, label_a, label_b, group_a, group_b,
            crosses_label, crosses_group`` (missing where a lesion is not named) and, with parts, ``part_a, part_b,
            crosses_split`` (false where an image is in no part).
        """
        table = self._measured().table
        if parts is not None:
            part_of = {path: name for name, part in splitting.named(parts).items() for path in part.paths}
            table = table.assign(part=table["path"].map(part_of))
        elif "split" in table:
            table = table.assign(part=table["split"])
        else:
            table = table.drop(columns="part", errors="ignore")
        return duplicates.near_table(table, threshold)

    def _measured(self):
        from .measures import MEASURES

        return self if set(MEASURES) <= set(self.table) else self.measure()

    def without(self, reasons: dict[str, str]) -> ImageDataset:
        """Set aside the images of `reasons`, a dict of path to reason."""
        aside = _reasons(reasons, reasons.values())
        keep = ~self.table["path"].isin(reasons.keys())
        return replace(
            self,
            table=self.table[keep].reset_index(drop=True),
            set_aside=pd.concat([self.set_aside, aside], ignore_index=True),
        )

    def split(
        self,
        *fractions: float,
        stratify: str = "label",
        group: str | None = "group",
        seed: int = 0,
        near_duplicates: int | None = None,
        keep: Sequence[ImageDataset] | dict[str, ImageDataset] | None = None,
    ) -> list[ImageDataset]:
        """Split into parts that share no group and have the labels in like proportion.

        Groups are dealt out one by one, larger ones first, to the part that lacks the largest
        share of its images of their labels. (scikit-learn's StratifiedGroupKFold makes equal folds only.)

        Parameters
        ----------
        *fractions
            Share of each part, such as ``0.6, 0.2, 0.2``; they sum to 1.
        stratify
            Column whose values each part gets in proportion.
        group
            Column whose equal values stay in one part; a missing value stands alone. ``"group"`` is the
            dataset's own: the lesion where it is known. None splits image by image.
        near_duplicates
            Groups with images whose perceptual hashes differ in at most so many bits stay in one part too.
            `measure` must have been called.
        keep
            Parts of an earlier split, in the same order or by their names (train, validation, test): their images and
            groups stay where they are, and only new groups are dealt out. Images are known by `splitting.matched`. If a
            correction joins groups of several parts, all go to the first of these parts (train before test), so that
            no image which a model was trained on gets into a test part.

        Returns
        -------
        list of ImageDataset
            One for each fraction, the rows in the order of `table`.

        Warns
        -----
        UserWarning
            If `group` is None and images of one group stand in several parts; if a part gets no image of a label; if
            this dataset has less than half of the images to keep.

        Raises
        ------
        ValueError
            If fractions do not sum to 1, a column is missing, a label has fewer groups than parts, `seed` is no whole
            number from 0 to 2**32 - 1, or `keep` has another number of parts, or parts that share images.
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
        """Split into `k` parts as `split` does; return k pairs (the others, this part), for cross-validation.

        The other arguments are as of `split`. Raises ValueError if `k` is below 2, a column is missing, or a label has
        fewer groups than `k`.
        """
        if not is_whole(k, 2):
            raise ValueError(f"k must be 2 or more, and a whole number, not {k!r}")
        parts = splitting.deal(self, [1 / k] * k, stratify, group, seed, near_duplicates)
        return [(self.where(parts != n), self.where(parts == n)) for n in range(k)]

    def split_report(
        self,
        parts: Sequence[ImageDataset] | dict[str, ImageDataset],
        stratify: str = "label",
        group: str = "group",
        near_duplicates: int | None = None,
    ) -> pd.DataFrame:
        """Say how well a split keeps groups whole and labels in proportion.

        Parameters
        ----------
        parts
            As `split` gives them; three are called train, validation and test, two train and test.
        stratify, group
            As of `split`.
        near_duplicates
            Count near-duplicates within so many bits across parts too.

        Returns
        -------
        pandas.DataFrame
            A row a part, and one for all: ``images``, ``groups``, ``share`` of all images, ``share_…`` of
            each label in the part, ``largest_deviation`` of these from the shares in all, ``shared_groups``:
            how many are also in another part (NaN if no column names lesions: nobody can know), ``groups_known``: the
            share of images whose group is named if some are not, and in words that none is, ``near_duplicates``: pairs
            with an image of another part.
        """
        return splitting.report(self, parts, stratify, group, near_duplicates)
