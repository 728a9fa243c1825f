"""The columns that the ISIC Archive and HAM10000 have, by their published documentation: one table for all."""

from typing import NamedTuple


class Field(NamedTuple):
    """A column of image metadata.

    `kind` is ``"text"``, ``"whole number"``, ``"number"`` or ``"true/false"``; `unit` also names the possible values.
    `role` is ``"patient"``, ``"source"`` (how and by whom the image was taken), ``"diagnosis"`` (known only once the
    label is) or ``"identifier"``.
    """

    kind: str
    unit: str
    meaning: str
    role: str


def _levels(name, meaning, role):
    return {f"{name}_{n}": Field("text", "", f"{meaning}, level {n} of 5", role) for n in range(1, 6)}


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

_IMAGE = Field("text", "", "name of the image", "identifier")
_SEARCHABLE = {
    "isic_id": _IMAGE,
    "lesion_id": Field("text", "", "the lesion: its images belong together", "identifier"),
    "patient_id": Field("text", "", "the patient: its images belong together", "identifier"),
    "rcm_case_id": Field("text", "", "case of confocal microscopy", "identifier"),
    "age_approx": Field("whole number", "years", "age of the patient, rounded to 5, at most 85", "patient"),
    "sex": Field("text", "", "sex of the patient", "patient"),
    "fitzpatrick_skin_type": Field("text", "I to VI", "how skin burns and tans, by Fitzpatrick", "patient"),
    "family_hx_mm": Field("true/false", "", "melanoma in the family", "patient"),
    "personal_hx_mm": Field("true/false", "", "an earlier melanoma of the patient", "patient"),
    **_levels("anatom_site", "site on the body", "patient"),
    "anatom_site_special": Field("text", "", "site of a special kind, such as nail or palm", "patient"),
    "clin_size_long_diam_mm": Field("number", "mm", "longest diameter of the lesion", "patient"),
    "copyright_license": Field("text", "", "license of the image", "source"),
    "public": Field("true/false", "", "whether everyone may see the image", "source"),
    "image_type": Field("text", "", "how it was taken: dermoscopic, clinical, …", "source"),
    "dermoscopic_type": Field("text", "", "contact or not, polarized or not", "source"),
    "image_manipulation": Field("text", "", "whether the image was altered", "source"),
    "color_tint": Field("text", "", "tint of the image", "source"),
    "tbp_tile_type": Field("text", "", "lighting of a tile of total body photography", "source"),
    "blurry": Field("true/false", "", "whether the image is blurred", "source"),
    "hairy": Field("true/false", "", "whether hair covers the lesion", "source"),
    "marker_pen": Field("true/false", "", "whether the image shows marks of a pen", "source"),
    **_levels("diagnosis", "diagnosis", "diagnosis"),
    "diagnosis_confirm_type": Field("text", "", "how the diagnosis was confirmed", "diagnosis"),
    "melanocytic": Field("true/false", "", "whether the lesion consists of melanocytes", "diagnosis"),
    "concomitant_biopsy": Field("true/false", "", "whether a biopsy was taken at that time", "diagnosis"),
    "mel_mitotic_index": Field("text", "per mm²", "mitoses of a melanoma", "diagnosis"),
    "mel_thick_mm": Field("number", "mm", "thickness of a melanoma", "diagnosis"),
    "mel_ulcer": Field("true/false", "", "ulceration of a melanoma", "diagnosis"),
}
FIELDS = {
    **{name: _IMAGE for name in IMAGE_COLUMNS},
    **_SEARCHABLE,
    "age": Field("number", "years", "age of the patient, rounded to 5", "patient"),
    "localization": Field("text", "", "site on the body", "patient"),
    "anatom_site_general": Field("text", "", "site on the body", "patient"),
    "acquisition_day": Field("whole number", "days", "day of the image, from the patient's first", "source"),
    "attribution": Field("text", "", "whom to name as the source", "source"),
    "dataset": Field("text", "", "collection that the image is from", "source"),
    "pixels_x": Field("whole number", "pixels", "width in the archive", "source"),
    "pixels_y": Field("whole number", "pixels", "height in the archive", "source"),
    "sublabel": Field("text", "", "the label before label_map merged it", "diagnosis"),
    "dx": Field("text", "", "diagnosis, abbreviated", "diagnosis"),
    "dx_type": Field("text", "", "how the diagnosis was confirmed", "diagnosis"),
    "diagnosis": Field("text", "", "diagnosis", "diagnosis"),
    "benign_malignant": Field("text", "", "the label in the source", "diagnosis"),
    "target": Field("whole number", "0/1", "1 for malignant", "diagnosis"),
    "mel_class": Field("text", "", "kind of melanoma", "diagnosis"),
}
"""Every known column by its name."""
SEARCHABLE = tuple(_SEARCHABLE)
"""The columns that a query of the ISIC Archive API v2 may name."""
