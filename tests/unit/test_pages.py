import re
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "code"))

import run  # noqa: E402
from pages import Pages, describe_images  # noqa: E402


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """The pages of the committed notebooks, which were executed: path to parsed page."""
    folder = tmp_path_factory.mktemp("outputs") / "notebooks"
    made = Pages(folder)
    for path in run.notebooks():
        made.add(path, run.tidy(nbformat.read(ROOT / path, 4)))
    made.finish(run.notebooks())
    return {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in sorted(folder.rglob("*.html"))
    }


def test_each_link_leads_to_a_page_with_that_anchor_or_to_a_file(pages):
    anchors = {path: {tag["id"] for tag in page.select("[id]")} for path, page in pages.items()}
    dead, checked = [], 0
    for path, page in pages.items():
        for link in page.select("a[href]"):
            where, _, anchor = link["href"].partition("#")
            if re.match("https?://|mailto:", where):
                continue  # to be clicked
            target = (path.parent / unquote(where)).resolve() if where else path
            checked += 1
            if not target.exists() or (anchor and unquote(anchor) not in anchors.get(target, ())):
                dead.append(f"{path.name}: {link['href']}")
            assert target.suffix not in (".ipynb", ".md"), f"{path.name}: {link['href']} opens as text"
    assert checked > 300 and not dead


def test_nothing_comes_from_elsewhere_and_each_image_is_in_the_page_and_described(pages):
    images = 0
    for path, page in pages.items():
        assert not page.select("script[src], link[href], iframe, object, embed, [srcset]"), path
        assert not re.search(r"@import|url\(['\"]?https?:|import\(|cdnjs", str(page)), path
        for image in page.select("img"):
            images += 1
            assert image["src"].startswith("data:image/"), (path, image["src"][:80])
            assert image["alt"].strip() and "No description" not in image["alt"], path
    assert images > 40


def test_the_index_lists_the_notebooks_in_order(pages):
    index = next(page for path, page in pages.items() if path.name == "index.html")
    links = [link["href"] for link in index.select("li a[href]")]
    assert links == [path.relative_to("code").with_suffix(".html").as_posix() for path in run.notebooks()]


def test_an_image_is_described_by_its_heading_and_by_what_its_cell_draws():
    def draws(source, count):
        outputs = [nbformat.v4.new_output("display_data", {"image/png": "AAAA"}) for _ in range(count)]
        return nbformat.v4.new_code_cell(source, outputs=outputs)

    cells = [
        nbformat.v4.new_markdown_cell("# Title\n```\n# a comment\n```\n## 3 Curves\ntext"),
        draws("plots.roc(e)\nplots.precision_recall(e)", 2),
        draws("for x in y:\n    plots.grid(x)", 2),
        draws("Image(x)", 1),
    ]
    notebook = describe_images(nbformat.v4.new_notebook(cells=cells))
    alts = [output.metadata["alt"] for cell in notebook.cells[1:] for output in cell.outputs]
    assert alts == [f"3 Curves: {words}" for words in ("roc", "precision recall", "grid 1", "grid 2", "1")]
