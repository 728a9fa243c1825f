"""`ImageDataset`: a table of pictures with labels; create, look, correct, check, split, save."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from . import duplicates, pixels, reading, splitting
from .project import replacing, restored, stored
from .reading import GROUP_COLUMNS, NO_PICTURE, PICTURE_COLUMNS, SEVERAL
from .settings import is_number, is_whole

TINY, OVERSIZED = 64, 10_000
"""Pixels: a shorter side below the first shows no structures, a longer one above the second is no camera's."""


def _no_rows():
    return pd.DataFrame({"path": [], "reason": []}, dtype=str)


@dataclass(frozen=True)
class ImageDataset:
    """Pictures with labels, as a table.

    Make one with `from_folder`, `from_csv` or `load`. Methods return a new dataset; nothing on disk
    changes but by `save`.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a picture: ``path`` (str), ``label`` (str), ``group`` (str: pictures of one lesion or patient
        share it, and a split keeps them together), then whatever else the metadata holds.
    set_aside : pandas.DataFrame
        ``path`` and ``reason`` of every picture or row that is not in `table`: nothing is dropped in silence.
    augmenters : tuple
        imgaug pipelines applied while training, see `augment_dataset`.
    """

    table: pd.DataFrame
    set_aside: pd.DataFrame = field(default_factory=_no_rows)
    augmenters: tuple = ()

    @classmethod
    def from_folder(
        cls, root: str | os.PathLike, group_column: str | None = None, sublabel_column: str | None = None
    ) -> ImageDataset:
        """Index a folder that has one subfolder a label; a ``metadata.csv`` in it is joined by file name.

        Parameters
        ----------
        group_column
            Column of metadata.csv that says which pictures belong together. Default, and where it is empty:
            ``lesion_id``, else ``patient_id``, else each picture stands alone.
        sublabel_column
            Column of metadata.csv with finer labels, the archive's ``diagnosis_3`` say: it becomes ``sublabel``, see
            `settings.Settings`.

        Raises
        ------
        FileNotFoundError
            If `root` is no folder or holds no picture in a subfolder.
        ValueError
            If all pictures have one label, or a column is not in metadata.csv.
        """
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder")
        files = [
            f"{folder.name}/{file}"
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            for file in reading.pictures_below(folder)
        ]
        if not files:
            raise FileNotFoundError(
                f"{root} has no pictures ({', '.join(pixels.EXTENSIONS)}) in a folder per label, such as "
                f"{root / 'benign'} and {root / 'malignant'}. If a CSV file holds the labels, use from_csv "
                "(in the notebooks: set LABEL_COLUMN)."
            )
        table = pd.DataFrame({"path": reading.below(root, files), "label": [f.split("/")[0] for f in files]})
        csv = root / "metadata.csv"
        if csv.exists():
            metadata = reading.read_table(csv, group_column)
            column = next((name for name in PICTURE_COLUMNS if name in metadata), None)
            if column:
                found = reading.find(metadata[column], files)
                if several := (found == SEVERAL).sum():
                    warnings.warn(
                        f"{csv}: {several} rows not joined, as each names several pictures, such as "
                        f"{metadata[column][found == SEVERAL].iloc[0]}; give folder and extension",
                        stacklevel=2,
                    )
                metadata = metadata.drop(columns=["path", "label"], errors="ignore")
                metadata = metadata.set_axis(found)[(found >= 0) & ~pd.Index(found).duplicated()]
                table = table.join(metadata)
        if sublabel_column:
            reading.require_columns(table, f"the metadata of {root}", sublabel_column)
            table = table.assign(sublabel=table[sublabel_column])
        return cls._checked(table, _no_rows(), group_column, root)

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
    ) -> ImageDataset:
        """Read pictures and labels from a CSV file.

        Parameters
        ----------
        csv
            One row a picture.
        images
            Folder that holds the pictures, in subfolders or not. Default: the folder of `csv`.
        image_column
            Column that names the picture, with or without its folder and its extension. Default: the first of
            `PICTURE_COLUMNS` that is there.
        label_column
            Column that holds the label; or one column a label, of which each row marks one (with 1, x, …).
        group_column
            Column that says which pictures belong together. Default, and where it is empty: ``lesion_id``, else
            ``patient_id``, else each picture stands alone.
        label_map
            Label in the file to label in the dataset. Rows with another label are set aside. Where it merges labels,
            the column ``sublabel`` keeps those of the file, see `settings.Settings`.
        metadata
            Second CSV file, whose further columns are joined by the picture's name (as it stands in `csv`).

        Raises
        ------
        FileNotFoundError
            If a file is missing, or not one of the pictures is below `images`.
        ValueError
            If a column is missing, `metadata` knows none of the pictures, or fewer than two labels are left.
        """
        csv = Path(csv)
        label_columns = [label_column] if isinstance(label_column, str) else [*label_column]
        one_hot = not isinstance(label_column, str)
        rows = reading.read_table(csv, image_column, group_column, *([] if one_hot else label_columns))
        if image_column is None:
            image_column = next((name for name in PICTURE_COLUMNS if name in rows), PICTURE_COLUMNS[0])
        reading.require_columns(rows, csv, image_column, *label_columns)
        if metadata:
            rows = reading.join(rows, image_column, metadata, group_column)
        if group_column:
            reading.require_columns(rows, f"{csv} with {metadata}" if metadata else csv, group_column)
        images = Path(images) if images else csv.parent
        if not images.is_dir():
            raise FileNotFoundError(f"{images} is not a folder; images= names the one with the pictures")
        files = reading.pictures_below(images)
        names = rows[image_column].astype("string").str.strip()
        found = reading.find(names, files)
        if (found < 0).all():
            begins = ", ".join(names.dropna()[:3])
            raise FileNotFoundError(
                f"none of the {len(rows)} pictures of {csv} is below {images}: its column {image_column!r} "
                f"begins with {begins}"
                + (" (several files have such a name: give folder and extension)" * (SEVERAL in found))
            )
        labels, reasons = (
            reading.one_hot_labels(rows[label_columns])
            if one_hot
            else reading.plain_labels(rows[label_column])
        )
        if label_map is not None:  # its keys may come from YAML as numbers
            mapped = labels.map({str(name): str(label) for name, label in label_map.items()})
            unknown = mapped.isna() & reasons.isna()
            reasons[unknown] = "label " + labels[unknown].map(repr) + " is not in label_map"
            if len(set(label_map.values())) < len(label_map):
                rows = rows.assign(sublabel=labels)
            labels = mapped
        reasons[found == NO_PICTURE] = f"no such picture below {images}"
        reasons[found == SEVERAL] = (
            f"several pictures below {images} have this name: give folder and extension"
        )
        reasons[names.isna()] = f"no name in the column {image_column!r}"
        paths = pd.Series(reading.below(images, files), dtype=object).reindex(found).set_axis(rows.index)
        again = paths.where(reasons.isna()).duplicated() & reasons.isna()
        reasons[again] = "the same picture stands in an earlier row"
        keep = reasons.isna()
        table = pd.DataFrame({"path": paths[keep].astype(str), "label": labels[keep].astype(str)})
        rest = rows[keep].drop(columns=["path", "label"], errors="ignore")
        left_out = rows.index[~keep]
        lines = pd.Series([f"{csv}, row {row + 1}" for row in left_out], left_out, dtype=str)
        aside = paths[~keep].fillna(names[~keep].astype(object)).fillna(lines)
        set_aside = pd.DataFrame({"path": aside, "reason": reasons[~keep]}, dtype=str)
        return cls._checked(table.join(rest), set_aside, group_column, csv)

    @classmethod
    def _checked(cls, table, set_aside, group_column, source):
        """Fill the group column, refuse what cannot be learnt from, and say what was set aside."""
        if group_column and group_column not in table:
            raise ValueError(f"the metadata of {source} has no column {group_column!r} to group by")
        group = pd.Series(pd.NA, table.index, "string")
        for column in dict.fromkeys((group_column, *GROUP_COLUMNS)):  # the next where the former is not known
            if column in table:
                group = group.fillna(table[column].astype("string"))
        table = table.drop(columns="group", errors="ignore")
        table.insert(2, "group", group.fillna(table["path"]).astype(str))
        labels = sorted(table["label"].unique())
        if len(labels) < 2:
            raise ValueError(
                f"{source} has pictures of {len(labels)} label ({', '.join(labels) or 'none'}); a classifier "
                "needs two. If a CSV file holds the labels, use from_csv (in the notebooks: set LABEL_COLUMN)."
            )
        if len(set_aside):
            counts = set_aside["reason"].value_counts()
            warnings.warn(
                f"{source}: {len(set_aside)} pictures set aside, listed in dataset.set_aside: "
                + "; ".join(f"{count} × {reason}" for reason, count in counts.head(5).items()),
                stacklevel=3,
            )
        return cls(table.reset_index(drop=True), set_aside.reset_index(drop=True))

    @classmethod
    def load(cls, csv: str | os.PathLike) -> ImageDataset:
        """Read a dataset that `save` wrote. Raises FileNotFoundError if it is not there, ValueError if it is none."""
        table = reading.read_table(csv, verbatim=("path", "label", "group", "sublabel"))
        if missing := sorted({"path", "label", "group"} - set(table)):
            raise ValueError(f"{csv} lacks the columns {', '.join(missing)}: not saved by ImageDataset.save")
        return cls(restored(table.astype({"path": str, "label": str, "group": str})))

    def save(self, csv: str | os.PathLike) -> Path:
        """Write the table as CSV (the pictures stay where they are) and return its path."""
        csv = Path(csv)
        with replacing(csv) as part:
            stored(self.table).to_csv(
                part, index=False, errors="surrogateescape"
            )  # names of files may be no UTF-8
        return csv

    def __len__(self):
        return len(self.table)

    @property
    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return sorted(self.table["label"].unique())

    @property
    def paths(self) -> list[str]:
        """The pictures' paths in the table's order."""
        return self.table["path"].tolist()

    def summary(self) -> pd.DataFrame:
        """Count pictures and groups per label: a row a label and one for all."""
        rows = self.table.groupby("label")
        summary = pd.DataFrame({"pictures": rows.size(), "groups": rows["group"].nunique()})
        summary["share"] = summary["pictures"] / len(self)
        summary.loc["all"] = [len(self), self.table["group"].nunique(), 1.0]
        return summary.astype({"pictures": int, "groups": int}).round({"share": 3})

    def sample(self, n: int, seed: int = 0) -> ImageDataset:
        """Draw `n` pictures, as many of each label as there are: a smaller `ImageDataset`."""
        shuffled = self.table.reset_index(drop=True).sample(frac=1, random_state=seed)
        turn = shuffled.groupby("label").cumcount()
        chosen = turn.sort_values(kind="stable").index[:n]
        table = shuffled.loc[chosen].sort_values("label", kind="stable", ignore_index=True)
        return replace(self, table=table)

    def where(self, rows: ArrayLike) -> ImageDataset:
        """Keep the pictures for which `rows`, a bool for each row of the table, is true: ``table["age"] > 60``, say."""
        return replace(self, table=self.table[np.asarray(rows, bool)].reset_index(drop=True))

    def relabel(self, labels: dict[str, str | None]) -> ImageDataset:
        """Correct labels: of each path its right one, which then has no ``sublabel``; None sets the picture aside.

        Raises KeyError if a path is not in the dataset.
        """
        unknown = set(labels) - set(self.table["path"])
        if unknown:
            raise KeyError(f"not in this dataset: {', '.join(sorted(unknown)[:5])}")
        table = self.table.copy()
        new = table["path"].map(labels)
        if "sublabel" in table:  # nobody has said which one of the new label it is
            table["sublabel"] = table["sublabel"].where(new.isna() | (new == table["label"]))
        table["label"] = new.where(new.notna(), table["label"])
        excluded = {path: "excluded by hand" for path, label in labels.items() if label is None}
        return replace(self, table=table).without(excluded)

    def check(self) -> ImageDataset:
        """Decode and measure every picture; return the dataset of the sound ones, with `quality.MEASURES`.

        Broken, truncated or empty files and files that are no pictures go to `set_aside` with the reason.
        """
        from . import quality  # ImageHash and SciPy load when first used

        def measure(path):
            try:
                return quality.measure(path)
            except pixels.PictureError as error:
                return str(error)

        results = pixels.map_threads(measure, self.paths, progress="checking")
        pairs = zip(self.paths, results, strict=True)
        sound = self.without({path: result for path, result in pairs if isinstance(result, str)})
        measures = [result for result in results if not isinstance(result, str)]
        table = sound.table.drop(columns=list(quality.MEASURES), errors="ignore")
        return replace(sound, table=table.join(pd.DataFrame(measures, columns=list(quality.MEASURES))))

    def validate(self) -> pd.DataFrame:
        """List what is wrong with the files. They are measured (`check`) if they have not been.

        Returns
        -------
        pandas.DataFrame
            ``path, problem, detail``, a row a finding, sorted by path and problem. The problems: ``unreadable`` (so are
            pictures of more than `pixels.MAX_PIXELS`), ``tiny``, ``oversized`` (see `TINY` and `OVERSIZED`),
            ``greyscale``, ``wrong extension``, ``exact duplicate`` (the same bytes as an earlier picture), ``label
            conflict`` (the same bytes as a picture with another label; each of them is listed).
        """
        from PIL import Image

        checked = self._measured()
        table, aside = checked.table, checked.set_aside
        pairs = zip(aside["path"], aside["reason"], strict=True)
        broken = aside[np.array([reason.startswith(f"{path}: ") for path, reason in pairs], bool)]
        size = table["width"].astype(str) + "x" + table["height"].astype(str) + " pixels"
        kinds = Image.registered_extensions()
        endings = [os.path.splitext(path)[1].lower() for path in table["path"]]
        named = pd.Series([kinds.get(ending) for ending in endings], dtype=object)
        copies = table.groupby("sha256")
        first, conflict = copies["path"].transform("first"), copies["label"].transform("nunique") > 1
        said = (table["label"] + " in " + table["path"])[conflict].groupby(table["sha256"]).agg(", ".join)
        findings = [broken.rename(columns={"reason": "detail"}).assign(problem="unreadable")]
        for problem, rows, detail in (
            ("tiny", table[["width", "height"]].min(axis=1) < TINY, size),
            ("oversized", table[["width", "height"]].max(axis=1) > OVERSIZED, size),
            ("greyscale", table["grey"].astype(bool), "no pixel has a colour"),
            # MPO is a camera's JPEG with a preview behind
            ("wrong extension", table["format"].replace("MPO", "JPEG") != named, "holds " + table["format"]),
            ("exact duplicate", table["path"] != first, "the same bytes as " + first),
            ("label conflict", conflict, table["sha256"].map("the same bytes are labelled " + said)),
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
        """List pairs of pictures that look alike. They are measured (`check`) if they have not been.

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
            crosses_label, crosses_group`` and, with parts, ``part_a, part_b, crosses_split`` (false where a
            picture is in no part).
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
        from .quality import MEASURES

        return self if set(MEASURES) <= set(self.table) else self.check()

    def without(self, reasons: dict[str, str]) -> ImageDataset:
        """Set aside the pictures of `reasons`, a dict of path to reason."""
        aside = pd.DataFrame({"path": [*reasons], "reason": [*reasons.values()]}, dtype=str)
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
            dataset's own: the lesion where it is known. None splits picture by picture.
        near_duplicates
            Groups with pictures whose perceptual hashes differ in at most so many bits stay in one part too.
            `check` must have been called.
        keep
            Parts of an earlier split, in the same order: their images and groups stay where they are, and only new
            groups are dealt out. If a correction joins groups of several parts, all go to the first of these parts
            (train before test), so that no image which a model was trained on gets into a test part.

        Returns
        -------
        list of ImageDataset
            One for each fraction, the rows in the order of `table`.

        Warns
        -----
        UserWarning
            If `group` is None and pictures of one group stand in several parts; if a part gets no image of a label.

        Raises
        ------
        ValueError
            If fractions do not sum to 1, a column is missing, a label has fewer groups than parts, `seed` is no whole
            number from 0 to 2**32 - 1, or `keep` has another number of parts.
        """
        positive = [is_number(share, 0) and share > 0 for share in fractions]
        if len(fractions) < 2 or not all(positive) or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must be two or more, positive and sum to 1, not {fractions}")
        parts = self._deal(fractions, stratify, group, seed, near_duplicates, keep)
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
        parts = self._deal([1 / k] * k, stratify, group, seed, near_duplicates)
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
            A row a part, and one for all: ``pictures``, ``groups``, ``share`` of all pictures, ``share_…`` of
            each label in the part, ``largest_deviation`` of these from the shares in all, ``shared_groups``:
            how many also stand in another part, ``near_duplicates``: pairs with a picture of another part.
        """
        named = splitting.named(parts)
        index = [*named, "all"]
        tables = [part.table.assign(part=name) for name, part in named.items()]
        table = pd.concat([*tables, self.table.assign(part="all")], ignore_index=True)
        table["group"] = splitting.group_names(table, group)
        dealt = table[table["part"] != "all"]
        shared = dealt["group"][splitting.in_several(dealt["part"], dealt["group"])]
        rows = table.groupby("part", sort=False)
        shares = pd.crosstab(table["part"], table[stratify], normalize="index").loc[index]
        report = pd.DataFrame({"pictures": rows.size(), "groups": rows["group"].nunique()})
        report["share"] = report["pictures"] / len(self)
        report = report.join(shares.add_prefix("share_"))
        report["largest_deviation"] = (shares - shares.loc["all"]).abs().max(axis=1)
        in_several = table[table["group"].isin(shared)].groupby("part")["group"].nunique()
        report["shared_groups"] = in_several.reindex(index, fill_value=0)
        if near_duplicates is not None:
            pairs = self.near_duplicates(near_duplicates, parts).query("crosses_split")
            ends = pd.concat([pairs["part_a"], pairs["part_b"]]).value_counts()
            report["near_duplicates"] = ends.reindex(index, fill_value=0)
            report.loc["all", "near_duplicates"] = len(pairs)
        return report

    def _deal(self, fractions, stratify, group, seed, near_duplicates, keep=None):
        """Return the number of the part of each picture: numpy.ndarray of int."""
        if self.augmenters or "augmented_from" in self.table:
            raise ValueError("split first, then augment the training part: augmented pictures train only")
        return splitting.deal(self.table, fractions, stratify, group, seed, near_duplicates, keep)
