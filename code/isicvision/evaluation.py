"""`evaluate` a model, or `Evaluation.from_scores` of any: metrics with intervals from one prediction table."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn import metrics

METRICS = (
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "specificity",
    "f1",
    "roc_auc",
    "average_precision",
    "brier",
)
PREFIX = "score_"
"""Of the columns that hold the scores in a prediction table."""


def evaluate(model, dataset, positive=None):
    """Predict every picture of `dataset` once and evaluate.

    Parameters
    ----------
    model : ImageClassifier
        Or anything with ``labels`` and ``predict_proba(dataset)``.
    dataset : ImageDataset
        Pictures that the model was not trained on.
    positive : str, optional
        The label to be found, for precision, recall and curves. Default: the last of ``model.labels``.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError
        If `dataset` is augmented, or has labels that the model does not know.
    """
    if dataset.augmenters or "augmented_from" in dataset.table:
        raise ValueError("these pictures are augmented: evaluate on pictures as they were taken")
    scores = model.predict_proba(dataset)
    return Evaluation.from_scores(
        dataset.table["label"], scores, classes=model.labels, positive=positive, metadata=dataset.table
    )


@dataclass(frozen=True)
class Evaluation:
    """Predictions, and what follows from them.

    Attributes
    ----------
    table : pandas.DataFrame
        One row a picture: ``path``, ``group``, ``label`` (the true one), ``prediction`` (the label with the
        highest score), a column ``score_<label>`` for each label, then the metadata of the dataset.
    classes : list of str
    positive : str
        The label to be found. With more than two classes, precision, recall, F1 and the areas are means
        over the classes, and `roc` and `precision_recall` take `positive` against all others.
    """

    table: pd.DataFrame
    classes: list
    positive: str

    @classmethod
    def from_scores(
        cls, labels, scores, groups=None, classes=("benign", "malignant"), positive=None, metadata=None
    ):
        """Evaluate scores that may come from anywhere.

        Parameters
        ----------
        labels : sequence of str, shape (pictures,)
            The true labels.
        scores : array of float, shape (pictures, classes) or (pictures,)
            Probabilities, 0 to 1; with two classes the positive one's alone will do.
        groups : sequence of str, optional
            Which pictures belong together (one lesion): intervals resample groups. Default: each alone.
        classes : sequence of str
            In the order of the columns of `scores`.
        positive : str, optional
            Default: the last class.
        metadata : pandas.DataFrame, optional
            More columns for `table`, a row a picture: ``path``, ``group`` (unless `groups` is given), any others.

        Raises
        ------
        ValueError
            If shapes do not fit, a label is not in `classes`, or a score is NaN or outside 0 to 1.
        """
        classes = [str(name) for name in classes]
        labels = np.asarray(labels, dtype=object)
        scores = np.asarray(scores, dtype=float)
        positive = classes[-1] if positive is None else positive
        if positive not in classes:
            raise ValueError(f"positive label {positive!r} is not one of {', '.join(classes)}")
        if scores.ndim == 1 and len(classes) == 2:
            scores = np.column_stack([1 - scores, scores] if positive == classes[1] else [scores, 1 - scores])
        if not len(labels) or scores.shape != (len(labels), len(classes)):
            raise ValueError(
                f"{len(labels)} labels of {len(classes)} classes do not fit scores of shape {scores.shape}"
            )
        unknown = sorted(set(labels) - set(classes))
        if unknown:
            raise ValueError(
                f"labels {', '.join(map(repr, unknown))} are not among the classes {', '.join(classes)}"
            )
        if not ((scores >= 0) & (scores <= 1)).all():
            row = int(np.argmin(((scores >= 0) & (scores <= 1)).all(axis=1)))
            raise ValueError(f"scores must lie from 0 to 1; row {row} has {scores[row]}")
        more = pd.DataFrame(index=range(len(labels))) if metadata is None else metadata.reset_index(drop=True)
        alone = np.arange(len(labels)).astype(str)
        table = pd.DataFrame(
            {
                "path": more.get("path", alone),
                "group": more.get("group", alone) if groups is None else list(groups),
                "label": labels,
                "prediction": np.asarray(classes, dtype=object)[scores.argmax(axis=1)],
            }
        )
        for number, name in enumerate(classes):
            table[PREFIX + name] = scores[:, number]
        return cls(table.join(more[more.columns.difference(table.columns, sort=False)]), classes, positive)

    @property
    def scores(self):
        """The scores: array of float, shape (pictures, classes)."""
        return self.table[[PREFIX + name for name in self.classes]].to_numpy()

    @cached_property
    def _values(self):
        return {name: float(value[0]) for name, value in self._compute(np.ones((1, len(self.table)))).items()}

    def metric(self, name):
        """Return one metric as a float, NaN where it is not defined (one class only, say).

        Parameters
        ----------
        name : str
            One of `METRICS`; all but ``brier`` are better when larger. Definitions: scikit-learn's
            user guide, https://scikit-learn.org/stable/modules/model_evaluation.html.
        """
        if name not in METRICS:
            raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")
        return self._values[name]

    def interval(self, name, level=0.95):
        """Return (low, high), the bootstrap interval of one metric over groups, or NaN twice if undefined.

        Lesions, not pictures, are drawn with replacement, 1,000 times with a fixed seed, because pictures of
        one lesion resemble each other; percentile interval (Efron and Tibshirani, An Introduction to the
        Bootstrap, 1993, chapter 13).
        """
        self.metric(name)
        draws = self._bootstrap[name]
        draws = draws[~np.isnan(draws)]
        if not len(draws) or np.isnan(self.metric(name)):
            return float("nan"), float("nan")
        low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    @cached_property
    def _bootstrap(self):
        codes, names = pd.factorize(self.table["group"])
        random = np.random.default_rng(0)
        parts = []
        for _ in range(10):  # by hundreds: the weights of 1,000 draws of 100,000 pictures would take 800 MB
            draws = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=100)
            parts.append(self._compute(draws[:, codes].astype(float)))
        return {name: np.concatenate([part[name] for part in parts]) for name in METRICS}

    def metrics(self):
        """Return every metric with its 95 % interval: pandas.DataFrame with value, low and high."""
        rows = {name: (self.metric(name), *self.interval(name)) for name in METRICS}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])

    def _compute(self, weights):
        """Compute every metric for each row of `weights`: how often each picture counts, shape (draws, pictures).

        Ours rather than scikit-learn's, which takes one set of weights at a time: a loop over 1,000 draws is
        many times slower (tests/bench/bench_intervals.py). The tests hold it against scikit-learn.
        """
        codes = {name: number for number, name in enumerate(self.classes)}
        true, predicted = (
            np.eye(len(codes))[self.table[name].map(codes)] for name in ("label", "prediction")
        )
        scores, total = self.scores, weights.sum(axis=1)
        right, count, called = weights @ (true * predicted), weights @ true, weights @ predicted
        with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN: not defined
            recall, precision, f1 = right / count, right / called, 2 * right / (count + called)
            specificity = (total[:, None] - count - called + right) / (total[:, None] - count)
            areas = [_areas(true[:, n], scores[:, n], weights) for n in range(len(codes))]
            roc_auc, average_precision = (np.stack(area, axis=1) for area in zip(*areas, strict=True))

        def pick(values):
            return values[:, codes[self.positive]] if len(codes) == 2 else values.mean(axis=1)

        return {
            "accuracy": right.sum(axis=1) / total,
            "balanced_accuracy": recall.mean(axis=1),
            "precision": pick(precision),
            "recall": pick(recall),
            "specificity": pick(specificity),
            "f1": pick(f1),
            "roc_auc": pick(roc_auc),
            "average_precision": pick(average_precision),
            "brier": weights @ ((scores - true) ** 2).sum(axis=1) / total / (2 if len(codes) == 2 else 1),
        }

    def confusion_matrix(self):
        """Count pictures by true label (rows) and predicted label (columns): pandas.DataFrame."""
        counts = metrics.confusion_matrix(self.table["label"], self.table["prediction"], labels=self.classes)
        return pd.DataFrame(
            counts, pd.Index(self.classes, name="label"), pd.Index(self.classes, name="prediction")
        )

    def roc(self):
        """Return the ROC curve of the positive label: DataFrame with false_positive_rate, recall, threshold."""
        rate, recall, threshold = metrics.roc_curve(self._is_positive(), self.table[PREFIX + self.positive])
        return pd.DataFrame({"false_positive_rate": rate, "recall": recall, "threshold": threshold})

    def precision_recall(self):
        """Return the precision-recall curve of the positive label: DataFrame with recall, precision, threshold."""
        precision, recall, threshold = metrics.precision_recall_curve(
            self._is_positive(), self.table[PREFIX + self.positive]
        )
        return pd.DataFrame(
            {"recall": recall, "precision": precision, "threshold": np.append(threshold, np.inf)}
        )

    def _is_positive(self):
        positive = self.table["label"] == self.positive
        if positive.all() or not positive.any():
            raise ValueError(f"a curve needs pictures with and without the label {self.positive!r}")
        return positive

    def errors(self):
        """Return the wrongly predicted rows of the table, the most confident mistake first."""
        wrong = self.table[self.table["label"] != self.table["prediction"]]
        return wrong.assign(confidence=self.scores.max(axis=1)[wrong.index]).sort_values(
            "confidence", ascending=False, kind="stable"
        )

    def save(self, csv):
        """Write the prediction table as CSV and return its path; `load` reads it back."""
        csv = Path(csv)
        csv.parent.mkdir(parents=True, exist_ok=True)
        self.table.to_csv(csv, index=False)
        return csv

    @classmethod
    def load(cls, csv, positive=None):
        """Read a prediction table that `save` wrote.

        Raises
        ------
        ValueError
            If it lacks the columns of one.
        """
        table = pd.read_csv(csv, dtype={"path": str, "group": str, "label": str})
        classes = [name.removeprefix(PREFIX) for name in table.columns if name.startswith(PREFIX)]
        if len(classes) < 2 or not {"path", "group", "label"} <= set(table):
            raise ValueError(f"{csv} is no prediction table: it has the columns {', '.join(table.columns)}")
        scores = table[[PREFIX + name for name in classes]].to_numpy()
        return cls.from_scores(table["label"], scores, classes=classes, positive=positive, metadata=table)


def _areas(true, scores, weights):
    """Compute the areas under the ROC curve and (as average precision) under the precision-recall curve.

    Parameters
    ----------
    true : array of 0 and 1, shape (pictures,)
    scores : array of float, shape (pictures,)
    weights : array of float, shape (draws, pictures)

    Returns
    -------
    tuple of two arrays of float, shape (draws,)
        NaN where a draw has one class only. Definitions as in scikit-learn: ties share a step.
    """
    order = np.argsort(-scores, kind="stable")
    steps = np.flatnonzero(np.diff(scores[order], prepend=np.inf))  # where a lower score begins
    positives = np.add.reduceat((weights * true)[:, order], steps, axis=1)
    negatives = np.add.reduceat((weights * (1 - true))[:, order], steps, axis=1)
    hits, alarms = positives.cumsum(axis=1), negatives.cumsum(axis=1)
    defined = np.where((hits[:, -1] > 0) & (alarms[:, -1] > 0), 1.0, np.nan)
    roc_auc = (negatives * (hits - positives / 2)).sum(axis=1) / (hits[:, -1] * alarms[:, -1])
    seen = np.maximum(hits + alarms, 1)  # nothing seen yet: nothing is added either
    average_precision = (positives * hits / seen).sum(axis=1) / hits[:, -1]
    return roc_auc * defined, average_precision * defined
