"""Find the nearest of many images, one of each lesion: for notebooks and, as a copy, for the web service."""

import json
from pathlib import Path
from typing import Any

import numpy as np

MOST = 20  # neighbors of an image


class Gallery:
    """Images that are found by their features: centered, reduced to components, and divided by their length.

    `facts` are what `search` tells of each image. `arrays`: float32 ``mean`` (features,) and ``components`` (features,
    width), float16 ``vectors`` (images, width), sorted by lesion, and ``starts``, at which of them a lesion begins.
    """

    def __init__(self, facts: list[dict], arrays: dict[str, Any]):
        self.facts, self.arrays = facts, arrays
        self._mean, self._components, self._vectors = (
            arrays[name].astype(np.float32) for name in ("mean", "components", "vectors")
        )

    def save(self, path: Path, facts: list[dict]) -> None:
        """Write a file, which `load` reads, with other facts."""
        text = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        np.savez_compressed(path, facts=text, **self.arrays)

    @classmethod
    def load(cls, path: Path) -> "Gallery":
        """Read what `save` wrote."""
        with np.load(path) as found:
            return cls(json.loads(found["facts"].tobytes()), dict(found))

    def reduce(self, features: np.ndarray) -> np.ndarray:
        """Map float32 features (n, features) to vectors of length 1: float32 (n, width)."""
        found = (features - self._mean) @ self._components
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-9)

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Return 1 - the cosine of the angles to each image's vector: float32 (n, images), 0 to 2."""
        return np.maximum(1 - self.reduce(features) @ self._vectors.T, 0)

    def search(self, features: np.ndarray, count: int) -> list[list[dict]]:
        """Return the facts and the ``distance`` of the nearest image of each of the `count` nearest lesions."""
        answers, starts = [], self.arrays["starts"]
        for distances in self.distances(features):
            closest = np.minimum.reduceat(distances, starts)
            few = np.argpartition(closest, min(count, len(starts)) - 1)[:count]  # sorting all takes longer
            lesions = few[np.argsort(closest[few], kind="stable")]
            ends = np.append(starts, len(distances))
            rows = [ends[n] + distances[ends[n] : ends[n + 1]].argmin() for n in lesions]
            answers.append([self.facts[row] | {"distance": float(distances[row])} for row in rows])
        return answers
