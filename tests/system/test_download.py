import csv
import io
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from conftest import POSIX
from double import Double
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from isicvision import PROJECT_ROOT, ImageDataset, IsicArchive
from isicvision.archive import download, journal, transfer
from isicvision.archive.client import ArchiveError
from isicvision.archive.download import DownloadReport
from isicvision.archive.labels import choose, flatten, labeler
from isicvision.files import folder_name
from isicvision.images import frame


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF", 0.02)


def within(double, *seconds):
    """Return a client that waits so long for the connection, the next bytes and a whole answer."""
    archive = IsicArchive(double.url)
    archive.session.timeout = seconds
    return archive


@pytest.fixture
def client(double):
    return within(double, 2, 5, 20)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"


@pytest.fixture(scope="module")
def ids(archive_folder):
    return [row["isic_id"] for row in rows_of(archive_folder)]


def rows_of(folder):
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def images_below(folder):
    return [name for name in files_below(folder) if "/" in name and not name.startswith(".")]


def fault(isic_id, kind, **options):
    return {"path": f"/images/{isic_id}.jpg", "kind": kind, **options}


def same_as_source(paths, archive_folder):
    return all(path.read_bytes() == (archive_folder / "images" / path.name).read_bytes() for path in paths)


# what lies where


def test_images_lie_in_a_folder_per_label_and_a_second_call_fetches_nothing(
    double, client, data, archive_folder
):
    report = client.download(data, progress=False)
    assert (len(report.fetched), report.present, report.failed, report.skipped) == (260, [], [], [])
    assert same_as_source(report.fetched, archive_folder) and report.notes == []
    assert len(files_below(data / "benign")) == len(files_below(data / "malignant")) == 130
    beside = {"metadata.csv", "attribution.txt", "licenses.txt", "journal.sqlite"}
    assert {path.name for path in data.iterdir()} == {"benign", "malignant"} | beside
    double.set(clear=True)
    report = client.download(data, progress=False)
    assert (len(report.fetched), len(report.present)) == (0, 260) and double.log(port="files") == []
    assert ImageDataset.from_folder(data).table["lesion_id"].notna().all()


def test_metadata_and_credits_add_up_over_calls(client, data):
    client.download(data, query="diagnosis_1:Malignant", limit=20, label="malignant", progress=False)
    client.download(data, query="diagnosis_1:Benign", limit=31, label="benign", progress=False)
    rows = rows_of(data)
    assert [row["isic_id"] for row in rows] == sorted(row["isic_id"] for row in rows)
    assert sorted(row["file"] for row in rows) == images_below(data)
    assert {(row["label"], row["diagnosis_1"]) for row in rows} == {
        ("malignant", "Malignant"),
        ("benign", "Benign"),
    }
    assert [*rows[0]][:5] == ["isic_id", "label", "file", "attribution", "copyright_license"]
    credit = (data / "attribution.txt").read_text(encoding="utf-8")
    assert (
        credit.startswith(f"Images of {client.url}, full size\n")
        and "Synthetic Clinic Ä (CC-0): 18 images\n" in credit
    )
    licenses = (data / "licenses.txt").read_text(encoding="utf-8").splitlines()
    assert licenses[0] == "CC-0: https://creativecommons.org/publicdomain/zero/1.0/" and len(licenses) == 3


def test_the_metadata_is_kept_up_to_date_while_images_come(double, client, data, ids, monkeypatch):
    monkeypatch.setattr(download, "FLUSH_SECONDS", 0.05)
    double.set(faults=[fault(ids[150], "stall", seconds=3, times=1)])
    done = threading.Event()
    runner = threading.Thread(target=lambda: (client.download(data, limit=151, progress=False), done.set()))
    runner.start()
    seen = []
    while not done.is_set():
        time.sleep(0.1)
        if (data / "metadata.csv").exists():
            rows = rows_of(data)
            assert all((data / row["file"]).is_file() for row in rows)
            seen.append(len(rows))
    runner.join()
    assert 150 in seen and len(rows_of(data)) == 151


