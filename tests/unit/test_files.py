import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ANY_LETTER, LINKS
from hypothesis import given
from hypothesis import strategies as st
from imgaug import augmenters as iaa

import isicvision
from isicvision import (
    ImageClassifier,
    ImageDataset,
    IsicArchive,
    ServiceClient,
    augment_dataset,
    dicom,
    files,
    plots,
    record,
    tables,
)
from isicvision.archive import transfer
from isicvision.data import cache
from isicvision.data.annotation import Annotations
from isicvision.data.measures import measure
from isicvision.files import read_parameters, replacing, replacing_folder, restore_folder
from isicvision.images import decode, frame
from isicvision.service import client
from isicvision.tables import restored, stored
from isicvision.text import apart, as_label, counted, redacted, secret

IMPORT = """
import sys, time
started = time.perf_counter()
import isicvision
seconds = time.perf_counter() - started
heavy = {"torch", "azureml", "ipywidgets", "pandas", "matplotlib"} & set(sys.modules)
print(seconds, heavy or "none")
"""


def test_import_loads_nothing_heavy_and_is_quick():
    runs = [subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True) for _ in range(3)]
    assert {run.stdout.split()[1] for run in runs} == {"none"}
    assert min(float(run.stdout.split()[0]) for run in runs) < 0.5


def test_every_public_name_can_be_imported_and_has_a_docstring():
    for name in isicvision.__all__:
        assert getattr(isicvision, name).__doc__, name


def test_an_unknown_name_is_an_error_and_completion_offers_those_there_are():
    with pytest.raises(AttributeError, match="Dataset"):
        isicvision.Dataset  # noqa: B018
    assert {"ImageDataset", "plots"} <= set(dir(isicvision))


def test_require_names_the_notebook_to_run_first(tmp_path):
    assert isicvision.require(tmp_path, made_by="x") == tmp_path
    with pytest.raises(FileNotFoundError, match=r"absent\.csv is not there yet.*02_train"):
        isicvision.require(tmp_path / "absent.csv", made_by="code/02_modeling/02_train.ipynb")
    with pytest.raises(FileNotFoundError, match=r"Run train\.py first\.$"):  # make run runs no scripts
        isicvision.require(tmp_path / "absent.csv", made_by="train.py")


def test_a_file_is_replaced_when_the_new_one_is_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.csv.gz"
    with replacing(path) as part:
        assert part.name.endswith(path.name)
        part.write_text("old", encoding="utf-8")
    with pytest.raises(OSError, match="no room"), replacing(path) as part:
        part.write_text("ne", encoding="utf-8")
        raise OSError("no room")
    assert [file.name for file in path.parent.iterdir()] == ["table.csv.gz"] and path.read_text(
        encoding="utf-8"
    ) == "old"
    with replacing(path) as part:
        part.write_text("new", encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "new"


def test_a_folder_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "below" / "model"
    with replacing_folder(folder) as new:
        (new / "first").touch()
        assert not folder.exists()
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder) as new:
        (new / "second").touch()
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == ["first"]
    with replacing_folder(folder) as new:
        (new / "third").touch()
    assert [path.name for path in folder.iterdir()] == ["third"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]

    # as a process leaves it that was killed between the two renamings
    folder.rename(folder.with_name(".model.old"))
    restore_folder(folder)
    assert [path.name for path in folder.iterdir()] == ["third"]


def test_a_parameter_file_with_blank_settings_has_none(tmp_path):
    file = tmp_path / "p.yaml"
    file.write_text("EPOCHS: 3\nSETTINGS:\nWEIGHTS:\n", encoding="utf-8")
    assert read_parameters(file) == {"EPOCHS": 3, "SETTINGS": {}, "WEIGHTS": None}
    file.write_text("# nothing yet\n", encoding="utf-8")
    assert read_parameters(file) == {}


def test_a_parameter_file_means_what_it_seems_to(tmp_path):
    file = tmp_path / "p.yaml"
    for text, value in {
        **{
            "1e-3": 0.001,
            "1E-4": 0.0001,
            "-.5": -0.5,
            "12": 12,
            "1.": 1.0,
            "[1e-3, 2]": [0.001, 2],
            "'1e-3'": "1e-3",
        },
        **{"None": None, "null": None, "~": None, "": None, "'None'": "None"},
        **{"true": True, "False": False, "no": "no", "yes": "yes", "off": "off"},  # the last three are labels
        **{"012": "012", "1:30": "1:30", "2018-01-01": "2018-01-01", "0": 0},
    }.items():
        file.write_text(f"A: {text}\n", encoding="utf-8")
        assert read_parameters(file) == {"A": value}, text
    for encoding in ("utf-8-sig", "utf-16"):
        file.write_bytes("# Nävus\r\nEPOCHS: 3\r\n".encode(encoding))
        assert read_parameters(file) == {"EPOCHS": 3}


