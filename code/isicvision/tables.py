"""Read tables as other programs write them, and write our own so that they come back the same."""

import codecs
import csv
import difflib
import gzip
import io
import itertools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from .errors import warn
from .files import PROJECT_ROOT, portable, replacing, user_path
from .text import printable

_MISSING = (
    "#N/A,#N/A N/A,#NA,-1.#IND,-1.#QNAN,-NaN,-nan,1.#IND,1.#QNAN,<NA>,N/A,NA,NULL,NaN,None,n/a,nan,null"
)
MISSING = ["", *_MISSING.split(",")]
"""What pandas.read_csv takes for missing, by its documentation."""
NAMELESS = "(image "
"""How the group of an image begins for which nobody gave a group or a path."""
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Separators of cells that are recognized, and their names in messages."""
OF_FILES = {"path", "group", "augmented_from"}
"""Columns of our own tables that may hold names of files, which need not be UTF-8."""
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ELSE = (
    (b"PK\x03\x04", "is an Excel workbook or a zip archive"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook"),
    (b"%PDF", "is a PDF document"),
    (b"PAR1", "is a Parquet file"),
)
_TEXTS = (
    (r"version https://git-lfs", "is a pointer of Git LFS and not the table: run git lfs pull"),
    (r"<(!doctype|html|\?xml)", "is an HTML or XML page, not a table: download the CSV file itself"),
    (r"[\[{]\s*[\"{\[]", "is JSON: save it as CSV, with a line of column names and a line per image"),
)
_SPECIAL = re.compile('[",\r\n]')
_DECIMAL = r"[+-]?\d+(?:,\d+)?(?:[eE][+-]?\d+)?"


def read(path: str | os.PathLike, text: Iterable[str] = (), verbatim: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table that any program wrote: commas, semicolons, tabs or bars; UTF-8, UTF-16 or Windows-1252.

    Names of columns and text cells are stripped and composed (Unicode NFC). Numbers with a decimal comma are read as
    such where semicolons or tabs separate the cells. A column without name and without values is left out.

    Columns of `text`, in any spelling that `find_column` accepts, stay text: ``0012`` stays ``0012``. In those of them
    that are `verbatim` too, only an empty cell is missing: ``NA`` stays ``NA``. Raises FileNotFoundError if there is no
    such file, ValueError if it is no such table, such as one with a row longer than the header, or a spreadsheet.
    """
    path = user_path(path)
    content = _decoded(path)
    if not content.isascii():
        content = unicodedata.normalize("NFC", content.replace("\ufeff", "").replace("\u200b", ""))
    if "\r" in content:
        content = content.replace("\r\n", "\n")
        if "\n" in content and "\r" in content:  # within cells; what stands in quotes may stay
            content = re.sub(r'"[^"]*"|\r', lambda found: " " if found[0] == "\r" else found[0], content)
        elif "\r" in content:
            content = content.replace("\r", "\n")
    keys, whole = {key(name) for name in text}, {key(name) for name in verbatim}
    separator, content = _separator(_without_comments(path, content, keys))
    is_decimal = separator in ";\t"
    marks = (separator, "\n")
    around = [pair for mark in marks for space in " \xa0" for pair in (space + mark, mark + space)]
    if any(pair in content for pair in around):
        bare = re.sub('"[^"]*"', '""', content)  # within quotes they are text
        if any(pair in bare for pair in around):
            separator, content = ",", _even(content, separator, path, strip=True)

    def missing(name):
        return [""] if key(name) in whole else MISSING

    table = _parsed(path, content, separator, lambda name: key(name) in keys, missing, is_decimal)
    if '" ' in content or ' "' in content:
        for name in [name for name in table if key(name) in keys]:
            table[name] = table[name].str.strip()
    return table


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
    content = _decoded(path, own=True)
    separator, content = _separator(content)
    text = {*verbatim, *(name.strip() for name in _quoted(content, separator))}
    table = _parsed(path, content, separator, lambda name: name in text, lambda _: [""], separator in ";\t")
    special = filter(_SPECIAL.search, table.columns.difference([*verbatim]))
    for name in special:  # which are quoted whatever their cells are
        try:
            numbers = pd.to_numeric(table[name])
        except (ValueError, TypeError):
            continue
        if (numbers.astype(str) == table[name])[table[name].notna()].all():
            table[name] = numbers
    if not content.isascii():  # only names of files may be other than UTF-8, unless another program saved it
        for name in table.columns.difference(OF_FILES):
            if table[name].dtype in (object, "str"):
                table[name] = table[name].map(printable, na_action="ignore")
    return table


