"""Intervals: what the figures of some lesions say about those of all lesions of the same kind."""

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit


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