WORDS = st.text(
    st.characters(exclude_characters="0123456789", exclude_categories=["Cs"])
)  # yaml.safe_dump writes the word 1e5 without quotes


@given(
    st.dictionaries(
        st.text("ABC_", min_size=1),
        st.none() | st.booleans() | st.integers() | st.floats() | WORDS.filter(lambda word: word != "None"),
    )
)
def test_whatever_yaml_can_write_is_read_as_it_was(values):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "p.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        read = read_parameters(Path(folder, "p.yaml"))
    assert str(read) == str(
        {name: {} if name == "SETTINGS" else value for name, value in values.items()} or {}
    )


def test_tables_of_the_repository_are_read_from_any_folder(tmp_path, monkeypatch):
    for module in (files, tables):
        monkeypatch.setattr(module, "PROJECT_ROOT", tmp_path / "repository")
    inside, elsewhere = tmp_path / "repository" / "outputs" / "a.jpg", tmp_path / "b.jpg"
    inside.parent.mkdir(parents=True)
    inside.touch()
    absolute = pd.DataFrame({"path": [str(inside), str(elsewhere)], "group": [str(inside), "L1"]})
    kept = pd.DataFrame({"path": ["outputs/a.jpg", str(elsewhere)], "group": ["outputs/a.jpg", "L1"]})
    pd.testing.assert_frame_equal(stored(absolute), kept)
    pd.testing.assert_frame_equal(stored(kept), kept)
    monkeypatch.chdir(tmp_path / "repository")
    pd.testing.assert_frame_equal(restored(kept), kept)  # as `make run` has them
    monkeypatch.chdir(tmp_path)
    pd.testing.assert_frame_equal(restored(kept), absolute)
    own = pd.DataFrame({"path": ["b.jpg"], "group": ["b.jpg"]})  # of the current folder
    pd.testing.assert_frame_equal(restored(own), own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read as a parameter file"),
        (b"A: [1", "cannot be read as a parameter file"),
        (b"A: \xff\xfe", "cannot be read as a parameter file"),
        (b"EPOCHS", "is no parameter file"),
        (b"A: 1\nB: 2\nA: 3", r"cannot be read .*: A is given twice\n.*line 3"),
        (b"MAP:\n  1: a\n  '1': b", r"cannot be read .*: 1 is given twice\n.*line 3"),
        (b"MAP: {1: a, 1.0: b}", r"cannot be read .*: 1\.0 is given twice\n.*line 1"),
        (b"MAP: {true: a, 1: b}", r"cannot be read .*: 1 is given twice\n.*line 1"),
        (b"A:\t3", "cannot be read as a parameter file"),
        (b"? [1]\n: 2", "cannot be read as a parameter file"),
        (b"---\nA: 1\n---\nB: 2", "cannot be read as a parameter file"),
    ],
)
def test_what_is_no_parameter_file_is_named(tmp_path, content, message):
    file = tmp_path / "odd.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"odd\.yaml {message}"):
        read_parameters(file)


