"""The double of the ISIC Archive does what its docstring promises, so that tests of the client mean something."""

import gzip
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path

import psutil
import pytest
import requests
import urllib3
from double import SERVER, Double

SEARCH = "/api/v2/images/search/"


@pytest.fixture
def session():
    with requests.Session() as session:
        session.trust_env = False
        session.request = partial(session.request, timeout=10)  # so that no test waits for ever
        yield session


@pytest.fixture
def ids(archive_folder):
    rows = (archive_folder / "metadata.csv").read_text(encoding="utf-8").splitlines()[1:]
    return [row.split(",")[0] for row in rows]


def walk(session, double, pages=9, **params):
    """Follow the listing for at most so many pages."""
    url, found = double.url + SEARCH, []
    while url and len(found) < pages:
        found.append(session.get(url, params=params).json())
        url, params = found[-1]["next"], {}
    return found


def last(double, part=""):
    return double.log(part)[-1]


def fails(session, url, **options):
    """What a request runs into: the exception's name."""
    try:
        return session.get(url, **options).status_code
    except requests.RequestException as error:
        return type(error).__name__


# without faults


def test_listing_and_files_are_on_two_hosts_and_whole(double, session, ids):
    pages = walk(session, double)
    assert [len(page["results"]) for page in pages] == [100, 100, 60]
    assert [page["count"] for page in pages] == [260, None, None]
    assert [record["isic_id"] for page in pages for record in page["results"]] == ids
    full = pages[0]["results"][0]["files"]["full"]
    assert full["url"] == f"{double.files_url}/images/{ids[0]}.jpg" != double.url
    source = (double.folder / "images" / f"{ids[0]}.jpg").read_bytes()
    answer = session.get(full["url"])
    assert answer.content == source and len(source) == full["size"]
    assert answer.headers["ETag"] == f'"{hashlib.md5(source).hexdigest()}"'
    assert answer.headers["Content-Type"] == "image/jpeg" and "Content-Encoding" not in answer.headers
    assert parsedate_to_datetime(answer.headers["Last-Modified"]).year > 2000
    head = session.head(full["url"])
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(full["size"])
    thumbnail = session.get(pages[0]["results"][0]["files"]["thumbnail_256"]["url"])
    assert (thumbnail.status_code, thumbnail.headers["Content-Type"]) == (200, "image/jpeg")
    assert session.get(f"{double.url}/images/{ids[0]}.jpg").status_code == 404
    assert session.get(f"{double.files_url}{SEARCH}").status_code == 404


