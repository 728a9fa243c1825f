"""Images that are no dermoscopic ones: drawn from a seed, or cut from photographs that packages carry."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WORDS = (
    "the patient report of a page with lines and words that say nothing in particular about any lesion but fill "
    "the paper as letters do invoice total date signature 2018 4711 kg mm page"
).split()
SKIN = ("f6ede4", "f3e7db", "f7ead0", "eadaba", "d7bd96", "a07e56", "825c43", "604134", "3a312a", "292420")
"""Tones of the Monk skin tone scale (Monk, 2019)."""


def noise(random, size):
    """Draw noise: white, gray, of two values, in blobs, or with the spectrum of photographs."""
    width, height = size
    kind = random.integers(5)
    if kind == 0:
        array = random.integers(0, 256, (height, width, 3))
    elif kind == 1:
        array = np.repeat(random.normal(128, 50, (height, width, 1)), 3, axis=2)
    elif kind == 2:
        array = 255 * (random.random((height, width, 1)) < random.random()) * np.ones(3)
    elif kind == 3:
        cells = random.integers(0, 256, (*random.integers(3, 30, 2), 3)).astype(np.uint8)
        return Image.fromarray(cells).resize(size, Image.BICUBIC)
    else:
        rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
        waves = np.fft.fft2(random.normal(size=(3, height, width))) / np.hypot(rows, columns).clip(1 / width)
        array = np.fft.ifft2(waves).real.transpose(1, 2, 0)
        array = 128 + 50 * (array - array.mean()) / array.std()
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


def plain(random, size):
    """Draw skin without anything on it: one tone, unevenly lit, with the noise of a camera."""
    tone = np.array([*bytes.fromhex(SKIN[random.integers(len(SKIN))])], float)
    across, down = np.meshgrid(np.linspace(-1, 1, size[0]), np.linspace(-1, 1, size[1]))
    light = 1 + random.uniform(-0.2, 0.2) * across + random.uniform(-0.2, 0.2) * down
    light -= random.uniform(0, 0.2) * (across**2 + down**2)
    array = tone * light[..., None] + random.normal(0, random.uniform(0, 5), (size[1], size[0], 3))
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


def document(random, size):
    """Draw a page of text, a form with lines, a screenshot of windows, or a chart."""
    kind = random.integers(4)
    if kind == 3:
        return _chart(random, size)
    paper = tuple(int(value) for value in random.integers(225, 256, 3))
    image = Image.new("RGB", size, paper if kind < 2 else tuple(int(v) for v in random.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(int(random.integers(9, 26)))
    step = font.size * 1.4
    if kind == 2:
        for _ in range(random.integers(2, 6)):
            left, top = (random.random(2) * size * 0.7).astype(int)
            right, bottom = (
                left + int(size[0] * random.uniform(0.2, 0.7)),
                top + int(size[1] * random.uniform(0.2, 0.7)),
            )
            draw.rectangle((left, top, right, bottom), fill=paper, outline="gray")
            draw.rectangle(
                (left, top, right, top + step), fill=tuple(int(v) for v in random.integers(0, 200, 3))
            )
            for row in range(int((bottom - top) / step) - 1):
                text = " ".join(random.choice(WORDS, int((right - left) / font.size / 4)))
                draw.text((left + 4, top + (row + 1) * step), text, fill="black", font=font)
        return image
    for row in range(1, int(size[1] / step) - 1):
        if random.random() < 0.85:
            words = random.choice(WORDS, int(random.integers(2, max(3, int(size[0] / font.size / 3)))))
            draw.text((size[0] * 0.06, row * step), " ".join(words), fill=(30, 30, 40), font=font)
        if kind == 1:
            draw.line((size[0] * 0.05, (row + 1) * step, size[0] * 0.95, (row + 1) * step), fill="black")
    return image


def _chart(random, size):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100)
    canvas, axes = FigureCanvasAgg(figure), figure.add_subplot()
    values = random.normal(size=(3, 20)).cumsum(axis=1)
    getattr(axes, random.choice(["plot", "bar", "scatter"]))(np.arange(20), values[0])
    axes.plot(values[1:].T)
    axes.set_title(" ".join(random.choice(WORDS, 4)))
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def photographs():
    """Return the paths of the photographs that scikit-learn, scikit-image, matplotlib and imaug bring."""
    import imgaug
    import matplotlib
    import skimage
    import sklearn.datasets

    folders = [
        Path(sklearn.datasets.__file__).parent / "images",
        Path(skimage.__file__).parent / "data",
        Path(imgaug.__file__).parent,
        Path(matplotlib.get_data_path()) / "sample_data",
    ]
    drawn = (
        "multipage",
        "no_time",
        "phantom",
        "text",
        "page",
        "logo",
        "checker",
        "chess",
        "horse",
        "color",
        "bw",
        "truncated",
        "depth_map",
    )
    found = [
        path for folder in folders for path in sorted(folder.glob("*.*")) if path.suffix in (".jpg", ".png")
    ]
    return [path for path in found if not any(word in path.name for word in drawn)]


def photograph(random, size):
    """Cut a piece of 40 % to 100 % of the width from one of `photographs`, of the shape of `size`."""
    paths = photographs()
    with Image.open(paths[random.integers(len(paths))]) as whole:
        whole = whole.convert("RGB")
    width = min(whole.width, whole.height * size[0] / size[1]) * random.uniform(0.4, 1)
    height = width * size[1] / size[0]
    left, top = random.uniform(0, whole.width - width), random.uniform(0, whole.height - height)
    return whole.resize(size, Image.BICUBIC, box=(left, top, left + width, top + height))


KINDS = {"noise": noise, "photograph": photograph, "document": document, "plain skin": plain}


def images(kind, count, seed=0, size=(600, 450)):
    """Make `count` JPEG files of one of `KINDS`.

    Returns
    -------
    list of bytes
    """
    random = np.random.default_rng(seed)
    return [jpeg(KINDS[kind](random, size)) for _ in range(count)]


def jpeg(image):
    """Return a Pillow image as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def blurred(content, share):
    """Blur an image by a Gaussian whose radius is a share of its width; bytes in, bytes out."""
    with Image.open(io.BytesIO(content)) as image:
        return jpeg(image.convert("RGB").filter(ImageFilter.GaussianBlur(share * image.width)))


def reduced(content, size):
    """Reduce an image to `size`; bytes in, bytes out."""
    with Image.open(io.BytesIO(content)) as image:
        return jpeg(image.resize(size, Image.BICUBIC))
