"""`evaluate` a model, or `Evaluation.from_scores` of any source: metrics with intervals from a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from sklearn.metrics import precision_recall_curve, roc_curve

from .. import metrics, tables
from ..checks import positive_label, require_dataset
from ..data.dataset import ImageDataset
from ..data.matching import stem
from ..data.splitting import group_count, group_words, warn_of_seen
from ..errors import warn
from ..metrics import METRICS
from ..tables import NAMELESS
from ..text import apart, as_label, counted
from . import intervals, predictions
from .predictions import PREFIX

PER_CLASS = ("recall", "specificity", "precision", "npv", "f1", "roc_auc", "average_precision")


class Model(Protocol):
    """What can be evaluated: an `ImageClassifier`, or anything else with labels that predicts their probabilities."""

    labels: list[str]

    def predict_proba(self, dataset: ImageDataset, /) -> np.ndarray:
        """Return an array of float, shape (images, labels)."""


def evaluate(model: Model, dataset: ImageDataset, positive: object = None) -> Evaluation:
    """Predict every image of `dataset` once and evaluate; warn if the model was trained on some or their lesions.

    A classifier's own threshold is used. The positive label is by default that of the threshold, of the model, of the
    dataset, or what `checks.positive_label` finds. Raises ValueError if it is augmented or has unknown labels.

    >>> class Coin:
    ...     labels = ["benign", "malignant"]
    ...     def predict_proba(self, dataset):
    ...         return np.full((len(dataset), 2), 0.5)
    >>> table = pd.DataFrame({"path": ["a", "b"], "label": Coin.labels, "group": ["a", "b"]})
    >>> evaluate(Coin(), ImageDataset(table)).metric("roc_auc")
    0.5
    """
    require_dataset(dataset, "evaluate")
    if dataset.is_augmented:
        raise ValueError("these images are augmented: evaluate on images as they were taken")
    warn_of_seen(dataset, getattr(model, "seen", None), "to evaluate on")
    if getattr(model, "metadata", {}).get("training", ...) is None:
        warn("the model is not trained, so its figures mean nothing: call fit first")
    positive = positive_of(model, dataset, positive)
    return scored(model, dataset, model.predict_proba(dataset), positive)


def positive_of(model: Model, dataset: ImageDataset, positive: object = None) -> str:
    """Return `positive`, or the positive label of the model's threshold, the model or the dataset, or a known one."""
    labels = predictions.as_labels(model.labels, "class")
    if positive is None:
        decision = getattr(model, "metadata", {}).get("decision") or {}
        known = decision.get("positive"), getattr(model, "positive", None), dataset.positive
        positive = next((label for label in known if label in labels), None)
    return positive_label(labels, positive)


