"""The training of 01_train.ipynb as a job: for a machine without a browser, a queue, or several GPUs.

    python code/02_modeling/train.py --parameters code/parameters/ham10000.yaml
    accelerate launch code/02_modeling/train.py --checkpoint outputs/checkpoint
    python code/02_modeling/train.py --rerun outputs/model/run.json --outputs outputs/again

It reads outputs/dataset.csv, or with --data a folder with a subfolder a label (as `ImageDataset.from_folder` does), and
writes outputs/split/ and outputs/model/. If there is a split already, its images stay in their parts and only new
lesions are dealt out. A parameter file may hold the parameters of any notebook: all are checked before the training, as
`make run` does, and those in PARAMETERS are used. With --checkpoint a job that was killed
resumes by the same command. --rerun repeats a run from its record: it checks that images and split are the same, and
says whether the metrics are. Its images are those of the dataset.csv beside the recorded model's folder, or of
--data.
"""

import argparse
import math
import os
import sys
from pathlib import Path

from accelerate import PartialState

from isicvision import (
    PROJECT_ROOT,
    ImageClassifier,
    ImageDataset,
    Outputs,
    augment_dataset,
    augmentation,
    cards,
    evaluate,
    record,
    splitting,
)
from isicvision.evaluation.evaluation import METRICS
from isicvision.files import read_parameters
from isicvision.parameters import CHECKS, check, positive, unknown, unwritable

# the notebook's own defaults; a test compares the two
PARAMETERS = {
    "OUTPUTS": "outputs",
    "PRESET": "fast",
    "BACKBONE": "efficientnet_lite0",
    "WEIGHTS": "imagenet",
    "SETTINGS": {},
    "POSITIVE": None,
    "SENSITIVITY": 0.9,
    "SEED": 0,
    "SPLIT_COLUMN": None,
}


def split(p, dataset, expected, beside):
    """Return the parts as the notebook deals them or, of a rerun, as its record has them: dict of ImageDataset.

    `beside` is the folder with the split that is kept, unless a column has a published one.
    """
    earlier = None if p["SPLIT_COLUMN"] else beside and record.earlier_parts(beside)
    wrong = "No"
    for keep in (None, earlier) if expected else (earlier,):
        if p["SPLIT_COLUMN"]:
            parts = splitting.published(dataset, p["SPLIT_COLUMN"], p["SEED"])
        else:
            parts = splitting.named(dataset.split(0.6, 0.2, 0.2, seed=p["SEED"], keep=keep))
        wrong = [name for name in expected or {} if parts[name].manifest() != expected[name]["manifest"]]
        if not wrong:
            break
    else:
        sys.exit(f"The {wrong[0]} images are not those of the record: other images, labels or lesions.")
    if keep and PartialState().is_main_process:
        print(record.kept_words(parts, keep))
    return parts


def train(p, dataset, checkpoint=None, expected=None, beside=None):
    """Do what the notebook does, with the parameters `p`; return the model and the test images.

    `checkpoint` is a folder or None, `expected` the split of a run record or None, `beside` the folder of a split that
    is kept.
    """
    try:
        parts = split(p, dataset, expected, beside)
    except ValueError as error:  # of the split: too few lesions, or a leak in SPLIT_COLUMN
        sys.exit(str(error))
    model = ImageClassifier.from_preset(
        p["PRESET"], dataset.labels, p["BACKBONE"], p["WEIGHTS"], p["SEED"], p["POSITIVE"], **p["SETTINGS"]
    )
    model.fit(
        augment_dataset(parts["train"], [augmentation.dermoscopy()]),
        validation=parts["validation"],
        checkpoint=checkpoint,
    )
    if PartialState().is_main_process:
        outputs = Outputs(p["OUTPUTS"])
        record.save_parts(parts, outputs.split)
        model.save(outputs.model)  # save now, so that a later failure loses nothing
        model.finish(parts["train"], parts["validation"], p["SENSITIVITY"])
        folder = model.save(outputs.model)
        kept = {name: value for name, value in p.items() if name != "OUTPUTS"}
        print("written:", record.write(model, parts, folder, kept))
        print(splitting.shared_words(**splitting.shared_count(parts)))
        record.add_metrics(evaluate(model, parts["test"]), folder)
        print("written:", cards.write_model_card(folder))
    return model, parts["test"]


def absolute(path):
    """Return where a path of the command line lies."""
    return Path(path).expanduser().resolve()


def read(arguments):
    """Return the parameters, checked as `make run` checks them, and the record that is to be repeated, or None."""
    given, run = {}, None
    if arguments.parameters:
        given = read_parameters(arguments.parameters)
    if arguments.rerun:
        run = record.read(arguments.rerun)
        if "SETTINGS" not in run["parameters"]:
            raise ValueError(
                f"{arguments.rerun} has no parameters of this job or of 01_train.ipynb: repeat it by what made it."
            )
        given |= run["parameters"]
        given["SETTINGS"] = given["SETTINGS"] | {"precision": run["training"]["precision"]}
    for name in set(given) - set(CHECKS):
        raise ValueError(unknown(name, [*CHECKS]))
    if arguments.outputs:
        given["OUTPUTS"] = str(arguments.outputs)
    os.chdir(PROJECT_ROOT)
    elsewhere = ("SOURCE", "MEASUREMENTS")  # need not lie on the machine that trains
    values = check({name: v for name, v in (PARAMETERS | given).items() if name not in elsewhere})
    return {name: values[name] for name in PARAMETERS}, run


def compare(run, model, test):
    """Print whether the metrics of a repeated run are those of its record."""
    evaluation = evaluate(model, test)
    for name, known in run["metrics"].items():
        if name in METRICS:  # the others say on what, and at which threshold
            value = evaluation.metric(name)
            value = None if math.isnan(value) else value  # not defined: JSON knows no NaN
            print(
                f"{name}: {value!r}",
                "as before" if value == known["value"] else f"before: {known['value']!r}",
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", help="YAML file, as for the notebooks")
    parser.add_argument(
        "--outputs", type=absolute, help="folder of dataset.csv and the results (default: outputs)"
    )
    parser.add_argument("--data", type=absolute, help="folder of images, in place of dataset.csv")
    parser.add_argument("--checkpoint", type=absolute, help="folder from which a killed job goes on")
    parser.add_argument("--rerun", type=absolute, help="run.json of the run to repeat")
    arguments = parser.parse_args()
    try:
        parameters, run = read(arguments)
        if arguments.checkpoint and (reason := unwritable(arguments.checkpoint)):
            sys.exit(f"--checkpoint: {reason}")
        dataset = None
        if arguments.data:
            dataset = ImageDataset.from_folder(arguments.data).measure()  # a broken image is found now
            for path, reason in dataset.set_aside[["path", "reason"]].itertuples(index=False):
                print(f"set aside: {path}: {reason}")
        beside = Outputs(arguments.rerun.parents[1] if run else parameters["OUTPUTS"])
        if dataset is None:
            if run and not beside.dataset.exists():
                sys.exit(f"{beside.dataset} is not there: say by --data where the recorded images are.")
            dataset = ImageDataset.load(beside.require(beside.dataset))
        parameters["POSITIVE"] = positive(parameters["POSITIVE"], dataset.labels)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    model, test = train(parameters, dataset, arguments.checkpoint, run and run["split"], beside.split)
    if run and run["metrics"] and PartialState().is_main_process:
        compare(run, model, test)
