"""The service's page for people, in a real browser: images dropped on it and chosen.

With ISICVISION_SCREENSHOTS=docs/images the tests also write the image of the documentation, by the bundle that
`make run` left in outputs/.
"""

import base64
import io
import os
from pathlib import Path

import pytest
import requests
from PIL import Image
from system.test_deployment import SIZE, StandIn

from isicvision import PROJECT_ROOT, build_bundle, deploy_local

IMAGE = Path(PROJECT_ROOT, "sample_data/images/ISIC_9900259.jpg")
MARKUP = "<img src=. onerror=alert(1)>"  # what a label and the name of a file may be, and must not become
DROP = """([name, type, content, kinds = ["dragenter", "dragover", "drop"]]) => {
    const bytes = Uint8Array.from(atob(content), character => character.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, { type }));
    for (const kind of kinds)
        document.getElementById("drop").dispatchEvent(kind === "paste"
            ? new ClipboardEvent(kind, { clipboardData: transfer, bubbles: true })
            : new DragEvent(kind, { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    model = StandIn()
    model.labels = (MARKUP, "malignant")
    model.metadata = StandIn.metadata | {"decision": {"positive": "malignant", "threshold": 0.35}}
    with deploy_local(build_bundle(model, tmp_path_factory.mktemp("page") / "bundle")) as service:
        yield service


@pytest.fixture
def complaints():
    """What the browser says against the page; at a test's end there may be none left."""
    return []


@pytest.fixture
def page(browser, service, complaints):
    """The page, opened."""
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append("a dialog") or dialog.dismiss())
    page.set_default_timeout(15_000)
    page.goto(service.scoring_uri)
    yield page
    page.close()
    # Chromium notes every answer of 4xx, and none at all, in these words
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def drop(page, name, kind, content):
    page.evaluate(DROP, [name, kind, base64.b64encode(content).decode()])


def paste(page, name, kind, content):
    page.evaluate(DROP, [name, kind, base64.b64encode(content).decode(), ["paste"]])


