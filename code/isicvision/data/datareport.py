"""Say what is in a data set: dictionaries, findings, what tells the label and should not, what leaks; as Markdown.

The report has the sections of the data summary report of the Team Data Science Process. Every figure is computed from
the table of a checked `ImageDataset`; only the words of `FIELDS` and `WHY` are written by hand.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ..files import replacing, user_path
from ..text import counted, printable
from . import duplicates
from .dataset import ImageDataset
from .measures import MEANINGS, MEASURES
from .reading import GROUP_COLUMNS, IMAGE_COLUMNS
from .splitting import group_count, group_words

OWN = {
    "path": ("", "where the image lies", "ImageDataset"),
    "label": ("", "what is to be learnt", "the folder or the label column, label_map and corrections"),
    "group": ("", "images that a split keeps together", "lesion_id, else patient_id, else path"),
    "split": ("", "part of the source's own split", "the folders train, validation and test"),
}
FIELDS = {  # name: unit or kind of values, meaning, role
    "age": ("years", "age of the patient, rounded to 5", "patient"),
    "age_approx": ("years", "age of the patient, rounded to 5, at most 85", "patient"),
    "sex": ("", "sex of the patient", "patient"),
    "fitzpatrick_skin_type": ("I to VI", "skin type after Fitzpatrick: how skin burns and tans", "patient"),
    "family_hx_mm": ("true/false", "melanoma in the family", "patient"),
    "personal_hx_mm": ("true/false", "an earlier melanoma of the patient", "patient"),
    "localization": ("", "site on the body", "patient"),
    "anatom_site_general": ("", "site on the body", "patient"),
    "anatom_site_special": ("", "site of a special kind, such as nail or palm", "patient"),
    **{f"anatom_site_{n}": ("", f"site on the body, level {n} of 5", "patient") for n in range(1, 6)},
    "clin_size_long_diam_mm": ("mm", "longest diameter of the lesion", "patient"),
    "acquisition_day": ("days", "day of the image, from the patient's first", "source"),
    "attribution": ("", "whom to name as the source", "source"),
    "copyright_license": ("", "license of the image", "source"),
    "dataset": ("", "collection the image came from", "source"),
    "image_type": ("", "how it was taken: dermoscopic, clinical, …", "source"),
    "dermoscopic_type": ("", "contact or not, polarised or not", "source"),
    "image_manipulation": ("", "whether the image was altered", "source"),
    "color_tint": ("", "tint of the image", "source"),
    "tbp_tile_type": ("", "lighting of a tile of total body photography", "source"),
    "pixels_x": ("pixels", "width in the archive", "source"),
    "pixels_y": ("pixels", "height in the archive", "source"),
    "sublabel": ("", "the label before label_map merged it", "diagnosis"),
    "dx": ("", "diagnosis, abbreviated", "diagnosis"),
    "dx_type": ("", "how the diagnosis was confirmed", "diagnosis"),
    "diagnosis": ("", "diagnosis", "diagnosis"),
    "diagnosis_confirm_type": ("", "how the diagnosis was confirmed", "diagnosis"),
    **{f"diagnosis_{n}": ("", f"diagnosis, level {n} of 5", "diagnosis") for n in range(1, 6)},
    "benign_malignant": ("", "the label in the source", "diagnosis"),
    "target": ("0/1", "1 for malignant", "diagnosis"),
    "melanocytic": ("true/false", "whether the lesion is of melanocytes", "diagnosis"),
    "concomitant_biopsy": ("true/false", "whether a biopsy was taken at that time", "diagnosis"),
    "mel_class": ("", "kind of melanoma", "diagnosis"),
    "mel_mitotic_index": ("", "mitoses per mm² of a melanoma", "diagnosis"),
    "mel_thick_mm": ("mm", "thickness of a melanoma", "diagnosis"),
    "mel_ulcer": ("true/false", "ulceration of a melanoma", "diagnosis"),
    **{name: ("", "name of the image", "identifier") for name in IMAGE_COLUMNS},
    **{name: ("", f"the {name[:-3]}: its images belong together", "identifier") for name in GROUP_COLUMNS},
    "rcm_case_id": ("", "case of confocal microscopy", "identifier"),
}
"""What is known of the columns of the ISIC Archive and of HAM10000; their documentation is the source."""
FRAME = ("width", "height", "format", "gray", "dark_corners", "border", "ruler")
"""Measures of an image's frame: nothing of the lesion is in them."""
CAMERA = ("bytes", "sharpness", "edge_red", "edge_green", "edge_blue")
"""Measures that give the camera and its light away; they depend a little on skin and lesion too."""
CONFIRMED = ("diagnosis_confirm_type", "dx_type")
"""How a diagnosis was confirmed, as the ISIC Archive and HAM10000 call it."""
WHY = {
    "unreadable": "no network can read it; set aside by check()",
    "tiny": "too small to show structures",
    "oversized": "larger than any camera's image: a panorama, or a damaged header",
    "grayscale": "color is part of what is learnt",
    "wrong extension": "harmless here: the content decides",
    "exact duplicate": "the same image would count twice, and may stand on both sides of a split",
    "label conflict": "one image with two labels: one of them is wrong, and nobody knows which",
    "near-duplicate with another label": "two images look alike and differ in their label: look, then decide",
}
"""Why an image with a finding should go, or need not."""


