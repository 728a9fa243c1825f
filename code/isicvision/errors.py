"""The base of the errors that only this package raises, and its warnings."""

import sys
import warnings


class IsicVisionError(Exception):
    """Base class of every error that isicvision defines: catch it to catch them all."""


def warn(message: str) -> None:
    """Issue a UserWarning at the line of the user's code that called this package, however deep it came from."""
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("isicvision."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