def key(name: object) -> str:
    """Return what is compared of a column's name: letters and digits, without case: ``"lesionid"`` of Lesion ID."""
    return re.sub(r"[\W_]+", "", str(name).casefold())


def find_column(table: pd.DataFrame, name: str) -> str | None:
    """Find a column by its exact name, else by its letters and digits: ``lesion_id`` finds *Lesion ID*; else None.

    Raises ValueError if several fit equally well.
    """
    if name in table:
        return name
    alike = [column for column in table if key(column) == key(name) != ""]
    if len(alike) > 1:
        raise ValueError(f"several columns fit {name!r}: {', '.join(alike)}; give one of these names exactly")
    return alike[0] if alike else None


def require_column(table: pd.DataFrame, name: str, source: object) -> str:
    """Find a column as `find_column` does, or raise ValueError, which lists those there are and names the nearest."""
    try:
        found = find_column(table, name)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    if found is None:
        keys = {key(column): column for column in table}
        nearest = difflib.get_close_matches(key(name), keys, 1)
        hint = one_column(table) or (f"; did you mean {keys[nearest[0]]!r}?" if nearest else "")
        raise ValueError(f"{source} has no column {name!r}; it has: {', '.join(map(str, table))}{hint}")
    return found


def one_column(table: pd.DataFrame) -> str:
    """Say what to do if spaces or colons seem to separate the cells of a table of one column, else nothing."""
    header = str(table.columns[0]) if table.shape[1] == 1 else ""
    for sign, name in ((":", "colons"), (" ", "spaces")):
        if sign in header and table.iloc[:9, 0].astype(str).str.contains(sign, regex=False).all():
            return f". Its cells seem to be separated by {name}: separate them by commas."
    return ""


def _decoded(path, own=False):
    """Return the text of a file. What is not UTF-8 is Windows-1252, or, in our `own` tables, a name of a file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no such CSV file") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read as CSV: {error.strerror}") from error
    for start, what in _ELSE:
        if content.startswith(start):
            raise ValueError(f"{path} {what}: open it and save its table as CSV (UTF-8), then give that file")
    encoding = None
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        encoding = next((name for mark, name in _MARKS if content.startswith(mark)), None)
        if encoding is None and content[:400].count(0) > len(content[:400]) // 3:
            encoding = "utf-16-le" if content[1:400:2].count(0) > content[:400:2].count(0) else "utf-16-be"
        text = content.decode(encoding or "utf-8")
    except (UnicodeDecodeError, OSError, EOFError) as error:
        if encoding or not isinstance(error, UnicodeDecodeError):
            raise ValueError(f"{path} cannot be read as CSV: {error}; save it as CSV (UTF-8)") from error
        if own:
            return content.decode("utf-8", "surrogateescape")
        try:
            text = content.decode("cp1252")
        except UnicodeDecodeError:
            raise ValueError(f"{path} is neither UTF-8 nor Windows-1252: save it as CSV (UTF-8)") from None
        warn(f"{path} is not UTF-8 and was read as Windows-1252. If letters are wrong, save it as UTF-8.")
    if "\0" in text[:1000] and not own:
        raise ValueError(f"{path} cannot be read as CSV: it is not a text file")
    return text


def _without_comments(path, text, keys):
    """Return a text without the lines above its header that begin with #, or raise ValueError if it is no table."""
    start = text[:1000].lstrip().lower()
    for pattern, what in _TEXTS:
        if re.match(pattern, start):
            raise ValueError(f"{path} {what}")
    while text.startswith("#"):
        first, _, rest = text.partition("\n")
        separator, table = _separator(rest)
        second = table.partition("\n")[0]
        is_header = {key(name) for name in second.split(separator)} & keys
        if not second.strip() or (first.count(separator) == second.count(separator) > 0 and not is_header):
            break  # the header itself begins so
        text = rest
    return text


def _quoted(text, separator):
    """Return the names in quotes of a header: list of str."""
    cell = re.compile(rf'(?:"((?:[^"]|"")*)"|[^\r\n{re.escape(separator)}]*)({re.escape(separator)}|)')
    names, place = [], 0
    while found := cell.match(text, place):
        names += [found[1].replace('""', '"')] if found[1] is not None else []
        place = found.end()
        if not found[2]:
            break
    return names


