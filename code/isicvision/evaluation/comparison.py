"""Compare two models, or one model on different groups of images."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..metrics import BLOCK
from ..text import as_label
from .evaluation import Evaluation
from .intervals import interval, lesions, of_agreement, same

FEWEST = 10
"""With fewer positive lesions, or fewer others, a slice is not judged."""
RATE = 0.05
"""How often, at most, chance alone flags any slice of the given columns."""
PERMUTATIONS = 1999
"""How often values are exchanged between lesions to see which differences chance makes."""
BANDS = 4
"""The number of bands, of equally many images, that a column of numbers is cut into."""

SHARES = {"sensitivity": "recall", "specificity": "specificity"}
"""What `slices` shows beside the metric: the field's names, and those in `METRICS`."""


def compare(first: Evaluation, second: Evaluation, metric: str = "roc_auc") -> pd.Series:
    """Compare two models by their scores for the same images: a paired bootstrap over lesions.

    Returns ``first``, ``second``, ``difference`` (first - second) with its 95 % interval ``low`` and ``high``, and a
    ``sentence``. `metric` is one of `METRICS`. Raises ValueError if images, labels, groups or positive label differ.

    >>> labels = ["benign", "malignant"] * 20
    >>> good, poor = (Evaluation.from_scores(labels, scores) for scores in ([0.1, 0.9] * 20, [0.1, 0.9, 0.9, 0.1] * 10))
    >>> compare(good, poor, "accuracy")["sentence"]
    "The first model's accuracy is 0.500 higher (95 % CI 0.350 to 0.675)."
    """
    columns = ["path", "label", "group"]
    tables = [each.table.set_index("path", drop=False) for each in (first, second)]
    if set(tables[0].index) != set(tables[1].index) or first.positive != second.positive:
        raise ValueError("compare needs two evaluations of the same images, with the same positive label")
    second = replace(second, table=tables[1].loc[tables[0].index].reset_index(drop=True))
    if not first.table[columns].equals(second.table[columns]):
        raise ValueError("the two evaluations have other labels or groups for the same images")
    vars(second)["rows_by_group"] = first.rows_by_group  # the same draws, whatever the names of the groups
    values = [each.metric(metric) for each in (first, second)]
    difference = values[0] - values[1]
    drawn = first.draws(metric) - second.draws(metric)
    low, high = interval(difference, drawn, first.jackknife(metric) - second.jackknife(metric))
    if same(drawn) and not np.allclose(first.scores, second.scores, 0, 1e-5):  # all right in both, say
        wide = of_agreement(0, min(lesions(each, metric) for each in (first, second)))[1]
        low, high = max(difference - wide, -1), min(difference + wide, 1)
    found = {"first": values[0], "second": values[1], "difference": difference, "low": low, "high": high}
    return pd.Series(found | {"sentence": _say(metric, difference, low, high)})


def _say(metric, difference, low, high):
    name = metric.replace("roc_auc", "ROC AUC").replace("_", " ")
    if np.isnan(difference):
        return f"The {name} of these images is not defined."
    if low <= 0 <= high:
        side = "lower" if difference < 0 else "higher"
        rest = f"(95 % CI {low:+.3f} to {high:+.3f}): these images do not show which model is better"
        if abs(difference) < 0.0005:
            return f"Both models have the same {name} {rest}."
        return f"The first model's {name} is {abs(difference):.3f} {side} {rest}."
    better, (least, most) = "first" if difference > 0 else "second", sorted((abs(low), abs(high)))
    return f"The {better} model's {name} is {abs(difference):.3f} higher (95 % CI {least:.3f} to {most:.3f})."


def slices(evaluation: Evaluation, column: str | Iterable[str], metric: str = "roc_auc") -> Any:
    """Evaluate the images with each value of a metadata column, and compare them with all other images.

    Give all columns in one list: each is one more chance of a false alarm. Numbers with more than ten values are cut
    into `BANDS` bands. Of more than two classes, the positive one is evaluated against the others.

    Returns a table, or for several columns a list of them; `written` makes it easy to read. A row a value: ``images``,
    ``lesions``, ``positive`` (lesions), the metric as ``value`` with its 95 % interval ``low`` and ``high``, the
    ``difference`` to all other images, and its ``p_value`` by permutation of lesions with the same label, corrected for
    all values of all columns (Holm, A simple sequentially rejective multiple test procedure, 1979). ``verdict`` is
    ``"differs"`` (p below `RATE`), ``"no difference seen"`` or, with fewer than `FEWEST` positive or other lesions,
    ``"too few to say"``. ``sensitivity`` and ``specificity`` have their intervals whatever the number of lesions; the
    one that needs a label which does not occur is NaN. Raises ValueError if a column is unknown or infinite.

    >>> sites = pd.DataFrame({"site": ["arm", "arm", "leg", "leg"] * 10})
    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, [0.1, 0.9, 0.6, 0.7] * 10, metadata=sites)
    >>> slices(made, "site", "accuracy")["verdict"].to_dict()
    {'arm': 'differs', 'leg': 'differs'}
    """
    columns = [column] if isinstance(column, str) else [*column]
    for name in columns:
        if name not in evaluation.table:
            raise ValueError(f"no column {name!r}; there are: {', '.join(evaluation.table.columns)}")
    if len(evaluation.classes) > 2:
        evaluation = evaluation.against(evaluation.positive)
    values = [_values(evaluation.table[name]) for name in columns]
    tables = [_by_value(evaluation, each, metric) for each in values]
    judged = [table["difference"].notna() for table in tables]
    members = [given == name for given, each in zip(values, judged, strict=True) for name in each.index[each]]
    p_values = iter(_holm(_permuted(evaluation, members, metric)))
    for table, known in zip(tables, judged, strict=True):
        table["p_value"] = [next(p_values) if each else np.nan for each in known]
        table["verdict"] = np.where(table["p_value"] < RATE, "differs", "no difference seen")
        table.loc[~known, "verdict"] = "too few to say"
    return tables[0] if isinstance(column, str) else tables


