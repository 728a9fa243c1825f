"""A map of images by a network's features: two dimensions to look at, and what near images have in common."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import joblib
import numpy as np
import pandas as pd
import sklearn
from numpy.typing import ArrayLike

from .. import metrics
from ..checks import require_dataset
from ..data import associations, cache
from ..data.dataset import ImageDataset
from ..tables import require_column

if TYPE_CHECKING:
    from .classifier import ImageClassifier

    Features: TypeAlias = ImageClassifier | ArrayLike

FEWEST, NEAREST = 10, 5
"""Images of a map at least, and neighbors of an image that `purity` looks at."""


@dataclass(frozen=True)
class Purity:
    """How often an image's nearest neighbors share its value of each column; `print` says it in sentences.

    `table` has a row a column, the most shared first: ``column``; ``purity``, the mean share, 0 to 1; ``low`` and
    ``high``, its 95 % interval; ``chance``, the share among all images of other groups; ``beyond``, (purity - chance) /
    (1 - chance): 0 by chance, 1 if all neighbors agree; ``images`` with a value. NaN is undefined.
    """

    table: pd.DataFrame

    def __str__(self) -> str:
        said = [
            f"{100 * row.purity:.0f} % share its {row.column} (95 % CI {100 * row.low:.0f} to {100 * row.high:.0f} %); "
            f"by chance {100 * row.chance:.0f} % would{'' if row.low > row.chance else ', so this shows nothing'}"
            for row in self.table.dropna(subset="purity").itertuples()
        ]
        shares = ",\n".join(said or ["nothing is known"])
        return f"Of an image's {NEAREST} nearest neighbors,\n{shares}."


def features(dataset: ImageDataset, model: Features) -> np.ndarray:
    """Return a model's features, or those given: float32 (images, features). Raises ValueError if they make no map."""
    require_dataset(dataset, "a map", labeled=False)
    if len(dataset) < FEWEST:
        raise ValueError(f"a map needs {FEWEST} images or more, not {len(dataset)}")
    found = np.asarray(getattr(model, "featurize", lambda _: model)(dataset), np.float32)
    if found.ndim != 2 or len(found) != len(dataset) or found.shape[1] < 2 or not np.isfinite(found).all():
        rows = f"a row of two finite numbers or more for each of {len(dataset)} images"
        raise ValueError(f"features of shape {found.shape} are not {rows}")
    if not np.ptp(found, axis=0).any():  # t-SNE would crash
        raise ValueError("all images have the same features, so there is nothing to map")
    return found


def places(dataset: ImageDataset, model: Features) -> np.ndarray:
    """Return a place for each image, where images with like features are near: float32 of shape (images, 2).

    50 principal components, then t-SNE (van der Maaten and Hinton, Visualizing Data using t-SNE, 2008): near images are
    alike, but large distances and the density of a cluster mean nothing. The same features give the same map, which the
    cache keeps. `model` may be features, (images, features). Raises ValueError as `features` does.

    >>> table = pd.DataFrame({"path": [*"abcdefghij"], "label": ["x", "y"] * 5, "group": [*"abcdefghij"]})
    >>> places(ImageDataset(table), np.random.default_rng(0).normal(size=(10, 4))).shape
    (10, 2)
    """
    given = features(dataset, model)

    def compute():
        from sklearn.decomposition import PCA
        from sklearn.manifold import TSNE
        from threadpoolctl import threadpool_limits  # scikit-learn's own dependency

        scaled = given.astype(float) - given.mean(axis=0, dtype=float)
        parts = PCA(min(50, *given.shape), random_state=0).fit_transform(scaled / np.abs(scaled).max())
        tsne = TSNE(init="pca", perplexity=min(30, (len(given) - 1) / 3), angle=0.7, random_state=0)
        with threadpool_limits(1, "openmp"):  # several threads add in another order, which gives another map
            return tsne.fit_transform(parts)

    return _kept("map", (len(given), 2), np.float32, compute, given)


def nearest(features: np.ndarray, groups: pd.Series) -> np.ndarray:
    """Return the numbers of each image's `NEAREST` neighbors in other groups, in any order: int32 (images, `NEAREST`).

    Raises ValueError if an image has fewer in other groups. The cache keeps the result.
    """
    group = pd.factorize(groups)[0]
    if (others := len(group) - np.bincount(group).max()) < NEAREST:
        raise ValueError(f"{NEAREST} neighbors in other groups are needed; the largest group leaves {others}")

    def choose(distances, start):
        own = group[start : start + len(distances), None]
        return np.argpartition(np.where(own == group, np.inf, distances), NEAREST - 1)[:, :NEAREST]

    def compute():
        from sklearn.metrics import pairwise_distances_chunked

        return np.concatenate([*pairwise_distances_chunked(features, reduce_func=choose)])

    return _kept(f"nearest-{NEAREST}", (len(group), NEAREST), np.int32, compute, features, group)


