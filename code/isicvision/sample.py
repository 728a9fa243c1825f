"""The bundled sample, answered as the ISIC Archive answers: same addresses, records, pages and queries.

`IsicArchive("sample")` mounts `SampleAdapter` where other sources open a connection, so that the default run
needs no network and still goes through all of the client. `SampleArchive` knows nothing of requests: a few
lines of http.server around `SampleArchive.answer` make an archive on loopback (the tests do).
"""

import base64
import csv
import io
import json
import re
from http.client import responses
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
from PIL import Image

from . import pixels

TEXT_FIELDS = (
    "isic_id copyright_license sex image_type dermoscopic_type image_manipulation color_tint tbp_tile_type "
    "diagnosis_1 diagnosis_2 diagnosis_3 diagnosis_4 diagnosis_5 diagnosis_confirm_type mel_mitotic_index "
    "anatom_site_1 anatom_site_2 anatom_site_3 anatom_site_4 anatom_site_5 anatom_site_special "
    "fitzpatrick_skin_type patient_id lesion_id rcm_case_id"
).split()
NUMBER_FIELDS = ["age_approx", "clin_size_long_diam_mm", "mel_thick_mm"]
BOOLEAN_FIELDS = (
    "public melanocytic mel_ulcer concomitant_biopsy personal_hx_mm family_hx_mm blurry hairy marker_pen"
).split()
FIELDS = TEXT_FIELDS + NUMBER_FIELDS + BOOLEAN_FIELDS
"""The fields that a query may name (ISIC Archive API v2)."""

PAGE = 100
ACQUISITION = ("pixels_x", "pixels_y", "image_type", "dermoscopic_type", "image_manipulation", "color_tint")
INTEGERS = ("pixels_x", "pixels_y", "age_approx", "acquisition_day")  # decimals stay strings in API v2
TYPES = {".jpg": "image/jpeg", ".png": "image/png", ".tif": "image/tiff"}

_BOUNDS = r"(?P<open>[\[{])\s*(?P<low>[\d.*-]+)\s+TO\s+(?P<high>[\d.*-]+)\s*(?P<close>[\]}])"
_TERM = re.compile(
    rf'(-?)(\w+):(?:{_BOUNDS}|"(?P<quoted>[^"]*)"|(?P<bare>[A-Za-z0-9_*-]+(?:\.\d+)?))(?=\s|$)'
)
_OPERATOR = re.compile(r"(AND|OR)\s")  # so that none can be the last


class SampleArchive:
    """Answers of an archive whose pictures lie in a folder.

    The subset of the ISIC Archive API v2 that the client needs: no collections, no parentheses in queries,
    ``previous`` always null.

    Parameters
    ----------
    folder : str or pathlib.Path
        Holds ``images/<isic_id>.<extension>`` and ``metadata.csv`` (a row a picture, oldest first, the columns
        named as in the archive).

    Raises
    ------
    FileNotFoundError
        If there is no metadata.csv in `folder`.
    """

    def __init__(self, folder):
        folder = Path(folder)
        if not (folder / "metadata.csv").is_file():
            raise FileNotFoundError(
                f"{folder / 'metadata.csv'} is not there. The sample is a part of the repository: start in a "
                "checkout, installed with `make install`."
            )
        self.files = {path.stem: path for path in sorted((folder / "images").iterdir())}
        with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
            self.rows = [_typed(row) for row in csv.DictReader(file)]

    def answer(self, url):
        """Answer a GET of `url`, whose scheme and host come back in every address of the answer.

        Returns
        -------
        tuple of int, dict, bytes
            Status, headers, body.
        """
        parts = urlsplit(url)
        root, path = f"{parts.scheme}://{parts.netloc}", parts.path
        if path in ("/api/v2/images/", "/api/v2/images/search/"):
            params = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            return self._page(root, path, params)
        if match := re.fullmatch(r"/api/v2/images/(\w+)/", path):
            found = [row for row in self.rows if row["isic_id"] == match[1]]
            return _json(200, self._record(root, found[0])) if found else _json(404, {"detail": "Not Found"})
        match = re.fullmatch(r"/(images|thumbnails)/(\w+?)(?:_thumbnail)?(\.\w+)", path)
        file = self.files.get(match[2]) if match else None
        if file is None or (match[1] == "images" and match[3] != file.suffix):
            return _json(404, {"detail": "Not Found"})
        body = file.read_bytes() if match[1] == "images" else _thumbnail(file)
        kind = TYPES.get(match[3], "application/octet-stream")
        return 200, {"Content-Type": kind, "Content-Length": str(len(body))}, body

    def _page(self, root, path, params):
        try:
            limit = min(int(params.get("limit", PAGE)) or PAGE, PAGE)
        except ValueError:
            return _invalid("limit", "Input should be a valid integer")
        try:
            start = int(base64.b64decode(params["cursor"]).removeprefix(b"o=")) if "cursor" in params else 0
        except ValueError:
            return _invalid("cursor", "Value error, Invalid cursor.")
        query = params.get("query", "") if path.endswith("search/") else ""
        try:
            accept = parse_query(query)
        except ValueError as error:
            return _json(400, {"message": f"Could not parse search query: {error}"})
        rows = [row for row in self.rows if accept(row)]
        end, following = start + max(limit, 0), None
        if end < len(rows):
            cursor = base64.b64encode(b"o=%d" % end).decode()
            following = f"{root}{path}?{urlencode(sorted({**params, 'cursor': cursor}.items()))}"
        records = [self._record(root, row) for row in rows[start:end]]
        count = None if start else len(rows)
        return _json(200, {"results": records, "count": count, "next": following, "previous": None})

    def _record(self, root, row):
        fields = dict(row)
        isic_id = fields.pop("isic_id")
        file = self.files.get(isic_id, Path(f"{isic_id}.jpg"))
        size = file.stat().st_size if file.exists() else 0  # of the thumbnail, drawn when asked for, a bound
        return {
            "isic_id": isic_id,
            "public": True,
            "copyright_license": fields.pop("copyright_license", "CC-0"),
            "attribution": fields.pop("attribution", "Anonymous"),
            "files": {
                "full": {"url": f"{root}/images/{file.name}", "size": size},
                "thumbnail_256": {"url": f"{root}/thumbnails/{isic_id}_thumbnail.jpg", "size": size},
            },
            "metadata": {
                "acquisition": {name: fields.pop(name) for name in ACQUISITION if name in fields},
                "clinical": fields,
            },
        }