def test_a_label_is_text_whatever_it_was_given_as():
    for one in (1, 1.0, np.float32(1), np.int64(1), "1", " 1 "):
        assert as_label(one) == "1"
    assert as_label(True) == as_label(np.bool_(True)) == "True" and as_label(np.float32(0.5)) == "0.5"
    assert as_label("e\N{COMBINING ACUTE ACCENT}") == "\N{LATIN SMALL LETTER E WITH ACUTE}"
    for nothing in (None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", "  "):
        assert as_label(nothing) is None


@pytest.mark.parametrize(
    ("count", "written"),
    [(0, "0 images"), (1, "1 image"), (1.0, "1 image"), (np.int64(7006), "7,006 images")],
)
def test_a_count_is_written_with_its_noun(count, written):
    assert counted(count, "image") == written


SECRET = "TOP-" + "SECRET"  # a traceback quotes the lines of this file, too


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_a_secret_is_clean_or_refused_without_a_word_of_it(value):
    hidden = f"TOP{value}SECRET"
    try:
        clean = secret(f"\ufeff {hidden}\r\n", "ISIC_TOKEN")
        assert clean == hidden and clean.isascii() and clean.isprintable() and " " not in clean
    except ValueError as error:
        assert "TOP" not in str(error) and "SECRET" not in str(error) and "ISIC_TOKEN" in str(error)


@pytest.mark.parametrize(
    "value",
    ["TOP SECRET", "TOP\nSECRET", "TOP\0SECRET", pytest.param("TOP-SECRÉT", marks=ANY_LETTER), b"TOP", " \n"],
)
def test_no_key_or_token_is_printed_by_what_refuses_it(value, monkeypatch):
    for make in (
        lambda: IsicArchive("http://127.0.0.1:9", token=value),
        lambda: ServiceClient("http://127.0.0.1:9/score", key=value),
    ):
        with pytest.raises(ValueError, match="copy it again") as caught:
            make()
        assert "TOP" not in "".join(traceback.format_exception(caught.value))
    for made in (
        ServiceClient("http://127.0.0.1:9/score", key=f"{SECRET}\r\n"),
        IsicArchive(token=f"{SECRET}\n"),
    ):
        assert SECRET not in f"{made!r}{vars(made)}"
    if isinstance(value, str) and "\0" not in value:
        monkeypatch.setenv("ISIC_TOKEN", value)
        with pytest.raises(ValueError, match="ISIC_TOKEN"):
            IsicArchive()
        assert IsicArchive("sample").count()  # which needs none


def test_no_address_shows_its_password_or_key():
    assert redacted(f"http://ann:{SECRET}@host/x?token={SECRET}&limit=3") == "http://…@host/x?token=…&limit=3"
    assert redacted(f"ftp://u:{SECRET}@{SECRET}/{SECRET}@h/score") == "ftp://…@h/score"
    assert redacted(f"ftp://u:{SECRET}/{SECRET}@h/score") == "ftp://…@h/score"
    for harmless in ("http://h/b@2x.png", "http://h:80/b@2x.png", "http://[::1]:8/b@2x.png"):
        assert redacted(harmless) == harmless
    assert redacted("C:\\a.jpg, /b@2x.png, is it?") == "C:\\a.jpg, /b@2x.png, is it?"
    for ask in (
        lambda: IsicArchive(f"http://ann:{SECRET}@127.0.0.1:9"),
        lambda: ServiceClient(f"http://127.0.0.1:9/score?code={SECRET}", timeout=1).timing(b"x"),
        lambda: client._fetch(f"http://ann:{SECRET}@127.0.0.1:9/a.jpg", 1),
        lambda: client._fetch(f"http://127.0.0.1:9/a.jpg?sig={SECRET}", 1),
        lambda: client._fetch(f"ftp://ann:{SECRET}@127.0.0.1/a.jpg", 1),
        lambda: transfer.require_allowed(f"ftp://ann:{SECRET}@127.0.0.1/a.jpg", "http://a"),
    ):
        with pytest.raises(Exception, match=r"127\.0\.0\.1") as caught:
            ask()
        assert SECRET not in "".join(traceback.format_exception(caught.value))


def test_our_own_names_keep_apart_from_labels():
    assert apart("all", ["benign"]) == "all" and apart("all", ["(all)", "all"]) == "((all))"


def test_a_tilde_is_the_users_home_and_an_empty_path_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.user_path("~/a") == tmp_path / "a" and files.user_path(Path("b")) == Path("b")
    assert files.user_path("~$report.csv") == Path("~$report.csv")  # a spreadsheet's lock beside report.csv
    with pytest.raises(ValueError, match="the path is empty"):
        files.user_path("")
    monkeypatch.setenv("ISICVISION_CACHE", "~/cache")
    assert cache.folder() == tmp_path / "cache"
    monkeypatch.delenv("ISICVISION_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "~/x")
    assert cache.folder() == tmp_path / "x" / "isicvision"


def test_paths_are_stored_alike_on_every_system(monkeypatch):
    assert files.portable(str(files.PROJECT_ROOT / "outputs" / "a b.jpg")) == "outputs/a b.jpg"
    monkeypatch.setattr(files.os, "sep", "\\")
    assert files.portable("outputs\\data\\a.jpg") == "outputs/data/a.jpg"


@LINKS
def test_every_entry_knows_the_users_home(monkeypatch, tmp_path, folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").symlink_to(folder, target_is_directory=True)
    dataset = ImageDataset.from_folder("~/images")
    assert dataset.save("~/out/data.csv").is_file() and len(ImageDataset.load("~/out/data.csv")) == len(
        dataset
    )
    Annotations(dataset, "~/out/log.csv").decide(dataset.paths[0], dataset.labels[1])
    assert (tmp_path / "out" / "log.csv").is_file()
    assert len(ImageDataset.from_csv("~/out/data.csv", images="~/images", image_column="path")) == len(
        dataset
    )
    model = ImageClassifier("efficientnet_lite0", dataset.labels, weights=None, image_size=64)
    model.fit(dataset, epochs=1, precision="fp32", progress=False, checkpoint="~/out/checkpoint")
    assert model.save("~/out/model") == tmp_path / "out" / "model"
    assert ImageClassifier.load("~/out/model").labels == model.labels
    augment_dataset(dataset, iaa.Fliplr(1), "~/out/augmented")
    assert (tmp_path / "out" / "augmented").is_dir() and not (tmp_path / "~").exists()
    path = f"~/images/{Path(dataset.paths[0]).relative_to(tmp_path / 'images')}"
    assert decode(path).shape[:2] == frame(path, 10_000)[1][::-1] and measure(path)["bytes"] > 0
    assert model.predict_proba(path).shape == (1, 2) and dicom.columns([path]).shape == (1, 2)
    assert client._to_bytes(path) == Path(dataset.paths[0]).read_bytes()
    given = {"SOURCE": "~/images", "CSV": "~/out/data.csv", "LABEL_COLUMN": "label", "IMAGE_COLUMN": "path"}
    given |= {"METADATA_CSV": "~/out/data.csv"}
    assert len(ImageDataset.from_parameters(given)) == len(dataset)
    assert len(ImageDataset.from_parameters(given | {"CSV": {"~/out/data.csv": "label"}})) == len(dataset)
    record.save_parts(dict.fromkeys(record.PARTS, dataset), "~/out/split")
    assert len(record.earlier_parts("~/out/split")) == 3


STRAYS = (
    ".DS_Store",
    "._model.onnx",
    "Thumbs.db",
    "desktop.ini",
    ".ipynb_checkpoints",
    "__pycache__",
    "@eaDir",
)


@pytest.mark.parametrize("name", STRAYS)
def test_what_a_file_manager_left_does_not_keep_a_model_from_being_saved(tmp_path, dataset, name):
    (tmp_path / name).mkdir() if "." not in name[1:] else (tmp_path / name).write_text("x", encoding="utf-8")
    model = ImageClassifier("efficientnet_lite0", dataset.labels, weights=None, image_size=64)
    model.save(tmp_path)
    model.save(tmp_path)
    (tmp_path / "own.txt").touch()
    files.sweep(tmp_path)
    assert {"own.txt", "model.json"} < {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("odd", [float("nan"), -1, 0, "3", True, float("inf")])
def test_numbers_that_make_no_sense_are_refused_where_they_enter(odd, dataset, tmp_path, monkeypatch):
    archive = IsicArchive("sample")
    for ask in (
        lambda: archive.search(limit=odd if odd != 0 else -1),
        lambda: archive.count(query=odd if odd != "3" else 3),
        lambda: archive.download(tmp_path / "new", connections=odd),
        lambda: archive.download(tmp_path / "new", max_side=odd if odd != 0 else 0.5),
        lambda: ServiceClient("http://127.0.0.1:9/score", timeout=odd if odd is not True else "30"),
        lambda: ServiceClient("http://127.0.0.1:9/score", image_size=odd),
        lambda: ServiceClient("http://127.0.0.1:9/score").score_many([], connections=odd),
        lambda: ServiceClient("127.0.0.1:9/score"),
        lambda: plots.grid(dataset, columns=odd),
        lambda: plots.grid(dataset, size=odd),
    ):
        with pytest.raises(
            ValueError, match=r"whole number|number of seconds|numbers? of seconds|text|address"
        ):
            ask()
    assert not (tmp_path / "new").exists()
    for size in ("abc", "-1", "nan"):
        monkeypatch.setenv("ISICVISION_CACHE_GB", size)
        with pytest.raises(ValueError, match="ISICVISION_CACHE_GB is a number of GB"):
            cache._limit()
