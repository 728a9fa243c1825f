"""What all plots share: colors, text of the data as it stands, legends, credits, and figures as files."""

from __future__ import annotations

import base64
import io
import os
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..files import user_path
from ..images import decode
from ..text import printable

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, distinct for color-blind eyes; labels take them in sorted order."""


def colors(labels: Iterable[str]) -> dict[str, str]:
    """Return the color of each label."""
    return {label: COLORS[n % len(COLORS)] for n, label in enumerate(labels)}


def ink(color: Sequence[float]) -> str:
    """Return black or white, whichever has a contrast of at least 4.5 (WCAG 2.2) on `color`, RGB from 0 to 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return "black" if np.dot(linear, (0.2126, 0.7152, 0.0722)) > 0.18 else "white"


def literal(text: object, most: int = 60) -> str:
    r"""Return text that Matplotlib draws as it stands: no formula, no control characters, each line cut to `most`.

    >>> literal("$5\tor $10")
    '\\$5 or \\$10'
    """
    lines = re.split(r"\r?\n|\r", printable(text))
    lines = [line if len(line) <= most else f"{line[: most - 1]}…" for line in lines]
    drawn = re.sub(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f]", " ", "\n".join(lines)).replace("$", r"\$")
    return f" {drawn}" if drawn.startswith("_") else drawn


def wrapped(text: object, width: int) -> str:
    """Return text as `literal` does, in at most three lines of `width` characters."""
    return literal("\n".join(textwrap.wrap(printable(text), width, max_lines=3, placeholder=" …")))


def credit(table: pd.DataFrame) -> str:
    """Return the attributions and licenses of the images of a table in one line, or an empty string.

    >>> credit(pd.DataFrame({"attribution": ["A", "B", "C"], "copyright_license": "CC-0"}))
    'A; B and 1 more (CC-0)'
    """
    if "attribution" not in table:
        return ""
    names = [*map(str, table["attribution"].dropna().unique())]
    licenses = sorted(table["copyright_license"].dropna().unique()) if "copyright_license" in table else []
    shown = "; ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    return f"{shown} ({', '.join(licenses)})" if licenses else shown


def save(drawn: Figure | Axes, path: str | os.PathLike) -> Path:
    """Write a figure, or that of an axes, to a file, close it so that no notebook shows it twice, return the path.

    >>> save(plt.subplots()[0], "plot.png").name
    'plot.png'
    """
    path, figure = user_path(path), _figure(drawn)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def encode(drawn: Figure | Axes, kind: str = "png") -> str:
    """Return a figure as a base64-encoded image, and close it."""
    buffer, figure = io.BytesIO(), _figure(drawn)
    figure.savefig(buffer, format=kind, dpi=90)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def _figure(drawn: Any) -> Figure:
    return drawn if isinstance(drawn, Figure) else drawn.get_figure(root=True)


def axes_or_new(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the axes of a new figure of `width` x `height` inches."""
    return ax or plt.subplots(figsize=(width, height), layout="constrained")[1]


def panels(rows: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """Return a figure of `width` x `height` inches for images, and its axes: array of shape (rows, columns)."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained")
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def show(ax: Axes, image: str | np.ndarray, title: str | None = None, size: int = 150) -> None:
    """Draw an image, decoded or a path, under a title that stands as it is."""
    ax.imshow(decode(image, size) if isinstance(image, str) else image)
    if title is not None:
        ax.set_title(literal(title), fontsize=8)


def add_credit(figure: Figure, table: pd.DataFrame) -> Figure:
    """Write the attributions of the images of a table below a figure, and return it."""
    figure.supxlabel(literal(credit(table), 200), fontsize=8, color="0.4")
    return figure


def legend(ax: Axes, owner: Figure | Axes | None = None, **place: Any) -> Axes:
    """Add a legend with each name once, by default beside the axes, and return the axes."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    place = place or {"loc": "upper left", "bbox_to_anchor": (1, 1)}
    (owner or ax).legend(handles.values(), handles, frameon=False, **place)
    return ax


def legend_below(ax: Axes) -> Axes:
    """Add a legend below the axes, where it hides no curve, and return the axes."""
    return legend(ax, loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=4.2, fontsize="small")
