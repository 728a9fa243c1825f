"""Write the cards, a page about a model and a page about a dataset; every figure comes from the model or the dataset.

The model card has the sections of Mitchell et al., *Model Cards for Model Reporting*, 2019, and a head for the Hugging
Face Hub; the data card those of Pushkarna et al., *Data Cards*, 2022, as far as a table can fill them.
"""

import dataclasses
import json
import os
from pathlib import Path

from ..data import associations, findings
from ..data.dataset import ImageDataset
from ..data.splitting import group_count, group_words, shared_words
from ..files import RUN_RECORD, user_path
from ..model.settings import Settings
from ..text import file_size
from . import record, summary
from .templates import write_page


def write_model_card(folder: str | os.PathLike) -> Path:
    """Write README.md, the model card, into the folder of a saved model.

    What model.json and the run record, if there is one, lack is shown as "not recorded". Raises FileNotFoundError
    without a model, ValueError if a file cannot be read or the record is of another model.
    """
    folder = user_path(folder)
    path, of_run = folder / "model.json", folder / RUN_RECORD
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        training = model["training"] or {}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path}: there is no model; ImageClassifier.save makes one") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} was not written by ImageClassifier.save: {error!r}") from error
    run = record.read(of_run) if of_run.exists() else {}
    trained = {name: run["training"].get(name) for name in ("manifest", "finished")} if run else {}
    told = [(training, trained), (model, run.get("model", {}))]
    if any(ours.get(name) != value for ours, theirs in told for name, value in theirs.items()):
        raise ValueError(f"{of_run} is of another model than {path.name}: write it again with record.write")
    names = [field.name for field in dataclasses.fields(Settings)]
    counts, weights = training.get("images", {}), [*folder.glob("network*.safetensors")]
    return write_page(
        folder / "README.md",
        "model_card.md.j2",
        model=model,
        run=run,
        training=training,
        settings={name: training[name] for name in names if training.get(name) is not None},
        parts=run.get("split") or {"train": training | {"images": sum(counts.values()), "labels": counts}},
        size=file_size(sum(file.stat().st_size for file in weights)) if weights else None,
        shared="shared_groups" in run and shared_words(run["shared_groups"], run.get("groups_known", 1)),
    )


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
        missing=missing[missing["all"] > 0].map("{:.1%}".format).reset_index(),
        findings=found.drop(columns="excluded").reset_index(),
        leaks=summary.leak_words(findings.leaks(dataset)),
        shortcuts=summary.shortcut_words(dataset),
    )
