"""95 % intervals: what the metrics of some lesions say about those of all lesions of the same kind."""

from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import beta

from .. import metrics

TAIL = (1 - 0.95) / 2
"""The share that an interval leaves out at each end."""
FEW = 5
"""With fewer lesions on the rarer side of a share, its interval is binomial."""
SHARES = ("accuracy", "recall", "specificity", "precision", "npv")
AREAS = ("roc_auc", "partial_roc_auc", "average_precision")


def of_metric(evaluation: Any, name: str) -> tuple[float, float]:
    """Return the interval of one metric of an `Evaluation`: (low, high), NaN twice where it is undefined.

    It is `interval` as a rule, `of_agreement` if all draws agree, for instance because all lesions are right, and
    `of_share` for shares. ``partial_roc_auc`` needs `metrics.FEWEST` positive lesions.
    """
    value, two = evaluation.metric(name), len(evaluation.classes) == 2
    if np.isnan(value) or (name == "partial_roc_auc" and lesions(evaluation, "recall") < metrics.FEWEST):
        return float("nan"), float("nan")
    drawn, count = evaluation.draws(name), lesions(evaluation, name)
    if same(drawn) and name in metrics.LINE:
        return float("nan"), float("nan")
    if same(drawn):
        if name in AREAS and (evaluation.scores == evaluation.scores[0]).all():  # 0.5 whatever the lesions
            return value, value
        return of_agreement(value, count, -np.log(np.finfo(float).eps) if name == "log_loss" else 1.0)
    without = evaluation.jackknife(name)
    if name in SHARES and (two or name == "accuracy"):
        return of_share(value, drawn, count, without)
    if name == "f1" and two:
        # F / (2 - F) is a share: of the images positive or predicted so, those that are both
        low, high = of_share(value / (2 - value), drawn / (2 - drawn), count, without / (2 - without))
        return 2 * low / (1 + low), 2 * high / (1 + high)
    low, high = interval(value, drawn, without, name == "ece")
    if name == "balanced_accuracy" and two:  # at least as wide as either half makes it
        for half in ("recall", "specificity"):
            ends = np.subtract(of_metric(evaluation, half), evaluation.metric(half)) / 2
            low, high = np.fmin(low, value + ends[0]), np.fmax(high, value + ends[1])
    least = -np.inf if name in metrics.LINE else 0  # no other metric is negative
    return float(np.maximum(low, least)), float(np.maximum(high, least))


def lesions(evaluation: Any, name: str) -> int:
    """Count the lesions that a metric rests on; if it rests on several kinds, such as both labels, the rarer."""
    true, predicted, _ = evaluation.arrays
    column = slice(None) if len(evaluation.classes) > 2 else [evaluation.classes.index(evaluation.positive)]
    actual, called = true[:, column] > 0, predicted[:, column] > 0
    kinds = {each: [actual, ~actual] for each in ("balanced_accuracy", *AREAS)} | {
        "recall": [actual],
        "specificity": [~actual],
        "precision": [called],
        "npv": [~called],
        "f1": [actual | called],
    }
    chosen = np.concatenate(kinds.get(name, [np.ones_like(actual)]), axis=1)
    return min(len(np.unique(evaluation.rows_by_group[1][rows])) for rows in chosen.T)


def same(draws: np.ndarray) -> bool:
    """Tell whether all draws but the NaN agree, so that they say nothing about chance."""
    draws = draws[~np.isnan(draws)]
    return bool(len(draws)) and bool(np.ptp(draws) < 1e-12)


def of_agreement(value: float, lesions: int, most: float = 1.0) -> tuple[float, float]:
    """Return the exact interval of a value, 0 to `most`, in which every draw agrees: (low, high).

    If `lesions` independent lesions behave alike, at most 1 - TAIL ** (1 / lesions) of all do not (Clopper and Pearson,
    The use of confidence or fiducial limits illustrated in the case of the binomial, 1934), and move the value no more
    than if each were at an end.
    """
    others = 1 - TAIL ** (1 / lesions)
    return value * (1 - others), value + (most - value) * others


