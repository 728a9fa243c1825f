"""Measure what goes with the label: values of the metadata, missing values, and shortcuts that are not the lesion."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd

from .. import metrics
from ..fields import ADDED_COLUMNS, CONFIRMED, FIELDS
from ..text import apart
from .dataset import ImageDataset
from .splitting import deal

FRAME = ("width", "height", "format", "gray", "dark_corners", "border", "ruler")
"""Measures of the image's frame, which say nothing about the lesion."""

DRAWS = 200
"""The number of bootstrap draws for an interval."""


def role(column: str, table: pd.DataFrame) -> str:
    """Return what a column is about: patient, source, diagnosis or identifier, or for measures frame or appearance.

    Unknown columns are ``other``, but ``identifier`` if they hold text that hardly ever repeats.

    >>> table = pd.DataFrame({"sex": ["female", "male"], "comment": ["first visit", "second visit"]})
    >>> role("sex", table), role("width", table), role("comment", table)
    ('patient', 'frame', 'identifier')
    """
    if column in FIELDS:
        return FIELDS[column].role
    many = table[column].nunique() > 0.5 * max(table[column].count(), 1)
    return "identifier" if many and not pd.api.types.is_numeric_dtype(table[column]) else "other"


def rank(dataset: ImageDataset, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Rank columns, by default all except identifiers, by how well each one alone predicts the label: ROC AUC.

    A number is itself the score: an AUC below 0.5 means that lower values go with the label; images without it are left
    out. For text and true/false, the score is the share of the label among images with the same value (or none) in four
    of five folds by group, and scores are compared within the fifth.

    Returns ``column, role, of, auc, low, high, images``, the strongest first. ``of`` is the label that is told from the
    others: of two the last, else the one told best. ``low`` and ``high`` bound the 95 % interval from `DRAWS` bootstrap
    draws of the groups. NaN is undefined.

    >>> table = pd.DataFrame({"path": [*"abcdefgh"], "label": ["nevus"] * 4 + ["wart"] * 4, "age": range(8)})
    >>> rank(ImageDataset(table.assign(group=table["path"])), ["age"])[["column", "of", "auc"]].values.tolist()
    [['age', 'wart', 1.0]]
    """
    table, fold = dataset.table, _folds(dataset)
    if columns is None:
        columns = [column for column in table if role(column, table) != "identifier"]
    rows = []
    for column in columns:
        values, found = table[column], []
        for label in dataset.labels[1 if len(dataset.labels) == 2 else 0 :]:
            positive = table["label"] == label
            scores = values if is_numeric(values) else _rates(values, positive, fold)
            known = scores.notna()
            areas = np.full(1, np.nan)
            if known.any() and values.nunique(dropna=False) > 1:
                within = None if is_numeric(values) else fold
                areas = _areas(scores[known], positive[known], table["group"][known], within)
            found.append((label, *_interval(areas), known.sum()))
        best = max(found, key=lambda one: np.nan_to_num(abs(one[1] - 0.5), nan=-1))
        rows.append((column, role(column, table), *best))
    ranked = pd.DataFrame(rows, columns=["column", "role", "of", "auc", "low", "high", "images"])
    # an AUC below 0.5 says something only of a number: the scores of text come from other folds
    strength = [
        abs(row.auc - 0.5) if is_numeric(table[row.column]) else max(row.auc - 0.5, 0)
        for row in ranked.itertuples()
    ]
    order = pd.Series(strength, dtype=float).sort_values(ascending=False, kind="stable").index
    return ranked.iloc[order].reset_index(drop=True)


def label_from_metadata(dataset: ImageDataset, columns: Sequence[str] | None = None) -> dict:
    """Predict the label from columns that do not show the lesion: the image's frame, camera and source.

    Gradient boosting in five folds by group, by default on the columns whose `role` is ``frame`` or ``source``. If they
    do well, a network can score without looking at the lesion. Returns the ROC AUC ``auc`` (with more than two labels
    their mean), its 95 % interval ``low`` and ``high``, and the ``columns`` used. NaN with too few groups or images.

    >>> table = pd.DataFrame({"path": [*map(str, range(60))], "label": ["a", "b"] * 30, "width": [600, 800] * 30})
    >>> label_from_metadata(ImageDataset(table.assign(group=table["path"])))["auc"]
    1.0
    """
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

    table, fold = dataset.table, _folds(dataset)
    if columns is None:
        columns = [column for column in table if role(column, table) in ("frame", "source")]
    columns = [column for column in columns if table[column].nunique(dropna=False) > 1]
    if fold is None or not columns or len(table) < 50:  # a leaf holds 20 images: fewer grow no tree
        return {"auc": np.nan, "low": np.nan, "high": np.nan, "columns": columns}
    features = table[columns].apply(  # the trees take at most 255 categories
        lambda values: values if is_numeric(values) else frequent(values, 200).astype("category")
    )
    trees = {"max_leaf_nodes": 8, "categorical_features": "from_dtype", "random_state": 0}
    how = {"cv": PredefinedSplit(fold), "method": "predict_proba"}
    with threadpool_limits(1, "openmp"):  # on a busy machine, threads that wait for each other cost more
        scores = cross_val_predict(HistGradientBoostingClassifier(**trees), features, table["label"], **how)
    areas = [
        _areas(scores[:, n], table["label"] == label, table["group"], fold)
        for n, label in enumerate(dataset.labels)
    ]
    auc, low, high = _interval(np.mean(areas[1:] if len(areas) == 2 else areas, axis=0))
    return {"auc": auc, "low": low, "high": high, "columns": columns}


def missing(dataset: ImageDataset) -> pd.DataFrame:
    """Return the share of images without a value, or with "unknown", for each column of the source.

    One column for ``all`` images and one per label, from 0 to 1; the emptiest first.

    >>> table = pd.DataFrame({"path": [*"abcd"], "label": [*"xxyy"], "group": [*"abcd"], "sex": ["f", None] * 2})
    >>> missing(ImageDataset(table)).loc["sex"].to_dict()
    {'all': 0.5, 'x': 0.5, 'y': 0.5}
    """
    table = dataset.table[[column for column in dataset.table if column not in ADDED_COLUMNS]]
    empty = table.apply(lambda values: values.isna() | values.astype(str).str.lower().isin(["", "unknown"]))
    shares = empty.groupby(dataset.table["label"]).mean().T
    shares.insert(0, name := apart("all", shares), empty.mean())
    return shares.sort_values(name, ascending=False, kind="stable").rename_axis("column")


def confirmed_alike(table: pd.DataFrame) -> np.ndarray:
    """Mark the images whose diagnosis was confirmed in a way that occurs with every label: array of bool.

    On the others a network may tell kinds of images apart instead of lesions. All are marked without such a column.

    >>> table = pd.DataFrame({"label": ["nevus", "nevus", "melanoma"], "dx_type": ["follow_up", "histo", "histo"]})
    >>> confirmed_alike(table).tolist()
    [False, True, True]
    """
    column = next((name for name in CONFIRMED if name in table), None)
    if column is None:
        return np.ones(len(table), bool)
    labels = table.groupby(column)["label"].transform("nunique")  # NaN where it is not known
    return (labels == table["label"].nunique()).to_numpy()


def is_numeric(values: pd.Series) -> bool:
    """Return whether a column holds numbers; true/false is not a number."""
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def frequent(values: pd.Series, most: int) -> pd.Series:
    """Turn a column into text: its `most` frequent values, ``(rare)`` for others, ``(missing)`` for none.

    >>> frequent(pd.Series(["a", "a", "b", None, None]), 2).tolist()
    ['a', 'a', '(rare)', '(missing)', '(missing)']
    """
    text = values.astype("string").fillna("(missing)")
    return text.where(text.isin(text.value_counts().index[:most]), "(rare)")


def _folds(dataset):
    """Return the fold by group of each image, of five or as many as the rarest label allows; else None."""
    k = min(5, dataset.table.groupby("label")["group"].nunique().min())
    return None if k < 2 else deal(dataset, [1 / k] * k, "label", "group", seed=0)


def _rates(values, positive, fold):
    """Return the share of `positive` among images of other folds with the same value, drawn towards the mean."""
    if fold is None:
        return pd.Series(np.nan, values.index)
    value = frequent(values, 1000)
    in_all, in_fold = positive.groupby(value), positive.groupby([value, fold])
    others = in_all.transform("size") - in_fold.transform("size")
    return (in_all.transform("sum") - in_fold.transform("sum") + positive.mean()) / (others + 1)


def _areas(scores, positive, groups, fold):
    """Return the ROC AUC within folds of all images, then of each bootstrap draw of the groups."""
    scores, positive = np.asarray(scores, float), np.asarray(positive)
    fold = np.zeros(len(scores)) if fold is None else fold
    group = pd.factorize(groups, sort=True)[0]
    areas = []
    for weights in chain([np.ones((1, len(group)))], metrics.draws(group, DRAWS)):
        ordered, pairs = np.zeros((2, len(weights)))
        for number in np.unique(fold):
            here = fold == number
            hits = weights[:, here] @ positive[here]
            of_fold = hits * (weights[:, here].sum(axis=1) - hits)
            columns = positive[here, None], positive[here, None], scores[here, None]
            area = metrics.roc_auc(*columns, weights[:, here])["roc_auc"][:, 0]
            ordered, pairs = ordered + of_fold * np.nan_to_num(area), pairs + of_fold
        with np.errstate(invalid="ignore"):  # 0/0 is NaN: not defined
            areas.append(ordered / pairs)
    return np.concatenate(areas)


def _interval(areas):
    """Return the AUC of all images and its 95 % interval, NaN where no draw defines it."""
    known = areas[1:][~np.isnan(areas[1:])]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    return float(areas[0]), float(low), float(high)