@pytest.mark.parametrize(
    "label, folders",
    [
        ("sex", {"female", "male"}),
        ("My Label", {"My Label"}),
        ({"Benign": "A/B"}, {"A_B"}),
        (
            lambda record: {"female": "metadata.csv"}.get(record["metadata"]["clinical"]["sex"]),
            {"metadata.csv_"},
        ),
    ],
)
def test_the_label_is_a_field_a_word_a_mapping_or_a_function(client, data, label, folders):
    where = {"label_field": label} if label == "sex" else {"label": label}
    report = client.download(data, limit=8, **where, progress=False)
    assert {path.parent.name for path in report.fetched} == folders
    assert len(report.skipped) == 8 - len(report.fetched) == (0 if isinstance(label, str) else 4)
    assert len(rows_of(data)) == len(report.fetched)
    if report.skipped:
        assert (data / "missing.csv").read_text(encoding="utf-8").count("skipped,no usable label") == 4


def test_a_mapping_prefers_the_image_then_the_finest_diagnosis():
    record = {"isic_id": "a", "metadata": {"clinical": {"diagnosis_1": "Benign", "diagnosis_3": "Nevus"}}}
    assert labeler(label={"Benign": "x", "Nevus": "y"})(record) == "y"
    assert labeler(label={"Benign": "x", "a": "z"})(record) == "z"
    assert labeler(label={"Nevi": "y"})(record) is None
    for label in ("", "..", "a/b", ".x", 5, "x" * 300):
        with pytest.raises(ValueError, match="label is a word"):
            labeler(label=label)


def test_a_corrected_label_moves_the_image_instead_of_fetching_it_again(double, client, data, ids):
    client.download(data, limit=6, progress=False)
    double.set(
        clear=True, records=[{"isic_id": ids[0], "set": {"metadata.clinical.diagnosis_1": "Malignant"}}]
    )
    report = client.download(data, limit=6, progress=False)
    assert len(report.present) == 6 and double.log(port="files") == []
    assert (data / "malignant" / f"{ids[0]}.jpg").is_file() and len(images_below(data)) == 6
    (row,) = [row for row in rows_of(data) if row["isic_id"] == ids[0]]
    assert (row["label"], row["diagnosis_1"], row["file"]) == (
        "malignant",
        "Malignant",
        f"malignant/{ids[0]}.jpg",
    )


# fewer, smaller


def test_per_label_takes_as_many_of_each_and_says_where_there_are_fewer(double, client, data):
    report = client.download(data, per_label={"benign": 20, "malignant": 10}, progress=False)
    assert (len(files_below(data / "benign")), len(files_below(data / "malignant"))) == (20, 10)
    assert sum("cursor" in path for path in double.paths("/search/?")) == 0 and report.notes == []
    report = client.download(data, per_label={"benign": 20, "malignant": 400}, progress=False)
    assert (len(report.fetched), len(report.present)) == (120, 30) and report.notes == [
        "malignant: 130 of the 400 wanted"
    ]


def test_a_seeded_sample_is_random_and_stays_the_same(double, client, tmp_path, ids):
    def names(folder, seed, **what):
        return {
            path.stem
            for path in client.download(tmp_path / folder, seed=seed, progress=False, **what).fetched
        }

    first = names("a", 1, limit=40)
    assert first == names("b", 1, limit=40) and first != names("c", 2, limit=40) != {*ids[:40]}
    assert 40 < np.mean([ids.index(name) for name in first]) < 220
    wanted = {"malignant": 5, "benign": 7}
    for status in ("fetched", "present"):
        report = client.download(tmp_path / "d", seed=1, per_label=wanted, progress=False)
        assert len(getattr(report, status)) == 12


@given(
    st.lists(st.sampled_from("abc"), max_size=60),
    st.integers(0, 5),
    st.integers(0, 9),
    st.none() | st.integers(0, 9),
)
@settings(max_examples=80, deadline=None)
def test_any_choice_takes_what_there_is_up_to_what_is_wanted(labels, a, b, seed):
    records = [{"isic_id": str(n), "label": label} for n, label in enumerate(labels)]
    chosen = [*choose(records, lambda record: record["label"], None, {"a": a, "b": b}, seed)]
    assert len({record["isic_id"] for record in chosen}) == len(chosen)
    counts = [sum(record["label"] == label for record in chosen) for label in "abc"]
    wanted_b = labels.count("b") if b is None else b
    assert counts == [min(a, labels.count("a")), min(wanted_b, labels.count("b")), 0]