def _separator(text):
    """Return the separator of cells, and the text from its header on."""
    text = text.lstrip("\r\n")
    if said := re.match(r'"?sep=(.)"?\r?\n', text, re.IGNORECASE):  # a line for Excel
        return said[1], text[said.end() :]
    sample = text[:100_000]
    best, found = (0, 0), ","
    for separator in SEPARATORS:
        lines = csv.reader(io.StringIO(sample, newline=""), delimiter=separator)
        try:
            rows = [*itertools.islice(lines, 50)]
        except csv.Error:
            continue
        rows = [row for row in rows[: -1 if len(sample) < len(text) and len(rows) < 50 else None] if row]
        width = len(rows[0]) if rows else 1
        fits = [len(row) == width or (len(row) > width and not any(row[width:])) for row in rows]
        if width > 1 and (score := (sum(fits) / len(fits), width)) > best:
            best, found = score, separator
    return found, text


def _parsed(path, text, separator, is_text, missing, is_decimal):
    """Parse the text of a table. Rows that are not as wide as the header are looked at one by one."""
    try:
        header = next(csv.reader(io.StringIO(text[:1_000_000], newline=""), delimiter=separator), [])
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as CSV: {error} in its header") from error
    if not any(name.strip() for name in header):
        raise ValueError(f"{path} cannot be read as CSV: it is empty, or its first line names no columns")
    names = [name.strip() or f"Unnamed: {number}" for number, name in enumerate(header)]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ValueError(f"{path} has two columns {twice[0]!r}: rename or delete one of them")
    options = {
        "dtype": {name: str for name in names if is_text(name)},
        "na_values": {name: missing(name) for name in names},
        **{"names": names, "header": 0, "keep_default_na": False, "low_memory": False},
        "encoding_errors": "surrogateescape",
    }
    try:
        table = pd.read_csv(io.StringIO(text, newline=""), sep=separator, **options)
        lines = text.count("\n") if '"' in text else 0
        if lines and lines not in (len(table), len(table) + 1):  # cells of several lines, or a quote too many
            _even(text, separator, path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError):
        table = None
    if table is None or not isinstance(table.index, pd.RangeIndex):  # longer rows: names of rows, to pandas
        table = pd.read_csv(io.StringIO(_even(text, separator, path), newline=""), **options)
    if table.empty:
        raise ValueError(f"{path} has a header and no rows: save the table with its rows")
    nameless = [name for name in table if name.startswith("Unnamed: ") and table[name].isna().all()]
    for name in table if is_decimal else ():
        cells = [] if is_text(name) or table[name].dtype not in (object, "str") else table[name].dropna()
        if len(cells) and cells[:9].str.fullmatch(_DECIMAL).all() and cells.str.fullmatch(_DECIMAL).all():
            table[name] = pd.to_numeric(table[name].str.replace(",", "."))
    return table.drop(columns=nameless)


def _even(text, separator, path, strip=False):
    """Return the same table with commas, each row at most as wide as the header; refuse cells that would be lost."""
    out = io.StringIO(newline="")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    writer, width = csv.writer(out, lineterminator="\n"), None
    csv.field_size_limit(2**31 - 1)
    try:
        for row in rows:
            if strip:
                row = [cell.strip() for cell in row]
            if width is None:
                width = len(row)
            if any(cell.strip() for cell in row[width:]):
                raise ValueError(
                    f"{path}, line {rows.line_num}: {len(row)} cells, but the header has {width}. Put quotes around "
                    f"text that holds {SEPARATORS.get(separator, 'the separator')}, or complete the header."
                )
            writer.writerow(row[:width])
    except csv.Error as error:
        where = f"{path} cannot be read as CSV, line {rows.line_num}"
        raise ValueError(f'{where}: {error}. Is a quote (") missing or one too many?') from error
    return out.getvalue()


def mask(rows: ArrayLike, table: pd.DataFrame) -> np.ndarray:
    """Check a bool for each row of a table, a Series by its index, else by position: numpy.ndarray of bool.

    Raises ValueError if it does not fit or holds no bools.
    """
    if isinstance(rows, pd.Series) and len(rows) == len(table) and not rows.index.equals(table.index):
        if not rows.index.is_unique or set(rows.index) != set(table.index):
            raise ValueError("the rows to keep have another index than the table: give an array, to_numpy()")
        rows = rows.reindex(table.index)
    found = np.asarray(rows, dtype=object)
    if found.shape != (len(table),):
        raise ValueError(f"the rows to keep are a bool for each of {len(table):,} images, not {found.shape}")
    if wrong := [value for value in found.tolist() if not isinstance(value, (bool, np.bool_))]:
        raise ValueError(f"the rows to keep are a bool for each image, and {wrong[0]!r} is none")
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
