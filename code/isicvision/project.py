"""Where the repository lies, and small help for all: files that are whole or absent, names of folders, messages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import reprlib
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

_CHECKOUT = Path(__file__).resolve().parents[2]

PROJECT_ROOT = _CHECKOUT if (_CHECKOUT / "sample_data").is_dir() else Path.cwd()
"""The repository that isicvision is installed from (`pip install -e .`), else the current folder."""
OWN_FILES = ("journal.sqlite", "metadata.csv", "missing.csv", "attribution.txt", "licenses.txt")
"""What a download writes beside the folders of the labels: no label's folder has such a name."""

_STRAYS = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "@eadir"}
_STRAYS |= {".ipynb_checkpoints", "__pycache__"}
_MISSING = (
    ",#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null"
)
MISSING = _MISSING.split(",")
"""What pandas.read_csv takes for missing, by its documentation."""


def sha256(path: str | os.PathLike) -> str:
    """Hash the bytes of a file by SHA-256, without reading it whole: 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(path: str | os.PathLike, made_by: str) -> Path:
    """Return `path` if it is there, else raise FileNotFoundError, which names the notebook to run first.

    That is `made_by`, from the repository's root: ``"code/02_modeling/01_train.ipynb"``.
    """
    path = user_path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"{path} is not there yet. Run {made_by} first: it writes it. (`make run` runs them all.)"
        )
    return path


def read_json(path: Path) -> dict:
    """Read a JSON object from a file: dict; ValueError names the file if it holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged, not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} is damaged: it holds no JSON object")
    return found


def is_stray(name: str) -> bool:
    """Say whether a system or a program leaves files of this name in any folder: Finder, Explorer, JupyterLab, …."""
    return name.lower() in _STRAYS or name.startswith(("._", ".nfs", ".~lock."))


