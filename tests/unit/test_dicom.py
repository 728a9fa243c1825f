import io
import re
import struct
import time
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from conftest import LINKS
from dicomfiles import PLANTED, dicom_file, encoded, pixels_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from isicvision import (
    PROJECT_ROOT,
    ImageClassifier,
    ImageDataset,
    cards,
    dicom,
    evaluate,
    images,
    record,
    summary,
)
from isicvision.images import ImageError, decode, frame

SIZE = 64, 48
ROWS, COLUMNS = np.mgrid[: SIZE[1], : SIZE[0]]
COLORS = np.stack([ROWS * 4, COLUMNS * 3, 255 - ROWS - COLUMNS], axis=2).astype(np.uint8)
IMAGE = Image.fromarray(COLORS)
JPEG = encoded(IMAGE)
WIDE = dicom_file(JPEG, size=SIZE)


def pydicom_s_own():
    """The files that pydicom brings for its own tests."""
    return sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm"))


def refusal(data):
    """Return why a file is refused, once it is clear that nothing else happened: no warning, no planted name."""
    with warnings.catch_warnings(action="error"), pytest.raises(ImageError) as caught:
        decode(data)
    error, said = caught.value, []
    while error:  # what a traceback shows, too
        said.append(f"{error!r}")
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    assert PLANTED.lower() not in " ".join(said).lower()
    return str(caught.value).removeprefix("the image: ")


# the same pixels


@pytest.mark.parametrize("size", [None, 16])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"quality": 50, "subsampling": 0},
        {"progressive": True},
        {"exif": Image.Exif()},
    ],
)
def test_a_jpeg_in_a_dicom_file_has_the_pixels_of_the_jpeg_alone(options, size):
    if "exif" in options:
        options["exif"][images.ORIENTATION] = 6
    large = encoded(IMAGE.resize((640, 480)), **options)
    assert (decode(dicom_file(large, size=(640, 480)), size) == decode(large, size)).all()


def test_a_gray_jpeg_and_one_in_several_fragments_are_read():
    gray = encoded(IMAGE.convert("L"))
    assert (decode(dicom_file(gray, size=SIZE, colors="MONOCHROME2")) == decode(gray)).all()
    assert (decode(dicom_file(JPEG, size=(640, 480))) == decode(JPEG)).all()  # its own size counts
    parts = encapsulate([JPEG], fragments_per_frame=3)
    assert (decode(dicom_file(JPEG, size=SIZE, PixelData=parts)) == decode(JPEG)).all()


def test_a_jpeg_with_a_damaged_comment_is_read_in_a_dicom_file_as_alone():
    damaged = JPEG[:2] + b"\xff\xe1\x00\x0aExif\0\0\xff" + JPEG[2:]
    assert (decode(dicom_file(damaged, size=SIZE)) == decode(damaged)).all()


@pytest.mark.parametrize("start", [b"", b"\xff\xee\x00\x0cAdobe\0\0\0\0\0"])
def test_a_jpeg_of_rgb_colors_without_a_mark_is_not_taken_for_ycbcr(start):
    """Pillow cannot write such a JPEG: its own has three components of YCbCr, which are here called RGB."""
    bare = encoded(Image.frombytes("YCbCr", SIZE, COLORS.tobytes()), subsampling=0, quality=95)
    length = 2 + int.from_bytes(bare[4:6])
    bare = bare[:2] + start + bare[2 + length :]  # without JFIF, perhaps with an Adobe mark cut short
    file = dicom_file(bare, size=SIZE, colors="RGB")
    assert (decode(file) == pixels_of(file)).all() and abs(decode(file).astype(int) - COLORS).mean() < 3
    assert abs(decode(bare).astype(int) - COLORS).mean() > 20


@pytest.mark.parametrize("colors", ["RGB", "YBR_RCT", "YBR_ICT"])
@pytest.mark.parametrize("is_lossy", [False, True])
def test_jpeg_2000_has_the_pixels_that_pydicom_finds(colors, is_lossy):
    options = {"irreversible": True, "quality_layers": [20]} if is_lossy else {}
    data = encoded(IMAGE, "JPEG2000", no_jp2=True, mct=int(colors != "RGB"), **options)
    syntax = uid.JPEG2000 if is_lossy else uid.JPEG2000Lossless
    file = dicom_file(data, syntax, SIZE, colors)
    assert (decode(file) == pixels_of(file)).all()
    assert is_lossy or (decode(file) == COLORS).all()
    with pytest.raises(ImageError, match="not an image"):
        decode(data)  # alone it is not read