def findings(dataset: ImageDataset, threshold: int = duplicates.THRESHOLD) -> pd.DataFrame:
    """List what is wrong with single images: `ImageDataset.validate`, and near-duplicates with another label.

    Parameters
    ----------
    dataset
        It is checked (`ImageDataset.check`) if it has not been.
    threshold
        Bits in which near-duplicates may differ, see `ImageDataset.near_duplicates`.

    Returns
    -------
    pandas.DataFrame
        ``path, problem, detail``; both images of a pair are listed.
    """
    dataset = dataset if "sha256" in dataset.table else dataset.check()
    pairs = dataset.near_duplicates(threshold).query("crosses_label")
    hashes = dataset.table.set_index("path")["sha256"]
    pairs = pairs[pairs["path_a"].map(hashes) != pairs["path_b"].map(hashes)]
    sides = []
    for one, other in (("a", "b"), ("b", "a")):
        bits = pairs["distance"].astype(str) + " bits from "
        detail = bits + pairs[f"path_{other}"] + ", " + pairs[f"label_{other}"]
        side = pd.DataFrame({"path": pairs[f"path_{one}"], "detail": detail})
        sides.append(side.assign(problem="near-duplicate with another label"))
    return pd.concat([dataset.validate(), *sides], ignore_index=True)


def proposals(dataset: ImageDataset, found: pd.DataFrame, exclude: Sequence[str] = ()) -> pd.DataFrame:
    """Count findings by problem, with the reason for or against leaving the images out.

    Parameters
    ----------
    found
        As `findings` gives it.
    exclude
        Problems whose images go.

    Returns
    -------
    pandas.DataFrame
        Index ``problem``; columns ``images``, ``excluded``, and one for each label, ``why``.

    Raises
    ------
    ValueError
        If `exclude` names no problem of `WHY`.
    """
    if unknown := set(exclude) - set(WHY):
        raise ValueError(f"no problem {', '.join(sorted(unknown))}; there are: {', '.join(WHY)}")
    label = dataset.table.set_index("path")["label"]
    rows = found.drop_duplicates(["path", "problem"]).assign(label=found["path"].map(label))
    table = pd.DataFrame({"images": rows["problem"].value_counts().reindex(list(WHY), fill_value=0)})
    table["excluded"] = ["yes" if problem in exclude or problem == "unreadable" else "no" for problem in WHY]
    counts = pd.crosstab(rows["problem"], rows["label"])
    counts = counts.reindex(index=list(WHY), columns=dataset.labels, fill_value=0)
    return table.join(counts.add_prefix("of ")).assign(why=WHY.values()).rename_axis("problem")


