import csv
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from isicvision import PROJECT_ROOT, ImageDataset, IsicArchive, archive
from isicvision.archive import ArchiveError
from isicvision.sample import SampleArchive, parse_query

ODD = "Nevus & more + #1 = 100%"  # every character that an address has a use for


def jpeg(seed):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """260 pictures with metadata, in the layout of sample_data: half benign, half malignant, the last 5 neither."""
    root = tmp_path_factory.mktemp("archive")
    (root / "images").mkdir()
    rows = []
    for number in range(260):
        isic_id = f"ISIC_99{(number * 7919) % 100000:05d}"
        (root / "images" / f"{isic_id}.jpg").write_bytes(jpeg(number % 7))
        rows.append(
            {
                "isic_id": isic_id,
                "attribution": f"Clinic {'ÄB'[number % 2]}",
                "copyright_license": ("CC-0", "CC-BY", "CC-BY-NC")[number % 3],
                "diagnosis_1": "" if number >= 255 else ("Benign", "Malignant")[number % 2],
                "diagnosis_2": ODD if number < 120 else "",
                "image_type": ("dermoscopic", "clinical: close-up")[number % 2],
                "age_approx": number % 18 * 5 or "",
                "sex": ("female", "male", "")[number % 3],
                "melanocytic": ("True", "False")[number % 2],
                "mel_thick_mm": f"{number / 100:.2f}",
                "pixels_x": 8,
                "pixels_y": 8,
            }
        )
    with open(root / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


class Server:
    """A real HTTP server: `log` holds every request, `faults` what goes wrong, `alter` rewrites a listing.

    `faults` maps a path to what its next requests get: a status, (status, headers), "cut", or a (type, body).
    """

    def __init__(self, folder):
        self.content = SampleArchive(folder)
        self.ids = [row["isic_id"] for row in self.content.rows]
        self.log, self.headers, self.faults, self.alter = [], [], {}, lambda page: page
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # else each answer waits 40 ms for an acknowledgement

            def do_GET(self):
                outer.respond(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def respond(self, handler):
        path = urlsplit(handler.path).path
        self.log.append((time.monotonic(), handler.path))
        self.headers.append(dict(handler.headers))
        status, headers, body = self.content.answer(f"http://{handler.headers['Host']}{handler.path}")
        if status == 200 and path.endswith("/search/"):
            body = json.dumps(self.alter(json.loads(body))).encode()
        sent = None
        fault = self.faults[path].pop(0) if self.faults.get(path) else None
        if fault == "cut":
            sent = len(body) // 2
        elif isinstance(fault, tuple) and isinstance(fault[0], str):
            headers, body = {"Content-Type": fault[0]}, fault[1]
        elif fault:
            status, extra = fault if isinstance(fault, tuple) else (fault, {})
            headers, body = extra, b"busy"
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Set-Cookie": "who=you"}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:sent])
        handler.close_connection = sent is not None

    def paths(self, part):
        return [path for _, path in self.log if part in path]

    def picture(self, number):
        return f"/images/{self.ids[number]}.jpg"


@pytest.fixture
def server(pictures, monkeypatch):
    monkeypatch.setattr(archive, "RETRY", archive.RETRY.new(backoff_factor=0, backoff_jitter=0))
    server = Server(pictures)
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def client(server):
    return IsicArchive(server.url)


def rows_of(folder):
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# search and count


def test_all_pages_are_walked_in_order_and_only_as_far_as_asked(server, client):
    records = client.search()
    assert next(records)["isic_id"] == server.ids[0] and len(server.log) == 1
    assert [record["isic_id"] for record in records] == server.ids[1:] and len(server.log) == 3
    assert client.count() == 260
    server.log.clear()
    assert len([*client.search(limit=101)]) == 101 and len(server.log) == 2
    assert len([*client.search(limit=7)]) == 7 and "limit=7" in server.log[-1][1]
    assert [*client.search(limit=0)] == []
    with pytest.raises(ValueError, match="-1"):
        next(client.search(limit=-1))


def test_the_query_arrives_as_it_was_written_on_every_page(server, client):
    query = f'diagnosis_2:"{ODD}" AND mel_thick_mm:[0 TO *]'
    assert len([*client.search(query)]) == client.count(query) == 120
    assert [parse_qs(urlsplit(path).query)["query"] for _, path in server.log] == [[query]] * 3


def test_a_refused_query_says_which_and_what_the_archive_said(client, tmp_path):
    for ask in (client.count, lambda query: client.download(tmp_path / "new", query=query)):
        with pytest.raises(ValueError, match=r"'colour:red'.*there is no field 'colour'"):
            ask("colour:red")
    assert not (tmp_path / "new").exists()


def test_pages_that_go_in_circles_are_noticed(server, client):
    def again(page):  # ends at last, so that a client which notices nothing fails instead of hanging
        onward = f"{server.url}/api/v2/images/search/?limit=100" if len(server.log) < 20 else None
        return {**page, "next": onward}

    server.alter = again
    with pytest.raises(ArchiveError, match="in a circle after 100"):
        [*client.search()]
    assert len(server.log) <= 3


def test_a_picture_listed_on_two_pages_comes_once(server, client):
    first = []

    def repeat(page):
        first.extend(page["results"][:5])
        return {**page, "results": first[:5] + page["results"]}

    server.alter = repeat
    assert [record["isic_id"] for record in client.search()] == server.ids


@pytest.mark.parametrize(
    "alter, message",
    [
        (lambda page: {**page, "next": "http://elsewhere.invalid/api/v2/images/search/"}, "another host"),
        (lambda page: {"items": []}, "not the ISIC Archive"),
        (lambda page: {**page, "results": [{"id": 1}]}, "without isic_id"),
    ],
)
def test_a_listing_that_is_not_of_this_api_is_an_archive_error(server, client, alter, message):
    server.alter = alter
    with pytest.raises(ArchiveError, match=message):
        [*client.search()]


def test_no_cookie_is_kept_and_the_client_says_who_it_is(server, client):
    client.count()
    client.count()
    assert all(
        "Cookie" not in headers and "isicvision/" in headers["User-Agent"] for headers in server.headers
    )


# download


def test_pictures_lie_in_a_folder_per_label_and_a_second_call_fetches_nothing(server, client, tmp_path):
    query = "diagnosis_1:* AND image_type:*"
    report = client.download(tmp_path / "data", query=query, progress=False)
    assert (len(report.fetched), report.present, report.failed, report.skipped) == (255, [], [], [])
    for path in report.fetched[::50]:
        assert path.read_bytes() == server.content.files[path.stem].read_bytes()
    assert len(files_below(tmp_path / "data" / "benign")) == 128
    assert [*tmp_path.rglob("*.part")] == []
    server.log.clear()
    report = client.download(tmp_path / "data", query=query, progress=False)
    assert (len(report.fetched), len(report.present)) == (0, 255)
    assert server.paths("/images/ISIC") == []
    assert ImageDataset.from_folder(tmp_path / "data").table["diagnosis_2"].eq(ODD).sum() == 120


def test_pages_are_asked_for_no_faster_than_pictures_come(server, client, tmp_path):
    client.download(tmp_path / "data", label="x", connections=2, progress=False)
    third_page = [n for n, (_, path) in enumerate(server.log) if "/search/" in path][-1]
    assert sum("/images/ISIC" in path for _, path in server.log[:third_page]) >= 190


def test_busy_servers_are_asked_again_when_they_say(server, client, tmp_path):
    server.faults = {
        server.picture(0): [503, 500, 502],
        server.picture(1): [(429, {"Retry-After": "1"})],
        "/api/v2/images/search/": [503],
    }
    report = client.download(tmp_path / "data", limit=3, progress=False)
    assert len(report.fetched) == 3 and len(server.paths(server.picture(0))) == 4
    first, second = (seconds for seconds, path in server.log if path == server.picture(1))
    assert second - first > 0.9


def test_what_is_no_whole_picture_is_reported_and_leaves_no_file(server, client, tmp_path):
    server.faults = {
        server.picture(0): ["cut"],
        server.picture(1): [("text/html", b"<html>Please log in</html>")],
        server.picture(2): [404],
        server.picture(3): [503] * 6,
        server.picture(4): [("image/jpeg", b"")],
        server.picture(5): [("image/jpeg", jpeg(5)[:-150])],
    }
    report = client.download(tmp_path / "data", limit=8, label="x", progress=False)
    reasons = dict(report.failed)
    assert len(report.fetched) == 2 and len(reasons) == 6
    for number, word in enumerate(
        ["IncompleteRead", "text/html", "404", "503", "no sound picture", "no sound picture"]
    ):
        assert word in reasons[server.ids[number]]
    assert len(files_below(tmp_path / "data" / "x")) == len(rows_of(tmp_path / "data")) == 2
    assert "failed 6" in str(report) and "1 more failed" in str(report)
    again = client.download(tmp_path / "data", limit=8, label="x", progress=False)
    assert (len(again.fetched), len(again.present), again.failed) == (6, 2, [])


def test_no_hostile_name_is_written_outside_the_folder(server, client, tmp_path):
    evil = ["../../evil", "/evil", "..", ".hidden", "a/b", "a\\b", "", "a\0b", "a" * 300, "ISIC_1\n"]

    def rename(page):
        if len(page["results"]) < 20:  # the question for the count
            return page
        for record, isic_id in zip(page["results"], evil, strict=False):
            record["isic_id"] = isic_id
        page["results"][10]["files"]["full"]["url"] += ".exe"
        page["results"][11]["files"] = None
        page["results"][12]["files"]["full"]["url"] = "file:///etc/hostname.png"
        page["results"][13]["metadata"]["clinical"]["diagnosis_1"] = "../../evil"
        return page

    server.alter = rename
    data = tmp_path / "a" / "b" / "data"
    report = client.download(data, limit=20, progress=False)
    assert [isic_id for isic_id, _ in report.failed[:10]] == evil and len(report.failed) == 13
    assert all("safe file name" in reason for _, reason in report.failed[:10])
    assert sum("safe file name" in reason for _, reason in report.failed) == 12
    assert all(name.startswith("a/b/data/") for name in files_below(tmp_path))
    assert {path.name for path in data.iterdir() if path.is_dir()} == {"benign", "malignant", "_.._evil"}


def test_pictures_without_a_label_are_listed_as_skipped(server, client, tmp_path):
    report = client.download(tmp_path / "data", query="mel_thick_mm:[2.50 TO *]", progress=False)
    assert len(report.fetched) == 5
    assert report.skipped == [(isic_id, "no usable label by 'diagnosis_1'") for isic_id in server.ids[255:]]
    assert report.table["status"].value_counts().to_dict() == {"fetched": 5, "skipped": 5}


def test_the_label_is_a_field_a_word_or_a_function(client, tmp_path):
    def by_site(record):
        return {"female": "A/B"}.get(record["metadata"]["clinical"].get("sex"))

    for label, folders in [
        ("image_type", {"clinical_close-up", "dermoscopic"}),
        ("melanocytic", {"true", "false"}),
        ("My Label", {"My Label"}),
        (by_site, {"A_B"}),
    ]:
        data = tmp_path / str(len(folders)) / str(label)[:5]
        report = client.download(data, limit=9, label=label, progress=False)
        assert {path.parent.name for path in report.fetched} == folders
    assert len(report.skipped) == 6
    for label in ("", "..", "a/b", ".x", None, "x" * 300):
        with pytest.raises(ValueError, match="label must be"):
            client.download(tmp_path / "data", label=label)
    assert not (tmp_path / "data").exists()


def test_metadata_and_credits_add_up_over_calls(server, client, tmp_path):
    data = tmp_path / "data"
    client.download(data, query="diagnosis_1:Malignant", limit=20, label="malignant", progress=False)
    client.download(data, query="diagnosis_1:Benign", limit=30, label="benign", progress=False)
    rows = rows_of(data)
    assert [row["isic_id"] for row in rows] == sorted(row["isic_id"] for row in rows)
    assert sorted(row["file"] for row in rows) == [name for name in files_below(data) if "/" in name]
    assert {(row["label"], row["diagnosis_1"]) for row in rows} == {
        ("malignant", "Malignant"),
        ("benign", "Benign"),
    }
    assert [*rows[0]][:5] == ["isic_id", "label", "file", "attribution", "copyright_license"]
    credit = (data / "attribution.txt").read_text(encoding="utf-8")
    assert "Clinic Ä (CC-0): 10 pictures\n" in credit and credit.count("pictures") == 6
    licences = (data / "licenses.txt").read_text(encoding="utf-8").splitlines()
    assert licences[0] == "CC-0: https://creativecommons.org/publicdomain/zero/1.0/" and len(licences) == 3


def test_a_folder_of_something_else_is_refused_and_left_alone(client, tmp_path):
    data = tmp_path / "data"
    client.download(data, limit=1, progress=False)
    other = json.dumps({"source": "http://other.invalid/api/v2/"})
    (data / "source.json").write_text(other)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "metadata.csv").write_text("my own")
    for folder, owner in ((data, "other.invalid"), (mine, "another origin")):
        before = files_below(folder)
        with pytest.raises(ValueError, match=rf"{owner}.*choose another folder"):
            client.download(folder, limit=5)
        assert files_below(folder) == before
    assert (mine / "metadata.csv").read_text() == "my own"


def test_an_interrupted_download_keeps_what_came_and_goes_on(server, client, tmp_path, capsys):
    data, seen = tmp_path / "data", []

    def label(record):
        seen.append(record)
        if len(seen) == 60:
            raise KeyboardInterrupt
        return "x"

    with pytest.raises(KeyboardInterrupt):
        client.download(data, label=label, connections=4, progress=False)
    assert "the same call goes on from there" in capsys.readouterr().out
    kept = [name for name in files_below(data) if name.startswith("x/")]
    assert 50 <= len(kept) < 60 and sorted(row["file"] for row in rows_of(data)) == kept
    assert [*data.rglob("*.part")] == []
    report = client.download(data, label="x", progress=False)
    assert len(report.present) == len(kept) and len(report.fetched) == 260 - len(kept)
    assert len(server.paths("/images/ISIC")) == len(set(server.paths("/images/ISIC"))) == 260


def test_a_listing_that_fails_halfway_keeps_what_came(server, client, tmp_path):
    server.faults = {"/api/v2/images/search/": [None, None, *[500] * 6]}
    with pytest.raises(ArchiveError, match=r"too many 500.*same call again"):
        client.download(tmp_path / "data", label="x", progress=False)
    came = files_below(tmp_path / "data" / "x")
    assert 100 - 2 * 8 <= len(came) <= 100 and [f"x/{name}" for name in came] == sorted(
        row["file"] for row in rows_of(tmp_path / "data")
    )


def test_a_dead_network_and_a_full_disk_say_so(server, client, tmp_path, monkeypatch):
    with pytest.raises(ArchiveError, match="Check the network"):
        IsicArchive("http://127.0.0.1:9").count()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archive.os, "fsync", full)
    report = client.download(tmp_path / "data", limit=3, progress=False)
    assert len(report.failed) == 3 and all("No space left" in reason for _, reason in report.failed)
    assert [name for name in files_below(tmp_path / "data") if "ISIC_" in name] == []


