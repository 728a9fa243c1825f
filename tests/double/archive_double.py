"""A double of the ISIC Archive on loopback: its API on one port, its files on another, and faults on demand.

    python tests/double/archive_double.py --folder sample_data --port 8000 --files-port 8001

What it answers comes from `SampleArchive` in sample_data/sample_archive.py; this file adds HTTP (keep-alive, gzip,
ranges, conditions, HEAD, redirects), a log of every request, and faults. Tests use it through the class `Double` of
tests/double/__init__.py. It binds to 127.0.0.1 alone.

Faults are rules, dicts of JSON, each for the addresses that it matches and for some attempts at each of them:

    {"path": "/images/.*[02468].jpg$", "kind": "status", "status": 503, "times": 2, "skip": 1}

- ``path``: a regular expression, searched in "/path?query"; or ``paths``: a list of paths, exactly.
- ``times``: how many attempts at each path it spoils, null (the default) for ever; ``skip``: how many it lets by
  before. Attempts are counted by path (API: path and query) since the faults were last set.
- ``page``: only on that page of a listing, from 1.
- ``kind``, one of those below. Of rules that match together each kind takes the first, and kinds combine
  (``no_range`` with ``cut``; ``status`` with ``stall``).

========================  =====================================================================================
status                    ``status``, ``headers``, ``body``; ``retry_after``: seconds or any text,
                          ``retry_after_date``: a date as many seconds from now
reset                     the connection is reset before the headers
stall                     nothing for ``seconds`` before the headers, then the answer (null: for ever)
html                      a page of HTML with status 200
nested, truncated_json    JSON of ``depth`` brackets; the first ``fraction`` of the JSON, as if it were all
gzip_bomb                 a small gzip body that unpacks to ``bytes`` (4 GiB) blanks
wrong_bytes               the right length, but other bytes after the first ``keep`` (0)
etag_changes              other content with another ETag for every attempt
no_range                  Range is ignored: 200 and all
range_416                 every Range is refused
wrong_206                 a Range is answered from ``start`` (0), correctly declared; ``lie``: declared as asked
cut, cut_chunked          Content-Length is whole (or the body chunked) but only ``fraction`` (0.5) is sent;
                          ``reset``: ended by a reset
early_close               neither Content-Length nor chunks, and only ``fraction`` is sent (1: a whole body)
stall_body                after ``fraction`` nothing for ``seconds`` (null: for ever), then the rest
trickle                   ``bytes_per_second``
same_next, empty_page     the page's next is itself; no results but a next
duplicates                the first ``number`` (5) records of the listing stand on every page
wrong_count               ``count`` as given
page_one                  the cursor is ignored
next_host                 next leads to ``host``, "http://…"
========================  =====================================================================================

``records`` changes what the listing and the single records say ({files} and {api} become the two addresses):
{"isic_id": "ISIC_…", "set": {"files.full.url": "{files}/x.jpg", "metadata.clinical.sex": null}} sets single values,
{"isic_id": "ISIC_…", "record": …} replaces a record by any JSON, {"append": …} lists any JSON after the last one.

Switches: ``latency`` (seconds before each answer), ``signed`` (addresses of files carry a token and answer 403 without;
each reading of a record gives a fresh one), ``listing_expired`` (those that a listing gives are too old already).

The control path, on the API's port: GET /_control gives the log and the counts (``?log=0``: the counts alone,
``?part=x``: entries whose path holds x); POST /_control takes JSON with any of ``faults``, ``records``, the switches,
``"clear": true`` (the log and the counts), ``"expire": true`` (all tokens given so far), ``"warm": true`` (read all
files now), ``"reset": true`` (all of it as at the start).
"""

import argparse
import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import re
import signal
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from email.utils import formatdate
from functools import cache
from http.client import responses
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

sys.path.insert(0, str(Path(__file__).parents[2] / "sample_data"))
from sample_archive import SampleArchive

SWITCHES = {"latency": 0.0, "signed": False, "listing_expired": False}
KINDS = set(re.findall(r"^([a-z_0-9]+(?:, [a-z_0-9]+)?)  ", __doc__, re.M))
KINDS = {kind for names in KINDS for kind in names.split(", ")}
LISTINGS = ("/api/v2/images/search/",)
PIECE = 2**18


