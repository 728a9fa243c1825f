"""Tables as other programs write them, and our own."""

import gzip
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isicvision import Evaluation, tables

ROWS = [["image", "dx", "age"], ["p1", "nv", "55.5"], ["p2", "mel", ""]]


def written(separator=",", end="\n"):
    return end.join(separator.join(row) for row in ROWS) + end


def read(tmp_path, content, text=("image",)):
    file = tmp_path / "t.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return tables.read(file, text)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_every_separator_line_end_and_encoding_is_read(tmp_path, separator, end, encoding):
    table = read(tmp_path, written(separator, end).encode(encoding))
    assert table.columns.tolist() == ROWS[0]
    assert (
        table["dx"].tolist() == ["nv", "mel"] and table["age"].tolist()[0] == 55.5 and table["age"].isna()[1]
    )


@pytest.mark.parametrize(
    "content",
    [
        *("sep=;\n" + written(";"), "SEP=;\n" + written(";")),
        *(
            "# exported, by me\n#\n" + written(),
            "# of 2, by me\n" + written(),
            "# exported\nsep=;\n" + written(";"),
        ),
        "\n\n" + written(),
        written().replace("\n", ",\n"),
        written().replace("nv,55.5\n", "nv,55.5,\n"),
        written().replace("image,dx,age", "image,dx,age,,"),
        written().replace("\np", " \np").replace(",", " , "),
        written().replace("image", "\u00a0image\u00a0").replace("nv", "\u00a0nv"),
        written().replace("image", "\u200bimage"),
        written().replace("nv", '"nv"').replace("image", '"image"'),
        written().replace("p1", '" p1 "').replace("image", '" image"'),
        gzip.compress(written().encode(), mtime=0),
    ],
)
def test_blanks_quotes_and_commas_at_the_end_change_nothing(tmp_path, content):
    pd.testing.assert_frame_equal(read(tmp_path, content), read(tmp_path, written()))


def test_words_of_windows_1252_are_read_with_a_warning(tmp_path):
    with pytest.warns(UserWarning, match=r"t\.csv is not UTF-8 and was read as Windows-1252"):
        table = read(tmp_path, "image,sex\np1,männlich\n".encode("cp1252"))
    assert table["sex"].tolist() == ["männlich"]
    with pytest.raises(
        ValueError, match=r"t\.csv is neither UTF-8 nor Windows-1252: save it as CSV \(UTF-8\)"
    ):
        read(tmp_path, b"image,sex\np1,m\x81\x8d\n")


def test_accents_are_composed_and_identifiers_stay_text_in_any_spelling_of_their_column(tmp_path):
    table = read(tmp_path, "Image ID,who\n0012,e\N{COMBINING ACUTE ACCENT}\n0013,a\n", ["image_id"])
    assert table["Image ID"].tolist() == ["0012", "0013"]
    assert table["who"][0] == "\N{LATIN SMALL LETTER E WITH ACUTE}"


def test_decimal_commas_are_numbers_where_semicolons_separate(tmp_path):
    for blank in ("", " "):
        table = read(tmp_path, f"image;age;note;code\np1;55,5{blank};a, b;1,5\np2;60;c;x\n")
        assert table["age"].tolist() == [55.5, 60] and table["note"].tolist() == ["a, b", "c"]
        assert table["code"].tolist() == ["1,5", "x"]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_a_row_that_lacks_cells_or_holds_other_signs_does_not_hide_the_separator(tmp_path, sign):
    content = "image,dx,note\np1,nv,x\np2\n  \np3,mel,y\np4,nv,z\n\nTotal\n".replace(",", sign)
    table = read(tmp_path, content + sign.join(("p5", "nv", '"a, b; c\td"')))
    assert table["image"].dropna().tolist() == ["p1", "p2", "p3", "p4", "Total", "p5"]
    assert table["dx"].dropna().tolist() == ["nv", "mel", "nv", "nv"]


def test_cells_of_several_lines_stay_whole_and_a_stray_carriage_return_does_not_break_a_row(tmp_path):
    table = read(tmp_path, 'image,note\np1,"one\ntwo"\np2,"three\rfour"\n')
    assert table["note"].tolist() == ["one\ntwo", "three\rfour"]
    assert read(tmp_path, "image,note\np1,one\rtwo\np2,x\n")["note"].tolist() == ["one two", "x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty, or its first line names no columns"),
        (b"\n\n", "it is empty, or its first line names no columns"),
        (b"image,dx\n", "has a header and no rows"),
        (b"image,dx,dx\np1,nv,nv\n", "has two columns 'dx': rename or delete one of them"),
        (b"image,dx,dx \np1,nv,nv\n", "has two columns 'dx'"),
        (
            b"image,note\np1,a\np2,b,c\n",
            "line 3: 3 cells, but the header has 2. Put quotes around text that",
        ),
        (b"image,note\np1,a,b\np2,c,d\n", "line 2: 3 cells, but the header has 2"),
        (b'image,note\np1,"a\np2,b\n', "Is a quote .* missing or one too many"),
        (b'image,note\np1,"a\np2,b\np3,"c"\n', "Is a quote .* missing or one too many"),
        (
            b"PK\x03\x04 xl/workbook.xml",
            "is an Excel workbook or a zip archive: save its table as CSV",
        ),
        (b"\xd0\xcf\x11\xe0", "is an Excel workbook"),
        (b"version https://git-lfs.github.com/spec/v1\noid 1\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html>\n<p>x,y", "is an HTML or XML page"),
        (b'[{"image": "a", "label": "b"}]', "is JSON: save it as CSV"),
        *(
            (text, "it is not a text file")
            for text in (b"image,note\np1,a\0b\n", written().encode("utf-16-le"))
        ),
        (b"\x1f\x8b123", "cannot be read as CSV"),
    ],
)
def test_what_is_no_table_is_refused_with_the_place(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"t\.csv.*{message}"):
        read(tmp_path, content)
    with pytest.raises(ValueError, match="the path is empty"):
        tables.read("")
    with pytest.raises(ValueError, match="cannot be read as CSV: Is a directory"):
        tables.read(tmp_path)