def test_large_images_are_stored_reduced_and_remember_their_size(double, client, data, tmp_path):
    report = client.download(data, limit=10, max_side=40, progress=False)
    sizes = [Image.open(path).size for path in report.fetched]
    assert max(max(size) for size in sizes) == 40
    for row in rows_of(data):
        if row["original_width"]:
            assert int(row["original_width"]) == int(row["pixels_x"]) > 40
    assert "at most 40 pixels a side" in (data / "attribution.txt").read_text(encoding="utf-8")
    double.set(clear=True)
    assert len(client.download(data, limit=10, max_side=40, progress=False).present) == 10
    assert double.log(port="files") == []
    with pytest.raises(ValueError, match=r"at most 40 pixels.*full size.*choose another folder"):
        client.download(data, limit=10, progress=False)
    report = client.download(tmp_path / "small", limit=3, thumbnails=True, progress=False)
    assert len(report.fetched) == 3 and all(
        "thumbnail" in path for path in [e["path"] for e in double.log(port="files")]
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"limit": 5, "per_label": {"a": 1}}, "one of the two"),
        ({"seed": 1}, "say how many"),
        ({"max_side": 100, "thumbnails": True}, "not both"),
        ({"connections": 0}, "connections must be"),
        ({"max_side": 0.5}, "max_side must be"),
        ({"per_label": {"a": -1}}, "a must be"),
        ({"limit": -1}, "limit is a whole number from 0"),
        ({"label_field": "diagnosis1"}, "no field 'diagnosis1'; did you mean diagnosis_1?"),
        ({"label_field": ""}, "no field ''"),
        ({"label": "diagnosis_1"}, "write label_field='diagnosis_1'"),
        ({"label": "x", "label_field": "sex"}, "not both"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_is_asked(
    double, client, data, arguments, message
):
    with pytest.raises(ValueError, match=message):
        client.download(data, **arguments)
    assert double.log() == [] and not data.exists()


# faults of the hosts


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503, "retry_after_date": 1},
        {"kind": "reset"},
        {"kind": "cut"},
        {"kind": "cut", "reset": True},
        {"kind": "cut_chunked"},
        {"kind": "early_close"},
        {"kind": "html"},
        {"kind": "wrong_bytes"},
        {"kind": "range_416", "then": "cut"},
        {"kind": "wrong_206", "then": "cut"},
        {"kind": "wrong_206", "lie": True, "start": 5, "then": "cut"},
        {"kind": "no_range", "then": "cut"},
        {"kind": "etag_changes", "then": "cut"},
    ],
    ids=str,
)
def test_an_image_that_goes_wrong_at_first_comes_whole(double, client, data, ids, archive_folder, rule):
    rule = {**rule}
    first = rule.pop("then", None)
    times = 3 if first else 2
    rules = [fault(ids[1], **rule, times=times)]
    rules += [fault(ids[1], first, times=1)] if first else []
    double.set(faults=rules)
    report = client.download(data, limit=3, label="x", progress=False)
    assert len(report.fetched) == 3 and not report.failed
    if rule["kind"] != "etag_changes":
        assert same_as_source(report.fetched, archive_folder)
    assert [*data.rglob(".*")] == []


def test_a_body_cut_short_is_gone_on_with_where_it_ended(double, client, data, ids, archive_folder):
    double.set(faults=[fault(ids[1], "cut", fraction=0.4, times=2)])
    report = client.download(data, limit=2, label="x", progress=False)
    tries = [entry for entry in double.log(f"/images/{ids[1]}") if entry["port"] == "files"]
    size = (archive_folder / "images" / f"{ids[1]}.jpg").stat().st_size
    assert len(report.fetched) == 2 and same_as_source(report.fetched, archive_folder)
    assert [entry["status"] for entry in tries] == [200, 206, 206]
    assert tries[1]["headers"]["range"] == f"bytes={int(size * 0.4)}-" and tries[1]["headers"][
        "if-range"
    ].startswith('"')
    assert sum(entry["bytes"] for entry in tries) == size