def of_share(
    value: float, draws: np.ndarray, lesions: int, jackknife: np.ndarray | None = None
) -> tuple[float, float]:
    """Return the interval of a share whose draws differ: (low, high).

    Near 0 or 1 the bootstrap knows too little. With fewer than `FEW` lesions on the rarer side, the interval is
    binomial, with the effective number of lesions that explains the variance of the draws (Korn and Graubard,
    Confidence intervals for proportions with small expected number of positive counts estimated from survey data,
    1998). Else it is `interval`.
    """
    freedom = max(lesions - 1, 1)  # the draws vary by so much less than lesions collected anew
    variance = np.nanvar(draws) * lesions / freedom
    size = value * (1 - value) / variance * (ndtri(TAIL) / stdtrit(freedom, TAIL)) ** 2
    if min(value, 1 - value) * size >= FEW:
        return interval(value, draws, jackknife)
    count = value * size
    low = beta.ppf(TAIL, count, size - count + 1) if value > 0 else 0.0
    high = beta.ppf(1 - TAIL, count + 1, size - count) if value < 1 else 1.0
    return float(low), float(high)


def interval(
    value: float, draws: np.ndarray, jackknife: np.ndarray | None = None, folded: bool = False
) -> tuple[float, float]:
    """Return the bootstrap interval of a value: (low, high), NaN twice where undefined. NaN draws are left out.

    The BCa interval (Efron, Better bootstrap confidence intervals, 1987), its acceleration from `jackknife`, the value
    without each part of the data. It reaches as far as Student's t, expanded as in Hesterberg (What teachers should
    know about the bootstrap, 2015), with Satterthwaite's degrees of freedom (An approximate distribution of estimates
    of variance components, 1946). Without `jackknife` it is the plain percentile interval. The draws of a `folded`
    value, a sum of distances, which chance can only enlarge, are moved down: by their bias at the upper end, and to the
    mean of a folded normal at the lower. Coverage: tests/bench/bench_intervals.py.
    """
    draws = draws[~np.isnan(draws)]
    if not len(draws) or np.isnan(value):
        return float("nan"), float("nan")
    if jackknife is None:
        low, high = np.quantile(draws, [TAIL, 1 - TAIL])
        return float(min(low, value)), float(max(high, value))
    acceleration, freedom = _shape(jackknife[~np.isnan(jackknife)])
    reach = stdtrit(freedom, 1 - TAIL) * np.sqrt(1 + 1 / freedom) * np.array([-1, 1])
    if folded:
        mean, rest = draws.mean(), np.sqrt(max(2 * value**2 - (draws**2).mean(), 0))
        low, high = np.quantile(draws, ndtr(reach)) - np.maximum([mean - rest, mean - value], 0)
    else:
        near = 1e-9 * (1 + abs(value))  # sums in another order; equal draws count half
        below = ((draws < value - near).mean() + (draws <= value + near).mean()) / 2
        bias = ndtri(np.clip(below, 1 / len(draws), 1 - 1 / len(draws)))
        reach = bias + reach
        low, high = np.quantile(draws, ndtr(bias + reach / np.maximum(1 - acceleration * reach, 1e-9)))
    return float(min(low, value)), float(max(high, value))


def _shape(jackknife):
    """Return the acceleration of BCa and Satterthwaite's degrees of freedom; 0 and infinity without differences."""
    if len(jackknife) < 2 or same(jackknife):
        return 0.0, np.inf
    influence = jackknife.mean() - jackknife
    squares = (influence**2).sum()
    kurtosis = (influence**4).sum() / squares**2 - 1 / len(influence)
    return (influence**3).sum() / squares**1.5 / 6, 2 / max(kurtosis, 2 / (len(influence) - 1))
