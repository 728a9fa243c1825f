"""What the entry script refuses, without a server; the stand-in and helpers are those of test_deployment."""

import base64
import io
import json
import warnings

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageFilter
from test_deployment import GOOD, SIZE, TEXT, StandIn, b64, bundle, image, load_score, run, run_json, score

from isicvision import build_bundle
from isicvision.images import ImageError, decode

__all__ = ["bundle", "score"]  # fixtures


class WithDistance(StandIn):
    """Bright images are unlike those that it was trained on."""

    def to_onnx(self, path, _=None):
        super().to_onnx(path)
        model = onnx.load(path)
        model.graph.initializer.append(numpy_helper.from_array(np.float32(128), "gray"))
        model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 3]), "all"))
        model.graph.node.extend(
            [
                helper.make_node("ReduceMean", ["floats", "all"], ["brightness"], keepdims=0),
                helper.make_node("Div", ["brightness", "gray"], ["distance"]),
            ]
        )
        model.graph.output.append(helper.make_tensor_value_info("distance", TensorProto.FLOAT, ["batch"]))
        onnx.save(model, path)


class LooksAtTheTop(StandIn):
    """Malignant is what is red in the uppermost quarter."""

    def to_onnx(self, path, _=None):
        super().to_onnx(path)
        model = onnx.load(path)
        weight = np.zeros((SIZE, 3, 2), np.float32)
        weight[: SIZE // 4, 0, 1], weight[: SIZE // 4, 1, 1] = 0.02, -0.02
        [old] = [each for each in model.graph.initializer if each.name == "weight"]
        old.CopyFrom(numpy_helper.from_array(weight.reshape(-1, 2), "weight"))
        onnx.save(model, path)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def form(*files):
    return {f"image {n}": (io.BytesIO(file), "a.jpg") for n, file in enumerate(files)}


def test_a_form_with_files_is_scored_in_order(score):
    files = [image(seed, (400, 300), "PNG") for seed in range(3)] + [TEXT]
    status, answer = run(score, {"note": "not a file"} | form(*files), "multipart/form-data")
    assert status == 200
    alone = [run(score, file, "image/png")[1]["predictions"][0] for file in files]
    assert answer["predictions"] == alone and "not an image" in alone[3]["error"]


@pytest.mark.parametrize(
    ("body", "content_type", "status", "word"),
    [
        ({"note": "no file"}, "multipart/form-data", 400, "has no file"),
        (b"--x\r\nnonsense", "multipart/form-data", 400, "cannot be read"),
        (b"--x\r\nnonsense", "multipart/form-data; boundary=x", 400, "cannot be read"),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400, "has no file"),
        (form(*[b"."] * 65), "multipart/form-data", 413, "at most 64"),
        (form(*[b"."] * 700), "multipart/form-data", 400, "cannot be read"),
    ],
    ids=["no file", "no boundary", "garbled", "empty", "65 files", "700 files"],
)
def test_forms_are_refused(score, body, content_type, status, word):
    got, answer = run(score, body, content_type)
    assert got == status and word in answer["message"]


def test_images_that_show_nothing_are_refused_and_the_others_scored(score):
    soft = Image.open(io.BytesIO(image(1, (640, 480)))).filter(ImageFilter.GaussianBlur(200))
    soft = encoded(Image.blend(soft, Image.linear_gradient("L").resize((640, 480)).convert("RGB"), 0.2))
    refused = {
        "blank": encoded(Image.new("RGB", (60, 60), (224, 172, 105))),
        "blurred": soft,
        "20x60 pixels": image(size=(20, 60)),
        "more than 50,000,000 pixels": encoded(Image.new("1", (8000, 7000))),
        "an animation": encoded(
            Image.new("RGB", (60, 60)),
            "WEBP",
            save_all=True,
            append_images=[Image.new("RGB", (60, 60), "red")],
        ),
        "not an image": TEXT,
    }
    status, answer = run_json(score, {"images": [b64(GOOD), *map(b64, refused.values()), b64(GOOD)]})
    assert status == 200
    good, *bad, again = answer["predictions"]
    assert "scores" in good and good == again
    for prediction, word in zip(bad, refused, strict=True):
        assert word in prediction["error"] and set(prediction) == {"error"}