NATIVE = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
]


@pytest.mark.parametrize("syntax", NATIVE, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("kind", ["OB", "OW"])
def test_uncompressed_pixels_are_as_they_were(syntax, kind):
    stored = COLORS
    if kind == "OW" and syntax == uid.ExplicitVRBigEndian:
        stored = COLORS.ravel().view("<u2").byteswap().view(np.uint8).reshape(COLORS.shape)
    file = dicom_file(stored, syntax, colors="RGB")
    file = file.replace(b"\xe0\x7f\x10\x00OB", b"\xe0\x7f\x10\x00" + kind.encode())
    file = file.replace(b"\x7f\xe0\x00\x10OB", b"\x7f\xe0\x00\x10" + kind.encode())
    assert (decode(file) == COLORS).all()
    planar = dicom_file(
        COLORS, syntax, colors="RGB", PixelData=COLORS.transpose(2, 0, 1).tobytes(), PlanarConfiguration=1
    )
    assert (decode(planar) == COLORS).all() or syntax == uid.ExplicitVRBigEndian
    gray = dicom_file(COLORS[..., 0], syntax, colors="MONOCHROME2")
    assert (decode(gray) == COLORS[..., :1]).all()


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless])
@pytest.mark.parametrize("stored", [10, 12, 16])
def test_deep_pixels_are_scaled_to_bytes_by_what_is_white(syntax, stored):
    white = 2**stored - 1
    deep = (COLORS.astype(float) * white / 255).round().astype(np.uint16)
    for pixels, colors in ((deep, "RGB"), (deep[..., 0].copy(), "MONOCHROME2")):
        file = dicom_file(
            pixels, uid.ExplicitVRLittleEndian if syntax.is_encapsulated else syntax, colors=colors
        )
        file = changed(file, syntax, BitsStored=stored, HighBit=stored - 1)
        expected = COLORS if colors == "RGB" else COLORS[..., :1]
        assert (decode(file) == expected).all()
        assert (pixels_of(file) == pixels).all()


def changed(file, syntax=None, **header):
    """Return a DICOM file with other elements and, compressed by pydicom, in another transfer syntax."""
    dataset = pydicom.dcmread(io.BytesIO(file))
    for name, value in header.items():
        setattr(dataset, name, value)
    if syntax and syntax.is_encapsulated:
        dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("colors", ["RGB", "MONOCHROME2", "YBR_FULL"])
def test_rle_has_the_pixels_that_pydicom_finds(colors):
    pixels = COLORS[..., 0] if colors == "MONOCHROME2" else COLORS
    file = dicom_file(np.ascontiguousarray(pixels), uid.ExplicitVRLittleEndian, colors=colors)
    packed = changed(file, uid.RLELossless)
    assert (decode(packed) == decode(file)).all() and len(packed) != len(file)
    found = pixels_of(packed).astype(int)
    assert abs(decode(packed) - (found if found.ndim == 3 else found[..., None])).max() <= 1


@pytest.mark.parametrize("colors", ["YBR_FULL", "YBR_FULL_422"])
def test_uncompressed_ybr_becomes_rgb(colors):
    ybr = np.asarray(IMAGE.convert("YCbCr"))
    if colors == "YBR_FULL_422":
        pairs = ybr.reshape(-1, 2, 3)
        stored = np.stack([pairs[:, 0, 0], pairs[:, 1, 0], pairs[:, 0, 1], pairs[:, 0, 2]], axis=1).tobytes()
        file = dicom_file(ybr, uid.ExplicitVRLittleEndian, colors=colors, PixelData=stored)
    else:
        file = dicom_file(ybr, uid.ExplicitVRLittleEndian, colors=colors)
    assert abs(decode(file).astype(int) - pixels_of(file)).max() <= 1  # Pillow and pydicom round otherwise
    assert abs(decode(file).astype(int) - COLORS).mean() < 3


