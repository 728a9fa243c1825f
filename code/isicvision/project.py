"""Where the repository lies, and a clear word when a notebook is run before its predecessor."""

import os
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[2]

PROJECT_ROOT = _CHECKOUT if (_CHECKOUT / "sample_data").is_dir() else Path.cwd()
"""The repository that isicvision is installed from (`pip install -e .`), else the current folder."""


def require(path: str | os.PathLike, made_by: str) -> Path:
    """Return `path` if it is there, else say which notebook makes it.

    Parameters
    ----------
    path
        A file or folder that an earlier notebook writes.
    made_by
        That notebook, from the repository's root: ``"code/02_modeling/02_train.ipynb"``.

    Raises
    ------
    FileNotFoundError
        If nothing is at `path`; the message names the notebook to run first.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there yet. Run {made_by} first: it writes it. (`make run` runs them all.)"
        )
    return path