def test_real_images_are_not_called_blank_or_blurred(real_data):
    paths = sorted(real_data.rglob("*.jpg"))[::50]
    for size in (128, 224):
        for path in paths:
            gray = decode(path, size).mean(axis=2)
            assert gray.std() > 5, path
            assert np.diff(np.diff(gray, axis=0), axis=0).std() > 0.6, path


def test_unlike_images_are_refused(tmp_path):
    folder = build_bundle(WithDistance(), tmp_path / "bundle")
    module = load_score(folder)
    module.init()
    noise = np.random.default_rng(0).integers(0, 100, (60, 60, 3), np.uint8)
    dark, bright = encoded(Image.fromarray(noise)), encoded(Image.fromarray(noise + 156))
    status, answer = run_json(module, {"images": [b64(dark), b64(bright)]})
    assert status == 200
    scored, refused = answer["predictions"]
    assert set(scored) == {"label", "scores", "distance"} and 0 < scored["distance"] < 1
    assert "the image: it is too unlike the training images (distance 1." in refused["error"]
    assert refused["distance"] > 1 and "scores" not in refused
    status, answer = run(module, bright, "image/png")
    assert status == 422 and "unlike" in answer["message"]
    json.dumps(answer, allow_nan=False)


def test_decode_refuses_too_small_images():
    assert decode(image(size=(40, 30)), SIZE, min_side=30).shape == (SIZE, SIZE, 3)
    with pytest.raises(ImageError, match="it has 40x30 pixels, each side needs 31 or more"):
        decode(image(size=(40, 30)), min_side=31)


def test_saliency_shows_the_part_of_the_image_that_speaks_for_the_label(tmp_path):
    score = load_score(build_bundle(LooksAtTheTop(), tmp_path / "bundle"))
    score.init()
    array = np.random.default_rng(0).integers(90, 110, (SIZE, SIZE, 3)).astype(np.uint8)
    array[: SIZE // 4, : SIZE // 4, 0] = 250
    body = encoded(Image.fromarray(array))
    [prediction] = run(score, body, "image/png", query_string="saliency=1")[1]["predictions"]
    [plain] = run(score, body, "image/png")[1]["predictions"]
    data = prediction.pop("saliency").removeprefix("data:image/jpeg;base64,")
    assert prediction == plain and plain["label"] == "malignant"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int)
    assert shown.shape == (SIZE, SIZE, 3)
    changed = np.abs(shown - array).sum(axis=2)
    corner = changed[: SIZE // 4, : SIZE // 4].mean()
    assert corner > 5 * changed[SIZE // 2 :].mean() and corner > 5 * changed[:, SIZE // 2 :].mean()

    status, answer = run_json(score, {"images": [b64(body)] * 2})
    assert status == 200
    status, answer = run(score, form(body, body), "multipart/form-data", query_string="saliency=1")
    assert status == 400 and "one image at a time" in answer["message"]
    status, answer = run(score, TEXT, "image/png", query_string="saliency=1")
    assert status == 422 and "saliency" not in answer["predictions"][0]


def test_images_leave_no_warnings_in_the_log_and_the_memory(bundle):
    header = image(
        kind="BMP"
    )  # Pillow has a warning for each size, as large as any that a stranger may claim
    bodies = [header[:18] + (10_000 + n).to_bytes(4, "little") * 2 + header[26:] for n in range(20)]
    before = set(getattr(Image, "__warningregistry__", {}))
    with warnings.catch_warnings(record=True) as caught:
        module = load_score(bundle)
        module.init()
        for body in bodies:
            status, answer = run(module, body, "image/bmp")
            assert status == 422 and "pixels" in answer["message"]
    assert not caught and set(getattr(Image, "__warningregistry__", {})) - before <= {"version"}
