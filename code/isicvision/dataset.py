"""`ImageDataset`: a table of pictures with labels; create, look, correct, check, split, save."""

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from . import pixels

PICTURE_COLUMNS = ("isic_id", "image_id", "image_name", "image", "filename", "file")
"""Columns of a metadata.csv that may name the picture, in the order in which they are tried."""
GROUP_COLUMNS = ("lesion_id", "patient_id")
"""Columns that say which pictures belong together, in the order in which they are tried."""


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
    def from_folder(cls, root, group_column=None):
        """Index a folder that has one subfolder a label; a ``metadata.csv`` in it is joined by file name.

        Parameters
        ----------
        root : str or pathlib.Path
        group_column : str, optional
            Column of metadata.csv that says which pictures belong together. Default: ``lesion_id``, else
            ``patient_id``, else each picture stands alone.

        Raises
        ------
        FileNotFoundError
            If `root` is no folder or holds no picture in a subfolder.
        ValueError
            If all pictures have one label, or `group_column` is not in metadata.csv.
        """
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"{root} is not a folder")
        files = sorted(
            file
            for folder in sorted(root.iterdir())
            if folder.is_dir() and not folder.name.startswith(".")
            for file in _pictures_below(folder)
        )
        if not files:
            raise FileNotFoundError(
                f"{root} has no pictures ({', '.join(pixels.EXTENSIONS)}) in a folder per label, such as "
                f"{root / 'benign'} and {root / 'malignant'}. If a CSV file holds the labels, use from_csv "
                "(in the notebooks: set LABEL_COLUMN)."
            )
        table = pd.DataFrame(
            {"path": map(str, files), "label": [f.relative_to(root).parts[0] for f in files]}
        )
        if (root / "metadata.csv").exists():
            metadata = _read_csv(root / "metadata.csv")
            column = next((name for name in PICTURE_COLUMNS if name in metadata), None)
            if column:
                metadata = metadata.drop(columns=["path", "label", "group"], errors="ignore")
                metadata["_stem"] = metadata[column].map(lambda name: Path(str(name)).stem)
                metadata = metadata.drop_duplicates("_stem")
                table["_stem"] = [file.stem for file in files]
                table = table.merge(metadata, how="left", on="_stem").drop(columns="_stem")
        return cls._checked(table, _no_rows(), group_column, root)

    @classmethod
    def from_csv(
        cls, csv, images=None, image_column=None, label_column="label", group_column=None, label_map=None
    ):
        """Read pictures and labels from a CSV file.

        Parameters
        ----------
        csv : str or pathlib.Path
            One row a picture.
        images : str or pathlib.Path, optional
            Folder that holds the pictures, in subfolders or not. Default: the folder of `csv`.
        image_column : str, optional
            Column that names the picture, with or without its extension. Default: the first of
            `PICTURE_COLUMNS` that is there.
        label_column : str
            Column that holds the label.
        group_column : str, optional
            Column that says which pictures belong together. Default: ``lesion_id``, else ``patient_id``,
            else each picture stands alone.
        label_map : dict, optional
            Label in the file to label in the dataset. Rows with another label are set aside.

        Raises
        ------
        FileNotFoundError
            If `csv` is missing, or not one of its pictures is below `images`.
        ValueError
            If a column is missing, or fewer than two labels are left.
        """
        csv = Path(csv)
        rows = _read_csv(csv)
        if image_column is None:
            image_column = next((name for name in PICTURE_COLUMNS if name in rows), PICTURE_COLUMNS[0])
        for column in (image_column, label_column, *([group_column] if group_column else [])):
            if column not in rows:
                raise ValueError(f"{csv} has no column {column!r}; it has: {', '.join(rows.columns)}")
        images = Path(images) if images else csv.parent
        if not images.is_dir():
            raise FileNotFoundError(
                f"{images} is not a folder; images= names the one with the pictures of {csv}"
            )
        files = {}
        for file in _pictures_below(images):
            files.setdefault(file.stem, file)
        names = rows[image_column].astype(str)
        found = names.map(lambda name: files.get(name) or files.get(Path(name).stem))
        labels = rows[label_column].astype("string").str.strip()
        if label_map is not None:  # its keys may come from YAML as numbers
            mapped = labels.map({str(name): str(label) for name, label in label_map.items()})
        else:
            mapped = labels
        reasons = pd.Series(index=rows.index, dtype=object)
        reasons[mapped.isna()] = "label " + labels[mapped.isna()].map(repr) + " is not in label_map"
        reasons[labels.isna() | (labels == "")] = "no label"
        reasons[found.duplicated() & found.notna()] = "the same picture stands in an earlier row"
        reasons[found.isna()] = f"no such picture below {images}"
        if found.isna().all():
            raise FileNotFoundError(
                f"none of the {len(rows)} pictures of {csv} is below {images}: its column {image_column!r} "
                f"begins with {', '.join(names[:3])}"
            )
        keep = reasons.isna()
        table = pd.DataFrame({"path": found[keep].map(str), "label": mapped[keep].astype(str)})
        rest = rows[keep].drop(columns=["path", "label", "group"], errors="ignore")
        set_aside = pd.DataFrame(
            {"path": found.map(str, na_action="ignore").fillna(names), "reason": reasons}
        )
        return cls._checked(table.join(rest), set_aside[~keep], group_column, csv)

    @classmethod
    def _checked(cls, table, set_aside, group_column, source):
        """Fill the group column, refuse what cannot be learnt from, and say what was set aside."""
        if group_column and group_column not in table:
            raise ValueError(f"the metadata of {source} has no column {group_column!r} to group by")
        column = group_column or next((name for name in GROUP_COLUMNS if name in table), None)
        group = table[column].astype("string") if column else pd.Series(pd.NA, table.index, "string")
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
    def load(cls, csv):
        """Read a dataset that `save` wrote.

        Raises
        ------
        FileNotFoundError
            If `csv` is not there.
        ValueError
            If it was not written by `save`.
        """
        table = _read_csv(csv)
        missing = {"path", "label", "group"} - set(table)
        if missing:
            raise ValueError(
                f"{csv} lacks the columns {', '.join(sorted(missing))}: not saved by ImageDataset.save"
            )
        return cls(table.astype({"path": str, "label": str, "group": str}))

    def save(self, csv):
        """Write the table as CSV (the pictures stay where they are) and return its path."""
        csv = Path(csv)
        csv.parent.mkdir(parents=True, exist_ok=True)
        temporary = csv.with_name(f".{csv.name}.tmp")
        self.table.to_csv(temporary, index=False)
        temporary.replace(csv)
        return csv

    def __len__(self):
        return len(self.table)

    @property
    def labels(self):
        """The labels that occur, sorted: list of str."""
        return sorted(self.table["label"].unique())

    @property
    def paths(self):
        """The pictures' paths in the table's order: list of str."""
        return self.table["path"].tolist()

    def summary(self):
        """Count pictures and groups per label: pandas.DataFrame with a row a label and one for all."""
        rows = self.table.groupby("label")
        summary = pd.DataFrame({"pictures": rows.size(), "groups": rows["group"].nunique()})
        summary["share"] = summary["pictures"] / len(self)
        summary.loc["all"] = [len(self), self.table["group"].nunique(), 1.0]
        return summary.astype({"pictures": int, "groups": int}).round({"share": 3})

    def sample(self, n, seed=0):
        """Draw `n` pictures, as many of each label as there are: a smaller `ImageDataset`."""
        shuffled = self.table.sample(frac=1, random_state=seed)
        turn = shuffled.groupby("label").cumcount()
        chosen = turn.sort_values(kind="stable").index[:n]
        return replace(
            self, table=self.table.loc[chosen].sort_values("label", kind="stable").reset_index(drop=True)
        )

    def relabel(self, labels):
        """Correct labels.

        Parameters
        ----------
        labels : dict of str to (str or None)
            Path to its right label; None sets the picture aside.

        Raises
        ------
        KeyError
            If a path is not in the dataset.
        """
        unknown = set(labels) - set(self.table["path"])
        if unknown:
            raise KeyError(f"not in this dataset: {', '.join(sorted(unknown)[:5])}")
        table = self.table.copy()
        new = table["path"].map(labels)
        table["label"] = new.where(new.notna(), table["label"])
        excluded = {path: "excluded by hand" for path, label in labels.items() if label is None}
        return replace(self, table=table)._without(excluded)

    def check(self):
        """Decode every picture; return the dataset of the sound ones, with their width and height in pixels.

        Broken, truncated or empty files and files that are no pictures go to `set_aside` with the reason.
        """
        sizes = pixels.map_threads(pixels.inspect, self.paths, progress="checking")
        table = self.table.assign(
            width=[width for width, _, _ in sizes], height=[height for _, height, _ in sizes]
        )
        broken = {path: reason for path, (_, _, reason) in zip(self.paths, sizes, strict=True) if reason}
        return replace(self, table=table)._without(broken)

    def _without(self, reasons):
        """Set aside the pictures of `reasons`, a dict of path to reason."""
        aside = pd.DataFrame({"path": [*reasons], "reason": [*reasons.values()]}, dtype=str)
        keep = ~self.table["path"].isin(reasons.keys())
        return replace(
            self,
            table=self.table[keep].reset_index(drop=True),
            set_aside=pd.concat([self.set_aside, aside], ignore_index=True),
        )

    def split(self, *fractions, stratify="label", group="group", seed=0):
        """Split into parts that share no group and have the labels in like proportion.

        Groups are dealt out one by one, larger ones first, to the part that lacks the largest
        share of its pictures of that label. (scikit-learn's StratifiedGroupKFold makes equal folds only.)

        Parameters
        ----------
        *fractions : float
            Share of each part, such as ``0.6, 0.2, 0.2``; they sum to 1.
        stratify : str
            Column whose values each part gets in proportion.
        group : str
            Column whose equal values stay in one part; a missing value stands alone. ``"group"`` is the
            dataset's own: the lesion where it is known.
        seed : int

        Returns
        -------
        list of ImageDataset
            One for each fraction, the rows in the order of `table`.

        Raises
        ------
        ValueError
            If fractions do not sum to 1, a column is missing, or a label has fewer groups than parts.
        """
        if len(fractions) < 2 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(f"fractions must be two or more, positive and sum to 1, not {fractions}")
        if self.augmenters:
            raise ValueError(
                "split first, then augment the training part: augmented pictures are for training only"
            )
        for column in (stratify, group):
            if column not in self.table:
                raise ValueError(
                    f"no column {column!r} to split by; there are: {', '.join(self.table.columns)}"
                )
        groups = self.table[group].astype("string").fillna(self.table["path"]).astype(str)
        counts = (
            pd.DataFrame({"group": groups, "label": self.table[stratify]})
            .value_counts(sort=False)
            .reset_index()
        )
        # a group with several labels (a corrected label, say) counts where most of its pictures are
        main = counts.sort_values(["count", "group", "label"], ascending=[False, True, True]).drop_duplicates(
            "group"
        )
        main = main.assign(size=main["group"].map(counts.groupby("group")["count"].sum()))
        main = main.sample(frac=1, random_state=seed).sort_values("size", ascending=False, kind="stable")
        part_of = {}
        for label, rows in main.groupby("label"):
            if len(rows) < len(fractions):
                raise ValueError(
                    f"label {label!r} has {len(rows)} different {group!r} to keep whole, too few to split "
                    f"into {len(fractions)} parts: add pictures of other lesions, or use fewer parts"
                )
            filled = np.zeros(len(fractions))
            for turn, (name, size) in enumerate(zip(rows["group"], rows["size"], strict=True)):
                # one group to each part first, so that none is left without this label
                part = turn if turn < len(fractions) else int(filled.argmin())
                filled[part] += size / fractions[part]
                part_of[name] = part
        parts = groups.map(part_of).to_numpy()
        return [
            replace(self, table=self.table[parts == n].reset_index(drop=True)) for n in range(len(fractions))
        ]


def _pictures_below(folder):
    return [
        file
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in pixels.EXTENSIONS and not file.name.startswith(".")
    ]


def _read_csv(path):
    try:
        return pd.read_csv(
            path, dtype={name: str for name in (*PICTURE_COLUMNS, *GROUP_COLUMNS)}, low_memory=False
        )
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such CSV file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as CSV: {error}") from error
