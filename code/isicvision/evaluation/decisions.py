"""From scores to decisions: adapt them to another prevalence, and count the consequences of a threshold."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from .. import metrics
from ..checks import is_share
from ..data.associations import confirmed_alike
from .evaluation import PREFIX, Evaluation
from .intervals import interval


def at_prevalence(scores: np.ndarray, trained: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Adapt probabilities, shape (images, classes), to a place where the classes are more or less frequent.

    `trained` and `expected` are the shares of the classes in training (equal for ``class_weight="balanced"``) and where
    the model is used (Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori
    probabilities, 2002).

    >>> at_prevalence(np.array([[0.5, 0.5]]), [0.5, 0.5], [0.9, 0.1])
    array([[0.9, 0.1]])
    """
    try:
        old, new = (np.asarray(shares, dtype=float) / np.sum(shares) for shares in (trained, expected))
        if not old.shape == new.shape == np.shape(scores)[1:] or not ((old > 0).all() and (new >= 0).all()):
            raise ValueError("one is missing, too many or negative")
    except (TypeError, ValueError):
        classes = np.shape(scores)[-1]
        given = f"{trained!r} and {expected!r}"
        raise ValueError(f"give {classes} shares, one for each class, above 0, not {given}") from None
    moved = scores * new / old
    return moved / moved.sum(axis=1, keepdims=True)


def at_sensitivity(
    validation: Evaluation, test: Evaluation, sensitivity: float
) -> tuple[float, pd.DataFrame]:
    """Choose a threshold on validation images, and measure it on test images: (threshold, table).

    The table has the rows ``recall`` and ``specificity`` on the test images, with value, low and high. The 95 %
    interval covers chance in both sets: each draw of validation lesions chooses a threshold for a draw of test lesions.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, np.linspace(0, 1, 40))
    >>> threshold, table = at_sensitivity(made, made, sensitivity=0.9)
    >>> round(threshold, 3), table.loc["recall", "value"]
    (0.115, np.float64(0.9))
    """
    if validation.positive != test.positive or {*validation.classes} != {*test.classes}:
        of = [f"{each.positive} of {', '.join(each.classes)}" for each in (validation, test)]
        raise ValueError(f"both evaluations need the same classes and the same positive label, not {of}")
    threshold = validation.choose_threshold(sensitivity=sensitivity)
    chosen_on, chosen_scores, chosen_groups = _arrays(validation)
    order = np.flatnonzero(chosen_on)[np.argsort(-chosen_scores[chosen_on], kind="stable")]
    positive, scores, groups = _arrays(test)
    recall, specificity = [], []
    for weights, draws in zip(metrics.draws(chosen_groups, seed=1), metrics.draws(groups), strict=True):
        found = weights[:, order].cumsum(axis=1)
        thresholds = chosen_scores[order][(found >= sensitivity * found[:, -1:] - 1e-9).argmax(axis=1)]
        called = scores >= thresholds[:, None]
        with np.errstate(invalid="ignore"):
            recall.append((draws * (called & positive)).sum(axis=1) / (draws @ positive))
            specificity.append((draws * (~called & ~positive)).sum(axis=1) / (draws @ ~positive))
    at, rows = test.at(threshold), {}
    for name, drawn in (("recall", recall), ("specificity", specificity)):
        # at least as wide as chance in one set makes it
        ends = at.interval(name), interval(at.metric(name), np.concatenate(drawn))
        rows[name] = (at.metric(name), np.fmin(*ends)[0], np.fmax(*ends)[1])
    return threshold, pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def _arrays(evaluation):
    true, _, scores = evaluation.arrays
    column = evaluation.classes.index(evaluation.positive)
    return true[:, column] > 0, scores[:, column], evaluation.rows_by_group[1]


def populations(evaluation: Evaluation) -> dict[str, Evaluation]:
    """Return the evaluations to quote side by side: of ``all`` images, and of those ``confirmed alike``.

    The second (`associations.confirmed_alike`), for a clinic that decides about excisions, is left out if the same.

    >>> ways = pd.DataFrame({"dx_type": ["follow_up", "histo", "histo"]})
    >>> [*populations(Evaluation.from_scores(["benign", "benign", "malignant"], [0.1, 0.6, 0.7], metadata=ways))]
    ['all', 'confirmed alike']
    """
    alike = evaluation.where(confirmed_alike(evaluation.table))
    is_part = 0 < len(alike.table) < len(evaluation.table)
    return {"all": evaluation} | ({"confirmed alike": alike} if is_part else {})


