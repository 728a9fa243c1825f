"""Has what the service sees changed? A day of its log against the images that the model was checked on.

New cameras, other patients or a broken upload show in the scores and in the distances from the training images
before anybody has the true labels. Two measures, both of the one distribution against the other: the population
stability index (PSI; Siddiqi, *Credit Risk Scorecards*, 2006: below 0.1 little, above 0.25 much) says how far it has
moved, the two-sample Kolmogorov-Smirnov test how sure that is. The numbers of refused images are compared by Fisher's
exact test. tests/bench/bench_drift.py counts the false alarms of each.
"""

import json
import os
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from ..checks import is_number, is_whole
from ..files import user_path
from ..text import as_label
from .bundle import read_metadata

ENOUGH = 50  # images: fewer say nothing of a distribution
SURE = 0.01  # p-values up to it count
FAR = 0.25  # PSI
BEYOND = 1.001  # a distance beyond the limit, 1
COLUMNS = ["images", "reference", "now", "psi", "p_value", "verdict"]


def drift(
    log: str | Path | Iterable[str],
    bundle: str | Path,
    reference: dict | None = None,
    day: str | date | None = None,
) -> pd.DataFrame:
    """Compare the images in a service's log with those that its model was checked on.

    Parameters
    ----------
    log
        The log's file (of `deploy_local`: ``service.log``), or its lines. What is no line of a request, or of another
        version of the model, or is damaged, is passed over; so is a score that is not a number.
    bundle
        Whose model.json holds the ``scores`` (a dict from label to the scores of held-out images, or equally spaced
        quantiles of them, and then in ``scores_images`` of how many) and, if the model was given a limit, quantiles of
        the ``distance``. Of older models these are few: the test then finds less.
    reference : dict of str to array-like, optional
        The same from elsewhere, by label or ``"distance"``: ``{"malignant": evaluation.scores}``.
    day
        Only the requests whose time starts with it, in UTC: ``"2026-11-25"``.

    Returns
    -------
    pandas.DataFrame
        A row for each label but the first, for the distance, and for the share of images refused, as far as there
        is something to compare with: ``images`` in the log, ``reference`` and ``now`` (medians; shares of the
        refused), ``psi``, ``p_value``, and ``verdict``: steady; moved, if the p-value is at most `SURE`; moved far, if
        the PSI is at least `FAR`, too, or twice as many are refused; or too few images. Where nothing has changed,
        about 1 % of the rows are called moved. Each image counts by itself: where many are of one lesion, the p-value
        is too small.

    Raises
    ------
    ValueError
        If nothing in the log is of this model, there is nothing to compare with, or `reference` has other keys, or
        values that are not finite.
    """
    card = read_metadata(bundle)
    if reference is not None and not isinstance(reference, dict):
        raise ValueError(f"reference is a dict from label to scores, not {type(reference).__name__}")
    day = day.isoformat()[:10] if isinstance(day, date) else day
    requests = [line for line in _read(log) if line.get("model") == card["version"] and _is_whole(line)]
    requests = [line for line in requests if line["time"].startswith(day or "")]
    if not requests:
        raise ValueError(
            f"the log holds no scored request of model {card['version']}{f' on {day}' if day else ''}"
        )

    known, counts = _reference(card)
    for name, values in (reference or {}).items():
        row = _row_of(name, card["labels"])
        known[row], counts[row] = _finite(values, name), None
    rows = {}
    for label in card["labels"][1:]:
        if known.get(name := f"score of {label}") is not None:
            scores = [
                scores.get(label)
                for line in requests
                for scores in line["scores"]
                if isinstance(scores, dict)
            ]
            scores = [score for score in scores if is_number(score, 0)]
            rows[name] = _compare(scores, known[name], counts[name])
    if known["distance"] is not None:
        distances, quantiles = _distances(requests, known["distance"])
        rows["distance"] = _compare(distances, quantiles, counts["distance"])
    if not rows:
        raise ValueError(
            f"{bundle}/model.json holds neither scores nor distances to compare with: give the scores of the "
            f'held-out images, drift(log, bundle, reference={{"{card["labels"][-1]}": scores}})'
        )
    if known["refused"] is not None:
        rows["refused"] = _compare_shares(requests, known["refused"])
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def _read(log):
    """Yield the lines of JSON about requests, also where a platform has put words before them."""
    if isinstance(log, (str, os.PathLike)):
        log = user_path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in log:
        try:
            found = json.loads(line[line.index("{") :])
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("event") == "request":
            yield found


def _is_whole(line):
    """Say whether a line about a request has all that is read of it."""
    lists = isinstance(line.get("scores"), list) and isinstance(line.get("distance", []), list)
    counts = all(is_whole(line.get(name), 0) for name in ("images", "refused"))
    return lists and counts and isinstance(line.get("time"), str)


