"""The demo of the documents' site: a model in the browser answers as the service does, and nothing leaves the page."""

import base64
import functools
import http.server
import importlib.util
import io
import json
import re
import shutil
import struct
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from system.test_deployment import load_score

from isicvision import PROJECT_ROOT, ImageClassifier, ImageDataset, build_bundle
from isicvision.images import ORIENTATION, decode

from .test_page import drop, paste

SAMPLE = Path(PROJECT_ROOT, "sample_data")
IMAGE = SAMPLE / "images" / "ISIC_9900259.jpg"
RUNTIME = Path(PROJECT_ROOT, ".venv/onnxruntime-web")
ASK = """async ([content, name]) =>
    await ask(new File([Uint8Array.from(atob(content), each => each.charCodeAt(0))], name))"""


@pytest.fixture(scope="module")
def hooks():
    pytest.importorskip("mkdocs", reason="MkDocs is not installed: make docs")
    spec = importlib.util.spec_from_file_location("mkdocs_hooks", Path(PROJECT_ROOT, "docs/mkdocs_hooks.py"))
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


@pytest.fixture(scope="module")
def sample():
    return ImageDataset.from_csv(
        SAMPLE / "metadata.csv",
        images=SAMPLE / "images",
        image_column="isic_id",
        label_column="diagnosis_1",
        group_column="lesion_id",
    )


@pytest.fixture(scope="module")
def bundle(sample, tmp_path_factory):
    """A model of some synthetic images, trained for a moment."""
    training, validation, _ = sample.sample(30, balanced=True).split(0.6, 0.3, 0.1, seed=0)
    model = ImageClassifier("efficientnet_lite0", sample.labels, image_size=96)
    model.fit(training, epochs=1, progress=False)
    model.finish(training, validation)
    return build_bundle(model, tmp_path_factory.mktemp("demo") / "bundle")


@pytest.fixture(scope="module")
def score(bundle):
    (module := load_score(bundle)).init()
    return module


