"""Write a card of a model, one of a dataset, and a checklist for reviewers, from the models, records and datasets.

Sections: Mitchell et al., *Model Cards for Model Reporting*, 2019; Pushkarna et al., *Data Cards*, 2022.
"""

import os
from dataclasses import fields
from pathlib import Path

import pandas as pd

from ..data import associations, findings
from ..data.dataset import ImageDataset
from ..data.splitting import group_count, group_words, shared_words
from ..files import RUN_RECORD, read_json, user_path
from ..model.settings import Settings
from ..outputs import Outputs
from ..text import file_size
from . import record, summary
from .templates import write_page


def write_model_card(folder: str | os.PathLike) -> Path:
    """Write README.md, the model card, into the folder of a saved model.

    What model.json and the run record, if there is one, lack is shown as "not recorded". Raises FileNotFoundError
    without a model, ValueError if a file is damaged or the record is of another model.
    """
    folder = user_path(folder)
    held = _read(folder)
    training, split = held["training"], held["run"].get("split")
    counts, weights = training.get("images", {}), [*folder.glob("network*.safetensors")]
    return write_page(
        folder / "README.md",
        "model_card.md.j2",
        **held,
        settings={x.name: training[x.name] for x in fields(Settings) if training.get(x.name) is not None},
        parts=split or {"train": training | {"images": sum(counts.values()), "labels": counts}},
        size=file_size(sum(file.stat().st_size for file in weights)) if weights else None,
    )


def _read(folder):
    """Read model.json and the run record of the same model: what every page about a model needs, by name."""
    model, of_run = read_json(folder / "model.json"), folder / RUN_RECORD
    training, run = model.get("training") or {}, record.read(of_run) if of_run.exists() else {}
    same = [model.get(name) == value for name, value in run.get("model", {}).items()]
    same += [training.get(x) == run.get("training", {}).get(x) for x in ("manifest", "finished")]
    if run and not all(same):
        raise ValueError(f"{of_run} is of another model than model.json: write it again with record.write")
    shared = "shared_groups" in run and shared_words(run["shared_groups"], run.get("groups_known", 1))
    return {"model": model, "training": training, "run": run, "shared": shared}


def write_checklist(outputs: Outputs, parts: dict[str, ImageDataset]) -> Path:
    """Write evaluation/checklist.md: what CLEAR Derm and TRIPOD+AI ask, answered from records and tables of a split.

    What no file says is "not recorded", what nobody did "not done". Raises as `write_model_card` does.

    >>> write_checklist(outputs, record.load_parts(outputs.split, outputs.model))  # doctest: +SKIP
    """
    whole = ImageDataset(pd.concat([part.table for part in parts.values()], ignore_index=True))
    columns = findings.dictionary(whole, whole.table.columns).set_index("column").to_dict("index")
    about = {"outputs": outputs, "parts": parts, "columns": columns, "table": whole.table}
    page = outputs.evaluation.with_name("checklist.md")
    return write_page(page, "checklist.md.j2", **_read(outputs.model), **about)


def write_data_card(dataset: ImageDataset, path: str | os.PathLike) -> Path:
    """Write the data card, a Markdown file, of a measured dataset: the one that later steps read."""
    table, missing = dataset.table, associations.missing(dataset)
    described = findings.dictionary(dataset, table.columns).drop(columns=["made by", "example"])
    roles = described["column"].map(lambda column: associations.role(column, table))
    found = findings.count(dataset, findings.find(dataset))
    return write_page(
        user_path(path),
        "data_card.md.j2",
        dataset=dataset,
        groups=group_words(**group_count(table)),
        manifest=dataset.manifest(),
        summary=dataset.summary().reset_index(),
        columns={role: described[roles == role] for role in ("patient", "diagnosis", "source")},
        sources=dataset.sources(),
        missing=missing[missing.iloc[:, 0] > 0].map("{:.1%}".format).reset_index(),
        findings=found.drop(columns="excluded").reset_index(),
        leaks=summary.leak_words(findings.leaks(dataset)),
        shortcuts=summary.shortcut_words(dataset),
    )