def per_thousand(evaluation: Evaluation, prevalence: float) -> pd.DataFrame:
    """Count what the decisions of an evaluation with two classes mean for 1,000 lesions: value, low and high (95 %).

    The rows are ``referred`` (predicted positive), ``found`` and ``missed`` positive lesions, ``false_alarms``. The
    prevalence is the share of positive lesions where the model is used.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, [0.1, 0.9, 0.6, 0.9] * 10)
    >>> per_thousand(made, prevalence=0.05)["value"].round().to_dict()
    {'referred': 525.0, 'found': 50.0, 'missed': 0.0, 'false_alarms': 475.0}
    """
    _check_two(evaluation, prevalence)
    sick, well, names = 1000 * prevalence, 1000 * (1 - prevalence), ("recall", "specificity")

    def count(recall, specificity):
        found, alarms = sick * recall, well * (1 - specificity)
        return {"referred": found + alarms, "found": found, "missed": sick - found, "false_alarms": alarms}

    each = evaluation.metric, evaluation.draws, evaluation.jackknife
    values, draws, without = (count(*map(get, names)) for get in each)
    recall, specificity = map(evaluation.interval, names)
    least, most = count(recall[0], specificity[1]), count(recall[1], specificity[0])
    low, high = interval(values["referred"], draws["referred"], without["referred"])
    for part in ("found", "false_alarms"):  # at least as wide as either part makes it
        low = min(low, values["referred"] + (least[part] - values[part]))
        high = max(high, values["referred"] + (most[part] - values[part]))
    rows = {name: (value, *sorted((least[name], most[name]))) for name, value in values.items()}
    rows["referred"] = values["referred"], low, high
    return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def _check_two(evaluation, prevalence):
    if len(evaluation.classes) != 2:
        count = len(evaluation.classes)
        raise ValueError(f"this needs an evaluation with two classes, not {count}: see Evaluation.against")
    if not is_share(prevalence):
        raise ValueError(f"prevalence must be above 0 and below 1, not {prevalence!r}")


def net_benefit(evaluation: Evaluation, prevalence: float | None = None) -> pd.DataFrame:
    """Weigh found positive lesions against false alarms: a decision curve, from calibrated scores of two classes.

    At the threshold p a false alarm counts p / (1 - p) times as much as a found lesion: referring at 5 % accepts 19
    false alarms for one lesion (Vickers and Elkin, Decision Curve Analysis, 2006). The table has ``threshold``, 0.01 to
    0.5, and the net benefit per image of the ``model``, of referring ``all``, and of ``none`` (0). Scores are adapted
    to the prevalence, by default the share of positive images in these.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, [0.1, 0.9] * 20)
    >>> net_benefit(made).round(3).loc[19].to_dict()
    {'threshold': 0.2, 'model': 0.5, 'all': 0.375, 'none': 0.0}
    """
    thresholds = np.arange(1, 51) / 100
    positive, scores = evaluation.positives()
    moved, prevalence = _at_prevalence(evaluation, scores, prevalence)
    from_here = thresholds * (1 - 1e-9)  # a score may equal the threshold up to rounding
    recall, rate = (
        1 - np.searchsorted(np.sort(part), from_here) / len(part)
        for part in (moved[positive], moved[~positive])
    )
    odds = thresholds / (1 - thresholds)
    model = prevalence * recall - (1 - prevalence) * rate * odds
    everyone = prevalence - (1 - prevalence) * odds
    return pd.DataFrame({"threshold": thresholds, "model": model, "all": everyone, "none": 0.0})


def risk(evaluation: Evaluation, prevalence: float | None = None) -> float:
    """Return an evaluation's threshold as a probability at a prevalence: its place on the axis of `net_benefit`.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, [0.1, 0.9] * 20, threshold=0.5)
    >>> risk(made, prevalence=0.05)
    0.05
    """
    if evaluation.threshold is None:
        raise ValueError("this evaluation has no threshold: choose one with Evaluation.at")
    score = np.array([min(evaluation.threshold, 1)])  # CALL_NONE is above 1
    return float(_at_prevalence(evaluation, score, prevalence)[0][0])


def _at_prevalence(evaluation, scores, prevalence):
    """Return scores of the positive label at a prevalence, by default the images' own, and that prevalence."""
    share = evaluation.positives()[0].mean()
    prevalence = share if prevalence is None else prevalence
    _check_two(evaluation, prevalence)
    pairs = (np.stack([1 - each, each], axis=-1) for each in (scores, share, prevalence))
    return at_prevalence(*pairs)[:, 1], prevalence


def reliability(evaluation: Evaluation) -> pd.DataFrame:
    """Compare the scores of the positive label with the share of positive images, in bins of equally many images.

    A row for each of at most `metrics.BINS` bins, of at least 10 images: mean ``score``, ``share`` of positive images
    with its 95 % Wilson interval ``low`` and ``high`` (over images, not lesions), and ``images``.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 20, np.linspace(0, 1, 40))
    >>> reliability(made)["share"].tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    scores = evaluation.table[PREFIX + evaluation.positive].to_numpy()
    positive = (evaluation.table["label"] == evaluation.positive).to_numpy()
    rows, bins = [], max(1, min(metrics.BINS, len(scores) // 10))
    for part in np.array_split(np.argsort(scores, kind="stable"), bins):
        count = int(positive[part].sum())
        low, high = binomtest(count, len(part)).proportion_ci(method="wilson")
        rows.append((scores[part].mean(), count / len(part), low, high, len(part)))
    return pd.DataFrame(rows, columns=["score", "share", "low", "high", "images"])
