"""Metrics of many bootstrap draws at once: as scikit-learn's, many times faster (tests/bench/bench_intervals.py)."""

from collections.abc import Iterator

import numpy as np
from scipy.special import expit, logit

from .checks import CALL_NONE, is_number

RESAMPLES, BAND_RESAMPLES = 2000, 500
"""The number of draws for an interval, and for the bands around a curve."""
SENSITIVITY = 0.8
"""`partial_roc_auc` measures the ROC curve from this sensitivity on."""
FEWEST = 30
"""`partial_roc_auc`, which rests on a fifth of the positive lesions, has no interval with fewer of them."""
BINS = 10
"""The number of bins of the expected calibration error."""
PARTS = 200
"""The largest number of parts that the jackknife cuts the lesions into."""
BLOCK = 50
"""Draws computed at once, to bound the memory."""


def draws(groups: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each image occurs in bootstrap draws of groups: arrays of float, shape (up to `BLOCK`, images).

    Lesions, not images, are drawn, because images of one lesion resemble each other (Davison and Hinkley, Bootstrap
    Methods and their Application, 1997, section 3.8). `groups` are the images' own, numbered from 0 without gaps.
    """
    random = np.random.default_rng(seed)
    count = int(groups.max()) + 1
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        drawn = random.integers(0, count, (rows, count)) + np.arange(rows)[:, None] * count
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times.astype(float).take(groups, axis=1)


def left_out(groups: np.ndarray) -> Iterator[np.ndarray]:
    """Yield weights as `draws` does for the jackknife: 0 for the images of one group, 1 for all others.

    More groups than `PARTS` are left out in that many parts, enough for the shape of a distribution (Efron and
    Narasimhan, The automatic construction of bootstrap confidence intervals, 2020).
    """
    count = int(groups.max()) + 1
    part = (np.random.default_rng(0).permutation(count) % PARTS)[groups]
    numbers = np.arange(min(PARTS, count))[:, None]
    for start in range(0, len(numbers), BLOCK):
        yield (part != numbers[start : start + BLOCK]).astype(float)


def counts(
    true: np.ndarray, predicted: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of the confusion matrix by name: arrays of float, NaN where one is not defined.

    Truth, predictions (0 or 1) and scores have the shape (images, classes), weights, how much each image counts,
    (draws, images). A metric has the shape (draws, classes), each class against the others; accuracies have (draws, 1).
    """
    right, actual, called = weights @ (true * predicted), weights @ true, weights @ predicted
    total = weights.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 is NaN: not defined
        recall = right / actual
        return {
            "accuracy": right.sum(axis=1, keepdims=True) / total,
            "balanced_accuracy": recall.mean(axis=1, keepdims=True),
            "recall": recall,
            "specificity": (total - actual - called + right) / (total - actual),
            "precision": right / called,
            "npv": (total - actual - called + right) / (total - called),
            "f1": 2 * right / (actual + called),
        }


def _by_class(area):
    """Make a function of an area for one class, shape (draws,), a function for all classes, as `counts` is."""

    def areas(true, predicted, scores, weights):
        each = [area(true[:, n] > 0, scores[:, n], weights) for n in range(true.shape[1])]
        return {area.__name__: np.stack(each, axis=1)}

    areas.__doc__ = area.__doc__
    return areas


@_by_class
def roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve: how often a positive image has a higher score; equal ones count half."""
    order = np.flatnonzero(positive)[np.argsort(scores[positive], kind="stable")]
    negative = np.flatnonzero(~positive)
    negative = negative[np.argsort(scores[negative])]  # so that memory is read in order
    below = np.zeros((len(weights), len(order) + 1))
    np.cumsum(weights[:, order], axis=1, out=below[:, 1:])
    first = np.searchsorted(scores[order], scores[negative], "left")
    last = np.searchsorted(scores[order], scores[negative], "right")
    weights = weights[:, negative]
    lost = np.einsum("ij,ij->i", weights, below[:, first])
    if (first != last).any():
        lost = (lost + np.einsum("ij,ij->i", weights, below[:, last])) / 2
    pairs = weights.sum(axis=1) * below[:, -1]
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: not defined
        return 1 - lost / pairs


def _steps(positive, scores, weights):
    """Return how many positive and negative images each lower score adds: two arrays, shape (draws, scores)."""
    order = np.argsort(-scores, kind="stable")
    # images with the same score share a step
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    weights = weights[:, order]
    hits = np.add.reduceat(weights * positive[order], starts, axis=1)
    return hits, np.add.reduceat(weights * ~positive[order], starts, axis=1)


@_by_class
def average_precision(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean over positive images of the precision among the images with at least their score."""
    more_hits, more_alarms = _steps(positive, scores, weights)
    hits, alarms = more_hits.cumsum(axis=1), more_alarms.cumsum(axis=1)
    precision = hits / np.maximum(hits + alarms, 1)
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: not defined
        area = np.einsum("ij,ij->i", more_hits, precision) / hits[:, -1]
    return np.where(alarms[:, -1] > 0, area, np.nan)


@_by_class
def partial_roc_auc(positive: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean specificity over the sensitivities from `SENSITIVITY` on: a part of the ROC curve's area.

    Jiang, Metz and Nishikawa, A receiver operating characteristic partial area index for highly sensitive diagnostic
    tests, 1996.
    """
    more_hits, more_alarms = _steps(positive, scores, weights)
    hits, alarms = more_hits.cumsum(axis=1), more_alarms.cumsum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # of each step's rise the part above SENSITIVITY, times the mean specificity on that part
        start, stop = (np.maximum(each / hits[:, -1:], SENSITIVITY) for each in (hits - more_hits, hits))
        middle = ((start + stop) / 2 - (hits - more_hits) / hits[:, -1:]) * hits[:, -1:] / more_hits
        middle = np.where(more_hits > 0, middle, 0)
        specificity = 1 - (alarms - more_alarms + middle * more_alarms) / alarms[:, -1:]
        return ((stop - start) * specificity).sum(axis=1) / (1 - SENSITIVITY)


def on_grid(
    positive: np.ndarray, scores: np.ndarray, weights: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return both curves of every draw at the same places, for a band: two arrays, shape (draws, places).

    They are the recall at these false positive rates, and the highest precision at these recalls or more. `positive`
    (bool) and `scores` have the shape (images,), weights (draws, images), the grid, from 0 to 1, (places,).
    """
    hits, alarms = (each.cumsum(axis=1) for each in _steps(positive, scores, weights))
    with np.errstate(invalid="ignore"):
        recall, rate = hits / hits[:, -1:], alarms / alarms[:, -1:]
    precision = hits / np.maximum(hits + alarms, 1)
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = [np.interp(grid, [0, *x], [0, *y]) for x, y in zip(rate, recall, strict=True)]
    last = recall.shape[1] - 1
    places = [np.minimum(np.searchsorted(x, grid), last) for x in recall]
    return np.stack(found), np.stack([y[place] for y, place in zip(best, places, strict=True)])


def probabilities(
    true: np.ndarray, predicted: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics that take scores for probabilities, over all classes, as `counts` does: shape (draws, 1).

    The Brier score of two classes is that of one of them, as in scikit-learn. The expected calibration error (Guo et
    al., On Calibration of Modern Neural Networks, 2017) takes the score of the second of two classes, or the highest of
    more, in `BINS` bins of the same width.
    """
    total = weights.sum(axis=1, keepdims=True)
    two = true.shape[1] == 2
    squares = ((scores - true) ** 2).sum(axis=1, keepdims=True) / (2 if two else 1)
    tiny = np.finfo(scores.dtype).eps
    logs = -np.log(np.clip((scores * true).sum(axis=1, keepdims=True), tiny, 1))
    sure, right = (scores[:, 1], true[:, 1]) if two else (scores.max(axis=1), (true * predicted).sum(axis=1))
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    distance = np.zeros((len(bins), BINS))
    distance[np.arange(len(bins)), bins] = right - sure
    with np.errstate(invalid="ignore"):  # 0/0 is NaN: not defined
        return {
            "brier": weights @ squares / total,
            "log_loss": weights @ logs / total,
            "ece": np.abs(weights @ distance).sum(axis=1, keepdims=True) / total,
        }


FAMILIES = {
    **dict.fromkeys("accuracy balanced_accuracy recall specificity precision npv f1".split(), counts),
    "roc_auc": roc_auc,
    "partial_roc_auc": partial_roc_auc,
    "average_precision": average_precision,
    **dict.fromkeys(("brier", "log_loss", "ece"), probabilities),
}
"""The function that computes each metric, and with it those of its family."""
METRICS = tuple(FAMILIES)


def calibration_line(
    true: np.ndarray, predicted: np.ndarray, scores: np.ndarray, weights: np.ndarray
) -> dict[str, np.ndarray]:
    """Return ``calibration_intercept`` and ``calibration_slope``, as `counts` does; NaN where labels are separable.

    Of logistic regressions on the log-odds of the scores: the intercept where the slope is 1 (below 0 scores are too
    high), and the slope (below 1 they are too sure). Cox, Two further applications of a model for binary regression,
    1958; Van Calster et al., A calibration hierarchy for risk models: from utopia to empirical data, 2016.
    """
    odds = logit(np.clip(scores, 1e-6, 1 - 1e-6))
    pairs = [*zip(true.T > 0, odds.T, strict=True)]
    return {
        name: np.stack([_regress(*pair, weights, turns) for pair in pairs], axis=1)
        for turns, name in enumerate(LINE)
    }


def _regress(positive, odds, weights, turns):
    """Return the intercept where the slope is 1 or, if it `turns`, the slope, for each row of weights."""
    scale = (odds.std() or 1) if turns else 1  # else steps that are cut short come to an end too early
    x = np.stack([np.ones_like(odds), odds / scale], axis=1)[:, : 1 + turns]
    at, weights = np.zeros((len(weights), 1 + turns)), weights / weights.sum(axis=1, keepdims=True)
    for _ in range(30):  # Newton's steps, cut short where they would leap
        chance = expit(at @ x.T + odds * (not turns))
        spread = np.tensordot(weights * chance * (1 - chance), x[:, :, None] * x[:, None], 1)
        step = (np.linalg.pinv(spread) @ ((weights * (positive - chance)) @ x)[:, :, None])[:, :, 0]
        at += np.clip(step, -1, 1)
        if (np.abs(step) < 1e-9).all():
            break
    return np.where(np.abs(step).max(axis=1) < 1e-6, at[:, -1] / scale, np.nan)


LINE = ("calibration_intercept", "calibration_slope")
"""Metrics of an external test, the only ones that may be negative."""
FAMILIES |= dict.fromkeys(LINE, calibration_line)


def choose_threshold(
    positive: np.ndarray, scores: np.ndarray, sensitivity: float | None = None, cost: float | None = None
) -> float:
    """Choose the score from which on an image counts as positive: see `Evaluation.choose_threshold`."""
    if sensitivity is not None and cost is not None:
        raise ValueError("give sensitivity or cost, not both")
    if sensitivity is not None and not (is_number(sensitivity, 0) and 0 < sensitivity <= 1):
        raise ValueError(f"sensitivity is a share above 0, at most 1, not {sensitivity!r}")
    if cost is not None and not (is_number(cost, 0) and cost > 0):
        raise ValueError(f"cost is a positive number, not {cost!r}")
    from sklearn.metrics import roc_curve  # slow to import

    alarms, recall, levels = roc_curve(positive, scores, drop_intermediate=False)
    if sensitivity is not None:
        best = int(np.argmax(recall >= sensitivity - 1e-12))
    else:
        share = positive.mean()
        of_miss, of_alarm = (1, 1) if cost is None else (cost * share, 1 - share)
        best = int(np.argmin(of_miss * (1 - recall) + of_alarm * alarms))
    if not best and levels[1] == 1:  # nothing is positive
        return CALL_NONE
    at = levels[best] if best else 1.0
    below = scores[scores < at].max(initial=0.0)
    middle = (at + below) / 2
    return float(middle if middle > below else at)  # two neighboring floating-point numbers have no middle
