"""The bundled sample, answered as the ISIC Archive does: the same addresses, records, pages and queries."""

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

from isicvision.errors import IsicVisionError
from isicvision.fields import FIELDS, SEARCHABLE
from isicvision.images import decode

PAGE = 100
ACQUISITION = ("pixels_x", "pixels_y", "image_type", "dermoscopic_type", "image_manipulation", "color_tint")
_VALUE = r'\[(?P<low>[\d.*-]+) TO (?P<high>[\d.*-]+)\]|"(?P<quoted>[^"]*)"|(?P<bare>[\w*-]+(?:\.\d+)?)'
_TERM = rf"(?P<sign>-?)(?P<field>\w+):(?:{_VALUE})(?=\s|$)"
_TOKEN = re.compile(rf"\s*(?:(?P<word>AND|OR)(?=\s)|{_TERM})\s*", re.ASCII)


class QueryError(IsicVisionError, ValueError):
    """Raised for a query that is not in the archive's language."""


class SampleArchive(requests.adapters.BaseAdapter):
    """An archive whose images lie in a folder: mount it in a `requests.Session` under any http address.

    It answers what `IsicArchive` asks, and the files. All images are in collection 1. The folder holds
    ``images/<isic_id>.<extension>`` and ``metadata.csv``: a row an image, oldest first, columns as in the archive.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__()
        table = Path(folder, "metadata.csv")
        self.name = table.resolve().parent.name
        self.files = {path.stem: path for path in Path(folder, "images").iterdir()}
        with open(table, encoding="utf-8", newline="") as file:
            self.rows = [_typed(row) for row in csv.DictReader(file)]
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
        kind, status = "application/json; charset=utf-8", 200
        file = re.fullmatch(r"/(images|thumbnails)/(\w+?)(?:_thumbnail)?\.\w+", parts.path)
        try:
            if file and file[2] in self.files:
                path = self.files[file[2]]
                body = path.read_bytes() if file[1] == "images" else _thumbnail(path)
                kind = mimetypes.guess_type(parts.path)[0] or "application/octet-stream"
            else:
                params = parse_qs(parts.query, keep_blank_values=True)
                content = self._content(f"{parts.scheme}://{parts.netloc}", parts.path, params)
                body = json.dumps(content).encode()
        except LookupError:
            status, body = 404, b'{"detail": "Not Found"}'
        except ValueError as error:
            status, body = 400, json.dumps({"message": str(error)}).encode()
        return status, {"Content-Type": kind, "Content-Length": str(len(body))}, body

    def _content(self, root, path, params):
        """Return the JSON at a path; LookupError if there is none, ValueError if a parameter is wrong."""
        if path == "/api/v2/collections/":
            return _page([{"id": 1, "name": self.name}], params, root + path)
        place = re.fullmatch(r"/api/v2/images/(search|search/size|facets|\w+)/", path)
        question = place[1] if place else None
        if question not in ("search", "search/size", "facets"):
            return self._record({row["isic_id"]: row for row in self.rows}[question], root)
        rows = self._select(params.get("query", [""])[-1], ",".join(params.get("collections", [])))
        if question == "facets":
            return {name: _facet(rows, name) for name in SEARCHABLE if name != "isic_id"}
        if question == "search/size":
            return {"size": sum(self._size(row["isic_id"]) for row in rows)}
        return _page(rows, params, root + path, lambda row: self._record(row, root))

    def _find(self, query, collections):
        accept = parse_query(query)
        numbers = [int(number) for number in collections.split(",") if number]
        return [row for row in self.rows if accept(row)] if not numbers or 1 in numbers else []

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

    Of the language of the ISIC Archive API v2 it knows ``field:value``, ``field:"two words"``, ``*`` for any letters,
    ``field:*`` (known), ``-`` before a term (not, or unknown), ``[20 TO 40]``, ``AND`` before ``OR``, and a space
    between terms for ``AND``, but no parentheses. QueryError for anything else.

    >>> parse_query("sex:male AND age_approx:[20 TO 40]")({"sex": "male", "age_approx": 40})
    True
    """
    sides: list[list] = [[]]  # of OR: tests that all hold
    last, place = "the beginning", 0
    while place < len(text.rstrip()):
        match = _TOKEN.match(text, place)
        if match is None or (last and match["word"]):
            raise QueryError(f"not understood from {text[place:]!r} on")
        last, place = match["word"], match.end()
        if last == "OR":
            sides.append([])
        elif not last:
            sides[-1].append(_test(match))
    if last and place:
        raise QueryError(f"a term is missing after {last}")
    return lambda row: any(all(test(row) for test in side) for side in sides)


def _test(match):
    """Make the test of an image for one ``field:value``."""
    field, is_negated, value = match["field"], match["sign"] == "-", match["bare"] or match["quoted"]
    if field not in SEARCHABLE:
        raise QueryError(f"there is no field {field!r}")
    fits = _fits(field, value, match["low"], match["high"])
    return lambda row: (field in row and fits(row[field])) is not is_negated


def _fits(field, value, low, high):
    kind = FIELDS[field].kind
    if value == "*":
        return lambda known: True
    if kind in ("number", "whole number"):
        try:
            low = float((low or value).replace("*", "-inf"))
            high = float((high or value).replace("*", "inf"))
        except ValueError:
            raise QueryError(f"{field} takes numbers") from None
        return lambda known: low <= float(known) <= high
    if value is None:
        raise QueryError(f"{field} has no ranges")
    if kind == "true/false" and value not in ("true", "false"):
        raise QueryError(f"{field} takes true or false")
    if kind == "true/false":
        return lambda known: known is (value == "true")
    pattern = re.compile(".*".join(map(re.escape, value.split("*"))))
    return lambda known: bool(pattern.fullmatch(known))


def _typed(row):
    """Turn the text of a CSV row into what the archive's JSON has, where decimals are strings."""
    read = {"whole number": lambda text: int(float(text)), "true/false": lambda text: text.lower() == "true"}
    kinds = {name: FIELDS[name].kind if name in FIELDS else "text" for name in row}
    return {name: read.get(kinds[name], str)(text) for name, text in row.items() if text}


def _thumbnail(file):
    buffer = io.BytesIO()
    Image.fromarray(decode(file, 256)).save(buffer, "JPEG")
    return buffer.getvalue()


def _page(items, params, address, show=dict):
    """Return one page of a listing: the number of the next item is the cursor."""
    limit = min(int(params.get("limit", [PAGE])[-1]) or PAGE, PAGE)
    start = int(base64.b64decode(params.get("cursor", [""])[-1]).removeprefix(b"o=") or 0)
    end, following = start + limit, None
    if end < len(items):
        cursor = base64.b64encode(b"o=%d" % end).decode()
        following = f"{address}?{urlencode(sorted({**params, 'cursor': [cursor]}.items()), doseq=True)}"
    results = [show(item) for item in items[start:end]]
    return {"results": results, "count": None if start else len(items), "next": following, "previous": None}


def _facet(rows, field):
    """Count the values of a field, the most frequent first."""
    counts = Counter(row[field] for row in rows if field in row)
    buckets = [
        {"key": str(key).lower() if isinstance(key, bool) else key, "doc_count": number}
        for key, number in counts.most_common()
    ]
    return {"buckets": buckets, "meta": {"missing_count": len(rows) - counts.total()}}
