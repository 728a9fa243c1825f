import time
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isicvision import IsicArchive
from isicvision.archive import client as archive
from isicvision.archive import transfer
from isicvision.archive.client import ArchiveError

SEARCH = "/images/search/"


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)


@pytest.fixture
def client(double):
    return IsicArchive(double.url)


@pytest.fixture(scope="module")
def ids(archive_folder):
    with open(archive_folder / "metadata.csv", encoding="utf-8") as file:
        return [line.split(",")[0] for line in file][1:]


# what there is


def test_all_pages_are_walked_in_order_and_only_as_far_as_asked(double, client, ids):
    records = client.search()
    assert next(records)["isic_id"] == ids[0] and len(double.log()) == 1
    assert [record["isic_id"] for record in records] == ids[1:] and len(double.log()) == 3
    assert client.count() == 260
    double.set(clear=True)
    assert len([*client.search(limit=101)]) == 101 and len(double.log()) == 2
    assert len([*client.search(limit=7)]) == 7 and "limit=7" in double.paths()[-1]
    assert [*client.search(limit=0)] == []
    with pytest.raises(ValueError, match="-1"):
        client.search(limit=-1)


def test_a_query_arrives_as_it_was_written_on_every_page(double, client):
    query = 'image_type:dermo* AND age_approx:[0 TO *] AND -sex:"a & b + #1 = 100%"'
    assert len([*client.search(query)]) == client.count(query) == 260
    assert [parse_qs(urlsplit(path).query)["query"] for path in double.paths()] == [[query]] * 4


def test_a_refused_query_says_which_and_what_the_archive_said(client, tmp_path):
    asks = (
        client.count,
        client.size,
        client.facets,
        lambda query: client.download(tmp_path / "new", query=query),
    )
    for ask in asks:
        with pytest.raises(ValueError, match=r"'color:red'.*there is no field 'color'"):
            ask("color:red")
    assert not (tmp_path / "new").exists()


def test_facets_of_another_form_are_refused(double, client):
    for body in ('{"sex": null}', '{"sex": {"buckets": [{}]}}', '{"sex": {"buckets": []}}'):
        double.set(faults=[{"path": "/facets/", "kind": "status", "status": 200, "body": body}])
        with pytest.raises(ArchiveError, match="does not count by sex as the API v2 does"):
            client.facets()


def test_counts_sizes_and_facets_agree_before_anything_is_downloaded(client, archive_folder):
    facets = client.facets("sex:female")
    assert facets["diagnosis_1"] == {"Benign": 65, "Malignant": 65} and sum(facets["sex"].values()) == 130
    assert client.size() == sum(file.stat().st_size for file in (archive_folder / "images").iterdir())
    assert client.size("diagnosis_1:Benign") + client.size("diagnosis_1:Malignant") == client.size()


def test_collections_are_listed_and_narrow_what_is_found_by_number_or_name(double, client):
    (collection,) = client.collections()
    for name in (collection["id"], collection["name"], [collection["name"].upper(), str(collection["id"])]):
        assert client.count(collections=name) == 260
    assert len([*client.search("sex:male", collections=[1, collection["name"]])]) == 130
    assert client.size(collections=collection["name"]) == client.size()
    for wrong in ([], 1.5, [1.5], [None]):
        with pytest.raises(ValueError, match="collections must be"):
            client.count(collections=wrong)


def test_a_collection_that_does_not_exist_is_answered_with_the_nearest_name(double, client, tmp_path):
    name = client.collections()[0]["name"]
    for ask in (client.count, client.size, client.facets, client.search):
        with pytest.raises(ValueError, match=f"has no collection '{name}x'; did you mean {name}"):
            ask(collections=f"{name}x")
    with pytest.raises(ValueError, match=r"has no collection 999; collections\(\) lists them"):
        client.download(tmp_path / "new", collections=[1, 999])
    assert not (tmp_path / "new").exists()


# listings that go wrong


