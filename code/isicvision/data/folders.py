"""Walk folders of images as people keep them: parts of a split, folders of the system, formats that cannot be read."""

import os
import re
from collections import Counter
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
_KINDS = {
    "HEIC": ".heic .heif .hif",
    "DICOM": ".dcm .dicom",
    "JPEG 2000": ".jp2 .j2k .jpx .j2c .jpf",
    "camera raw": ".raw .cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef",
    "": ".jxr .jxl .avif .gif .svg .psd .ico .tga .eps .xcf .ppm .pgm .pbm .pnm .exr .hdr .emf .wmf .dib .apng",
}
UNREADABLE = {ending: kind for kind, endings in _KINDS.items() for ending in endings.split()}
"""Extensions of image files that are not read, and what such a file is called if not by its extension."""
_PART_NAMES = {
    "train": "train training",
    "validation": "val valid validation validate",
    "test": "test testing",
}
_PARTS = {name: part for part, names in _PART_NAMES.items() for name in names.split()}
BESIDE = re.compile(r"_*(masks?|segmentations?|thumbnails?|thumbs|backups?|caches?)", re.IGNORECASE)
"""Folders that people keep beside those of the labels: they are set aside where there are two others."""
TABLES = [f"metadata.{ending}" for ending in ("csv", "tsv", "csv.gz", "csv.txt", "xlsx", "xls")]
"""Names of a table about the images (in lower case); the last two only where there is none of the others."""
USE_CSV = "If a CSV file holds the labels, use from_csv (in the notebooks: set LABEL_COLUMN)."
_NO_LABEL = re.compile(
    r"(.*[ _-])?(part|batch|chunk|archive|volume|vol|disk|input|images?|pictures?|imgs?|photos?|"
    r"masks?|segmentations?|annotations?|ground[ _-]?truth)[ _-]*\d*",
    re.IGNORECASE,
)
_COLLECTION = re.compile(
    r"(.*[ _-])?(folds?|parts?|sets?|splits?|batch|sites?|cent(er|re)|hospital|clinic|cohort)[ _-]*(\d+|[a-z])?|"
    r"(19|20)\d\d",
    re.IGNORECASE,
)
_COPY = re.compile(
    r"(?:copy of )(.+)|(.+?)(?:[ _-]+(?:copy|kopie)(?: ?\(?\d+\)?)?| ?\(\d+\))+", re.IGNORECASE
)


def _part(name):
    """Return the part of a split that a folder's name says, or None; ``train_set`` is ``train`` too."""
    return _PARTS.get(re.sub(r"[ _-]*(set|data|dataset)$", "", name.lower()))


def folder(path: str | os.PathLike) -> Path:
    """Return the path of a folder that a user gave, or raise FileNotFoundError, which says what is there instead."""
    root = user_path(path)
    if root.is_file():
        is_archive = root.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
        hint = "unpack the archive" if is_archive else "give its folder"
        raise FileNotFoundError(f"{root} is not a folder but a file: {hint}, such as {root.parent}")
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; there is nothing of that name")
    return root


def walk(root: Path) -> tuple[list[str], list[str], list[str]]:
    """List images, unreadable images (`UNREADABLE`) and tables (`TABLES`) below a folder, relative to it with ``/``.

    Each folder is in the order of its names. Links are followed, unless they lead back to a folder above them. Hidden
    files and those of `SYSTEM` are left out. A pipe or device that is called as an image is listed as unreadable: to
    open it might never end.
    """
    images: list[str] = []
    unreadable: list[str] = []
    tables: list[str] = []

    def enter(folder, start, above):
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = entry.name.lower()
            if name.startswith(".") or name in SYSTEM:
                continue
            if entry.is_dir():
                about = entry.stat()
                if (here := (about.st_dev, about.st_ino)) not in above:
                    enter(entry.path, f"{start}{entry.name}/", {*above, here})
            elif name.endswith(EXTENSIONS):
                is_odd = not entry.is_file() and os.path.exists(entry.path)
                (unreadable if is_odd else images).append(start + entry.name)
            elif name in TABLES and entry.is_file():
                tables.append(start + entry.name)
            elif os.path.splitext(name)[1] in UNREADABLE:
                unreadable.append(start + entry.name)

    about = os.stat(root)
    enter(root, "", {(about.st_dev, about.st_ino)})
    return images, unreadable, [table for table in tables if "metadata.xls" not in table.lower()] or tables


def why_unreadable(file: str) -> str:
    """Say why an image of `UNREADABLE` is not read, and what to do."""
    ending = os.path.splitext(file)[1].lower()
    if ending in EXTENSIONS:
        return "it is a pipe, a socket or a device, not a file"
    return f"{UNREADABLE[ending] or ending[1:].upper()} files cannot be read: save it as JPEG or PNG"


def why_no_label(file: str) -> str:
    """Say why an image has no label by its folder."""
    beside = [name for name in file.split("/")[:-1] if BESIDE.fullmatch(name)]
    return f"the folder {beside[0]} is not a label" if beside else "it lies in no label's folder"