def test_an_image_that_changed_meanwhile_is_not_pieced_together(double, client, data, ids):
    double.set(faults=[fault(ids[0], "etag_changes"), fault(ids[0], "cut", times=1)])
    report = client.download(data, limit=1, label="x", progress=False)
    statuses = [entry["status"] for entry in double.log(f"/images/{ids[0]}") if entry["port"] == "files"]
    assert statuses == [200, 200] and len(report.fetched) == 1
    assert frame(report.fetched[0], 16)


def test_what_a_server_asks_for_is_waited_for_while_others_come(double, client, data, ids):
    double.set(faults=[fault(ids[0], "status", status=429, retry_after=1, times=1)])
    report = client.download(data, limit=30, label="x", connections=1, progress=False)
    assert len(report.fetched) == 30
    first, second = [entry["time"] for entry in double.log(f"/images/{ids[0]}") if entry["port"] == "files"]
    assert 1 <= second - first < 3
    assert [entry["path"] for entry in double.log(port="files")][-1] == f"/images/{ids[0]}.jpg"


def test_many_images_that_wait_for_their_next_attempt_do_not_hold_up_the_others(double, client, data, ids):
    double.set(faults=[fault(isic_id, "status", status=429, retry_after=2, times=1) for isic_id in ids[:100]])
    started = time.monotonic()
    report = client.download(data, limit=150, label="x", connections=2, progress=False)
    assert len(report.fetched) == 150 and time.monotonic() - started < 8
    assert double.state()["peak_files"] <= 2


def test_silence_and_trickles_are_given_up_and_asked_again(double, data, ids, monkeypatch):
    monkeypatch.setattr(transfer, "PATIENCE", 0.2)
    rules = [fault(ids[0], "stall", times=1), fault(ids[1], "stall_body", times=1)]
    rules.append(fault(ids[2], "trickle", bytes_per_second=300, times=1))
    double.set(faults=rules)
    started = time.monotonic()
    report = within(double, 1, 1, 1).download(data, limit=4, label="x", progress=False)
    assert len(report.fetched) == 4 and time.monotonic() - started < 5
    assert [entry["status"] for entry in double.log(f"/images/{ids[2]}", port="files")] == [200, 206]


def test_what_cannot_be_had_is_listed_with_its_reason_and_tried_again_by_the_next_call(
    double, client, data, ids
):
    rules = [
        fault(ids[0], "status", status=404),
        fault(ids[1], "status", status=500),
        fault(ids[2], "html"),
        fault(ids[3], "wrong_bytes"),
        fault(ids[4], "gzip_bomb"),
        fault(ids[5], "status", status=429, retry_after=3600),
    ]
    double.set(faults=rules)
    report = client.download(data, limit=8, progress=False)
    reasons = dict(report.failed)
    words = [
        "404 Not Found",
        "500 Internal",
        "(text/html",
        "is not a sound image: it is not an image",
        "compressed",
        "wait 3600 s",
    ]
    for isic_id, word in zip(ids, words, strict=False):
        assert word in reasons[isic_id]
    assert len(report.fetched) == 2 and len(rows_of(data)) == len(images_below(data)) == 2
    assert "failed 6" in str(report) and "1 more failed" in str(report)
    tries = [len(double.log(f"/images/{isic_id}", port="files")) for isic_id in ids[:6]]
    assert tries == [1, transfer.ATTEMPTS, transfer.ATTEMPTS, transfer.ATTEMPTS, 1, 1]
    with open(data / "missing.csv", encoding="utf-8") as file:
        assert {row["isic_id"]: row["reason"] for row in csv.DictReader(file)} == reasons
    double.set(faults=[], clear=True)
    again = client.download(data, limit=8, progress=False)
    assert (len(again.fetched), len(again.present), again.failed) == (6, 2, [])
    assert len(rows_of(data)) == 8 and not (data / "missing.csv").exists()