def _kept(what, shape, dtype, compute, *of):
    """Return what `compute` makes `of` arrays, from the cache if it is there."""
    kept = cache.Arrays(f"features-{what}-sklearn-{sklearn.__version__}", shape, dtype)
    key, found = joblib.hash(of), np.empty(shape, dtype)
    if not (kept.has(key) and kept.read(key, found)):
        found[:] = compute()
        kept.write(key, found)
    return found


def levels(values: pd.Series) -> pd.Series:
    """Return a column as categories, those of numbers with more than 7 values being ordered ranges, fifths.

    >>> levels(pd.Series(range(10))).cat.categories.tolist()
    ['to 1.8', '1.8 to 3.6', '3.6 to 5.4', '5.4 to 7.2', 'above 7.2']
    """
    if not associations.is_numeric(values) or values.nunique() <= 7:
        return values.astype("string").replace("", pd.NA).astype("category")  # "": no label yet
    numbers = values.astype(float).where(np.isfinite(values.astype(float)))
    edges = np.unique([float(f"{edge:.15g}") for edge in numbers.dropna().quantile([0.2, 0.4, 0.6, 0.8])])
    said = [f"{edge:.15g}" for edge in edges]
    names = [f"to {said[0]}", *map(" to ".join, itertools.pairwise(said)), f"above {said[-1]}"]
    codes = np.where(numbers.isna(), -1, np.searchsorted(edges, numbers))
    return pd.Series(pd.Categorical.from_codes(codes, names, ordered=True), values.index)


def varying(dataset: ImageDataset) -> list[str]:
    """List the columns worth a look on a map: label, split and all others except identifiers, if they vary."""
    table = dataset.table
    shown = [c for c in table if c in ("label", "split") or associations.role(c, table) != "identifier"]
    return [column for column in shown if levels(table[column]).nunique() > 1]


def purity(dataset: ImageDataset, model: Features, columns: str | Sequence[str] | None = None) -> Purity:
    """Measure how often the `NEAREST` neighbors of an image, by features, have its value of a column, against chance.

    What neighbors share is what the network sees: a label, but also a camera. An image's own group (its lesion) and
    missing values are left out; numbers are compared by `levels`. By default, `columns` are those of `varying`. The
    interval is from 200 bootstrap draws of the groups. `model` may be features, (images, features). Raises ValueError
    if a column is missing, or as `features` and `nearest` do.

    >>> table = pd.DataFrame({"path": [*map(str, range(20))], "label": [*"xy"] * 10, "camera": [*"aabb"] * 5})
    >>> seen = np.eye(20, 2) + (table[["camera"]] == "a").to_numpy()
    >>> print(purity(ImageDataset(table.assign(group=table["path"])), seen, ["camera"]))
    Of an image's 5 nearest neighbors,
    100 % share its camera (95 % CI 100 to 100 %); by chance 47 % would.
    """
    require_dataset(dataset, "purity", labeled=False)
    table = dataset.table
    chosen = varying(dataset) if columns is None else [columns] if isinstance(columns, str) else columns
    chosen = [require_column(table, each, "the dataset") for each in chosen]
    beside, group = nearest(features(dataset, model), table["group"]), pd.factorize(table["group"])[0]
    rows = [(each, *_shared(levels(table[each]).cat.codes.to_numpy(), beside, group)) for each in chosen]
    found = pd.DataFrame(rows, columns=["column", "purity", "low", "high", "chance", "beyond", "images"])
    return Purity(found.sort_values("beyond", ascending=False, kind="stable", ignore_index=True))


def _shared(level, beside, group):
    """Return the share of neighbors with an image's level, its interval, the share by chance, and what is beyond."""
    images, known = int((level >= 0).sum()), (level[beside] >= 0).sum(axis=1)
    rows = (level >= 0) & (known > 0)
    if not rows.any():
        return *[np.nan] * 5, images
    share = (level[beside] == level[:, None]).sum(axis=1)[rows] / known[rows]
    table = pd.DataFrame({"level": level, "group": group, "one": 1})[level >= 0]
    alike, own, both = (
        table.groupby(by)["one"].transform("sum") for by in ("level", "group", ["level", "group"])
    )
    chance = ((alike - both) / (len(table) - own)).mean()
    weights = np.concatenate([*metrics.draws(pd.factorize(group[rows])[0], 200)])
    low, high = np.quantile(weights @ share / weights.sum(axis=1), [0.025, 0.975])
    beyond = (share.mean() - chance) / (1 - chance) if chance < 1 else np.nan
    return share.mean(), low, high, chance, beyond, images
