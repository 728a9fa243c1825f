"""What the other tests here stand on: clicks and keys in JupyterLab reach the kernel, and widgets outlive the page."""

import json

import pytest

KEYS = """
class Keys(anywidget.AnyWidget):
    _esm = '''export default { render({ model, el }) {
        const box = document.createElement("div");
        box.tabIndex = 0;
        box.ariaLabel = model.get("name");
        if (model.get("name") === "guarded") box.dataset.lmSuppressShortcuts = "true";
        box.textContent = "press a key";
        box.addEventListener("keydown", event => model.send({ key: event.key }));
        el.append(box);
    } }'''
    name = traitlets.Unicode().tag(sync=True)

    def __init__(self, name):
        super().__init__(name=name)
        self.keys = []
        self.on_msg(lambda widget, content, buffers: self.keys.append(content["key"]))
"""


def test_a_button_reaches_the_kernel(lab):
    lab.show(
        [
            "from pathlib import Path\nimport ipywidgets",
            "button = ipywidgets.Button(description='Press me')\n"
            "button.on_click(lambda _: Path('pressed.txt').write_text('yes'))\nbutton",
        ]
    )
    assert not (lab.folder / "pressed.txt").exists()
    lab.page.get_by_role("button", name="Press me").click()
    lab.wait_for("Path('pressed.txt').exists()")
    assert (lab.folder / "pressed.txt").read_text(encoding="utf-8") == "yes"


def test_a_figure_says_where_it_was_clicked(lab):
    lab.show(
        [
            "%matplotlib widget\nimport json\nfrom pathlib import Path\nimport matplotlib.pyplot as plt",
            "figure = plt.figure(figsize=(4, 3))\naxes = figure.add_axes((0, 0, 1, 1), xlim=(0, 4), ylim=(0, 3))\n"
            "write = lambda event: Path('click.json').write_text(json.dumps([event.xdata, event.ydata]))\n"
            "figure.canvas.mpl_connect('button_press_event', write)\nplt.show()",
        ]
    )
    lab.page.locator(".jupyter-matplotlib-canvas-div").click(position={"x": 300, "y": 100})
    lab.wait_for("Path('click.json').exists()")
    assert json.loads((lab.folder / "click.json").read_text(encoding="utf-8")) == pytest.approx(
        [3, 2], abs=0.02
    )


def test_keys_go_to_a_focused_widget_and_not_to_the_notebook(lab):
    lab.show(
        [
            "import anywidget, traitlets" + KEYS,
            "guarded = Keys('guarded')\nguarded",
            "bare = Keys('bare')\nbare",
        ]
    )
    cells = lab.page.locator(".jp-Notebook .jp-Cell")
    pressed = ["x", "d", "d", "a", "0", "0", "ArrowDown", "Enter", " "]
    lab.page.get_by_label("guarded").click()
    for key in pressed:
        lab.page.keyboard.press(key)
    lab.wait_for("guarded.keys", pressed)
    assert cells.count() == 3
    # so it is the attribute that does it, on the very element that has the focus
    lab.page.get_by_label("bare").click()
    lab.page.keyboard.press("x")
    lab.page.get_by_label("bare").wait_for(state="detached")
    assert cells.count() == 2


def test_a_widget_shows_rather_than_its_image_and_outlives_page_and_kernel(lab):
    lab.show(
        [
            "import ipywidgets\nfrom IPython.display import display\nfrom matplotlib.figure import Figure\n"
            "from isicvision import plots",
            "slider = ipywidgets.IntSlider(3)\nimage = plots.style.encode(Figure(), 'jpeg')\n"
            "display(slider._repr_mimebundle_() | {'image/jpeg': image}, raw=True)",
        ]
    )
    handle = lab.page.get_by_role("slider")
    assert (
        handle.get_attribute("aria-valuenow") == "3.0" and lab.page.locator(".jp-OutputArea img").count() == 0
    )
    handle.press("ArrowRight")
    lab.wait_for("slider.value", 4)
    lab.reload()
    lab.expect(handle).to_have_attribute("aria-valuenow", "4.0")
    lab.restart()
    lab.expect(handle).to_have_attribute("aria-valuenow", "3.0")