def test_the_files_that_pydicom_brings_are_read_as_pydicom_reads_them_or_refused():
    read = 0
    for path in pydicom_s_own():
        try:
            found = decode(path)
        except ImageError as error:
            assert str(error).startswith(f"{path}: it")
            continue
        read += 1
        expected = pixels_of(path.read_bytes())
        white = 2 ** pydicom.dcmread(path).BitsStored - 1
        expected = (expected * (255 / white)).round()
        assert abs(found - (expected if expected.ndim == 3 else expected[..., None])).max() <= 1, path
    assert read >= 25


# hostile files


PART = WIDE.index(JPEG)


def patched(place, *values, file=WIDE):
    """Replace bytes, or the value of an element with the tag `place`."""
    if isinstance(place, str):
        tag = struct.pack("<HH", int(place[:4], 16), int(place[4:], 16))
        place = file.index(tag) + 8
    return file[:place] + b"".join(values) + file[place + len(b"".join(values)) :]


def with_elements(elements):
    """Put elements in front of all others."""
    place = WIDE.index(b"\x08\x00\x16\x00UI")
    return WIDE[:place] + elements + WIDE[place:]


def sequence(content):
    return b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff" + content


def deflated_zeros():
    start = dicom_file(COLORS, uid.DeflatedExplicitVRLittleEndian, colors="RGB")
    place = 132 + 12 + int.from_bytes(start[140:144], "little")
    squeeze = zlib.compressobj(9, wbits=-15)
    return start[:place] + squeeze.compress(bytes(2**26)) + squeeze.flush()