def test_a_dropped_image_is_scored(page, service):
    drop(page, MARKUP + ".jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    answer = service.score(IMAGE)
    assert page.locator("#label").inner_text() == answer["label"]
    assert page.locator("dt").all_inner_texts() == [
        f"{label}\n{score:.3f}" for label, score in answer["scores"].items()
    ]
    widths = page.locator("dd").evaluate_all(
        "bars => bars.map(bar => bar.firstChild.getBoundingClientRect().width / bar.clientWidth)"
    )
    assert widths == pytest.approx(list(answer["scores"].values()), abs=0.01)
    assert page.get_by_text("malignant from a score of 0.350; this image: 0.").is_visible()
    assert "not a diagnostic device" in page.locator("#caveat").inner_text()
    assert page.locator("#name").inner_text() == MARKUP + ".jpg"
    page.wait_for_function("document.getElementById('saliency').naturalWidth > 0")
    widths = page.locator("main img:visible").evaluate_all("all => all.map(each => each.naturalWidth)")
    assert widths == [600, SIZE]  # the image, and what in it speaks for the label


def test_an_image_is_chosen_by_keyboard_and_what_is_none_refused(page, tmp_path):
    page.on("filechooser", lambda _: None)  # from here on: asked for with the key, it may come too late
    page.bring_to_front()
    page.keyboard.press("Tab")  # the only thing on the page to come to
    page.wait_for_function("document.activeElement.id === 'file'")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(IMAGE)
    page.get_by_text("Scored.").wait_for()

    drop(page, "note.txt", "text/plain", b"This is no image but a note about one.")
    page.get_by_text("note.txt was not scored").wait_for()
    assert "not an image" in page.get_by_role("status").inner_text()
    assert page.locator("#result").is_hidden()  # no earlier answer beside another file's refusal

    big = io.BytesIO()
    Image.open(IMAGE).save(big, "TIFF")
    drop(page, "lesion.tif", "image/tiff", big.getvalue())  # scored, though no browser shows it
    page.get_by_text("Scored.").wait_for()
    page.locator("#image").wait_for(state="hidden")


def test_the_page_does_without_saliency_and_says_when_nobody_answers(page):
    answer = {
        "predictions": [{"label": "benign", "scores": {"benign": 1.0}}],
        "model": {"id": "stand-in", "version": "1"},
    }
    page.route("**/score?*", lambda route: route.fulfill(json=answer))
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    assert page.locator("#where").is_hidden() and page.locator("#threshold").inner_text() == ""

    page.unroute("**/score?*")
    page.context.set_offline(True)
    try:
        drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
        page.get_by_text("No answer. Is the service running").wait_for()
    finally:
        page.context.set_offline(False)


def test_nothing_but_the_page_itself_may_run_in_it(page, service, complaints):
    response = requests.get(service.scoring_uri, headers={"Accept": "text/html,*/*;q=0.8"}, timeout=20)
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    blocked = page.evaluate(
        """async () => {
            document.body.insertAdjacentHTML("beforeend", "<img src=x: onerror='window.ran = 1'>");
            const script = document.createElement("script");
            script.textContent = "window.ran = 2";
            document.body.append(script);
            await new Promise(done => setTimeout(done, 300));
            return window.ran === undefined;
        }"""
    )
    assert blocked and len(complaints) == 3 and all("blocked" in text for text in complaints)
    complaints.clear()


@pytest.mark.parametrize("width", [360, 1100])
def test_the_page_fits_a_phone_and_a_desk(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    place = "each => each.getBoundingClientRect().toJSON()"
    scores, image = (page.locator(each).evaluate(place) for each in ("#scores", "#image"))
    assert (scores["bottom"] < image["top"]) == (width < 640)  # the answer comes first, or stands beside
    assert scores["top"] >= 0 and scores["bottom"] <= 800  # in sight without scrolling


SEVEN = [
    "akiec",
    "<b>bcc</b>",
    "a label that is as long as a sentence " * 3,
    "W" * 90,
    "mel 😀",
    "$nv$",
    "vasc",
]


def answer_with(page, *, scores=None, error=None, **prediction):
    """Have the page get this answer, whatever is asked."""
    answer = {"predictions": [{"error": error}], "model": {"id": "stand-in", "version": "1"}}
    if scores:
        answer["predictions"] = [{"label": max(scores, key=scores.get), "scores": scores, **prediction}]
    page.route("**/score?*", lambda route: route.fulfill(json=answer, status=422 if error else 200))


def test_what_is_dropped_next_takes_the_place_of_the_answer(page):
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    page.evaluate(
        DROP.replace("transfer.items.add(", "if (name) for (const _ of '12') transfer.items.add("),
        ["two", "", ""],
    )
    assert page.get_by_role("status").inner_text() == "2 files were dropped: drop one image at a time."
    assert page.locator("#result").is_hidden()

    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    page.evaluate(DROP.replace("transfer.items.add(", "if (name) transfer.items.add("), ["", "", ""])
    assert page.get_by_role("status").inner_text() == "No file was dropped."
    assert page.locator("#result").is_hidden()

    page.route("**/score?*", lambda route: (page.wait_for_timeout(300), route.continue_()))
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())  # its answer comes after the next words
    with page.expect_response("**/score?*"):
        page.evaluate(DROP.replace("transfer.items.add(", "if (name) transfer.items.add("), ["", "", ""])
    page.wait_for_timeout(300)
    assert page.get_by_role("status").inner_text() == "No file was dropped."
    assert page.locator("#result").is_hidden()


def test_an_image_is_pasted(page):
    paste(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    page.evaluate("dispatchEvent(new ClipboardEvent('paste', { clipboardData: new DataTransfer() }))")
    assert page.get_by_role("status").inner_text() == "No file was pasted."


def test_the_status_says_label_and_score_or_why_there_are_none(page):
    answer_with(page, scores={"benign": 0.287, "malignant": 0.713})
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_role("status").get_by_text("Scored. malignant: score 0.713").wait_for()
    scores, rule = {"benign": 0.632, "malignant": 0.368}, {"positive": "malignant"}
    for label, threshold, said in (
        ("malignant", 0.222, "malignant: score 0.368, above the threshold of 0.222"),
        ("benign", 0.4, "benign: malignant has a score of 0.368, below the threshold of 0.400"),
    ):
        answer_with(page, scores=scores, label=label, threshold=threshold, **rule)
        drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
        page.get_by_role("status").get_by_text(f"Scored. {said}").wait_for()
    answer_with(page, error="the image: it is blurred: it shows no detail")
    drop(page, "lesion.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_role("status").get_by_text(
        "lesion.jpg was not scored: it is blurred: it shows no detail"
    ).wait_for()
    assert page.locator("#result").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900])
def test_long_labels_fit_and_axe_finds_no_barrier(page, axe, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 844})
    assert axe(page) == []
    answer_with(page, scores=dict(zip(SEVEN, (0.01, 0.02, 0.5, 0.2, 0.17, 0.09, 0.01), strict=True)))
    drop(page, "L" * 120 + ".jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("Scored.").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    lines = page.locator("dt span:last-child").evaluate_all(
        """all => all.map(each => {
            const text = document.createRange();
            text.selectNodeContents(each);
            return text.getClientRects().length;
        })"""
    )
    assert lines == [1] * 7  # no score is broken
    assert axe(page) == []
    answer_with(page, error="the image: it is blank: nothing stands out from the background")
    drop(page, "blank.jpg", "image/jpeg", IMAGE.read_bytes())
    page.get_by_text("was not scored").wait_for()
    assert axe(page) == []


@pytest.mark.skipif("ISICVISION_SCREENSHOTS" not in os.environ, reason="asked for by ISICVISION_SCREENSHOTS")
def test_image_of_the_page(browser):
    folder = Path(PROJECT_ROOT, os.environ["ISICVISION_SCREENSHOTS"])
    page = browser.new_page()
    with deploy_local(Path(PROJECT_ROOT, "outputs/bundle")) as service:
        page.goto(service.scoring_uri)
        for width, name in ((360, "../../outputs/page-phone"), (900, "page")):
            page.set_viewport_size({"width": width, "height": 600})
            page.locator("#file").set_input_files(IMAGE)
            page.get_by_text("Scored.").wait_for()
            page.wait_for_timeout(300)
            page.screenshot(path=folder / f"{name}.jpg", type="jpeg", quality=85, full_page=True)
    page.close()
