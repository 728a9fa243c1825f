"""Images decoded to 224 px per second: decode against Pillow's full decoding and resizing.

Both in one thread, in turn, on the bundled sample (600x450), on the same images enlarged to 4000x3000, and, where
they are there, on the ten real images of 1022x767, as they are and enlarged.
"""

import io
import statistics
import time
from pathlib import Path

import numpy as np
from PIL import Image

from isicvision import PROJECT_ROOT
from isicvision.images import decode

REAL = Path(PROJECT_ROOT).parent / "shared" / "data" / "isic_sample"
SIZE, ROUNDS = 224, 5


def full(data):
    """Decode in full, cut the center, resize: what decode saves."""
    with Image.open(io.BytesIO(data)) as image:
        rgb = image.convert("RGB")
    width, height = rgb.size
    left = (width - height) / 2
    return np.asarray(rgb.resize((SIZE, SIZE), Image.BILINEAR, box=(left, 0, width - left, height)))


def enlarged(data):
    """Return a JPEG of 12 megapixels."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((4000, 3000), Image.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def seconds(function, images):
    started = time.perf_counter()
    for data in images:
        function(data)
    return time.perf_counter() - started


def main():
    small = [path.read_bytes() for path in sorted(Path(PROJECT_ROOT, "sample_data/images").iterdir())[:40]]
    sets = {"sample, 600x450": small, "sample, 4000x3000": [enlarged(data) for data in small[:4]]}
    if real := [path.read_bytes() for path in sorted(REAL.glob("*/*.jpg"))]:
        sets |= {"real, 1022x767": real, "real, 4000x3000": [enlarged(data) for data in real]}
    for name, images in sets.items():
        times = [(seconds(pixels_decode, images), seconds(full, images)) for _ in range(ROUNDS)]
        ratio = statistics.median(theirs / ours for ours, theirs in times)
        rate = len(images) / statistics.median(ours for ours, _ in times)
        apart = np.mean([np.abs(pixels_decode(d).astype(int) - full(d)).mean() for d in images])
        print(
            f"{name}: {rate:.0f} images/s, {ratio:.2f} times Pillow's full decoding, {apart:.2f} of 255 apart"
        )


def pixels_decode(data):
    return decode(data, SIZE)


if __name__ == "__main__":
    main()