def test_a_missing_slash_redirects_and_json_is_packed_if_wanted(double, session):
    answer = session.get(f"{double.url}{SEARCH[:-1]}?query=sex:male&limit=7")
    assert [past.status_code for past in answer.history] == [301] and len(answer.json()["results"]) == 7
    assert answer.headers["Content-Encoding"] == "gzip"
    plain = session.get(answer.url, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers and plain.json() == answer.json()
    assert session.get(f"{double.url}/api/v2/zip-download/license-file/CC-BY/").text
    assert session.get(f"{double.url}/api/v2/zip-download/license-file/X/").status_code == 404
    assert session.post(f"{double.url}{SEARCH}").status_code == 405


def test_ranges_are_answered_as_http_has_it(double, session, ids):
    url = f"{double.files_url}/images/{ids[1]}.jpg"
    whole = session.get(url)
    data, tag, date = whole.content, whole.headers["ETag"], whole.headers["Last-Modified"]
    total = len(data)

    def ask(byte_range, **headers):
        answer = session.get(url, headers={"Range": byte_range, **headers})
        return answer.status_code, answer.headers.get("Content-Range"), answer.content

    assert ask("bytes=10-19") == (206, f"bytes 10-19/{total}", data[10:20])
    assert ask("bytes=100-") == (206, f"bytes 100-{total - 1}/{total}", data[100:])
    assert ask("bytes=0-99999999") == (206, f"bytes 0-{total - 1}/{total}", data)
    assert ask(f"bytes={total}-") == (416, f"bytes */{total}", b"")
    for condition in (tag, date):
        assert ask("bytes=10-", **{"If-Range": condition})[0] == 206
    assert ask("bytes=10-", **{"If-Range": '"other"'}) == (200, None, data)
    for nonsense in ("bytes=-", "items=0-1", "bytes=0-1,4-5"):
        assert ask(nonsense)[0] == 200


def test_every_request_is_logged_and_counted(double, session, ids):
    session.get(f"{double.url}{SEARCH}?limit=1", headers={"Authorization": "Bearer me"})
    assert double.secrets() == []
    for _ in range(2):
        session.get(f"{double.files_url}/images/{ids[0]}.jpg", headers={"Cookie": "who=me"})
    first, second = double.log("/images/ISIC")
    assert (first["port"], first["method"], first["status"], first["whole"]) == ("files", "GET", 200, True)
    assert (first["attempt"], second["attempt"]) == (1, 2) and first["time"] < second["time"]
    assert first["bytes"] == (double.folder / "images" / f"{ids[0]}.jpg").stat().st_size
    assert len(double.secrets()) == 2 and len(double.log()) == 3
    assert double.state()["bytes_sent"] == sum(entry["bytes"] for entry in double.log())
    double.set(clear=True)
    assert double.log() == [] and double.state()["bytes_sent"] == double.state()["peak"] == 0


def test_the_peak_is_that_of_requests_at_the_same_time(double, ids):
    double.set(latency=0.15)
    pool = urllib3.PoolManager(maxsize=4)
    started = time.monotonic()
    with ThreadPoolExecutor(4) as threads:
        [*threads.map(lambda name: pool.request("GET", f"{double.files_url}/images/{name}.jpg"), ids[:8])]
    assert 0.29 < time.monotonic() - started < 2
    state = double.state()
    assert state["peak"] == state["peak_files"] == 4 and state["peak_api"] == 0


# faults


def test_a_fault_comes_for_the_attempts_it_is_for(double, session, ids):
    double.set(
        faults=[
            {"path": r"\.jpg", "kind": "status", "status": 503, "times": 1, "skip": 1},
            {"paths": [f"/images/{ids[1]}.jpg"], "kind": "status", "status": 404},
        ]
    )
    urls = [f"{double.files_url}/images/{name}.jpg" for name in ids[:2]]
    assert [session.get(urls[0]).status_code for _ in range(4)] == [200, 503, 200, 200]
    assert [session.get(urls[1]).status_code for _ in range(4)] == [404, 503, 404, 404]
    assert [entry["faults"] for entry in double.log(ids[0])] == [[], ["status"], [], []]
    double.set(faults=[{"path": "", "kind": "status", "status": 500, "times": 1}])  # attempts count anew
    assert [session.get(urls[0]).status_code for _ in range(2)] == [500, 200]
    with pytest.raises(ValueError, match="resett"):
        double.set(faults=[{"path": "", "kind": "resett"}])
    with pytest.raises(ValueError, match="latenzy"):
        double.set(latenzy=1)
    double.reset()
    assert session.get(f"{double.url}/api/v2/images/{ids[3]}/").json()["isic_id"] == ids[3]


def test_statuses_carry_the_headers_of_their_kind(double, session, ids):
    url = f"{double.files_url}/images/{ids[0]}.jpg"
    rule = {"path": "jpg", "kind": "status", "status": 429}
    for extra, seen in [({"retry_after": 2}, "2"), ({}, None), ({"retry_after": 86400}, "86400")]:
        double.set(faults=[rule | extra])
        answer = session.get(url)
        assert (answer.status_code, answer.headers.get("Retry-After")) == (429, seen)
    double.set(faults=[rule | {"retry_after_date": 30, "headers": {"X-Who": "me"}, "body": "Slow down"}])
    answer = session.get(url)
    wait = parsedate_to_datetime(answer.headers["Retry-After"]).timestamp() - time.time()
    assert 27 < wait < 31 and answer.headers["X-Who"] == "me" and answer.text == "Slow down"
    double.set(faults=[{"path": "/api/", "kind": "status", "status": 422}])
    assert session.get(f"{double.url}{SEARCH}").json()["detail"][0]["loc"] == ["query", "cursor"]


@pytest.mark.parametrize(
    "rule, ends_in",
    [
        ({"kind": "reset"}, "ConnectionError"),
        ({"kind": "cut"}, "ChunkedEncodingError"),
        ({"kind": "cut", "fraction": 0}, "ChunkedEncodingError"),
        ({"kind": "cut", "reset": True}, ("ChunkedEncodingError", "ConnectionError")),
        ({"kind": "cut_chunked"}, "ChunkedEncodingError"),
        ({"kind": "stall", "seconds": 5}, "ReadTimeout"),
        ({"kind": "stall_body", "seconds": 5}, "ConnectionError"),  # so requests calls a timeout in the body
        ({"kind": "trickle", "bytes_per_second": 5}, None),
    ],
)
def test_broken_answers_break_as_they_should(double, session, ids, rule, ends_in):
    double.set(faults=[{"path": "jpg", "times": 1, **rule}])
    url = f"{double.files_url}/images/{ids[0]}.jpg"
    if ends_in is None:
        with session.get(url, stream=True, timeout=0.5) as answer:
            assert len(answer.raw.read(2)) == 2
        ends_in = ()
    else:
        result = fails(session, url, timeout=0.3)
        assert result in ends_in if isinstance(ends_in, tuple) else result == ends_in
    assert session.get(url).status_code == 200
    broken, whole = double.log(ids[0])
    assert (broken["whole"], whole["whole"]) == (False, True)
    deadline = time.monotonic() + 2  # a client that has gone is noticed long before the fault is over
    while double.log(ids[0])[0]["seconds"] is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert double.log(ids[0])[0]["seconds"] < 2 and broken["bytes"] < whole["bytes"]


def test_on_the_wire_a_reset_is_one_and_head_has_no_body(double, ids):
    def ask(method):
        with socket.create_connection(("127.0.0.1", int(double.files_url.rpartition(":")[2])), 10) as wire:
            wire.sendall(
                f"{method} /images/{ids[0]}.jpg HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            )
            return b"".join(iter(partial(wire.recv, 2**16), b""))

    assert ask("HEAD").endswith(b"\r\n\r\n") and not ask("GET").endswith(b"\r\n\r\n")
    for rule in ({"kind": "reset"}, {"kind": "cut", "reset": True}):
        double.set(faults=[{"path": "jpg", **rule}])
        with pytest.raises(ConnectionResetError):
            ask("GET")
    double.set(faults=[{"path": "jpg", "kind": "cut"}])
    assert ask("GET").startswith(b"HTTP/1.1 200 OK")


def test_bodies_without_a_length_are_whole_or_end_early(double, session, ids):
    source = (double.folder / "images" / f"{ids[0]}.jpg").read_bytes()
    for rule, length in [
        ({"kind": "early_close", "fraction": 0.5}, len(source) // 2),
        ({"kind": "early_close"}, len(source)),
    ]:
        double.set(faults=[{"path": "jpg", **rule}])
        answer = session.get(f"{double.files_url}/images/{ids[0]}.jpg")
        assert "Content-Length" not in answer.headers and answer.content == source[:length]
        assert last(double)["whole"] is (length == len(source))


def test_stalls_and_trickles_end_whole_for_the_patient(double, session, ids):
    url = f"{double.files_url}/images/{ids[0]}.jpg"
    source = (double.folder / "images" / f"{ids[0]}.jpg").read_bytes()
    for rule in (
        {"kind": "stall", "seconds": 0.3},
        {"kind": "stall_body", "seconds": 0.3},
        {"kind": "trickle", "bytes_per_second": len(source) * 3},
    ):
        double.set(faults=[{"path": "jpg", **rule}])
        started = time.monotonic()
        assert session.get(url).content == source
        assert 0.25 < time.monotonic() - started < 2 and last(double)["whole"]


def test_wrong_contents_look_right_from_outside(double, session, ids):
    url = f"{double.files_url}/images/{ids[0]}.jpg"
    source = session.get(url).content
    double.set(faults=[{"path": "jpg", "kind": "wrong_bytes", "keep": 4}])
    wrong = session.get(url)
    assert (
        len(wrong.content) == len(source)
        and wrong.content[:4] == source[:4]
        and wrong.content[4:] != source[4:]
    )
    double.set(faults=[{"path": "", "kind": "html"}])
    page = session.get(url)
    assert (
        page.status_code == 200
        and "<html" in page.text
        and page.headers["Content-Type"].startswith("text/html")
    )
    double.set(faults=[{"path": "/api/", "kind": "truncated_json"}])
    cut = session.get(f"{double.url}{SEARCH}")
    assert cut.status_code == 200 and cut.text.startswith('{"results"')
    with pytest.raises(ValueError):
        cut.json()
    double.set(faults=[{"path": "/api/", "kind": "nested", "depth": 5000}])
    assert session.get(f"{double.url}{SEARCH}").content == b"[" * 5000 + b"]" * 5000


def test_a_gzip_bomb_is_small_on_the_wire(double, ids):
    double.set(faults=[{"path": "", "kind": "gzip_bomb", "bytes": 2**28}])
    answer = urllib3.request("GET", f"{double.url}{SEARCH}", preload_content=False, decode_content=False)
    packed = answer.read()
    assert answer.headers["Content-Encoding"] == "gzip" and len(packed) < 2**20
    unpacker, size = zlib.decompressobj(31), 0
    try:
        while packed:
            size += len(unpacker.decompress(packed, 2**24))
            packed = unpacker.unconsumed_tail
    except zlib.error:
        pass  # the checksum, at the very end
    assert 2**28 - 2**24 <= size <= 2**28


def test_the_content_can_change_between_attempts(double, session, ids):
    url = f"{double.files_url}/images/{ids[0]}.jpg"
    source = session.get(url)
    double.set(
        faults=[
            {"path": "jpg", "kind": "etag_changes", "skip": 1},
            {"path": "jpg", "kind": "cut", "times": 1},
        ]
    )
    tag = source.headers["ETag"]
    assert fails(session, url) == "ChunkedEncodingError"
    changed = session.get(url, headers={"Range": "bytes=10-", "If-Range": tag})
    assert changed.status_code == 200 and changed.headers["ETag"] != tag
    assert changed.content != source.content and changed.content[:2] == b"\xff\xd8"
    assert session.get(url).headers["ETag"] != changed.headers["ETag"]


def test_ranges_can_be_ignored_refused_and_wrong(double, session, ids):
    url = f"{double.files_url}/images/{ids[0]}.jpg"
    source = session.get(url).content

    def ask(**rule):
        double.set(faults=[{"path": "jpg", **rule}])
        answer = session.get(url, headers={"Range": "bytes=100-199"})
        return answer.status_code, answer.headers.get("Content-Range"), answer.content

    assert ask(kind="no_range") == (200, None, source)
    assert ask(kind="range_416")[:2] == (416, f"bytes */{len(source)}")
    assert ask(kind="wrong_206") == (206, f"bytes 0-99/{len(source)}", source[:100])
    assert ask(kind="wrong_206", start=5, lie=True) == (206, f"bytes 100-199/{len(source)}", source[5:105])


def test_listings_can_go_wrong(double, session, ids):
    def pages(**rule):
        double.set(faults=[{"path": "/search/", **rule}])
        return walk(session, double, 5)

    same = pages(kind="same_next", page=2)
    assert len(same) == 5 and same[1]["next"] == same[4]["next"]
    assert [record["isic_id"] for record in pages(kind="duplicates")[1]["results"]][:6] == [
        *ids[:5],
        ids[100],
    ]
    empty = pages(kind="empty_page", page=2)
    assert [len(page["results"]) for page in empty] == [100, 0, 60]
    assert pages(kind="wrong_count", count=999)[0]["count"] == 999
    assert pages(kind="page_one", page=2)[1]["results"][0]["isic_id"] == ids[0]
    double.set(faults=[{"path": "/search/", "kind": "next_host", "host": "http://other.invalid"}])
    assert walk(session, double, 1)[0]["next"].startswith(
        "http://other.invalid/api/v2/images/search/?cursor="
    )
    double.set(faults=[{"path": "/search/", "kind": "status", "status": 500, "page": 3}])
    next_url = walk(session, double, 2)[1]["next"]
    assert session.get(next_url).status_code == 500


# records


def test_records_can_be_hostile(double, session, ids):
    double.set(
        records=[
            {"isic_id": ids[0], "set": {"files.full.url": "{files}/../x.jpg", "metadata.clinical.sex": None}},
            {"isic_id": ids[1], "record": {"isic_id": ids[1], "files": []}},
            {"append": {"isic_id": "../evil", "files": {"full": {"url": f"{{files}}/images/{ids[2]}.jpg"}}}},
            {"append": "no record at all"},
        ]
    )
    pages = walk(session, double)
    first, second = pages[0]["results"][:2]
    assert first["files"]["full"]["url"] == f"{double.files_url}/../x.jpg"
    assert first["metadata"]["clinical"]["sex"] is None and second == {"isic_id": ids[1], "files": []}
    assert pages[0]["count"] == 262 and pages[-1]["results"][-1] == "no record at all"
    assert session.get(pages[-1]["results"][-2]["files"]["full"]["url"]).status_code == 200
    assert session.get(f"{double.url}/api/v2/images/{ids[0]}/").json() == first


def test_signed_addresses_run_out_until_the_record_is_read_again(double, session, ids):
    double.set(signed=True)
    record = walk(session, double, 1, limit=3)[0]["results"][0]
    url = record["files"]["full"]["url"]
    assert "Expires=" in url and session.get(url).status_code == 200
    assert session.get(url.partition("?")[0]).status_code == 403
    double.set(expire=True)
    assert session.get(url).status_code == 403
    again = f"{double.url}/api/v2/images/{ids[0]}/"
    fresh = session.get(again).json()["files"]["full"]["url"]
    assert fresh != url and session.get(fresh).status_code == 200
    double.set(listing_expired=True)
    assert session.get(walk(session, double, 1)[0]["results"][0]["files"]["full"]["url"]).status_code == 403
    assert session.get(session.get(again).json()["files"]["full"]["url"]).status_code == 200


# the process


def test_it_is_as_new_after_a_reset(double, session, ids):
    double.set(faults=[{"path": "", "kind": "reset"}], records=[{"append": 1}], latency=3, signed=True)
    double.reset()
    started = time.monotonic()
    record = walk(session, double)[-1]["results"][-1]
    assert record["isic_id"] == ids[-1] and "?" not in record["files"]["full"]["url"]
    assert time.monotonic() - started < 2 and double.state()["peak"] == 1


def test_it_is_reached_on_loopback_alone(archive_folder):
    with Double(archive_folder, latency=0.01) as double:
        assert double.url.startswith("http://127.0.0.1:") and double.state()["latency"] == 0.01
        port = int(double.url.rpartition(":")[2])
        listening = Path(f"/proc/{double.process.pid}/net/tcp")
        if listening.exists():
            assert f" 0100007F:{port:04X} 00000000:0000 0A" in listening.read_text(encoding="utf-8")
    assert double.process.returncode == 0


def test_it_ends_with_the_process_that_started_it(archive_folder):
    code = (
        f"import sys, time; sys.path.insert(0, {str(SERVER.parents[1])!r}); from double import Double\n"
        f"print(Double({str(archive_folder)!r}).process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs([child], timeout=5)
    for process in alive:
        process.kill()
    assert not alive, "the double outlived its parent"


def test_it_is_cheap_enough_for_benchmarks_beside_a_client(double, ids):
    stat = Path(f"/proc/{double.process.pid}/stat")
    if not stat.exists():
        pytest.skip("no /proc to tell the processor's time from")

    def seconds():
        fields = stat.read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    double.set(warm=True)
    before, pool = seconds(), urllib3.PoolManager()
    for _ in range(300):
        pool.request("GET", f"{double.files_url}/images/{ids[0]}.jpg")
    assert (seconds() - before) / 300 < 0.001  # about 0.1 ms on a quiet machine


def test_it_unpacks_what_it_packed(double):
    answer = urllib3.request(
        "GET", f"{double.url}{SEARCH}", headers={"Accept-Encoding": "gzip"}, decode_content=False
    )
    assert len(json.loads(gzip.decompress(answer.data))["results"]) == 100
