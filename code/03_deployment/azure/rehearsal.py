"""A dry run: stand-ins that print the calls made to them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


class Rehearsal:
    """Stands in for what needs an account: print each call, make none, answer with another stand-in.

    >>> Rehearsal("Model").register(None, "outputs/bundle")
    Model.register(workspace, 'outputs/bundle')
    Model.register(…)
    """

    def __init__(self, text: str) -> None:
        vars(self)["_text"] = text

    def __getattr__(self, name):
        return Rehearsal(f"{self._text}.{name}")

    def __setattr__(self, name, value):
        print(f"{self._text}.{name} = {_describe(value)}")

    def __call__(self, *args: Any, **kwargs: Any) -> Rehearsal:
        """Print the call."""
        # the only None by position is a workspace
        values = ["workspace" if value is None else _describe(value) for value in args]
        values += [f"{name}={_describe(value)}" for name, value in kwargs.items() if value is not None]
        print(f"{self._text}({', '.join(values)})")
        return Rehearsal(f"{self._text}(…)")

    def __iter__(self):
        return iter(())

    def __repr__(self):
        return self._text


def _describe(value):
    """Write an argument so that a person can read it: of azureml's objects their type and plain settings."""
    if isinstance(value, list):
        return f"[{', '.join(map(_describe, value))}]"
    if isinstance(value, (str, Path)):
        return repr(os.path.relpath(value) if os.path.isabs(value) else str(value))
    if not type(value).__module__.startswith("azureml."):
        return repr(value)
    settings = [
        f"{name}={_describe(each)}"
        for name, each in vars(value).items()
        if isinstance(each, (str, int, float)) and not name.startswith("_") and "key" not in name
    ]
    return f"{type(value).__name__}({', '.join(settings)})"
