"""Decoded images and features on disk, kept by the content of the image that they were made from.

One file an array, named by the hash of the image's bytes, with a checksum: what is missing or damaged is made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import tempfile
import warnings
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import DTypeLike

from ..files import user_path
from ..images import ImageError, decode, map_threads
from ..text import listed

LIMIT = 20
"""GB of all arrays together; the environment variable ISICVISION_CACHE_GB overrides it."""
KINDS = ("pixels", "features")
"""The names of the cache's own folders begin with these."""


def folder() -> Path:
    """Return the folder of the cache: ISICVISION_CACHE, else ``isicvision`` in the user's own cache folder."""
    home = user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return user_path(os.environ.get("ISICVISION_CACHE") or home / "isicvision")


class Arrays:
    """Arrays of one shape and type on disk, by key, in a folder for each `kind`, such as ``pixels-224``."""

    def __init__(self, kind: str, shape: Sequence[int], dtype: DTypeLike) -> None:
        self.kind, self.shape, self.dtype = kind, tuple(shape), np.dtype(dtype)
        self.bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._folder = folder() / kind
        self._room: Any = None  # bytes that may still be written; make_room sets it

    def path(self, key: str) -> Path:
        """Return the file of `key`, a hash in hexadecimal digits."""
        return self._folder / key[:2] / key

    def has(self, key: str) -> bool:
        """Say whether there is a file of the right length, and mark it as used."""
        path, found = self.path(key), False
        with suppress(OSError):  # missing, or of another user, or in a read-only cache
            found = path.stat().st_size == self.bytes + 4
            os.utime(path)
        return found

    def read(self, key: str, out: np.ndarray) -> bool:
        """Fill `out` with the array of `key`; return False if it is missing or damaged."""
        try:
            with open(self.path(key), "rb", buffering=0) as file:
                length = file.readinto(out.data.cast("B"))
                return length == self.bytes and file.read(5) == _checksum(out)
        except OSError:
            return False

    def write(self, key: str, array: np.ndarray) -> None:
        """Keep `array` if there is room. If the disk is full, warn once and continue without the cache."""
        if self._room is None:
            self.make_room(1)
        if self._room < self.bytes + 4:
            return
        path = self.path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=path.parent, prefix=".")
            try:
                with open(handle, "wb") as file:
                    file.write(array.data)
                    file.write(_checksum(array))
                os.replace(part, path)
                self._room -= self.bytes + 4
            finally:  # Ctrl-C too must leave no half file behind
                Path(part).unlink(missing_ok=True)
        except OSError as error:
            self._room = 0
            warnings.warn(
                f"the cache {folder()} takes no more ({error.strerror or error}), so the other images are decoded each "
                "time, which is slower; set ISICVISION_CACHE to another folder",
                stacklevel=2,
            )

    def make_room(self, count: int) -> None:
        """Evict the least recently used arrays until `count` more fit."""
        limit, files = _limit(), []
        for path in (path for box in _boxes() for path in box.iterdir()):
            with suppress(FileNotFoundError):  # another run evicted it
                status = path.lstat()
                files.append((status.st_mtime, status.st_size, path))
        self._room, needed = limit - sum(size for _, size, _ in files), count * (self.bytes + 4)
        for _, size, path in sorted(files):
            if self._room >= needed:
                return
            with suppress(OSError):  # another user's
                path.unlink(missing_ok=True)
                self._room += size
        if self._room < needed:
            warnings.warn(
                f"{count} images take more than the {limit / 1e9:g} GB of the cache, so some are decoded each time, "
                "which is slower; set ISICVISION_CACHE_GB to a larger number",
                stacklevel=4,
            )


def _limit():
    """Return how many bytes all arrays together may take."""
    given = os.environ.get("ISICVISION_CACHE_GB") or LIMIT
    try:
        if float(given) < 0:
            raise ValueError
        return round(float(given) * 1e9)
    except (ValueError, OverflowError):  # the latter of inf
        raise ValueError(f"ISICVISION_CACHE_GB is a number of GB, such as {LIMIT}, not {given!r}") from None


def _checksum(array):
    return zlib.crc32(array.data).to_bytes(4, "little")


def _boxes():
    """List the folders of arrays; other files in the folder of the cache may be the user's."""
    return [box for kind in KINDS for box in folder().glob(f"{kind}-*/[0-9a-f][0-9a-f]")]


def clear() -> None:
    """Delete everything that the cache holds; it is made again when needed."""
    boxes = _boxes()
    for box in boxes:
        shutil.rmtree(box, ignore_errors=True)
    for index in folder().glob("keys.sqlite*"):
        index.unlink(missing_ok=True)
    for each in (*{box.parent for box in boxes}, folder()):
        with suppress(OSError):  # not empty: files of the user
            each.rmdir()


