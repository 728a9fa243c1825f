"""Pack a model that passed the gate, as it is registered: the last step of the training pipeline.

    python code/02_modeling/register.py --outputs outputs/registry/isicvision/1

It writes the web service's bundle as an MLflow model (see 03_deployment/mlflow_model.py), and in training/ what the
next run needs: the model with its card and run record, its split, and the gate's decision. --outputs is new: a
registered version never changes.

The gate must have compared the model with the version registered last: the last one beside --outputs, else the one that
--registered names. Without either it is the first version. In Azure the platform registers the folder, under the name
in azure/pipeline.yml, once this step has ended.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from isicvision import ImageClassifier, ImageDataset, Outputs, build_bundle, record
from isicvision.files import DEPLOYMENT, read_json, replacing_folder, require, sha256
from pipeline import versions
from steps import OUTPUTS, REGISTERED, command_line, enter, plain_errors

sys.path.insert(0, str(DEPLOYMENT))
import mlflow_model


def require_passed(decision, model, registered):
    """Raise ValueError unless decision.json says that a model passed beside the one `registered` last, or None."""
    said = read_json(require(decision, "code/02_modeling/gate.py"))
    again = "run code/02_modeling/gate.py again"
    try:
        passed, reasons, compared = said["passed"], said.get("reasons", []), said["compared"]
        new, old = compared["new"]["sha256"], compared.get("registered", {}).get("sha256")
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{decision} is no decision of gate.py: {again}") from None
    if passed is not True:
        raise ValueError(f"{decision}: the gate refused this model: {'; '.join(reasons)}")
    if new != sha256(model / "model.json"):
        raise ValueError(f"{decision} is about another model than {model}: {again}")
    if registered is None:
        if old is not None:
            raise ValueError(
                f"{decision} compares with a registered model, but --registered names none: {again}"
            )
    elif old != sha256(require(Outputs(registered / REGISTERED).model / "model.json", "register.py")):
        other = "another model" if old else "no model"
        raise ValueError(
            f"{decision} compares with {other}, and {registered} was registered last: {again} with --registered"
        )


def pack(evaluated, decision, folder):
    """Write what is registered of the model in the Outputs `evaluated` below `folder`, and return where: Path."""
    bundle = build_bundle(ImageClassifier.load(evaluated.model), folder / "bundle")
    packed = mlflow_model.save(bundle, folder / "packed")
    training = Outputs(packed / REGISTERED)
    shutil.copytree(evaluated.model, training.model)
    for name, part in record.earlier_parts(evaluated.split).items():  # what keeps the split, and no metadata
        ImageDataset(part.table[["path", "label", "group"]]).save(training.split / f"{name}.csv")
    shutil.copy(decision, training.folder)
    return packed


def register(evaluated, decision, folder, registered=None):
    """Write a registered model as a whole or not at all; ValueError if `folder` holds something.

    `registered` is the folder of the version registered last, unless one beside `folder` is later.
    """
    beside = versions(folder.parent, but=folder)
    require_passed(decision, evaluated.require(evaluated.model), beside[-1] if beside else registered)
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        raise ValueError(f"--outputs: {folder} is not empty, and a registered version never changes")
    with tempfile.TemporaryDirectory() as temporary:
        packed = pack(evaluated, decision, Path(temporary))
        if folder.exists():  # Azure's mount, which cannot be renamed
            shutil.copytree(packed, folder, dirs_exist_ok=True)
        else:
            with replacing_folder(folder) as new:
                shutil.copytree(packed, new, dirs_exist_ok=True)


def main():
    """Do what the command line says."""
    parser = command_line(
        __doc__,
        evaluated="folder with split/ and model/ (default: outputs)",
        decision="folder of decision.json (default: that of --evaluated)",
        registered="folder of the version registered last (default: the last one beside --outputs, if any)",
        outputs="folder of the new version",
    )
    given = parser.parse_args()
    if given.outputs is None:
        parser.error("--outputs is missing: name a new folder, such as outputs/registry/isicvision/1")
    with plain_errors():
        enter(None, given.outputs)
        evaluated = Outputs(given.evaluated or OUTPUTS)
        decision = (given.decision or evaluated.folder) / "decision.json"
        register(evaluated, decision, given.outputs, given.registered)
    size = sum(file.stat().st_size for file in given.outputs.rglob("*") if file.is_file())
    print(f"registered: {given.outputs}, {size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
