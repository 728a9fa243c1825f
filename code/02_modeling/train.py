"""The training of 01_train.ipynb as a job: for a machine without a browser, or a queue.

    python code/02_modeling/train.py --parameters code/parameters/ham10000.yaml

reads outputs/dataset.csv, writes outputs/split/ and outputs/model/. A parameter file may hold any of the names
in PARAMETERS; those that belong to other notebooks are passed over.
"""

import argparse
import os
from pathlib import Path

import yaml
from imgaug import augmenters as iaa

from isicvision import PROJECT_ROOT, ImageClassifier, ImageDataset, augment_dataset, require

# the notebook's own defaults; a test compares the two
PARAMETERS = {
    "OUTPUTS": "outputs",
    "BACKBONE": "efficientnet_lite0",
    "WEIGHTS": "imagenet",
    "IMAGE_SIZE": 224,
    "DROPOUT": 0.3,
    "EPOCHS": 12,
    "BATCH_SIZE": 16,
    "LEARNING_RATE": [0.0003] + [0.001] * 5 + [0.0003] * 4 + [0.0001] * 2,
    "L2": 0.0005,
    "OPTIMIZER": "adamw",
    "CLASS_WEIGHT": None,
    "SEED": 0,
}


def train(p):
    """Split, augment, fine-tune and save, with the parameters `p`; return the model."""
    made_by = "code/01_data_acquisition_and_understanding/02_understand_and_correct.ipynb"
    dataset = ImageDataset.load(require(f"{p['OUTPUTS']}/dataset.csv", made_by))
    parts = dataset.split(0.6, 0.2, 0.2, stratify="label", group="group", seed=p["SEED"])
    for name, part in zip(("train", "validation", "test"), parts, strict=True):
        part.save(f"{p['OUTPUTS']}/split/{name}.csv")
    pipeline = iaa.Sequential(
        [
            iaa.Fliplr(0.5),
            iaa.Flipud(0.5),
            iaa.Rot90((0, 3)),
            iaa.Crop(percent=(0, 0.1)),
            iaa.MultiplyBrightness((0.9, 1.1)),
        ]
    )
    model = ImageClassifier(
        p["BACKBONE"], dataset.labels, p["WEIGHTS"], p["IMAGE_SIZE"], p["DROPOUT"], seed=p["SEED"]
    )
    model.fit(
        augment_dataset(parts[0], [pipeline]),
        validation=parts[1],
        epochs=p["EPOCHS"],
        batch_size=p["BATCH_SIZE"],
        learning_rate=p["LEARNING_RATE"],
        l2=p["L2"],
        optimizer=p["OPTIMIZER"],
        class_weight=p["CLASS_WEIGHT"],
    )
    print("written:", model.save(f"{p['OUTPUTS']}/model"))
    return model


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parameters", help="YAML file, as for the notebooks")
    parser.add_argument("--outputs", help="folder of dataset.csv and the results (default: outputs)")
    arguments = parser.parse_args()
    given = (
        yaml.safe_load(Path(arguments.parameters).read_text(encoding="utf-8")) if arguments.parameters else {}
    )
    if arguments.outputs:
        given["OUTPUTS"] = str(Path(arguments.outputs).resolve())
    os.chdir(PROJECT_ROOT)
    train(PARAMETERS | {name: value for name, value in given.items() if name in PARAMETERS})
