"""The documents as a site: every page is built without a warning, every link leads somewhere, nothing is fetched."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    if not all(importlib.util.find_spec(name) for name in ("mkdocs", "material")):
        pytest.skip("MkDocs is not installed: make docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


def test_every_document_and_notebook_is_a_page(site):
    for pattern in ("*.md", "docs/**/*.md", "code/0*/*.md", "code/0*/[0-9]*.ipynb"):
        for path in ROOT.glob(pattern):
            name = path.relative_to(ROOT).with_suffix(".html")
            assert (site / (name.with_name("index.html") if path.stem == "README" else name)).is_file()


def test_every_page_of_the_menu_is_there_and_every_document_is_in_it(site):
    menu = set(
        re.findall(r":\s+([\w./]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    )
    documents = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.md", "docs/**/*.md", "code/0*/*.md", "sample_data/*.md")
        for path in ROOT.glob(pattern)
    }
    assert menu == documents


def test_every_link_and_image_is_there(site):
    broken = []
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            if re.match(r"[a-z]+:|//|#", link) or page.name == "404.html":
                continue
            target = page.parent / unquote(re.split("[?#]", link)[0])
            if not (target.is_file() or (target / "index.html").is_file()):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert not broken


def test_no_page_fetches_fonts_scripts_or_images_from_elsewhere(site):
    fetches = (
        r'<(?:script|img|iframe)\b[^>]*\bsrc="(?:https?:)?//'
        r'|<link\b[^>]*rel="(?:stylesheet|preconnect)"[^>]*href="(?:https?:)?//'
    )
    for page in site.rglob("*.html"):
        assert not re.search(fetches, page.read_text(encoding="utf-8")), page


def test_the_page_of_the_demo_opens_it_or_says_why_there_is_none(site):
    page = (site / "docs" / "demo.html").read_text(encoding="utf-8")
    is_there = (site / "docs" / "demo" / "index.html").is_file()
    assert ("This site has no demo: " in page) != is_there and ('href="demo/index.html"' in page) == is_there
