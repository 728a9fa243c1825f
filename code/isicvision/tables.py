"""Read tables as other programs write them, and write our own so that they come back the same."""

import codecs
import csv
import gzip
import io
import os
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .errors import warn
from .files import PROJECT_ROOT, portable, replacing, user_path
from .text import INVISIBLE, near, printable

pd.set_option("mode.string_storage", "python")  # pyarrow's refuses names of files that are not UTF-8
_MISSING = "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan"
MISSING = ["", "null", *_MISSING.split(",")]
"""What pandas.read_csv takes for missing, by its documentation."""
NAMELESS = "(image "
"""How the group of an image begins for which nobody gave a group or a path."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators of cells that are recognized, and their names in messages."""
OF_FILES = {"path", "group", "augmented_from"}
"""Columns of our own tables that may hold names of files, which need not be UTF-8."""
_ELSE = (
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0", "an Excel workbook or a zip archive: save its table as CSV (UTF-8)"),
    (rb"%PDF|PAR1", "a PDF document or a Parquet file: save its table as CSV (UTF-8)"),
    (rb"version https://git-lfs", "a pointer of Git LFS and not the table: run git lfs pull"),
    (rb"\s*<(!doctype|html|\?xml)", "an HTML or XML page, not a table: download the CSV file itself"),
    (rb"\s*[\[{]\s*[\"{\[]", "JSON: save it as CSV, with a line of column names and a line per image"),
)
_SPECIAL = re.compile('[",\r\n]')
_COMMENTS = re.compile(r"(?:[ \t]*\n|#(?:[ #].*)?\n)+")
_DECIMAL = r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?"