def test_a_busy_api_is_asked_again_when_it_says(double, client):
    double.set(faults=[{"path": SEARCH, "kind": "status", "status": 503, "retry_after": "1", "times": 1}])
    started = time.monotonic()
    assert client.count() == 260 and time.monotonic() - started >= 1
    double.set(faults=[{"path": SEARCH, "kind": "status", "status": 429, "retry_after": "3600"}])
    with pytest.raises(ArchiveError, match="asks to wait 3600 s"):
        client.count()


@pytest.mark.parametrize("kind", ["reset", "truncated_json", "cut", "html", "cut_chunked"])
def test_a_listing_broken_once_is_asked_for_again(double, client, ids, kind):
    double.set(faults=[{"path": SEARCH, "kind": kind, "page": 2, "times": 2}])
    assert [record["isic_id"] for record in client.search()] == ids


@pytest.mark.parametrize(
    "rule, message",
    [
        ({"kind": "status", "status": 500}, "500.*Check the network"),
        ({"kind": "same_next"}, "form a circle"),
        ({"kind": "page_one"}, "form a circle"),
        ({"kind": "empty_page"}, "form a circle"),
        ({"kind": "status", "status": 422, "body": "Invalid cursor."}, "Invalid cursor"),
        ({"kind": "next_host", "host": "http://elsewhere.invalid"}, "another host"),
        ({"kind": "nested", "depth": 5000}, "not a JSON object|not JSON|not the ISIC Archive API"),
        ({"kind": "gzip_bomb", "bytes": 2**28}, "more than 67,108,864 bytes"),
    ],
)
def test_a_listing_that_cannot_go_on_is_an_archive_error(double, client, rule, message):
    double.set(faults=[{"path": f"{SEARCH}.*cursor", **rule}])
    with pytest.raises(ArchiveError, match=message):
        [*client.search()]
    assert len(double.log()) < 12


def test_an_image_on_several_pages_comes_once(double, client, ids):
    double.set(faults=[{"path": SEARCH, "kind": "duplicates", "number": 7}])
    assert [record["isic_id"] for record in client.search()] == ids


def _json_values(inner):
    names = st.sampled_from(["results", "next", "count", "isic_id", "x"])
    return st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4)


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=8), _json_values, max_leaves=12)
)
@settings(max_examples=60, deadline=None)
def test_any_json_is_a_listing_or_an_archive_error(page):
    client = IsicArchive("http://127.0.0.1:9")
    client._json = lambda *_: page if isinstance(page, dict) else {"results": page}
    try:
        records = [*client.search(limit=50)]
    except ArchiveError:
        return
    names = [
        record["isic_id"]
        for record in records
        if isinstance(record, dict) and isinstance(record.get("isic_id"), str)
    ]
    assert len(names) == len(set(names))


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=6), min_size=1, max_size=8), st.none() | st.integers(1, 40)
)
@settings(max_examples=100, deadline=None)
def test_however_ids_lie_on_the_pages_each_comes_once_and_no_more_than_asked(pages, limit):
    client = IsicArchive("http://127.0.0.1:9")

    def page(url, *_):
        number = int(url.rpartition("=")[2]) if "page=" in url else 0
        following = f"{client.url}images/search/?page={number + 1}" if number + 1 < len(pages) else None
        return {
            "results": [{"isic_id": f"ISIC_{n:07d}" if n % 2 else f"x{n}"} for n in pages[number]],
            "next": following,
        }

    client._json = page
    expected = [*dict.fromkeys(f"ISIC_{n:07d}" if n % 2 else f"x{n}" for each in pages for n in each)][:limit]
    came = []
    try:
        for record in client.search(limit=limit):
            came.append(record["isic_id"])
    except ArchiveError:  # pages in a row without a new image
        expected = expected[: len(came)]
    assert came == expected


# who asks


def test_the_token_goes_to_the_api_alone(double, tmp_path, monkeypatch):
    monkeypatch.setenv("ISIC_TOKEN", "s3cret")
    me = {"path": "/users/me/", "kind": "status", "status": 200, "body": "{}"}
    double.set(faults=[me])
    client = IsicArchive(double.url)
    report = client.download(tmp_path / "data", limit=5, progress=False)
    assert len(report.fetched) == 5 and double.secrets() == []
    assert all(entry["headers"].get("authorization") == "Bearer s3cret" for entry in double.log(port="api"))
    assert "s3cret" not in repr(client) + str(vars(client))
    double.set(faults=[{"path": SEARCH, "kind": "next_host", "host": double.files_url}, me])
    with pytest.raises(ArchiveError, match="another host"):
        [*client.search()]
    assert double.secrets() == []


