"""Write executed notebooks, and the documents they link to, as HTML pages that work offline."""

import base64
import copy
import html
import mimetypes
import os
import re
import urllib.parse
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

ROOT = Path(__file__).resolve().parents[1]
CODE = {".py": "python", ".yml": "yaml", ".yaml": "yaml", ".toml": "toml"}
# JupyterLab's page without the scripts from other hosts, and with an alternative text for each image
TEMPLATE = """{% extends 'index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% macro with(alt, image) %}{{ image | replace("<img ", '<img alt="' ~ (alt | escape_html) ~ '" ', 1) }}{% endmacro %}
{% block data_png scoped %}{{ with(output.metadata.alt, super()) }}{% endblock %}
{% block data_jpg scoped %}{{ with(output.metadata.alt, super()) }}{% endblock %}
"""
ANCHOR = re.compile(r'(?<=<h[1-6] id=")[^"]*|(?<=<a class="anchor-link" href="#)[^"]*')
LINK = re.compile(r'(<(?:a|img)\b[^>]*?\s(?:href|src)=")([^"#:?]+)(#[^"]*)?"')


class Pages:
    """Pages in one folder, linked to each other and to the files of the repository.

    A notebook's page has the path of the notebook below ``code``, a document's page the path of the document.
    """

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self._exporter = HTMLExporter(raw_template=TEMPLATE)
        self._wanted = []  # documents that pages link to

    def add(self, path, notebook):
        """Write the page of an executed notebook whose path in the repository is `path`."""
        self._write(ROOT / path, describe_images(copy.deepcopy(notebook)), self.page(ROOT / path))

    def finish(self, notebooks):
        """Write index.html, which lists the notebooks, and the documents that pages link to; return its path."""
        lines = ["# The executed notebooks", ""]
        for path in notebooks:
            title = nbformat.read(ROOT / path, 4).cells[0].source.splitlines()[0].lstrip("# ")
            lines.append(f"* {path.parent.name}: [{title}]({path})")
        lines += ["", "See also [the project](README.md) and [all documents](docs/README.md)"]
        index = self.folder / "index.html"
        self._write(ROOT / "index.md", _as_notebook("\n".join(lines)), index)
        done = set()
        while self._wanted:
            if (path := self._wanted.pop()) not in done:
                done.add(path)
                self._write(path, _as_notebook(_text(path)), self.page(path))
        return index

    def page(self, path):
        """Return the page of a notebook or document; None for a file that gets no page."""
        if path.suffix not in (".md", ".ipynb", *CODE) or ROOT not in path.parents:
            return None
        name = str(path.relative_to(ROOT)).removeprefix(f"code{os.sep}")
        return self.folder / (f"{name}.html" if path.suffix in CODE else f"{os.path.splitext(name)[0]}.html")

    def _write(self, path, notebook, target):
        body, _ = self._exporter.from_notebook_node(notebook, {"metadata": {"name": path.stem}})
        if path.suffix != ".ipynb":
            body = ANCHOR.sub(lambda anchor: _slug(anchor[0]), body)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            LINK.sub(lambda link: self._link(link, path.parent, target), body), encoding="utf-8"
        )

    def _link(self, link, origin, page):
        """Point a link of a file in the folder `origin` to the page of its target, or else to the target itself."""
        path = Path(os.path.normpath(origin / urllib.parse.unquote(html.unescape(link[2]))))
        if not path.exists():
            return link[0]
        if link[1].startswith("<img"):
            data = base64.b64encode(path.read_bytes()).decode()
            return f'{link[1]}data:{mimetypes.guess_type(path)[0]};base64,{data}"'
        target = self.page(path) or path
        anchor = "" if path.suffix in CODE else link[3] or ""  # a page of code has no line numbers
        if target != path and path.suffix != ".ipynb":
            self._wanted.append(path)
        return f'{link[1]}{urllib.parse.quote(os.path.relpath(target, page.parent))}{anchor}"'


def _as_notebook(text):
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(text)])


def _text(path):
    text = path.read_text(encoding="utf-8")
    if path.suffix in CODE:
        return f"# {path.name}\n\n````{CODE[path.suffix]}\n{text}\n````\n"
    return re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)  # without the YAML at the head of a card


def _slug(anchor):
    """Return the anchor of a heading as GitHub writes it: the documents link to these."""
    return re.sub(r"[^\w-]", "", urllib.parse.unquote(html.unescape(anchor)).lower())


def describe_images(notebook):
    """Give each image an alternative text: the heading above it and the name of the function that drew it."""
    heading = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in re.sub(r"```.*?```", "", cell.source, flags=re.DOTALL).splitlines():
                heading = line.strip("# ") if line.startswith("#") else heading
        images = [
            each
            for each in cell.get("outputs", [])
            if {"image/png", "image/jpeg"} & set(each.get("data", {}))
        ]
        drawn = re.findall(r"\b(?:plots|widgets)\.(\w+)\(", cell.source)
        if len(drawn) != len(images):
            names = ", ".join(dict.fromkeys(drawn))
            drawn = [f"{names} {n}".strip() for n in range(1, len(images) + 1)]
        for image, name in zip(images, drawn, strict=True):
            image.metadata["alt"] = f"{heading}: {name.replace('_', ' ')}"
    return notebook