def _row_of(name, labels):
    """Return the row for which `reference` has a key."""
    label = as_label(name)
    if label not in labels and label != "distance":
        raise ValueError(f'reference has {name!r}; its keys are "distance" or labels: {", ".join(labels)}')
    return f"score of {label}" if label in labels else "distance"


def _finite(values, name):
    try:
        values = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"reference[{name!r}] is to be a list of numbers, not {values!r}") from None
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"reference[{name!r}] is to be a list of numbers, none of them missing")
    return values


def _reference(card):
    """Return what there is to compare with by row, and of how many images it is where only quantiles are kept."""
    outliers, scores = card.get("outliers") or {}, card.get("scores") or {}
    known = {f"score of {label}": values or None for label, values in scores.items()}
    counts = dict.fromkeys(known, card.get("scores_images"))
    # older models have deciles
    known["distance"] = outliers.get("distance_quantiles", outliers.get("distance_deciles")) or None
    counts["distance"], known["refused"] = None, None
    if (held_out := outliers.get("held_out")) and held_out["images"]:
        count = counts["distance"] = held_out["images"]
        known["refused"] = round(held_out["refused"] * count), count
    return known, counts


def _distances(requests, known):
    """List the distances in a log, and return the quantiles to compare them with.

    Older services logged none of the images that they refused. Of those is known only that they lie beyond the limit,
    and of the others no more is asked.
    """
    found = [value for line in requests for value in line.get("distance", []) if is_number(value, 0)]
    if not found or max(found) > 1:
        return found, known
    return found + [BEYOND] * sum(line["refused"] for line in requests), np.minimum(known, BEYOND)


def _compare(values, reference, count=None):
    """Compare values with sorted values or equally spaced quantiles; `count` is of how many values they are."""
    reference = np.quantile(np.asarray(reference, float), np.linspace(0, 1, len(reference)))
    median = np.median(reference)
    if not len(values):
        return _row(0, median)
    values = np.sort(values)
    if np.allclose(values, values.round(4), rtol=0, atol=1e-9):  # as older services logged: round both alike
        values, reference = values.round(4), reference.round(4)
    psi, p_value = _psi(values, reference), _kolmogorov_smirnov(values, reference, count or len(reference))
    verdict = "steady" if p_value > SURE else "moved" if psi < FAR else "moved far"
    return _row(len(values), median, np.median(values), psi, p_value, verdict)


def _kolmogorov_smirnov(values, quantiles, count):
    """Test whether sorted values come from where `count` others did: the p-value of the two-sample test.

    Of the others only equally spaced quantiles need be known: the two distributions are compared there and nowhere
    else, so that with few quantiles the test finds less. The greatest difference at these places is raised to what it
    is on average at all places (Siegmund, Corrected diffusion approximations, 1979).
    """
    # ranks, as numpy.quantile interpolates between them
    at = np.linspace(0, count - 1, len(quantiles)).round(6)
    least, most = (
        np.ceil(at) / count,
        (np.floor(at) + 1) / count,
    )  # shares of the others below, and up to a quantile
    below, up_to = (np.searchsorted(values, quantiles, side) / len(values) for side in ("left", "right"))
    size = max(1, round(count * len(values) / (count + len(values))))
    between = max(0, 1 / (len(quantiles) - 1) - 1 / (count - 1)) if 1 < len(quantiles) < count else 0
    distance = max((below - least).max(), (most - up_to).max()) + 0.5826 * np.sqrt(between / size)
    return float(stats.kstwo.sf(distance, size))


def _psi(values, reference):
    between = np.quantile(reference, np.linspace(0, 1, 1001))
    edges = np.unique(np.quantile(between, np.linspace(0.1, 0.9, 9)))
    shares = []
    for each in (values, between):
        counts = np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1)
        # no bin is empty: logarithms follow
        shares.append((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _compare_shares(requests, reference):
    """Compare two counts: Fisher's exact test from both sides, with the mid-p value (Lancaster, 1961).

    The limit was chosen on the held-out images, so that a new one passes it with this chance even if none of them does.
    """
    refused_before, before = reference
    count, refused = (sum(line[name] for line in requests) for name in ("images", "refused"))
    expected = (refused_before + 1) / (before + 1)
    if not count:
        return _row(0, expected)
    chance = stats.hypergeom(before + count, count, refused_before + refused)
    tail = min(chance.cdf(refused), chance.sf(refused - 1)) - chance.pmf(refused) / 2
    p_value = min(1.0, 2 * float(tail))
    verdict = "steady" if p_value > SURE else "moved" if refused / count < 2 * expected else "moved far"
    return _row(count, expected, refused / count, np.nan, p_value, verdict)


def _row(images, reference, now=np.nan, psi=np.nan, p_value=np.nan, verdict=""):
    """Return the values of `COLUMNS`."""
    return images, reference, now, psi, p_value, verdict if images >= ENOUGH else "too few images"
