"""The training of 01_train.ipynb as a job: for a machine without a browser, a queue, or several GPUs.

    python code/02_modeling/train.py --parameters code/parameters/ham10000.yaml
    accelerate launch code/02_modeling/train.py --checkpoint outputs/checkpoint
    python code/02_modeling/train.py --rerun outputs/model/run.json --outputs outputs/again

It reads outputs/dataset.csv, or with --data a folder with a subfolder a label (as `ImageDataset.from_folder` does), and
writes outputs/split/ and outputs/model/. With --prepared it reads dataset.csv and the split from what prepare.py wrote.
If there is a split already, its images stay in their parts and only new lesions are dealt out. A parameter file may
hold the parameters of any notebook: all are checked before the training, as `make run` does, and those in PARAMETERS
are used. With --checkpoint a job that was killed resumes by the same command. --rerun repeats a run from its record: it
checks that images and split are the same, and says whether the metrics are. Its images are those of the dataset.csv
beside the recorded model's folder, or of --data.
"""

import math
import os

from accelerate import PartialState

from isicvision import (
    ImageClassifier,
    ImageDataset,
    Outputs,
    augment_dataset,
    augmentation,
    cards,
    counted,
    evaluate,
    record,
    splitting,
)
from isicvision.evaluation.evaluation import METRICS
from notebook_parameters import positive, unwritable
from notebook_parameters import read as read_parameters
from steps import checked, command_line, enter, plain_errors, require_images, split

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


def train(p, dataset, checkpoint=None, expected=None, beside=None):
    """Do what the notebook does, with the parameters `p`; return the model and the test images.

    `checkpoint` is a folder or None, `expected` the split of a run record or None, `beside` the folder of a split that
    is kept.
    """
    parts = split(p, dataset, expected, beside)
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
        print(f"trained on {counted(len(parts['train']), 'image')}; the model is in {folder}")
    return model, parts["test"]


def read(arguments):
    """Return the parameters, checked as `make run` checks them, and the record that is to be repeated, or None."""
    given, run = read_parameters(arguments.parameters), None
    if arguments.rerun:
        run = record.read(arguments.rerun)
        if "SETTINGS" not in run["parameters"]:
            raise ValueError(
                f"{arguments.rerun} has no parameters of this job or of 01_train.ipynb: repeat it by what made it."
            )
        given |= run["parameters"]
        given["SETTINGS"] = given["SETTINGS"] | {"precision": run["training"]["precision"]}
    if arguments.outputs:
        given["OUTPUTS"] = str(arguments.outputs)
    return checked(PARAMETERS, given), run


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


def images(arguments, beside):
    """Read the images of the command line, or those of the dataset.csv in the Outputs `beside`: ImageDataset."""
    if arguments.prepared:
        enter(arguments.data, beside.folder)
    elif arguments.data:
        dataset = ImageDataset.from_folder(arguments.data).measure()  # a broken image is found now
        for path, reason in dataset.set_aside[["path", "reason"]].itertuples(index=False):
            print(f"set aside: {path}: {reason}")
        return dataset
    if arguments.rerun and not beside.dataset.exists():
        raise ValueError(f"{beside.dataset} is not there: say by --data where the recorded images are.")
    dataset = ImageDataset.load(beside.require(beside.dataset))
    require_images({"all": dataset})
    return dataset


def main():
    """Do what the command line says."""
    parser = command_line(
        __doc__,
        parameters="YAML file, as for the notebooks",
        outputs="folder of dataset.csv and the results (default: outputs)",
        prepared="folder with dataset.csv and split/, if not --outputs: prepare.py wrote it",
        data="folder of images, in place of dataset.csv; with --prepared where its paths start",
        checkpoint="folder from which a killed job goes on",
        rerun="run.json of the run to repeat",
    )
    arguments = parser.parse_args()
    with plain_errors():
        parameters, run = read(arguments)
        if arguments.checkpoint and (reason := unwritable(arguments.checkpoint)):
            raise ValueError(f"--checkpoint: {reason}")
        parameters["OUTPUTS"] = os.path.abspath(parameters["OUTPUTS"])  # the current folder may change
        beside = Outputs(arguments.rerun.parents[1] if run else arguments.prepared or parameters["OUTPUTS"])
        dataset = images(arguments, beside)
        parameters["POSITIVE"] = positive(parameters["POSITIVE"], dataset.labels)
        model, test = train(parameters, dataset, arguments.checkpoint, run and run["split"], beside.split)
    if run and run["metrics"] and PartialState().is_main_process:
        compare(run, model, test)


if __name__ == "__main__":
    main()
