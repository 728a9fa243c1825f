"""List problems of single images, images that a split would leak, and what each column holds."""

import warnings
from collections.abc import Iterable, Sequence

import pandas as pd

from ..fields import FIELDS
from . import duplicates
from .associations import is_numeric, missing
from .dataset import ImageDataset
from .splitting import group_count

WHY = {
    "unreadable": "no network can read it; measure() sets it aside",
    "tiny": "too small to show structures",
    "oversized": "larger than any camera's image: a panorama, or a damaged header",
    "grayscale": "color is part of what is learned",
    "wrong extension": "harmless here: the content decides",
    "exact duplicate": "the same image would count twice, and may be on both sides of a split",
    "label conflict": "one image with two labels: one of them is wrong, and nobody knows which",
    "near-duplicate with another label": "two images look alike but have different labels: look, then decide",
}
"""Each problem, and why its images should or need not be left out."""


def find(dataset: ImageDataset, threshold: int = duplicates.THRESHOLD) -> pd.DataFrame:
    """List ``path, problem, detail`` of `ImageDataset.problems` and of near-duplicates with another label.

    Both images of a pair, whose hashes differ in at most `threshold` bits, are listed.

    >>> from isicvision import SAMPLE_DATA
    >>> sample = ImageDataset.from_csv(SAMPLE_DATA / "metadata.csv", label_column="diagnosis_1")
    >>> find(sample.sample(4))["problem"].tolist()
    []
    """
    dataset = dataset if "sha256" in dataset.table else dataset.measure()
    pairs = dataset.near_duplicates(threshold).query("crosses_label")
    hashes = dataset.table.set_index("path")["sha256"]
    pairs = pairs[pairs["path_a"].map(hashes) != pairs["path_b"].map(hashes)]
    sides = []
    for one, other in (("a", "b"), ("b", "a")):
        bits = pairs["distance"].astype(str) + " bits from "
        detail = bits + pairs[f"path_{other}"] + ", " + pairs[f"label_{other}"]
        side = pd.DataFrame({"path": pairs[f"path_{one}"], "detail": detail})
        sides.append(side.assign(problem="near-duplicate with another label"))
    return pd.concat([dataset.problems(), *sides], ignore_index=True)


def count(dataset: ImageDataset, found: pd.DataFrame, excluded: Sequence[str] = ()) -> pd.DataFrame:
    """Count the images of each problem that `find` found: ``images``, ``excluded``, one column per label, and ``why``.

    >>> table = pd.DataFrame({"path": [*"ab"], "label": [*"xy"], "group": [*"ab"]})
    >>> found = pd.DataFrame({"path": ["a"], "problem": ["tiny"], "detail": ["9x9 pixels"]})
    >>> count(ImageDataset(table), found, ["tiny"]).loc["tiny", ["images", "excluded", "why"]].map(str).tolist()
    ['1', 'yes', 'too small to show structures']
    """
    _check_problems(excluded)
    label = dataset.table.set_index("path")["label"]
    rows = found.drop_duplicates(["path", "problem"]).assign(label=found["path"].map(label))
    table = pd.DataFrame({"images": rows["problem"].value_counts().reindex(list(WHY), fill_value=0)})
    table["excluded"] = ["yes" if name in excluded or name == "unreadable" else "no" for name in WHY]
    counts = pd.crosstab(rows["problem"], rows["label"])
    counts = counts.reindex(index=list(WHY), columns=dataset.labels, fill_value=0)
    return table.join(counts.add_prefix("of ")).assign(why=WHY.values()).rename_axis("problem")


def exclude(dataset: ImageDataset, found: pd.DataFrame, problems: Sequence[str]) -> ImageDataset:
    """Set aside the images that `find` found with one of `problems`; ValueError if one is not in `WHY`.

    >>> table = pd.DataFrame({"path": [*"ab"], "label": [*"xy"], "group": [*"ab"]})
    >>> found = pd.DataFrame({"path": ["a"], "problem": ["tiny"], "detail": ["9x9 pixels"]})
    >>> exclude(ImageDataset(table), found, ["tiny"]).set_aside["reason"].tolist()
    ['tiny: 9x9 pixels']
    """
    _check_problems(problems)
    chosen = found[found["problem"].isin(problems) & found["path"].isin(dataset.paths)]
    chosen = chosen.drop_duplicates("path").set_index("path")
    return dataset.without((chosen["problem"] + ": " + chosen["detail"]).to_dict())


