"""Gather all documents for MkDocs, with the notebooks as pages, the files that they name, and the demo in a browser."""

import json
import os
import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File, Files
from nbconvert import HTMLExporter
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("*.md", "docs/**/*.md", "code/**/*.md", "sample_data/*.md")
LINK = re.compile(r"\]\(([^)#:\s]+)(#[^)\s]*)?\)")
FOLDER = re.compile(r"\[([^\[\]]+)\]\(([^)#:\s]+)\)")
RESULT = "<!-- the result, as on the service's page -->"
DRAWN = "Synthetic image drawn by sample_data/make_sample.py"


def on_config(config):
    """Make the anchors of headings as GitHub does."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files, config):
    """Take the documents instead of what lies in docs/, and each file that one of them links to."""
    documents = [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]
    notebooks = [
        path for path in sorted(ROOT.glob("code/0*/*.ipynb")) if re.fullmatch(r"[0-9]+_\w+", path.stem)
    ]
    gathered = Files([file for file in files if file.src_dir != config.docs_dir])  # those of the theme
    for path in documents:
        gathered.append(_file(path, config))
    for path in notebooks:
        # nothing from elsewhere: there are no formulas and no plots that need these scripts
        page, _ = HTMLExporter(mathjax_url="", require_js_url="", jquery_url="").from_filename(str(path))
        name = path.relative_to(ROOT).with_suffix(".html").as_posix()
        gathered.append(File.generated(config, name, content=_links(page)))
    for path in sorted(_linked([*documents, *notebooks]) - {*documents, *notebooks}):
        gathered.append(_file(path, config))
    try:
        config.extra["demo"] = "[Open the demo](demo/index.html){ .md-button }"
        for name, content in demo().items():
            given = {"abs_src_path": str(content)} if isinstance(content, Path) else {"content": content}
            gathered.append(File.generated(config, f"docs/demo/{name}", **given))
    except ValueError as reason:
        config.extra["demo"] = f"*This site has no demo: {reason}.*"
    return gathered


def demo(bundle=ROOT / "outputs/bundle", runtime=ROOT / ".venv/onnxruntime-web"):
    """Return the files of the demo in a browser by their names, each as a path or its text.

    Look and behavior are those of the service's page. ValueError says why there can be no demo. A model of other images
    than the bundled sample is not published.
    """
    if not (bundle / "model.json").is_file():
        raise ValueError("there is no model yet. Build it with `make run`, then `make docs`")
    sources = json.loads((bundle / "model.json").read_text(encoding="utf-8"))["training"].get("sources")
    if not sources or not all(each["attribution"].startswith(DRAWN) for each in sources):
        raise ValueError("the model in `outputs/bundle` was not trained on the bundled sample")
    if not runtime.is_dir():
        raise ValueError("ONNX Runtime for browsers is missing. `make docs` fetches it where there is npm")
    page = (ROOT / "code/03_deployment/page.html").read_text(encoding="utf-8")
    own = ROOT / "docs/demo"
    style, script = (page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0] for tag in ("style", "script"))
    result = re.search(r'<section id="result".*?</section>', page, re.DOTALL)[0]
    html = (own / "index.html").read_text(encoding="utf-8").replace(RESULT, result)
    images = {name: ROOT / folder / name for folder, name in re.findall(r'"([\w/]+)/([\w.]+\.jpg)"', html)}
    for path in images.values():
        html = html.replace(path.relative_to(ROOT).as_posix(), path.name)
    files = [
        *own.glob("*.js"),
        *own.glob("*.css"),
        *runtime.iterdir(),
        bundle / "model.onnx",
        bundle / "model.json",
    ]
    return {"index.html": html, "page.css": style, "page.js": script, **images, **{f.name: f for f in files}}


def on_page_markdown(markdown, page, config, files):
    """Point links to notebooks at their pages, those to folders at the folder's README or at nothing."""
    here = ROOT / posixpath.dirname(page.file.src_uri)

    def folder(match):
        text, link = match.groups()
        if not (here / link).is_dir():
            return match[0]
        return f"[{text}]({link.rstrip('/')}/README.md)" if (here / link / "README.md").is_file() else text

    def notebook(match):
        link, anchor = match[1], match[2] or ""
        return f"]({link[:-6]}.html{anchor})" if link.endswith(".ipynb") else match[0]

    markdown = markdown.replace("<!-- demo -->", config.extra["demo"])
    return LINK.sub(notebook, FOLDER.sub(folder, markdown))


def _linked(pages):
    """Return the files of this repository that `pages`, documents or notebooks, link to."""
    links = {(page, link) for page in pages for link, _ in LINK.findall(page.read_text(encoding="utf-8"))}
    targets = {Path(os.path.normpath(page.parent / link)) for page, link in links}
    return {path for path in targets if ROOT in path.parents and path.is_file()}


def _file(path, config):
    return File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path))


def _links(page):
    """Point a notebook's links to notebooks and documents at their pages."""
    page = re.sub(r'(href="(?!https?:)[^"#:]*)README\.md', r"\1index.html", page)
    return re.sub(r'(href="(?!https?:)[^"#:]*)\.(?:ipynb|md)(?=["#])', r"\1.html", page)
