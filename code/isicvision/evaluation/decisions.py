"""From scores to decisions: move them to another prevalence, and count what a threshold leads to."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from .. import metrics
from ..checks import is_share
from .evaluation import PREFIX, Evaluation
from .intervals import interval


def at_prevalence(scores: np.ndarray, trained: ArrayLike, expected: ArrayLike) -> np.ndarray:
    """Move probabilities to where the classes are more or less frequent.

    Saerens, Latinne and Decaestecker, Adjusting the outputs of a classifier to new a priori probabilities, 2002.

    Parameters
    ----------
    scores : array of float, shape (images, classes)
    trained, expected : sequence of float, length classes
        Shares of the classes in training (all the same for ``class_weight="balanced"``), and where the model is used.

    Returns
    -------
    numpy.ndarray of float, shape (images, classes)
    """
    try:
        old, new = (np.asarray(shares, dtype=float) for shares in (trained, expected))
    except (TypeError, ValueError):
        raise ValueError(f"shares must be numbers, not {trained!r} and {expected!r}") from None
    if not old.shape == new.shape == np.shape(scores)[1:]:
        raise ValueError(
            f"shares are one for each of {np.shape(scores)[-1]} classes, not {trained!r} and {expected!r}"
        )
    old, new = old / old.sum(), new / new.sum()
    if not ((old > 0).all() and (new >= 0).all()):
        raise ValueError("shares must be positive (those expected may be 0)")
    moved = scores * new / old
    return moved / moved.sum(axis=1, keepdims=True)


def at_sensitivity(
    validation: Evaluation, test: Evaluation, sensitivity: float
) -> tuple[float, pd.DataFrame]:
    """Choose a threshold on validation images, and say what it reaches on test images.

    The interval holds the chance in both sets: each bootstrap draw chooses a threshold on drawn validation lesions and
    applies it to drawn test lesions (percentile interval: a threshold jumps too much for a jackknife). That of
    ``test.at(threshold)`` takes the threshold for given, and is too narrow to say whether the model keeps what was
    asked of it.

    Parameters
    ----------
    validation, test
        Of the same model and two classes.
    sensitivity
        Wanted, above 0, at most 1.

    Returns
    -------
    threshold : float
        As `Evaluation.choose_threshold` gives it.
    table : pandas.DataFrame
        Rows ``recall`` (sensitivity) and ``specificity`` on the test images; value, low and high (95 %).
    """
    if validation.positive != test.positive or {*validation.classes} != {*test.classes}:
        raise ValueError(
            "at_sensitivity takes two evaluations with the same classes and the same positive label, not "
            f"{validation.positive} of {', '.join(validation.classes)} and {test.positive} of {', '.join(test.classes)}"
        )
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
    at = test.at(threshold)
    rows = {}
    for name, drawn in (("recall", recall), ("specificity", specificity)):
        # the chance in both sets is no less than that in one
        ends = at.interval(name), interval(at.metric(name), np.concatenate(drawn))
        rows[name] = (at.metric(name), *np.fmin(*ends)[:1], *np.fmax(*ends)[1:])
    return threshold, pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])


def _arrays(evaluation):
    """Return what is positive, its scores, and the number of each image's group: three arrays, shape (images,)."""
    true, _, scores = evaluation.arrays
    column = evaluation.classes.index(evaluation.positive)
    return true[:, column] > 0, scores[:, column], evaluation.rows_by_group[1]


def per_thousand(evaluation: Evaluation, prevalence: float) -> pd.DataFrame:
    """Count what the decisions of an evaluation of two classes would mean for 1,000 people's lesions.

    Parameters
    ----------
    prevalence
        Share of positive lesions among those that will be shown to the model, above 0 and below 1. That of the test
        images is rarely that of a clinic.

    Returns
    -------
    pandas.DataFrame
        Rows: ``referred`` (predicted positive), ``found`` and ``missed`` positive lesions, ``false_alarms``; columns:
        value, low and high of the 95 % interval.
    """
    _check_two(evaluation, prevalence)
    sick, well = 1000 * prevalence, 1000 * (1 - prevalence)

    def count(recall, specificity):
        found, alarms = sick * recall, well * (1 - specificity)
        return {
            "referred": found + alarms,
            "found": found,
            "missed": sick - found,
            "false_alarms": alarms,
        }

    names = ("recall", "specificity")
    values = count(*(evaluation.metric(name) for name in names))
    draws = count(*(evaluation.draws(name) for name in names))
    without = count(*(evaluation.jackknife(name) for name in names))
    table = pd.DataFrame(values, index=["value", "low", "high"]).T
    recall, specificity = (evaluation.interval(name) for name in names)
    least, most = count(recall[0], specificity[1]), count(recall[1], specificity[0])
    table.loc["found", ["low", "high"]] = least["found"], most["found"]
    table.loc["missed", ["low", "high"]] = most["missed"], least["missed"]
    table.loc["false_alarms", ["low", "high"]] = least["false_alarms"], most["false_alarms"]
    low, high = interval(values["referred"], draws["referred"], jackknife=without["referred"])
    for part in ("found", "false_alarms"):  # at least as wide as either part makes it
        below, above = table.loc[part, ["low", "high"]] - values[part]
        low, high = min(low, values["referred"] + below), max(high, values["referred"] + above)
    table.loc["referred", ["low", "high"]] = low, high
    return table