def exclude(dataset: ImageDataset, found: pd.DataFrame, problems: Sequence[str]) -> ImageDataset:
    """Set the images aside that have one of `problems`: a smaller `ImageDataset`, with the reasons.

    Raises ValueError if there is no such problem, see `WHY`.
    """
    if unknown := sorted({*problems} - {*WHY}):
        raise ValueError(f"no problem is called {', '.join(map(repr, unknown))}; there are: {', '.join(WHY)}")
    chosen = found[found["problem"].isin(problems) & found["path"].isin(dataset.paths)]
    chosen = chosen.drop_duplicates("path").set_index("path")
    return dataset.without((chosen["problem"] + ": " + chosen["detail"]).to_dict())


def role(column: str, table: pd.DataFrame) -> str:
    """Say what kind of column it is.

    Returns
    -------
    str
        ``patient``, ``source``, ``diagnosis`` or ``identifier`` (by `FIELDS`), ``frame`` or ``appearance`` (measures),
        else ``other``, or ``identifier`` for text that hardly occurs twice.
    """
    if column in MEASURES:
        frame = column in FRAME + CAMERA
        return "identifier" if column in ("sha256", "phash") else "frame" if frame else "appearance"
    if column in OWN:
        return "identifier"
    if column in FIELDS:
        return FIELDS[column][2]
    many = table[column].nunique() > 0.5 * max(table[column].count(), 1)
    return "identifier" if many and not pd.api.types.is_numeric_dtype(table[column]) else "other"


def associations(
    dataset: ImageDataset, columns: Sequence[str] | None = None, draws: int = 200, seed: int = 0
) -> pd.DataFrame:
    """Measure how well each column alone tells the label, as an area under the ROC curve.

    Numbers are the score themselves, so below 0.5 the *lower* values go with the label; rows without the number are
    left out. Of text and true/false the score is the share of the label among the images with that value in four
    of five folds by group, compared within the fifth; a missing value is a value.

    Parameters
    ----------
    columns
        Default: all but identifiers.
    draws
        Resamples of the bootstrap over groups.

    Returns
    -------
    pandas.DataFrame
        A row a column, the strongest first: ``column, role, of, auc, low, high, images``. ``of`` is the label told
        from all others: the last of two (``malignant``); of more, the one whose area is farthest from 0.5. ``low``
        and ``high`` bound the 95 % interval. NaN where it is undefined: in a column of one value, say.
    """
    table, fold = dataset.table, _fold(dataset)
    if columns is None:
        columns = [column for column in table if role(column, table) != "identifier"]
    rows = []
    for column in columns:
        told = []
        for label in dataset.labels[1 if len(dataset.labels) == 2 else 0 :]:
            values, positive = table[column], (table["label"] == label).to_numpy()
            if values.nunique(dropna=not _numeric(values)) < 2 and not values.isna().any():
                areas, known = np.full(draws + 1, np.nan), values.notna()
            elif _numeric(values):
                known = values.notna()
                areas = _areas(values[known], positive[known], table["group"][known], None, draws, seed)
            else:
                known = pd.Series(fold is not None, table.index)
                scores = _rates(values, positive, fold) if fold is not None else values
                areas = _areas(scores[known], positive[known], table["group"][known], fold, draws, seed)
            told.append((label, areas, known.sum()))
        label, areas, known = max(told, key=lambda one: np.nan_to_num(abs(one[1][0] - 0.5), nan=-1))
        rows.append((column, role(column, table), label, *_interval(areas), known))
    found = pd.DataFrame(rows, columns=["column", "role", "of", "auc", "low", "high", "images"])
    # the shares of text, learnt from other folds, tell nothing where they point the wrong way
    told = (found["auc"] - 0.5).mask(
        ~found["column"].map(lambda name: _numeric(table[name])), lambda far: far.clip(0)
    )
    return found.iloc[told.abs().sort_values(ascending=False, kind="stable").index].reset_index(drop=True)


