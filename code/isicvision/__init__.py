"""Thin helpers behind the notebooks: pictures in, fine-tuned classifier, evaluation, web service out.

The public names are those of __init__.pyi, which type checkers and editors read, too. Each is imported when first used,
so that ``import isicvision`` takes no time and loads neither torch nor azureml.
"""

import ast
import importlib
from pathlib import Path

__version__ = "0.1.0"

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
_HOMES = {
    name.name: line.module for line in _STUB.body if isinstance(line, ast.ImportFrom) for name in line.names
}
__all__ = [*_HOMES]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'isicvision' has no attribute {name!r}; it offers {', '.join(__all__)}")
    home = importlib.import_module(f"{__name__}.{_HOMES[name] or name}")
    return getattr(home, name) if _HOMES[name] else home


def __dir__():
    return sorted([*globals(), *__all__])