def _check_problems(names):
    if unknown := sorted({*names} - {*WHY}):
        raise ValueError(f"unknown problem {', '.join(map(repr, unknown))}; there are: {', '.join(WHY)}")


def leaks(dataset: ImageDataset) -> dict:
    """Count what a split by image would leak and a split by group does not.

    ``groups`` and ``groups_known`` as in `splitting.group_count`; ``several``: groups with more than one image;
    ``exact``: files equal to an earlier one; ``near``: near-duplicate pairs; ``near_groups``: those of two groups. If
    lesions are named, a 60/20/20 split by image and one by group have ``random`` and ``by_group`` groups in several
    parts, and of ``test`` images in the first ``tested`` were trained on.

    >>> from isicvision import SAMPLE_DATA
    >>> sample = ImageDataset.from_csv(SAMPLE_DATA / "metadata.csv", label_column="diagnosis_1")
    >>> leaks(sample.sample(4))["exact"]
    0
    """
    dataset = dataset if "sha256" in dataset.table else dataset.measure()
    near = dataset.near_duplicates()
    counts = {
        **group_count(dataset.table),
        "several": int((dataset.table["group"].value_counts() > 1).sum()),
        "exact": int(dataset.table["sha256"].duplicated().sum()),
        "near": len(near),
        "near_groups": int(near["crosses_group"].sum()),
    }
    if counts["groups"] is None:
        return counts
    try:
        whole = dataset.split(0.6, 0.2, 0.2)
    except ValueError:  # a label has fewer groups than parts
        return counts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the leak is what is counted here
        random = dataset.split(0.6, 0.2, 0.2, group=None)
    for name, split in (("random", random), ("by_group", whole)):
        parts = pd.concat([part.table["group"].drop_duplicates() for part in split])
        counts[name] = parts[parts.duplicated()].nunique()
    train, _, test = (part.table["group"] for part in random)
    return counts | {"tested": int(test.isin(set(train)).sum()), "test": len(test)}


def dictionary(dataset: ImageDataset, columns: Iterable[str]) -> pd.DataFrame:
    """Return the data dictionary: for each column its type, unit, meaning, origin, values and an example.

    >>> table = pd.DataFrame({"path": [*"ab"], "label": [*"xy"], "group": [*"ab"], "sex": ["female", None]})
    >>> dictionary(ImageDataset(table), ["sex"])[["meaning", "values", "missing"]].values.tolist()
    [['sex of the patient', 'female (1)', '50.0%']]
    """
    rows, empty = [], missing(dataset).iloc[:, 0]
    kinds = {"b": "true/false", "i": "whole number", "u": "whole number", "f": "number"}
    for column in columns:
        values = dataset.table[column].dropna()
        share = empty.get(column, dataset.table[column].isna().mean())
        kind, example = kinds.get(values.dtype.kind, "text"), values.iloc[0] if len(values) else ""
        rows.append((column, kind, *_meaning(column), _shown(values), f"{share:.1%}", example))
    names = ["column", "type", "unit", "meaning", "made by", "values", "missing", "example"]
    return pd.DataFrame(rows, columns=names)


def _meaning(column):
    """Return the unit, the meaning and the origin of a column."""
    if column not in FIELDS:
        return "", "not known here", "the source, as found"
    field = FIELDS[column]
    return field.unit, field.meaning, field.made_by or "the source, as found"


def _shown(values):
    if not len(values):
        return "none"
    if is_numeric(values):
        return f"{short(values.min())} to {short(values.max())}"
    if values.nunique() <= 10:
        return ", ".join(f"{value} ({n:,})" for value, n in values.value_counts().items())
    return f"{values.nunique():,} different"


def short(number: float) -> str:
    """Write a number with four digits, without an exponent."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"
