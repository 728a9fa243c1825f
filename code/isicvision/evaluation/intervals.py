"""Intervals: what the figures of some lesions say about those of all lesions of the same kind."""

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import beta

FEW = 5
"""Lesions on the rarer side of a share, below which its interval is a binomial one."""


def same(draws: np.ndarray) -> bool:
    """Say whether all draws agree, those that are NaN left out; then they tell nothing about what chance does."""
    draws = draws[~np.isnan(draws)]
    return bool(len(draws)) and np.ptp(draws) < 1e-12


def of_agreement(value: float, lesions: int, level: float = 0.95, most: float = 1.0) -> tuple[float, float]:
    """Return the exact interval of a value in which every draw agrees: (low, high).

    Where `lesions` independent lesions behave alike, others that do not are at most 1 - (alpha / 2) ** (1 / lesions) of
    all: the bound of Clopper and Pearson (The use of confidence or fiducial limits illustrated in the case of the
    binomial, 1934). They move a value that lies from 0 to `most` by no more than as if each of them were at an end.
    It holds for a ROC AUC of 1, too: as many pairs as there are lesions of the rarer label share no lesion, and all are
    in order. So it does for means over classes, with the lesions of the rarest; of an average precision it is about
    right, as long as positive lesions are as frequent as here.
    """
    others = 1 - ((1 - level) / 2) ** (1 / lesions)
    return value * (1 - others), value + (most - value) * others


def of_share(
    value: float,
    draws: np.ndarray,
    lesions: int,
    level: float = 0.95,
    jackknife: np.ndarray | None = None,
) -> tuple[float, float]:
    """Return the interval of a share: (low, high).

    Of shares near 0 or 1 the bootstrap knows too little: where fewer than `FEW` lesions stand on the rarer side, it is
    the binomial interval with the effective number of lesions, that number by which the variance of the draws is
    explained (Korn and Graubard, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, 1998), and with all of `lesions` where the draws agree. Else see `interval`.
    """
    if same(draws):
        return of_agreement(value, lesions, level)
    tail = (1 - level) / 2
    known = lesions - 1  # degrees of freedom; the draws vary by so much less than lesions collected anew
    variance = np.nanvar(draws) * lesions / max(known, 1)
    size = value * (1 - value) / variance * (ndtri(tail) / stdtrit(max(known, 1), tail)) ** 2
    if min(value, 1 - value) * size >= FEW:
        return interval(value, draws, level, jackknife)
    count = value * size
    low = beta.ppf(tail, count, size - count + 1) if value > 0 else 0.0
    high = beta.ppf(1 - tail, count + 1, size - count) if value < 1 else 1.0
    return float(low), float(high)


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
