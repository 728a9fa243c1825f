"""Three anywidgets, operated by mouse or keys: a grid of images, a map of points, and names for sliders."""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class ImageGrid(anywidget.AnyWidget):
    """Show images with captions; one is selected by a click or the arrow keys, and one can be shown large.

    A caption has a ``title`` (str) and optionally ``color``, ``note``, ``spoken`` (for screen readers, and under the
    mouse), ``dim`` (bool) and ``bars`` (a list of name, value from 0 to 1 and color).
    """

    _esm = HERE / "imagegrid.js"
    _css = HERE / "imagegrid.css"
    images = traitlets.List(traitlets.Unicode()).tag(sync=True)  # data URLs
    captions = traitlets.List(traitlets.Dict()).tag(sync=True)
    name = traitlets.Unicode("images").tag(sync=True)  # of the grid, for screen readers
    status = traitlets.Unicode().tag(sync=True)  # a line above the images, read out when it changes
    # clicks and keys of the page, each with its ``number`` and the ``turn`` that it saw; messages may overtake state
    events = traitlets.List(traitlets.Dict()).tag(sync=True, echo_update=False)
    heard = traitlets.Int(0).tag(sync=True)  # the last number: until its own is, the page keeps its selection
    turn = traitlets.Int(0).tag(sync=True)  # of the pages drawn: what was meant for an earlier one is ignored
    selected = traitlets.Int(0).tag(sync=True)  # number of the image, from 0; set here only
    large = traitlets.Dict().tag(sync=True)  # "image" (data URL) and "text", or empty
    hotkeys = traitlets.List(traitlets.Unicode()).tag(sync=True)  # JavaScript's names, such as "Enter"

    def on_key(self, function: Callable[[str], object]) -> None:
        """Call ``function(key)`` whenever one of `hotkeys` is pressed; a double click counts as ``z``."""

        def hear(change):
            with self.hold_sync():  # the page learns what all of these came to
                for event in change.new:
                    is_new = event["number"] > self.heard and event["turn"] == self.turn
                    self.heard = max(event["number"], self.heard)
                    if is_new and "key" in event:
                        function(event["key"])
                    elif is_new:
                        self.selected = event["selected"]

        self.observe(hear, "events")

    def focus(self) -> None:
        """Move the keyboard focus to the grid: JupyterLab would cut the cell on an ``x`` pressed elsewhere."""
        self.send({"focus": True})


class PointMap(anywidget.AnyWidget):
    """Draw points that a lasso, a circle that keys move, or a value chooses; ask for the image under the mouse."""

    _esm = HERE / "map.js"
    _css = HERE / "map.css"
    places = traitlets.Bytes().tag(sync=True)  # float32 (points, 2), from 0 to 1, downwards
    codes = traitlets.Bytes().tag(sync=True)  # uint8 (points,): numbers in the legend
    legend = traitlets.List(traitlets.Dict()).tag(sync=True)  # name, color, count
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)  # numbers of points
    status = traitlets.Unicode().tag(sync=True)  # a line below, read out when it changes


class Names(anywidget.AnyWidget):
    """Name the sliders in the surrounding box for screen readers; itself invisible."""

    _esm = HERE / "names.js"
