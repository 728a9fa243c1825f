"""Widgets for other eyes and windows: contrast in both themes, 600 pixels, a screen reader, axe-core."""

import pytest

from browser.test_widgets import SAMPLE, SCORED
from isicvision import PROJECT_ROOT

MANY = """
odd = ["<b>bold</b>", "$x^2$", "suspicious", "a label as long as a sentence " * 4, *"defghijk"]
twelve = ImageDataset(dataset.table.assign(label=[odd[n % 12] for n in range(len(dataset))]))
scores = np.random.default_rng(0).dirichlet(np.ones(12), len(dataset))
scored = Evaluation.from_scores(
    twelve.table["label"], scores, classes=twelve.labels, positive="$x^2$", metadata=twelve.table
)
"""
WIDGETS = """
from sklearn.linear_model import LogisticRegression
from isicvision import ImageClassifier, Neighbors
doubts = pd.DataFrame({"path": twelve.paths, "suggested": "d", "quality": 0.5, "issue": True})
annotation = widgets.AnnotationUI(twelve, "decisions.csv", doubts, per_page=6)
annotation.decide(twelve.paths[1], "(exclude)")
threshold = widgets.PrecisionRecallUI(evaluation, per_page=6)
threshold.threshold.value = 0.3
model = ImageClassifier("efficientnet_lite0", dataset.labels, image_size=64, classifier=LogisticRegression())
model.fit(dataset)
neighbors = Neighbors(model, dataset)
wrong = widgets.ParamsUI("fast")
wrong.controls["freeze_epochs"].value = 100
features = np.random.default_rng(0).normal(size=(len(twelve), 4))
mapped = widgets.MapUI(twelve, features, "decisions.csv")
mapped.choose(range(8))
""".splitlines()
SHOWN = [
    "annotation",
    "threshold",
    "widgets.ResultsUI(evaluation, model, per_page=6, neighbors=neighbors)",
    "widgets.ConfusionMatrixUI(evaluation, per_page=6)",
    "widgets.AugmentationUI(dataset)",
    "wrong",
    "widgets.PrecisionRecallUI(scored, per_page=6)",
    "widgets.ConfusionMatrixUI(scored, per_page=6)",
    "mapped",
]
OUTPUT = ".jp-OutputArea-output > .lm-Widget"
# the contrast of each text to what lies behind it, as WCAG 2.2 has it; what is switched off is exempt
CONTRAST = """part => {
    const parse = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return { rgb: text.startsWith("color(srgb") ? [r, g, b].map(each => 255 * each) : [r, g, b], a };
    };
    const over = (top, share, below) => top.map((each, n) => share * each + (1 - share) * below[n]);
    const luminance = rgb => rgb.map(each => each / 255)
        .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
        .reduce((sum, each, n) => sum + each * [0.2126, 0.7152, 0.0722][n], 0);
    const ground = element => {
        if (!element) return [255, 255, 255];
        const { rgb, a } = parse(getComputedStyle(element).backgroundColor);
        return a === 1 ? rgb : over(rgb, a, ground(element.parentElement));
    };
    const found = [];
    for (const root of document.querySelectorAll(part))
        for (const element of root.querySelectorAll("*")) {
            const text = element.matches("select, input") ? element.value
                : [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data).join("").trim();
            if (!text || element.matches("option, style, script") || element.closest(":disabled")) continue;
            if (!element.checkVisibility({ visibilityProperty: true })) continue;
            let share = 1;
            for (let each = element; each; each = each.parentElement) share *= getComputedStyle(each).opacity;
            const behind = ground(element), { rgb, a } = parse(getComputedStyle(element).color);
            const [light, dark] = [luminance(behind), luminance(over(rgb, a * share, behind))].sort((x, y) => y - x);
            found.push([(light + 0.05) / (dark + 0.05), text]);
        }
    return found;
}"""


@pytest.fixture(scope="module")
def lab(lab):
    """The notebook with every widget, with plain labels and with odd ones."""
    lab.show([SAMPLE.format(root=PROJECT_ROOT) + SCORED + MANY + "\n".join(WIDGETS), *SHOWN])
    return lab