def shortcut(
    dataset: ImageDataset, columns: Sequence[str] | None = None, draws: int = 200, seed: int = 0
) -> dict:
    """Predict the label from what is no lesion: the image's frame, quality and source.

    Gradient boosting (scikit-learn) in five folds by group. Near 0.5, these columns tell nothing; well above, a
    network can score without looking at the lesion.

    Parameters
    ----------
    columns
        Default: the columns whose `role` is ``frame`` or ``source``.
    draws, seed
        As of `associations`.

    Returns
    -------
    dict
        ``auc``, ``low``, ``high`` (one label against the others, the mean over labels if there are more than two;
        NaN if there are too few groups, or fewer than 50 images) and ``columns``.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

    table, fold = dataset.table, _fold(dataset)
    if columns is None:
        columns = [column for column in table if role(column, table) in ("frame", "source")]
    columns = [column for column in columns if table[column].nunique(dropna=False) > 1]
    if fold is None or not columns or len(table) < 50:  # a leaf holds 20 images: of fewer grows no tree
        return {"auc": np.nan, "low": np.nan, "high": np.nan, "columns": columns}
    features = pd.DataFrame(
        {
            # beyond 200 values the rare ones are taken together: the trees take 255
            name: table[name] if _numeric(table[name]) else _common(table[name], 200).astype("category")
            for name in columns
        }
    )
    scores = np.zeros((len(table), len(dataset.labels)))
    for part in np.unique(fold):
        model = HistGradientBoostingClassifier(
            max_leaf_nodes=8, categorical_features="from_dtype", random_state=seed
        )
        # on a busy machine, threads that wait for each other cost far more
        with threadpool_limits(1, "openmp"):
            model.fit(features[fold != part], table["label"][fold != part])
            scores[fold == part] = model.predict_proba(features[fold == part])
    areas = [
        _areas(scores[:, n], (table["label"] == label).to_numpy(), table["group"], fold, draws, seed)
        for n, label in enumerate(dataset.labels)
    ]
    auc, low, high = _interval(np.mean(areas[1:] if len(areas) == 2 else areas, axis=0))
    return {"auc": auc, "low": low, "high": high, "columns": columns}


def leaks(dataset: ImageDataset, threshold: int = duplicates.THRESHOLD, seed: int = 0) -> dict:
    """Count what a split image by image would leak, and a split by group does not.

    Returns
    -------
    dict of str to int
        ``groups``, None if no column names lesions, and ``groups_known``, see `splitting.group_count`; ``several``:
        groups with more than one image; ``random`` and ``by_group``: groups that stand in more than one part of a
        60/20/20 split image by image, and by group; ``tested``: test images of the random split whose group was
        trained on; ``test``: all its test images; ``exact``: files equal to an earlier one; ``near``: pairs of
        near-duplicates; ``near_groups``: those of different groups. Without those of the splits if a label has too few
        groups for three parts, or no lesion is named.
    """
    dataset = dataset if "sha256" in dataset.table else dataset.check()
    near = dataset.near_duplicates(threshold)
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
        whole = dataset.split(0.6, 0.2, 0.2, seed=seed)
    except ValueError:  # a label has fewer groups than parts
        return counts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the leak is what we are after
        random = dataset.split(0.6, 0.2, 0.2, group=None, seed=seed)
    for name, split in (("random", random), ("by_group", whole)):
        parts = pd.concat([part.table["group"].drop_duplicates() for part in split])
        counts[name] = parts[parts.duplicated()].nunique()
    train, _, test = (part.table["group"] for part in random)
    return counts | {"tested": int(test.isin(set(train)).sum()), "test": len(test)}


def leak_words(counts: dict) -> str:
    """Put what `leaks` counted into sentences."""
    if "random" in counts:
        tested = counts["tested"] / max(counts["test"], 1)
        split = (
            "A random split 60/20/20, image by image, would put "
            f"**{counted(counts['random'], 'lesion')} on more than one side**: of its {counts['test']:,} test "
            f"images, {counts['tested']:,} ({tested:.0%}) show a lesion that was trained on. The split by lesion "
            f"puts **{counts['by_group']:,}** on more than one side."
        )
    else:
        split = "A label has too few lesions to split them in three parts."
    alike = (
        f"Files with the same bytes as an earlier one: {counts['exact']:,}. Pairs of images that look alike: "
        f"{counts['near']:,}"
    )
    if counts["groups"] is None:
        return (
            f"Lesions with several images: **{group_words(None)}**. Nobody can say how many lesions a split puts on "
            "more than one side; if there are any, the figures of the test flatter. A column `lesion_id` or "
            f"`patient_id` in the metadata says it.\n\n{alike}. As a stand-in, `split(…, near_duplicates=2)` keeps "
            "these in one part. It finds images that look alike, and not every second image of a lesion."
        )
    known = (
        f" A lesion is named for {counts['groups_known']:.0%} of the images; of the others nobody can know."
    )
    return (
        f"Of {counted(counts['groups'], 'lesion')} (or groups), {counts['several']:,} have more than one image."
        f"{known * (counts['groups_known'] < 1)} {split}\n\n{alike}, of which {counts['near_groups']:,} are of "
        "different lesions by their metadata. Look at such pairs: where they show one image, a split by lesion may "
        "part them, and `split(…, near_duplicates=2)` does not."
    )


def missing(dataset: ImageDataset) -> pd.DataFrame:
    """Share of images without a value (or "unknown"), for each column of the source, in all and per label.

    Returns
    -------
    pandas.DataFrame
        Index ``column``, the emptiest first; columns ``all`` and each label, 0 to 1.
    """
    empty = dataset.table[[column for column in dataset.table if column not in (*OWN, *MEASURES)]]
    empty = empty.apply(lambda values: values.isna() | values.astype(str).str.lower().isin(["", "unknown"]))
    shares = empty.groupby(dataset.table["label"]).mean().T
    shares.insert(0, "all", empty.mean())
    return shares.sort_values("all", ascending=False, kind="stable").rename_axis("column")


def dictionary(dataset: ImageDataset, columns: Iterable[str]) -> pd.DataFrame:
    """Describe columns of a dataset: what a data dictionary says of each.

    Returns
    -------
    pandas.DataFrame
        A row a column: ``column, type, unit, meaning, made by, values, missing, example``.
    """
    rows, empty = [], missing(dataset)["all"]
    for column in columns:
        values = dataset.table[column].dropna()
        if column in OWN:
            unit, meaning, origin = OWN[column]
        elif column in MEANINGS:
            (unit, meaning), origin = MEANINGS[column], "ImageDataset.check"
        else:
            unit, meaning, *_ = FIELDS.get(column, ("", "not known here"))
            origin = "the source, as found"
        kinds = {"b": "true/false", "i": "whole number", "u": "whole number", "f": "number"}
        if _numeric(values) and len(values):
            shown = f"{_short(values.min())} to {_short(values.max())}"
        elif values.nunique() <= 10:
            shown = ", ".join(f"{value} ({n:,})" for value, n in values.value_counts().items())
        else:
            shown = f"{values.nunique():,} different"
        share = f"{empty.get(column, dataset.table[column].isna().mean()):.1%}"
        example = values.iloc[0] if len(values) else ""
        kind = kinds.get(values.dtype.kind, "text")
        rows.append((column, kind, unit, meaning, origin, shown or "none", share, example))
    names = ["column", "type", "unit", "meaning", "made by", "values", "missing", "example"]
    return pd.DataFrame(rows, columns=names)


def relations(dataset: ImageDataset, most: int = 10) -> pd.DataFrame:
    """List the strongest relations between columns: Spearman's rank correlation of numbers, Cramér's V of text.

    V is corrected for its bias (Bergsma, *A bias-correction for Cramér's V and Tschuprow's T*, J. Korean Stat. Soc.
    2013), so that columns of many values do not look related by chance.

    Returns
    -------
    pandas.DataFrame
        ``one, other, measure, value``, at most `most` rows of each measure, the strongest first.
    """
    table = dataset.table
    used = [c for c in table if role(c, table) != "identifier" and table[c].nunique() > 1]
    numbers = [column for column in used if _numeric(table[column])]
    texts = [column for column in used if not _numeric(table[column])]
    ranks = table[numbers].rank().corr()
    rows = [
        [(a, b, "Spearman", ranks.loc[a, b]) for n, a in enumerate(numbers) for b in numbers[:n]],
        [(a, b, "Cramér's V", _cramer(table[a], table[b])) for n, a in enumerate(texts) for b in texts[:n]],
    ]
    kept = [sorted(part, key=lambda row: -abs(np.nan_to_num(row[3])))[:most] for part in rows]
    return pd.DataFrame([row for part in kept for row in part], columns=["one", "other", "measure", "value"])


def write(
    dataset: ImageDataset,
    folder: str | os.PathLike,
    kept: ImageDataset | None = None,
    exclude: Sequence[str] = (),
) -> list[Path]:
    """Write the data summary report and the two data dictionaries as Markdown, with plots beside them.

    Parameters
    ----------
    dataset
        Checked, before anything is left out.
    kept
        What later steps read, after exclusions and corrections. Default: `dataset`.
    exclude
        Problems whose images were left out, see `proposals`.

    Returns
    -------
    list of pathlib.Path
        ``data_summary.md``, ``data_dictionary_raw.md``, ``data_dictionary_processed.md``.
    """
    from .. import plots

    folder, table = user_path(folder), dataset.table
    kept = dataset if kept is None else kept
    folder.mkdir(parents=True, exist_ok=True)
    before = table.set_index("path")["label"].loc[kept.paths]
    corrected = int((before.to_numpy() != kept.table["label"].to_numpy()).sum())
    raw = [column for column in table if column not in (*OWN, *MEASURES)]
    found, told, counts = findings(dataset), associations(dataset), leaks(dataset)
    numbers = [column for column in told["column"] if _numeric(table[column])]
    texts = [column for column in table if role(column, table) != "identifier" and column not in numbers]
    tally = {column: _common(table[column], 12).value_counts() for column in texts}
    frequent = pd.concat(tally, names=["column", "value"]).reset_index(name="images") if texts else table[:0]
    credits = [column for column in ("attribution", "copyright_license") if column in table]
    images = {
        "label": plots.class_balance(dataset),
        "missing": plots.missing(missing(dataset)) if raw else None,
        "measures": plots.measures(dataset),
        "associations": plots.associations(told),
    }
    for name, figure in images.items():
        if figure:
            plots.save(figure, folder / f"{name}.png")
    areas = told.round(3).astype(object).fillna("undefined")
    sections = [
        "# Data summary report",
        "Written from the data by `isicvision.datareport`; do not edit by hand. The columns are explained in "
        "[data_dictionary_raw.md](data_dictionary_raw.md) (as found) and "
        "[data_dictionary_processed.md](data_dictionary_processed.md) (as used). No medical decision may rest on this.",
        "## General summary",
        f"{counted(len(table), 'sound image')}{_of_lesions(table)} with {counted(len(dataset.labels), 'label')}; "
        f"{len(dataset.set_aside):,} set aside before. Columns from the source: {len(raw)}; measured: {len(MEASURES)}. "
        f"Then left out: {counted(len(table) - len(kept), 'image')}; corrected: {counted(corrected, 'label')}. "
        f"What goes on: {counted(len(kept), 'image')}{_of_lesions(kept.table)}. The figures below are those of the "
        "sound images, before that.",
        "## Data quality",
        markdown(proposals(dataset, found, exclude).reset_index()),
        "### Missing values",
        "![Share of missing values](missing.png)" if raw else "The source has no further columns.",
        markdown(missing(dataset).map("{:.1%}".format).reset_index()),
        "## Target variable: label",
        "![Images and groups per label](label.png)",
        markdown(dataset.summary().reset_index()),
        *(
            markdown(pd.crosstab(table[column], table["label"]).reset_index())
            for column in texts
            if role(column, table) == "diagnosis" and 1 < table[column].nunique() <= 40
        ),
        "## Individual variables",
        "![Measures per label](measures.png)",
        markdown(table[numbers].describe().T.rename_axis("column").reset_index()),
        "Of what is no number, the twelve most frequent values:",
        markdown(frequent),
        "## Variables ranked by their association with the label",
        "Area under the ROC curve of each column alone, for the label `of` against the others; 0.5 tells nothing. Of "
        "numbers, below it lower values go with the label; text below it tells nothing either. 95 % interval from a "
        "bootstrap over groups. Columns whose role is "
        "*diagnosis* are known only once the label is, and must never be an input.",
        "![Association with the label](associations.png)",
        markdown(areas),
        "## Relationships between variables",
        markdown(relations(dataset)),
        "## Shortcuts: what tells the label and should not",
        shortcut_words(dataset),
        "## Duplicates and leaks",
        leak_words(counts),
        "## Licenses and attribution",
        markdown(table[credits].fillna("none given").value_counts().reset_index())
        if credits
        else "The table has neither license nor attribution: see where the images come from.",
    ]
    found_columns = markdown(dictionary(dataset, raw).drop(columns="made by"))
    used_columns = markdown(dictionary(dataset, table.columns))
    pages = {
        "data_summary": sections,
        "data_dictionary_raw": ["# Data dictionary: the source, as found", found_columns],
        "data_dictionary_processed": ["# Data dictionary: the table of images, as used", used_columns],
    }
    for name, parts in pages.items():
        with replacing(folder / f"{name}.md") as part:
            part.write_text(printable("\n\n".join(parts)) + "\n", encoding="utf-8")
    return [folder / f"{name}.md" for name in pages]


def _of_lesions(table):
    """Say of how many lesions the images are: " of 1,234 lesions (or groups)", or that this is unknown."""
    found = group_count(table)
    if found["groups"] is None or found["groups_known"] < 1:
        return f" (lesions: {group_words(**found)})"
    return f" of {counted(found['groups'], 'lesion')} (or groups)"


def shortcut_words(dataset: ImageDataset) -> str:
    """Say what `shortcut` finds, with the frame alone and with all, and then of the images confirmed alike only."""

    def found(part):
        frame, whole = (_area_words(shortcut(part, columns)) for columns in (FRAME, None))
        return (
            f"Gradient boosting that sees nothing but the frame reaches {frame} in cross-validation by lesion. With "
            f"what else tells of the camera and the source it reaches {whole}."
        )

    words = found(dataset) + (
        " Sharpness, the size of a file and the color along the edge depend on lesion and skin too, so some of it is "
        "fair. Chance is 0.5. A network's figure says something of the lesion only as far as it is above these."
    )
    alike = dataset.where(confirmed_alike(dataset.table))
    if 0 < len(alike) < len(dataset):
        words += (
            f"\n\n**Confirmed alike.** Of the {len(alike):,} images whose diagnosis was confirmed in a way that "
            f"occurs with every label: {found(alike)} If the scores of all images are higher than these, the "
            "difference comes from how lesions were confirmed, not from the lesions."
        )
    return words


def _area_words(found):
    names = ", ".join(found["columns"]) or "nothing varies"
    if np.isnan(found["auc"]):
        return f"an undefined area ({names}, or too few lesions)"
    return f"a ROC AUC of **{found['auc']:.3f} [{found['low']:.3f}, {found['high']:.3f}]** ({names})"


def confirmed_alike(table: pd.DataFrame) -> np.ndarray:
    """Say which images' diagnosis was confirmed in a way that occurs with every label.

    Lesions that were cut out were suspicious; those that were only watched were not, and often had another camera.
    Where all malignant lesions are of the first kind and most benign ones of the second, a network can tell kinds of
    images apart in place of lesions. Compare the figure of all images with that of these.

    Parameters
    ----------
    table
        Of an `ImageDataset` or `Evaluation`, with a ``label`` and perhaps one of the columns `CONFIRMED`.

    Returns
    -------
    numpy.ndarray of bool, shape (images,)
        All true if the table does not say how.
    """
    column = next((name for name in CONFIRMED if name in table), None)
    if column is None:
        return np.ones(len(table), bool)
    labels = table.groupby(column)["label"].transform("nunique")  # NaN where it is not known
    return (labels == table["label"].nunique()).to_numpy()


def markdown(frame: pd.DataFrame) -> str:
    """Write a table as Markdown, without pandas' optional dependency; ``None.`` if it has no row."""
    if not len(frame):
        return "None."

    def cell(value):
        text = _short(value) if isinstance(value, float) else str(value)
        return text.replace("|", "\\|").replace("\n", " ")

    rows = [frame.columns, ["---"] * frame.shape[1], *frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(map(cell, row)) + " |" for row in rows)


