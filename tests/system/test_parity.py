"""One image, one answer: by the model in PyTorch, by its ONNX file, by the entry script, and over HTTP."""

import base64
import io
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import requests
from PIL import Image
from test_deployment import load_score, run

from isicvision import ImageClassifier, ImageDataset, Neighbors, build_bundle, deploy_local
from isicvision.images import ORIENTATION, ImageError, decode
from isicvision.nearest import Gallery
from isicvision.service.client import ServiceError

SIZE = 96


def drawn(random, mode="RGB", cells=12):
    """Sharp squares and some noise, so that the service finds it neither blank nor blurred; each side 24 or more."""
    width, height = (int(side) for side in random.integers(24, 400, 2))
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    squares = random.integers(0, 256, (cells, cells, channels))
    rows, columns = np.arange(height) * cells // height, np.arange(width) * cells // width
    array = squares[rows][:, columns] + random.integers(-20, 21, (height, width, channels))
    array = array.clip(0, 255).astype(np.uint8)
    return Image.fromarray(array[:, :, 0]) if mode == "L" else Image.frombytes(mode, (width, height), array)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned(random, turn):
    image = drawn(random)
    exif = image.getexif()
    exif[ORIENTATION] = turn
    return encoded(image, ("JPEG", "PNG", "WEBP", "TIFF")[random.integers(4)], exif=exif)


def animated(random, kind):
    images = [drawn(random).resize((60, 50)) for _ in range(3)]
    return encoded(images[0], kind, save_all=True, append_images=images[1:])


def sixteen_bits(random):
    gray = np.asarray(drawn(random, "L"), np.uint16)
    return encoded(Image.fromarray(gray * 257 + random.integers(0, 200, gray.shape, np.uint16)), "PNG")