def look(lab, theme="Light", width=1280):
    lab.page.evaluate(
        "theme => jupyterapp.commands.execute('apputils:change-theme', { theme })", f"JupyterLab {theme}"
    )
    lab.page.wait_for_function(
        f"() => document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'"
    )
    lab.page.set_viewport_size({"width": width, "height": 1000})
    lab.page.wait_for_timeout(500)  # the theme's transitions


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_text_can_be_read_in_both_themes(lab, theme):
    look(lab, theme)
    found = lab.page.evaluate(CONTRAST, OUTPUT)
    texts = {text for _, text in found}
    assert len(found) > 300
    assert {"confirm [Enter]", "j [0]", "suspicious [b]", "16 (20%)", "learning_rate", "wrong"} <= texts
    assert [(round(contrast, 2), text) for contrast, text in found if contrast < 4.5] == []


@pytest.mark.parametrize("width", [900, 600])
def test_nothing_is_cut_off_in_a_narrow_window(lab, width):
    look(lab, width=width)
    lab.command("application:toggle-left-area")
    try:
        lab.page.wait_for_timeout(500)
        edge = lab.page.locator(".jp-OutputArea-output").first.evaluate(
            "each => each.getBoundingClientRect().right"
        )
        beyond = lab.page.locator(
            f":is({OUTPUT}) :is(button, select, img, td, canvas, .isic-title, .widget-readout)"
        )
        inside = beyond.evaluate_all(
            """(all, edge) => all.filter(each => each.checkVisibility()
                && !each.closest(".widget-gridbox") && each.getBoundingClientRect().right > edge + 1)
                .map(each => each.outerHTML.slice(0, 150))""",
            edge,
        )
        assert inside == []
        assert lab.page.locator(".jupyter-matplotlib-canvas-div:visible").count() == 4  # two curves each
    finally:
        lab.command("application:toggle-left-area")


def test_axe_finds_no_barrier(lab, axe):
    look(lab)
    assert axe(lab.page, ".jp-Notebook .jp-OutputArea") == []


@pytest.mark.parametrize("width", [900, 960, 1040])
def test_arrow_down_selects_the_image_below_however_many_fit_in_a_row(lab, width):
    look(lab, width=width)
    options = lab.page.get_by_role("listbox", name="Images and their labels").get_by_role("option")
    lefts = options.evaluate_all("all => all.map(each => each.offsetLeft)")
    columns = len({*lefts})
    options.first.click()
    lab.page.keyboard.press("ArrowDown")
    lab.wait_for("annotation.grid.selected", columns if columns < 6 else 5)
    lab.page.keyboard.press("z")
    large = lab.page.locator(".isic-large").first
    large.wait_for(state="visible")
    lab.page.keyboard.press("Escape")
    large.wait_for(state="hidden")


def test_a_screen_reader_is_told_what_is_shown_selected_and_decided(lab):
    look(lab)
    page = lab.page
    listbox = page.get_by_role("listbox", name="Images and their labels")
    names = lab.value("annotation.dataset.labels")
    selected = listbox.get_by_role("option", selected=True)
    lab.expect(selected).to_have_count(1)
    selected.click()
    for place in (0, 2, 3, 4, 5):
        listbox.get_by_role("option").nth(place).click()
        page.keyboard.press("a")  # the eleventh label
    page.get_by_role("status").get_by_text(f": {names[10]}. Page 2.").first.wait_for()
    relabeled = listbox.get_by_role("option", name=f"{names[10]} (was")
    lab.expect(relabeled).to_have_count(0)  # those were on page 1
    active = listbox.get_attribute("aria-activedescendant")
    assert selected.get_attribute("id") == active and selected.get_attribute("aria-label").count(
        ", undecided, "
    )
    page.keyboard.press("u")
    page.get_by_role("status").get_by_text("Undone. ").wait_for()
    relabeled.first.wait_for()
    assert (
        listbox.get_by_role("option", name="(exclude) (was").get_attribute("aria-label").count(", decided, ")
        == 1
    )
