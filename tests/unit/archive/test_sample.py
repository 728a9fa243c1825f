"""The sample answers as the archive does, also what isicvision itself does not ask (see docs of the API v2)."""

import csv
import json
import sys
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isicvision import PROJECT_ROOT
from isicvision.fields import SEARCHABLE

sys.path.insert(0, str(PROJECT_ROOT / "sample_data"))
from sample_archive import QueryError, SampleArchive, parse_query


def make(folder, rows):
    (folder / "images").mkdir(parents=True)
    for number, row in enumerate(rows):
        (folder / "images" / f"{row['isic_id']}.jpg").write_bytes(b"x" * (number + 1))
    with open(folder / "metadata.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return SampleArchive(folder)


@pytest.fixture
def archive(tmp_path):
    rows = [
        {
            "isic_id": f"ISIC_{number:07d}",
            "sex": ("male", "female", "")[number % 3],
            "age_approx": number * 5,
            "melanocytic": ("true", "false")[number % 2],
        }
        for number in range(9)
    ]
    return make(tmp_path / "mine", rows)


def get(archive, path, status=200):
    got, _, body = archive.answer(f"http://host/api/v2/{path}")
    assert got == status, body
    return json.loads(body)


def ids(page):
    return [int(record["isic_id"][-1]) for record in page["results"]]


def test_the_size_is_that_of_the_files_found(archive):
    assert get(archive, "images/search/size/") == {"size": 45}
    assert get(archive, "images/search/size/?query=sex:male&collections=") == {"size": 1 + 4 + 7}
    assert "message" in get(archive, "images/search/size/?query=hue:red", 400)


def test_facets_count_values_of_what_was_found(archive):
    facets = get(archive, f"images/facets/?query={quote('age_approx:[0 TO 30]')}")
    assert set(facets) == {*SEARCHABLE} - {"isic_id"}
    assert facets["sex"]["buckets"] == [
        {"key": "male", "doc_count": 3},
        {"key": "female", "doc_count": 2},
    ]
    assert facets["sex"]["meta"] == {"missing_count": 2}
    assert facets["melanocytic"]["buckets"][0] == {"key": "true", "doc_count": 4}
    assert facets["diagnosis_1"] == {"buckets": [], "meta": {"missing_count": 7}}


def test_all_images_are_in_one_collection(archive):
    assert get(archive, "collections/")["results"] == [{"id": 1, "name": "mine"}]

    def found(params):
        return ids(get(archive, f"images/search/?{params}"))

    assert found("collections=1") == found("collections=1,2") == found("collections=") == [*range(9)]
    assert found("collections=1&query=sex:female") == [1, 4, 7] and found("collections=99") == []
    assert get(archive, "images/search/size/?collections=99") == {"size": 0}
    assert get(archive, "images/search/?collections=1,x", 400)


def test_next_repeats_all_that_was_asked(archive):
    page = get(archive, "images/search/?query=sex:*&limit=2&collections=1&collections=2")
    seen = ids(page)
    while page["next"]:
        page = get(archive, page["next"].split("/api/v2/")[1])
        seen += ids(page)
    assert seen == [0, 1, 3, 4, 6, 7]


def test_wrong_parameters_and_absent_images_are_refused(archive):
    assert len(get(archive, "images/search/?limit=0")["results"]) == 9
    for odd in ("limit=", "limit=x", "cursor=x", "cursor=bz14"):
        get(archive, f"images/search/?{odd}", 400)
    for absent in ("images/ISIC_1/", "images/", "nothing/"):
        assert get(archive, absent, 404) == {"detail": "Not Found"}


@given(
    st.lists(st.sampled_from([" AND ", " OR ", "sex:male", "-sex:male", " ", "age_approx:5"])).map("".join)
)
def test_any_order_of_terms_is_understood_or_refused(text):
    try:
        accept = parse_query(text)
    except QueryError:
        return
    assert accept({"sex": "male"}) in (True, False)


def test_a_page_of_a_long_listing_costs_no_walk_through_all(tmp_path):
    archive = make(tmp_path, [{"isic_id": "ISIC_0000000", "sex": "male"}])
    archive.rows = [{"isic_id": f"ISIC_{number:07d}", "sex": "male"} for number in range(50_000)]
    page = get(archive, "images/search/?query=sex:male")
    started = time.perf_counter()
    for _ in range(20):
        page = get(archive, page["next"].split("/api/v2/")[1])
    assert (time.perf_counter() - started) / 20 < 0.01  # the walk takes 20 ms and more, a page below 1 ms


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
    images = {
        "a": {"sex": "male", "age_approx": 20, "diagnosis_3": "Melanoma", "melanocytic": True},
        "b": {"sex": "female", "age_approx": 40, "diagnosis_3": "Nevus", "mel_thick_mm": "0.80"},
        "c": {"diagnosis_3": "Melanoma in situ", "melanocytic": False},
    }
    assert "".join(name for name, fields in images.items() if parse_query(query)(fields)) == matches


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
            "sex:male AND ",
            "AND",
            "(sex:male)",
            "sex:male AND (sex:female OR age_approx:40)",
        ),
        *(
            "diagnosis_3:Melanoma in situ",
            "sex:'male'",
            "age_approx:old",
            "age_approx:{20 TO 40]",
            "sex:[a TO b]",
        ),
        *("melanocytic:True", "anatom_site_general:x", "sex:male AND OR sex:male", "age_approx:[20 to 40]"),
    ],
)
def test_the_sample_refuses_what_the_archive_refuses(query):
    with pytest.raises(ValueError):
        parse_query(query)