def test_a_redirection_to_another_host_takes_no_token_along(double):
    client = IsicArchive(double.url, token="s3cret")
    client._is_known = True
    target = f"{double.files_url}/api/v2/images/search/"
    double.set(faults=[{"path": SEARCH, "kind": "status", "status": 302, "headers": {"Location": target}}])
    with pytest.raises(ArchiveError):
        client.count()
    assert double.log(port="files") and double.secrets() == []


def test_a_refused_token_says_so_instead_of_listing_less(double):
    double.set(faults=[{"path": "/users/me/", "kind": "status", "status": 401}])
    client = IsicArchive(double.url, token="old")
    for ask in (client.count, lambda: next(client.search())):
        with pytest.raises(ArchiveError, match="does not accept the token"):
            ask()
    with pytest.raises(ValueError, match="unencrypted"):
        IsicArchive("http://archive.example.org", token="x")


def test_no_cookie_is_kept_and_the_client_says_who_it_is(double, client):
    cookie = {"Set-Cookie": "who=you"}
    rule = {"kind": "status", "status": 200, "headers": cookie, "body": '{"count": 1}'}
    double.set(faults=[{"path": SEARCH, **rule}])
    assert client.count() == client.count() == 1
    assert all(
        "cookie" not in e["headers"] and "isicvision/" in e["headers"]["user-agent"] for e in double.log()
    )


def test_a_dead_network_says_what_to_check():
    with pytest.raises(ArchiveError, match=r"127\.0\.0\.1.*refused.*Check the network"):
        IsicArchive("http://127.0.0.1:9").count()


@pytest.mark.parametrize(
    "home, url, allowed",
    [
        ("https://api.isic-archive.com/", "https://isic-archive.s3.amazonaws.com/images/a.jpg", True),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8001/images/a.jpg", True),
        ("http://203.0.114.7/", "http://127.0.0.1:8001/images/a.jpg", False),
        ("http://203.0.114.7/", "http://2130706433/images/a.jpg", False),
        ("http://203.0.114.7/", "http://10.0.0.1/a.jpg", False),
        ("http://203.0.114.7/", "http://[::ffff:127.0.0.1]/a.jpg", False),
        ("http://127.0.0.1:8000/", "http://169.254.169.254/latest/meta-data/a.jpg", False),
        ("http://127.0.0.1:8000/", "http://0.0.0.0:8001/a.jpg", False),
        ("http://127.0.0.1:8000/", "file:///etc/hostname.jpg", False),
        ("http://127.0.0.1:8000/", "http:///a.jpg", False),
        ("http://127.0.0.1:8000/", "gopher://127.0.0.1/a.jpg", False),
    ],
)
def test_records_cannot_send_the_client_into_private_networks(home, url, allowed):
    if allowed:
        assert transfer.require_allowed(url, home) is None
    else:
        with pytest.raises(transfer.TransferError):
            transfer.require_allowed(url, home)


# sources and names


def test_sources_are_words_or_addresses():
    assert IsicArchive("isic").url == IsicArchive("https://api.isic-archive.com").url == archive.ISIC
    assert IsicArchive("http://localhost:8000/a/api/v2/").url == "http://localhost:8000/a/api/v2/"
    names = [IsicArchive(source).name for source in ("isic", archive.ISIC, "http://localhost:8000/a")]
    assert names == ["isic", "isic", "localhost_8000_a"]
    for source in ("foo", "/tmp", "outputs/data", "ftp://host/", "http://", "https://me:secret@host", None):
        with pytest.raises(ValueError, match=r"'isic', 'sample' or the http.*from_folder"):
            IsicArchive(source)


def test_a_sample_that_is_missing_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "SAMPLE_DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match="sample_archive.py is missing: install isicvision"):
        IsicArchive("sample")
