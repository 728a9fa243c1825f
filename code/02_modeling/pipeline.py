"""Prepare, train, evaluate, decide and register: the whole pipeline, on this machine or in Azure.

    python code/02_modeling/pipeline.py --local                                  # the bundled sample
    python code/02_modeling/pipeline.py --local --data ham10000 --parameters code/parameters/ham10000.yaml
    .venv-azure/bin/python code/02_modeling/pipeline.py --parameters mine.yaml   # in Azure, see docs/azure.md

With --local it runs the command lines of azure/components/*.yml one after the other. Each step leaves its results in
--outputs/pipeline, with what it printed as STEP.log; a model that passes the gate becomes the next version in
--outputs/registry/isicvision, and the next run is compared with the last version. Only one pipeline at a time works in
--outputs, and ending it ends the step that runs. A run that was killed is repeated by the same command, and its
training resumes; with other parameters it begins anew. It ends with status 1 only if the gate refused the model, 2 if a
step failed, an argument is wrong or Azure refuses. Parameters are checked before the first step starts, or the job is
submitted.

Without --local it submits azure/pipeline.yml to Azure Machine Learning, with the last registered version as what the
gate compares with, and prints the address of the job. This needs azure-ai-ml in its own environment and a login.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from contextlib import chdir, contextmanager
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from isicvision.files import user_path
from notebook_parameters import PATHS, check, read, unwritable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PIPELINE = HERE / "azure" / "pipeline.yml"
SAMPLE = {"data": ROOT / "sample_data", "parameters": ROOT / "code" / "parameters" / "sample.yaml"}
DEFAULTS = HERE / "azure" / "parameters.yml"
PRESET = "fast"
"""Of train.py without a parameter file; a test compares the two."""
REFUSED = 1
"""The gate's status if it refused a model."""
OTHER_TRAINING = "is of another training"
"""What train.py says of a checkpoint that it cannot resume from."""
AGAIN = "The same command begins again; a training resumes from its checkpoint."
INDENT = " " * 18