class GoneError(Exception):
    """The other side has closed the connection, or it is ours to drop."""


class Archive:
    """All that the two ports share: content, faults, log."""

    def __init__(self, folder, latency=0.0, faults=()):
        self.content = SampleArchive(folder)
        self.at_start = {"latency": latency}, list(faults)
        self.files, self.answers = {}, {}  # what was made once
        self.open, self.in_flight = Counter(), Counter()
        self.urls = {}  # by "api" and "files", once the ports are known
        self.reset()

    def reset(self):
        switches, faults = self.at_start
        self.switches = SWITCHES | switches
        self.records, self.tokens, self.expired = [], 0, 0
        self.set_faults(faults)
        self.clear()

    def clear(self):
        self.log, self.bytes_sent, self.peak = [], 0, Counter()

    def set_faults(self, faults):
        if unknown := {rule.get("kind") for rule in faults} - KINDS:
            raise ValueError(f"there is no fault {unknown}")
        for rule in faults:
            rule["_paths"], rule["_regex"] = set(rule.get("paths", ())), re.compile(rule.get("path", ""))
        self.faults, self.attempts, self.matching = faults, Counter(), {}

    def control(self, method, query, body):
        if method == "POST":
            order = json.loads(body)
            if order.pop("reset", False):
                self.reset()
            if order.pop("clear", False):
                self.clear()
            if order.pop("expire", False):
                self.expired = self.tokens
            if order.pop("warm", False):
                for path in self.content.files.values():
                    self.file(f"/images/{path.name}")
            if "faults" in order:
                self.set_faults(order.pop("faults"))
            if "records" in order:
                self.records = order.pop("records")
            if unknown := order.keys() - self.switches.keys():
                raise ValueError(f"there is no switch {', '.join(sorted(unknown))}")
            self.switches |= order
            self.answers.clear()
        state = {
            "bytes_sent": self.bytes_sent,
            "requests": len(self.log),
            "peak": self.peak["all"],
            "peak_api": self.peak["api"],
            "peak_files": self.peak["files"],
            "peak_connections": self.peak["open"],
            "open": sum(self.open.values()),
            **self.switches,
        }
        if query.get("log") != ["0"] and method == "GET":
            part = query.get("part", [""])[0]
            state["log"] = [entry for entry in self.log if part in entry["path"]]
        return state

    def rules(self, path, target):
        """Choose the faults of this attempt, by kind; and say which attempt it is."""
        key = target if path.startswith("/api/") else path
        self.attempts[key] += 1
        attempt = self.attempts[key]
        if key not in self.matching:
            self.matching[key] = [
                rule
                for rule in self.faults
                if (path in rule["_paths"] if rule["_paths"] else rule["_regex"].search(target))
                and rule.get("page") in (None, page_number(target))
            ]
        kinds = {}
        for rule in self.matching[key]:
            first = rule.get("skip", 0)
            last = float("inf") if rule.get("times") is None else first + rule["times"]
            if first < attempt <= last:
                kinds.setdefault(rule["kind"], rule)
        return kinds, attempt

    def file(self, path):
        """Give headers and bytes of a file, read once; None if there is no such file."""
        if not path.startswith(("/images/", "/thumbnails/")):
            return None
        if path not in self.files:
            status, headers, body = self.content.answer(f"http://host{path}")
            if status != 200:
                return None
            modified = formatdate(
                Path(self.content.files[Path(path).stem.removesuffix("_thumbnail")]).stat().st_mtime
            )
            self.files[path] = (
                {
                    "Content-Type": headers["Content-Type"],
                    "ETag": f'"{hashlib.md5(body).hexdigest()}"',
                    "Last-Modified": modified.replace("-0000", "GMT"),
                    "Accept-Ranges": "bytes",
                },
                body,
            )
        return self.files[path]

    def api(self, host, target, kinds):
        """Answer on the API's port: status, headers, body."""
        parts = urlsplit(target)
        if match := re.fullmatch(r"/api/v2/zip-download/license-file/(CC-0|CC-BY|CC-BY-NC)/", parts.path):
            return 200, {"Content-Type": "text/plain"}, f"The license {match[1]}.\n".encode()
        if not parts.path.endswith("/"):
            where = parts._replace(path=parts.path + "/").geturl()
            return 301, {"Location": where, "Content-Type": "text/html"}, b""
        if not parts.path.startswith("/api/v2/"):
            return 404, {"Content-Type": "application/json"}, b'{"detail": "Not Found"}'
        if (host, target) in self.answers and not kinds:
            return self.answers[host, target]
        asked = f"http://{host}{target}"
        if "page_one" in kinds:
            asked = re.sub(r"(?<=[?&])cursor=[^&]*&?", "", asked)
        status, headers, body = self.content.answer(asked)
        headers = {"Content-Type": headers["Content-Type"], "Vary": "Accept-Encoding"}
        is_record = bool(re.fullmatch(r"/api/v2/images/(?!search/|facets/)\w+/", parts.path))
        if parts.path in LISTINGS or (is_record and self.records):
            status, body = self.altered(status, body, is_record, asked, kinds)
        # the files are on the other host
        old, new = (
            (f'"http://{host}/{kind}/'.encode() for kind in ("images", "thumbnails")),
            self.urls["files"],
        )
        for address in old:
            body = body.replace(address, address.replace(f"http://{host}".encode(), new.encode()))
        if self.switches["signed"] and status == 200 and (is_record or parts.path in LISTINGS):
            body = re.sub(rb'("full": \{"url": "[^"]*)"', lambda match: self.sign(match, is_record), body)
        elif not kinds and len(self.answers) < 10_000:
            self.answers[host, target] = status, headers, body
        return status, headers, body

    def altered(self, status, body, is_record, asked, kinds):
        """Change a listing or a record as the records and faults say."""
        if is_record:
            name = urlsplit(asked).path.split("/")[-2]
            known = json.loads(body) if status == 200 else None
            extra = [c["append"] for c in self.records if "append" in c]
            known = next((r for r in extra if isinstance(r, dict) and r.get("isic_id") == name), known)
            return (200, self.dumps(self.patched(known))) if known is not None else (status, body)
        if status != 200 or not (kinds or self.records):
            return status, body
        page = json.loads(body)
        if "duplicates" in kinds and page["count"] is None:
            first = json.loads(self.content.answer(re.sub(r"(?<=[?&])cursor=[^&]*&?", "", asked))[2])[
                "results"
            ]
            page["results"] = first[: kinds["duplicates"].get("number", 5)] + page["results"]
        page["results"] = [self.patched(record) for record in page["results"]]
        extra = [change["append"] for change in self.records if "append" in change]
        if page["count"] is not None:
            page["count"] += len(extra)
        if page["next"] is None:
            page["results"] += extra
        if "same_next" in kinds:
            page["next"] = asked
        if "empty_page" in kinds:
            page["results"], page["next"] = [], page["next"] or asked
        if "wrong_count" in kinds and page["count"] is not None:
            page["count"] = kinds["wrong_count"]["count"]
        if "next_host" in kinds and page["next"]:
            page["next"] = re.sub("^http://[^/]*", kinds["next_host"]["host"], page["next"])
        return status, self.dumps(page)

    def dumps(self, content):
        text = json.dumps(content)
        return text.replace("{files}", self.urls["files"]).replace("{api}", self.urls["api"]).encode()

    def patched(self, record):
        for change in self.records:
            if (
                "append" in change
                or not isinstance(record, dict)
                or change["isic_id"] != record.get("isic_id")
            ):
                continue
            for keys, value in change.get("set", {}).items():
                *parents, last = keys.split(".")
                place = record
                for key in parents:
                    place = place.setdefault(key, {})
                place[last] = value
            record = change.get("record", record)
        return record

    def sign(self, match, is_record):
        self.tokens += 1
        token = 0 if self.switches["listing_expired"] and not is_record else self.tokens
        end = int(time.time()) + 6 * 86400
        return match[1] + f'?Expires={end}&Signature={token}&Key-Pair-Id=DOUBLE"'.encode()

    def allows(self, query):
        """Whether the token of a signed address is good."""
        token = query.get("Signature", [""])[0]
        return token.isdecimal() and int(token) > self.expired