ITEM, SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"
NAMES = f"{PLANTED}^Jane".encode()
HOSTILE = {
    "nothing after the mark": (WIDE[:132], "without an image"),
    "cut in the file's own header": (WIDE[:180], "without an image|damaged"),
    "cut in the header": (WIDE[:600], "without an image|damaged"),
    "cut in the image": (WIDE[:-200], "without an image|damaged"),
    "no end of the image": (WIDE[: PART + len(JPEG)], "without an image|damaged"),
    "no image": (dicom_file(JPEG, size=SIZE, PixelData=None), "without an image"),
    "an empty image": (dicom_file(b"", uid.ExplicitVRLittleEndian, SIZE), "without an image"),
    "noise for an image": (dicom_file(bytes(range(256)) * 9, size=SIZE), "not an image"),
    "names for an image": (dicom_file(NAMES * 99, size=SIZE), "not an image"),
    "half an image": (dicom_file(JPEG[: len(JPEG) // 2], size=SIZE), "damaged or cut short"),
    "65,535 frames": (dicom_file(JPEG, size=SIZE, NumberOfFrames=65535), "a stack of images"),
    "frames by name": (
        patched("00280008", NAMES[:4], file=dicom_file(JPEG, size=SIZE, NumberOfFrames=9999)),
        "a stack",
    ),
    "65,535 x 65,535": (dicom_file(JPEG, size=(65535, 65535)), "more than 12,000,000 pixels"),
    "65,535 x 65,535, uncompressed": (
        dicom_file(b"12", uid.ExplicitVRLittleEndian, (65535, 65535)),
        "more than",
    ),
    "3,000 x 3,000 in two bytes": (
        dicom_file(b"12", uid.ExplicitVRLittleEndian, (3000, 3000), "RGB"),
        "damaged",
    ),
    "no rows": (dicom_file(JPEG, size=(64, 0)), "without an image"),
    "an element of 4 GB": (with_elements(b"\x08\x00\x05\x00UT\0\0\xfe\xff\xff\xff" + NAMES), "damaged"),
    "an image of 4 GB": (patched(PART - 4, b"\xfe\xff\xff\xff"), "without an image|damaged"),
    "a sequence without an end": (
        with_elements(sequence(ITEM + b"\xff\xff\xff\xff" + NAMES)),
        "without an|damaged",
    ),
    "10,000 nested sequences": (
        with_elements(sequence(ITEM + b"\xff\xff\xff\xff") * 10000),
        "without an|damaged",
    ),
    "200,000 items": (with_elements(sequence((ITEM + bytes(4)) * 2 * 10**5)), "damaged"),
    "200,000 elements": (with_elements(b"\x08\x00\x05\x00CS\0\0" * 2 * 10**5), "damaged"),
    "ends of sequences that nobody began": (with_elements(SEQUENCE_END * 9), "without an image|damaged"),
    "64 MB of zeros, deflated": (deflated_zeros(), "without an image|damaged"),
    "not deflated": (
        dicom_file(COLORS, uid.DeflatedExplicitVRLittleEndian, colors="RGB")[:400] + b"??",
        "damaged|without",
    ),
    "JPEG-LS": (patched("00020010", b"1.2.840.10008.1.2.4.80"), "stored in a way"),
    "a transfer syntax that is a name": (patched("00020010", NAMES), "stored in a way"),
    "JPEG said to be uncompressed": (
        dicom_file(encapsulate([JPEG]), uid.ExplicitVRLittleEndian, SIZE),
        "damaged",
    ),
    "a palette": (
        dicom_file(COLORS[..., 0].copy(), uid.ExplicitVRLittleEndian, colors="PALETTE COLOR"),
        "stored in a way",
    ),
    "colors that are a name": (dicom_file(JPEG, size=SIZE, colors=f"{PLANTED}"), "stored in a way"),
    "12 bits in a JPEG": (dicom_file(JPEG, size=SIZE, BitsAllocated=16, BitsStored=12), "stored in a way"),
    "32 bits": (
        dicom_file(COLORS.astype(np.uint32), uid.ExplicitVRLittleEndian, colors="RGB"),
        "stored in a way",
    ),
    "signed": (dicom_file(JPEG, size=SIZE, PixelRepresentation=1), "stored in a way"),
    "RLE that says nothing": (dicom_file(b"12", uid.RLELossless, SIZE, "RGB"), "damaged"),
    "RLE that ends early": (
        dicom_file(struct.pack("<16I", 3, *[64] * 15) + b"\x81\1" * 9, uid.RLELossless, SIZE, "RGB"),
        "damaged",
    ),
    "RLE of 15 planes": (
        dicom_file(struct.pack("<16I", 15, *[64] * 15) + b"\x81\1" * 99, uid.RLELossless, SIZE, "RGB"),
        "damaged",
    ),
    "JPEG 2000 cut short": (
        dicom_file(encoded(IMAGE, "JPEG2000", no_jp2=True)[:300], uid.JPEG2000, SIZE, "RGB"),
        "damaged|not an image",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_quickly_in_little_memory_and_without_a_name(name, monkeypatch):
    monkeypatch.setattr(images, "MAX_PIXELS", 12_000_000)  # what is deflated may take three bytes a pixel
    data, reason = HOSTILE[name]
    tracemalloc.start()
    started = time.process_time()
    said = refusal(data)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert re.search(reason, said), said
    assert seconds < 3 and peak < 100 * 2**20, (seconds, peak)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_damage_is_refused_by_one_kind_of_error_or_read(data):
    files = [WIDE, *(file for file, _ in HOSTILE.values() if len(file) < 10**5)]
    file = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(128, len(file) - 1))
        kind = data.draw(st.sampled_from(["byte", "length", "cut", "repeat", "remove"]))
        if kind == "byte":
            file[place] = data.draw(st.integers(0, 255))
        elif kind == "length":
            file[place : place + 4] = data.draw(
                st.sampled_from([b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", b"\0\0\1\0"])
            )
        elif kind == "cut":
            del file[max(place, 140) :]
        elif kind == "repeat":
            file[place:place] = file[place : place + data.draw(st.integers(1, 300))]
        else:
            del file[place : place + data.draw(st.integers(1, 30))]
        if len(file) < 140:
            break
    with warnings.catch_warnings(action="error"):
        warnings.filterwarnings("ignore", module="PIL")
        try:
            decode(bytes(file))
        except ImageError as error:
            assert PLANTED not in str(error)


# what is kept of a header


@pytest.fixture
def folder(tmp_path):
    """A folder per label with twelve DICOM files in all, each with a patient, and a broken one."""
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 256, (80, 96, 3), np.uint8)
        path = tmp_path / ("benign", "malignant")[number % 2] / f"{number}.{'dcm' if number else 'DICOM'}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            dicom_file(encoded(Image.fromarray(noise)), size=(96, 80), Laterality="RLBU"[number % 4])
        )
    (tmp_path / "benign" / "broken.dcm").write_bytes(WIDE[:-99])
    return tmp_path


def test_nothing_that_is_written_or_printed_has_a_value_of_a_header(
    folder, tmp_path, caplog, capfd, monkeypatch
):
    monkeypatch.setenv("ISICVISION_CACHE", str(tmp_path / "cache"))
    caplog.set_level(0)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        dataset = ImageDataset.from_folder(folder).measure()
        train, test = dataset.split(0.5, 0.5)
        model = ImageClassifier("resnet18", dataset.labels, weights=None, image_size=64)
        model.fit(train, epochs=1, batch_size=3, progress=False)
        saved = model.save(tmp_path / "out" / "model")
        record.write(model, {"train": train, "test": test}, saved)
        record.add_metrics(evaluate(model, test), saved)
        cards.write_model_card(saved)
        cards.write_data_card(dataset, tmp_path / "out" / "data_card.md")
        summary.write(dataset, tmp_path / "out" / "report")
        dataset.save(tmp_path / "out" / "images.csv")
        print(dataset, *(each.to_csv() for each in (dataset.set_aside, dataset.problems(), dataset.table)))
    assert len(dataset) == 12 and "or cut short" in dataset.set_aside["reason"].iloc[0]
    assert set(dataset.table["format"]) == {"DICOM"} and len(dataset.problems()) == 1
    written = [path for part in ("out", "cache") for path in (tmp_path / part).rglob("*")]
    said = [caplog.text, *capfd.readouterr(), *map(str, warned), *map(str, written)]
    said += [path.read_bytes().decode("latin-1") for path in written if path.is_file()]
    assert len(written) > 40 and not [text for text in said if PLANTED.lower() in text.lower()]


def test_a_table_finds_dicom_files_by_names_without_extension(folder):
    table = pd.DataFrame({"image": ["0", "1", "2.jpg", "3.dcm"], "label": ["a", "b", "a", "b"]})
    dataset = ImageDataset.from_table(table, folder)
    assert [path.rpartition("/")[2] for path in dataset.paths] == ["0.DICOM", "1.dcm", "2.dcm", "3.dcm"]


@pytest.mark.parametrize("name", ["IM00001", "1.2.840.113.17", "q.ima"])
def test_a_file_of_any_name_is_found_in_a_folder_and_by_a_table(folder, name):
    (folder / "benign" / "0.DICOM").rename(folder / "benign" / name)
    (folder / "benign" / "notes").write_text("no image", encoding="utf-8")
    found = ImageDataset.from_folder(folder).measure()
    assert len(found) == 12 and name in {Path(path).name for path in found.paths}
    pd.DataFrame({"image": [name, "1"], "label": ["x", "y"]}).to_csv(folder / "labels.csv", index=False)
    by_table = ImageDataset.from_csv(folder / "labels.csv", folder, label_column="label")
    assert [Path(path).name for path in by_table.paths] == [name, "1.dcm"]


def test_frame_gives_the_format_and_the_full_size(folder):
    image, size, kind = frame(folder / "malignant" / "1.dcm", 48)
    assert (image.size, size, kind) == ((48, 40), (96, 80), "DICOM")


# columns of the header


def written(folder, name, **header):
    path = folder / f"{name}.dcm"
    path.write_bytes(dicom_file(JPEG, size=SIZE, **header))
    return path


def region(meaning, is_open=False):
    found = pydicom.Dataset()
    found.CodeValue, found.CodeMeaning = "1", meaning
    found.is_undefined_length_sequence_item = is_open
    return [found]


def test_columns_are_those_three_and_join_a_dataset(folder):
    dataset = ImageDataset.from_folder(folder).measure()
    joined = dataset.table.join(dicom.columns(dataset.paths), on="path")
    assert {"laterality", "body_part"} < {*joined} and "acquisition_date" not in joined
    sides = ["right", "left", "both", "unpaired"]
    assert all(row.laterality == sides[int(Path(row.path).stem) % 4] for row in joined.itertuples())
    assert dicom.columns([], ["laterality"]).empty
    with pytest.raises(KeyError, match="patient_name"):
        dicom.columns(dataset.paths, ["patient_name"])


@pytest.mark.parametrize("is_open", [False, True])
def test_columns_are_read_wherever_a_header_has_them(tmp_path, is_open):
    paths = [
        written(tmp_path, "a", ImageLaterality="L", BodyPartExamined="SKIN", AcquisitionDate="20260102"),
        written(tmp_path, "b", Laterality="R", AcquisitionDateTime="20260103112233.5"),
        written(tmp_path, "c", AnatomicRegionSequence=region("Skin of lower leg", is_open)),
        written(tmp_path, "d"),
    ]
    (tmp_path / "e.jpg").write_bytes(JPEG)
    found = dicom.columns([*paths, tmp_path / "e.jpg"], dicom.COLUMNS)
    assert found["laterality"].fillna("").tolist() == ["left", "right", "", "", ""]
    assert found["body_part"].fillna("").tolist() == ["SKIN", "", "Skin of lower leg", "", ""]
    assert found["acquisition_date"].dt.strftime("%Y-%m-%d").tolist()[:2] == ["2026-01-02", "2026-01-03"]
    assert found["acquisition_date"].isna().tolist() == [False, False, True, True, True]
    assert found.index.tolist() == [*map(str, paths), str(tmp_path / "e.jpg")]


@pytest.mark.parametrize("name", ["DOE^JANE", "Doe, Jane", "Jane Doe"])
def test_columns_hold_no_name_of_a_person_and_no_nonsense(tmp_path, name):
    path = written(tmp_path, "a", BodyPartExamined=name, Laterality="X", AcquisitionDate="00000000")
    assert dicom.columns([path], dicom.COLUMNS).isna().all(axis=None)


def test_columns_of_hostile_files_are_missing(tmp_path):
    paths = [tmp_path / f"{number}.dcm" for number in range(len(HOSTILE))]
    for path, (data, _) in zip(paths, HOSTILE.values(), strict=True):
        path.write_bytes(data)
    assert dicom.columns(paths, dicom.COLUMNS).isna().all(axis=None)
    with pytest.raises(FileNotFoundError):
        dicom.columns([tmp_path / "absent.dcm"])


@LINKS
def test_the_example_of_the_documents_works(tmp_path, monkeypatch):
    page = (PROJECT_ROOT / "docs/howto/dicom.md").read_text(encoding="utf-8")
    read, make = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "sample_data").symlink_to(PROJECT_ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)
    exec(make, {})
    given = {}
    exec(read, given)
    assert given["dataset"].table["laterality"].tolist() == ["left", "left"]
    assert decode(given["dataset"].paths[0]).shape == (450, 600, 3)


def test_few_bytes_of_jpeg_2000_that_claim_many_pixels_are_refused_at_once():
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    data = data[data.index(b"\xff\x4f\xff\x51") :]  # the codestream
    for place in (8, 12, 24, 28):  # size of the image and of its tiles
        data[place : place + 4] = struct.pack(">I", 7000)
    file = dicom_file(bytes(data), uid.JPEG2000Lossless, (7000, 7000), "YBR_RCT")
    started = time.perf_counter()
    with pytest.raises(ImageError, match="bytes cannot hold 7000x7000 pixels"):
        decode(file)
    assert time.perf_counter() - started < 1


@pytest.mark.parametrize(
    "header",
    [{"SamplesPerPixel": 1}, {"HighBit": 15}, {"Rows": 24}, {"PhotometricInterpretation": "YBR_FULL_422"}],
)
def test_pixels_that_are_not_as_the_header_says_are_refused(header):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    given = pixels, uid.ExplicitVRLittleEndian, None, "RGB"
    assert np.array_equal(decode(dicom_file(*given)), pixels)
    with pytest.raises(ImageError):
        decode(dicom_file(*given, **header))