def read_yaml(path):
    """Read a YAML file: dict."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def command(component, places):
    """Return the command line of a component, with a place for each of its inputs and outputs: list of str.

    What stands in $[[ ]] is left out if its input has no place.

    >>> command({"command": "python a.py $[[--b ${{inputs.b}}]] --c ${{outputs.c}}"}, {"outputs.c": "/tmp"})[1:]
    ['a.py', '--c', '/tmp']
    """
    slot = re.compile(r"\$\{\{(.*?)\}\}")

    def optional(match):
        return match[1] if all(name in places for name in slot.findall(match[1])) else ""

    words = shlex.split(re.sub(r"\$\[\[(.*?)\]\]", optional, component["command"]))
    words = [slot.sub(lambda match: str(places[match[1]]), word) for word in words]
    return [sys.executable, *words[1:]] if words[0] == "python" else words


def places_of(step, component, given, outputs):
    """Return where each input and output of a step lies on this machine: dict such as ``inputs.images`` to a path.

    `given` are the inputs of the pipeline by name; an output with a name is registered.
    """
    places = {}
    for name in component["inputs"]:
        # the file leaves out the optional one, which is the pipeline's, too
        source = step["inputs"].get(name, f"${{{{parent.inputs.{name}}}}}").strip("${}").split(".")
        places[f"inputs.{name}"] = given[source[2]] if source[1] == "inputs" else outputs / source[-1]
    places |= {f"outputs.{name}": outputs / name for name in component["outputs"]}
    for name, output in step.get("outputs", {}).items():
        places[f"outputs.{name}"] = next_version(outputs.parent / "registry" / output["name"])
    return {name: place for name, place in places.items() if place is not None}


def versions(registry, but=None):
    """List the versions of a model in the folder that plays the registry, oldest first, but for one that is made.

    Raises ValueError if one of them holds no model.
    """
    folders = (each for each in registry.glob("*") if each.name.isdecimal() and each.is_dir() and each != but)
    found = sorted(folders, key=lambda each: int(each.name))
    for each in found:
        if not (each / "MLmodel").is_file():
            raise ValueError(f"{each} holds no registered model (no MLmodel): delete this folder")
    return found


def next_version(registry):
    """Return the folder of the version that is registered next."""
    known = versions(registry)
    number = int(known[-1].name) + 1 if known else 1
    while (registry / str(number)).exists():  # a file, which is no version
        number += 1
    return registry / str(number)


def run(component, places, log):
    """Run a step as its component says, and return its status; all that it prints goes to the file `log`.

    An exception here, such as the SystemExit of `end_with_steps`, ends the step.
    """
    code = (PIPELINE.parent / "components" / component["code"]).resolve()
    told = component["environment_variables"] | {"PYTHONPATH": str(code), "PYTHONUNBUFFERED": "1"}
    told["PYTHONIOENCODING"] = "utf-8"  # of the log
    with open(log, "w", encoding="utf-8") as file:
        line = command(component, places)
        return subprocess.run(line, cwd=code, env=os.environ | told, stdout=file, stderr=file).returncode


def check_file(parameters, local):
    """Raise ValueError if a parameter file holds something wrong, before the first step starts or the job is queued."""
    # a job finds its own files, and knows no other folders of this machine
    elsewhere = ("SOURCE", "MEASUREMENTS") if local else (*PATHS, "EXTERNAL")
    with chdir(ROOT):  # where relative paths in parameters start
        given = {"PRESET": PRESET} | read(parameters)
        check({name: value for name, value in given.items() if name not in elsewhere})


def run_local(data, parameters, outputs):
    """Run all steps on this machine, the results in a folder; return 0, 1 if the gate refused or 2 if a step failed."""
    steps = read_yaml(PIPELINE)["jobs"]
    name = steps["register"]["outputs"]["model"]["name"]
    registered = [None, *versions(outputs / "registry" / name)][-1]
    given = {"images": data, "parameters": parameters, "registered": registered}
    folder = outputs / "pipeline"
    folder.mkdir(parents=True, exist_ok=True)
    print(f"results and logs: {folder}; registered model: {registered or 'none'}")
    for step, about in steps.items():
        component = read_yaml(PIPELINE.parent / about["component"])
        places = places_of(about, component, given, folder)
        for each in {*component["outputs"]} - {"checkpoint"}:  # else an earlier run's is taken for this one's
            shutil.rmtree(folder / each, ignore_errors=True)
        print(f"{step:<9}", end="", flush=True)
        started, log = time.perf_counter(), folder / f"{step}.log"
        status = run(component, places, log)
        if status and "checkpoint" in component["outputs"] and OTHER_TRAINING in "".join(lines(log)):
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
            print(
                f"deleted the checkpoint of a training with other parameters or images\n{'':9}",
                end="",
                flush=True,
            )
            status = run(component, places, log)
        said = lines(log)
        print(f"{time.perf_counter() - started:5.0f} s  ", end="")
        if step == "gate" and show(folder / "decision" / "decision.json", status):
            if status == REFUSED:
                return status
        elif status or step == "gate":
            return failed(status, said, log)
        else:
            print(said[-1].strip())
        if "checkpoint" in component["outputs"]:  # of this training; another begins anew
            shutil.rmtree(folder / "checkpoint", ignore_errors=True)
    return 0


def lines(log):
    """Return what a step printed, as lines, at least one: list of str."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]


def show(path, status):
    """Print the gate's decision with its reasons; return False, and print nothing, if its status is of no decision."""
    if status not in (0, REFUSED) or not path.is_file():  # status 1 is any crash's, too
        return False
    decision = json.loads(path.read_text(encoding="utf-8"))
    if decision["passed"] is not (status == 0):
        return False
    print("passed" if decision["passed"] else "refused, so nothing is registered")
    for reason in decision["reasons"]:
        print(textwrap.fill(reason, 116, initial_indent=INDENT, subsequent_indent=f"{INDENT}  "))
    return True


def end_with_steps():
    """Let SIGTERM end this process as an error does, and the step that it runs."""
    import psutil  # comes with ipykernel, which .venv-azure lacks

    def end(number, _):
        for step in psutil.Process().children():  # one that has only just begun is known to nobody else
            step.kill()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