def cut(data):
    return data[: len(data) * 2 // 3]


KINDS = {
    "JPEG": lambda random: encoded(drawn(random), "JPEG", quality=int(random.integers(30, 100))),
    "camera's JPEG": lambda random: encoded(drawn(random).resize((1601, 1203), Image.NEAREST), "JPEG"),
    "progressive JPEG": lambda random: encoded(drawn(random), "JPEG", progressive=True),
    "JPEG without subsampling": lambda random: encoded(drawn(random), "JPEG", subsampling=0),
    "gray JPEG": lambda random: encoded(drawn(random, "L"), "JPEG"),
    "CMYK JPEG": lambda random: encoded(drawn(random, "CMYK"), "JPEG"),
    **{f"turn {turn}": lambda random, turn=turn: turned(random, turn) for turn in range(1, 9)},
    "PNG": lambda random: encoded(drawn(random), "PNG"),
    "gray PNG": lambda random: encoded(drawn(random, "L"), "PNG"),
    "PNG with alpha": lambda random: encoded(drawn(random, "RGBA"), "PNG"),
    "PNG of 16 bits": sixteen_bits,
    "palette": lambda random: encoded(drawn(random).quantize(32), "PNG"),
    "palette with a transparent color": lambda random: encoded(
        drawn(random).quantize(32), "PNG", transparency=3
    ),
    "1 bit": lambda random: encoded(drawn(random, "L").convert("1"), "PNG"),
    "WebP": lambda random: encoded(drawn(random), "WEBP", lossless=bool(random.integers(2))),
    "WebP with alpha": lambda random: encoded(drawn(random, "RGBA"), "WEBP"),
    "TIFF": lambda random: encoded(drawn(random), "TIFF", compression="tiff_lzw"),
    "BMP": lambda random: encoded(drawn(random), "BMP"),
    "cut JPEG": lambda random: cut(encoded(drawn(random), "JPEG")),
    "cut PNG": lambda random: cut(encoded(drawn(random), "PNG")),
    "cut WebP": lambda random: cut(encoded(drawn(random), "WEBP")),
    "cut TIFF": lambda random: cut(encoded(drawn(random), "TIFF")),
    "animated GIF": lambda random: animated(random, "GIF"),
    "animated WebP": lambda random: animated(random, "WEBP"),
}
REFUSED = [name for name in KINDS if name.startswith(("cut", "animated"))]


@pytest.fixture(scope="module")
def model():
    return ImageClassifier("efficientnet_lite0", ["benign", "malignant"], image_size=SIZE)


@pytest.fixture(scope="module")
def ways(model, tmp_path_factory):
    """The four ways: functions of a file's path that return the scores, or why there are none."""
    bundle = build_bundle(model, tmp_path_factory.mktemp("parity") / "bundle")
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    interpolation = model.metadata["interpolation"]
    score = load_score(bundle)
    score.init()

    def by_pytorch(path):
        try:
            return model.predict_proba([path])[0]
        except ImageError as error:
            return str(error)

    def by_onnx(path):
        try:
            return session.run(["scores"], {"images": decode(path, SIZE, interpolation)[None]})[0][0]
        except ImageError as error:
            return str(error)

    def by_run(path):
        return _scores(*run(score, path.read_bytes(), "image/jpeg"))

    def by_http(path):
        response = requests.post(
            service.scoring_uri, data=path.read_bytes(), headers={"Content-Type": "image/png"}
        )
        return _scores(response.status_code, response.json())

    with deploy_local(bundle) as service:
        yield {"PyTorch": by_pytorch, "ONNX": by_onnx, "score.run": by_run, "HTTP": by_http}


def _scores(status, answer):
    [prediction] = answer["predictions"]
    assert status == (422 if "error" in prediction else 200)
    return prediction.get("error") or np.array([*prediction["scores"].values()])


def test_four_ways_agree_on_a_hundred_images(ways, tmp_path):
    counts, rows, greatest = Counter(), [], 0
    for number in range(100):
        kind = [*KINDS][number % len(KINDS)]
        path = Path(tmp_path, f"{number}.jpg")
        path.write_bytes(KINDS[kind](np.random.default_rng(number)))
        answers = {way: ask(path) for way, ask in ways.items()}
        refused = {way: isinstance(answer, str) for way, answer in answers.items()}
        assert set(refused.values()) == {kind in REFUSED}, (kind, number, answers)
        counts["refused" if kind in REFUSED else "scored"] += 1
        if kind in REFUSED:
            reason = answers["ONNX"].replace(str(path), "the image")
            assert all(reason in answer.replace(str(path), "the image") for answer in answers.values()), (
                answers
            )
        else:
            rows.append(answers["PyTorch"])
            difference = max(np.abs(answer - answers["PyTorch"]).max() for answer in answers.values())
            assert difference < 1e-4, (kind, number, answers)
            greatest = max(greatest, difference)
    spread = np.ptp(rows, axis=0)[0]
    print(
        f"{dict(counts)}, of {len(KINDS)} kinds; greatest difference {greatest:.1e}, scores spread over {spread:.2f}"
    )
    assert spread > 0.1  # the images are told apart, else they agree on nothing


@pytest.fixture
def similar(dataset):
    """The neighbors of a model of two networks and two views, whose images are softened; in lesions of two images."""
    table = dataset.table.assign(
        group=[f"lesion {n // 2}" for n in range(24)], copyright_license="CC-BY", attribution="Someone"
    )
    model = ImageClassifier("squeezenet1_1", dataset.labels, weights=None, image_size=64, views=2)
    model.fit(ImageDataset(table), epochs=1, members=2, progress=False)
    assert model.network.detail and len(model.networks) == 2
    return Neighbors(model, ImageDataset(table))


def test_notebook_onnx_and_http_name_the_same_neighbors(similar, tmp_path):
    model, random = similar.model, np.random.default_rng(0)
    paths = [tmp_path / f"{n}.png" for n in range(6)]
    for path in paths:
        drawn(random).save(path)
    expected = similar.nearest(paths, 3)
    expected["image"] = expected.pop("path").map(lambda path: Path(path).stem)
    bundle = build_bundle(model, tmp_path / "bundle", similar)
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    images = np.stack([decode(path, 64, model.metadata["interpolation"]) for path in paths])
    by_onnx = Gallery.load(bundle / "neighbors.npz").search(
        session.run(["embedding"], {"images": images})[0], 3
    )
    with deploy_local(bundle) as service:
        by_http = [service.score(path, neighbors=3)["neighbors"] for path in paths]
        together = service.score_lesion(paths[:2])
        plain = service.score(paths[0])
        for wrong in (21, -1, 2.5, "three"):
            with pytest.raises(ServiceError, match=f"whole number from 0 to 20, not '{wrong}'"):
                service.score(paths[0], neighbors=wrong)
        assert expected["image"][0] not in service.logs(10**6)
    assert "neighbors" not in plain and "neighbors" not in together
    for found in (by_onnx, by_http):
        rows = [row for each in found for row in each]
        assert [set(row) for row in rows] == [{"image", "label", "distance"}] * 18  # no image, no path
        assert [row["image"] for row in rows] == expected["image"].tolist()
        assert [row["label"] for row in rows] == expected["label"].tolist()
        assert np.abs([row["distance"] for row in rows] - expected["distance"]).max() < 1e-4


def test_a_bundle_shows_neighbors_only_if_it_has_them(similar, tmp_path):
    score = load_score(build_bundle(similar.model, tmp_path / "plain"))
    score.init()
    body = encoded(drawn(np.random.default_rng(0)), "PNG")
    status, answer = run(score, body, "image/png", query_string="neighbors=3")
    assert (
        status == 400
        and "build_bundle(model, folder, neighbors=Neighbors(model, training))" in answer["message"]
    )
    assert run(score, body, "image/png", query_string="neighbors=0")[0] == 200
    assert not (tmp_path / "plain" / "neighbors.npz").exists()

    shown = load_score(build_bundle(similar.model, tmp_path / "shown", similar, thumbnails=True))
    shown.init()
    answer = run(shown, body, "image/png", query_string="neighbors=2")[1]["predictions"][0]["neighbors"]
    assert {each["license"] for each in answer} == {"CC-BY"} and answer[0]["attribution"] == "Someone"
    data = answer[0]["thumbnail"].removeprefix("data:image/jpeg;base64,")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (96, 96)

    with open(tmp_path / "shown" / "neighbors.npz", "ab") as file:
        file.write(b"more")
    with pytest.raises(RuntimeError, match="neighbors.npz is not the file"):
        load_score(tmp_path / "shown").init()
    similar.table["copyright_license"] = "CC-BY-ND"
    with pytest.raises(ValueError, match="24 images lack a license"):
        build_bundle(similar.model, tmp_path / "none", similar, thumbnails=True)
    assert not (tmp_path / "none").exists()
    similar.model.fit(ImageDataset(similar.table), epochs=1, progress=False)
    with pytest.raises(ValueError, match="another training: make new ones"):
        build_bundle(similar.model, tmp_path / "none", similar)
    with pytest.raises(ValueError, match="another training: make new ones"):
        similar.nearest(similar.table["path"][:1])
    with pytest.raises(ValueError, match="thumbnails are those of neighbors="):
        build_bundle(similar.model, tmp_path / "none", thumbnails=True)
