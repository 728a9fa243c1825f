"""Read, measure and split a folder of images: the first step of the training pipeline.

    python code/02_modeling/prepare.py --data my_images
    python code/02_modeling/prepare.py --data ham10000 --parameters code/parameters/ham10000.yaml

It reads a folder with a subfolder a label or, with LABEL_COLUMN in the parameter file, a table, as 01_acquire_images
does, and sets aside images that cannot be read, the findings in EXCLUDE, and copies of an image that count as another
lesion. It writes dataset.csv, set_aside.csv and split/ into --outputs.

The split keeps lesions whole. Images that are in the split of --registered, a model registered before, stay in their
part, else those in the split that --outputs has: so no model is tested on lesions that an earlier one was trained on.
"""

import os
from dataclasses import replace

from isicvision import ImageDataset, Outputs, counted, findings, record
from isicvision.data.splitting import group_count, group_words
from isicvision.tables import save
from notebook_parameters import READING, positive, read
from steps import OUTPUTS, REGISTERED, checked, command_line, enter, plain_errors, split

PARAMETERS = {
    **{"CSV": "metadata.csv", "METADATA_CSV": None, "IMAGE_COLUMN": None, "LABEL_COLUMN": None},
    **{"LABEL_MAP": None, "GROUP_COLUMN": None, "EXCLUDE": ["label conflict"]},
    **{"POSITIVE": None, "SEED": 0, "SPLIT_COLUMN": None},
}
"""The notebooks' own defaults; a test compares them."""


def from_here(dataset):
    """Let the paths of a dataset start at the current folder, which may lie elsewhere in the next step."""
    table = dataset.table
    paths = table["path"].map(os.path.relpath)
    return replace(
        dataset,
        table=table.assign(path=paths, group=table["group"].mask(table["group"] == table["path"], paths)),
    )


def without_copies(dataset):
    """Set aside each file with the bytes of an earlier image of another lesion, which the split might part from it."""
    table = dataset.table
    first = table.groupby("sha256")[["path", "group"]].transform("first")
    copies = table["path"][first["group"] != table["group"]]
    same = first["path"][copies.index] + ", which counts as another lesion"
    return dataset.without(dict(zip(copies, "exact duplicate: the same bytes as " + same, strict=True)))


def prepare(p, folder, registered=None, relative=False):
    """Write the dataset that the parameters `p` describe, and its split, into a folder; return both.

    With `relative` its paths start at the current folder.
    """
    outputs = Outputs(folder)
    measured = ImageDataset.from_parameters({name: p[name] for name in READING}).measure()
    dataset = findings.exclude(measured, findings.find(measured), p["EXCLUDE"])
    if not p["SPLIT_COLUMN"]:  # which is checked for copies as it is
        dataset = without_copies(dataset)
    dataset = from_here(dataset) if relative else dataset
    positive(p["POSITIVE"], dataset.labels)  # a misspelled one is named now
    earlier = Outputs(registered / REGISTERED) if registered else outputs
    parts = split(p, dataset, None, earlier.split)
    dataset.save(outputs.dataset)
    save(dataset.set_aside, outputs.folder / "set_aside.csv")
    record.save_parts(parts, outputs.split)
    return dataset, parts


def main():
    """Do what the command line says."""
    parser = command_line(
        __doc__,
        data="folder of images",
        parameters="YAML file, as for the notebooks",
        registered="folder of a registered model, whose split is kept",
        outputs="folder of the results (default: outputs)",
    )
    parser.add_argument(
        "--relative",
        action="store_true",
        help="let the paths in the tables start at --data: later steps find it where their own --data is",
    )
    given = parser.parse_args()
    if given.data is None:
        parser.error("--data is missing: name a folder of images")
    with plain_errors():
        p = checked(PARAMETERS, read(given.parameters))
        folder = given.outputs or OUTPUTS
        enter(given.data, folder)
        dataset, parts = prepare(p | {"SOURCE": given.data}, folder, given.registered, given.relative)
    for path, reason in dataset.set_aside[["path", "reason"]].itertuples(index=False):
        print(f"set aside: {path}: {reason}")
    sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
    lesions = group_words(**group_count(dataset.table))
    aside = f"{len(dataset.set_aside):,} set aside"
    print(f"{counted(len(dataset), 'image')} ({sizes}), {aside}; lesions: {lesions}")


if __name__ == "__main__":
    main()
