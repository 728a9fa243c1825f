"""The training images that a network takes for most like an image: by the features in front of its last layer."""

from __future__ import annotations

import re
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.decomposition import PCA

from ..checks import is_whole, require_dataset
from ..data import splitting
from ..data.matching import stem
from ..images import data_url, decode, map_threads
from ..nearest import MOST, Gallery
from ..text import counted, listed
from . import inputs
from .learners import featurize

if TYPE_CHECKING:
    from ..data.dataset import ImageDataset
    from .classifier import ImageClassifier, Images

WIDTH = 128  # principal components of the features, at most
THUMBNAIL = 96  # pixels of a side
_FREE = re.compile(r"CC[ -]?0([ -]1\.0)?|CC[ -]BY([ -]NC)?([ -]SA)?([ -]\d\.\d)?", re.IGNORECASE)


class Neighbors:
    """The images that a model was trained on, ready to be searched for those most like others.

    The features (of several networks, the first's) are reduced to `WIDTH` principal components of the training images.
    The distance is 1 - the cosine of the angle between two images, 0 to 2. Unreadable images are set aside with a
    warning; raises ValueError if the model was not trained on one of the others.

    >>> Neighbors(model, train).nearest(["lesion.jpg"])["label"].tolist()  # doctest: +SKIP
    ['malignant', 'malignant', 'benign']
    """

    def __init__(self, model: ImageClassifier, training: ImageDataset):
        require_dataset(training, "Neighbors")
        training, self.model, self._training = training.originals(), model, model.metadata["training"]
        known = model.seen or dict.fromkeys(("images", "groups"), np.array([]))
        if strange := int((~splitting.seen(training, known, by_name=False)).sum()):
            problem = f"the model was not trained on {counted(strange, 'image')} of the {len(training):,}"
            raise ValueError(f"Neighbors takes a trained model and its training images: {problem}")
        training, images = inputs.readable(training, "training", model.image_size, model.backbone)
        order = training.table["group"].argsort(kind="stable").to_numpy()
        self.table = training.table.iloc[order].reset_index(drop=True)
        features = featurize(model.network, images)[order]
        pca = PCA(min(WIDTH, len(features) - 1, features.shape[1]), random_state=0).fit(features)
        arrays = {"mean": pca.mean_, "components": pca.components_.T, "vectors": np.zeros((0, 0))}
        arrays["vectors"] = Gallery([], arrays).reduce(features).astype(np.float16)
        arrays["starts"] = np.flatnonzero(~self.table["group"].duplicated())
        self.gallery = Gallery(self.table[["path", "label"]].to_dict("records"), arrays)

    def require(self, model: ImageClassifier) -> None:
        """Raise ValueError unless these are the neighbors of a model as it is trained now."""
        if self._training != model.metadata["training"]:
            raise ValueError("neighbors are of another training: make new ones by Neighbors(model, training)")

    def nearest(self, images: Images, count: int = 3) -> pd.DataFrame:
        """Return the `count` training images, 1 to 20, nearest to each image, each of another lesion.

        The columns are ``image``, the number of the image, ``path``, ``label`` and ``distance``, the nearest first.
        Raises ImageError, which names all images that cannot be read.
        """
        if not is_whole(count, 1) or count > MOST:
            raise ValueError(f"count is a whole number from 1 to {MOST}, not {count!r}")
        self.require(self.model)
        found = enumerate(self.gallery.search(self.model.featurize(images), count))
        rows = [{"image": number} | row for number, each in found for row in each]
        return pd.DataFrame(rows, columns=["image", "path", "label", "distance"])

    def published(self, thumbnails: bool = False) -> list[dict[str, Any]]:
        """Return what a service tells of each image: its file's name, its label, and perhaps a thumbnail.

        With that comes its license and attribution. Raises ValueError, which names the images, unless each license is
        CC-0, or a CC-BY that allows adapted copies and has an attribution.
        """
        facts = self.table[["path", "label"]].rename(columns={"path": "image"})
        facts["image"] = facts["image"].map(lambda path: stem(PureWindowsPath(path).name))
        if thumbnails:
            sources = self.table.reindex(columns=["copyright_license", "attribution"]).astype(object)
            facts[["license", "attribution"]] = sources.fillna("").map(lambda value: str(value).strip())
            free = facts["license"].map(lambda kind: bool(_FREE.fullmatch(kind)))
            free &= ~facts["license"].str.contains("BY", case=False) | (facts["attribution"] != "")
            if not free.all():
                said = facts["image"] + ": " + facts["license"].replace("", "no copyright_license")
                problem = f"lack a license that allows copies, or its attribution:{listed(said[~free])}"
                raise ValueError(f"thumbnails: {counted((~free).sum(), 'image')} {problem}")
            size = THUMBNAIL, self.model.backbone.interpolation
            squares = map_threads(lambda path: Image.fromarray(decode(path, *size)), self.table["path"])
            facts["thumbnail"] = [*map(data_url, squares)]
        return facts.to_dict("records")
