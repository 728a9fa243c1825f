"""Words and figures for people: labels, counts, sizes, lists, and addresses without their secrets."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Real

INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\ufeff]")
"""Letters without width that come along when text is copied, and change no word."""


def printable(name: object) -> str:
    """Return a name fit to print, draw and store; bytes that are not UTF-8 are read as Windows-1252, which most are."""
    text = str(name)
    if text.isascii():
        return text
    text = re.sub("[\udc80-\udcff]", lambda b: bytes([ord(b[0]) - 0xDC00]).decode("cp1252", "replace"), text)
    return text.encode("utf-8", "backslashreplace").decode()


def as_label(value: object) -> str | None:
    """Return what a value means as a label, the one rule wherever labels enter: str, or None for None, NaN and blanks.

    Text is stripped, and its letters are composed (NFC), since macOS takes names apart. Numbers and truth values are
    written as Python does, whole numbers without ``.0``.
    """
    # pandas' own need no import here
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, Real) and not isinstance(value, bool):
        if value != value:
            return None
        value = int(float(value)) if float(value).is_integer() else value
    return unicodedata.normalize("NFC", printable(value)).strip() or None


def apart(name: str, labels: Iterable[str]) -> str:
    """Return a name of our own that is none of the labels: `name`, in brackets if a label is called so."""
    taken = {*labels}
    while name in taken:
        name = f"({name})"
    return name


def counted(count: int, noun: str) -> str:
    """Write a count with its noun, in the singular for 1, and thousands separators.

    >>> counted(1, "image"), counted(7006, "image")
    ('1 image', '7,006 images')
    """
    return f"{int(count):,} {noun}{'' if count == 1 else 's'}"


def near(name: object, names: Sequence[str]) -> str:
    """Name the nearest of `names` as a question that ends a message; empty if none is like `name`."""
    by_lower = {each.lower(): each for each in reversed(names)}
    found = difflib.get_close_matches(str(name).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""


def listed(reasons: Iterable[str]) -> str:
    """Write out the first ten messages, each on a line of its own."""
    reasons = [*reasons]
    return "".join(f"\n  {reason}" for reason in reasons[:10] + ["…"] * (len(reasons) > 10))


def file_size(count: int) -> str:
    """Write a number of bytes with its unit and three significant digits.

    >>> file_size(1), file_size(34_200), file_size(13_300_000), file_size(2 * 10**9)
    ('1 B', '34.2 kB', '13.3 MB', '2 GB')
    """
    for power, unit in ((3, "GB"), (2, "MB"), (1, "kB")):
        if count >= 999.5 * 1000 ** (power - 1):
            return f"{count / 1000**power:.3g} {unit}"
    return f"{count:.0f} B"


def secret(value: str | None, name: str) -> str | None:
    """Return a key or token without the white space and line breaks around it, None if none is given.

    Raises ValueError, which gives its `name` but shows no part of it, if it holds what no header of HTTP takes.
    """
    if value is None or value == "":
        return None
    clean = value.strip("\ufeff\u200b \t\r\n\v\f") if isinstance(value, str) else ""
    if not re.fullmatch(r"[!-~]+", clean):
        problem = "must be text without a space, a line break or an accent in it"
        raise ValueError(f"{name} {problem}: copy it again (its value is not shown here)")
    return clean


def redacted(text: object) -> str:
    """Write out a text, such as an address or an error that names one, without passwords and keys in addresses."""
    # up to the last @, if the first ends a user's name with a password: that may hold a slash or an @
    user = r"(?<=://)(?:[^/@\s]*@|[^/@\s:\[]*:(?!\d*(?:[/?#]|$))[^@\s]*@)(?:\S*@)?"
    text = re.sub(user, "…@", str(text))
    # of the archive's own parameters the value may be read
    return re.sub(r"([?&](?!(?:query|limit|cursor|collections)=)[^=&\s]+=)[^&\s'\")]+", r"\1…", text)
