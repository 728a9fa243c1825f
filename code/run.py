"""Run the notebooks of the three folders in order with papermill: what `make run` and `make notebooks` call."""

import argparse
import itertools
import os
import re
import sys
import time
import warnings
from pathlib import Path

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

import isicvision
import notebook_parameters as parameters
from isicvision.files import read_parameters
from isicvision.text import counted, near
from pages import Pages

ROOT = Path(__file__).resolve().parents[1]


def found():
    """List all notebooks of the folders, relative to the repository."""
    return sorted(path.relative_to(ROOT) for path in (ROOT / "code").glob("0*/*.ipynb"))


def notebooks():
    """List the notebooks named like 01_train.ipynb in the order of their numbers, relative to the repository.

    Two with one number in a folder stop the run, since each would overwrite what the other wrote.
    """
    numbered = [path for path in found() if re.fullmatch(r"[0-9]+_\w+", path.stem)]
    for one, other in itertools.pairwise(numbered):
        if one.parent == other.parent and one.stem.partition("_")[0] == other.stem.partition("_")[0]:
            sys.exit(
                f"{one} and {other.name} have the same number: give one of them another, or none, to leave it out"
            )
    return numbered


def defaults(path):
    """Return the parameters that a notebook declares, with their values there: dict."""
    cells = nbformat.read(ROOT / path, 4).cells
    sources = [cell.source for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    exec("\n".join(sources), values := {})
    return {name: value for name, value in values.items() if name != "__builtins__"}


def check(given):
    """Return which of the parameters `given` each notebook declares; exit if one is wrong or declared by none."""
    declared = {path: defaults(path) for path in notebooks()}
    known = sorted(set().union(*declared.values()))
    for name in set(given) - set(known):
        sentence = parameters.unknown(name, known)
        sys.exit(
            f"{sentence[0].upper()}{sentence[1:]}{'' if sentence.endswith('?') else '.'} There are: {', '.join(known)}"
        )
    wanted = {path: {name: given[name] for name in own if name in given} for path, own in declared.items()}
    try:
        for path, own in declared.items():
            parameters.check(own | wanted[path])
    except ValueError as error:
        sys.exit(str(error))
    return wanted


def beginning_with(name):
    """List the notebooks from the one that `name` means: its path, its name, or the beginning of either."""
    paths = notebooks()
    if not name:
        return paths
    wanted = Path(os.path.relpath(name)).as_posix().removesuffix(".ipynb").removeprefix("code/")
    places = [path.relative_to("code").with_suffix("").as_posix() for path in paths]
    within = [place for place in places if place.startswith(wanted)][:1]  # of a folder the first
    starts = {*within, *(place for place in places if place.partition("/")[2].startswith(wanted))}
    if len(starts) != 1:
        several = f"it may be {' or '.join(sorted(starts))}" if starts else "there is none"
        hint = "" if starts else near(wanted, [*places, *(Path(place).name for place in places)])
        sys.exit(f"--from {name}: {several}{hint or '.'} The notebooks are:\n  " + "\n  ".join(places))
    return paths[places.index(starts.pop()) :]


def kept(path, outputs):
    """Say in one line what a run that ended in the notebook `path` leaves, and how to go on."""
    name = path.relative_to("code").with_suffix("").as_posix()
    return (
        f"{outputs}/ keeps what the notebooks before {path.name} wrote. "
        f"To go on there, give the same command with FROM={name} (make run) or --from {name} (run.py)."
    )


def execute(path, target, given, outputs):
    """Execute one notebook and return the result; exit with a clear word if a cell fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    print(f"{path} …", flush=True)
    try:
        result = papermill.execute_notebook(
            str(path),
            str(target),
            given,
            progress_bar=False,
            store_widget_state=False,
            extra_arguments=[
                "--IPKernelApp.log_level=CRITICAL"
            ],  # what it says at start and stop means nothing
        )
    except PapermillExecutionError as error:
        sys.exit(
            f"{path} failed in cell {error.exec_count}:\n\n{error.ename}: {error.evalue}\n\nSee {target}\n"
            + kept(path, outputs)
        )
    except DeadKernelError:
        sys.exit(f"{path}: its Python was killed, most often for want of memory.\n{kept(path, outputs)}")
    print(f"    {time.perf_counter() - started:.0f} s", flush=True)
    return tidy(result)


def run_one(path, given, outputs, pages, in_place):
    """Execute one notebook and write what it became: notebook and page, and with `in_place` the notebook in code/."""
    result = execute(path, outputs.notebooks / path.relative_to("code"), given, outputs.folder)
    pages.add(path, result)
    if in_place:
        nbformat.write(result, path)


def check_positive(given, outputs):
    """Exit if the images that the first notebook found have no label POSITIVE: trainings come later."""
    if given.get("POSITIVE") is not None and outputs.images.exists():
        try:
            parameters.positive(given["POSITIVE"], isicvision.ImageDataset.load(outputs.images).labels)
        except ValueError as error:
            sys.exit(str(error))


def tidy(notebook):
    """Take out what means nothing once the kernel is gone: notes of the run, finished bars, live widgets.

    A widget leaves the image that it carries for such pages.
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
    parser.add_argument(
        "--from",
        dest="first",
        metavar="NOTEBOOK",
        help="go on with this one, such as 02_evaluate, where an earlier run was stopped",
    )
    arguments = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a terminal, and a file on Windows, may not know every letter
    # else the threads of PyTorch's OpenMP spin while they wait: on a busy machine a step takes 5 times as long or more
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    given = {}
    if arguments.parameters:
        try:
            given = read_parameters(arguments.parameters)
        except ValueError as error:
            sys.exit(str(error))
    if arguments.source:
        given["SOURCE"] = arguments.source
    folder = Path(str(given.get("SOURCE", ""))).expanduser()
    if "SOURCE" in given and folder.is_dir():
        given["SOURCE"] = str(folder.resolve())
    os.chdir(ROOT)
    paths = beginning_with(arguments.first)
    wanted = check(given)
    if others := [str(path) for path in found() if path not in wanted]:
        print("Passed over, as they are not named like 01_train.ipynb:", ", ".join(others))

    outputs = isicvision.Outputs(parameters.located(given.get("OUTPUTS", "outputs")))
    pages = Pages(outputs.notebooks)
    started = time.perf_counter()
    for path in paths:
        try:
            run_one(path, wanted[path], outputs, pages, arguments.in_place)
            check_positive(given, outputs)
        except KeyboardInterrupt:
            warnings.simplefilter("ignore")  # of a kernel whose start was cut short
            print(f"\nStopped in {path}. {kept(path, outputs.folder)}", file=sys.stderr)
            sys.exit(130)
    pages.finish(notebooks())
    print(f"\n{counted(len(paths), 'notebook')} ran in {time.perf_counter() - started:.0f} s. Look at:")
    for what, path in (
        ("the executed notebooks", outputs.notebooks / "index.html"),
        ("what the data are like", outputs.data_report / "data_summary.md"),
        ("the data card", outputs.data_card),
        ("the evaluation report", outputs.evaluation),
        ("a checklist for reviewers", outputs.evaluation.with_name("checklist.md")),
        ("the model", outputs.model),
        ("the model card", outputs.model / "README.md"),
        ("the service bundle", outputs.bundle),
    ):
        print(f"  {what:<26}{path}")


if __name__ == "__main__":
    main()
