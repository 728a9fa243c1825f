"""Keep what a run of the notebooks measured, so that the documents can be held against it.

    make run PARAMETERS=code/parameters/ham10000.yaml SOURCE=ham10000 | tee outputs/run.log
    .venv/bin/python docs/measurements/keep.py outputs docs/measurements/ham10000

Into the second folder go run.json (without the loss of each step), model.json, both cards, the checklist, run.log with
the seconds of each notebook, per_class.csv, plots of the evaluation and of an external test, and printed.txt: what
the cells of the executed notebooks printed. The data summary, its dictionaries and its plots go to its subfolder data.
No image of a person's skin is among them, and paths of the machine are cut out.
"""

import argparse
import base64
import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
from PIL import Image

from isicvision import Evaluation, plots

PASSING = re.compile(r"^<|^\w+UI\(|\(children=|\d+%\|")
"""Figures and widgets, named in place of what they show, and progress bars."""

LINKS = {
    "../model/README.md": "model_card.md",
    "../model/": "",
    "../data_report/": "data/",
    "[report](report.html)": "report",
    "[split](../split/test.csv)": "split",
}
"""What the checklist refers to, and where it is kept, if it is."""


def printed(outputs):
    """Return what the cells of the notebooks under a folder printed: str."""
    lines = []
    for path in sorted((outputs / "notebooks").glob("*/*.ipynb")):
        lines.append(f"# {path.relative_to(outputs / 'notebooks')}")
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                text = output.get("text") or output.get("data", {}).get("text/plain", "")
                if text and output.get("name") != "stderr" and not PASSING.search(text):
                    lines.append(re.sub(r"\x1b\[[\d;]*m", "", text).rstrip())
    return "\n\n".join(lines) + "\n"


def keep_drawn(outputs, target, names):
    """Copy the first plot of each cell of 02_evaluate that calls one of these functions of `plots`."""
    for cell in nbformat.read(outputs / "notebooks" / "02_modeling" / "02_evaluate.ipynb", 4).cells:
        drawn = [output.get("data", {}).get("image/jpeg") for output in cell.get("outputs", [])]
        for name in names:
            if f"plots.{name}(" in cell.source and any(drawn):
                (target / f"{name}.jpg").write_bytes(base64.b64decode(next(filter(None, drawn))))


def keep(outputs, target):
    """Copy the records of the run in `outputs` to the folder `target`."""
    folder = Path(pd.read_csv(outputs / "dataset.csv")["path"].iloc[0]).parent
    away = [
        f"{each}/"
        for each in (folder, folder.parent, folder.parent.parent, outputs.resolve(), Path.cwd(), Path.home())
    ]

    def clean(text):
        for start in away:
            text = text.replace(start, "")
        return text

    (target / "data").mkdir(parents=True, exist_ok=True)
    run = json.loads((outputs / "model" / "run.json").read_text())
    del run["step_loss"]
    (target / "run.json").write_text(clean(json.dumps(run, indent=1)) + "\n")
    shutil.copy(outputs / "model" / "model.json", target / "model.json")
    (target / "run.log").write_text(clean((outputs / "run.log").read_text()))
    (target / "model_card.md").write_text(clean((outputs / "model" / "README.md").read_text()))
    checklist = (outputs / "evaluation" / "checklist.md").read_text()
    for link, kept in LINKS.items():
        checklist = checklist.replace(link, kept)
    (target / "checklist.md").write_text(clean(checklist))
    (target / "printed.txt").write_text(clean(printed(outputs)))
    evaluation = Evaluation.load(outputs / "evaluation" / "predictions.csv")
    evaluation.per_class().round(4).to_csv(target / "per_class.csv")
    for draw in (plots.roc, plots.confusion, plots.reliability):
        plots.save(draw(evaluation).figure, target / f"{draw.__name__}.jpg")
    keep_drawn(outputs, target, ("external", "local_labels"))
    for path in (outputs / "data_report").iterdir():
        if path.suffix == ".md":
            (target / "data" / path.name).write_text(clean(path.read_text()).replace(".png)", ".jpg)"))
        elif path.suffix == ".png":
            with Image.open(path) as image:
                image.convert("RGB").save(target / "data" / f"{path.stem}.jpg", quality=85)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("outputs", type=Path, help="folder of the run")
    parser.add_argument("target", type=Path, help="folder for what is kept")
    arguments = parser.parse_args()
    keep(arguments.outputs, arguments.target)
