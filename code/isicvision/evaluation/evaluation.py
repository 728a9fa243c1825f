"""`evaluate` a model, or `Evaluation.from_scores` of any: metrics with intervals from one prediction table."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from .. import metrics, tables
from ..checks import check_threshold, is_share, require_dataset
from ..data.splitting import group_count, warn_of_seen
from ..metrics import METRICS
from ..tables import NAMELESS, restored, stored
from ..text import apart, as_label, counted
from . import intervals
from .intervals import interval

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset

PREFIX = "score_"
"""Of the columns that hold the scores in a prediction table."""
OTHERS = "(all others)"
RECORD = "isicvision"
"""The column of a saved prediction table that holds classes, positive label and threshold, as JSON."""
ROUNDING = 1e-6
"""How far a score may lie below 0 or above 1 and is taken for one rounded in 32 bits."""
SHARES = ("accuracy", "recall", "specificity", "precision", "npv")
AREAS = ("roc_auc", "partial_roc_auc", "average_precision")
PER_CLASS = ("recall", "specificity", "precision", "npv", "f1", "roc_auc", "average_precision")


class Model(Protocol):
    """What can be evaluated: an `ImageClassifier`, or anything else with labels that predicts their probabilities."""

    labels: list[str]

    def predict_proba(self, dataset: ImageDataset, /) -> np.ndarray:
        """Return an array of float, shape (images, labels)."""


def evaluate(model: Model, dataset: ImageDataset, positive: object = None) -> Evaluation:
    """Predict every image of `dataset` once and evaluate.

    Parameters
    ----------
    model
        Or anything with ``labels`` and ``predict_proba(dataset)``. Its decision (`ImageClassifier.decide_at`) is taken.
    dataset
        Images that the model was not trained on.
    positive
        The label to be found, for precision, recall and curves; a number means the label that is written so. Default:
        that of the model's decision, or the last of ``model.labels``.

    Raises
    ------
    ValueError
        If `dataset` is augmented, or has labels that the model does not know.

    Warns
    -----
    UserWarning
        If the model was trained on some of these images, or on images of their lesions.
    """
    require_dataset(dataset, "evaluate")
    if dataset.augmenters or "augmented_from" in dataset.table:
        raise ValueError("these images are augmented: evaluate on images as they were taken")
    warn_of_seen(dataset, getattr(model, "seen", None), "to evaluate on")
    about = getattr(model, "metadata", {})
    if about.get("training", ...) is None:
        warnings.warn("the model is not trained, so its figures mean nothing: call fit first", stacklevel=2)
    decision = about.get("decision") or {}
    if positive is not None and as_label(positive) is None:
        raise ValueError(f"positive is one of {', '.join(model.labels)}, not {positive!r}")
    positive = as_label(positive) or decision.get("positive")
    return Evaluation.from_scores(
        dataset.table["label"],
        model.predict_proba(dataset),
        classes=model.labels,
        positive=positive,
        metadata=dataset.table,
        threshold=decision.get("threshold") if positive == decision.get("positive") else None,
    )


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Predictions, and what follows from them.

    Attributes
    ----------
    table
        One row an image: ``path``, ``group``, ``label`` (the true one), ``prediction``, a column
        ``score_<label>`` for each label, then the metadata of the dataset. A column of the metadata that has one of
        these names is called ``metadata_<name>``.
    positive
        The label to be found. With more than two classes, precision, recall, F1 and the areas are means
        over the classes (`per_class` has each), and `roc` and `precision_recall` take `positive` against all others.
    threshold
        Of two classes the positive one is predicted from this score on; None: the class with the highest score;
        `CALL_NONE`: never.
    """

    table: pd.DataFrame
    classes: list
    positive: str
    threshold: float | None = None

    def __repr__(self) -> str:
        """Say what is evaluated, and the first figures, without intervals."""
        shown = ("accuracy", "balanced_accuracy", "recall", "specificity", "roc_auc")
        counts = self.table["label"].value_counts()
        labels = [f"{name} ({counts.get(name, 0)})" for name in self.classes]
        more = f", … {len(labels)} classes" if len(labels) > 10 else ""
        rule = "" if self.threshold is None else f", predicted from a score of {self.threshold:.3f} on"
        groups = group_count(self.table)["groups"]
        lesions = "an unknown number of lesions" if groups is None else counted(groups, "lesion")
        return (
            f"Evaluation of {counted(len(self.table), 'image')} of {lesions}\n"
            f"  true labels: {', '.join(labels[:10])}{more}; positive: {self.positive}{rule}\n"
            f"  {', '.join(f'{name} {self.metric(name):.3f}' for name in shown)}\n"
            "  metrics() adds 95 % intervals; table has a row for each image"
        )

    @classmethod
    def from_scores(
        cls,
        labels: ArrayLike,
        scores: ArrayLike,
        groups: Iterable | None = None,
        classes: Sequence = ("benign", "malignant"),
        positive: object = None,
        metadata: pd.DataFrame | None = None,
        threshold: float | None = None,
    ) -> Evaluation:
        """Evaluate scores that may come from anywhere.

        Parameters
        ----------
        labels : sequence, shape (images,)
            The true labels: text, or numbers and truth values, which `project.as_label` writes as text.
        scores : array of float, shape (images, classes) or (images,)
            Probabilities, 0 to 1 (what lies outside by rounding is clipped), that sum to 1; with two classes the
            positive one's alone will do. The columns of a DataFrame are the classes, in any order.
        groups
            Which images belong together (one lesion): intervals resample groups. Default, and where a group is
            missing (NaN or None): each alone.
        classes
            In the order of the columns of `scores`.
        positive
            Default: the last class.
        metadata
            More columns for `table`, a row an image: ``path``, ``group`` (unless `groups` is given), any others.
        threshold
            0 to 1, see the attribute; two classes only.

        Raises
        ------
        ValueError
            If shapes do not fit, a label is not in `classes`, or a score is NaN or outside 0 to 1.
        """
        names, true = _as_labels(classes, "class"), _as_labels(labels, "label")
        if len(set(names)) < len(names):
            raise ValueError(f"each class needs a name of its own: {', '.join(names)}")
        sought = names[-1] if positive is None else as_label(positive)
        if sought is None or sought not in names:
            raise ValueError(f"positive label {sought!r} is not one of {', '.join(names)}")
        try:
            scores = _in_order(scores, names)
            if np.iscomplexobj(scores) or np.ma.isMaskedArray(scores):
                raise TypeError("complex numbers or masked ones")
            scores = np.asarray(scores, dtype=float)
        except (TypeError, ValueError) as error:
            raise ValueError(f"scores must be numbers, as many in each row: {error}") from None
        if scores.ndim == 1 and len(names) == 2:
            scores = np.column_stack([1 - scores, scores] if sought == names[1] else [scores, 1 - scores])
        if not len(true) or scores.shape != (len(true), len(names)):
            raise ValueError(
                f"{len(true)} labels of {len(names)} classes do not fit scores of shape {scores.shape}"
            )
        unknown = sorted(set(true) - set(names))
        if unknown:
            raise ValueError(
                f"labels {', '.join(map(repr, unknown))} are not among the classes {', '.join(names)}"
            )
        fit = ((scores >= -ROUNDING) & (scores <= 1 + ROUNDING)).all(axis=1)
        if not fit.all():
            row = int(np.argmin(fit))
            raise ValueError(f"scores must lie from 0 to 1; row {row} has {scores[row]}")
        rounded = 0.005 * (len(names) + 1)  # each to two digits
        if (off := np.abs(scores.sum(axis=1) - 1) > rounded).any():
            row = int(np.argmax(off))
            raise ValueError(f"the scores of an image must sum to 1; row {row} has {scores[row]}")
        scores = np.clip(scores, 0, 1)
        more = pd.DataFrame(index=range(len(true))) if metadata is None else metadata.reset_index(drop=True)
        row = pd.Series(np.arange(len(true)).astype(str))
        alone = more.get("path", NAMELESS + row + ")")
        together = more.get("group", alone) if groups is None else pd.Series([*groups])
        for what, given in (("groups", together), ("rows of metadata", more)):
            if len(given) != len(true):
                raise ValueError(f"{len(given)} {what} do not fit {len(true)} labels")
        table = pd.DataFrame(
            {
                "path": more.get("path", row),
                "group": together.where(together.notna() & (together.astype(str).str.strip() != ""), alone),
                "label": true,
                "prediction": _decide(scores, names, sought, threshold),
            }
        )
        for number, name in enumerate(names):
            table[PREFIX + name] = scores[:, number]
        more = more.drop(columns=["path", "group", "label"], errors="ignore")
        return cls(table.join(_renamed(more, {*table, RECORD})), names, sought, threshold)

    def at(self, threshold: float | None) -> Evaluation:
        """Return the evaluation of the same scores with the decisions at another threshold, 0 to 1; or None."""
        prediction = _decide(self.scores, self.classes, self.positive, threshold)
        other = replace(self, table=self.table.assign(prediction=prediction), threshold=threshold)
        if len(self.classes) == 2:  # what the scores alone decide need not be drawn anew
            kept = {key: drawn for key, drawn in self._drawn.items() if key[1] is not metrics.counts}
            other.__dict__["_drawn"] = kept
            if "_bands" in self.__dict__:
                other.__dict__["_bands"] = self._bands
        return other

    def where(self, rows: ArrayLike) -> Evaluation:
        """Evaluate the images for which `rows`, a bool for each row of the table, is true."""
        return replace(self, table=self.table[tables.mask(rows, self.table)].reset_index(drop=True))

    @property
    def scores(self) -> np.ndarray:
        """The scores: array of float, shape (images, classes)."""
        return self.table[[PREFIX + name for name in self.classes]].to_numpy()

    @cached_property
    def rows_by_group(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `table` ordered by their group's name, and the number of each one's group, from 0.

        Images are drawn in this order, so that it does not matter to an interval in which order they came. Those of
        which nobody gave a name are ordered by label and scores.
        """
        columns = ["label", *(PREFIX + name for name in self.classes)]
        names = self.table.reset_index(drop=True).sort_values(columns)["group"].astype(str)
        nameless = names.str.startswith(NAMELESS)
        names[nameless] = [f"{NAMELESS}{number:09d}" for number in range(nameless.sum())]
        numbers = pd.factorize(names, sort=True)[0]
        order = np.argsort(numbers, kind="stable")
        return names.index.to_numpy()[order], numbers[order]

    @cached_property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Truth and prediction (of 0 and 1) and scores, as `metrics` takes them, in the order of `rows_by_group`."""
        codes = {name: number for number, name in enumerate(self.classes)}
        rows = self.rows_by_group[0]
        true, predicted = (
            np.eye(len(codes))[self.table[name].map(codes)][rows] for name in ("label", "prediction")
        )
        return true, predicted, self.scores[rows]

    def metric(self, name: str) -> float:
        """Return one metric as a float, NaN where it is not defined (one class only, say).

        Parameters
        ----------
        name
            One of `METRICS`; all but ``brier``, ``log_loss`` and ``ece`` are better when larger. ``recall`` is the
            sensitivity, ``precision`` and ``npv`` are the positive and negative predictive value at this set's share of
            positives. Definitions: `metrics`.
        """
        return float(self.weighted(name, np.ones((1, len(self.table))))[0])

    def weighted(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return one metric for each row of weights: how much each image counts, in the order of `rows_by_group`."""
        return self._mean(name, self._compute(_family(name), weights)[name])

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Return (low, high), the interval of one metric over groups, or NaN twice if undefined.

        Lesions, not images, are drawn with replacement, `metrics.RESAMPLES` times with a fixed seed, because images
        of one lesion resemble each other; for the method see `intervals.interval`. Where every draw agrees (all lesions
        are right, say) it is `intervals.of_agreement`, and of shares with few lesions on one side `intervals.of_share`.
        Fewer than `metrics.FEWEST` positive lesions are too few for one of ``partial_roc_auc``. ValueError if `level`
        is not above 0 and below 1.
        """
        if not is_share(level):
            raise ValueError(f"level is a share above 0 and below 1, such as 0.95, not {level!r}")
        value = self.metric(name)
        if np.isnan(value) or (name == "partial_roc_auc" and self.lesions("recall") < metrics.FEWEST):
            return float("nan"), float("nan")
        drawn, lesions = self.draws(name), self.lesions(name)
        if intervals.same(drawn):
            if (
                name in AREAS and (self.scores == self.scores[0]).all()
            ):  # then it says so, whatever the lesions
                return value, value
            worst = -np.log(np.finfo(float).eps) if name == "log_loss" else 1.0
            return intervals.of_agreement(value, lesions, level, worst)
        without = self.jackknife(name)
        if name in SHARES and (len(self.classes) == 2 or name == "accuracy"):
            return intervals.of_share(value, drawn, lesions, level, without)
        if (
            name == "f1" and len(self.classes) == 2
        ):  # of those that are positive or called so, the share that is both
            shares = drawn / (2 - drawn), lesions, level, without / (2 - without)
            low, high = intervals.of_share(value / (2 - value), *shares)
            return 2 * low / (1 + low), 2 * high / (1 + high)
        low, high = interval(value, drawn, level, without, name == "ece")
        if name == "balanced_accuracy" and len(self.classes) == 2:  # at least as wide as either half makes it
            for half in ("recall", "specificity"):
                ends = np.subtract(self.interval(half, level), self.metric(half)) / 2
                low, high = np.fmin(low, value + ends[0]), np.fmax(high, value + ends[1])
        return float(np.maximum(low, 0)), float(np.maximum(high, 0))  # no metric is negative

    def text(self, name: str) -> str:
        """Return one metric with its 95 % interval in words.

        Such as ``0.871 [0.840, 0.902]``, ``1.000 [≥ 0.692]`` of an area that is 1, or why there is none.
        """
        value, (low, high) = self.metric(name), self.interval(name)
        if np.isnan(value):
            return "undefined"
        if np.isnan(low):
            few = (
                f"too few lesions for an interval: {self.lesions('recall')} positive, {metrics.FEWEST} needed"
            )
            return f"{value:.3f} ({few})"
        if name in AREAS and value == 1:
            return f"{value:.3f} [≥ {low:.3f}]"
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    def lesions(self, name: str) -> int:
        """Count the lesions that a metric rests on, of several kinds (labels, say) those of the rarest."""
        true, predicted, _ = self.arrays
        column = slice(None) if len(self.classes) > 2 else [self.classes.index(self.positive)]
        actual, called = true[:, column] > 0, predicted[:, column] > 0
        both_labels = [actual, ~actual]
        kinds = dict.fromkeys(("balanced_accuracy", *AREAS), both_labels) | {
            "recall": [actual],
            "specificity": [~actual],
            "precision": [called],
            "npv": [~called],
            "f1": [actual | called],
        }
        chosen = np.concatenate(kinds.get(name, [np.ones_like(actual)]), axis=1)
        return min(len(np.unique(self.rows_by_group[1][rows])) for rows in chosen.T)

    def draws(self, name: str) -> np.ndarray:
        """Return one metric of each bootstrap draw: array of float, shape (`metrics.RESAMPLES`,), NaN where undefined.

        Evaluations of the same images share their draws, if the images have groups or paths: the difference of two
        such arrays is that of pairs.
        """
        return self._weighted(name, metrics.draws)

    def jackknife(self, name: str) -> np.ndarray:
        """Return one metric without each lesion, or part of the lesions, in turn: array of float, NaN where undefined.

        See `metrics.left_out`. Evaluations of the same images share the parts.
        """
        return self._weighted(name, metrics.left_out)

    def _weighted(self, name, way):
        family = _family(name)
        if (way, family) not in self._drawn:
            parts = [self._compute(family, weights) for weights in way(self.rows_by_group[1])]
            self._drawn[way, family] = {
                each: np.concatenate([part[each] for part in parts]) for each in metrics.FAMILIES[family]
            }
        return self._mean(name, self._drawn[way, family][name])

    @cached_property
    def _drawn(self):
        return {}

    def _compute(self, family, weights):
        true, predicted, scores = self.arrays
        if len(self.classes) == 2 and family in (
            metrics.roc_auc,
            metrics.partial_roc_auc,
            metrics.average_precision,
        ):  # the other side is not asked for
            column = [self.classes.index(self.positive)]
            true, predicted, scores = true[:, column], predicted[:, column], scores[:, column]
        return family(true, predicted, scores, weights)

    def _mean(self, name, values):
        """Return the positive one of two classes, the mean of more."""
        if values.shape[1] == 2 and len(self.classes) == 2:
            return values[:, self.classes.index(self.positive)]
        return values.mean(axis=1)

    def metrics(self, names: Sequence[str] = METRICS) -> pd.DataFrame:
        """Return metrics, by default all, with their 95 % intervals: pandas.DataFrame with value, low and high."""
        rows = {name: (self.metric(name), *self.interval(name)) for name in names}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])

    def per_class(self) -> pd.DataFrame:
        """Return what each class reaches against the others.

        Returns
        -------
        pandas.DataFrame
            Rows by label and metric; value, low and high (95 %), and the number of images with that label.
        """
        each = {label: self.against(label).metrics(PER_CLASS) for label in self.classes}
        counts = {label: int((self.table["label"] == label).sum()) for label in self.classes}
        table = pd.concat(each, names=["label", "metric"])
        return table.assign(images=table.index.get_level_values("label").map(counts))

    def against(self, label: object) -> Evaluation:
        """Return the evaluation of one label against all others, as two classes; the decisions stay as they are."""
        name = as_label(label)
        if name is None or name not in self.classes:
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self.classes)}")
        others = apart(OTHERS, [name])
        one = {
            column: self.table[column].where(self.table[column] == name, others)
            for column in ("label", "prediction")
        }
        score = self.table[PREFIX + name]
        table = self.table.assign(**one, **{PREFIX + others: 1 - score, PREFIX + name: score})
        return replace(self, table=table, classes=[others, name], positive=name)

    def confusion_matrix(self) -> pd.DataFrame:
        """Count images by true label (rows) and predicted label (columns): pandas.DataFrame."""
        counts = confusion_matrix(self.table["label"], self.table["prediction"], labels=self.classes)
        return pd.DataFrame(
            counts, pd.Index(self.classes, name="label"), pd.Index(self.classes, name="prediction")
        )

    def roc(self) -> pd.DataFrame:
        """Return the ROC curve of the positive label: DataFrame with false_positive_rate, recall, threshold."""
        rate, recall, threshold = roc_curve(
            self._is_positive(), self.table[PREFIX + self.positive], drop_intermediate=False
        )
        return pd.DataFrame({"false_positive_rate": rate, "recall": recall, "threshold": threshold})

    def precision_recall(self) -> pd.DataFrame:
        """Return the precision-recall curve of the positive label: DataFrame with recall, precision, threshold."""
        precision, recall, threshold = precision_recall_curve(
            self._is_positive(), self.table[PREFIX + self.positive]
        )
        return pd.DataFrame(
            {"recall": recall, "precision": precision, "threshold": np.append(threshold, np.inf)}
        )

    @cached_property
    def _bands(self):
        rows, numbers = self.rows_by_group
        positive = self._is_positive().to_numpy()[rows]
        scores = self.table[PREFIX + self.positive].to_numpy()[rows]
        grid, weights = np.linspace(0, 1, 101), metrics.draws(numbers, metrics.BAND_RESAMPLES)
        drawn = [metrics.on_grid(positive, scores, each, grid) for each in weights]
        table = {"place": grid}
        for name, parts in zip(("recall", "precision"), zip(*drawn, strict=True), strict=True):
            values = np.nanquantile(np.concatenate(parts), [0.025, 0.975], axis=0)
            table |= {f"{name}_low": values[0], f"{name}_high": values[1]}
        return pd.DataFrame(table)

    def bands(self) -> pd.DataFrame:
        """Return the 95 % bands of both curves of the positive label, point by point over the bootstrap draws.

        Returns
        -------
        pandas.DataFrame
            ``place``, from 0 to 1; ``recall_low`` and ``recall_high`` at this false positive rate, ``precision_low``
            and ``precision_high`` at this recall.
        """
        return self._bands.copy()

    def choose_threshold(self, sensitivity: float | None = None, cost: float | None = None) -> float:
        """Choose the score from which on an image counts as positive. Do so on validation, never on test images.

        Parameters
        ----------
        sensitivity
            0 to 1: the highest threshold at which at least this share of the positive images is found.
        cost
            Of a missed positive image, where a false alarm costs 1: the threshold at which these images cost
            least. Without either: the largest sum of sensitivity and specificity (Youden, Index for rating diagnostic
            tests, 1950).

        Returns
        -------
        float
            Midway between two scores, so that rounding moves no image to the other side; `CALL_NONE` where it is
            best to call nothing positive and a score is 1. For `at`, and for `ImageClassifier.decide_at`.

        Raises
        ------
        ValueError
            If both are given, one is out of range, there are more than two classes, or one class only.
        """
        if len(self.classes) != 2:
            raise ValueError(f"a threshold decides between two classes, not {len(self.classes)}")
        positive, scores = self._is_positive().to_numpy(), self.table[PREFIX + self.positive].to_numpy()
        return metrics.choose_threshold(positive, scores, sensitivity, cost)

    def _is_positive(self):
        positive = self.table["label"] == self.positive
        if positive.all() or not positive.any():
            raise ValueError(f"a curve needs images with and without the label {self.positive!r}")
        return positive

    def errors(self) -> pd.DataFrame:
        """Return the wrongly predicted rows of the table, the most confident mistake first."""
        wrong = self.table[self.table["label"] != self.table["prediction"]]
        columns = [self.classes.index(label) for label in wrong["prediction"]]
        return wrong.assign(confidence=self.scores[wrong.index, columns]).sort_values(
            "confidence", ascending=False, kind="stable"
        )

    def save(self, csv: str | Path) -> Path:
        """Write the prediction table as CSV and return its path.

        A column of its own, `RECORD`, says in each row which classes there are and how the predictions came about.
        """
        own = {"classes": self.classes, "positive": self.positive, "threshold": self.threshold}
        return tables.save(stored(self.table).assign(**{RECORD: json.dumps(own)}), csv)

    @classmethod
    def load(cls, csv: str | Path, positive: object = None) -> Evaluation:
        """Read a prediction table that `save` wrote.

        Parameters
        ----------
        positive
            Another label to be found than when it was saved; a threshold is then left out.

        Raises
        ------
        ValueError
            If it lacks the columns of one.
        """
        text = ("path", "group", "label", "prediction", RECORD)
        table = tables.load(csv, verbatim=text)
        if RECORD in table and len(table):
            own = _own(table[RECORD].iloc[0], csv)
        else:
            table = tables.load(csv, verbatim=(*text, "positive"))
            own = _unrecorded(table)
        columns = [PREFIX + name for name in own["classes"]]
        if len(columns) < 2 or not {"path", "group", "label", *columns} <= set(table):
            raise ValueError(f"{csv} is no prediction table: it has the columns {', '.join(table.columns)}")
        table = restored(table)
        chosen = own["positive"] if positive is None else as_label(positive)
        ours = [*columns, "prediction", RECORD] + ([] if RECORD in table else ["positive", "threshold"])
        return cls.from_scores(
            table["label"],
            table[columns].to_numpy(),
            classes=own["classes"],
            positive=chosen,
            metadata=table.drop(columns=ours, errors="ignore"),
            threshold=own["threshold"] if chosen == own["positive"] else None,
        )


