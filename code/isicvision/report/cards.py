"""The cards: a page on a model and a page on a data set, written from the run record and from the table of images.

`model_card` has the sections of Mitchell et al., *Model Cards for Model Reporting*, 2019, under a head that the Hugging
Face Hub reads; `data_card` those of Pushkarna et al., *Data Cards*, 2022, as far as a table can fill them. The words
stand in model_card.md.j2 and data_card.md.j2; every figure comes from what is described.
"""

import dataclasses
import json
import os
from pathlib import Path

import pandas as pd
from jinja2 import ChainableUndefined, Environment, FileSystemLoader
from markupsafe import Markup

from ..data import datareport
from ..data.dataset import ImageDataset
from ..data.splitting import group_count, group_words, shared_words
from ..files import replacing, user_path
from ..model.settings import Settings
from ..text import counted, file_size
from . import record


def model_card(folder: str | os.PathLike) -> Path:
    """Write README.md, the model card, into the folder of a saved model.

    Parameters
    ----------
    folder
        With model.json and, if `record.write` made one, run.json. What they lack is said to be "not recorded".

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no model, a file cannot be read, or run.json is of another model.
    """
    folder = user_path(folder)
    path, of_run = folder / "model.json", folder / record.FILE
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        training = model["training"] or {}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no model; ImageClassifier.save makes one") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no model.json of ImageClassifier.save: {error!r}") from error
    run = record.read(of_run) if of_run.exists() else {}
    trained = {name: run["training"].get(name) for name in ("manifest", "finished")} if run else {}
    if any(training.get(name) != value for name, value in trained.items()) or any(
        model.get(name) != value for name, value in run.get("model", {}).items()
    ):
        raise ValueError(f"{of_run} is of another model than {path.name}: write it anew with record.write")
    names = [field.name for field in dataclasses.fields(Settings)]
    counts, weights = training.get("images", {}), [*folder.glob("network*.safetensors")]
    return _write(
        folder / "README.md",
        "model_card.md.j2",
        model=model,
        run=run,
        training=training,
        settings={name: training[name] for name in names if training.get(name) is not None},
        parts=run.get("split") or {"train": training | {"images": sum(counts.values()), "labels": counts}},
        size=file_size(sum(file.stat().st_size for file in weights)) if weights else None,
        shared=shared_words(run["shared_groups"], run.get("groups_known", 1))
        if "shared_groups" in run
        else None,
    )


def data_card(dataset: ImageDataset, path: str | os.PathLike) -> Path:
    """Write the data card of a data set.

    Parameters
    ----------
    dataset
        Checked: what later steps read. Its `set_aside` is counted.
    path
        Of the Markdown file.
    """
    table, missing = dataset.table, datareport.missing(dataset)
    columns = {
        role: datareport.dictionary(dataset, [c for c in table if datareport.role(c, table) == role])
        for role in ("patient", "diagnosis", "source")
    }
    found = datareport.proposals(dataset, datareport.findings(dataset))
    return _write(
        user_path(path),
        "data_card.md.j2",
        dataset=dataset,
        groups=group_words(**group_count(table)),
        manifest=record.manifest(dataset),
        summary=dataset.summary().reset_index(),
        columns={role: rows.drop(columns=["made by", "example"]) for role, rows in columns.items()},
        sources=record.sources(dataset),
        missing=missing[missing["all"] > 0].map("{:.1%}".format).reset_index(),
        findings=found.drop(columns="excluded").reset_index(),
        leaks=datareport.leak_words(datareport.leaks(dataset)),
        shortcuts=datareport.shortcut_words(dataset),
    )


def _write(path, template, **values):
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=ChainableUndefined,  # what a record lacks, whatever is asked of it
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    pages.filters |= {"table": _table, "groups": _groups, "counted": counted}
    text = pages.get_template(template).render(values)
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def _groups(part):
    """Say how many lesions a part of a record has: str, None where it says nothing."""
    return group_words(part["groups"], part.get("groups_known", 1)) if "groups" in part else None


def _table(rows):
    return Markup(datareport.markdown(pd.DataFrame(rows).astype(object).fillna("not recorded")))


def _shown(value):
    """Say what is missing, and keep a value within its cell of a table."""
    if value is None or isinstance(value, ChainableUndefined):
        return "not recorded"
    return value if isinstance(value, Markup) else str(value).replace("|", "\\|").replace("\n", " ")
