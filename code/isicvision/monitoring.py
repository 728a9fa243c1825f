"""Has what the service sees changed? A day of its log against the pictures that the model was checked on.

New cameras, other patients or a broken upload show in the scores and in the distances from the training pictures
before anybody has the true labels. Two measures, both of the one distribution against the other: the population
stability index (PSI; Siddiqi, *Credit Risk Scorecards*, 2006: below 0.1 little, above 0.25 much) says how far it has
moved, the two-sample Kolmogorov-Smirnov test how sure that is.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from .bundle import read_card

ENOUGH = 50  # pictures: fewer say nothing of a distribution
SURE = 0.01  # p-values below it count
COLUMNS = ["pictures", "reference", "now", "psi", "p_value", "verdict"]


def drift(
    log: str | Path | Iterable[str], bundle: str | Path, reference: dict | None = None, day: str | None = None
) -> pd.DataFrame:
    """Compare the pictures in a service's log with those that its model was checked on.

    Parameters
    ----------
    log
        The log's file (of `deploy_local`: ``service.log``), or its lines. What is no line of a request, or of another
        version of the model, is passed over.
    bundle
        Whose model.json holds the ``scores`` (a dict from label to the scores of held-out pictures, or equally spaced
        quantiles of them, and then in ``scores_pictures`` of how many) and, if the model was familiarized, the deciles
        of the ``distance``.
    reference : dict of str to array-like, optional
        The same from elsewhere, by label or ``"distance"``: ``{"malignant": evaluation.scores}``.
    day
        Only the requests whose time starts with it, in UTC: ``"2026-11-25"``.

    Returns
    -------
    pandas.DataFrame
        A row for each label but the first, for the distance, and for the share of pictures refused, as far as there
        is something to compare with: ``pictures`` in the log, ``reference`` and ``now`` (medians; shares of the
        refused), ``psi``, ``p_value``, and ``verdict``: steady, moved, moved far, or too few pictures. Each picture
        counts by itself: where many are of one lesion, the p-value is too small.

    Raises
    ------
    ValueError
        If nothing in the log is of this model, or there is nothing to compare with.
    """
    card = read_card(bundle)
    requests = [line for line in _read(log) if line.get("model") == card["version"]]
    requests = [line for line in requests if line["time"].startswith(day or "")]
    if not requests:
        raise ValueError(
            f"the log holds no scored request of model {card['version']}{f' on {day}' if day else ''}"
        )

    known, counts = _reference(card)
    known, counts = known | (reference or {}), counts | {name: None for name in reference or {}}
    rows = {}
    for label in card["labels"][1:]:
        if known.get(label) is not None:
            scores = [scores[label] for line in requests for scores in line["scores"]]
            rows[f"score of {label}"] = _compare(scores, known[label], counts.get(label))
    if known.get("distance") is not None:
        distances = [value for line in requests for value in line.get("distance", []) if value is not None]
        rows["distance"] = _compare(distances, known["distance"], counts.get("distance"))
    if not rows:
        raise ValueError(
            f"{bundle}/model.json holds neither scores nor distances to compare with: give the scores of the "
            f'held-out pictures, drift(log, bundle, reference={{"{card["labels"][-1]}": scores}})'
        )
    if known.get("refused") is not None:
        rows["refused"] = _compare_shares(requests, known["refused"])
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def _read(log):
    """Yield the lines of JSON about requests, also where a platform has put words before them."""
    if isinstance(log, (str, os.PathLike)):
        log = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    for line in log:
        try:
            found = json.loads(line[line.index("{") :])
        except ValueError:
            continue
        if isinstance(found, dict) and found.get("event") == "request":
            yield found


def _reference(card):
    """Return what there is to compare with, and the number of pictures that it is of where only quantiles are kept."""
    familiarity = card.get("familiarity") or {}
    known = (card.get("scores") or {}) | {"distance": familiarity.get("distance_deciles")}
    counts = dict.fromkeys(card["labels"], card.get("scores_pictures"))
    if held_out := familiarity.get("held_out"):
        count = counts["distance"] = held_out["pictures"]
        # a new picture may lie beyond all of them: of few that is no small chance
        known["refused"] = (held_out["refused"] * count + 1) / (count + 1)
    return known, counts


def _compare(values, reference, count=None):
    # so many values that have the reference's quantiles: of few, the test must not be sure
    drawn = np.quantile(np.asarray(reference, float), np.linspace(0, 1, count or len(reference)))
    reference = np.quantile(np.asarray(reference, float), np.linspace(0, 1, 1001))
    if not values:
        return _row(0, np.median(reference))
    psi, p_value = _psi(values, reference), stats.ks_2samp(values, drawn).pvalue
    verdict = "steady" if p_value > SURE or psi < 0.1 else "moved" if psi < 0.25 else "moved far"
    return _row(len(values), np.median(reference), np.median(values), psi, p_value, verdict)


def _psi(values, reference):
    edges = np.unique(np.quantile(reference, np.linspace(0.1, 0.9, 9)))
    shares = []
    for each in (values, reference):
        counts = np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1)
        # no bin is empty: logarithms follow
        shares.append((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def _compare_shares(requests, reference):
    count = sum(line["pictures"] for line in requests)
    refused = sum(line["refused"] for line in requests)
    p_value = stats.binomtest(refused, count, reference).pvalue
    verdict = "steady" if p_value > SURE else "moved" if refused / count < 2 * reference else "moved far"
    return _row(count, reference, refused / count, np.nan, p_value, verdict)


def _row(pictures, reference, now=np.nan, psi=np.nan, p_value=np.nan, verdict=""):
    """Return the values of `COLUMNS`."""
    return pictures, reference, now, psi, p_value, verdict if pictures >= ENOUGH else "too few pictures"