def test_the_report_reads_well_and_carries_no_markup_of_others(tmp_path):
    report = archive.DownloadReport(tmp_path, failed=[("<b>", "<script>")], seconds=2)
    assert str(report).startswith("fetched 0, present 0, failed 1, skipped 0 in 2.0 s")
    assert "<script>" not in report._repr_html_() and "&lt;script&gt;" in report._repr_html_()


# sources, names, the sample


def test_sources_are_words_or_addresses():
    assert IsicArchive("isic").url == IsicArchive("https://api.isic-archive.com").url == archive.ISIC
    assert IsicArchive("http://localhost:8000/a/api/v2/").url == "http://localhost:8000/a/api/v2/"
    names = [IsicArchive(source).name for source in ("isic", archive.ISIC, "http://localhost:8000/a")]
    assert names == ["isic", "isic", "localhost_8000_a"]
    for source in ("foo", "/tmp", "outputs/data", "ftp://host/", "http://", "https://me:secret@host", None):
        with pytest.raises(ValueError, match=r"'isic', 'sample' or the http.*from_folder"):
            IsicArchive(source)


@given(st.text(max_size=80) | st.text(alphabet="./\\: ~a", max_size=20))
def test_any_text_makes_a_safe_folder_name_or_none(text):
    name = archive._folder_name(text)
    if name is not None:
        assert name == name.strip(" .") != "" and not set(name) & set('/\\:*?"<>|\0\n')
        assert len(name.encode()) < 200 and archive._folder_name(name) == name


