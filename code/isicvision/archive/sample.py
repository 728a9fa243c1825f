"""The bundled sample, answered as the ISIC Archive does: the same addresses, records, pages and queries."""

import ast
import base64
import csv
import io
import json
import mimetypes
import os
import re
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from http.client import responses
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
from PIL import Image
from urllib3 import HTTPResponse

from ..errors import IsicVisionError
from ..fields import FIELDS, SEARCHABLE
from ..images import decode

PAGE = 100
ACQUISITION = ("pixels_x", "pixels_y", "image_type", "dermoscopic_type", "image_manipulation", "color_tint")

_BOUNDS = r"(?P<open>[\[{])\s*(?P<low>[\d.*-]+)\s+TO\s+(?P<high>[\d.*-]+)\s*(?P<close>[\]}])"
_TERM = (
    rf'(-?)(?P<field>\w+):(?:{_BOUNDS}|"(?P<quoted>[^"]*)"|(?P<bare>[A-Za-z0-9_*-]+(?:\.\d+)?))(?=[\s)]|$)'
)
_TOKEN = re.compile(rf"\s*(?:(?P<word>[()]|AND(?=[\s(])|OR(?=[\s(]))|{_TERM})\s*")


class QueryError(IsicVisionError, ValueError):
    """Raised for a query that is not in the archive's language."""


class SampleArchive(requests.adapters.BaseAdapter):
    """An archive whose images lie in a folder: mount it in a `requests.Session` under any http address.

    It answers the part of the ISIC Archive API v2 that needs no login, and the files. ``previous`` is always null, and
    facets count single numbers, not ranges. The folder holds ``images/<isic_id>.<extension>`` and ``metadata.csv``: a
    row an image, oldest first, the columns named as in the archive. Its column ``collections`` may hold numbers joined
    by ``;``; without it all images are in collection 1.

    >>> from isicvision import PROJECT_ROOT
    >>> status, headers, body = SampleArchive(PROJECT_ROOT / "sample_data").answer("http://host/api/v2/collections/")
    >>> status, json.loads(body)["results"][0]["name"]
    (200, 'sample_data')
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__()
        folder, table = Path(folder), Path(folder, "metadata.csv")
        if not table.is_file():
            raise FileNotFoundError(
                f"{table} is missing: it is part of the repository, start in a checkout of it"
            )
        self.files = {path.stem: path for path in sorted((folder / "images").iterdir())}
        with open(table, encoding="utf-8", newline="") as file:
            self.rows = [_typed(row) for row in csv.DictReader(file)]
        self._members = {}  # isic_ids by the number of their collection
        for row in self.rows:
            for number in row.pop("collections", "1").split(";"):
                self._members.setdefault(int(number), set()).add(row["isic_id"])
        names = {1: folder.resolve().name} if [*self._members] == [1] else {}
        self._collections = [
            {"id": number, "name": names.get(number, f"Collection {number}"), "description": ""}
            | {"public": True, "pinned": False, "locked": False, "doi": None, "doi_url": None}
            for number in sorted(self._members, reverse=True)  # newest first
        ]
        self._select = lru_cache(32)(self._find)  # one search asks for many pages

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Answer a prepared request, whatever the options of a connection."""
        response, url = requests.Response(), str(request.url)
        response.status_code, headers, body = self.answer(url)
        response.headers.update(headers)
        response.raw = HTTPResponse(io.BytesIO(body), headers, preload_content=False)
        response.reason = responses[response.status_code]
        response.url, response.request = url, request
        return response

    def close(self) -> None:
        """Do nothing: no connection is open."""

    def answer(self, url: str) -> tuple[int, dict, bytes]:
        """Return status, headers and body of a GET of `url`, whose scheme and host begin every address in the body."""
        parts = urlsplit(url)
        root, path = f"{parts.scheme}://{parts.netloc}", parts.path
        params = parse_qs(parts.query, keep_blank_values=True)
        if path == "/api/v2/images/":
            return self._search({**params, "query": [""]}, root, path)
        if re.fullmatch("/api/v2/images/(search|search/size|facets)/", path):
            return self._search(params, root, path)
        if path == "/api/v2/collections/":
            return _page(self._collections, params, root, path)
        found: list = []
        if match := re.fullmatch(r"/api/v2/collections/(\d{1,9})/", path):
            found = [known for known in self._collections if known["id"] == int(match[1])]
        elif match := re.fullmatch(r"/api/v2/images/(\w+)/", path):
            found = [self._record(row, root) for row in self.rows if row["isic_id"] == match[1]]
        elif match := re.fullmatch(r"/(images|thumbnails)/(\w+?)(?:_thumbnail)?(\.\w+)", path):
            file = self.files.get(match[2])
            if file and (match[1] == "thumbnails" or match[3] == file.suffix):
                body = file.read_bytes() if match[1] == "images" else _thumbnail(file)
                return _response(200, mimetypes.guess_type(path)[0] or "application/octet-stream", body)
        return _json(found[0]) if found else _json({"detail": "Not Found"}, 404)

    def _search(self, params, root, path):
        """Answer one of the four questions that take a query and collections."""
        numbers = [number for text in params.get("collections", []) for number in text.split(",") if number]
        try:
            rows = self._select(params.get("query", [""])[-1], tuple(int(number) for number in numbers))
        except QueryError as error:
            return _json({"message": f"Could not parse search query: {error}"}, 400)
        except ValueError:
            return _invalid("collections", "Input should be a valid integer")
        if path.endswith("size/"):
            return _json({"size": sum(self._size(row["isic_id"]) for row in rows)})
        if path.endswith("facets/"):
            return _json({name: _facet(rows, name) for name in SEARCHABLE if name != "isic_id"})
        return _page(rows, params, root, path, self._record)

    def _find(self, query, numbers):
        accept = parse_query(query)
        members = set().union(*(self._members.get(number, ()) for number in numbers))
        return [row for row in self.rows if (not numbers or row["isic_id"] in members) and accept(row)]

    def _size(self, isic_id):
        return self.files[isic_id].stat().st_size if isic_id in self.files else 0

    def _record(self, row, root):
        fields, isic_id = dict(row), row["isic_id"]
        acquisition = {name: fields.pop(name) for name in ACQUISITION if name in fields}
        record = {"public": True, "attribution": "Anonymous", "copyright_license": "CC-0"}
        record |= {name: fields.pop(name) for name in ("isic_id", *record) if name in fields}
        name = self.files[isic_id].name if isic_id in self.files else f"{isic_id}.jpg"
        size, thumbnail = self._size(isic_id), f"{root}/thumbnails/{isic_id}_thumbnail.jpg"
        files = {"full": {"url": f"{root}/images/{name}", "size": size}}
        files["thumbnail_256"] = {"url": thumbnail, "size": min(size, 10_000)}  # a guess: not drawn yet
        return record | {"files": files, "metadata": {"acquisition": acquisition, "clinical": fields}}


