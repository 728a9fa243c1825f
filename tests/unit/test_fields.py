"""What we say of the archive's columns, against the package that the archive itself checks metadata with."""

import re

from isic_metadata.fields import FitzpatrickSkinType, MelMitoticIndexEnum
from isic_metadata.metadata import MetadataRow

from isicvision import fields

OTHERS = {
    "anatom_site",
    "unstructured",
}  # given to the archive, which publishes levels, and what it does not know
OURS = {
    "isic_id",
    "age_approx",
    "copyright_license",
    "public",
}  # of the image itself; the age is rounded from `age`
KINDS = {"bool": "true/false", "int": "whole number", "Decimal": "number"}


def test_every_column_of_the_archive_is_known_and_no_other_is_said_to_be_searchable():
    theirs = {*MetadataRow.model_fields, *MetadataRow.model_computed_fields}
    assert theirs - {*fields.FIELDS} == OTHERS
    assert {*fields.SEARCHABLE} - theirs == OURS


def test_kinds_and_units_are_those_of_the_archive():
    for name in MetadataRow.model_fields.keys() - OTHERS - {"age"}:  # HAM10000's ages are written as 85.0
        found = re.search(r"\b(bool|int|Decimal)\b", str(MetadataRow.model_fields[name].annotation))
        assert fields.FIELDS[name].kind == (KINDS[found[1]] if found else "text"), name
    assert [each.value for each in FitzpatrickSkinType][::5] == ["I", "VI"]
    assert all("mm^2" in each.value for each in MelMitoticIndexEnum)
    assert MetadataRow(age="85+").age == 85 and fields.FIELDS["age_approx"].meaning.endswith("at most 85")
