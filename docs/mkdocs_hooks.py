"""Gather the documents of the whole repository for MkDocs, with the notebooks as pages and all files that they name."""

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
    return gathered


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
