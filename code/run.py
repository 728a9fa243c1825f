"""Run the notebooks of the three folders in order with papermill: what `make run` and `make notebooks` call."""

import argparse
import difflib
import os
import sys
import time
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from isicvision.project import read_parameters

ROOT = Path(__file__).resolve().parents[1]


def notebooks():
    """List the notebooks in the order of their numbers, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "code").glob("0*/[0-9]*.ipynb"))


def check(parameters):
    """Return which of `parameters` each notebook declares; exit if one is declared by none."""
    declared = {path: set(papermill.inspect_notebook(str(path))) for path in notebooks()}
    known = set().union(*declared.values())
    for name in parameters:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            sys.exit(f"No notebook has a parameter {name}{hint} There are: {', '.join(sorted(known))}")
    return {
        path: {name: parameters[name] for name in names & set(parameters)} for path, names in declared.items()
    }


def note_what_a_preset_overrides(parameters):
    """Say which of `parameters` have no effect beside PRESET."""
    names = ("EPOCHS", "BATCH_SIZE", "LEARNING_RATE", "OPTIMIZER", "L2", "DROPOUT", "VIEWS")
    idle = [name for name in names if name in parameters]
    if parameters.get("PRESET") and idle:
        print(
            f"PRESET {parameters['PRESET']} chooses {', '.join(idle)} by itself, what the file says has no effect. "
            "Settings of fit go through SETTINGS, such as SETTINGS: {batch_size: 16}; else leave PRESET out."
        )


def execute(path, target, parameters):
    """Execute one notebook and return the result; exit with a clear word if a cell fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    print(f"{path} …", flush=True)
    try:
        result = papermill.execute_notebook(
            str(path),
            str(target),
            parameters,
            progress_bar=False,
            store_widget_state=False,
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # a warning on every start means nothing here
        )
    except PapermillExecutionError as error:
        sys.exit(
            f"{path} failed in cell {error.exec_count}:\n\n{error.ename}: {error.evalue}\n\nSee {target}"
        )
    print(f"    {time.perf_counter() - started:.0f} s", flush=True)
    return tidy(result)


def to_html(notebook, target):
    """Write an executed notebook as one HTML page."""
    body, _ = HTMLExporter().from_notebook_node(notebook)
    target.write_text(body, encoding="utf-8")


def tidy(notebook):
    """Take out what means nothing once the kernel is gone: notes of the run, finished bars, live widgets.

    A widget leaves the picture that it carries for such pages.
    """
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        kept = []
        for output in cell.get("outputs", []):
            is_widget = output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if not is_widget or {"image/jpeg", "image/png"} & set(output["data"]):
                kept.append(output)
        if cell.cell_type == "code":
            cell.outputs = kept
    return notebook


def main():
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--source",
        help="sample, isic, the URL of an archive with its API, or a folder; default: SOURCE of the parameter "
        "file, else sample",
    )
    parser.add_argument("--parameters", help="YAML file of parameters for the notebooks")
    parser.add_argument(
        "--in-place", action="store_true", help="write the executed notebooks back into code/"
    )
    arguments = parser.parse_args()

    parameters = {}
    if arguments.parameters:
        try:
            parameters = read_parameters(arguments.parameters)
        except ValueError as error:
            sys.exit(str(error))
    if arguments.source or "SOURCE" in parameters:
        source = str(arguments.source or parameters["SOURCE"])
        if Path(source).is_dir():
            source = str(Path(source).resolve())
        elif source not in ("sample", "isic") and "://" not in source:
            sys.exit(
                f"SOURCE is sample, isic, the URL of an archive or a folder; there is no folder {source}"
            )
        parameters["SOURCE"] = source
    os.chdir(ROOT)
    wanted = check(parameters)
    note_what_a_preset_overrides(parameters)

    outputs = Path(parameters.get("OUTPUTS", "outputs"))
    started = time.perf_counter()
    for path in notebooks():
        target = outputs / "notebooks" / path.relative_to("code")
        result = execute(path, target, wanted[path])
        to_html(result, target.with_suffix(".html"))
        if arguments.in_place:
            nbformat.write(result, path)
    print(f"\nAll {len(notebooks())} notebooks ran in {time.perf_counter() - started:.0f} s. Look at:")
    for what, name in (
        ("the executed notebooks", "notebooks"),
        ("what the data are like", "data_report/data_summary.md"),
        ("the data card", "data_report/data_card.md"),
        ("the evaluation report", "evaluation/report.html"),
        ("the model", "model"),
        ("the model card", "model/README.md"),
        ("the service bundle", "bundle"),
    ):
        print(f"  {what:<24}{outputs / name}")


if __name__ == "__main__":
    main()