def sweep(folder: str | os.PathLike) -> None:
    """Delete what `is_stray` from a folder of ours, at any depth, so that no upload carries it."""
    for path in [path for path in Path(folder).rglob("*") if is_stray(path.name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def user_path(path: str | os.PathLike) -> Path:
    """Return a path as a user means it: ``~`` is their home. Raises ValueError if it is empty."""
    if not os.fspath(path):
        raise ValueError("the path is empty: name a file or folder, '.' is the current folder")
    return Path(os.path.expanduser(path))  # unlike Path.expanduser it leaves ~$report.csv alone


def located(path: str | Path) -> str:
    """Return where the path in a parameter lies, ``~`` being your home.

    A relative path starts at the repository when the notebook that runs lies in it, as `make run` reads it, and at the
    current folder elsewhere: a copied cell works where it was copied to.
    """
    path = os.path.expanduser(path)
    return str(PROJECT_ROOT / path) if PROJECT_ROOT in Path.cwd().parents else path


NAMELESS = "(picture "
"""How the group of an image begins for which nobody gave a group or a path."""


def is_named(table: pd.DataFrame, group: str = "group") -> np.ndarray:
    """Say of each image whether a column names its lesion or patient: numpy.ndarray of bool.

    Without such a column an image is its own group, and nobody can know which images show one lesion.
    """
    names = table[group].astype("string")
    alone = names.isna() | (names == table["path"]) | names.str.startswith(NAMELESS)
    return ~alone.to_numpy(bool, na_value=True)


def stored(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table as it is written: paths below the repository start there, whatever the current folder is."""
    return table.assign(**{name: table[name].map(portable) for name in ("path", "group") if name in table})


def restored(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table that `stored` made with paths that can be opened from the current folder."""
    first = next((path for path in table["path"] if not os.path.isabs(path)), None)
    if first is None or os.path.exists(first) or not (PROJECT_ROOT / first).exists():
        return table
    paths = [os.path.join(PROJECT_ROOT, path) for path in table["path"]]  # an absolute one stays
    alone = table["group"] == table["path"]
    return table.assign(path=paths, group=table["group"].mask(alone, paths))


def portable(path: str) -> str:
    """Return a path relative to the repository if it lies there, else as it is."""
    return path.removeprefix(f"{PROJECT_ROOT}{os.sep}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Lend a new file, which takes the place of `path` once it is whole and on the disk; else all stays as it was.

    Its name ends as that of `path` does, because some writers go by it. The folder is made if it is not there.
    """
    part = path.with_name(f".part.{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def printable(name: object) -> str:
    """Return a name fit to print, draw and store; bytes that are not UTF-8 are read as Windows-1252, which most are."""
    text = str(name)
    if text.isascii():
        return text
    text = re.sub(
        "[\udc80-\udcff]", lambda byte: bytes([ord(byte[0]) - 0xDC00]).decode("cp1252", "replace"), text
    )
    return text.encode("utf-8", "backslashreplace").decode()


_YAML = {  # YAML 1.2: in 1.1, which PyYAML reads, 1e-3 is text, `no` is false, 010 is 8 and 1:30 is 90
    "null": r"~|null|Null|NULL|None|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?(\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


def read_parameters(path: str | os.PathLike) -> dict:
    """Read a parameter file, YAML with lines such as ``EPOCHS: 12``: dict, empty if the file is.

    Numbers are those of YAML 1.2, and None is null. SETTINGS with nothing behind it is an empty dict. Raises
    ValueError, which names the file, if it cannot be read, gives a name twice or holds anything else.
    """
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: ClassVar[dict] = {}

        def construct_mapping(self, node, deep=False):
            seen = {}
            for key, _ in node.value:
                if (first := seen.setdefault(str(key.value), key)) is not key:
                    line = first.start_mark.line + 1
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value} is given twice, first in line {line}",
                        problem_mark=key.start_mark,
                    )
            return super().construct_mapping(node, deep)

    for kind, pattern in _YAML.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"), None)
    try:
        with open(os.path.expanduser(path), "rb") as file:
            given = yaml.load(file, Loader) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        hint = " (YAML takes spaces, no tabs)" if "'\\t'" in str(error) else ""
        raise ValueError(f"{path} cannot be read as a parameter file: {error}{hint}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} is no parameter file: it should hold lines such as EPOCHS: 12")
    return {name: {} if name == "SETTINGS" and value is None else value for name, value in given.items()}


def folder_name(value: object, lower: bool = False) -> str | None:
    """Make a label fit to name a folder; None if nothing is left of it."""
    if not isinstance(value, str | int | float):
        return None
    text = str(value).lower() if lower else str(value)
    name = re.sub(r"\s*[^\w ,()+.-]+\s*", "_", text).strip(" .")
    if name in OWN_FILES:
        name += "_"
    return name if name.strip("_") and len(name.encode()) < 200 else None


def as_label(value: object) -> str | None:
    """Return what a value means as a label, the one rule wherever labels enter: str, or None where there is none.

    Text is stripped, and its letters are composed (NFC), since macOS takes names apart. Numbers and truth values are
    written as Python does, whole numbers without ``.0``: 1, 1.0 and ``numpy.int64(1)`` are ``"1"``. None, NaN and
    empty text are no label.

    >>> as_label(1.0), as_label(" nv "), as_label(True), as_label(float("nan"))
    ('1', 'nv', 'True', None)
    """
    if value is None or type(value).__name__ in (
        "NAType",
        "NaTType",
    ):  # pandas' own, which need no import here
        return None
    if isinstance(value, Real) and not isinstance(value, bool):
        if value != value:
            return None
        value = int(float(value)) if float(value).is_integer() else value
    return unicodedata.normalize("NFC", printable(value)).strip() or None


def require_dataset(value: object, what: str) -> None:
    """Raise TypeError, which begins with `what`, unless a value is an ImageDataset."""
    if not (hasattr(value, "table") and hasattr(value, "paths")):
        raise TypeError(f"{what} takes an ImageDataset, not {reprlib.repr(value)}")


def apart(name: str, labels: Iterable[str]) -> str:
    """Return a name of our own that is none of the labels: `name`, in brackets if a label is called so.

    >>> apart("all", ["benign", "malignant"]), apart("all", ["all", "none"])
    ('all', '(all)')
    """
    taken = {*labels}
    while name in taken:
        name = f"({name})"
    return name


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, which is in the singular for 1 only, and thousands separators: str.

    >>> counted(1, "image"), counted(7006, "image")
    ('1 image', '7,006 images')
    """
    return f"{int(count):,} {noun}{'' if count == 1 else 's'}"


def secret(value: str | None, name: str) -> str | None:
    """Return a key or token without the white space and line breaks around it, None if none is given.

    Raises ValueError if it holds what no header of HTTP takes. The message names the `name`, such as ``"ISIC_TOKEN"``,
    and shows no part of the secret.
    """
    if value is None or value == "":
        return None
    clean = value.strip("\ufeff\u200b \t\r\n\v\f") if isinstance(value, str) else ""
    if re.fullmatch(r"[!-~]+", clean):
        return clean
    if not isinstance(value, str):
        problem = f"is {type(value).__name__}, not text"
    elif not clean:
        problem = "holds only white space"
    else:
        problem = "holds a space, a line break or another character that no key has"
    raise ValueError(f"{name} {problem}: copy it again (its value is not shown here)")


def redacted(text: object) -> str:
    """Write out a text, such as an address or an error that names one, without passwords and keys in addresses."""
    # up to the last @, if the first ends a user's name with a password: that may hold a slash or an @
    user = r"(?<=://)(?:[^/@\s]*@|[^/@\s:\[]*:(?!\d*(?:[/?#]|$))[^@\s]*@)(?:\S*@)?"
    text = re.sub(user, "…@", str(text))
    # of the archive's own parameters the value may be read
    return re.sub(r"([?&](?!(?:query|limit|cursor|collections)=)[^=&\s]+=)[^&\s'\")]+", r"\1…", text)


def file_size(count: int) -> str:
    """Write a number of bytes in words, with three digits that count: str.

    >>> file_size(1), file_size(34_200), file_size(13_300_000), file_size(2 * 10**9)
    ('1 B', '34.2 kB', '13.3 MB', '2 GB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 999.5 * 1000 ** (power - 1):
            return f"{count / 1000**power:.3g} {unit}"
    return f"{count:.0f} B"


def listed(reasons: Iterable[str]) -> str:
    """Write out the first ten messages, each on a line of its own: str."""
    reasons = [*reasons]
    return "".join(f"\n  {reason}" for reason in reasons[:10] + ["…"] * (len(reasons) > 10))
