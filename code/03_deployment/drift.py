"""Compare a service's log with the held-out images of its model, to see whether its images have changed.

The population stability index (PSI; Siddiqi, *Credit Risk Scorecards*, 2006) measures how far a distribution has moved,
the two-sample Kolmogorov-Smirnov test how certain that is; Fisher's exact test compares the numbers of refused images.
tests/bench/bench_drift.py counts the false alarms of each. To look at a log every day:

    python code/03_deployment/drift.py log.txt outputs/bundle

It ends with status 1 if something moved, with 2 if the log cannot be compared.
"""

import argparse
import codecs
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from isicvision.checks import is_number, is_whole
from isicvision.files import user_path
from isicvision.service.bundle import read_metadata

ENOUGH = 50  # images; fewer say nothing about a distribution
SURE = 0.01  # largest p-value that counts
FAR = 0.25  # least PSI of a large change; below 0.1 it is small
COLUMNS = ["images", "reference", "now", "psi", "p_value", "verdict"]


def drift(log: str | Path | Iterable[str], bundle: str | Path, last: int | None = None) -> pd.DataFrame:
    """Compare the images in a service's log with the held-out images of its model.

    `log` is the log file (`service.log` of `deploy_local`) or its lines; what is damaged, about another version of the
    model or not a request is skipped. The `bundle` is the service's. `last` takes so many of the latest requests only.
    ValueError if the model was neither calibrated nor given an outlier limit, or the log holds no request of it.

    A row a label except the first, one for the distance and one for the share of refused images, where there is
    something to compare with: ``images`` in the log, ``reference`` and ``now`` (medians; shares of the refused),
    ``psi``, ``p_value``, and ``verdict``: *steady*, *moved* (p-value at most `SURE`), *moved far* (PSI also at least
    `FAR`, or twice as many refused), or *too few images*. Without any change about 1 % of the rows read *moved*. Every
    image counts as independent: with many images per lesion the p-value is too small.
    """
    if last is not None and not is_whole(last, 1):
        raise ValueError(f"last is a whole number of requests, 1 or more, not {last!r}")
    metadata = read_metadata(bundle)
    requests = _requests(log, metadata["version"])[-(last or 0) :]
    outliers = metadata.get("outliers") or {}
    held_out = outliers.get("held_out") or {"images": 0}
    quantiles = {f"score of {label}": values for label, values in (metadata.get("scores") or {}).items()}
    counts = dict.fromkeys(quantiles, metadata.get("scores_images")) | {"distance": held_out["images"]}
    quantiles["distance"] = outliers.get("distance_quantiles")
    answers = [each for line in requests for each in line["scores"] if isinstance(each, dict)]
    seen = {f"score of {label}": [each.get(label) for each in answers] for label in metadata["labels"][1:]}
    seen["distance"] = [value for line in requests for value in line.get("distance", [])]
    known = [name for name in seen if quantiles.get(name)]
    rows = {name: _compare(seen[name], quantiles[name], counts[name]) for name in known}
    if not rows:
        problem = f"{bundle}/model.json holds neither scores nor distances to compare with"
        raise ValueError(f"{problem}: call model.calibrate or fit_outlier_limit and build the bundle again")
    if before := held_out["images"]:
        rows["refused"] = _compare_shares(requests, round(held_out["refused"] * before), before)
    return pd.DataFrame.from_dict(rows, orient="index", columns=COLUMNS)


def _requests(log, version):
    """List the complete lines about requests to a version of the model; a platform may have put words before them."""
    if isinstance(log, (str, os.PathLike)):
        data = user_path(log).read_bytes()
        is_wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as PowerShell's > writes
        log = data.decode("utf-16" if is_wide else "utf-8", "replace").splitlines()
    found = []
    for text in log:
        try:
            line = json.loads(text[text.index("{") :])
        except (ValueError, RecursionError):
            continue
        if not isinstance(line, dict) or (line.get("event"), line.get("model")) != ("request", version):
            continue
        has_lists = isinstance(line.get("scores"), list) and isinstance(line.get("distance", []), list)
        has_counts = is_whole(line.get("images"), 0) and is_whole(line.get("refused"), 0)
        if has_lists and has_counts:
            found.append(line)
    if not found:
        raise ValueError(f"the log holds no scored request of model {version}")
    return found


def _compare(values, reference, count):
    """Compare values with sorted values or equally spaced quantiles of `count` values, None: as many as there are."""
    values = np.sort([value for value in values if is_number(value, 0)])
    reference = np.quantile(reference, np.linspace(0, 1, len(reference)))
    if not len(values):
        return _row(0, np.median(reference))
    if np.allclose(values, values.round(4), rtol=0, atol=1e-9):  # older services rounded: round both alike
        values, reference = values.round(4), reference.round(4)
    psi, p_value = _psi(values, reference), _kolmogorov_smirnov(values, reference, count or len(reference))
    return _row(len(values), np.median(reference), np.median(values), psi, p_value, is_far=psi >= FAR)


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
    edges = [-np.inf, *np.unique(np.quantile(between, np.linspace(0.1, 0.9, 9))), np.inf]
    counts = np.stack([np.histogram(each, edges)[0] for each in (values, between)]) + 0.5  # no bin is empty
    now, before = counts / counts.sum(axis=1, keepdims=True)
    return float(((now - before) * np.log(now / before)).sum())


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


def positive(text: str) -> int:
    """Read a number of requests, 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="replace")  # a label may have letters that a file on Windows does not know
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", help="file with the service's log")
    parser.add_argument("bundle", help="folder made by build_bundle, which the service runs")
    parser.add_argument("--last", type=positive, help="so many of the latest requests only (default: all)")
    arguments = parser.parse_args()
    try:
        table = drift(arguments.log, arguments.bundle, arguments.last)
    except (OSError, ValueError, OverflowError) as error:
        parser.error(str(error))
    print(table.round(3).to_string())
    sys.exit(bool(table["verdict"].str.startswith("moved").any()))  # so that a scheduler notices
