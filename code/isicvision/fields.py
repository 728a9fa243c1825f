"""The columns of image metadata: what the ISIC Archive and HAM10000 publish, and what we add. All in one table."""

import csv
from pathlib import Path
from typing import NamedTuple

IMAGE_COLUMNS = (
    *("isic_id", "image_id", "image_name", "image", "filename", "file", "img_id", "file_name", "image_path"),
    *("image_file", "img", "filepath", "file_path", "picture", "photo", "path", "name"),
)
"""Columns of any table that may name the image; if there are several, the first that fits most files is used."""
GROUP_COLUMNS = ("lesion_id", "patient_id")
"""Columns that say which images belong together, the preferred one first."""
CONFIRMED = ("diagnosis_confirm_type", "dx_type")
"""How a diagnosis was confirmed: the names in the ISIC Archive and in HAM10000."""
PATIENT = {
    "age": ("age", "age_approx"),
    "sex": ("sex",),
    "site": ("site", "localization", "anatom_site_general", "anatom_site_1"),
}
"""Columns that say how old a patient is, of which sex, and where the lesion is, the preferred one first."""


class Field(NamedTuple):
    """A column of image metadata.

    `kind` is ``"text"``, ``"whole number"``, ``"number"`` or ``"true/false"``; `unit` also names the possible values.
    `role` is ``"patient"``, ``"source"`` (how and by whom the image was taken), ``"diagnosis"`` (known only once the
    label is) or ``"identifier"``; a measure's is ``"frame"``, which says nothing about the lesion,
    or ``"appearance"``. `searchable` is empty if a query of the archive may not name it, `made_by` if the source did.
    """

    kind: str
    unit: str
    meaning: str
    role: str
    searchable: str
    made_by: str


def _read():
    with open(Path(__file__).with_suffix(".csv"), encoding="utf-8", newline="") as file:
        return {row.pop("name"): Field(**row) for row in csv.DictReader(file)}


_LISTED = _read()
FIELDS = dict.fromkeys(IMAGE_COLUMNS, _LISTED["isic_id"]) | _LISTED
"""Every known column by its name."""
SEARCHABLE = tuple(name for name, field in _LISTED.items() if field.searchable)
"""The columns that a query of the ISIC Archive API v2 may name."""
ADDED_COLUMNS = tuple(name for name, field in _LISTED.items() if field.made_by)
"""The columns that `ImageDataset` adds to those of the source, its measures among them."""
MEASURES = tuple(name for name in ADDED_COLUMNS if FIELDS[name].made_by == "ImageDataset.measure")
"""The columns that `measures.measure` fills, in its order."""