def read(path: str | os.PathLike, text: Iterable[str] = (), verbatim: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table that any program wrote: commas, semicolons, tabs or bars; UTF-8, UTF-16 or Windows-1252.

    Cells are stripped and composed (Unicode NFC). Numbers with a decimal comma are read as such where semicolons or
    tabs separate the cells. Nameless columns without values are left out, as are lines above the header.

    Columns of `text`, in any spelling that `find_column` accepts, stay text: ``0012`` stays ``0012``. In those of them
    that are `verbatim` too, only an empty cell is missing: ``NA`` stays ``NA``. Raises FileNotFoundError if there is no
    such file, ValueError if it is no such table, such as one with a row longer than the header, or a spreadsheet.
    """
    path = user_path(path)
    content = _decoded(path).replace("\r\n", "\n")
    if not content.isascii():
        content = unicodedata.normalize("NFC", INVISIBLE.sub("", content))
    if "\r" in content:  # old line ends, or within cells; what stands in quotes may stay
        end = " " if "\n" in content else "\n"
        content = re.sub(r'"[^"]*"|\r', lambda found: end if found[0] == "\r" else found[0], content)
    keys, whole = {key(name) for name in text}, {key(name) for name in verbatim}
    if comments := _COMMENTS.match(content):
        content = content[comments.end() :]
    return _parsed(path, content, lambda name: key(name) in keys, lambda name: key(name) in whole, strip=True)


def save(table: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Write a table as CSV so that `load` gives it back, whatever its cells and names of files hold; return the path.

    The names of columns that hold text are quoted in the header: so `load` knows that ``0012`` in them is no number. A
    path that ends in ``.gz`` is compressed.
    """
    path = user_path(path)
    lines = table.to_csv(index=False, header=False, lineterminator="\n")
    if "\r" in lines:  # a lone one is not quoted otherwise
        lines = table.to_csv(index=False, header=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    is_text = [pd.api.types.infer_dtype(table[name], skipna=True) == "string" for name in table]
    header = ",".join(
        '"' + str(name).replace('"', '""') + '"' if quote or _SPECIAL.search(str(name)) else str(name)
        for name, quote in zip(table, is_text, strict=True)
    )
    content = f"{header}\n{lines}".encode("utf-8", "surrogateescape")
    with replacing(path) as part:
        part.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def load(path: str | os.PathLike, verbatim: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table that `save` wrote, or one of its kind that another program saved again.

    Only empty cells are missing. Columns of `verbatim` are text whatever the header says. Raises as `read` does.
    """
    path = user_path(path)
    content = _decoded(path, "surrogateescape")
    header = re.match(r'(?:"[^"]*"|[^"\n])*', content)[0]  # type: ignore[index]
    quoted = [name.replace('""', '"') for name in re.findall(r'"((?:[^"]|"")*)"', header)]
    text = {*verbatim, *map(str.strip, quoted)}
    table = _parsed(path, content, text.__contains__, is_verbatim=lambda _: True)
    # such a name is quoted whatever its cells are
    for name in filter(_SPECIAL.search, table.columns.difference([*verbatim])):
        numbers = pd.to_numeric(table[name], errors="coerce")
        if (numbers.astype(str) == table[name])[table[name].notna()].all():
            table[name] = numbers
    if not content.isascii():  # only names of files may be other than UTF-8, unless another program saved it
        for name in table.select_dtypes(["object", "str"]).columns.difference(OF_FILES):
            table[name] = table[name].map(printable, na_action="ignore")
    return table


def key(name: object) -> str:
    """Return what is compared of a column's name: letters and digits, without case: ``"lesionid"`` of Lesion ID."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def find_column(table: pd.DataFrame, name: str) -> str | None:
    """Find a column by its exact name, else by its letters and digits, else None; ValueError if several fit."""
    if name in table:
        return name
    alike = [column for column in table if key(column) == key(name) != ""]
    if len(alike) > 1:
        raise ValueError(f"several columns fit {name!r}: {', '.join(alike)}; give one of these names exactly")
    return alike[0] if alike else None


def require_column(table: pd.DataFrame, name: str, source: object) -> str:
    """Find a column as `find_column` does, or raise ValueError, which lists those there are and names the nearest."""
    if (found := find_column(table, name)) is None:
        names = [*map(str, table)]
        raise ValueError(f"{source} has no column {name!r}; it has: {', '.join(names)}{near(name, names)}")
    return found


def _decoded(path, errors="strict"):
    """Return the text of a file: UTF-8, or UTF-16 with its mark, else Windows-1252 with a warning."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such CSV file") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"{path} cannot be read as CSV: {reason}") from error
    for start, what in _ELSE:
        if re.match(start, content[:1000], re.IGNORECASE):
            raise ValueError(f"{path} is {what}")
    is_wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_wide else "utf-8-sig", errors)
    except UnicodeDecodeError:
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is neither UTF-8 nor Windows-1252: save it as CSV (UTF-8)") from None
        warn(f"{path} is not UTF-8 and was read as Windows-1252. If letters are wrong, save it as UTF-8.")
    if "\0" in text[:1000] and errors == "strict":
        raise ValueError(f"{path} cannot be read as CSV: it is not a text file; save it as CSV (UTF-8)")
    return text


def _separator(text):
    """Return the separator of cells, and the text from its header on."""
    if said := re.match(r'"?sep=(.)"?\n', text, re.IGNORECASE):  # a line for Excel
        return said[1], text[said.end() :]
    lines = [line for line in re.sub('"[^"]*"', "_", text[:100_000]).split("\n")[:9] if line.strip()]

    def count(sign):
        counts = [line.count(sign) for line in lines] or [0]
        return min(counts[0], sorted(counts)[len(counts) // 2])  # a row may lack cells

    return max(SEPARATORS, key=count), text


def _parsed(path, text, is_text, is_verbatim, strip=False):
    """Parse the text of a table; the functions say what a column of that name holds."""
    separator, text = _separator(text)
    header, rows = _even(path, text, separator, strip)
    if not any(header):
        raise ValueError(f"{path} cannot be read as CSV: it is empty, or its first line names no columns")
    if not rows:
        raise ValueError(f"{path} has a header and no rows: save the table with its rows")
    names = [name or f"Unnamed: {number}" for number, name in enumerate(header)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} has two columns {twice[0]!r}: rename or delete one of them")
    table = pd.read_csv(
        io.StringIO(rows, newline=""),
        names=names,
        dtype={name: str for name in names if is_text(name)},
        na_values={name: [""] if is_verbatim(name) else MISSING for name in names},
        keep_default_na=False,
        low_memory=False,
        encoding_errors="surrogateescape",
    )
    nameless = [name for name in names if name.startswith("Unnamed: ") and table[name].isna().all()]
    for name in table.select_dtypes(["object", "str"]) if separator in ";\t" else ():
        if not is_text(name) and table[name].dropna().astype(str).str.fullmatch(_DECIMAL).all():
            table[name] = pd.to_numeric(table[name].str.replace(",", "."))
    return table.drop(columns=nameless)


def _even(path, text, separator, strip):
    """Return the header of a table, and its rows as CSV with commas, none wider; refuse cells that would be lost."""
    csv.field_size_limit(2**31 - 1)
    first, _, rest = text.partition("\n")
    if not strip and separator == "," and not re.search('["\r]', rest):
        header = [*map(str.strip, next(csv.reader([first]), []))]
        if {line.count(",") for line in rest.rstrip("\n").split("\n")} == {len(header) - 1}:
            return header, rest  # as `save` writes most tables
    out = io.StringIO(newline="")
    text = io.StringIO(text, newline="")
    rows = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=strip)
    header = []

    def even():
        for row in filter(None, rows):
            if strip:
                row = [*map(str.strip, row)]
            if len(row) > len(header) and any(map(str.strip, row[len(header) :])):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} cells, but the header has {len(header)}. Put quotes "
                    f"around text that holds {SEPARATORS.get(separator, 'the separator')}, or complete the header."
                )
            yield row[: len(header)]

    try:
        header += map(str.strip, next(filter(None, rows), []))
        csv.writer(out).writerows(even())
    except csv.Error as error:
        where = f"{path} cannot be read as CSV, line {rows.line_num}"
        raise ValueError(f'{where}: {error}. Is a quote (") missing or one too many?') from error
    return header, out.getvalue()


def mask(rows: ArrayLike, table: pd.DataFrame) -> np.ndarray:
    """Return bools, one for each row of a table, a Series by its index: numpy.ndarray; ValueError unless they fit."""
    if isinstance(rows, pd.Series) and not rows.index.equals(table.index):
        rows = rows.reindex(table.index) if rows.index.is_unique else False
    found = np.asarray(rows)
    is_bool = found.dtype == bool or all(isinstance(value, (bool, np.bool_)) for value in found.flat)
    if found.shape != (len(table),) or not is_bool:
        raise ValueError(f"the rows to keep are a bool for each of {len(table):,} images, in an array")
    return found.astype(bool)


def is_named(table: pd.DataFrame, group: str = "group") -> np.ndarray:
    """Say of each image whether a column names its lesion or patient, or it is its own group: numpy.ndarray of bool."""
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
