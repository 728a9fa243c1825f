"""Walk folders of images as people keep them: parts of a split, folders of the system, formats that cannot be read."""

import os
import re
from collections import Counter
from contextlib import suppress
from itertools import dropwhile
from pathlib import Path

from ..errors import warn
from ..files import user_path
from ..images import EXTENSIONS
from ..text import printable

SYSTEM = {
    *"@eadir @recycle @recently-snapshot #recycle #snapshot $recycle.bin recycler recycled @tmp ~snapshot".split(),
    *"lost+found found.000 __macosx __pycache__ thumbs.db cachedimages".split(),
    *("system volume information", "network trash folder", "temporary items"),
}
"""Folders and files of operating systems and network drives, which hold no data of the user's (in lower case)."""
UNREADABLE = {
    *".heic .heif .hif .jp2 .j2k .jpx .j2c .jpf .jxr .jxl .avif .gif .svg .psd .ico .tga .eps .xcf".split(),
    *".raw .cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .ppm .pgm .pbm .pnm .exr .hdr .emf .wmf .dib .apng".split(),
}
"""Extensions of image files that are not read."""
_IMAGE = re.compile(rb"(?s).{128}DICM|\xff\xd8\xff|\x89PNG|GIF8|II\*\0|MM\0\*|RIFF.{4}W|.{4}ftyp(hei|mi|avi)")
_PARTS = dict.fromkeys(("train", "training"), "train") | dict.fromkeys(("test", "testing"), "test")
_PARTS |= dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "validation")
BESIDE = re.compile(
    r"(?i)_*(masks?|segmentations?|superpixels?|overlays?|contours?|heatmaps?|thumb(nail)?s?|previews?|backups?|"
    r"caches?|tmp|temp|trash)"
)
"""Folders that people keep beside those of the labels: they are set aside where there are two others."""
TABLES = [f"metadata.{end}" for end in "csv tsv csv.gz csv.txt txt xlsx xlsm xls ods parquet jsonl".split()]
"""Names of a table about the images (in lower case); the last six only where there is none of the others."""
USE_CSV = "If a CSV file holds the labels, use from_csv (in the notebooks: set LABEL_COLUMN)."
_COLLECTION = re.compile(
    r"(?i)(.*[ _-])?(folds?|parts?|sets?|splits?|batch|chunk|archive|vol(ume)?|disk|site|cent(er|re)|hospital|clinic|"
    r"cohort|input|images?|pictures?|imgs?|photos?|masks?|segmentations?|annotations?|ground[ _-]?truth)"
    r"[ _-]*(\d+|[a-z])?|(19|20)\d\d([-_.]?\d\d){0,2}|dcim|\d{3}[a-z_]{5}|jpe?gs?|pngs?|labels?|"
    r"(patient|person|subject|case|lesion|client|camera|device|session|visit|day)[ _-]*\d+"
)
"""Folders that divide a collection otherwise than by labels."""
_COPY = re.compile(
    r"(?i)^(cop(y of|ie de|ia d[ei])|kopie von) |[ _-]+\(?(cop(y|ie|ia)|kopie?|backup|bak|old)\)?( ?\(?\d+\)?)?$"
    r"| ?\(\d+\)$|\.(bak|old)$|~$"
)


def part(name: object) -> str | None:
    """Return the part of a split that a folder or a cell names, such as ``val_set``, None for another name."""
    return _PARTS.get(re.sub(r"[ _-]*(set|data|dataset)$", "", str(name).strip().lower()))


def folder(path: str | os.PathLike) -> Path:
    """Return the path of a folder that a user gave, or raise FileNotFoundError, which says what is there instead."""
    root = user_path(path)
    if root.is_file():
        raise FileNotFoundError(f"{root} is not a folder but a file: give its folder, or unpack an archive")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; there is nothing of that name")
    return root


def walk(root: Path) -> tuple[list[str], list[str], list[str]]:
    """List images, unreadable images (`UNREADABLE`) and tables (`TABLES`) below a folder, relative to it with ``/``.

    Links are followed, unless they lead back to a folder above them. Hidden files and those of `SYSTEM` are left out.
    """
    images: list[str] = []
    unreadable: list[str] = []
    tables: list[str] = []

    def enter(folder, start, above):
        about = os.stat(folder)
        if (here := (about.st_dev, about.st_ino)) in above:
            return
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = entry.name.lower()
            if name.startswith(".") or name in SYSTEM:
                continue
            if entry.is_dir():
                enter(entry.path, f"{start}{entry.name}/", {*above, here})
            elif name.endswith(EXTENSIONS):
                (images if entry.is_file() else unreadable).append(start + entry.name)
            elif name in TABLES and entry.is_file():
                tables.append(start + entry.name)
            elif os.path.splitext(name)[1] in UNREADABLE:
                unreadable.append(start + entry.name)
            elif entry.is_file() and (kind := _begins(entry.path)):
                (images if kind.endswith(b"DICM") else unreadable).append(start + entry.name)

    enter(root, "", set())
    return images, unreadable, [file for file in tables if file.lower().endswith(tuple(TABLES[:5]))] or tables


def _begins(path):
    """Return the bytes by which a file of any name begins like an image, None if it does not."""
    with suppress(OSError), open(path, "rb") as file:
        return (found := _IMAGE.match(file.read(132))) and found[0]


