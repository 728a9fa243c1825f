"""`evaluate` a model, or `Evaluation.from_scores` of any: metrics with intervals from one prediction table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from . import metrics
from .metrics import METRICS
from .project import read_csv, replacing

if TYPE_CHECKING:
    from .dataset import ImageDataset

PREFIX = "score_"
"""Of the columns that hold the scores in a prediction table."""
OTHERS = "(all others)"
PER_CLASS = ("recall", "specificity", "precision", "npv", "f1", "roc_auc", "average_precision")


class Model(Protocol):
    """What can be evaluated: an `ImageClassifier`, or anything else with labels that predicts their probabilities."""

    labels: list[str]

    def predict_proba(self, dataset: ImageDataset, /) -> np.ndarray:
        """Return an array of float, shape (pictures, labels)."""


def evaluate(model: Model, dataset: ImageDataset, positive: str | None = None) -> Evaluation:
    """Predict every picture of `dataset` once and evaluate.

    Parameters
    ----------
    model
        Or anything with ``labels`` and ``predict_proba(dataset)``. Its decision (`ImageClassifier.decide_at`) is taken.
    dataset
        Pictures that the model was not trained on.
    positive
        The label to be found, for precision, recall and curves. Default: that of the model's decision, or the last of
        ``model.labels``.

    Raises
    ------
    ValueError
        If `dataset` is augmented, or has labels that the model does not know.
    """
    if dataset.augmenters or "augmented_from" in dataset.table:
        raise ValueError("these pictures are augmented: evaluate on pictures as they were taken")
    decision = getattr(model, "card", {}).get("decision") or {}
    positive = positive or decision.get("positive")
    return Evaluation.from_scores(
        dataset.table["label"],
        model.predict_proba(dataset),
        classes=model.labels,
        positive=positive,
        metadata=dataset.table,
        threshold=decision.get("threshold") if positive == decision.get("positive") else None,
    )


@dataclass(frozen=True)
class Evaluation:
    """Predictions, and what follows from them.

    Attributes
    ----------
    table
        One row a picture: ``path``, ``group``, ``label`` (the true one), ``prediction``, a column
        ``score_<label>`` for each label, then the metadata of the dataset.
    positive
        The label to be found. With more than two classes, precision, recall, F1 and the areas are means
        over the classes (`per_class` has each), and `roc` and `precision_recall` take `positive` against all others.
    threshold
        Of two classes the positive one is predicted from this score on; None: the class with the highest score.
    """

    table: pd.DataFrame
    classes: list
    positive: str
    threshold: float | None = None

    @classmethod
    def from_scores(
        cls,
        labels: ArrayLike,
        scores: ArrayLike,
        groups: Iterable | None = None,
        classes: Sequence[str] = ("benign", "malignant"),
        positive: str | None = None,
        metadata: pd.DataFrame | None = None,
        threshold: float | None = None,
    ) -> Evaluation:
        """Evaluate scores that may come from anywhere.

        Parameters
        ----------
        labels : sequence of str, shape (pictures,)
            The true labels.
        scores : array of float, shape (pictures, classes) or (pictures,)
            Probabilities, 0 to 1; with two classes the positive one's alone will do.
        groups
            Which pictures belong together (one lesion): intervals resample groups. Default, and where a group is
            missing (NaN or None): each alone.
        classes
            In the order of the columns of `scores`.
        positive
            Default: the last class.
        metadata
            More columns for `table`, a row a picture: ``path``, ``group`` (unless `groups` is given), any others.
        threshold
            0 to 1, see the attribute; two classes only.

        Raises
        ------
        ValueError
            If shapes do not fit, a label is not in `classes`, or a score is NaN or outside 0 to 1.
        """
        classes = [str(name) for name in classes]
        true, scores = np.asarray(labels, dtype=object), np.asarray(scores, dtype=float)
        positive = classes[-1] if positive is None else positive
        if positive not in classes:
            raise ValueError(f"positive label {positive!r} is not one of {', '.join(classes)}")
        if scores.ndim == 1 and len(classes) == 2:
            scores = np.column_stack([1 - scores, scores] if positive == classes[1] else [scores, 1 - scores])
        if not len(true) or scores.shape != (len(true), len(classes)):
            raise ValueError(
                f"{len(true)} labels of {len(classes)} classes do not fit scores of shape {scores.shape}"
            )
        unknown = sorted(set(true) - set(classes))
        if unknown:
            raise ValueError(
                f"labels {', '.join(map(repr, unknown))} are not among the classes {', '.join(classes)}"
            )
        if not ((scores >= 0) & (scores <= 1)).all():
            row = int(np.argmin(((scores >= 0) & (scores <= 1)).all(axis=1)))
            raise ValueError(f"scores must lie from 0 to 1; row {row} has {scores[row]}")
        more = pd.DataFrame(index=range(len(true))) if metadata is None else metadata.reset_index(drop=True)
        alone = pd.Series(np.arange(len(true)).astype(str))
        together = more.get("group", alone) if groups is None else pd.Series([*groups])
        if len(together) != len(true):
            raise ValueError(f"{len(together)} groups do not fit {len(true)} labels")
        table = pd.DataFrame(
            {
                "path": more.get("path", alone),
                "group": together.where(together.notna(), "picture " + alone),
                "label": true,
                "prediction": _decide(scores, classes, positive, threshold),
            }
        )
        for number, name in enumerate(classes):
            table[PREFIX + name] = scores[:, number]
        more = more[more.columns.difference(table.columns, sort=False)]
        return cls(table.join(more), classes, positive, threshold)

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
        """Evaluate the pictures for which `rows`, a bool for each row of the table, is true."""
        return replace(self, table=self.table[np.asarray(rows, bool)].reset_index(drop=True))

    @property
    def scores(self) -> np.ndarray:
        """The scores: array of float, shape (pictures, classes)."""
        return self.table[[PREFIX + name for name in self.classes]].to_numpy()

    @cached_property
    def _arrays(self):
        codes = {name: number for number, name in enumerate(self.classes)}
        true, predicted = (
            np.eye(len(codes))[self.table[name].map(codes)] for name in ("label", "prediction")
        )
        return true, predicted, self.scores

    def metric(self, name: str) -> float:
        """Return one metric as a float, NaN where it is not defined (one class only, say).

        Parameters
        ----------
        name
            One of `METRICS`; all but ``brier``, ``log_loss`` and ``ece`` are better when larger. ``recall`` is the
            sensitivity, ``precision`` and ``npv`` are the positive and negative predictive value at this set's share of
            positives. Definitions: `metrics`.
        """
        once = np.ones((1, len(self.table)))
        return float(self._mean(name, self._compute(_family(name), once)[name])[0])

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Return (low, high), the bootstrap interval of one metric over groups, or NaN twice if undefined.

        Lesions, not pictures, are drawn with replacement, `metrics.RESAMPLES` times with a fixed seed, because pictures
        of one lesion resemble each other; for the method see `interval`. Where no draw differs (every lesion is right,
        say) the interval has no width, which is no sign of certainty.
        """
        of_draws, without, folded = self.draws(name), self.jackknife(name), name == "ece"
        low, high = interval(self.metric(name), of_draws, level, without, folded)
        return float(np.maximum(low, 0)), float(np.maximum(high, 0))  # no metric is negative

    def text(self, name: str) -> str:
        """Return one metric with its 95 % interval in words, such as ``0.871 [0.840, 0.902]`` or ``undefined``."""
        value, (low, high) = self.metric(name), self.interval(name)
        return "undefined" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"

    def draws(self, name: str) -> np.ndarray:
        """Return one metric of each bootstrap draw: array of float, shape (`metrics.RESAMPLES`,), NaN where undefined.

        Evaluations of the same pictures share their draws: the difference of two such arrays is that of pairs.
        """
        return self._weighted(name, metrics.draws)

    def jackknife(self, name: str) -> np.ndarray:
        """Return one metric without each lesion, or part of the lesions, in turn: array of float, NaN where undefined.

        See `metrics.left_out`. Evaluations of the same pictures share the parts.
        """
        return self._weighted(name, metrics.left_out)

    def _weighted(self, name, way):
        family = _family(name)
        if (way, family) not in self._drawn:
            codes = pd.factorize(self.table["group"])[0]
            parts = [self._compute(family, weights) for weights in way(codes)]
            self._drawn[way, family] = {
                each: np.concatenate([part[each] for part in parts]) for each in metrics.FAMILIES[family]
            }
        return self._mean(name, self._drawn[way, family][name])

    @cached_property
    def _drawn(self):
        return {}

    def _compute(self, family, weights):
        true, predicted, scores = self._arrays
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
            Rows by label and metric; value, low and high (95 %), and the number of pictures with that label.
        """
        each = {label: self.against(label).metrics(PER_CLASS) for label in self.classes}
        counts = {label: int((self.table["label"] == label).sum()) for label in self.classes}
        table = pd.concat(each, names=["label", "metric"])
        return table.assign(pictures=table.index.get_level_values("label").map(counts))

    def against(self, label: str) -> Evaluation:
        """Return the evaluation of one label against all others, as two classes; the decisions stay as they are."""
        if label not in self.classes:
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self.classes)}")
        one = {
            name: self.table[name].where(self.table[name] == label, OTHERS)
            for name in ("label", "prediction")
        }
        score = self.table[PREFIX + label]
        table = self.table.assign(**one, **{PREFIX + OTHERS: 1 - score, PREFIX + label: score})
        return replace(self, table=table, classes=[OTHERS, label], positive=label)

    def confusion_matrix(self) -> pd.DataFrame:
        """Count pictures by true label (rows) and predicted label (columns): pandas.DataFrame."""
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
        positive, scores = self._is_positive().to_numpy(), self.table[PREFIX + self.positive].to_numpy()
        grid, codes = np.linspace(0, 1, 101), pd.factorize(self.table["group"])[0]
        weights = metrics.draws(codes, metrics.BAND_RESAMPLES)
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
        """Choose the score from which on a picture counts as positive. Do so on validation, never on test pictures.

        Parameters
        ----------
        sensitivity
            0 to 1: the highest threshold at which at least this share of the positive pictures is found.
        cost
            Of a missed positive picture, where a false alarm costs 1: the threshold at which these pictures cost
            least. Without either: the largest sum of sensitivity and specificity (Youden, Index for rating diagnostic
            tests, 1950).

        Returns
        -------
        float
            Midway between two scores, so that rounding moves no picture to the other side. For `at`, and for
            `ImageClassifier.decide_at`.

        Raises
        ------
        ValueError
            If both are given, one is out of range, there are more than two classes, or one class only.
        """
        if len(self.classes) != 2:
            raise ValueError(f"a threshold decides between two classes, not {len(self.classes)}")
        if sensitivity is not None and cost is not None:
            raise ValueError("give sensitivity or cost, not both")
        if sensitivity is not None and not 0 < sensitivity <= 1:
            raise ValueError(f"sensitivity is a share above 0, at most 1, not {sensitivity}")
        if cost is not None and not 0 < cost < float("inf"):
            raise ValueError(f"cost is a positive number, not {cost}")
        curve = self.roc()
        recall, alarms = curve["recall"].to_numpy(), curve["false_positive_rate"].to_numpy()
        if sensitivity is not None:
            best = int(np.argmax(recall >= sensitivity - 1e-12))
        else:
            share = self._is_positive().mean()
            of_miss, of_alarm = (1, 1) if cost is None else (cost * share, 1 - share)
            best = int(np.argmin(of_miss * (1 - recall) + of_alarm * alarms))
        scores = np.unique(np.append(self.table[PREFIX + self.positive], [0.0, 1.0]))
        at = min(curve["threshold"][best], 1.0)  # scikit-learn begins with infinity: nothing is positive
        lower = scores[scores < at]
        return float((at + lower[-1]) / 2) if len(lower) else float(at)

    def _is_positive(self):
        positive = self.table["label"] == self.positive
        if positive.all() or not positive.any():
            raise ValueError(f"a curve needs pictures with and without the label {self.positive!r}")
        return positive

    def errors(self) -> pd.DataFrame:
        """Return the wrongly predicted rows of the table, the most confident mistake first."""
        wrong = self.table[self.table["label"] != self.table["prediction"]]
        columns = [self.classes.index(label) for label in wrong["prediction"]]
        return wrong.assign(confidence=self.scores[wrong.index, columns]).sort_values(
            "confidence", ascending=False, kind="stable"
        )

    def save(self, csv: str | Path) -> Path:
        """Write the prediction table as CSV, with the decision in two columns of its own, and return its path."""
        csv = Path(csv)
        with replacing(csv) as part:
            self.table.assign(positive=self.positive, threshold=self.threshold).to_csv(part, index=False)
        return csv

    @classmethod
    def load(cls, csv: str | Path, positive: str | None = None) -> Evaluation:
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
        table = read_csv(csv, verbatim=("path", "group", "label", "prediction", "positive"))
        classes = [name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)]
        if len(classes) < 2 or not {"path", "group", "label"} <= set(table):
            raise ValueError(f"{csv} is no prediction table: it has the columns {', '.join(table.columns)}")
        scores = table[[PREFIX + name for name in classes]].to_numpy()
        decision = table.reindex(columns=["positive", "threshold"]).iloc[0]
        if positive is None and pd.notna(decision["positive"]):
            positive = str(decision["positive"])
        known = pd.notna(decision["threshold"]) and positive == decision["positive"]
        return cls.from_scores(
            table["label"],
            scores,
            classes=classes,
            positive=positive,
            metadata=table.drop(columns=["positive", "threshold"], errors="ignore"),
            threshold=float(decision["threshold"]) if known else None,
        )


def _decide(scores, classes, positive, threshold):
    """Return the predicted label of each row of scores: array of object."""
    names = np.asarray(classes, dtype=object)
    if threshold is None:
        return names[scores.argmax(axis=1)]
    if len(classes) != 2:
        raise ValueError(f"a threshold decides between two classes, not {len(classes)}")
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a score from 0 to 1, not {threshold}")
    column = classes.index(positive)
    return np.where(scores[:, column] >= threshold, positive, names[1 - column])


def _family(name):
    for family, names in metrics.FAMILIES.items():
        if name in names:
            return family
    raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")


def interval(
    value: float,
    draws: np.ndarray,
    level: float = 0.95,
    jackknife: np.ndarray | None = None,
    folded: bool = False,
) -> tuple[float, float]:
    """Return the bootstrap interval of a value: (low, high), NaN twice where undefined.

    The BCa interval (Efron, Better bootstrap confidence intervals, 1987), its acceleration from the jackknife. Few
    lesions vary less in their draws than they would if collected anew; so it reaches as far as Student's t does,
    expanded as in Hesterberg (What teachers should know about the bootstrap, 2015), with Satterthwaite's degrees of
    freedom (An approximate distribution of estimates of variance components, 1946) by the jackknife's kurtosis: of a
    recall among a few malignant lesions they are as few. Coverage: tests/bench/bench_intervals.py.

    Parameters
    ----------
    draws : array of float, shape (draws,)
        The value of each bootstrap draw; those that are NaN are left out.
    level
        Above 0 and below 1.
    jackknife : array of float, optional
        The value without each part of the data. Without it the plain percentile interval, for what jumps too much to
        have a jackknife (a chosen threshold).
    folded
        The value is a sum of distances, which chance can only enlarge, and in each draw once more (the expected
        calibration error). Then the draws are moved down: for the upper end by their bias; for the lower to what is
        left of the value where the draws' noise is taken from its square, as from the mean of a folded normal.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws) or np.isnan(value):
        return float("nan"), float("nan")
    if jackknife is None:
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(min(low, value)), float(max(high, value))
    acceleration, freedom = _shape(jackknife[~np.isnan(jackknife)])
    reach = stdtrit(freedom, (1 + level) / 2) * np.sqrt(1 + 1 / freedom) * np.array([-1, 1])
    if folded:
        mean, rest = draws.mean(), np.sqrt(max(2 * value**2 - (draws**2).mean(), 0))
        low, high = np.quantile(draws, ndtr(reach)) - np.maximum([mean - rest, mean - value], 0)
    else:
        same = 1e-9 * (1 + abs(value))  # sums in another order; equal draws count half
        below = ((draws < value - same).mean() + (draws <= value + same).mean()) / 2
        bias = ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
        reach = bias + reach
        low, high = np.quantile(draws, ndtr(bias + reach / np.maximum(1 - acceleration * reach, 1e-9)))
    return float(min(low, value)), float(max(high, value))


def _shape(jackknife):
    """Return the acceleration of BCa and Satterthwaite's degrees of freedom; 0 and infinity without differences."""
    if len(jackknife) < 2 or np.ptp(jackknife) < 1e-12:
        return 0.0, np.inf
    influence = jackknife.mean() - jackknife
    squares = (influence**2).sum()
    kurtosis = (influence**4).sum() / squares**2 - 1 / len(influence)
    return (influence**3).sum() / squares**1.5 / 6, 2 / max(kurtosis, 2 / (len(influence) - 1))
