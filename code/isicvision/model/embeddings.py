"""Features that an encoder elsewhere has made of images: a table, joined by image id, in place of a network."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype, is_string_dtype
from torch import nn

from .. import tables
from ..data.matching import find
from ..fields import FIELDS, IMAGE_COLUMNS
from ..files import user_path
from ..text import listed
from .backbones import Backbone

FACTS = ("name", "license", "source")  # of the encoder


class _Elsewhere(nn.Module):
    def forward(self, images):
        raise ValueError("it works on stored features, not on images: audits and bundles need the encoder")


def _rows(ids, values, encoder, paths):
    """Return the features of images: float32 (images, features); ValueError names those that have none."""
    unique = [*dict.fromkeys(paths)]
    found = pd.Series(find(ids, unique))
    known = found[found >= 0]
    if (twice := known[known.duplicated(keep=False)]).size:
        raise ValueError(f"an image has several rows of features: {', '.join(ids.iloc[twice.index[:4]])}")
    row = {unique[number]: row for row, number in known.items()}
    if lost := [path for path in unique if path not in row]:
        said = f"no features of {len(lost)} of {len(unique)} images; {encoder} makes them:{listed(lost)}"
        raise ValueError(said)
    return values[[row[path] for path in paths]]


def read(features: Any, encoder: Mapping[str, str] | None, backbone: str | None) -> Backbone:
    """Read a table of features as `ImageClassifier` says; a `backbone`, if given, must be its encoder."""
    if features is None:
        raise ValueError(f"features= is needed: the model works on those that {backbone} made of images")
    table, source = _table(features)
    own, told = (each if isinstance(each, Mapping) else {} for each in (encoder, table.attrs.get("encoder")))
    known: Any = {**own, **told}
    if missing := [name for name in FACTS if not isinstance(known.get(name), str) or not known[name].strip()]:
        raise ValueError(f"{source} lacks the encoder's {', '.join(missing)}: encoder= is a dict of them")
    for name in (backbone, own.get("name")):
        if name not in (None, known["name"]):
            raise ValueError(f"{source} holds features of {known['name']}, not of {name}")
    ids, values = _split(table, source)
    known = {name: known[name] for name in FACTS} | {"features": values.shape[1], "make": _Elsewhere}
    known |= {"image_size": 64, "min_size": 1, "fixed_size": True, "interpolation": "bilinear"}  # no effect
    known |= {"mean": (0.0,) * 3, "std": (1.0,) * 3, "rows": partial(_rows, ids, values, known["name"])}
    return Backbone(**known)


def _table(features):
    if isinstance(features, pd.DataFrame):
        return features, "the table of features"
    path = user_path(features)
    try:
        if ".csv" in path.name.lower():
            return tables.read(path, IMAGE_COLUMNS, IMAGE_COLUMNS), path
        return pd.read_parquet(path), path
    except (ImportError, OSError, ValueError) as error:
        advice = 'Give a .csv file, or a parquet file, which needs pyarrow: pip install -e ".[embeddings]"'
        raise ValueError(f"{path} cannot be read ({error}). {advice}") from error


def _split(table, source):
    """Return the names of the images, and their features: float32 (images, features)."""
    column = next((name for name in IMAGE_COLUMNS if name in table), None)
    ids = table.index.to_series() if column is None else table[column].astype("string")
    table = table.drop(columns=column or [])
    if not is_string_dtype(ids) or ids.isna().any():
        raise ValueError(f"{source}: name the image of each row in the index or in a column image")
    if len(table) and [*table.dtypes] == [np.dtype(object)]:  # one list a row
        shapes = [*map(np.shape, rows := [*table.iloc[:, 0]])]
        if (odd := ids[[len(shape) != 1 or shape != shapes[0] for shape in shapes]]).size:
            raise ValueError(f"{source}: {odd.iloc[0]} has no list of features, or not as many as the others")
        table = pd.DataFrame(np.stack(rows))
    table = table[sorted(table, key=lambda name: (len(str(name)), str(name)))]  # in any order
    bad = [str(name) for name in table if not is_float_dtype(table[name]) or str(name) in {*FIELDS, "target"}]
    if bad or table.empty:
        raise ValueError(f"{source} needs columns of floats only; drop {', '.join(bad[:5])}")
    values = table.to_numpy(np.float32, copy=True)  # whatever becomes of the table
    if (lost := ids[~np.isfinite(values).all(axis=1)]).size:
        raise ValueError(f"{source}: the features of {', '.join(lost[:4])} are not finite")
    return ids, values
