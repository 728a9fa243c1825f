"""Write the data summary report, with the sections of the Team Data Science Process, and two data dictionaries."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .. import plots
from ..data import associations, findings
from ..data.associations import OWN_COLUMNS, frequent, is_numeric
from ..data.dataset import ImageDataset
from ..data.measures import MEASURES
from ..data.splitting import group_count, group_words
from ..files import user_path
from .templates import render, write_page


def write(
    dataset: ImageDataset,
    folder: str | os.PathLike,
    kept: ImageDataset | None = None,
    exclude: Sequence[str] = (),
) -> list[Path]:
    """Write the data summary report, with its plots, and two data dictionaries into a folder; return the three pages.

    `dataset` is measured and complete; `kept`, by default the same, is what later steps read, after exclusions (of the
    problems `exclude`) and corrections.

    >>> write(dataset.measure(), "outputs/data_report")  # doctest: +SKIP
    """
    folder, table = user_path(folder), dataset.table
    kept = dataset if kept is None else kept
    folder.mkdir(parents=True, exist_ok=True)
    before = table.set_index("path")["label"].loc[kept.paths]
    raw = [column for column in table if column not in (*OWN_COLUMNS, *MEASURES)]
    ranked, missing = associations.rank(dataset), associations.missing(dataset)
    numbers = [column for column in ranked["column"] if is_numeric(table[column])]
    texts = [c for c in table if associations.role(c, table) != "identifier" and c not in numbers]
    _draw(dataset, ranked, missing if raw else None, folder)
    summary = write_page(
        folder / "data_summary.md",
        "data_summary.md.j2",
        dataset=dataset,
        kept=kept,
        corrected=(before.to_numpy() != kept.table["label"].to_numpy()).sum(),
        groups=lambda part: group_words(**group_count(part.table)),
        raw=raw,
        measured=len(MEASURES),
        problems=findings.count(dataset, findings.find(dataset), exclude),
        missing=missing,
        diagnoses=_diagnoses(table, texts),
        numbers=table[numbers].describe().T.rename_axis("column").reset_index() if numbers else [],
        values=_frequent_values(table, texts),
        ranked=ranked,
        shortcuts=shortcut_words(dataset),
        leaks=leak_words(findings.leaks(dataset)),
        credits=_credits(table),
    )
    found, used = findings.dictionary(dataset, raw), findings.dictionary(dataset, table.columns)
    dictionaries = {
        "raw": ("Data dictionary: the source, as found", found.drop(columns="made by")),
        "processed": ("Data dictionary: the table of images, as used", used),
    }
    pages = [
        write_page(folder / f"data_dictionary_{name}.md", "dictionary.md.j2", title=title, rows=rows)
        for name, (title, rows) in dictionaries.items()
    ]
    return [summary, *pages]


def _draw(dataset, ranked, missing, folder):
    figures = {
        "label": plots.class_balance(dataset),
        "measures": plots.measures(dataset),
        "associations": plots.associations(ranked),
    }
    if missing is not None:
        figures["missing"] = plots.missing(missing)
    for name, figure in figures.items():
        plots.save(figure, folder / f"{name}.png")


def _diagnoses(table, columns):
    names = [name for name in columns if associations.role(name, table) == "diagnosis"]
    shown = [name for name in names if 1 < table[name].nunique() <= 40]
    return [pd.crosstab(table[name], table["label"]).reset_index() for name in shown]


def _frequent_values(table, columns):
    counts = {column: frequent(table[column], 12).value_counts() for column in columns}
    return pd.concat(counts, names=["column", "value"]).reset_index(name="images") if counts else []


def _credits(table):
    columns = [column for column in ("attribution", "copyright_license") if column in table]
    return table[columns].fillna("none given").value_counts().reset_index() if columns else []


def leak_words(leaks: dict) -> str:
    """Put the counts of `findings.leaks` into sentences.

    >>> leak_words({"groups": None, "exact": 0, "near": 3})[:38]
    'Lesions with several images: **unknown'
    """
    return render("leaks.md.j2", **leaks).strip()


def shortcut_words(dataset: ImageDataset) -> str:
    """Say how well the frame alone, and all of frame and source, predict the label; also among images confirmed alike.

    >>> table = pd.DataFrame({"path": [*"abcd"], "label": [*"xxyy"], "group": [*"abcd"]})
    >>> "nothing varies" in shortcut_words(ImageDataset(table.assign(**dict.fromkeys(associations.FRAME, 0))))
    True
    """
    alike = dataset.where(associations.confirmed_alike(dataset.table))
    parts = {"all": dataset} | ({"alike": alike} if 0 < len(alike) < len(dataset) else {})
    found = {
        name: {
            "images": len(part),
            "frame": associations.label_from_metadata(part, associations.FRAME),
            "whole": associations.label_from_metadata(part),
        }
        for name, part in parts.items()
    }
    return render("shortcuts.md.j2", **found).strip()