def _check_two(evaluation, prevalence):
    """Raise ValueError unless there are two classes, and `prevalence` is a share."""
    if len(evaluation.classes) != 2:
        raise ValueError(
            f"this takes an evaluation of two classes, not {len(evaluation.classes)}; see against()"
        )
    if not is_share(prevalence):
        raise ValueError(f"prevalence is a share above 0 and below 1, not {prevalence!r}")


def net_benefit(
    evaluation: Evaluation, prevalence: float | None = None, thresholds: np.ndarray | None = None
) -> pd.DataFrame:
    """Weigh found positive lesions against false alarms at each threshold: a decision curve.

    At the threshold p a false alarm counts p / (1 - p) as much as a found lesion: who refers at 5 % accepts 19 false
    alarms for one lesion (Vickers and Elkin, Decision Curve Analysis, 2006). There must be two classes, and the scores
    calibrated.

    Parameters
    ----------
    prevalence
        As of `per_thousand`; default: the share of the images. Scores move with it, see `at_prevalence`.
    thresholds : array of float, optional
        Above 0 and below 1; default: 0.01 to 0.5.

    Returns
    -------
    pandas.DataFrame
        ``threshold``, and the net benefit per image of the ``model``, of referring ``all``, and of ``none`` (0).
    """
    given = np.arange(1, 51) / 100 if thresholds is None else np.asarray(thresholds, dtype=object)
    if wrong := [value for value in np.ravel(given).tolist() if not is_share(value)]:
        raise ValueError(f"thresholds are above 0 and below 1, not {wrong[0]!r}")
    thresholds = np.ravel(given).astype(float)
    positive = (evaluation.table["label"] == evaluation.positive).to_numpy()
    moved, prevalence = _at_prevalence(evaluation, evaluation.scores, prevalence)
    from_here = thresholds * (1 - 1e-9)  # a score that equals the threshold but for rounding reaches it
    recall, rate = (
        1 - np.searchsorted(np.sort(part), from_here) / len(part)
        for part in (moved[positive], moved[~positive])
    )
    odds = thresholds / (1 - thresholds)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "model": prevalence * recall - (1 - prevalence) * rate * odds,
            "all": prevalence - (1 - prevalence) * odds,
            "none": 0.0,
        }
    )


def risk(evaluation: Evaluation, prevalence: float | None = None) -> float:
    """Return the probability that the threshold of an evaluation, a score, stands for at a prevalence.

    `prevalence` as in `net_benefit`, on whose axis of risks it is the model's own place. ValueError if the evaluation
    has no threshold.
    """
    if evaluation.threshold is None:
        raise ValueError("this evaluation has no threshold: see Evaluation.at")
    score = min(evaluation.threshold, 1)  # of one that calls none
    scores = [1 - score, score] if evaluation.positive == evaluation.classes[1] else [score, 1 - score]
    return float(_at_prevalence(evaluation, np.array([scores]), prevalence)[0][0])


def _at_prevalence(evaluation, scores, prevalence):
    """Return the scores of the positive label at a prevalence, by default the images' own, and that prevalence."""
    share = float((evaluation.table["label"] == evaluation.positive).mean())
    if not 0 < share < 1:
        raise ValueError(f"a decision curve needs images with and without the label {evaluation.positive!r}")
    prevalence = share if prevalence is None else prevalence
    _check_two(evaluation, prevalence)
    column = evaluation.classes.index(evaluation.positive)
    shares = [[1 - each, each] if column == 1 else [each, 1 - each] for each in (share, prevalence)]
    return at_prevalence(scores, *shares)[:, column], prevalence


def reliability(evaluation: Evaluation, bins: int = 10) -> pd.DataFrame:
    """Compare the scores of the positive class with how often it is true, in bins of as many images.

    Parameters
    ----------
    bins
        Fewer where there are not 10 images for each.

    Returns
    -------
    pandas.DataFrame
        A row a bin: mean ``score``, ``share`` of positive images, its 95 % Wilson interval ``low`` and ``high``
        (which takes each image for one of its own), and ``images``.
    """
    scores = evaluation.table[PREFIX + evaluation.positive].to_numpy()
    positive = (evaluation.table["label"] == evaluation.positive).to_numpy()
    order = np.argsort(scores, kind="stable")
    rows = []
    for part in np.array_split(order, max(1, min(bins, len(order) // 10))):
        count = int(positive[part].sum())
        low, high = binomtest(count, len(part)).proportion_ci(method="wilson")
        rows.append((scores[part].mean(), count / len(part), low, high, len(part)))
    return pd.DataFrame(rows, columns=["score", "share", "low", "high", "images"])
