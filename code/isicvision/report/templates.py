"""Render pages for people from the Jinja templates beside this module."""

import os
from pathlib import Path

import pandas as pd
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from ..data.findings import short
from ..data.splitting import group_words
from ..files import replacing, user_path
from ..text import counted, printable


def write_page(path: str | os.PathLike, template: str, **values: object) -> Path:
    """Render a template into a file and return its path."""
    path, text = user_path(path), render(template, **values)
    with replacing(path) as part:
        part.write_text(printable(text), encoding="utf-8")
    return path


def render(template: str, **values: object) -> str:
    """Render a template; in Markdown, a value that is missing is shown as "not recorded"."""
    is_html = template.endswith(".html.j2")
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=ChainableUndefined,  # so that a template may ask for any part of a missing value
        autoescape=is_html,
        finalize=None if is_html else _shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"table": _table, "groups": _groups, "counted": counted}
    return pages.get_template(template).render(values)


def _shown(value):
    """Say what is missing, and keep a value within its cell of a table."""
    if value is None or isinstance(value, ChainableUndefined):
        return "not recorded"
    return value if isinstance(value, Markup) else _escaped(str(value))


def _escaped(text):
    return text.replace("|", "\\|").replace("\n", " ")


def _table(rows, missing="not recorded"):
    """Write rows as a Markdown table, without pandas' optional dependency; ``None.`` without rows."""
    frame = pd.DataFrame(rows).astype(object)
    if not len(frame):
        return Markup("None.")
    shown = frame.fillna(missing).map(lambda value: short(value) if isinstance(value, float) else str(value))
    lines = [frame.columns, ["---"] * frame.shape[1], *shown.itertuples(False, None)]
    return Markup("\n".join("| " + " | ".join(map(_escaped, line)) + " |" for line in lines))


def _groups(part):
    """Say how many lesions a part of a run record has; None if it does not say."""
    return group_words(part["groups"], part.get("groups_known", 1)) if "groups" in part else None
