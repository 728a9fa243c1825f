"""The map of a dataset: a point an image, where those that a network takes for like are near."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb

from ..data import associations
from ..data.annotation import EXCLUDE
from ..data.dataset import ImageDataset
from ..tables import require_column
from .style import COLORS, axes_or_new, colors, legend, literal

if TYPE_CHECKING:
    from ..model.featuremap import Features

GRAY, APART = "#999999", ("(rare)", EXCLUDE, "(missing)")
"""The color of values that stand apart."""


def map(dataset: ImageDataset, model: Features, color: str = "label", ax: Axes | None = None) -> Axes:
    """Draw a point for each image at its place by `featuremap.places`, colored by a column.

    Near points are images that the model takes for like; the axes mean nothing. Missing values are gray, as are rare
    ones if there are more than seven. `model` may be features of shape (images, features).

    >>> features = np.random.default_rng(0).normal(size=(len(dataset), 8))
    >>> map(dataset, features, "sex").get_title()
    '159 images by sex'
    """
    from ..model.featuremap import places  # torch takes seconds to import

    color = require_column(dataset.table, color, "the dataset")
    (x, y), values = places(dataset, model).T, dataset.table[color]
    ax, codes, names = axes_or_new(ax, 7, 5), *coded(values)
    look: Any = {"s": float(np.clip(20_000 / len(values), 3, 30)), "lw": 0}
    order = np.random.default_rng(0).permutation(len(values))  # else the last label hides the others
    if associations.is_numeric(values) and values.nunique() > len(COLORS):
        ax.scatter(x[values.isna()], y[values.isna()], color=GRAY, **look)
        points = ax.scatter(x[order], y[order], c=values.iloc[order].to_numpy(float), cmap="cividis", **look)
        plt.colorbar(points, ax=ax, label=literal(color))
    else:
        shades = np.array([to_rgb(shade) for _, shade, _ in names])
        ax.scatter(x[order], y[order], c=shades[codes[order]], **look)
        for name, shade, count in names:
            ax.plot([], [], "o", color=shade, label=f"{literal(name, 30)} (n = {count:,})")
        legend(ax)
    ax.set(xticks=[], yticks=[], title=f"{len(values):,} images by {literal(color)}")
    return ax


def coded(values: pd.Series) -> tuple[np.ndarray, list[tuple[str, str, int]]]:
    """Return the number of each image's value in a legend, uint8 (images,), and the legend: name, color and count."""
    from ..model.featuremap import levels

    level = levels(values)
    if level.cat.ordered:
        shades = colormaps["cividis"](np.linspace(0, 1, level.cat.categories.size))
        palette = dict(zip(level.cat.categories, [to_hex(shade) for shade in shades], strict=True))
    else:
        level = associations.frequent(level, len(COLORS) - (level.nunique() > len(COLORS)))
        palette = colors(sorted({*level} - {*APART}))
    text = level.astype("string").fillna("(missing)")
    palette |= {name: GRAY for name in APART if (text == name).any()}
    places, counts = {name: n for n, name in enumerate(palette)}, text.value_counts()
    names = [(name, shade, int(counts.get(name, 0))) for name, shade in palette.items()]
    return text.astype(object).replace(places).to_numpy(np.uint8), names