def test_an_expired_address_is_read_again_from_the_record(double, client, data, ids):
    double.set(signed=True, listing_expired=True)
    report = client.download(data, limit=5, progress=False)
    assert len(report.fetched) == 5 and len(double.log("/api/v2/images/ISIC")) == 5
    double.set(signed=False, clear=True, faults=[fault(ids[7], "status", status=403)])
    report = client.download(data, limit=8, progress=False)
    assert len(report.fetched) == 2 and "403" in dict(report.failed)[ids[7]]
    assert len(double.log(f"/images/{ids[7]}.jpg")) == 1


def test_a_host_that_refuses_everything_stops_the_download_instead_of_failing_all(
    double, client, data, monkeypatch
):
    monkeypatch.setattr(download, "HOPELESS", 10)
    double.set(faults=[{"path": r"/images/.*jpg$", "kind": "status", "status": 503, "skip": 0}])
    with pytest.raises(ArchiveError, match=r"\d+ images in a row were refused.*503") as caught:
        client.download(data, connections=2, progress=False)
    assert 10 <= len(caught.value.report.failed) < 100 and "same call resumes" in str(caught.value)
    double.set(faults=[])
    assert len(client.download(data, progress=False).fetched) == 260


def test_a_listing_that_fails_halfway_keeps_and_reports_what_came(double, client, data):
    double.set(faults=[{"path": "/search/.*cursor", "kind": "status", "status": 500}])
    with pytest.raises(ArchiveError, match=r"500.*\n.*same call resumes") as caught:
        client.download(data, label="x", progress=False)
    assert len(caught.value.report.fetched) == 100 == len(images_below(data)) == len(rows_of(data))


def test_a_listing_with_repetitions_and_a_wrong_count_is_downloaded_whole(double, client, data):
    rules = [{"kind": "duplicates", "number": 5}, {"kind": "wrong_count", "count": 300}]
    double.set(faults=[{"path": "/search/", **rule} for rule in rules])
    assert len(client.download(data, progress=False).fetched) == 260


def test_connections_are_bounded_and_pages_asked_for_no_faster_than_images_come(double, client, data):
    double.set(latency=0.01)
    client.download(data, label="x", connections=3, progress=False)
    assert double.state()["peak_files"] == 3
    paths = double.paths()
    third_page = [n for n, path in enumerate(paths) if "/search/?" in path][-1]
    assert sum(path.startswith("/images/ISIC") for path in paths[:third_page]) >= 180


# hostile records


def hostile(**changes):
    record = {
        "isic_id": "ISIC_0000001",
        "files": {"full": {"url": "{files}/images/x.jpg", "size": 9}},
        "metadata": {"clinical": {"diagnosis_1": "Benign"}},
    }
    return {"append": {**record, **changes}}


def test_no_hostile_record_writes_outside_the_folder_and_each_is_in_the_report(double, client, tmp_path, ids):
    def at(url):
        return {"full": {"url": url, "size": 1}}

    names = [
        "../../evil",
        "/evil",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "",
        "a\0b",
        "x" * 2**20,
        "ISIC_1\n",
        "\ud800",
        5,
        None,
    ]
    urls = [
        "file:///etc/hostname.jpg",
        "http://169.254.169.254/latest/meta-data/a.jpg",
        "{files}/images/x.exe",
    ]
    urls += ["", 7, "http://[/a.jpg", "http://a..b/a.jpg", "{files}/../../x.jpg"]
    records = [hostile(isic_id=name) for name in names]
    records += [hostile(isic_id=f"ISIC_000010{n}", files=at(url)) for n, url in enumerate(urls)]
    records += [
        hostile(isic_id="ISIC_0000201", files=None),
        {"append": [1, 2]},
        {"append": {}},
        {"append": "text"},
    ]
    evil_label = {
        "clinical": {"diagnosis_1": "../../evil", "=cmd()": "x", "age_approx": {"a": [1]}, "sex": "\ud800\0"}
    }
    records += [
        hostile(isic_id="ISIC_0000301", metadata=evil_label, files=at(f"{{files}}/images/{ids[0]}.jpg"))
    ]
    records += [hostile(isic_id="ISIC_0000302", metadata=[1], files=at(f"{{files}}/images/{ids[1]}.jpg"))]
    records += [hostile(isic_id="ISIC_0000303", files=at(f"{{files}}/images/{ids[2]}.jpg"))]
    double.set(records=records, faults=[fault(ids[2], "gzip_bomb")])
    folder = tmp_path / "a" / "b" / "data"
    report = client.download(folder, query="isic_id:ISIC_none", progress=False)
    assert len(report.failed) == len(names) + len(urls) + 4 + 1 and len(report.skipped) == 1
    assert [path.parent.name for path in report.fetched] == ["_.._evil"]
    assert all(name.startswith("a/b/data/") for name in files_below(tmp_path))
    assert len(rows_of(folder)) == 1 and rows_of(folder)[0]["age_approx"] == '{"a": [1]}'
    assert max(len(isic_id) for isic_id, _ in report.failed) <= 80
    str(report), report.table


