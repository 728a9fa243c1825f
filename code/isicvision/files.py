"""Files and folders: where the repository lies, what is whole or absent, names of folders, parameter files."""

import hashlib
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import ClassVar

_CODE = Path(__file__).resolve().parents[1]  # of a checkout, or of a job that was sent only this folder
_WHEEL = _CODE / "isicvision_repository"  # what a wheel brings of the repository
_SHIPPED = _CODE.parent if (_CODE.parent / "sample_data" / "sample_archive.py").exists() else _WHEEL
PROJECT_ROOT = Path.cwd() if _SHIPPED == _WHEEL else _SHIPPED
"""The repository that isicvision is installed from (`pip install -e .`), else the current folder."""
SAMPLE_DATA = _SHIPPED / "sample_data"
"""Folder of the bundled sample: ``metadata.csv`` and ``images``."""
DEPLOYMENT = (_CODE if (_CODE / "03_deployment").is_dir() else _WHEEL / "code") / "03_deployment"
"""Folder of what a bundle gets beside the model, such as ``score.py``, and of ``drift.py``."""
OWN_FILES = ("journal.sqlite", "metadata.csv", "missing.csv", "attribution.txt", "licenses.txt")
"""What a download writes beside the folders of the labels: no label's folder has such a name."""
RUN_RECORD = "run.json"
"""Name of the file, in a model's folder, that says how the model was made, see `record.write`."""
PACKAGES = "torch torchvision timm accelerate scikit-learn imaug opencv-python-headless pillow numpy".split()
"""Whose versions a model and a run record name."""
_STRAYS = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini", ".directory", "@eadir"}
_STRAYS |= {".ipynb_checkpoints", "__pycache__"}
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)  # names that Windows keeps for itself


def sha256(path: str | os.PathLike) -> str:
    """Hash the bytes of a file by SHA-256, without reading it whole: 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require(path: str | os.PathLike, made_by: str) -> Path:
    """Return `path` if it is there, else raise FileNotFoundError, which names what to run first: `made_by`."""
    if (path := user_path(path)).exists():
        return path
    hint = " (`make run` runs them all)" if made_by.endswith(".ipynb") else ""
    raise FileNotFoundError(f"{path} is not there yet. Run {made_by} first{hint}.")


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

    A relative path starts at the repository when the notebook that runs lies in it, else at the current folder.
    """
    path = os.path.expanduser(path)
    return str(PROJECT_ROOT / path) if PROJECT_ROOT in Path.cwd().parents else path


def portable(path: str) -> str:
    """Return a path relative to the repository if it lies there, else as it is; with ``/`` on Windows, too."""
    return path.removeprefix(f"{PROJECT_ROOT}{os.sep}").replace(os.sep, "/")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary file that atomically replaces `path` on success. On error `path` is untouched."""
    # some writers go by the end of the name
    part = path.with_name(f".part.{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` as a whole on success. On error `folder` is untouched.

    If the process is killed between the two renamings, `restore_folder` puts the earlier folder back.
    """
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    restore_folder(folder)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        restore_folder(folder)
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)


def restore_folder(folder: Path) -> None:
    """Put back the earlier `folder` if `replacing_folder` was killed before the new one took its place."""
    old = folder.with_name(f".{folder.name}.old")
    if not folder.exists() and old.exists():
        old.rename(folder)


_YAML = {  # YAML 1.2: in 1.1, which PyYAML reads, 1e-3 is text, `no` is false, 010 is 8 and 1:30 is 90
    "null": r"~|null|Null|NULL|None|",
    "bool": r"(?i:true|false)",
    "int": r"[-+]?(0|[1-9][0-9_]*)",
    "float": r"[-+]?(\.[0-9]+|(0|[1-9][0-9_]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
}


def read_parameters(path: str | os.PathLike) -> dict:
    """Read a parameter file, YAML 1.2 with lines such as ``EPOCHS: 12``: dict, empty if the file is.

    None is null; SETTINGS with nothing behind it is an empty dict. Raises ValueError, which names the file, if it
    cannot be read, gives a name twice or holds anything else.
    """
    import yaml  # type: ignore[import-untyped]

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: ClassVar[dict] = {}

        def construct_mapping(self, node, deep=False):
            seen: list = []  # of what 1, 1.0 and true are, a dict keeps one
            for key, _ in node.value:
                if (name := self.construct_object(key, deep=True)) in seen or str(key.value) in seen:
                    raise yaml.MarkedYAMLError(f"{key.value} is given twice", problem_mark=key.start_mark)
                seen += [name, str(key.value)]
            return super().construct_mapping(node, deep)

    for kind, pattern in _YAML.items():
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(f"^(?:{pattern})$"), None)
    try:
        with open(os.path.expanduser(path), "rb") as file:
            given = yaml.load(file, Loader) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read as a parameter file: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} is no parameter file: it should hold lines such as EPOCHS: 12")
    return {name: {} if name == "SETTINGS" and value is None else value for name, value in given.items()}


def read_source(path: str | os.PathLike) -> dict:
    """Return the parameters of a folder of images: its path as SOURCE, and how to read it, if `path` is such a file.

    A relative SOURCE is looked for beside the file, then where `located` says; ValueError if something is not there.
    """
    path = located(os.fspath(path))
    if os.path.isdir(path):
        return {"SOURCE": path}
    if not os.path.exists(path):
        raise ValueError(
            f"{os.path.abspath(path)} is not there: name a folder of images, or a parameter file with SOURCE"
        )
    given = read_parameters(path)
    if not (source := os.path.expanduser(str(given.get("SOURCE") or ""))):
        raise ValueError(f"{path} does not say where the images are: add a line SOURCE: with their folder")
    places = [os.path.join(os.path.dirname(path), source), located(source)]
    if not (found := [*filter(os.path.isdir, places)]):
        raise ValueError(f"{path}: SOURCE is no folder: neither {places[0]} nor {places[1]}")
    return given | {"SOURCE": found[0]}


def folder_name(value: object, lower: bool = False) -> str | None:
    """Make a label fit to name a folder, on Windows, too; None if nothing is left of it."""
    if not isinstance(value, str | int | float):
        return None
    text = str(value).lower() if lower else str(value)
    name = re.sub(r"\s*[^\w ,()+.-]+\s*", "_", text).strip(" .")
    if name in OWN_FILES or _DEVICE.fullmatch(name):
        name += "_"
    return name if name.strip("_") and len(name.encode()) < 200 else None


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of `PACKAGES`: dict of str to str, None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found