def parse_query(text: str) -> Callable[[dict], bool]:
    """Return a function that says whether a query finds an image, given as a flat dict of its fields.

    The language is that of the ISIC Archive API v2: ``field:value``, ``field:"two words"``, one ``*`` at either end,
    ``field:*`` (known), ``-`` before a term (not, or unknown), ``[20 TO 40]`` with the bounds and ``{20 TO 40}``
    without them, ``AND`` before ``OR``, a space between terms for ``AND``, and parentheses with ``AND`` or ``OR``
    beside them. QueryError if it is something else, or names an unknown field.

    >>> parse_query("sex:male AND age_approx:[20 TO 40]")({"sex": "male", "age_approx": 40})
    True
    """
    words, tests, place = [], {}, 0  # the query as an expression of Python, whose names stand for terms
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None:
            raise QueryError(f"not understood from {text[place:]!r} on")
        if match["word"]:
            words.append(match["word"].lower())
        else:
            words += ["and"] if words and words[-1] in tests else []
            words.append(f"term{place}")
            tests[words[-1]] = _test(match)
        place = match.end()

    def test_of(node):
        if isinstance(node, ast.Name):
            return tests[node.id]
        if not isinstance(node, ast.BoolOp):
            raise QueryError("parentheses need AND or OR beside them, and a term inside")
        fold, parts = all if isinstance(node.op, ast.And) else any, [*map(test_of, node.values)]
        return lambda row: fold(part(row) for part in parts)

    if not words:
        return lambda row: True
    try:
        return test_of(ast.parse(" ".join(words), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError):
        raise QueryError("AND, OR and parentheses do not fit together") from None


def _test(match):
    """Make the test of an image for one ``field:value``."""
    field, is_negated, test = match["field"], match[2] == "-", _test_of_value(match["field"], match)
    return lambda row: (field in row and test(row[field])) is not is_negated


def _test_of_value(field, match):
    value = match["quoted"] if match["bare"] is None else match["bare"]
    if field not in SEARCHABLE:
        raise QueryError(f"there is no field {field!r}")
    if value == "*":
        return lambda known: True
    kind = FIELDS[field].kind
    if kind in ("number", "whole number"):
        if match["quoted"] is not None:
            raise QueryError(f"{field} takes a number, without quotes")
        low, high = (value, value) if value else (match["low"], match["high"])
        try:
            low, high = float("-inf" if low == "*" else low), float("inf" if high == "*" else high)
        except ValueError:
            raise QueryError(f"{field} takes numbers, not {low} and {high}") from None
        excluded = (low if match["open"] == "{" else None, high if match["close"] == "}" else None)
        return lambda known: low <= float(known) <= high and float(known) not in excluded
    if value is None:
        raise QueryError(f"{field} has no ranges")
    if kind == "true/false":
        if value not in ("true", "false"):
            raise QueryError(f"{field} takes true or false")
        return lambda known: known is (value == "true")
    if value.endswith("*"):
        return lambda known: known.startswith(value[:-1])
    if value.startswith("*"):
        return lambda known: known.endswith(value[1:])
    return lambda known: known == value


def _typed(row):
    """Turn the text of a CSV row into what the archive's JSON has, where decimals are strings."""
    read = {"whole number": lambda text: int(float(text)), "true/false": lambda text: text.lower() == "true"}
    kinds = {name: FIELDS[name].kind if name in FIELDS else "text" for name in row}
    return {name: read.get(kinds[name], str)(text) for name, text in row.items() if text}


def _thumbnail(file):
    buffer = io.BytesIO()
    Image.fromarray(decode(file, 256)).save(buffer, "JPEG")
    return buffer.getvalue()


def _page(items, params, root, path, show=lambda item, root: item):
    """Answer with one page of a listing: the number of the next item is the cursor."""
    try:
        limit = min(int(params.get("limit", [PAGE])[-1]) or PAGE, PAGE)
    except ValueError:
        return _invalid("limit", "Input should be a valid integer")
    try:  # what decodes to nothing is page 1, as in the archive
        start = max(0, int(base64.b64decode(params.get("cursor", [""])[-1]).removeprefix(b"o=") or 0))
    except ValueError:
        return _invalid("cursor", "Value error, Invalid cursor.")
    end, following = start + max(limit, 0), None
    if end < len(items):
        cursor = base64.b64encode(b"o=%d" % end).decode()
        following = f"{root}{path}?{urlencode(sorted({**params, 'cursor': [cursor]}.items()), doseq=True)}"
    results = [show(item, root) for item in items[start:end]]
    count = None if start else len(items)
    return _json({"results": results, "count": count, "next": following, "previous": None})


def _facet(rows, field):
    """Count the values of a field, the most frequent first; true is 1 and false 0, as in the search index."""
    counts, buckets = Counter(row[field] for row in rows if field in row), []
    for key, number in counts.most_common():
        text = {"key_as_string": str(key).lower()} if isinstance(key, bool) else {}
        buckets.append({"key": int(key) if text else key, **text, "doc_count": number})
    present = counts.total()
    return {"buckets": buckets, "meta": {"missing_count": len(rows) - present, "present_count": present}}


def _invalid(name, message):
    return _json({"detail": [{"type": "value_error", "loc": ["query", name], "msg": message}]}, 422)


def _json(content, status=200):
    return _response(status, "application/json; charset=utf-8", json.dumps(content).encode())


def _response(status, kind, body):
    return status, {"Content-Type": kind, "Content-Length": str(len(body))}, body