def scored(model: Model, dataset: ImageDataset, scores: np.ndarray, positive: str) -> Evaluation:
    """Return the evaluation of a model's scores for the images of a dataset, at its threshold for `positive`."""
    decision, table = getattr(model, "metadata", {}).get("decision") or {}, dataset.table
    threshold = decision.get("threshold") if positive == decision.get("positive") else None
    return Evaluation.from_scores(table["label"], scores, None, model.labels, positive, table, threshold)


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Predictions and the metrics that follow from them.

    ``table`` has a row an image: ``path``, ``group``, ``label`` (the true one), ``prediction``, a column
    ``score_<label>`` for each of ``classes``, then the metadata (as ``metadata_<name>`` if a name is taken). With more
    than two classes, precision, recall, F1 and the areas are means over the classes, and curves take the ``positive``
    label against all others. With two classes, the positive one is predicted from the ``threshold`` on; without a
    threshold, the class with the highest score is.

    >>> evaluation = Evaluation.from_scores(["benign", "malignant"] * 10, [0.2, 0.9, 0.1, 0.4] * 5)
    >>> evaluation.metric("recall"), evaluation.text("accuracy")
    (0.5, '0.750 [0.483, 0.925]')
    >>> evaluation.at(0.3).metric("recall")
    1.0
    """

    table: pd.DataFrame
    classes: list
    positive: str
    threshold: float | None = None
    _drawn: dict = field(default_factory=dict, init=False, compare=False)

    def __repr__(self) -> str:
        """Describe the images and the first metrics, without intervals."""
        counts = self.table["label"].value_counts().reindex(self.classes, fill_value=0)
        labels = ", ".join(f"{name} ({count})" for name, count in counts.items())
        rule = "" if self.threshold is None else f", predicted from a score of {self.threshold:.3f} on"
        shown = ("accuracy", "balanced_accuracy", "recall", "specificity", "roc_auc")
        lesions = "images" in self.table and self.table["group"].is_unique
        lines = [
            f"Evaluation of {counted(len(self.table), 'lesion' if lesions else 'image')}",
            f"lesions (or groups): {group_words(**group_count(self.table))}",
            f"true labels: {shorten(labels, 200)}; positive: {self.positive}{rule}",
            ", ".join(f"{name} {self.metric(name):.3f}" for name in shown),
        ]
        return "\n  ".join(lines)

    @classmethod
    def from_scores(
        cls,
        true_labels: ArrayLike,
        scores: ArrayLike,
        groups: Iterable | None = None,
        classes: Sequence = ("benign", "malignant"),
        positive: object = None,
        metadata: pd.DataFrame | None = None,
        threshold: float | None = None,
    ) -> Evaluation:
        """Evaluate scores of any source; ValueError if a shape, a label or a score is not one of those below.

        `scores` are probabilities that sum to 1, shape (images, classes); of two classes the positive one's are enough.
        The columns of a DataFrame go by their names. `groups` are the lesions of the images, since intervals resample
        lesions; an image without one is its own. `metadata` are more columns for `table`, among them ``path`` and
        ``group``. A `threshold`, 0 to 1, is for two classes only. Labels may be numbers, see `text.as_label`.
        """
        names, true = predictions.as_labels(classes, "class"), predictions.as_labels(true_labels, "label")
        if len(set(names)) < len(names):
            raise ValueError(f"each class needs a name of its own: {', '.join(names)}")
        sought = positive_label(names, positive)
        found = predictions.as_scores(scores, names, sought, len(true))
        if unknown := sorted(set(true) - set(names)):
            listed = ", ".join(map(repr, unknown))
            raise ValueError(f"labels {listed} are not among the classes {', '.join(names)}")
        predicted = predictions.decide(found, names, sought, threshold)
        columns = pd.DataFrame(found, columns=[PREFIX + name for name in names])
        return cls(predictions.joined(true, predicted, columns, groups, metadata), names, sought, threshold)

    def at(self, threshold: float | None) -> Evaluation:
        """Return the evaluation of the same scores at another threshold, 0 to 1, or without one (None)."""
        prediction = predictions.decide(self.scores, self.classes, self.positive, threshold)
        return replace(self, table=self.table.assign(prediction=prediction), threshold=threshold)

    def where(self, rows: ArrayLike) -> Evaluation:
        """Return the evaluation of the images for which `rows`, a bool for each row of the table, is true."""
        return replace(self, table=self.table[tables.mask(rows, self.table)].reset_index(drop=True))

    def against(self, label: object) -> Evaluation:
        """Return the evaluation of one label against all others, as two classes, with the same predictions."""
        name = as_label(label)
        if name is None or name not in self.classes:
            raise ValueError(f"unknown label {label!r}; there are: {', '.join(self.classes)}")
        others = apart("(all others)", [name])
        names = self.table[["label", "prediction"]]
        scores = {PREFIX + others: 1 - self.table[PREFIX + name]}
        table = self.table.assign(**names.where(names == name, others), **scores)
        return replace(self, table=table, classes=[others, name], positive=name)

    def by_group(self) -> Evaluation:
        """Return the evaluation with one answer a lesion: the scores of its images averaged as log-odds.

        Its table has a row a lesion: the path of its first image, the number of its ``images``, and of the metadata
        what all its images agree on, else missing. A lesion with one image keeps its score. Raises ValueError if the
        labels of a lesion differ, or after `against`, whose predictions do not follow from its scores.

        >>> scores, lesions = [0.2, 0.4, 0.8, 0.9], ["a", "b", "b", "c"]
        >>> made = Evaluation.from_scores(["benign", "malignant", "malignant", "malignant"], scores, lesions)
        >>> made.by_group().table[["group", "images", "score_malignant"]].round(3).values.tolist()
        [['a', 1, 0.2], ['b', 2, 0.62], ['c', 1, 0.9]]
        """
        if (self.at(self.threshold).table["prediction"] != self.table["prediction"]).any():
            raise ValueError("these predictions do not follow from the scores: call by_group before against")
        scores, rows = predictions.by_group(self.table, self.classes)
        about = self.classes, self.positive, rows, self.threshold
        return Evaluation.from_scores(rows["label"], scores, None, *about)

    @cached_property
    def units(self) -> dict[str, Evaluation]:
        """The evaluations of one answer a ``lesion`` and one an ``image``.

        The first only if some lesion has several images. It is left out with a warning if labels of a lesion differ.

        >>> [*Evaluation.from_scores(["benign", "benign", "malignant"], [0.2, 0.4, 0.8], ["a", "a", "b"]).units]
        ['lesion', 'image']
        """
        try:
            found = {"lesion": self.by_group()} if self.table["group"].duplicated().any() else {}
        except ValueError as error:
            warn(f"There are only figures for each image, not for each lesion: {error}")
            found = {}
        return found | {"image": self}

    @property
    def scores(self) -> np.ndarray:
        """The scores: array of float, shape (images, classes)."""
        return self.table[[PREFIX + name for name in self.classes]].to_numpy()

    @cached_property
    def rows_by_group(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of `table` in the order of their groups' names, and the number of each one's group, from 0.

        Nameless groups are ordered by label and scores, so that the order of the table moves no interval.
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
        """Truth and prediction (0 or 1) and scores, as `metrics` takes them, in the order of `rows_by_group`."""
        rows, classes = self.rows_by_group[0], np.array(self.classes)
        names = self.table[["label", "prediction"]].to_numpy(object)[rows, :, None]
        true, predicted = (names == classes).astype(float).swapaxes(0, 1)
        return true, predicted, self.scores[rows]

    def metric(self, name: str) -> float:
        """Return one of `METRICS`, NaN where it is not defined, for instance with one class only."""
        return float(self.weighted(name, np.ones((1, len(self.table))))[0])

    def weighted(self, name: str, weights: np.ndarray) -> np.ndarray:
        """Return one metric for each row of weights: how much each image counts, in the order of `rows_by_group`."""
        return self._compute(name, weights)[name]

    def draws(self, name: str) -> np.ndarray:
        """Return one metric of each bootstrap draw: array of float, shape (`metrics.RESAMPLES`,), NaN where undefined.

        The difference of two evaluations' draws is paired if the images are the same.
        """
        return self._resampled(name, metrics.draws)

    def jackknife(self, name: str) -> np.ndarray:
        """Return one metric without each lesion, or part of the lesions, in turn: see `metrics.left_out`."""
        return self._resampled(name, metrics.left_out)

    def _resampled(self, name: str, way: Callable) -> np.ndarray:
        key = way, metrics.FAMILIES.get(name)
        if key not in self._drawn:
            parts = [self._compute(name, weights) for weights in way(self.rows_by_group[1])]
            self._drawn[key] = {each: np.concatenate([part[each] for part in parts]) for each in parts[0]}
        return self._drawn[key][name]

    def _compute(self, name, weights):
        """Return a metric's family for each row of weights: of the positive one of two classes, else the mean."""
        if name not in metrics.FAMILIES:
            raise ValueError(f"unknown metric {name!r}; there are: {', '.join(METRICS)}")
        family = metrics.FAMILIES[name]
        arrays, two, column = self.arrays, len(self.classes) == 2, self.classes.index(self.positive)
        if two and family not in (metrics.counts, metrics.probabilities):  # areas: of one class
            arrays, column = [array[:, [column]] for array in arrays], 0
        return {
            name: values[:, column] if two and values.shape[1] == 2 else values.mean(axis=1)
            for name, values in family(*arrays, weights).items()
        }

    def interval(self, name: str) -> tuple[float, float]:
        """Return the 95 % interval of one metric, NaN twice where it is undefined: see `intervals.of_metric`."""
        return intervals.of_metric(self, name)

    def text(self, name: str) -> str:
        """Return one metric with its 95 % interval, such as ``0.871 [0.840, 0.902]``, or why it has none."""
        value, (low, high) = self.metric(name), self.interval(name)
        if np.isnan(value):
            return "undefined"
        if np.isnan(low):
            few = f"{intervals.lesions(self, 'recall')} positive, {metrics.FEWEST} needed"
            return f"{value:.3f} (too few lesions for an interval: {few})"
        if name in intervals.AREAS and value == 1:
            return f"{value:.3f} [≥ {low:.3f}]"
        return f"{value:.3f} [{low:.3f}, {high:.3f}]"

    def metrics(self, names: Sequence[str] = METRICS) -> pd.DataFrame:
        """Return metrics, by default all, as rows with value, low and high of the 95 % interval."""
        rows = {name: (self.metric(name), *self.interval(name)) for name in names}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])

    def per_class(self) -> pd.DataFrame:
        """Return the metrics of each class against the others, by label and metric: value, low, high (95 %), images."""
        images = self.confusion_matrix().sum(axis=1)
        tables = {x: self.against(x).metrics(PER_CLASS).assign(images=images[x]) for x in self.classes}
        return pd.concat(tables, names=["label", "metric"])

    def confusion_matrix(self) -> pd.DataFrame:
        """Count images by true label (rows) and predicted label (columns)."""
        counts = pd.crosstab(self.table["label"], self.table["prediction"])
        return counts.reindex(index=self.classes, columns=self.classes, fill_value=0)

    def positives(self) -> tuple[np.ndarray, np.ndarray]:
        """Return which images have the positive label, and all their scores for it; ValueError if all or none have."""
        positive = (self.table["label"] == self.positive).to_numpy()
        if positive.all() or not positive.any():
            raise ValueError(f"this needs images with and without the label {self.positive!r}")
        return positive, self.table[PREFIX + self.positive].to_numpy()

    def roc(self) -> pd.DataFrame:
        """Return the ROC curve of the positive label: columns false_positive_rate, recall, threshold."""
        rate, recall, threshold = roc_curve(*self.positives(), drop_intermediate=False)
        return pd.DataFrame({"false_positive_rate": rate, "recall": recall, "threshold": threshold})

    def precision_recall(self) -> pd.DataFrame:
        """Return the precision-recall curve of the positive label: columns recall, precision, threshold."""
        precision, recall, threshold = precision_recall_curve(*self.positives())
        threshold = np.append(threshold, np.inf)
        return pd.DataFrame({"recall": recall, "precision": precision, "threshold": threshold})

    @cached_property
    def _bands(self):
        rows, numbers = self.rows_by_group
        positive, scores = (array[rows] for array in self.positives())
        grid, weights = np.linspace(0, 1, 101), metrics.draws(numbers, metrics.BAND_RESAMPLES)
        drawn = zip(*(metrics.on_grid(positive, scores, each, grid) for each in weights), strict=True)
        ends = [np.nanquantile(np.concatenate(parts), [0.025, 0.975], axis=0) for parts in drawn]
        columns = ["place", "recall_low", "recall_high", "precision_low", "precision_high"]
        return pd.DataFrame(np.vstack([grid, *ends]).T, columns=columns)

    def bands(self) -> pd.DataFrame:
        """Return pointwise 95 % bootstrap bands of both curves of the positive label.

        ``place`` is the false positive rate for the band of the recall, and the recall for that of the precision.
        """
        return self._bands.copy()

    def choose_threshold(self, sensitivity: float | None = None, cost: float | None = None) -> float:
        """Choose the threshold for `at` and `ImageClassifier.decide_at`, on validation images, never on test images.

        It is the highest that finds at least the share `sensitivity` of the positive images; or the one with the least
        cost, if a missed positive image costs `cost` and a false alarm 1; or that with the largest sum of sensitivity
        and specificity (Youden, Index for rating diagnostic tests, 1950). It lies midway between two scores, or is
        `CALL_NONE`. Raises ValueError if both are given, one is out of range, or there are not two classes.
        """
        if len(self.classes) != 2:
            raise ValueError(f"a threshold needs two classes; there are {len(self.classes)}")
        positive, scores = self.positives()
        return metrics.choose_threshold(positive, scores, sensitivity, cost)

    def save(self, csv: str | Path) -> Path:
        """Write the table as CSV, with a column that holds classes, positive label and threshold; return the path."""
        own = {"classes": self.classes, "positive": self.positive, "threshold": self.threshold}
        return predictions.save(self.table, own, csv)

    def submission(self, csv: str | Path, columns: Sequence[str] | None = None) -> Path:
        """Write the scores as the CSV file of a challenge, return its path; ValueError if a column is missing.

        The first of the `columns` names the image or, if it is ``lesion_id``, the lesion. The others are classes in any
        spelling, 0 if there is none, or ``target``, the positive label. Default: ``isic_id, target`` for two classes
        (ISIC 2024; ``image_name`` in 2020), else ``image`` and the classes (2018, 2019).

        >>> made = Evaluation.from_scores(["nv", "mel"], [[0.2, 0.8], [0.5, 0.5]], classes=["mel", "nv"])
        >>> made.submission("submission.csv", ["image", "MEL", "NV", "UNK"]).read_text().split()
        ['"image",MEL,NV,UNK', '0,0.2,0.8,0.0', '1,0.5,0.5,0.0']
        """
        is_plain = len({*map(tables.key, self.classes)}) == len(self.classes)
        key = tables.key if is_plain else str  # classes that differ in signs only
        score_of = {key(name): self.table[PREFIX + name] for name in self.classes}
        two = ("isic_id", "target") if len(self.classes) == 2 else ("image", *self.classes)
        first, *wanted = columns or two
        score_of = {"target": self.table[PREFIX + self.positive]} if wanted == ["target"] else score_of
        if missing := [*score_of.keys() - {*map(key, wanted)}]:
            raise ValueError(f"the columns {', '.join(wanted)} have none for the class {missing[0]}")
        if len({first, *map(key, wanted)}) <= len(wanted):
            raise ValueError(f"the columns {first}, {', '.join(wanted)} name one of them twice")
        by_lesion = first == "lesion_id"
        names = self.table["group"] if by_lesion else self.table["path"].map(lambda p: stem(Path(p).name))
        if by_lesion and not tables.is_named(self.table).all():
            raise ValueError("lesion_id: not every image has a lesion; from_scores takes them as groups=")
        if (twice := names[names.duplicated()]).size:
            raise ValueError(f"{twice.iloc[0]} would have two rows: rename it; for lesions see by_group")
        scores = {name: score_of.get(key(name), 0.0) for name in wanted}
        return tables.save(pd.DataFrame({first: names, **scores}), csv)

    @classmethod
    def load(cls, csv: str | Path, positive: object = None) -> Evaluation:
        """Read what `save` wrote; another `positive` label than the saved one leaves out the threshold.

        Raises ValueError if the file is not a table of predictions.
        """
        table, own = predictions.load(csv)
        columns = [PREFIX + name for name in own["classes"]]
        chosen = own["positive"] if positive is None else as_label(positive)
        return cls.from_scores(
            table["label"],
            table[columns].to_numpy(),
            classes=own["classes"],
            positive=chosen,
            metadata=table.drop(columns=columns),
            threshold=own["threshold"] if chosen == own["positive"] else None,
        )
