"""What the widgets share: a base class, rows, buttons and short labels."""

from __future__ import annotations

import abc
from collections.abc import Callable
from html import escape

import ipywidgets
from matplotlib.figure import Figure

from ..plots.style import encode
from .imagegrid import Names


class Widget(abc.ABC):
    """Show `view` in a live notebook, and a static image where there is no kernel: on the web, by nbconvert."""

    view: ipywidgets.Widget

    @abc.abstractmethod
    def _figure(self) -> Figure:
        """Draw the static image."""

    def _jpeg(self) -> str:
        return encode(self._figure(), "jpeg")

    def _repr_mimebundle_(self, **_):
        return self.view._repr_mimebundle_() | {"image/jpeg": self._jpeg()}


def stack(*parts: ipywidgets.Widget) -> ipywidgets.VBox:
    """Return the parts below each other, with names for screen readers."""
    return ipywidgets.VBox([*parts, Names()])


def row(*parts: ipywidgets.Widget) -> ipywidgets.Box:
    """Return the parts beside each other, wrapped where the page is too narrow."""
    return ipywidgets.Box([*parts], layout={"flex_flow": "row wrap", "width": "100%"})


def button(text: str, hint: str, act: Callable[[], object], **layout: str) -> ipywidgets.Button:
    """Return a button with a tooltip that calls ``act()``."""
    made = ipywidgets.Button(description=text, tooltip=hint, layout=layout)
    made.on_click(lambda _: act())
    return made


def short(label: str) -> str:
    """Return a label, cut off after 40 characters."""
    return label if len(label) <= 40 else f"{label[:39]}…"


def line(text: str, width: int) -> ipywidgets.HTML:
    """Return one line of plain text, cut off at `width` pixels; ipywidgets.Label would render $…$ as math."""
    style = f"max-width: {width - 8}px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap"
    return ipywidgets.HTML(f"<div title='{escape(text)}' style='{style}'>{escape(text)}</div>")