class Exchange:
    """One request and its answer."""

    def __init__(self, archive, port, reader, writer, head):
        self.archive, self.port, self.reader, self.writer = archive, port, reader, writer
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.method, self.target, version = first.split(" ")
        self.headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        said = self.headers.get("connection", "").lower()
        self.keep = said != "close" and (version != "HTTP/1.0" or said == "keep-alive")

    async def run(self):
        """Answer; say whether the connection may be used again."""
        archive, path = self.archive, self.target.partition("?")[0]
        body = await self.reader.readexactly(int(self.headers.get("content-length", 0)))
        if path == "/_control" and self.port == "api":
            return await self.control(body)
        kinds, attempt = archive.rules(path, self.target)
        self.entry = entry = {
            "time": time.time(),
            "port": self.port,
            "method": self.method,
            "path": self.target,
            "headers": self.headers,
            "attempt": attempt,
            "faults": [*kinds],
            "status": None,  # none was sent, yet
            "bytes": 0,  # of the body
            "whole": False,
            "seconds": None,
        }
        archive.log.append(entry)
        for name in (self.port, "all"):
            archive.in_flight[name] += 1
            archive.peak[name] = max(archive.peak[name], archive.in_flight[name])
        try:
            if archive.switches["latency"]:
                await asyncio.sleep(archive.switches["latency"])
            await self.answer(path, kinds, attempt)
        except (ConnectionError, GoneError):
            self.keep = False
        finally:
            for name in (self.port, "all"):
                archive.in_flight[name] -= 1
            entry["seconds"] = time.time() - entry["time"]
            archive.bytes_sent += entry["bytes"]
        return self.keep

    async def control(self, body):
        try:
            status = 200
            answer = self.archive.control(self.method, parse_qs(urlsplit(self.target).query), body)
        except Exception as error:
            status, answer = 400, {"error": f"{type(error).__name__}: {error}"}
        self.send_head(status, {"Content-Type": "application/json"}, len(text := json.dumps(answer).encode()))
        self.writer.write(text)
        await self.writer.drain()
        return self.keep

    async def pause(self, seconds):
        """Wait, but no longer than the other side does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.reader.read(1), seconds)
            raise GoneError

    def drop(self, with_reset):
        if with_reset:  # closing with no time to linger sends a reset
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.writer.transport.abort()
        raise GoneError

    async def answer(self, path, kinds, attempt):
        if "stall" in kinds:
            await self.pause(kinds["stall"].get("seconds"))
        if "reset" in kinds:
            self.drop(True)
        status, headers, body = self.content(path, kinds, attempt)
        if self.port == "files":
            status, headers, body = self.conditional(status, headers, body, kinds)
        elif "gzip" in self.headers.get("accept-encoding", "") and len(body) > 200:
            if "Content-Encoding" not in headers:
                headers, body = {**headers, "Content-Encoding": "gzip"}, packed(body)
        await self.deliver(status, headers, body, kinds)

    def content(self, path, kinds, attempt):
        """Give status, headers and body before Range is looked at."""
        if rule := kinds.get("status"):
            return error_answer(rule, self.port)
        if "html" in kinds:
            page = b"<!DOCTYPE html><html><title>Sign in</title><body>Please sign in to the network.</body></html>"
            return 200, {"Content-Type": "text/html; charset=utf-8"}, page
        if rule := kinds.get("nested"):
            depth = rule.get("depth", 100_000)
            return 200, {"Content-Type": "application/json"}, b"[" * depth + b"]" * depth
        if rule := kinds.get("gzip_bomb"):
            kind = "application/json" if self.port == "api" else "image/jpeg"
            return 200, {"Content-Type": kind, "Content-Encoding": "gzip"}, bomb(rule.get("bytes", 2**32))
        if self.method not in ("GET", "HEAD"):
            return 405, {"Content-Type": "application/json"}, b'{"detail": "Method not allowed"}'
        if self.port == "api":
            host = self.headers.get("host", self.archive.urls["api"].partition("//")[2])
            status, headers, body = self.archive.api(host, self.target, kinds)
            if rule := kinds.get("truncated_json"):
                body = body[: int(len(body) * rule.get("fraction", 0.5))]
            return status, headers, body
        if self.archive.switches["signed"] and not self.archive.allows(parse_qs(urlsplit(self.target).query)):
            return 403, {"Content-Type": "text/xml"}, b"<Error><Code>AccessDenied</Code></Error>"
        found = self.archive.file(path)
        if not found:
            return 404, {"Content-Type": "application/xml"}, b"<Error><Code>NoSuchKey</Code></Error>"
        headers, body = found
        if "etag_changes" in kinds:
            version = b"version %d" % attempt
            if body[:2] == b"\xff\xd8":  # a comment, so that it is an image still
                body = body[:2] + b"\xff\xfe" + struct.pack(">H", len(version) + 2) + version + body[2:]
            else:
                body = body + version
            headers = {**headers, "ETag": f'"{hashlib.md5(body).hexdigest()}"', "Last-Modified": http_date(0)}
        if rule := kinds.get("wrong_bytes"):
            keep = rule.get("keep", 0)
            body = body[:keep] + bytes(255 - byte for byte in body[keep:])
        return 200, headers, body

    def conditional(self, status, headers, body, kinds):
        """Look at Range and If-Range, as RFC 9110 has it."""
        tag, date, asked = headers.get("ETag"), headers.get("Last-Modified"), self.headers
        if status != 200 or tag is None:
            return status, headers, body
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", asked.get("range", ""))
        if not match or "no_range" in kinds or asked.get("if-range", tag) not in (tag, date):
            return status, headers, body
        total = len(body)
        start, end = int(match[1]), min(int(match[2] or total - 1), total - 1)
        if start >= total or "range_416" in kinds:
            return 416, {"Content-Type": "application/xml", "Content-Range": f"bytes */{total}"}, b""
        said = f"bytes {start}-{end}/{total}"
        if rule := kinds.get("wrong_206"):
            start, end = rule.get("start", 0), rule.get("start", 0) + end - start
            said = said if rule.get("lie") else f"bytes {start}-{end}/{total}"
        return 206, {**headers, "Content-Range": said}, body[start : end + 1]

    def send_head(self, status, headers, length):
        lines = [f"HTTP/1.1 {status} {responses.get(status, 'Unknown')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        lines += [f"Date: {now_date(int(time.time()))}", "Server: archive-double"]
        lines += [] if self.keep else ["Connection: close"]
        self.writer.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))

    async def deliver(self, status, headers, body, kinds):
        """Send the answer, or what the faults leave of it."""
        short = kinds.get("cut") or kinds.get("cut_chunked") or kinds.get("early_close")
        chunked = "cut_chunked" in kinds
        self.keep = self.keep and not short
        if chunked:
            headers = {**headers, "Transfer-Encoding": "chunked"}
        self.entry["status"] = status
        self.send_head(status, headers, None if chunked or "early_close" in kinds else len(body))
        if self.method == "HEAD":
            body, short, chunked, kinds = b"", None, False, {}
        default = 1 if "early_close" in kinds and "cut" not in kinds else 0.5
        end = int(len(body) * short.get("fraction", default)) if short else len(body)
        if rule := kinds.get("trickle"):
            step = max(1, int(rule["bytes_per_second"] / 20))
            for start in range(0, end, step):
                if start:
                    await self.pause(step / rule["bytes_per_second"])
                await self.send(body[start : min(end, start + step)], chunked)
        elif rule := kinds.get("stall_body"):
            middle = int(end * rule.get("fraction", 0.5))
            await self.send(body[:middle], chunked)
            await self.pause(rule.get("seconds"))
            await self.send(body[middle:end], chunked)
        else:
            await self.send(body if end == len(body) else body[:end], chunked)
        if short and end < len(body):
            self.drop(short.get("reset", False))
        if chunked:
            self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()
        self.entry["whole"] = True

    async def send(self, data, chunked):
        if chunked and data:
            self.writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        elif data:
            # in pieces: what the socket does not take at once is copied
            view = memoryview(data)
            for start in range(0, len(data), PIECE):
                self.writer.write(view[start : start + PIECE])
                await self.writer.drain()
        await self.writer.drain()
        self.entry["bytes"] += len(data)


async def serve_connection(archive, port, reader, writer):
    transport = writer.transport
    transport.set_write_buffer_limits(0)  # drain() then means that the kernel has it all
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    archive.open[port] += 1
    archive.peak["open"] = max(archive.peak["open"], sum(archive.open.values()))
    try:
        while await Exchange(archive, port, reader, writer, await reader.readuntil(b"\r\n\r\n")).run():
            pass
    except (
        asyncio.IncompleteReadError,
        asyncio.LimitOverrunError,
        ConnectionError,
        ValueError,
        asyncio.CancelledError,
    ):
        pass  # the other side has closed, or speaks no HTTP
    finally:
        archive.open[port] -= 1
        with contextlib.suppress(Exception):
            writer.close()


def page_number(target):
    """Give the number of a listing's page, from 1: SampleArchive's cursor is the number of its first row."""
    query = parse_qs(urlsplit(target).query)
    start = limit = None
    with contextlib.suppress(ValueError):
        start = re.search(rb"o=(\d+)", base64.b64decode(query.get("cursor", [""])[0]))
        limit = int(query.get("limit", ["100"])[0])
    return 1 + (int(start[1]) if start else 0) // min(max(limit or 100, 1), 100)


def error_answer(rule, port):
    status, headers = rule["status"], dict(rule.get("headers", {}))
    if "retry_after" in rule:
        headers["Retry-After"] = str(rule["retry_after"])
    if "retry_after_date" in rule:
        headers["Retry-After"] = http_date(rule["retry_after_date"])
    if "body" in rule:
        body = rule["body"]
    elif status == 422:
        message = "Value error, Invalid cursor."
        body = {"detail": [{"type": "value_error", "loc": ["query", "cursor"], "msg": message}]}
    elif port == "api":
        body = {"detail": responses.get(status, "")}
    else:
        body = f"<Error><Code>{responses.get(status, status)}</Code></Error>"
    kind = "application/xml" if isinstance(body, str) else "application/json"
    text = body if isinstance(body, str) else json.dumps(body)
    return status, {"Content-Type": kind, **headers}, text.encode()


def http_date(seconds_from_now):
    return formatdate(time.time() + seconds_from_now, usegmt=True)


@cache
def bomb(size):
    """Make a small gzip stream of `size` blanks: one block, packed once, stands in it again and again."""
    block = 2**22
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    one = packer.compress(b" " * block) + packer.flush(zlib.Z_FULL_FLUSH)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    # the checksum is wrong, but who reads as far has unpacked it all
    return head + one * (size // block) + packer.flush() + struct.pack("<II", 0, size % 2**32)


_packed = {}


def packed(body):
    if len(_packed) > 500:
        _packed.clear()
    if body not in _packed:
        _packed[body] = gzip.compress(body, 4)
    return _packed[body]


_date = [0, ""]


def now_date(second):
    if _date[0] != second:
        _date[:] = second, formatdate(second, usegmt=True)
    return _date[1]


async def main(arguments):
    faults = json.loads(Path(arguments.faults).read_text(encoding="utf-8")) if arguments.faults else []
    archive = Archive(arguments.folder, arguments.latency, faults)
    for port, number in (("api", arguments.port), ("files", arguments.files_port)):

        async def connected(reader, writer, port=port):
            await serve_connection(archive, port, reader, writer)

        server = await asyncio.start_server(connected, "127.0.0.1", number, backlog=512)
        archive.urls[port] = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for name in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(name, stop.set)
    if arguments.child:
        loop.add_reader(0, stop.set)  # the parent never writes: something to read is the end of it
        print(json.dumps(archive.urls), flush=True)
    else:
        print(f"The images of {arguments.folder} as an archive: {archive.urls['api']}")
        print(
            f"files: {archive.urls['files']}, control: {archive.urls['api']}/_control (see {Path(__file__).name})"
        )
        print(f"make run SOURCE={archive.urls['api']}        Ctrl-C ends it", flush=True)
    await stop.wait()


def parse(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", required=True, help="holds images/ and metadata.csv")
    parser.add_argument("--port", type=int, default=8000, help="of the API; 0: any")
    parser.add_argument("--files-port", type=int, default=8001)
    parser.add_argument("--latency", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--faults", help="a JSON file with a list of rules")
    parser.add_argument("--child", action="store_true", help="print the addresses as JSON, end with stdin")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(parse())))