def written(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `slices` for reading: each figure and its interval in one cell, such as ``0.87 [0.81, 0.92]``.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, [0.1, 0.9] * 20)
    >>> written(slices(made, "label", "accuracy")).loc["benign", ["sensitivity", "specificity"]].tolist()
    ['', '1.00 [0.83, 1.00]']
    """
    shown = table.drop(columns=[name for name in table if name.endswith(("low", "high"))]).round(3)
    for name in ("value", *SHARES):
        start = [*table].index(name)
        rows = table.iloc[:, start : start + 3].map("{:.2f}".format).to_numpy()
        shown[name] = [
            f"{value} [{low}, {high}]".replace(" [nan, nan]", "").replace("nan", "")
            for value, low, high in rows
        ]
    return shown


def _values(values):
    """Turn a column into names of its values, numbers into bands if they are many: categorical Series."""
    is_number = values.dtype.kind in "if"
    if is_number and values.nunique() > 10:
        if np.isinf(values.astype(float)).any():
            raise ValueError(f"column {values.name!r} holds infinite values: make them missing")
        values = _bands(values)
    names = values.astype(object).map(as_label)
    if isinstance(values.dtype, pd.CategoricalDtype):
        order = [*filter(None, map(as_label, values.cat.categories))]
    else:
        order = sorted(names.dropna().unique(), key=float if is_number else str)
    return names.fillna("missing").astype(pd.CategoricalDtype([*dict.fromkeys([*order, "missing"])]))


def _bands(values):
    """Cut numbers into `BANDS` bands of about equally many, named by their ends."""
    edges, most = values.quantile(np.arange(1, BANDS) / BANDS).unique(), values.max()
    edges = edges[(edges > values.min()) & (edges < most)]
    if not len(edges):  # nearly all are the least value, or the greatest
        edges = [values.median() if values.median() < most else values[values < most].max()]
    short = [f"{edge:.6g}" for edge in edges]
    ends = short if len({*short}) == len(short) else [*map(as_label, edges)]
    between = [f"over {left} to {right}" for left, right in itertools.pairwise(ends)]
    names = [f"up to {ends[0]}", *between, f"over {ends[-1]}"]
    return pd.cut(values, [-np.inf, *edges, np.inf], labels=names)


def _by_value(evaluation, values, metric):
    """Return what `slices` says of each value of one column, without the p-values: DataFrame."""
    rows = {}
    for value, part in evaluation.table.groupby(values, observed=True):
        ours, theirs = (evaluation.where(each) for each in (values == value, values != value))
        lesions = (part["label"] == evaluation.positive).groupby(part["group"]).any()
        count, positive, reached = len(lesions), int(lesions.sum()), ours.metric(metric)
        low, high, difference = [np.nan] * 3
        if min(positive, count - positive) >= FEWEST and len(theirs.table):
            low, high = ours.interval(metric)
            difference = reached - theirs.metric(metric)
        shares = ours.metrics([*SHARES.values()]).to_numpy().ravel()
        rows[value] = (len(part), count, positive, reached, low, high, difference, *shares)
    names = ["images", "lesions", "positive", "value", "low", "high", "difference"]
    names += [f"{share}{end}" for share in SHARES for end in ("", "_low", "_high")]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=names)
    return table.rename_axis(index=values.name, columns=metric)


def _permuted(evaluation, members, metric):
    """Return how often chance makes as large a difference between `members` (bool, images) and the others: p-values.

    Lesions with the same label exchange their places; those with images of both labels do so among themselves. The
    observed order counts as one more permutation (Phipson and Smyth, Permutation p-values should never be zero, 2010).
    """
    rows, numbers = evaluation.rows_by_group
    count = np.bincount(numbers)
    positive = evaluation.arrays[0][:, evaluation.classes.index(evaluation.positive)]
    label = np.bincount(numbers, positive) / count
    label[(label > 0) & (label < 1)] = 2
    home = np.argsort(label, kind="stable")
    shares = [np.bincount(numbers, member.to_numpy()[rows]) / count for member in members]

    def difference(share, lesions):
        weights = share[lesions]
        return np.abs(evaluation.weighted(metric, weights) - evaluation.weighted(metric, 1 - weights))

    random, reached = np.random.default_rng(0), np.ones(len(shares))
    observed = [difference(share, numbers[None]) for share in shares]
    for start in range(0, PERMUTATIONS, BLOCK):
        order = np.empty((min(BLOCK, PERMUTATIONS - start), len(count)), int)
        order[:, home] = (label + random.random(order.shape)).argsort(axis=1)
        lesions = order[:, numbers]
        for number, share in enumerate(shares):
            # one that is not defined counts against the difference
            reached[number] += (~(difference(share, lesions) < observed[number] - 1e-12)).sum()
    return reached / (PERMUTATIONS + 1)


def _holm(p_values):
    """Adjust p-values, an array without NaN, for being several."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.maximum.accumulate(p_values[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return adjusted[np.argsort(order)]
