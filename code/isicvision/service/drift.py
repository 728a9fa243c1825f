"""Compare a service's log with the held-out images of its model, to see whether its images have changed.

New cameras, other patients or a broken upload show in the scores and distances long before the true labels are known.
The population stability index (PSI; Siddiqi, *Credit Risk Scorecards*, 2006) measures how far a distribution has moved,
the two-sample Kolmogorov-Smirnov test how certain that is; Fisher's exact test compares the numbers of refused images.
tests/bench/bench_drift.py counts the false alarms of each.
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

ENOUGH = 50  # images; fewer say nothing about a distribution
SURE = 0.01  # largest p-value that counts
FAR = 0.25  # least PSI of a large change; below 0.1 it is small
BEYOND = 1.001  # stands for the unknown distance of a refused image: just above the limit, 1
COLUMNS = ["images", "reference", "now", "psi", "p_value", "verdict"]


def drift(
    log: str | Path | Iterable[str],
    bundle: str | Path,
    reference: dict | None = None,
    day: str | date | None = None,
    last: int | None = None,
) -> pd.DataFrame:
    """Compare the images in a service's log with the held-out images of its model.

    `log` is the log file (`service.log` of `deploy_local`) or its lines; what is damaged, about another version of the
    model or not a request is skipped. The `bundle` is the service's. `reference` gives other values to compare with, by
    label or ``"distance"``: ``{"malignant": evaluation.scores}``. `day`, in UTC, such as ``"2026-11-25"``, takes the
    requests of that day only, `last` so many of the latest.

    A row a label except the first, one for the distance and one for the share of refused images, where there is
    something to compare with: ``images`` in the log, ``reference`` and ``now`` (medians; shares of the refused),
    ``psi``, ``p_value``, and ``verdict``: *steady*, *moved* (p-value at most `SURE`), *moved far* (PSI also at least
    `FAR`, or twice as many refused), or *too few images*. Without any change about 1 % of the rows read *moved*. Every
    image counts as independent: with many images per lesion the p-value is too small.
    """
    metadata = read_metadata(bundle)
    requests = _requests(log, metadata["version"], day)[-last if last else None :]
    known, refused = _reference(metadata)
    known |= _given(reference, metadata["labels"])
    rows = {}
    for label in metadata["labels"][1:]:
        if (name := f"score of {label}") in known:
            answers = [each for line in requests for each in line["scores"] if isinstance(each, dict)]
            scores = [each[label] for each in answers if is_number(each.get(label), 0)]
            rows[name] = _compare(scores, *known[name])
    if "distance" in known:
        distances, quantiles = _distances(requests, known["distance"][0])
        rows["distance"] = _compare(distances, quantiles, known["distance"][1])
    if not rows:
        raise ValueError(
            f"{bundle}/model.json holds neither scores nor distances to compare with: give those of the held-out "
            f'images, drift(log, bundle, reference={{"{metadata["labels"][-1]}": scores}})'
        )
    if refused is not None:
        rows["refused"] = _compare_shares(requests, *refused)
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def _requests(log, version, day):
    """List the complete lines about requests to a version of the model; a platform may have put words before them."""
    if isinstance(log, (str, os.PathLike)):
        log = user_path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    day = day.isoformat()[:10] if isinstance(day, date) else day
    found = []
    for text in log:
        try:
            line = json.loads(text[text.index("{") :])
        except ValueError:
            continue
        if not isinstance(line, dict) or (line.get("event"), line.get("model")) != ("request", version):
            continue
        line.setdefault("images", line.get("pictures"))  # their name in earlier services
        has_lists = isinstance(line.get("scores"), list) and isinstance(line.get("distance", []), list)
        has_counts = is_whole(line["images"], 0) and is_whole(line.get("refused"), 0)
        time = line.get("time")
        if has_lists and has_counts and isinstance(time, str) and time.startswith(day or ""):
            found.append(line)
    if not found:
        on = f" on {day}" if day else ""
        raise ValueError(f"the log holds no scored request of model {version}{on}")
    return found


def _reference(metadata):
    """Return what to compare with: {row: (quantiles, number of images)}, and (refused, images) of the held-out."""
    outliers = metadata.get("outliers") or metadata.get("familiarity") or {}  # its name in earlier bundles
    scores, scored = metadata.get("scores") or {}, metadata.get("scores_images")
    known = {f"score of {label}": (values, scored) for label, values in scores.items()}
    held_out = outliers.get("held_out") or {"images": 0}
    quantiles = outliers.get("distance_quantiles", outliers.get("distance_deciles"))  # of older models
    count = held_out["images"] or None
    known["distance"] = quantiles, count
    refused = (round(held_out["refused"] * count), count) if count else None
    return {row: each for row, each in known.items() if each[0]}, refused


def _given(reference, labels):
    """Return the user's values to compare with, by row as `_reference` does."""
    if not isinstance(reference, dict | None):
        raise ValueError(f"reference must be a dict of label to scores, not {type(reference).__name__}")
    known = {}
    for name, values in (reference or {}).items():
        label = as_label(name)
        if label not in labels and label != "distance":
            raise ValueError(f'reference has {name!r}; its keys are "distance" and {", ".join(labels)}')
        try:
            values = np.asarray(values, dtype=float)
        except (TypeError, ValueError):
            values = np.empty(0)
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise ValueError(f"reference[{name!r}] must be a list of finite numbers")
        known[f"score of {label}" if label in labels else "distance"] = values, None
    return known


