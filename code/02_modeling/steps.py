"""What the steps of the training pipeline share: prepare.py, train.py, evaluate.py, gate.py and register.py."""

import argparse
import os
import sys
import traceback
from contextlib import contextmanager

from accelerate import PartialState

from isicvision import PROJECT_ROOT, Outputs, record, splitting
from isicvision.data.folders import USE_CSV
from isicvision.outputs import NOTEBOOKS
from notebook_parameters import check, unwritable
from pipeline import absolute, print_any_letter

REGISTERED = "training"
"""The subfolder of a registered model with what it was made from: model, split and the gate's decision."""
OUTPUTS = PROJECT_ROOT / Outputs().folder
"""The folder that a script reads and writes unless it is told another one, whatever the current folder is."""
SCRIPTS = {"dataset.csv": "prepare.py", "split": "train.py", "model": "train.py", "evaluation": "evaluate.py"}
"""Which script writes which file or folder of the outputs, as NOTEBOOKS says which notebook."""
INSTEAD = {
    " (`make run` runs them all)": "",
    USE_CSV: "If a CSV file holds the labels, write LABEL_COLUMN into the file of --parameters of prepare.py.",
    "in the notebooks": "in the file of --parameters",
    **{NOTEBOOKS[name]: f"code/02_modeling/{script}" for name, script in SCRIPTS.items()},
}
"""What a script says where the package speaks to readers of the notebooks."""


def command_line(text, **options):
    """Return a parser with the help `text` and options that are folders or files: their help, by name."""
    print_any_letter()
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, meaning in options.items():
        parser.add_argument(f"--{name}", type=absolute, help=meaning)
    return parser


def said(error):
    """Return what an exception says, with the scripts in place of the notebooks: str."""
    text = str(error)
    for words, others in INSTEAD.items():
        text = text.replace(words, others)
    return text


@contextmanager
def plain_errors():
    """End the script with a sentence and status 2 where a file or a value is wrong, not with a traceback.

    Any other error ends it with this status, too, after its traceback.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        print(said(error), file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        traceback.print_exc()
        about = f"unexpected {type(error).__name__}: {error}"
        print(f"{about}. A file is damaged, or this is a bug.", file=sys.stderr)
        sys.exit(2)


def enter(data, outputs):
    """Check that `outputs` can be written, and make `data`, unless it is None, the folder where paths start."""
    if reason := unwritable(outputs):
        raise ValueError(f"--outputs: {reason}")
    if data is not None and not data.is_dir():
        raise ValueError(f"--data: {data} is not a folder")
    os.chdir(data or PROJECT_ROOT)


def require_images(parts):
    """Raise FileNotFoundError unless all images of a split (dict of ImageDataset, or None) are there."""
    paths = [path for part in (parts or {}).values() for path in part.paths]
    if gone := [path for path in paths if not os.path.exists(path)]:
        raise FileNotFoundError(
            f"{len(gone):,} of {len(paths):,} images are not there, such as {os.path.abspath(gone[0])}: "
            + ("restore them" if os.path.isabs(gone[0]) else "name the folder of images by --data")
        )


def checked(defaults, given):
    """Return the parameters in `defaults`, as far as `given` in place of them; all are checked as `make run` does."""
    os.chdir(PROJECT_ROOT)  # where relative paths in parameters start
    elsewhere = ("SOURCE", "MEASUREMENTS")  # need not lie on the machine that trains
    values = check({name: v for name, v in (defaults | given).items() if name not in elsewhere})
    return {name: values[name] for name in defaults if name not in elsewhere}


def split(p, dataset, expected, beside):
    """Return the parts as the notebook deals them or, of a rerun, as its record has them: dict of ImageDataset.

    `beside` is the folder with the split that is kept, unless a column has a published one. Raises ValueError if the
    parts are not those that are `expected`, there are too few lesions, or SPLIT_COLUMN leaks.
    """
    earlier = None if p["SPLIT_COLUMN"] else beside and record.earlier_parts(beside)
    for keep in (None, earlier) if expected else (earlier,):
        if p["SPLIT_COLUMN"]:
            parts = splitting.published(dataset, p["SPLIT_COLUMN"], p["SEED"])
        else:
            parts = splitting.named(dataset.split(0.6, 0.2, 0.2, seed=p["SEED"], keep=keep))
        wrong = [name for name in expected or {} if parts[name].manifest() != expected[name]["manifest"]]
        if not wrong:
            break
    else:
        raise ValueError(
            f"The {wrong[0]} images are not those of the record: other images, labels or lesions."
        )
    if keep and PartialState().is_main_process:
        print(record.kept_words(parts, keep))
    return parts