def why_unreadable(file: str) -> str:
    """Say why an image that `walk` lists as unreadable is not read, and what to do."""
    ending = os.path.splitext(file)[1].lower()
    if ending in EXTENSIONS:
        return "it is not a file but a broken link, a pipe or a device"
    if ending not in UNREADABLE:
        return "it is an image, but its name has another ending: rename it, for instance to NAME.jpg"
    return f"{ending[1:].upper()} files cannot be read: save it as JPEG or PNG"


def why_no_label(file: str) -> str:
    """Say why an image has no label by its folder."""
    beside = is_beside(file)
    return f"the folder {beside} is not a label" if beside else "it lies in no label's folder"


def is_beside(file: str) -> str | None:
    """Return the folder of masks or copies (`BESIDE`) that a file lies in, None if it lies in none."""
    return next(filter(BESIDE.fullmatch, file.split("/")[:-1]), None)


def arrange(root: Path, files: list[str]) -> tuple[list[str | None], list[str] | None]:
    """Return the label of each file that `walk` lists and, where the folders are parts of a split, its part.

    A file in no label's folder has the label None. Raises FileNotFoundError if no file lies in a folder, ValueError if
    they are no labels: parts of a split beside others, ``part_1`` and ``part_2``, copies, or folders of such folders.
    """
    names, paths = _without_beside([file.split("/") for file in files])
    below = _folders(path[1:] for path in paths)
    if len(names) == 1 and below and all(map(part, below)):
        root = root / names[0]
        names, paths = _without_beside([path[1:] if len(path) > 1 else path for path in paths])
    found: list[str] | None = None
    if names and all(map(part, names)):
        found = [part(path[0]) or "" if len(path) > 1 else "" for path in paths]
        names, paths = _without_beside([[*dropwhile(part, path[:-1]), path[-1]] for path in paths])
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(Counter(found).items()) if name)
        if not names:
            raise ValueError(
                f"the folders of {root} are parts of a split ({counts} images) without a folder per label in them. "
                f"{USE_CSV}"
            )
    _refuse_what_is_no_label(root, names, paths)
    if found:
        warn(
            f"{root} has a folder per part of a split ({counts} images). The labels are those of the folders "
            "below, and the column split says which part an image is from. split() deals out all of them anew; "
            "splitting.published (in the notebooks SPLIT_COLUMN: split) takes the parts as they are."
        )
    return [path[0] if len(path) > 1 else None for path in paths], found


def _folders(paths):
    return sorted({path[0] for path in paths if len(path) > 1})


def _without_beside(paths):
    """Return the names of the folders, and the paths; in those of `BESIDE` only the file's name stays."""
    others = [name for name in _folders(paths) if not BESIDE.fullmatch(name)]
    if len(others) > 1:
        paths = [path[-1:] if BESIDE.fullmatch(path[0]) else path for path in paths]
    return _folders(paths), paths


def some(names: list[str], most: int = 5) -> str:
    """Write out the first few names of files or folders."""
    return ", ".join(map(printable, names[:most])) or "nothing"


def _refuse_what_is_no_label(root, names, paths):
    """Raise if the folders are no labels; warn if the folders below may be labels too, since each has the same."""
    if not names:
        raise FileNotFoundError(
            f"{root} has no images ({', '.join(EXTENSIONS)}) in a folder per label, such as {root / 'benign'} and "
            f"{root / 'malignant'}. If it is itself the folder of a label, give {root.parent}. {USE_CSV}"
        )
    if parts := [name for name in names if part(name)]:
        others = [name for name in names if name not in parts]
        raise ValueError(
            f"{root} has folders of a split ({', '.join(parts)}) beside others ({some(others)}). Move the ones or the "
            "others away: either each folder is a label, or each is a part with a folder per label in it."
        )
    inner = [_folders(path[1:] for path in paths if path[0] == name) for name in names]
    if len(names) == 1:
        if len(inner[0]) > 1:
            raise ValueError(
                f"{root} has one folder with images, {some(names)}, so all would have one label. If the folders in it "
                f"({some(inner[0])}) are the labels, give {printable(root / names[0])}. {USE_CSV}"
            )
        return
    for name in names:
        if (copied := _COPY.sub("", name)) != name and copied in names:
            raise ValueError(
                f"{root} has the folders {printable(copied)} and {printable(name)}, which seems to be a copy of the "
                "first. Move one of them away, or put the images of both into one."
            )
    if all(map(_COLLECTION.fullmatch, names)):
        raise ValueError(
            f"the folders of {root} ({some(names)}) are no labels but parts of one collection. Move the images into "
            f"one folder per label, or use from_csv(table, images={str(root)!r}) (in the notebooks: set LABEL_COLUMN)."
        )
    is_same = len(inner[0]) > 1 and all(each == inner[0] for each in inner)
    is_same &= all(len(path) != 2 for path in paths)
    if is_same and not all(_COLLECTION.fullmatch(name) or part(name) for name in inner[0]):
        warn(
            f"{root}: the labels are {some(names)}; each of these folders has the folders {some(inner[0])} in it. If "
            "those are the labels, move the images into one folder per label."
        )
