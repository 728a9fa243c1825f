"""The report of an evaluation: one HTML page with its metrics and plots."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from .. import plots
from ..data.dataset import ImageDataset
from ..data.splitting import group_count, group_words, shared_count, shared_words
from ..evaluation.evaluation import Evaluation
from ..model.classifier import ImageClassifier
from ..outputs import Outputs
from ..plots.style import encode
from ..text import counted
from . import cards, record
from .templates import write_page


def write_results(
    evaluation: Evaluation,
    model: ImageClassifier,
    parts: dict[str, ImageDataset],
    outputs: Outputs,
    slices: Sequence[pd.DataFrame] = (),
    external: pd.DataFrame | None = None,
) -> list[Path]:
    """Write report, metrics (see `record.add_metrics`), model card and checklist for reviewers; return their paths."""
    train, test, about = parts["train"], evaluation.table, model.metadata
    notes = [
        f"Network {about['backbone']} at {model.image_size} px, trained {about['training']['finished']} on "
        f"{counted(len(train), 'image')}; lesions: {group_words(**group_count(train.table))}.",
        shared_words(**shared_count(parts)),
        f"Test images: {plots.credit(test) or 'see their source for license and attribution'}.",
        about["caveat"],
    ]
    return [
        write_evaluation(evaluation, outputs.evaluation, "Evaluation of the skin lesion classifier", notes),
        record.add_metrics(evaluation, outputs.model, slices, external),
        cards.write_model_card(outputs.model),
        cards.write_checklist(outputs, parts),
    ]


def write_evaluation(
    evaluation: Evaluation, where: str | os.PathLike, title: str, notes: Sequence[str] = ()
) -> Path:
    """Write one HTML page, which needs no other file, with the metrics, their intervals and the plots; return its path.

    The notes, paragraphs below the title, say which model, which images, what not to use it for.

    >>> made = Evaluation.from_scores(["benign", "malignant"] * 2, [0.1, 0.9, 0.6, 0.4])
    >>> write_evaluation(made, "report.html", "Evaluation").name
    'report.html'
    """
    figure, axes = plt.subplots(2, 2, figsize=(10, 9), layout="constrained")
    for number, plot in enumerate((plots.roc, plots.precision_recall, plots.confusion, plots.scores)):
        plot(evaluation, axes.flat[number])
    tables = {f"per {unit}": _written(record.figures(each)) for unit, each in evaluation.units.items()}
    return write_page(
        where,
        "evaluation.html.j2",
        title=title,
        notes=notes,
        images=counted(len(evaluation.table), "test image"),
        over="lesions" if group_count(evaluation.table)["groups"] else f"images ({group_words(None)})",
        positive=evaluation.positive,
        table=pd.concat(tables, axis=1).fillna("").to_html(border=0),
        plots=encode(figure),
    )


def _written(figures):
    table = figures.map("{:.3f}".format).replace("nan", "undefined")
    table[figures.isna() & figures["value"].notna().to_numpy()[:, None]] = "too few lesions"
    return table