def _as_labels(values, what):
    """Return labels or classes as text, see `project.as_label`: list."""
    if np.ndim(values) != 1:
        raise ValueError(f"there must be one {what} for each place, not an array of shape {np.shape(values)}")
    names = [as_label(value) for value in values]
    if None in names:
        raise ValueError(f"{what} {names.index(None)} is missing or empty")
    return names


def _in_order(scores, names):
    """Put the columns of a DataFrame into the order of the classes; unnamed ones, 0 to n - 1, stay as they are."""
    if (
        not isinstance(scores, pd.DataFrame)
        or [*scores.columns] == [*range(len(names))]
        or scores.shape[1] == 1
    ):
        return scores
    columns = [as_label(name) for name in scores.columns]
    if sorted(columns, key=str) != sorted(names):
        raise ValueError(
            f"its columns are {', '.join(map(str, scores.columns))}; the classes {', '.join(names)}"
        )
    return scores.iloc[:, [columns.index(name) for name in names]]


def _renamed(more, taken):
    """Rename columns of metadata whose names are taken: DataFrame."""
    names = {}
    for name in more:
        new = str(name)
        while new in taken or (new != name and new in more):
            new = f"metadata_{new}"
        names[name] = new
    return more.rename(columns=names)


def _own(text, csv):
    """Read what `save` wrote into the column `RECORD`: dict."""
    try:
        own = json.loads(text)
        return {name: own[name] for name in ("classes", "positive", "threshold")}
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"{csv} is damaged: its column {RECORD} holds {text!r}, not what `save` writes"
        ) from None