def test_a_header_of_ten_gigapixels_is_refused_before_it_is_decoded(tmp_path):
    bomb = io.BytesIO()
    Image.new("L", (8, 8)).save(bomb, "PNG")
    header = bomb.getvalue()[12:29].replace((8).to_bytes(4, "big"), (100_000).to_bytes(4, "big"))
    source = tmp_path / "source"
    (source / "images").mkdir(parents=True)
    checked = header + zlib.crc32(header).to_bytes(4, "big")
    (source / "images" / "ISIC_0000001.png").write_bytes(
        bomb.getvalue()[:12] + checked + bomb.getvalue()[33:]
    )
    (source / "metadata.csv").write_text("isic_id,diagnosis_1\nISIC_0000001,Benign\n", encoding="utf-8")
    with Double(source) as double:
        report = IsicArchive(double.url).download(tmp_path / "data", progress=False)
    assert report.fetched == [] and "more than 120,000,000 pixels" in report.failed[0][1]


@given(st.text(max_size=80) | st.text(alphabet="./\\: ~a", max_size=20))
def test_any_text_makes_a_safe_folder_name_or_none(text):
    name = folder_name(text)
    if name is not None:
        assert name == name.strip(" .") != "" and not set(name) & set('/\\:*?"<>|\0\n')
        assert len(name.encode()) < 200 and folder_name(name) in (name, f"{name}_")


def test_labels_fit_the_folders_of_windows(client, data):
    names = ["con", "Aux", "com1", "metadata.csv", "conus", "nul_"]
    assert [*map(folder_name, names)] == ["con_", "Aux_", "com1_", "metadata.csv_", "conus", "nul_"]
    with pytest.raises(ValueError, match=r"differ only in case share a folder on Windows: \['A b', 'a b'\]"):
        client.download(data, label={"Benign": "a b", "Malignant": "A b"}, progress=False)
    assert not data.exists()


def _json_values(inner):
    names = st.sampled_from(["metadata", "clinical", "acquisition", "isic_id", "../x", "sex"])
    return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4)


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=6), _json_values, max_leaves=10)
)
def test_any_json_makes_a_flat_row_that_a_table_can_hold(record):
    row = flatten(record if isinstance(record, dict) else {"metadata": record})
    for name, value in row.items():
        assert name.isidentifier() or name[0].isdigit()
        assert isinstance(value, int | float) or value.encode("utf-8") is not None


