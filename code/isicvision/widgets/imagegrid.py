"""Two anywidgets: a grid of images operated by mouse or keys, and names for sliders."""

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
    # clicks and keys; state arrives in order, messages may overtake it and each other
    events = traitlets.List(traitlets.Dict()).tag(sync=True, echo_update=False)
    selected = traitlets.Int(0).tag(sync=True, echo_update=False)  # number of the image, from 0
    large = traitlets.Dict().tag(sync=True)  # "image" (data URL) and "text", or empty
    hotkeys = traitlets.List(traitlets.Unicode()).tag(sync=True)  # JavaScript's names, such as "Enter"

    def on_key(self, function: Callable[[str], object]) -> None:
        """Call ``function(key)`` whenever one of `hotkeys` is pressed; a double click counts as ``z``."""
        heard = 0

        def hear(change):
            nonlocal heard
            for event in change.new:
                if event["number"] > heard:
                    heard = event["number"]
                    if "key" in event:
                        function(event["key"])
                    else:  # assignment would send it back to a page that may have moved on
                        self.set_state({"selected": event["selected"]})

        self.observe(hear, "events")

    def focus(self) -> None:
        """Move the keyboard focus to the grid: JupyterLab would cut the cell on an ``x`` pressed elsewhere."""
        self.send({"focus": True})


class Names(anywidget.AnyWidget):
    """Name the sliders in the surrounding box for screen readers; itself invisible."""

    _esm = HERE / "names.js"