def _unrecorded(table):
    """Tell what `save` once wrote into two columns; the classes are the first score columns that sum to 1: dict."""
    scores = table[[name for name in table if str(name).startswith(PREFIX)]]
    sums = scores.apply(pd.to_numeric, errors="coerce").cumsum(axis=1)
    whole = [
        count for count in range(2, scores.shape[1]) if np.allclose(sums.iloc[:, count - 1], 1, atol=1e-3)
    ]
    classes = [name.removeprefix(PREFIX) for name in scores.columns[: whole[0] if whole else None]]
    first = table.reindex(index=[0], columns=["positive", "threshold"]).iloc[0]
    positive, threshold = as_label(first["positive"]), first["threshold"]
    threshold = None if positive is None or pd.isna(threshold) else float(threshold)
    return {"classes": classes, "positive": positive, "threshold": threshold}


def _decide(scores, classes, positive, threshold):
    """Return the predicted label of each row of scores: array of object."""
    names = np.asarray(classes, dtype=object)
    if threshold is None:
        return names[scores.argmax(axis=1)]
    if len(classes) != 2:
        raise ValueError(f"a threshold decides between two classes, not {len(classes)}")
    check_threshold(threshold)
    column = classes.index(positive)
    return np.where(scores[:, column] >= threshold, positive, names[1 - column])


def _family(name):
    for family, names in metrics.FAMILIES.items():
        if name in names:
            return family
    raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")
