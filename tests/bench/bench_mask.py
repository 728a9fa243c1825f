"""How well the mask of the lesion covers the outlines that physicians drew in PH2, against Otsu's threshold on blue.

    python tests/bench/bench_mask.py            # some seconds on one core

Recall is the share of the outline that the mask covers; Dice's coefficient also counts what it covers beyond. Square
images are the centers that a network sees, as in the shortcut audit; their outlines are cut in the same way. ``halves``
are the least figures of 200 random halves of the images. PH2 is another clinic than that of any training image.
"""

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from isicvision.data import skin
from isicvision.images import decode

PH2 = Path(__file__).resolve().parents[3] / "shared" / "data" / "ph2"


def otsu(image):
    """Find the lesion as isicvision did at first: the most central region below Otsu's threshold on blue."""
    seen = skin._view(image)
    blue = cv2.medianBlur(np.ascontiguousarray(image[..., 2]), 9)
    threshold, _ = cv2.threshold(blue[seen], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    dark = ((blue <= threshold) & seen).astype(np.uint8)
    count, numbers = cv2.connectedComponents(dark)
    weights = np.bincount(numbers.ravel(), np.exp(-4 * skin._squared_radius(dark.shape)).ravel(), count)
    weights[0] = 0
    best = (numbers == weights.argmax()) & (dark > 0)
    outlines, _ = cv2.findContours(best.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = cv2.drawContours(np.zeros_like(dark), outlines, -1, 1, cv2.FILLED) > 0
    if 0.01 * seen.sum() < found.sum() < 0.65 * seen.sum():
        return found
    return skin._squared_radius(found.shape) <= 0.7**2


def read(table, folder, side):
    """Read images and outlines, whole or as the center square of `side` pixels."""
    for name in table["image_id"]:
        image = decode(folder / "images" / f"{name}.jpg", side)
        outline = Image.open(folder / "masks" / f"{name}.png").convert("L")
        width, height = outline.size
        left, top = (max(0, (a - b) / 2) if side else 0 for a, b in ((width, height), (height, width)))
        box = left, top, width - left, height - top
        outline = outline.resize(image.shape[1::-1], Image.Resampling.BILINEAR, box=box)
        yield image, np.asarray(outline) > 127


def measured(pairs, method, margin):
    """Return recall, Dice's coefficient and milliseconds of processor time of each image."""
    rows = []
    for image, outline in pairs:
        started = time.process_time()
        found = method(skin._reduced(image))
        if margin:
            found = skin._grown(found, skin.MARGIN)
        found = skin._enlarged(found, image.shape)
        milliseconds = 1000 * (time.process_time() - started)
        both = (found & outline).sum()
        rows.append((both / outline.sum(), 2 * both / (found.sum() + outline.sum()), milliseconds))
    return pd.DataFrame(rows, columns=["recall", "dice", "ms"])


def main():
    """Measure both methods on whole and square images, without and with the margin."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default=PH2, type=Path, help="folder with images, masks and metadata.csv")
    folder = parser.parse_args().images
    cv2.setNumThreads(1)
    table = pd.read_csv(folder / "metadata.csv")
    melanoma = (table["diagnosis"] == "melanoma").to_numpy()
    rows = []
    for side in (None, 224, 96):
        pairs = [*read(table, folder, side)]
        for name, method in (("Otsu on blue", otsu), ("lesion_mask", skin._lesion)):
            for margin in (False, True):
                found = measured(pairs, method, margin)
                random, halves = np.random.default_rng(0), []
                for _ in range(200):
                    half = random.permutation(len(table))[: len(table) // 2]
                    chosen = found.iloc[half]
                    halves.append((chosen[melanoma[half]]["recall"].mean(), chosen["dice"].mean()))
                rows.append(
                    {
                        "side": side or "whole",
                        "mask": name,
                        "margin": margin,
                        "recall melanoma": found[melanoma]["recall"].mean(),
                        "least": found[melanoma]["recall"].min(),
                        "halves": np.min(halves, axis=0)[0],
                        "recall nevus": found[~melanoma]["recall"].mean(),
                        "dice": found["dice"].mean(),
                        "halves ": np.min(halves, axis=0)[1],
                        "melanoma": found[melanoma]["dice"].mean(),
                        "nevus": found[~melanoma]["dice"].mean(),
                        "ms": found["ms"].mean(),
                    }
                )
    print(f"{len(table)} images, {melanoma.sum()} melanomas")
    print(pd.DataFrame(rows).round(3).to_string(index=False))


if __name__ == "__main__":
    main()