@contextmanager
def alone(outputs):
    """Keep other pipelines out of a folder; ValueError if one is at work there."""
    from filelock import FileLock, Timeout  # comes with PyTorch, which .venv-azure lacks

    lock = FileLock(outputs / "pipeline" / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another pipeline is at work in {outputs}: wait for it, or name another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def failed(status, said, log):
    """Say how a step ended, and return 2."""
    how = f"was killed (signal {-status})" if status < 0 else f"failed with status {status}"
    print(f"{how}, see {log}", *(f"{INDENT}{line}" for line in said[-5:]), sep="\n")
    if status < 0:
        print(AGAIN)
    return 2


def submit(data, parameters, config):
    """Submit the pipeline to the workspace in a config.json; return the address of the job."""
    from azure_workspace import explained, open_workspace

    with explained():
        workspace = open_workspace(config)
        from azure.ai.ml import load_job

        workspace.workspaces.get(workspace.workspace_name)  # a wrong one is named now
        job = load_job(PIPELINE, params_override=changes(data, parameters, last_version(workspace)))
        return workspace.jobs.create_or_update(job).studio_url


def last_version(workspace):
    """Return the registered version that the gate compares with, as the name of an input, or None."""
    from azure.core.exceptions import ResourceNotFoundError

    name = read_yaml(PIPELINE)["jobs"]["register"]["outputs"]["model"]["name"]
    try:
        found = [*workspace.models.list(name)]
    except ResourceNotFoundError:  # nothing of this name yet
        return None
    last = max(found, key=lambda model: model.creation_context.created_at, default=None)
    return last and f"azureml:{name}:{last.version}"


def changes(data, parameters, registered):
    """Return what is different from pipeline.yml, as azure-ai-ml takes it: list of dict."""
    found = [{"inputs.parameters.path": str(parameters)}] if parameters else []
    found += [{"inputs.images.path": data}] if data else []
    if registered:
        found.append({"inputs.registered": {"type": "mlflow_model", "path": registered}})
        for step, about in read_yaml(PIPELINE)["jobs"].items():
            if "registered" in read_yaml(PIPELINE.parent / about["component"])["inputs"]:
                found.append({f"jobs.{step}.inputs.registered": "${{parent.inputs.registered}}"})
    return found


def print_any_letter():
    """Let a terminal, or a file on Windows, show ? for a letter of a label or a path that it does not know."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")


def absolute(path):
    """Return where a path of the command line lies; ArgumentTypeError if it is empty, as an unset variable is."""
    try:
        return user_path(path).resolve()
    except ValueError as error:
        raise argparse.ArgumentTypeError(error) from None


def images(place):
    """Return the place of images as the steps and Azure need it: the whole path of a folder, else as it is."""
    path = absolute(place)
    return str(path) if path.is_dir() else place


def command_line():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--local", action="store_true", help="run on this machine, without Azure")
    parser.add_argument(
        "--data",
        type=images,
        help="folder of images; in Azure also a data asset, such as azureml:mine@latest",
    )
    parser.add_argument("--parameters", type=absolute, help="YAML file, as for the notebooks")
    parser.add_argument(
        "--outputs", type=absolute, default=ROOT / "outputs", help="with --local, default: outputs"
    )
    parser.add_argument(
        "--config", default=ROOT / ".azureml" / "config.json", help="of the workspace in Azure"
    )
    return parser


def local(given):
    """Run the pipeline on this machine as the command line says; return its status. ValueError if it cannot begin."""
    if given.data is None:
        data, parameters = SAMPLE["data"], given.parameters or SAMPLE["parameters"]
    elif Path(given.data).is_dir():
        data, parameters = Path(given.data), given.parameters or DEFAULTS
    else:
        raise ValueError(f"--data: {absolute(given.data)} is not a folder")
    if reason := unwritable(given.outputs / "pipeline"):
        raise ValueError(f"--outputs: {reason}")
    (given.outputs / "pipeline").mkdir(parents=True, exist_ok=True)
    end_with_steps()
    with alone(given.outputs):
        return run_local(data, parameters, given.outputs)


def main():
    """Do what the command line says; only a refusal of the gate ends with its status."""
    print_any_letter()
    parser = command_line()
    given = parser.parse_args()
    if given.parameters and not given.parameters.is_file():
        parser.error(f"--parameters: {given.parameters} is not there")
    try:
        check_file(given.parameters, given.local)
    except ValueError as error:
        parser.error(f"--parameters: {error}")
    try:
        sys.exit(local(given) if given.local else print(submit(given.data, given.parameters, given.config)))
    except KeyboardInterrupt:
        parser.exit(130, f"\nStopped. {AGAIN}\n" if given.local else "\nStopped.\n")
    except SystemExit as ended:
        if isinstance(ended.code, str):  # a sentence: Azure refuses
            parser.exit(2, f"{ended}\n")
        raise
    except ImportError as error:  # two environments, see docs/azure.md
        where = ".venv/bin/python" if given.local else ".venv-azure/bin/python, or with --local"
        parser.error(f"{error}. Run it with {where}, see docs/azure.md")
    except Exception as error:  # whatever it is: Python would end with 1, which means that the gate refused
        if not isinstance(error, OSError | ValueError):
            traceback.print_exc()
        parser.exit(2, f"{parser.prog}: error: {error}\n")


if __name__ == "__main__":
    main()
