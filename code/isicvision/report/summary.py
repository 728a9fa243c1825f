"""Write the data summary report, with the sections of the Team Data Science Process, and two data dictionaries."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .. import plots
from ..data import associations, findings
from ..data.associations import frequent, is_numeric
from ..data.dataset import ImageDataset
from ..data.splitting import group_count, group_words
from ..fields import ADDED_COLUMNS, MEASURES
from ..files import user_path
from ..model.outliers import REFUSED
from .templates import render, write_page


def write(
    dataset: ImageDataset,
    folder: str | os.PathLike,
    kept: ImageDataset | None = None,
    exclude: Sequence[str] = (),
) -> list[Path]:
    """Write the data summary report, with its plots, and two data dictionaries into a folder; return the three pages.

    `dataset` is measured and complete; `kept`, by default the same, is what is left after corrections and `exclude`.

    >>> write(dataset.measure(), "outputs/data_report")  # doctest: +SKIP
    """
    folder, table = user_path(folder), dataset.table
    kept = dataset if kept is None else kept
    folder.mkdir(parents=True, exist_ok=True)
    before = table.set_index("path")["label"].loc[kept.paths]
    raw = [column for column in table if column not in ADDED_COLUMNS]
    ranked, missing = associations.rank(dataset), associations.missing(dataset)
    numbers = [column for column in ranked["column"] if is_numeric(table[column])]
    roles = {name: associations.role(name, table) for name in table if name not in numbers}
    few = [name for name in roles if roles[name] == "diagnosis" and 1 < table[name].nunique() <= 40]
    texts = [name for name, role in roles.items() if role != "identifier"]
    values = {name: frequent(table[name], 12).value_counts() for name in texts}
    plots.save(plots.class_balance(dataset), folder / "label.png")
    plots.save(plots.measures(dataset), folder / "measures.png")
    plots.save(plots.associations(ranked), folder / "associations.png")
    if raw:
        plots.save(plots.missing(missing), folder / "missing.png")
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
        diagnoses=[pd.crosstab(table[name], table["label"]).reset_index() for name in few],
        numbers=table[numbers].describe().T.rename_axis("column").reset_index() if numbers else [],
        values=pd.concat(values, names=["column", "value"]).reset_index(name="images"),
        ranked=ranked,
        shortcuts=shortcut_words(dataset),
        leaks=leak_words(findings.leaks(dataset)),
        sources=dataset.sources(),
    )
    raw_page, page = (folder / f"data_dictionary_{name}.md" for name in ("raw", "processed"))
    _dictionary(raw_page, "the source, as found", findings.dictionary(dataset, raw).drop(columns="made by"))
    _dictionary(page, "the table of images, as used", findings.dictionary(dataset, table.columns))
    return [summary, raw_page, page]


def _dictionary(path, title, rows):
    write_page(path, "dictionary.md.j2", title=f"Data dictionary: {title}", rows=rows)


def leak_words(leaks: dict) -> str:
    """Put the counts of `findings.leaks` into sentences.

    >>> leak_words({"groups": None, "exact": 0, "near": 3})[:38]
    'Lesions with several images: **unknown'
    """
    return render("leaks.md.j2", **leaks).strip()


def external_words(compared: pd.DataFrame, sensitivity: float) -> str:
    """Say of each external test of `external.compare` whether threshold (chosen for a sensitivity) and limit hold.

    >>> tests = pd.MultiIndex.from_product([["home", "away"], ["sensitivity", "rejected"]])
    >>> compared = pd.DataFrame({"value": 0.2, "low": 0.1, "high": 0.4}, tests)
    >>> "**It does not hold there**" in external_words(compared, 0.9)
    True
    """
    rows = {name: compared.loc[name].to_dict("index") for name in compared.index.unique(0)[1:]}
    return render("external.md.j2", tests=rows, sensitivity=sensitivity, expected=REFUSED).strip()


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