def arrange(root: Path, files: list[str]) -> tuple[list[str | None], list[str] | None]:
    """Return the label of each file that `walk` lists and, where the folders are parts of a split, its part.

    A file in no label's folder has the label None. Raises FileNotFoundError if no file lies in a folder, ValueError
    if the folders are no labels: parts of a split beside others, ``part_1`` and ``part_2``, a copy of another one, or
    folders that hold the labels' folders.
    """
    paths = [file.split("/") for file in files]
    found: list[str] | None = None
    while True:
        names = sorted({path[0] for path in paths if len(path) > 1})
        others = [name for name in names if not BESIDE.fullmatch(name)]
        if len(others) > 1:
            paths = [path[-1:] if BESIDE.fullmatch(path[0]) else path for path in paths]
            names = others
        below = sorted({path[1] for path in paths if len(path) > 2})
        parts = [name for name in names if _part(name)]
        if names and parts == names:
            found = found or [_part(path[0]) if len(path) > 1 else "" for path in paths]
            paths = [_without_parts(path) for path in paths]
        elif len(names) == 1 and below and all(map(_part, below)):
            paths = [path[1:] if len(path) > 1 else path for path in paths]
            root = root / names[0]
        else:
            break
    if found and not names:
        raise ValueError(
            f"the folders of {root} are parts of a split ({', '.join(sorted({*found} - {''}))}) without a folder per "
            f"label in them. {USE_CSV}"
        )
    _refuse_what_is_no_label(root, names, parts, below)
    _say_if_labels_may_lie_below(root, names, paths)
    if found:
        counts = ", ".join(f"{part} {count:,}" for part, count in sorted(Counter(found).items()) if part)
        warn(
            f"{root} has a folder per part of a split ({counts} images). The labels are those of the folders "
            "below, and the column split says which part an image is from; split() deals out all of them anew."
        )
    return [path[0] if len(path) > 1 else None for path in paths], found


def _without_parts(path):
    while len(path) > 1 and _part(path[0]):
        path = path[1:]
    return path


def some(names: list[str], most: int = 5) -> str:
    """Write out the first few names of files or folders."""
    return ", ".join(map(printable, names[:most])) or "nothing"


def _refuse_what_is_no_label(root, names, parts, below):
    """Raise if the folders are no labels: FileNotFoundError if there are none, else ValueError."""
    if not names:
        raise FileNotFoundError(
            f"{root} has no images ({', '.join(EXTENSIONS)}) in a folder per label, such as {root / 'benign'} and "
            f"{root / 'malignant'}. If it is itself the folder of a label, give {root.parent}. {USE_CSV}"
        )
    if parts:
        raise ValueError(
            f"{root} has folders of a split ({', '.join(parts)}) beside others "
            f"({some([name for name in names if name not in parts])}). Move the ones or the others away: either each "
            "folder is a label, or each is a part with a folder per label in it."
        )
    if len(names) == 1 and len(below) > 1:
        raise ValueError(
            f"{root} has one folder with images, {some(names)}, so all would have one label. If the folders in it "
            f"({some(below)}) are the labels, give {printable(root / names[0])}. {USE_CSV}"
        )
    for name in names:
        copied = (found := _COPY.fullmatch(name)) and (found[1] or found[2])
        if copied in names:
            raise ValueError(
                f"{root} has the folders {printable(copied)} and {printable(name)}, which seems to be a copy of the "
                "first. Move one of them away, or put the images of both into one."
            )
    if len(names) > 1 and all(map(_NO_LABEL.fullmatch, names)):
        raise ValueError(
            f"the folders of {root} ({some(names)}) are no labels but parts of one collection. Its labels are in a "
            f"table: use from_csv(table, images={str(root)!r}) (in the notebooks: set LABEL_COLUMN)."
        )


def _say_if_labels_may_lie_below(root, names, paths):
    """Refuse or warn if each folder has the same folders in it: either ones may be the labels."""
    inner = [{path[1] if len(path) > 2 else None for path in paths if path[0] == name} for name in names]
    if len(names) < 2 or len(inner[0]) < 2 or None in inner[0] or any(each != inner[0] for each in inner):
        return
    outside, inside = some(names), some(sorted(inner[0]))
    if all(map(_COLLECTION.fullmatch, names)):
        raise ValueError(
            f"{root}: the labels seem to be {inside}, in each of the folders {outside}. Move the images into one "
            "folder per label, or write a table of images and labels and use from_csv. If the outer folders are the "
            "labels, move the images out of the inner ones."
        )
    if not all(_COLLECTION.fullmatch(name) or _part(name) for name in inner[0]):
        warn(
            f"{root}: the labels are {outside}; each of these folders has the folders {inside} in it. If those are the "
            "labels, move the images into one folder per label."
        )


def warn_of_twins(root: Path, files: list[str]) -> None:
    """Warn of files whose names differ only in case, ``a.jpg`` and ``A.JPG``: not every system can tell them apart."""
    counts = Counter(file.lower() for file in files)
    if len(counts) < len(files):
        twins = [file for file in files if counts[file.lower()] > 1]
        warn(
            f"{root}: the names of {len(twins)} images differ from another's only in case, such as {some(twins, 2)}"
            "; if they are copies, dataset.problems() finds them"
        )