class SampleAdapter(requests.adapters.BaseAdapter):
    """Lets a `requests.Session` ask a folder, as of `SampleArchive`: mount it under any http address."""

    def __init__(self, folder):
        super().__init__()
        self.archive = SampleArchive(folder)

    def send(self, request, **_):
        """Answer a prepared request; the options of a connection (timeout, proxies, …) have no meaning here."""
        response = requests.Response()
        response.status_code, headers, body = self.archive.answer(request.url)
        response.headers.update(headers)
        response.raw = io.BytesIO(body)
        response.reason = responses[response.status_code]
        response.url, response.request = request.url, request
        return response

    def close(self):
        """Do nothing: no connection is open."""


def parse_query(text):
    """Turn a query into a function that says whether a picture, a flat dict of its fields, is meant.

    The query language of the ISIC Archive API v2 without parentheses: ``field:value``, ``field:"two words"``,
    one ``*`` at either end, ``field:*`` (known), ``-`` before a term (not, or unknown), ``[20 TO 40]`` with
    the bounds and ``{20 TO 40}`` without them, ``AND`` before ``OR``, a space for ``AND``.

    Raises
    ------
    ValueError
        If it is not of this language, or names an unknown field.
    """
    alternatives, wanted, rest = [[]], True, text.strip()
    while rest:
        if match := _OPERATOR.match(rest):
            if wanted:
                raise ValueError(f"{match[1]} stands where a field:value is wanted")
            wanted = True
            if match[1] == "OR":
                alternatives.append([])
        elif match := _TERM.match(rest):
            alternatives[-1].append((match[2], _test(match[2], match), match[1] == "-"))
            wanted = False
        else:
            raise ValueError(f"no field:value at {rest!r}")
        rest = rest[match.end() :].lstrip()

    def accept(row):
        return any(
            all((field in row and test(row[field])) is not negated for field, test, negated in terms)
            for terms in alternatives
        )

    return accept


def _test(field, match):
    """Make the test of a known value of `field`, for one ``field:value``."""
    value = match["quoted"] if match["bare"] is None else match["bare"]
    if field not in FIELDS:
        raise ValueError(f"there is no field {field!r}")
    if value == "*":
        return lambda known: True
    if field in NUMBER_FIELDS:
        if match["quoted"] is not None:
            raise ValueError(f"{field} takes a number, without quotes")
        low, high = (value, value) if value else (match["low"], match["high"])
        low, high = float("-inf" if low == "*" else low), float("inf" if high == "*" else high)
        excluded = (low if match["open"] == "{" else None, high if match["close"] == "}" else None)
        return lambda known: low <= float(known) <= high and float(known) not in excluded
    if value is None:
        raise ValueError(f"{field} has no ranges")
    if field in BOOLEAN_FIELDS:
        if value not in ("true", "false"):
            raise ValueError(f"{field} takes true or false")
        return lambda known: known is (value == "true")
    if value.endswith("*"):
        return lambda known: known.startswith(value[:-1])
    if value.startswith("*"):
        return lambda known: known.endswith(value[1:])
    return lambda known: known == value


def _typed(row):
    """Turn the texts of a CSV row into what the archive's JSON has; unknown fields are left out, as there."""
    typed = {name: text for name, text in row.items() if text}
    typed |= {name: int(float(typed[name])) for name in INTEGERS if name in typed}
    return typed | {name: typed[name].lower() == "true" for name in BOOLEAN_FIELDS if name in typed}


def _thumbnail(file):
    buffer = io.BytesIO()
    Image.fromarray(pixels.decode(file, 256)).save(buffer, "JPEG")
    return buffer.getvalue()


def _invalid(name, message):
    return _json(422, {"detail": [{"type": "value_error", "loc": ["query", name], "msg": message}]})


def _json(status, content):
    body = json.dumps(content).encode()
    return status, {"Content-Type": "application/json; charset=utf-8", "Content-Length": str(len(body))}, body