def keys(paths: Sequence[str | os.PathLike]) -> list[str | None]:
    """Return the key of each image: 32 hexadecimal digits, the hash of its bytes, or None if it cannot be read.

    Files whose name, size and times are known from an earlier call are not read again.
    """
    try:
        return _known_keys(paths)
    except (sqlite3.OperationalError, OSError, UnicodeEncodeError):
        pass  # locked, read-only, on a full disk; a name that is not UTF-8
    except sqlite3.DatabaseError:  # damaged: it is made again
        with suppress(OSError):
            (folder() / "keys.sqlite").unlink(missing_ok=True)
    return map_threads(_key, paths)


def _known_keys(paths):
    folder().mkdir(parents=True, exist_ok=True)
    marks, query = [*map(_mark, paths)], "SELECT * FROM keys WHERE mark = ?"
    with closing(sqlite3.connect(folder() / "keys.sqlite", timeout=60)) as index:
        index.execute("CREATE TABLE IF NOT EXISTS keys (mark TEXT PRIMARY KEY, key TEXT) WITHOUT ROWID")
        rows = (index.execute(query, [mark]).fetchone() for mark in marks if mark)
        found = dict(filter(None, rows))
        unknown = [n for n, mark in enumerate(marks) if mark and mark not in found]
        new = dict(zip(unknown, map_threads(_key, [paths[n] for n in unknown]), strict=True))
        with index:
            rows = [(marks[n], key) for n, key in new.items() if key]
            index.executemany("INSERT OR REPLACE INTO keys VALUES (?, ?)", rows)
    return [new.get(n) or found.get(mark) for n, mark in enumerate(marks)]


def _mark(path):
    """Name a file's state: each write changes its size or times, and nobody can set the last of them."""
    with suppress(OSError):
        status = os.stat(path)
        return f"{os.path.abspath(path)}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def _key(path):
    with suppress(OSError):
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()


class Images:
    """Decoded images as one large array that is never whole in memory: ``images[[3, 5]]`` reads two.

    Creating one decodes what the cache lacks. `size` and `interpolation` are as in `images.decode`. ``shape`` is
    (images, size, size, 3), of uint8; ``broken`` the reason by path of each image that cannot be read; ``keys`` what
    `keys` returns; ``how`` names everything else that the values depend on.
    """

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        paths: Sequence[str | os.PathLike],
        size: int,
        interpolation: str = "bilinear",
        progress: str | None = "decoding",
    ) -> None:
        self.paths = [str(path) for path in paths]
        self.size, self.interpolation = size, interpolation
        self.shape = (len(self.paths), size, size, 3)
        self.keys = keys(self.paths)
        self.how = f"{size}-{interpolation}-pillow-{PIL.__version__}"  # another Pillow may give other values
        self._arrays = Arrays(f"pixels-{self.how}", self.shape[1:], np.uint8)
        missing = [n for n, key in enumerate(self.keys) if key is None or not self._arrays.has(key)]
        if missing:
            self._arrays.make_room(len(missing))
        reasons = map_threads(self._check, missing, progress)
        self.broken = {self.paths[n]: why for n, why in zip(missing, reasons, strict=True) if why}

    def _check(self, number):
        try:
            self._decode(number)
        except ImageError as error:
            return str(error)

    def _decode(self, number):
        path, key = self.paths[number], self.keys[number]
        array = np.ascontiguousarray(decode(path, self.size, self.interpolation))
        if key:
            self._arrays.write(key, array)
        return array

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, chosen):
        """Return images by a slice or a sequence of numbers: uint8, shape (n, size, size, 3)."""
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else chosen
        batch = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for out, number in zip(batch, numbers, strict=True):
            key = self.keys[number]
            if key is None or not self._arrays.read(key, out):
                out[:] = self._decode(number)
        return batch

    def require_all(self) -> Images:
        """Return this object, or raise one ImageError that names every broken image."""
        if self.broken:
            lost = f"{len(self.broken)} of {len(self)} images cannot be read"
            raise ImageError(f"{lost}; dataset.measure() sets them aside:{listed(self.broken.values())}")
        return self


def through(kind: str, width: int, images: Images, compute: Callable[[list[int]], np.ndarray]) -> np.ndarray:
    """Return a vector for each image, from the cache, or computed and kept: float32, shape (images, width).

    `kind` names all besides the image that they depend on. ``compute(numbers)``: float32 (len(numbers), width).
    """
    arrays = Arrays(kind, (width,), np.float32)
    result = np.empty((len(images), width), np.float32)
    missing = [
        number
        for number, (key, out) in enumerate(zip(images.keys, result, strict=True))
        if not (key and arrays.has(key) and arrays.read(key, out))
    ]
    if missing:
        arrays.make_room(len(missing))
        result[missing] = compute(missing)
        for number in missing:
            if key := images.keys[number]:
                arrays.write(key, result[number])
    return result