def test_a_column_is_found_by_its_letters_and_the_nearest_is_named(tmp_path):
    table = pd.DataFrame(columns=["Lesion ID", "lesion_id", "Patient-Id", "dx"])
    assert tables.find_column(table, "lesion_id") == "lesion_id"
    assert tables.find_column(table, "patient_id") == "Patient-Id" and tables.find_column(table, "?") is None
    with pytest.raises(ValueError, match="several columns fit 'LESION_ID': Lesion ID, lesion_id"):
        tables.require_column(table, "LESION_ID", "t")
    with pytest.raises(ValueError, match="t has no column 'patient'; it has: .*did you mean Patient-Id"):
        tables.require_column(table, "patient", "t")


cells = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["0012", "1e5", "NA", "None", "True", " x ", "a\rb", "a\r\nb", '"', ",", ";", "\n", "\\", "1,5", "\ufeff"]
)
file_names = st.binary(min_size=1, max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))


names = cells.map(str.strip).filter(lambda name: name and "\ufeff" not in name)


@given(st.lists(st.tuples(file_names, cells, cells), min_size=1, max_size=6), names)
@settings(max_examples=200, deadline=None)
def test_any_text_and_any_name_of_a_file_or_a_column_survive_saving(tmp_path_factory, rows, name):
    file = tmp_path_factory.getbasetemp() / "round.csv"
    columns = ["path", "label", "a;b"]
    table = pd.DataFrame(rows, columns=columns, dtype=object).assign(**{f"n{name}": np.arange(len(rows)) / 3})
    loaded = tables.load(tables.save(table, file))
    assert loaded[columns].astype(object).fillna("").to_numpy().tolist() == [list(row) for row in rows]
    assert loaded[f"n{name}"].tolist() == table[f"n{name}"].tolist()


def test_a_label_and_a_column_with_a_line_break_survive_saving(tmp_path):
    evaluation = Evaluation.from_scores(
        ["x\ny", "b"], [0.1, 0.9], classes=["x\ny", "b"], metadata=pd.DataFrame({"age\n(years)": [5, 6]})
    )
    loaded = Evaluation.load(evaluation.save(tmp_path / "e.csv"))
    pd.testing.assert_frame_equal(loaded.table, evaluation.table, check_dtype=False)
    table = pd.DataFrame({"a\nb": ["001", "1e5"], "a,b": ["x", None]})
    pd.testing.assert_frame_equal(
        tables.load(tables.save(table, tmp_path / "t.csv")), table, check_dtype=False
    )


def test_the_one_column_of_a_saved_table_may_hold_separators(tmp_path):
    table = pd.DataFrame({"note": ["a;b", "c"]})
    assert tables.load(tables.save(table, tmp_path / "t.csv"))["note"].tolist() == ["a;b", "c"]


def test_a_table_of_ours_that_excel_saved_again_is_read(tmp_path):
    table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": ["bösartig", "gut"], "age": [1.5, 2.5]})
    file = tables.save(table, tmp_path / "ours.csv")
    text = file.read_text(encoding="utf-8").replace('"', "").replace(",", ";").replace(".5", ",5")
    file.write_bytes(text.encode("cp1252"))
    pd.testing.assert_frame_equal(tables.load(file), table)


def test_a_comma_more_in_the_rows_of_a_table_of_ours_moves_no_column(tmp_path):
    table = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "label": ["x", "y"], "age": [1, 2]})
    file = tables.save(table, tmp_path / "ours.csv")
    header, *rows = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join([header, *(row + "," for row in rows)]), encoding="utf-8")
    pd.testing.assert_frame_equal(tables.load(file), table)


def test_a_path_may_begin_with_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    tables.save(pd.DataFrame({"a": [1]}), "~/t.csv.gz")
    assert (tmp_path / "t.csv.gz").read_bytes()[:2] == b"\x1f\x8b" and tables.load("~/t.csv.gz")[
        "a"
    ].tolist() == [1]


def test_a_clean_table_is_read_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read(tmp_path, written())


def test_a_header_that_begins_with_a_number_sign_is_the_header(tmp_path):
    assert read(tmp_path, "#,image\n1,a\n").columns.tolist() == ["#", "image"]
