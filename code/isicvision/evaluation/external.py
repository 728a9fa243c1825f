"""External tests: whether a model holds on the images of another clinic, and what labels from there buy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedShuffleSplit

from .. import metrics
from ..data import splitting
from ..data.dataset import ImageDataset
from ..files import folder_name, read_source
from ..model import calibration, inputs, outliers
from ..model.classifier import ImageClassifier
from ..text import apart, listed
from .evaluation import Evaluation, evaluate

TITLES = dict(roc_auc="ROC AUC", recall="sensitivity", specificity="specificity", ece="calibration error")
TITLES |= {name: name.replace("_", " ") for name in (*metrics.LINE, "rejected")}
"""The figures of `compare` and their names there; the last is the share rejected as out-of-distribution."""
LOCAL = ("sensitivity", "specificity", "calibration error", "rejected")


def read(paths: Sequence[str | Path], model: ImageClassifier) -> dict[str, ImageDataset]:
    """Read external test sets for a model: dict of dataset by the name of its folder or file.

    A path is a parameter file with SOURCE, or a folder: one per label, or with a column ``label`` in its metadata.csv.
    Raises ValueError if labels are not the model's, or it was trained on some of the images. Warns of unreadable ones.
    """
    found: dict[str, ImageDataset] = {}
    for path in paths:
        given, name = read_source(path), apart(Path(path).expanduser().resolve().stem, found)
        source = Path(given["SOURCE"])
        of_labels = any((source / (folder_name(label) or label)).is_dir() for label in model.labels)
        if not {"CSV", "LABEL_COLUMN"} & {*given} and (source / "metadata.csv").is_file() and not of_labels:
            given["LABEL_COLUMN"] = "label"
        dataset = ImageDataset.from_parameters(given, one_label=True)
        inputs.targets(dataset, model.labels, name)
        if model.seen and (known := splitting.seen(dataset, model.seen, by_name=False)).any():
            images = listed(dataset.table["path"][known])
            raise ValueError(f"{name} is no external test: the model was trained on these images:{images}")
        found[name] = inputs.readable(dataset, name, model.image_size, model.backbone)[0]
    return found


def score(
    model: ImageClassifier, internal: Evaluation, sets: dict[str, ImageDataset]
) -> dict[str, Evaluation]:
    """Evaluate a model on external sets; the evaluation of its own, `internal` test images comes first.

    Each table gets the column ``distance``: `ImageClassifier.outlier_distance`, 0 if the model has no limit.
    """
    tests = {apart("internal test", sets): internal}
    tests |= {name: evaluate(model, dataset, internal.positive) for name, dataset in sets.items()}
    for name, each in tests.items():
        far = model.outlier_distance(each.table["path"].tolist()) if model.outliers else 0.0
        tests[name] = replace(each, table=each.table.assign(distance=far))
    return tests


def compare(tests: dict[str, Evaluation]) -> pd.DataFrame:
    """Return the figures of each test, by test and `TITLES`: value, low, high (95 %, over lesions) and text.

    Sensitivity and specificity are those at the stored threshold. First come the numbers of images and lesions.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, [0.1, 0.9, 0.6, 0.7] * 10).at(0.5)
    >>> made.table["distance"] = [0.5, 2.0] * 20
    >>> compare({"clinic": made})["text"].loc["clinic"][["images", "sensitivity", "rejected"]].tolist()
    ['40', '1.000 [0.832, 1.000]', '0.500 [0.325, 0.675]']
    """
    rows: dict[tuple[str, str], tuple] = {}
    for name, each in tests.items():
        far, groups = each.table["distance"], each.table["group"]
        labels, classes = ["rejected"] * len(far), ["scored", "rejected"]  # a recall, for its interval
        rejection = Evaluation.from_scores(labels, far > 1, groups, classes, "rejected")
        known = splitting.group_count(each.table)["groups"]
        rows[name, "images"] = len(far), np.nan, np.nan, f"{len(far):,}"
        rows[name, "lesions"] = known, np.nan, np.nan, "unknown" if known is None else f"{known:,}"
        for metric, title in TITLES.items():
            of, metric = (rejection, "recall") if metric == "rejected" else (each, metric)
            rows[name, title] = of.metric(metric), *of.interval(metric), of.text(metric)
            if title in ("sensitivity", "specificity") and each.threshold is None:
                rows[name, title] = np.nan, np.nan, np.nan, "no threshold is stored"
    index = pd.MultiIndex.from_tuples(rows, names=["test", "figure"])
    return pd.DataFrame([*rows.values()], index, ["value", "low", "high", "text"])


def local_labels(
    model: ImageClassifier,
    evaluation: Evaluation,
    sensitivity: float = 0.9,
    counts: Sequence[int] = (20, 40, 80),
    repeats: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what so many labeled local lesions buy, by number and `LOCAL`: mean, low, high (2.5, 97.5 %), text.

    From an evaluation by `score`, lesions are drawn `repeats` times, their labels in proportion. Temperature, threshold
    and limit are fitted to their images as `ImageClassifier.finish` does, and measured on the rest. 0 is the model as
    it is, on all images. Numbers at which a part may lack a label are left out. Raises ValueError with one label only.
    """
    positive, groups, far = evaluation.positives()[0], evaluation.table["group"], evaluation.table["distance"]
    lesions = pd.Series(positive).groupby(groups.to_numpy()).max()
    temperature, offsets = model.metadata["temperature"], np.asarray(model.metadata["offsets"] or [0, 0])
    order = [1, 0] if evaluation.classes[0] == evaluation.positive else [0, 1]
    raw = calibration.apply(evaluation.scores, 1 / temperature, -temperature * offsets)[:, order]

    def fitted(local):
        found = positive[local].astype(int), raw[local], groups[local]
        scores = calibration.apply(raw, *calibration.fit(*found)) if model.is_fine_tuned else raw
        threshold = metrics.choose_threshold(positive[local], scores[local, 1], sensitivity)
        limit = outliers.limit(far[local].to_numpy()) if far.any() else 1
        return _measured(positive[~local], scores[~local], threshold, far[~local] > limit)

    at = 0.5 if evaluation.threshold is None else evaluation.threshold
    rows = {0: [_measured(positive, evaluation.scores[:, order], at, far > 1)]}
    for count in counts:
        # one lesion of the rarer label is drawn, and one is left
        if lesions.value_counts().min() * min(count, len(lesions) - count) >= len(lesions):
            splitter = StratifiedShuffleSplit(repeats, train_size=count, random_state=seed)
            chosen = [lesions.index[drawn] for drawn, _ in splitter.split(lesions, lesions)]
            rows[count] = [fitted(groups.isin(each).to_numpy()) for each in chosen]
    tables = {count: pd.DataFrame(each, columns=LOCAL) for count, each in rows.items()}
    table = pd.concat(tables, names=["labels"])
    by = table.rename_axis(columns="figure").stack().groupby(level=["labels", "figure"], sort=False)
    found = pd.DataFrame({"mean": by.mean(), "low": by.quantile(0.025), "high": by.quantile(0.975)})
    return found.assign(text=[f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in found.to_numpy()])


def _measured(positive, scores, threshold, rejected):
    """Return the figures of `LOCAL` for some images."""
    called, true = scores[:, 1] >= threshold, np.eye(2)[positive.astype(int)]
    ece = metrics.probabilities(true, true, scores, np.ones((1, len(true))))["ece"][0, 0]
    return called[positive].mean(), 1 - called[~positive].mean(), ece, rejected.mean()