@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from([*'-:*"[]{}()', "AND ", "OR ", "sex", "age_approx", "20"])).map("".join)
)
def test_any_query_is_understood_or_a_value_error(text):
    try:
        accept = parse_query(text)
    except ValueError:
        return
    assert accept({"sex": "male", "age_approx": 20}) in (True, False)


@pytest.mark.parametrize(
    "query, matches",
    [
        ("", "abc"),
        ("sex:male", "a"),
        ("sex:Male", ""),
        ("-sex:male", "bc"),
        ("sex:*", "ab"),
        ("-sex:*", "c"),
        ("diagnosis_3:Mel*", "ac"),
        ('diagnosis_3:"*in situ"', "c"),
        ('diagnosis_3:"Melanoma in situ"', "c"),
        ("age_approx:[20 TO 40]", "ab"),
        ("age_approx:{20 TO 40]", "b"),
        ("age_approx:[20 TO 40}", "a"),
        ("age_approx:[* TO 20]", "a"),
        ("age_approx:40", "b"),
        ("mel_thick_mm:[0.5 TO 1.0]", "b"),
        ("mel_thick_mm:0.80", "b"),
        ("melanocytic:true", "a"),
        ("sex:male OR sex:female AND age_approx:20", "a"),
        ("age_approx:20 AND sex:female OR sex:male", "a"),
        ("sex:female age_approx:40", "b"),
    ],
)
def test_the_sample_understands_the_archives_query_language(query, matches):
    pictures = {
        "a": {"sex": "male", "age_approx": 20, "diagnosis_3": "Melanoma", "melanocytic": True},
        "b": {"sex": "female", "age_approx": 40, "diagnosis_3": "Nevus", "mel_thick_mm": "0.80"},
        "c": {"diagnosis_3": "Melanoma in situ", "melanocytic": False},
    }
    assert "".join(name for name, fields in pictures.items() if parse_query(query)(fields)) == matches


