"""A grid of images in a notebook that can be clicked and worked by keys; what they mean is the caller's matter.

Also `Names`, which makes the controls beside it known to screen readers.
"""

from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets

HERE = Path(__file__).parent


class ImageGrid(anywidget.AnyWidget):
    """Images with captions, one of them selected (by click or arrow keys), and one shown large over the others.

    Written by hand, as thumbnails made of ipywidgets' own parts know no keys, and take a message each.

    Attributes
    ----------
    images : list of str
        Data URLs.
    captions : list of dict
        One an image: ``title`` (str) and, if wanted, ``color`` of its mark, ``note``, ``hint`` (shown under the
        mouse), ``spoken`` (what a screen reader says instead of the title), ``dim`` (bool), ``bars`` (a list of
        dicts with ``name``, ``value`` from 0 to 1, and ``color``).
    name, status : str
        What a screen reader calls the images, and a line above them whose changes it reads out.
    selected : int
        Number of the selected image, from 0.
    side : int
        Of a thumbnail, in pixels.
    large : dict
        ``image`` (data URL) and ``text``, or empty.
    hotkeys : list of str
        Names of keys (those of JavaScript, such as ``Enter``) that are passed on to `on_key`.
    """

    _esm = HERE / "imagegrid.js"
    _css = HERE / "imagegrid.css"
    images = traitlets.List(traitlets.Unicode()).tag(sync=True)
    captions = traitlets.List(traitlets.Dict()).tag(sync=True)
    name = traitlets.Unicode("images").tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    selected = traitlets.Int(0).tag(sync=True)
    side = traitlets.Int(150).tag(sync=True)
    large = traitlets.Dict().tag(sync=True)
    hotkeys = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def on_key(self, function: Callable[[str], object]) -> None:
        """Have ``function(key)`` called for each of `hotkeys` that is pressed; a double click counts as ``z``."""
        self.on_msg(lambda _, message, __: function(message["key"]))

    def focus(self) -> None:
        """Have the next key come here: a button that keeps it would leave ``x`` to JupyterLab, which cuts the cell."""
        self.send({"focus": True})


class Names(anywidget.AnyWidget):
    """Give the sliders of the box that this invisible widget lies in the names that a screen reader says."""

    _esm = HERE / "names.js"