def _short(number):
    """Write a number in four digits, without an exponent."""
    return f"{number:,.0f}" if abs(number) >= 1000 else f"{number:.4g}"


def _cramer(one, other):
    """Bias-corrected Cramér's V of two columns; NaN where one has a single value."""
    from scipy.stats import chi2_contingency

    counts = pd.crosstab(_common(one, 50), _common(other, 50))
    n, (rows, columns) = counts.to_numpy().sum(), counts.shape
    if min(rows, columns) < 2 or n < 2:
        return np.nan
    phi2 = chi2_contingency(counts, correction=False).statistic / n
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    rows, columns = (side - (side - 1) ** 2 / (n - 1) for side in (rows, columns))
    return float(np.sqrt(phi2 / (min(rows, columns) - 1)))


def _numeric(values):
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _common(values, most):
    text = values.astype("string").fillna("(missing)")
    return text.where(text.isin(text.value_counts().index[:most]), "(rare)")


def _fold(dataset):
    """Return the fold by group of each image, of five or as many as the rarest label allows; else None."""
    for k in (5, 4, 3, 2):
        try:
            parts = [part.paths for _, part in dataset.folds(k)]
        except ValueError:
            continue
        of_path = {path: number for number, paths in enumerate(parts) for path in paths}
        return dataset.table["path"].map(of_path).to_numpy()