@pytest.mark.parametrize(
    "query",
    [
        *(
            "sex",
            "sex:a b",
            "NOT sex:male",
            "sex:male and sex:male",
            "sex:male AND",
            "OR sex:male",
            "(sex:male)",
        ),
        *("diagnosis_3:Melanoma in situ", "sex:'male'", "age_approx:old", 'age_approx:"20"', "sex:[a TO b]"),
        *("melanocytic:True", "anatom_site_general:x", "sex:male AND OR sex:male", "age_approx:[20 to 40]"),
    ],
)
def test_the_sample_refuses_what_the_archive_refuses(query):
    with pytest.raises(ValueError):
        parse_query(query)


def test_the_sample_answers_in_the_shapes_of_the_api(pictures):
    def get(path):
        status, _, body = archive_of_pictures.answer(f"https://host{path}")
        return status, json.loads(body)

    archive_of_pictures = SampleArchive(pictures)
    status, page = get("/api/v2/images/?limit=1000")
    assert (status, page["count"], len(page["results"]), page["previous"]) == (200, 260, 100, None)
    record = page["results"][1]
    assert record["files"]["full"]["url"] == f"https://host/images/{record['isic_id']}.jpg"
    assert record["metadata"]["acquisition"] == {
        "image_type": "clinical: close-up",
        "pixels_x": 8,
        "pixels_y": 8,
    }
    assert record["metadata"]["clinical"]["mel_thick_mm"] == "0.01"
    assert record["metadata"]["clinical"]["melanocytic"] is False
    second = get(page["next"].removeprefix("https://host"))[1]
    assert second["count"] is None and second["results"][0]["isic_id"] not in str(page["results"])
    assert get(f"/api/v2/images/{record['isic_id']}/") == (200, record)
    assert get("/api/v2/images/ISIC_0000000/") == (404, {"detail": "Not Found"})
    assert get("/images/../metadata.csv")[0] == get("/api/v2/images/count/")[0] == 404
    assert (
        get("/api/v2/images/search/?query=a:b")[0] == 400
        and "message" in get("/api/v2/images/search/?query=a:b")[1]
    )
    assert get("/api/v2/images/?limit=x")[0] == get("/api/v2/images/?cursor=x")[0] == 422
    status, headers, body = archive_of_pictures.answer(record["files"]["thumbnail_256"]["url"])
    assert (status, headers["Content-Type"]) == (200, "image/jpeg") and max(
        Image.open(io.BytesIO(body)).size
    ) <= 256


def test_the_bundled_sample_downloads_without_a_network(tmp_path, monkeypatch):
    if not (PROJECT_ROOT / "sample_data" / "metadata.csv").exists():
        pytest.skip("the bundled sample is not there")
    monkeypatch.setattr("socket.socket.connect", None)
    sample = IsicArchive("sample")
    for label, query in {"benign": "diagnosis_1:Benign", "malignant": "diagnosis_1:Malignant"}.items():
        report = sample.download(tmp_path / "data", query=query, limit=15, label=label, progress=False)
        assert len(report.fetched) == 15 and not report.failed
    dataset = ImageDataset.from_folder(tmp_path / "data")
    assert len(dataset) == 30 and dataset.table["lesion_id"].notna().all()
    assert dataset.table["attribution"].str.contains("ynthetic").all()


def test_the_sample_outside_the_repository_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "PROJECT_ROOT", tmp_path)
    with pytest.raises(FileNotFoundError, match="part of the repository"):
        IsicArchive("sample")
