"""How often `drift` says that something has moved where nothing has: 1 % of its verdicts should (drift.SURE).

    python tests/bench/bench_drift.py      # two minutes

Held-out images and requests are drawn from one distribution, drawn anew for each run: the median score is 0.3 to
0.000001, scores and distances depend on each other. As in `ImageClassifier.fit_outlier_limit` and
`calibrate` the limit and the quantiles come from the held-out images; scores and distances have the digits that
requestlog.py gives them.
"""

import argparse
import sys

import numpy as np
import pandas as pd

from isicvision import PROJECT_ROOT
from isicvision.model import outliers

sys.path.insert(0, str(PROJECT_ROOT / "code/03_deployment"))
from drift import _compare, _compare_shares

HELD_OUT, REQUESTS = (100, 500, 1500), (200, 1000, 5000, 20_000)


def draw(random, count, about):
    """Draw scores and distances of as many images."""
    middle, spread, width, together = about
    common, own = random.normal(size=(2, count))
    odds = middle + spread * (together * common + np.sqrt(1 - together**2) * own)
    return 1 / (1 + np.exp(-odds)), np.exp(width * common)


def six_digits(values):
    """Round as requestlog.py does."""
    unit = 10.0 ** (np.floor(np.log10(values)) - 5)
    return (values / unit).round() * unit


def run(random, held_out, requests):
    """Return the verdicts of one run: dict."""
    about = random.uniform((-14, 1, 0.05, -1), (-1, 4, 0.5, 1))
    known, distances = draw(random, held_out, about)
    rank = int(np.ceil((held_out + 1) * (1 - outliers.REFUSED)))
    limit = np.sort(distances)[min(rank, held_out) - 1]
    refused = int((distances > limit).sum())
    known, distances = known[distances <= limit], distances / limit  # the service scores no others
    now, far = draw(random, requests, about)
    now, far = now[far <= limit], far / limit
    line = {"images": requests, "refused": requests - len(now)}
    rows = {
        "score": _compare(six_digits(now), outliers.quantiles(known), len(known)),
        "distance": _compare(six_digits(far), outliers.quantiles(distances), held_out),
        "refused": _compare_shares([line], refused, held_out),
    }
    return {name: row[-1] for name, row in rows.items()}


def main():
    """Simulate, and print the shares of alarms."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1000, help="of each size")
    arguments = parser.parse_args()
    random, rows = np.random.default_rng(0), {}
    for held_out in HELD_OUT:
        for requests in REQUESTS:
            verdicts = pd.DataFrame([run(random, held_out, requests) for _ in range(arguments.runs)])
            rows[held_out, requests] = (verdicts != "steady").mean() * 100
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(["held out", "requests"])
    print(f"verdicts other than steady, % of {arguments.runs} runs:")
    print(table.round(2).to_string())


if __name__ == "__main__":
    main()