def _distances(requests, quantiles):
    """List the distances in a log, and return the quantiles to compare them with.

    Older services did not log the distances of refused images: these count as `BEYOND`, and so do all above the limit.
    """
    found = [value for line in requests for value in line.get("distance", []) if is_number(value, 0)]
    if not found or max(found) > 1:
        return found, quantiles
    return found + [BEYOND] * sum(line["refused"] for line in requests), np.minimum(quantiles, BEYOND)


def _compare(values, reference, count):
    """Compare values with sorted values or equally spaced quantiles of `count` values, None: as many as there are."""
    reference = np.quantile(np.asarray(reference, float), np.linspace(0, 1, len(reference)))
    median = np.median(reference)
    if not len(values):
        return _row(0, median)
    values = np.sort(values)
    if np.allclose(values, values.round(4), rtol=0, atol=1e-9):  # older services rounded: round both alike
        values, reference = values.round(4), reference.round(4)
    psi, p_value = _psi(values, reference), _kolmogorov_smirnov(values, reference, count or len(reference))
    return _row(len(values), median, np.median(values), psi, p_value, is_far=psi >= FAR)


def _kolmogorov_smirnov(values, quantiles, count):
    """Return the p-value of the two-sample test for sorted values and `count` others, of which quantiles are known.

    The greatest difference at the quantiles is raised to its average over all places (Siegmund, Corrected diffusion
    approximations, 1979).
    """
    # ranks, as numpy.quantile interpolates between them
    ranks = np.linspace(0, count - 1, len(quantiles)).round(6)
    others_below, others_up_to = np.ceil(ranks) / count, (np.floor(ranks) + 1) / count
    below, up_to = (np.searchsorted(values, quantiles, side) / len(values) for side in ("left", "right"))
    size = max(1, round(count * len(values) / (count + len(values))))
    between = max(0, 1 / (len(quantiles) - 1) - 1 / (count - 1)) if 1 < len(quantiles) < count else 0
    greatest = max((below - others_below).max(), (others_up_to - up_to).max())
    return float(stats.kstwo.sf(greatest + 0.5826 * np.sqrt(between / size), size))


def _psi(values, reference):
    between = np.quantile(reference, np.linspace(0, 1, 1001))
    edges = np.unique(np.quantile(between, np.linspace(0.1, 0.9, 9)))
    shares = []
    for each in (values, between):
        counts = np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1)
        # no bin may be empty: logarithms follow
        shares.append((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _compare_shares(requests, refused_before, before):
    """Compare two counts by Fisher's exact test, two-sided, with the mid-p value (Lancaster, 1961).

    The limit was chosen on the held-out images: an image passes it with the expected chance even if none of them did.
    """
    count, refused = (sum(line[name] for line in requests) for name in ("images", "refused"))
    expected = (refused_before + 1) / (before + 1)
    if not count:
        return _row(0, expected)
    chance = stats.hypergeom(before + count, count, refused_before + refused)
    tail = min(chance.cdf(refused), chance.sf(refused - 1)) - chance.pmf(refused) / 2
    share = refused / count
    return _row(count, expected, share, np.nan, min(1.0, 2 * float(tail)), is_far=share >= 2 * expected)


def _row(images, reference, now=np.nan, psi=np.nan, p_value=np.nan, is_far=False):
    """Return the values of `COLUMNS`."""
    verdict = "steady" if p_value > SURE else "moved far" if is_far else "moved"
    return images, reference, now, psi, p_value, verdict if images >= ENOUGH else "too few images"