@pytest.fixture(scope="module")
def address(hooks, bundle, tmp_path_factory):
    """Where the demo is served as files."""
    if not RUNTIME.is_dir():
        pytest.skip("no ONNX Runtime for browsers (`make docs` fetches it where there is npm)")
    folder = tmp_path_factory.mktemp("site")
    for name, content in hooks.demo(bundle).items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / name)
        else:
            (folder / name).write_text(content, encoding="utf-8")

    class Files(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    handler = functools.partial(Files, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def asked():
    """The addresses that the page asks for."""
    return []


@pytest.fixture
def page(browser, address, asked):
    """The demo, before it is opened; it may complain of nothing."""
    complaints = []
    page = browser.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(30_000)
    yield page
    page.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


@pytest.fixture
def ready(page, address):
    start = time.perf_counter()
    page.goto(address)
    page.get_by_text("Ready: choose an image.").wait_for()
    print(f"ready after {time.perf_counter() - start:.1f} s")
    return page


def encoded(image, kind, turn=1, **options):
    exif = image.getexif()
    exif[ORIENTATION] = turn
    image.save(buffer := io.BytesIO(), kind, exif=exif, **options)
    return buffer.getvalue()


def resized(*size):
    return Image.open(IMAGE).convert("RGB").resize(size, Image.Resampling.BICUBIC)


def with_alpha():
    image = resized(300, 200)
    image.putalpha(Image.radial_gradient("L").resize(image.size))
    return image


def saved(kind, **options):
    """A turned image without the EXIF that Pillow writes."""
    resized(345, 678).save(buffer := io.BytesIO(), kind, **options)
    return buffer.getvalue()


def exif_of(value, kind=3, order=">"):
    """EXIF with nothing but an orientation, of a TIFF's kind of number."""
    number = struct.pack(order + {3: "HH", 4: "L", 8: "hh"}[kind], value, *[0] * (kind != 4))
    head = b"MM\0*" if order == ">" else b"II*\0"
    return b"Exif\0\0" + head + struct.pack(order + "LHHHL", 8, 1, ORIENTATION, kind, 1) + number + bytes(4)


def png_with(key, text, **options):
    (notes := PngImagePlugin.PngInfo()).add_text(key, text, **options)
    return saved("PNG", pnginfo=notes)


def itxt(**options):
    (notes := PngImagePlugin.PngInfo()).add_itxt("XML:com.adobe.xmp", XMP, **options)
    return notes


def raw_profile(**options):
    return png_with("Raw profile type exif", f"\nexif\n{32:8}\n{exif_of(8).hex()}\n", **options)


def two_exif(first, second):
    data = saved("JPEG")
    segments = [b"\xff\xe1" + struct.pack(">H", 2 + len(each)) + each for each in (first, second)]
    return data[:2] + b"".join(segments) + data[2:]


def old_bitmap():
    """A BMP with the head of 12 bytes that OS/2 wrote."""
    pixels = np.asarray(resized(320, 234))[::-1, :, ::-1]
    return (
        b"BM" + struct.pack("<LHHLLHHHH", 26 + pixels.size, 0, 0, 26, 12, 320, 234, 1, 24) + pixels.tobytes()
    )


XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
KINDS = {
    "JPEG": IMAGE.read_bytes,
    "camera's JPEG": lambda: encoded(resized(4001, 2999), "JPEG"),
    "turned JPEG": lambda: encoded(resized(1203, 1601), "JPEG", 6, subsampling=0),
    "mirrored, progressive JPEG": lambda: encoded(resized(300, 171), "JPEG", 7, progressive=True),
    "gray JPEG": lambda: encoded(resized(640, 480).convert("L"), "JPEG"),
    "tiny JPEG": lambda: encoded(resized(97, 24), "JPEG", 3),
    "PNG": lambda: encoded(resized(1000, 999), "PNG"),
    "turned PNG": lambda: encoded(resized(150, 100), "PNG", 5),
    "PNG with alpha": lambda: encoded(with_alpha(), "PNG"),
    "PNG of the network's size": lambda: encoded(resized(96, 96), "PNG"),
    "palette": lambda: encoded(resized(500, 333).quantize(200), "PNG"),
    "turned WebP": lambda: encoded(resized(345, 678), "WEBP", 8),
    "BMP": lambda: encoded(resized(321, 234), "BMP"),
    "tall PNG": lambda: encoded(resized(123, 456), "PNG"),
    "BMP of OS/2": old_bitmap,
    "JPEG turned by XMP": lambda: saved("JPEG", xmp=XMP.encode()),
    "JPEG whose EXIF comes before XMP": lambda: saved("JPEG", xmp=XMP.encode(), exif=exif_of(3)),
    "WebP turned by XMP": lambda: saved("WEBP", xmp=XMP.encode()),
    "PNG turned by XMP": lambda: saved("PNG", pnginfo=itxt()),
    "PNG turned by compressed XMP": lambda: saved("PNG", pnginfo=itxt(zip=True)),
    "PNG turned by XMP as an element": lambda: png_with(
        "XML:com.adobe.xmp", "<tiff:Orientation>3</tiff:Orientation>"
    ),
    "PNG with a raw profile": raw_profile,
    "PNG with a compressed raw profile": lambda: raw_profile(zip=True),
    "EXIF with a long": lambda: saved("JPEG", exif=exif_of(6, 4)),
    "EXIF with a little-endian long": lambda: saved("WEBP", exif=exif_of(6, 4, "<")),
    "EXIF with a signed number": lambda: saved("PNG", exif=exif_of(8, 8)),
    "two EXIF": lambda: two_exif(exif_of(6), exif_of(3)),
    "EXIF in two parts": lambda: two_exif(exif_of(6)[:20], b"Exif\0\0" + exif_of(6)[20:]),
    "EXIF that is none, and XMP": lambda: saved("JPEG", xmp=XMP.encode(), exif=b"Exif\0\0a note"),
    "EXIF that is cut short, and XMP": lambda: saved("JPEG", xmp=XMP.encode(), exif=exif_of(3)[:20]),
}
NOISE = np.random.default_rng(0).integers(0, 256, (200, 300, 3), np.uint8)
REFUSED = {  # in the very words of the service
    "blank": lambda: encoded(Image.new("RGB", (300, 200), "pink"), "PNG"),
    "blurred": lambda: encoded(resized(8, 6).resize((600, 450), Image.Resampling.BICUBIC), "PNG"),
    "noise": lambda: encoded(Image.fromarray(NOISE), "PNG"),
    "too small": lambda: encoded(resized(23, 100), "PNG"),
    "too many pixels": lambda: encoded(Image.new("1", (7100, 7100)), "BMP"),
    "animation": lambda: encoded(
        resized(60, 40), "WEBP", save_all=True, append_images=[with_alpha().resize((60, 40))]
    ),
    "animated PNG": lambda: encoded(
        resized(60, 40), "PNG", save_all=True, append_images=[with_alpha().resize((60, 40))]
    ),
}
UNREAD = {  # and why
    "no image": (lambda: b"This is a note.", "it is not an image (JPEG, PNG, BMP, WebP can be read)"),
    "empty": (lambda: b"", "it is not an image"),
    "GIF": (lambda: encoded(resized(60, 40), "GIF"), "it is a GIF, which cannot be read"),
    "cut JPEG": (lambda: IMAGE.read_bytes()[:9000], "it is damaged or cut short"),
    "the head of a JPEG": (lambda: IMAGE.read_bytes()[:100], "it is damaged or cut short"),
    "cut camera's JPEG": (lambda: KINDS["camera's JPEG"]()[:90_000], "it is damaged or cut short"),
    "cut PNG": (lambda: KINDS["PNG"]()[:90_000], "it is damaged or cut short"),
    "TIFF": (lambda: encoded(resized(60, 40), "TIFF"), "it is a TIFF, which this page cannot read"),
    "DICOM": (lambda: bytes(128) + b"DICM", "it is a DICOM file, which this page cannot read"),
    "CMYK": (lambda: encoded(resized(60, 40).convert("CMYK"), "JPEG"), "it is a JPEG in CMYK"),
    "EXIF with a fraction": (
        lambda: saved("PNG", exif=exif_of(6).replace(b"\x01\x12\0\3", b"\x01\x12\0\5")),
        "it is turned by EXIF with a fraction, which this page cannot read",
    ),
    "16 bits": (
        lambda: encoded(Image.fromarray(NOISE[..., 0] * np.uint16(257)), "PNG"),
        "it is a PNG with 16 bits",
    ),
}


def ask(page, content, name="lesion.jpg"):
    return page.evaluate(ASK, [base64.b64encode(content).decode(), name])


def test_scores_are_those_of_the_service(ready, score):
    greatest = 0
    for kind, make in KINDS.items():
        [expected] = score.predict([make()])
        answer = ask(ready, make())
        if "error" in expected:
            assert answer == {"message": expected["error"].removeprefix("the image: ")}, kind
            continue
        [found] = answer["predictions"]
        assert {**found, "scores": None} == {**expected, "scores": None, "distance": found["distance"]}, kind
        difference = max(abs(found["scores"][label] - each) for label, each in expected["scores"].items())
        assert difference < 1e-3 and abs(found["distance"] - expected["distance"]) < 1e-3, kind
        greatest = max(greatest, difference)
    print(f"greatest difference {greatest:.1e}")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_are_resized_and_turned_as_by_pillow(ready, interpolation):
    for kind in (
        "PNG",
        "turned PNG",
        "PNG with alpha",
        "PNG of the network's size",
        "turned WebP",
        "BMP",
        "tall PNG",
    ):
        found = ready.evaluate(
            """async ([content, interpolation]) => {
                const bytes = Uint8Array.from(atob(content), each => each.charCodeAt(0));
                return [...await decode(new File([bytes], ""), 100, interpolation)];
            }""",
            [base64.b64encode(KINDS[kind]()).decode(), interpolation],
        )
        assert found == decode(KINDS[kind](), 100, interpolation).ravel().tolist(), kind


def test_a_browser_that_reduces_no_jpeg_comes_near(page, address, score):
    page.add_init_script("delete window.ImageDecoder")
    page.goto(address)
    [expected] = score.predict([KINDS["camera's JPEG"]()])
    [found] = ask(page, KINDS["camera's JPEG"]())["predictions"]
    assert found["scores"] == pytest.approx(expected["scores"], abs=0.02)


def test_an_image_is_refused_in_the_words_of_the_service(ready, score):
    for kind, make in REFUSED.items():
        [expected] = score.predict([make()])
        assert ask(ready, make()) == {"message": expected["error"].removeprefix("the image: ")}, kind


def test_what_only_the_service_reads_and_what_nobody_reads_is_refused_with_the_reason(ready):
    for kind, (make, reason) in UNREAD.items():
        assert ask(ready, make())["message"].startswith(reason), kind
    answer = ready.evaluate("ask(new File([new Uint8Array(21 * 2 ** 20)], 'a.jpg'))")
    assert answer == {"message": "it is larger than 20 MB"}
    drop(ready, "note.txt", "text/plain", b"This is a note.")
    ready.get_by_role("status").get_by_text("note.txt was not scored: it is not an image").wait_for()
    assert ready.locator("#result").is_hidden()


def test_limits_are_those_of_the_service(ready, score):
    names = ["LIMIT", "BLANK", "BLURRED", "MAX_BYTES", "MIN_SIDE", "MAX_PIXELS"]
    limits = [*(getattr(score, name) for name in names[:-1]), score.preprocessing.MAX_PIXELS]
    assert ready.evaluate(f"[{', '.join(names)}]") == limits


def test_nothing_leaves_the_browser(ready, asked, address):
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
    asked.clear()
    paste(ready, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    ready.get_by_text("Scored.").wait_for()
    assert "not a diagnostic device" in ready.locator("#caveat").inner_text()
    assert all(url.startswith(("blob:", "data:")) for url in asked)
    policy = ready.locator("meta[http-equiv]").get_attribute("content")
    assert "default-src 'none'" in policy and "http" not in policy and "'unsafe" not in policy


def test_another_host_cannot_be_asked(browser, address):
    with closing(browser.new_page()) as page:  # one whose complaint is wanted
        page.goto(address)
        page.get_by_text("Ready: choose an image.").wait_for()
        violated = page.evaluate(
            """new Promise(done => {
                addEventListener("securitypolicyviolation", event => done(event.violatedDirective));
                fetch("http://localhost:9/").catch(() => setTimeout(done, 1000, "nothing"));
            })"""
        )
        assert violated == "connect-src"


def test_a_sample_is_scored_by_keyboard(ready, score):
    ready.locator("#file").focus()
    ready.keyboard.press("Tab")
    focused = "getComputedStyle(document.activeElement).outlineStyle"
    assert ready.evaluate(focused) == "solid"
    ready.keyboard.press("Enter")
    ready.get_by_text("Scored.").wait_for()
    assert ready.locator("#name").inner_text() == "a lesion drawn as benign"
    name = ready.evaluate("document.activeElement.querySelector('img').src").rpartition("/")[2]
    [expected] = score.predict([(SAMPLE / "images" / name).read_bytes()])
    assert ready.locator("dt").all_inner_texts() == [
        f"{label}\n{each:.3f}" for label, each in expected["scores"].items()
    ]
    assert f"from a score of {expected['threshold']:.3f}" in ready.locator("#threshold").inner_text()
    assert ready.locator("#where").is_hidden()


@pytest.mark.parametrize(
    ("name", "answer"),
    [("model.onnx", {"status": 404}), ("model.onnx", {"body": "none"}), ("model.json", {"status": 500})],
)
def test_a_model_that_cannot_be_loaded_is_said(page, address, name, answer):
    page.route(f"**/{name}", lambda route: route.fulfill(**answer))
    page.goto(address)
    page.get_by_role("status").get_by_text("The model could not be loaded").wait_for()
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_role("status").get_by_text(
        "lesion.jpg was not scored: The model could not be loaded"
    ).wait_for()


@pytest.mark.parametrize("name", ["page.js", "decode.js", "ort.wasm.min.js"])
def test_a_part_of_the_page_that_is_missing_is_said_at_once(browser, address, name):
    with closing(browser.new_page()) as page:  # one which may complain
        page.route(f"**/{name}", lambda route: route.fulfill(status=404))
        page.goto(address)
        page.get_by_role("status").get_by_text(f"{name} of this page could not be loaded").wait_for()


def test_a_browser_without_webassembly_and_a_page_opened_from_a_disk_are_told(
    page, address, hooks, bundle, tmp_path
):
    page.add_init_script("delete window.WebAssembly")
    page.goto(address)
    page.get_by_role("status").get_by_text("This browser has no WebAssembly").wait_for()
    for name in ("index.html", "page.js", "page.css"):
        (tmp_path / name).write_text(hooks.demo(bundle)[name], encoding="utf-8")
    for path in [*Path(PROJECT_ROOT, "docs/demo").glob("*.[jc]s*"), RUNTIME / "ort.wasm.min.js"]:
        shutil.copyfile(path, tmp_path / path.name)
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_role("status").get_by_text("Serve the site: python -m http.server").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_axe_finds_no_barrier(ready, axe, scheme, width):
    ready.emulate_media(color_scheme=scheme)
    ready.set_viewport_size({"width": width, "height": 800})
    for name, end in (("drawn as malignant", "Scored."), ("a screenshot", "a screenshot was not scored")):
        ready.get_by_role("button", name=name).first.click()
        said = ready.get_by_role("status").get_by_text(end)
        said.wait_for()
        assert said.evaluate("each => each.getBoundingClientRect().bottom") <= 800  # in sight
        assert ready.evaluate("document.documentElement.scrollWidth") <= width
        assert axe(ready) == []


def test_a_model_of_other_images_is_not_published(hooks, bundle, tmp_path):
    with pytest.raises(ValueError, match="no model yet. Build it with `make run`"):
        hooks.demo(tmp_path)
    metadata = json.loads((bundle / "model.json").read_text(encoding="utf-8"))
    for sources in (None, [], metadata["training"]["sources"] + [{"attribution": "A clinic", "images": 1}]):
        metadata["training"]["sources"] = sources
        (tmp_path / "model.json").write_text(json.dumps(metadata), encoding="utf-8")
        with pytest.raises(ValueError, match="not trained on the bundled sample"):
            hooks.demo(tmp_path)
    with pytest.raises(ValueError, match="ONNX Runtime for browsers is missing"):
        hooks.demo(bundle, tmp_path / "none")


def test_the_images_to_try_are_of_the_test_set_of_the_notebooks(sample):
    html = Path(PROJECT_ROOT, "docs/demo/index.html").read_text(encoding="utf-8")
    _, _, test = sample.split(0.6, 0.2, 0.2, seed=0)
    named = re.findall(r"(ISIC_\w+\.jpg).*drawn as (\w+)", html)
    labels = {
        Path(path).name: label.lower() for path, label in zip(test.paths, test.table.label, strict=True)
    }
    assert len(named) == 4 and named == [(name, labels[name]) for name, _ in named]