def _rates(values, positive, fold):
    """Share of `positive` among the images of other folds with the same value; rare values are drawn to the mean."""
    code = _common(values, 1000).factorize()[0]
    count, sum_ = np.zeros((2, code.max() + 1, fold.max() + 1))
    np.add.at(count, (code, fold), 1)
    np.add.at(sum_, (code, fold), positive)
    of_others, others = (each.sum(axis=1, keepdims=True) - each for each in (sum_, count))
    return pd.Series(((of_others + positive.mean()) / (others + 1))[code, fold], values.index)


def _areas(scores, positive, groups, fold, draws, seed):
    """Areas under the ROC curve, compared within folds: of all images, then of resamples of the groups."""
    random, group = np.random.default_rng(seed), pd.factorize(groups, sort=True)[0]
    fold = np.zeros(len(group), int) if fold is None else np.asarray(fold)
    order = np.lexsort((scores, fold))
    score, fold, positive, group = (np.asarray(a)[order] for a in (scores, fold, positive, group))
    if not len(group):
        return np.full(draws + 1, np.nan)
    new = np.r_[True, (np.diff(score) != 0) | (np.diff(fold) != 0)]
    code, fold = np.cumsum(new) - 1, fold[new]
    areas = []
    for draw in range(draws + 1):
        n = group.max() + 1
        weight = np.bincount(random.integers(n, size=n), minlength=n)[group] if draw else np.ones(len(group))
        above, below = (np.bincount(code, weight * side, len(fold)) for side in (positive, ~positive))
        total = np.bincount(fold, below)
        before = np.cumsum(below) - below - (np.cumsum(total) - total)[fold]
        pairs = (np.bincount(fold, above) * total).sum()
        areas.append((above * (before + below / 2)).sum() / pairs if pairs else np.nan)
    return np.array(areas)


def _interval(areas):
    """Return the area of all images and its 95 % interval; NaN where no resample defines it."""
    known = areas[1:][~np.isnan(areas[1:])]
    return (areas[0], *(np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)))
