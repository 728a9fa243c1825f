"""Rank labels by how doubtful they are, by cleanlab; and choose the images that are to be labeled next."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import entropy
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from ..checks import is_whole, require_dataset
from ..data import splitting
from ..data.dataset import ImageDataset
from .classifier import ImageClassifier
from .neighbors import Neighbors

FOLDS = 5
DRAWS = 10


@dataclass(frozen=True)
class LabelIssues:
    """The labels of a dataset by how doubtful they are; `print` says how many are, and how many would be by chance.

    `table` has a row an image, the most doubtful first: ``path``, ``label``, ``suggested`` (the label with the highest
    score), ``quality`` (0 to 1: the score of the label) and ``issue``, whether cleanlab calls the label doubtful.

    >>> print(LabelIssues(pd.DataFrame({"issue": [True, False]}), by_chance=(1, 2)))
    1 of 2 labels are doubtful; without a single mistake it would be 1 to 2. The number is not a sign of wrong ...
    """

    table: pd.DataFrame
    by_chance: tuple[int, int]

    def __str__(self) -> str:
        count, (low, high) = int(self.table["issue"].sum()), self.by_chance
        told = "That is more than chance gives: some labels are likely wrong, or the scores too confident."
        if count <= high:
            told = "The number is not a sign of wrong labels. Only the order says where to look first."
        chance = f"without a single mistake it would be {low:,} to {high:,}"
        return f"{count:,} of {len(self.table):,} labels are doubtful; {chance}. {told}"


def out_of_fold(
    dataset: ImageDataset, backbone: str = "efficientnet_lite0", image_size: int | None = None
) -> np.ndarray:
    """Score each image by a logistic regression that was fitted without its lesion: float of shape (images, labels).

    It sees the features of `backbone`, and is not balanced: its scores should be as rare as the labels are. There are
    `FOLDS` folds, or as many as the rarest label has lesions; raises ValueError if that is one.
    """
    lesions = dataset.table.groupby("label")["group"].nunique()
    if lesions.min() < 2:
        raise ValueError(f"label {lesions.idxmin()!r} has one lesion or group; folds need two of each label")
    classifier = LogisticRegression(C=0.003, max_iter=1000)
    model = ImageClassifier(backbone, dataset.labels, image_size=image_size, classifier=classifier)
    folds = StratifiedGroupKFold(min(FOLDS, lesions.min()), shuffle=True, random_state=0)
    known = {"y": dataset.table["label"], "groups": dataset.table["group"]}
    return cross_val_predict(classifier, model.featurize(dataset), **known, cv=folds, method="predict_proba")


def find(dataset: ImageDataset, scores: ArrayLike | None = None, **options: Any) -> LabelIssues:
    """Rank the images by how doubtful their label is (cleanlab's confident learning).

    Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, 2021. A rank does not
    prove a mistake. `scores` are out-of-fold, float (images, labels), columns in the order of ``dataset.labels``;
    default: `out_of_fold`, which takes `options`. Raises ValueError if the scores do not fit the dataset.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    require_dataset(dataset, "labelissues.find")
    scores = out_of_fold(dataset, **options) if scores is None else np.asarray(scores, dtype=float)
    labels = dataset.labels
    if scores.shape != (len(dataset), len(labels)) or not ((scores >= 0) & (scores <= 1)).all():
        fits = f"do not fit {len(dataset)} images with {len(labels)} labels, or are not finite numbers from 0 to 1"
        raise ValueError(f"scores of shape {scores.shape} {fits}")
    given = dataset.table["label"].map(labels.index).to_numpy()
    found = dataset.table[["path", "label"]].assign(
        suggested=np.asarray(labels, dtype=object)[scores.argmax(axis=1)],
        quality=get_label_quality_scores(given, scores),
        issue=find_label_issues(given, scores, n_jobs=1),
    )
    return LabelIssues(found.sort_values("quality", kind="stable", ignore_index=True), by_chance(scores))


def by_chance(scores: np.ndarray) -> tuple[int, int]:
    """Return the fewest and the most doubtful labels of `DRAWS` sets drawn from the scores, where none is wrong."""
    from cleanlab.filter import find_label_issues

    random, ends = np.random.default_rng(0), scores.cumsum(axis=1)
    counts = []
    for _ in range(DRAWS):
        drawn = (ends > random.random((len(scores), 1)) * ends[:, -1:]).argmax(axis=1)
        present, numbers = np.unique(drawn, return_inverse=True)  # cleanlab needs an image of each label
        issues = find_label_issues(numbers, scores[:, present], n_jobs=1) if len(present) > 1 else numbers
        counts.append(int(issues.sum()))
    return min(counts), max(counts)


def next_to_label(
    model: ImageClassifier, unlabeled: ImageDataset, training: ImageDataset, count: int = 24
) -> ImageDataset:
    """Return `count` unlabeled images whose labels would teach the model much, the most uncertain first.

    The most uncertain images of all are often alike. So the features, see `Neighbors`, form `count` clusters (k-means),
    and the most uncertain image of each is chosen, see Zhdanov, Diverse mini-batch Active Learning, 2019, and
    bench_labels.py, where k-center was no better than chance. Columns are added: ``suggested``, the label with the
    highest score; that ``score``; ``uncertainty``, the scores' entropy, 0 to 1, where all are equal; ``distance`` from
    the nearest training image. `AnnotationUI` takes the result.

    >>> widgets.AnnotationUI(next_to_label(model, unlabeled, train), "d.csv", labels=model.labels)  # doctest: +SKIP
    """
    if not is_whole(count, 1):
        raise ValueError(f"count is a whole number of 1 or more, not {count!r}")
    gallery = Neighbors(model, training).gallery
    unlabeled = unlabeled.where(~splitting.seen(unlabeled, model.seen or {}, by_name=False))
    if not len(unlabeled):
        raise ValueError("the model was trained on all of these images")
    scores, features = model.predict_proba(unlabeled), model.featurize(unlabeled)
    table = unlabeled.table.assign(
        suggested=np.array(model.labels, dtype=object)[scores.argmax(axis=1)],
        score=scores.max(axis=1),
        uncertainty=entropy(scores, axis=1) / np.log(scores.shape[1]),
        distance=[gallery.distances(each[None]).min() for each in features],
    )
    clustering = KMeans(min(count, len(table)), n_init=1, random_state=0)
    clusters = pd.Series(clustering.fit_predict(gallery.reduce(features)), table.index)
    table = table.sort_values("uncertainty", ascending=False, kind="stable")
    turns = table.groupby(clusters).cumcount().sort_values(kind="stable")
    chosen = table.loc[turns.index[:count]].sort_values("uncertainty", ascending=False, kind="stable")
    return ImageDataset(chosen.reset_index(drop=True))
