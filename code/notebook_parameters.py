"""The parameters of this repository's notebooks: what each may be, checked before anything slow begins."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from isicvision import patient
from isicvision.checks import is_number, is_whole, positive_label
from isicvision.files import is_stray, located, read_parameters, read_source
from isicvision.model import presets
from isicvision.model.presets import PRESETS
from isicvision.text import as_label, listed, near

Check = tuple[Callable[[Any], object], str]
"""Whether a value is right, and in words what is."""

EXCLUDED = (
    *("unreadable", "tiny", "oversized", "grayscale", "wrong extension", "exact duplicate", "label conflict"),
    "near-duplicate with another label",
)
"""The findings that EXCLUDE may name: the keys of `findings.WHY`, which takes seconds to import."""
READING = ("SOURCE", "CSV", "METADATA_CSV", "IMAGE_COLUMN", "LABEL_COLUMN", "LABEL_MAP", "GROUP_COLUMN")
"""The parameters of `ImageDataset.from_parameters`."""
PATHS = ("OUTPUTS", "WEIGHTS", "MEASUREMENTS", "SOURCE")


def _or_none(check: Check) -> Check:
    is_right, meaning = check
    return lambda value: value is None or is_right(value), f"{meaning}, or None"


def _one_of(*choices: Any) -> Check:
    return lambda value: isinstance(value, str) and value in choices, "one of " + ", ".join(choices)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(_is_text, value))


def _are_collections(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(_is_text(each) or is_whole(each, 1) for each in value)
    )


def _is_map(value: Any) -> bool:
    keys = [*map(as_label, value)] if isinstance(value, dict) else [None]
    is_plain = None not in keys and not any(isinstance(each, (list, dict)) for each in value.values())
    return is_plain and 0 < len(keys) == len({*keys})


_TEXT: Check = (_is_text, "text")
_NAMES: Check = (_are_names, "a list of names, such as [sex, age]")
_COUNT: Check = (lambda value: is_whole(value, 1), "a whole number of 1 or more")

CHECKS: dict[str, Check] = {
    "SOURCE": (
        lambda value: re.match(r"(sample|isic)$|https?://[^/\s]", str(value)) or os.path.isdir(str(value)),
        "sample, isic, the URL of an archive (https://…) or a folder, which must be there",
    ),
    "QUERY": (lambda value: isinstance(value, str), "text"),
    "COLLECTIONS": _or_none((_are_collections, "a list of names or numbers")),
    "LIMIT": _or_none(_COUNT),
    "SEED": _or_none((lambda value: is_whole(value, 0) and value < 2**32, "a whole number below 2**32")),
    "MAX_SIDE": _or_none((lambda value: is_whole(value, 64), "a number of pixels, 64 or more")),
    "SUBLABEL_COLUMN": _or_none(_TEXT),
    "GROUP_COLUMN": _or_none(_TEXT),
    "SPLIT_COLUMN": _or_none(_TEXT),
    "OUTPUTS": (lambda value: _is_text(value) and not os.path.isfile(value), "a folder"),
    "LABEL_COLUMN": _or_none(
        (lambda value: _is_text(value) or (_are_names(value) and len(value) > 1), "a column or several")
    ),
    "CSV": (
        lambda value: _is_text(value) or (_is_map(value) and all(map(_is_text, (*value, *value.values())))),
        "a table, or lines such as metadata.csv: diagnosis, each a table and its column of labels",
    ),
    "METADATA_CSV": _or_none(_TEXT),
    "IMAGE_COLUMN": _or_none(_TEXT),
    "LABEL_MAP": _or_none(
        (_is_map, "lines such as mel: malignant, each label once and with one label or null behind it")
    ),
    "COLUMNS": _NAMES,
    "DIAGNOSES": _NAMES,
    "EXCLUDE": (
        lambda value: _are_names(value) and set(value) <= set(EXCLUDED),
        f"a list of findings: {', '.join(EXCLUDED)}",
    ),
    "PRESET": _or_none(_one_of(*PRESETS)),
    "BACKBONE": _TEXT,  # and `_network`
    "WEIGHTS": _or_none(
        (
            lambda value: (
                value == "imagenet"
                or (str(value).endswith((".pth", ".pt", ".safetensors")) and os.path.isfile(value))
            ),
            "imagenet, a .pth or .safetensors file of weights that is there",
        )
    ),
    "SETTINGS": (lambda value: isinstance(value, dict), "a map such as {epochs: 12, dropout: 0.3}"),
    "POSITIVE": _or_none(
        (lambda value: isinstance(value, Hashable) and as_label(value), "a label")
    ),  # and `positive`
    "SENSITIVITY": (lambda value: is_number(value, 0) and 0 < value <= 1, "a share above 0, at most 1"),
    "PREVALENCE": (lambda value: is_number(value, 0) and 0 < value < 1, "a share above 0 and below 1"),
    "SLICES": _NAMES,
    "AUDITED": _COUNT,
    "PATIENT_COLUMNS": _or_none(
        (
            lambda value: _is_map(value) and set(value) <= set(patient.NAMES),
            "a map such as {site: anatom_site_2, age: null}, of age, sex and site",
        )
    ),
    "EXTERNAL": (_are_names, "a list of folders and parameter files"),  # and `_external`
    "C": (lambda value: is_number(value, 0) and value > 0, "a positive number"),
    "MEASUREMENTS": (
        lambda value: _is_text(value) and os.path.isfile(f"{value}/settings.csv"),
        "a folder with settings.csv and leak.csv",
    ),
    "RATES": (
        lambda value: isinstance(value, list) and all(is_number(each, 1e-99) for each in value or [0]),
        "a list of positive numbers",
    ),
    "MODEL": _TEXT,  # and `_model`
    "WORKERS": _COUNT,
    "THREADS": _COUNT,
    "SERVICE": (
        lambda value: isinstance(value, str) and re.fullmatch("[a-z][a-z0-9-]{1,30}[a-z0-9]", value),
        "3 to 32 lower-case letters, digits and dashes, a letter first and no dash last",
    ),
    "SDK": _one_of("azure-ai-ml", "azureml-core"),
    "CLUSTER": _or_none(_TEXT),
}
"""Each parameter of a notebook in this repository. One of your own notebook is not checked unless you add it."""


def check(given: Mapping[str, Any]) -> dict[str, Any]:
    """Check the parameters of a notebook and return them, paths as `files.located` finds them.

    `given` are values by name, such as a notebook's ``globals()``; what is not in `CHECKS` is left out. ValueError
    names each that is wrong, and those that contradict each other.
    """
    values = {name: given[name] for name in CHECKS if name in given}
    for name in PATHS:
        if _is_text(values.get(name)) and values[name] not in ("sample", "isic", "imagenet"):
            values[name] = values[name] if "://" in values[name] else located(values[name])
    wrong = [
        f"{name} is {meaning}, not {values[name]!r}{near(values[name], [*PRESETS]) if name == 'PRESET' else ''}"
        for name, (is_right, meaning) in CHECKS.items()
        if name in values and not is_right(values[name])
    ]
    if values.get("SEED", 0) is None and "SOURCE" not in values:  # None: the archive's oldest images
        wrong.append("SEED is a whole number; None is for 01_acquire_images only")
    if not wrong:
        wrong = [
            reason for find in (_outputs, _network, _training, _model, _external) if (reason := find(values))
        ]
    if wrong:
        raise ValueError(wrong[0] if len(wrong) == 1 else f"wrong parameters:{listed(wrong)}")
    return values


def read(path: str | os.PathLike | None) -> dict[str, Any]:
    """Read a parameter file, or nothing (None): dict; ValueError if no notebook has a parameter of such a name."""
    given = read_parameters(path) if path else {}
    for name in set(given) - set(CHECKS):
        raise ValueError(f"{path}: {unknown(name, [*CHECKS])}")
    return given


def unknown(name: object, known: Sequence[str]) -> str:
    """Say in a sentence that no notebook has a parameter of this name, and what was probably meant.

    >>> unknown("EPOCHS", ["SEED"])
    'no notebook has a parameter EPOCHS; write SETTINGS: {epochs: …}'
    """
    if (setting := str(name).lower()) in presets.SETTINGS:
        return f"no notebook has a parameter {name}; write SETTINGS: {{{setting}: …}}"
    return f"no notebook has a parameter {name}{near(name, known)}"


def _outputs(values):
    """Say that the folder in which the model will be saved cannot be written, or holds something else."""
    if reason := unwritable(values.get("OUTPUTS", ".")):
        return f"OUTPUTS: {reason}"
    model = f"{values.get('OUTPUTS', '.')}/model"
    names = [name for name in os.listdir(model) if not is_stray(name)] if os.path.isdir(model) else []
    if os.path.isfile(model) or (names and "model.json" not in names):
        return f"OUTPUTS: {model} is not a model, and a model is to be saved there. Move it, or choose other OUTPUTS"


def unwritable(folder: str | os.PathLike) -> str | None:
    """Say why nothing can be written to a folder, which need not be there yet; None if it can. It leaves no file."""
    there = os.path.abspath(folder)
    while not os.path.lexists(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    try:
        with tempfile.TemporaryDirectory(dir=there):  # root may write where the mode says that nobody may
            return None
    except OSError as error:
        return f"nothing can be written to {folder} ({error.strerror}). Choose another folder"


def _network(values):
    """Say what is wrong with BACKBONE, with the size of its images and with the number of its frozen stages."""
    name, settings = values.get("BACKBONE", "efficientnet_lite0"), values.get("SETTINGS") or {}
    sizes = {k: settings[k] for k in ("image_size", "train_image_size") if settings.get(k) is not None}
    frozen = settings.get("frozen_stages", 0)
    if name == "efficientnet_lite0" and not sizes and not frozen:
        return None  # without PyTorch, whose import takes seconds
    try:
        from isicvision.model import backbones
    except ImportError:  # .venv-azure has no PyTorch: the job checks it
        return None
    try:
        network = backbones.get(name)
        if (preset := values.get("PRESET")) and "image_size" not in sizes:
            network.check_size(PRESETS[preset]["model"]["image_size"], f"PRESET {preset}")
        for key, size in sizes.items():
            network.check_size(size, f"SETTINGS: {key}")
        if is_whole(frozen, 1) and frozen > (count := network.stage_count()):
            return f"SETTINGS: frozen_stages is {frozen}, but {name} has {count} stages"
    except ValueError as error:
        return f"BACKBONE: {error}" if str(error).startswith("unknown") else str(error)


def _training(values):
    """Say what is wrong with SETTINGS."""
    try:
        presets.divide(values.get("PRESET"), values.get("SETTINGS") or {})
    except (TypeError, ValueError) as error:
        return f"SETTINGS: {error}"


def _model(values):
    """Say that MODEL names none of the models that the notebooks write, nor another that is there."""
    name, root = values.get("MODEL", "model"), values.get("OUTPUTS", ".")
    own = ("model", "model_features", "model_patient")
    if name not in own and not os.path.isfile(f"{root}/{name}/model.json"):
        hint = near(name, own)
        return f"MODEL is {', '.join(own)} or another folder with a model.json in {root}, not {name!r}{hint}"


def _external(values):
    """Say that something of EXTERNAL is not there, or is no way to read images."""
    for path in values.get("EXTERNAL", ()):
        try:
            given = read_source(path)
            if strange := [name for name in given if name not in CHECKS]:
                raise ValueError(f"{path}: {unknown(strange[0], [*CHECKS])}")
            check({name: given[name] for name in READING if name in given})
            csv = given.get("CSV", "metadata.csv" if given.get("LABEL_COLUMN") else ".")
            tables = [csv] if isinstance(csv, str) else [*csv]
            if not any(os.path.exists(os.path.join(given["SOURCE"], name)) for name in tables):
                raise ValueError(f"{path}: there is no {' or '.join(tables)} in {given['SOURCE']}")
        except ValueError as error:
            return f"EXTERNAL: {error}"


def positive(value: object, labels: Sequence[str]) -> str | None:
    """Return POSITIVE as one of `labels`, or None; raise ValueError, which names the labels, if it is none of them."""
    return None if as_label(value) is None else positive_label(labels, value)