# stops


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored in what a shell runs in the background
from isicvision import IsicArchive
print(IsicArchive(sys.argv[1]).download(sys.argv[2], connections=4, progress=False))
"""


def start(double, data):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, double.url, str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)


def test_a_killed_download_goes_on_and_fetches_nothing_whole_twice(double, client, data, ids, archive_folder):
    double.set(latency=0.02, faults=[fault(ids[100], "stall_body", fraction=0.5, times=1)])
    process = start(double, data)
    wait_for(lambda: len(double.log(port="files")) > 120)
    process.kill()
    process.communicate()
    there = set(images_below(data))
    assert 100 < len(there) < 200
    double.set(clear=True)
    report = client.download(data, progress=False)
    assert (
        len(report.fetched) + len(report.present) == 260 and not report.failed and len(report.present) >= 110
    )
    assert same_as_source(report.fetched + report.present, archive_folder)
    asked = double.log(port="files")
    assert len(asked) == 260 - len(there) and not {e["path"][8:] for e in asked} & {
        name[-16:] for name in there
    }
    assert sorted(row["file"] for row in rows_of(data)) == images_below(data) and [*data.rglob(".*")] == []


@POSIX
def test_ctrl_c_ends_within_seconds_though_servers_say_nothing_and_tells_how_to_go_on(
    double, client, data, ids
):
    double.set(faults=[{"path": f"/images/{isic_id}.jpg", "kind": "stall"} for isic_id in ids[20:]])
    process = start(double, data)
    wait_for(lambda: len(double.log(port="files")) >= 24)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=20)
    assert time.monotonic() - started < 10 and process.returncode != 0
    assert "same call resumes" in out and "KeyboardInterrupt" in errors
    assert sorted(row["file"] for row in rows_of(data)) == images_below(data) and len(rows_of(data)) >= 12
    double.set(faults=[])
    report = client.download(data, progress=False)
    assert len(report.present) >= 12 and len(report.present) + len(report.fetched) == 260


def test_two_downloads_into_one_folder_do_not_mix(double, client, data):
    other = journal.Journal(data, client.url, "full size")
    with pytest.raises(ValueError, match=r"another download is writing to .*data"):
        client.download(data, limit=1, progress=False)
    other.close()
    assert len(client.download(data, limit=1, progress=False).fetched) == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB, where this may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(place)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no small file system: mounting needs root")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_midway_stops_and_the_same_call_goes_on_when_there_is_room(
    double, client, small_disk, archive_folder, monkeypatch
):
    monkeypatch.setattr(IsicArchive, "_require_room", lambda *_: None)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(7_700_000))
    with pytest.raises(ArchiveError, match=r"disk of .* is full.*make room"):
        client.download(small_disk / "data", progress=False)
    filler.unlink()
    again = client.download(small_disk / "data", progress=False)
    assert len(again.fetched) + len(again.present) == 260 and len(again.present) > 0
    assert same_as_source(again.fetched + again.present, archive_folder)
    assert sorted(row["file"] for row in rows_of(small_disk / "data")) == images_below(small_disk / "data")


def test_what_cannot_fit_is_refused_before_it_is_fetched(double, client, data):
    double.set(faults=[{"path": "/search/size/", "kind": "status", "status": 200, "body": '{"size": 1e18}'}])
    with pytest.raises(ArchiveError, match=r"about 1,000,000,000,000 MB are to come.*max_side"):
        client.download(data, progress=False)
    assert double.log(port="files") == []
    assert len(client.download(data.with_name("reduced"), limit=3, max_side=64, progress=False).fetched) == 3


# the folder


def test_an_image_that_was_damaged_or_lost_on_the_disk_is_fetched_again(
    double, client, data, ids, archive_folder
):
    client.download(data, limit=6, label="x", progress=False)
    (data / "x" / f"{ids[0]}.jpg").unlink()
    (data / "x" / f"{ids[1]}.jpg").write_bytes(b"")
    (data / "x" / f"{ids[2]}.jpg").write_bytes(b"short")
    report = client.download(data, limit=6, label="x", progress=False)
    assert {path.stem for path in report.fetched} == {*ids[:3]} and len(report.present) == 3
    assert same_as_source(report.fetched + report.present, archive_folder) and len(rows_of(data)) == 6


@pytest.mark.parametrize("damage", ["lost", "damaged"])
def test_a_folder_whose_journal_is_lost_or_damaged_is_refused_and_left_alone(client, data, damage):
    client.download(data, limit=3, progress=False)
    if damage == "lost":
        (data / "journal.sqlite").unlink()
    else:
        (data / "journal.sqlite").write_bytes(b"no database " * 1000)
    before = files_below(data)
    with pytest.raises(ValueError, match=r"other files|journal\.sqlite cannot be used \(file is not a"):
        client.download(data, limit=4, progress=False)
    assert files_below(data) == before


def test_a_folder_of_something_else_is_refused_and_left_alone(client, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "metadata.csv").write_text("my own", encoding="utf-8")
    other = tmp_path / "other"
    journal.Journal(other, "http://other.invalid/api/v2/", "full size").close()
    for folder, owner in ((other, "other.invalid"), (mine, "other files")):
        before = files_below(folder)
        with pytest.raises(ValueError, match=rf"{owner}.*choose another folder"):
            client.download(folder, limit=5)
        assert files_below(folder) == before
    assert (mine / "metadata.csv").read_text(encoding="utf-8") == "my own"


def test_the_journal_keeps_what_it_was_told_and_forgets_nothing_on_an_error(tmp_path):
    book = journal.Journal(tmp_path / "data", "http://a/", "full size")
    book.put("A", "done", "x/A.jpg", 5, {"isic_id": "A", "label": "x", "odd": "\ud800"})
    book.put("B", "failed", reason="because")
    book.flush()
    assert (
        book.get("A")[:3] == ("done", "x/A.jpg", 5) and book.get("B")[0] == "failed" and book.get("C") is None
    )
    book.put("C", "done", "x/C.jpg", 5, {"isic_id": "C", "later": 1})
    book._db.execute(
        "CREATE TRIGGER no BEFORE INSERT ON images BEGIN SELECT RAISE(ABORT, 'disk I/O error'); END"
    )
    with pytest.raises(sqlite3.Error):
        book.flush()
    book._db.execute("DROP TRIGGER no")
    assert len(book) == 1 and book.close() is None
    assert [(row["isic_id"], row["later"]) for row in rows_of(tmp_path / "data")] == [("A", ""), ("C", "1")]


def test_the_report_reads_well(tmp_path):
    report = DownloadReport(tmp_path, failed=[("<b>", "<script>")], seconds=2)
    assert str(report).startswith("fetched 0, present 0, failed 1, skipped 0 in 2.0 s")
    assert str(report) == repr(report)  # at the end of a notebook's cell, too
    assert report.table.to_dict("records") == [
        {"isic_id": "<b>", "status": "failed", "reason": "<script>", "path": ""}
    ]


def test_the_bundled_sample_downloads_without_a_network(tmp_path, monkeypatch):
    if not (PROJECT_ROOT / "sample_data" / "metadata.csv").exists():
        pytest.skip("the bundled sample is not there")
    monkeypatch.setattr("socket.socket.connect", None)
    report = IsicArchive("sample").download(
        tmp_path / "data", per_label={"benign": 15, "malignant": 15}, progress=False
    )
    dataset = ImageDataset.from_folder(tmp_path / "data")
    assert len(report.fetched) == len(dataset) == 30 and dataset.table["lesion_id"].notna().all()
    assert dataset.table["attribution"].str.contains("ynthetic").all()


@pytest.mark.parametrize("number", [float("inf"), float("nan"), -float("inf"), int("9" * 400)], ids=str)
def test_a_number_that_is_not_finite_is_left_empty_and_metadata_is_written(double, client, data, ids, number):
    double.set(records=[{"isic_id": ids[0], "set": {"metadata.clinical.age_approx": number}}])
    report = client.download(data, limit=3, progress=False)
    assert len(report.fetched) == 3 and not report.failed
    rows = {row["isic_id"]: row for row in rows_of(data)}
    assert rows[ids[0]]["age_approx"] == "" and rows[ids[1]]["age_approx"]
    assert len(client.download(data, limit=3, progress=False).present) == 3


def test_a_journal_that_an_earlier_version_wrote_with_1e999_no_longer_keeps_metadata_from_being_written(
    tmp_path,
):
    book = journal.Journal(tmp_path, "http://a", "full size")
    (tmp_path / "x").mkdir()
    for name, age in (("A", float("inf")), ("B", 40)):
        (tmp_path / "x" / f"{name}.jpg").write_bytes(b"abcde")
        book.put(name, "done", f"x/{name}.jpg", 5, {"isic_id": name, "label": "x", "age": age})
    assert book.close() is None
    assert [row["isic_id"] for row in rows_of(tmp_path)] == ["A", "B"]
