"""Draw the synthetic sample: dermoscopy-like images of invented lesions, with an ISIC-like metadata.csv.

Nothing here is a patient or a photograph. Each lesion gets a hidden score, drawn from one of two overlapping
normal distributions (benign, malignant), and everything that is drawn depends on the class only through that
score: so a model can learn something from the images, and none can be perfect. Skin, hair, rulers, bubbles
and dark corners are drawn without looking at the score.

Colors come from a simple image of skin as a filter: light is dimmed by melanin (brown, then black) and by
blood (red), channel by channel, as in Beer and Lambert's law; this mixes hues far better than painting does.
"""

import argparse
import csv
import io
from multiprocessing import Pool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import affine_transform, gaussian_filter, map_coordinates
from scipy.spatial import cKDTree
from scipy.special import expit, ndtri

N_LESIONS, N_SHARED = 80, 8  # lesions in all, and how many are a patient's second
SEPARATION = 2.0  # of the classes' mean scores, in deviations: no model can beat a ROC AUC of 0.92
WIDTH, HEIGHT = 600, 450
WORK = (675, 900)  # rows and columns drawn, 1.5 times the final ones, for clean thin lines
HALF_MM, PX_PER_MM = 10.0, 48  # a lesion's own map: 20 mm square, about as fine as the drawn views
MAX_BYTES = 37_000  # keeps the whole sample under 6 MB in the repository

MELANIN = np.array([0.62, 1.0, 1.42])  # absorption in red, green and blue
BLOOD = np.array([0.12, 0.85, 0.72])
BLOODLESS = np.array([0.96, 0.87, 0.82])  # skin without either
SKIN_MELANIN = {"I": 0.02, "II": 0.08, "III": 0.20, "IV": 0.40, "V": 0.72, "VI": 1.15}
SITES = ("Head and neck", "Trunk", "Upper extremity", "Lower extremity")

MELANOMA = "Malignant melanocytic proliferations (Melanoma)"
DIAGNOSES = {  # by look and class: the possible pairs of diagnosis_2 and diagnosis_3, in the archive's words
    ("melanocytic", "Benign"): [("Benign melanocytic proliferations", "Nevus")],
    ("melanocytic", "Malignant"): [(MELANOMA, "Melanoma Invasive"), (MELANOMA, "Melanoma in situ")],
    ("keratotic", "Benign"): [("Benign epidermal proliferations", "Seborrheic keratosis")],
    ("keratotic", "Malignant"): [
        ("Malignant epidermal proliferations", "Squamous cell carcinoma, Invasive"),
        ("Malignant epidermal proliferations", "Squamous cell carcinoma in situ"),
    ],
    ("pink", "Benign"): [("Benign soft tissue proliferations - Fibro-histiocytic", "Dermatofibroma")],
    ("pink", "Malignant"): [
        ("Malignant adnexal epithelial proliferations - Follicular", "Basal cell carcinoma"),
        (MELANOMA, "Melanoma Invasive"),
    ],
}


def sample_lesion(rng, score, look):
    """Draw a lesion's traits around its score; each has noise of its own, so that none decides alone.

    Lengths are in mm, strengths run from 0 to about 1.
    """
    badness = expit(1.1 * score)
    pink, keratotic, melanocytic = (look == name for name in ("pink", "keratotic", "melanocytic"))

    def around(low, high, spread):
        return float(max(low + (high - low) * badness + spread * rng.standard_normal(), 0.0))

    def sometimes(bias):
        return float(rng.random() < expit(1.2 * score - bias)) * rng.uniform(0.45, 1.0)

    return SimpleNamespace(
        look=look,
        radius=float(np.clip(2.9 * np.exp(0.17 * score + 0.2 * rng.standard_normal()), 1.5, 5.6)),
        elongation=1.0 + rng.uniform(0.0, 0.45),
        lobes=around(0.02, 0.10, 0.025),  # how far the outline departs from an ellipse
        ragged=around(0.10, 0.34, 0.08),  # fine irregularity of the border
        softness=rng.uniform(0.05, 0.16) if keratotic else rng.uniform(0.12, 0.45),  # of the border
        pigment=rng.uniform(0.15, 0.4) if pink else rng.uniform(0.55, 1.25),
        mottling=around(0.15, 0.45, 0.1),  # contrast of lighter and darker areas
        lopsided=around(0.05, 0.50, 0.14),  # pigment gathered on one side
        blotch=sometimes(0.6),
        network=0.0 if keratotic else rng.uniform(0.15, 0.9),
        disorder=around(0.15, 0.5, 0.1),  # of the network's cells
        globules=int(rng.integers(20, 200)) if melanocytic and rng.random() < 0.6 else 0,
        streaks=sometimes(1.3),
        veil=sometimes(1.8),
        regression=max(sometimes(1.5), 0.7 * pink * rng.random()),
        redness=(0.55 if pink else 0.08) + 0.35 * sometimes(0.8),
        cysts=int(rng.integers(8, 45)) if keratotic and rng.random() < expit(1.0 - score) else 0,
    )


def noise(rng, shape, cell, octaves=1):
    """Smooth noise of mean 0 and deviation 1, whose largest features are about `cell` pixels wide."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        step = max(cell / 2**octave / 3, 1.0)
        rows, cols = (int(np.ceil(n / step)) + 2 for n in shape)
        grid = gaussian_filter(rng.standard_normal((rows, cols)), 1.2, mode="wrap").astype(np.float32)
        size = (max(round(cols * step), shape[1]), max(round(rows * step), shape[0]))
        layer = np.asarray(Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC))
        total += layer[: shape[0], : shape[1]] / (grid.std() * 2**octave)
    return (total - total.mean()) / total.std()


def cell_walls(rng, shape, cell, jitter, width):
    """Return the walls (1 on a wall, 0 inside) of an irregular honeycomb with cells `cell` pixels wide."""
    rows, cols = np.mgrid[-2 : shape[0] / cell / 0.866 + 2, -2 : shape[1] / cell + 2]
    points = np.stack([rows * 0.866, cols + 0.5 * (rows % 2)], -1).reshape(-1, 2)
    points = (points + jitter * rng.standard_normal(points.shape)) * cell
    half = tuple((n + 1) // 2 for n in shape)  # asked at half size, for speed: the distances are smooth
    where = np.stack(np.mgrid[: half[0], : half[1]], -1) * 2.0
    where += cell * 0.35 * np.stack([noise(rng, half, cell * 2), noise(rng, half, cell * 2)], -1)
    near = cKDTree(points).query(where.reshape(-1, 2), k=2)[0]
    gap = (near[:, 1] - near[:, 0]).reshape(half).astype(np.float32)
    gap = np.asarray(Image.fromarray(gap).resize(shape[::-1], Image.Resampling.BICUBIC))
    return np.exp(-((gap / width) ** 2))


def radial_noise(rng, theta, rho, count, length):
    """Noise stretched along the radii: about `count` rays in a turn, each about `length` long."""
    table = gaussian_filter(rng.standard_normal((count * 3, 48)), 1.0, mode="wrap")
    where = [theta / (2 * np.pi) * count * 3, rho / length * 3]
    return map_coordinates(table / table.std(), where, order=1, mode="grid-wrap")


def stamp(field, points, radii, strengths):
    """Add soft-edged, slightly oval discs to `field`, in place (all in pixels)."""
    for i, ((row, col), radius, strength) in enumerate(zip(points, radii, strengths, strict=True)):
        reach = int(radius * 1.6) + 2
        r0, c0 = max(int(row) - reach, 0), max(int(col) - reach, 0)
        patch = field[r0 : r0 + 2 * reach, c0 : c0 + 2 * reach]
        y, x = np.mgrid[r0 : r0 + patch.shape[0], c0 : c0 + patch.shape[1]]
        shape = 0.18 * np.cos(2 * np.arctan2(y - row, x - col) + i)
        patch += strength * expit((radius * (1 + shape) - np.hypot(y - row, x - col)) / (0.16 * radius + 0.5))


def scatter(rng, weight, count):
    """Pick pixels at random with probability proportional to `weight`."""
    total = np.cumsum(weight.ravel())
    flat = np.searchsorted(total, rng.random(count) * total[-1])
    return np.stack(np.unravel_index(np.minimum(flat, weight.size - 1), weight.shape), -1)


def strokes(shape, paths, widths):
    """Rasterise tapered lines: each path is an array of (x, y), its width falls to nothing at its tip."""
    canvas = Image.new("L", (shape[1] * 2, shape[0] * 2))
    pen = ImageDraw.Draw(canvas)
    for path, width in zip(paths, widths, strict=True):
        for k, (start, end) in enumerate(zip(path[:-1] * 2, path[1:] * 2, strict=True)):
            w = 2 * width * (1 - (k / len(path)) ** 2) ** 0.5 * min(0.4 + 6 * k / len(path), 1.0)
            gray = int(255 * min(w, 1.0))  # thinner than a pixel: fainter instead
            pen.line([*start, *end], fill=gray, width=max(round(w), 1))
    small = canvas.resize(shape[::-1], Image.Resampling.BOX)
    return np.asarray(small, dtype=float) / 255


def wander(rng, start, angle, length, bend, steps=24):
    """Return a smoothly bending path of (x, y) from `start`."""
    turns = angle + np.cumsum(bend / steps + rng.standard_normal(steps) * abs(bend) * 0.05)
    steps_xy = np.stack([np.cos(turns), np.sin(turns)], -1) * length / steps
    return np.asarray(start) + np.concatenate([np.zeros((1, 2)), np.cumsum(steps_xy, 0)])


def depth_below_border(rng, lesion, theta, rho, shape):
    """Return the distance inside the outline, in mm (negative outside)."""
    waves = sum(
        lesion.lobes * rng.standard_normal() / (k - 1) ** 0.7 * np.cos(k * theta + rng.uniform(0, 2 * np.pi))
        for k in range(2, 7)
    )
    stretch = lesion.elongation
    ellipse = 1 / np.hypot(np.cos(theta) / stretch**0.5, np.sin(theta) * stretch**0.5)
    depth = lesion.radius * ellipse * (1 + waves) - rho
    depth += lesion.ragged * (0.9 * noise(rng, shape, 80, 5) + 0.2 * noise(rng, shape, 12, 2))
    rays = radial_noise(rng, theta, rho, int(28 * lesion.radius), 2.0)
    part = expit(3 * noise(rng, shape, 300))  # streaks sit on a part of the border
    return depth + (0.07 + 0.30 * lesion.streaks * part) * rays * np.exp(-((depth / 0.8) ** 2))


def network_lines(rng, lesion, depth):
    """Return the pigment network's contrast map: 0 on average, high on the lines."""
    shape = depth.shape
    cell = rng.uniform(0.16, 0.27) * PX_PER_MM
    coarse = 1 + lesion.disorder * 0.5 * noise(rng, shape, 200)  # thicker lines here and there
    lines = cell_walls(rng, shape, cell, 0.12 + 0.35 * lesion.disorder, cell * 0.27) * np.clip(coarse, 0.4, 2)
    zone = expit(2.5 * (noise(rng, shape, 180, 2) + 0.6 - 0.45 * np.maximum(depth - 0.8, 0)))
    return lesion.network * zone * (lines - 0.4)


def marks(rng, field, weight, count, radii, strengths):
    """Strew soft discs over `field`, more where `weight` is high."""
    points = scatter(rng, weight, count)
    stamp(field, points, rng.uniform(*radii, count), rng.uniform(*strengths, count))


def add_globules(rng, lesion, melanin, mask, depth):
    """Strew brown globules and black dots, in some lesions mostly along the rim."""
    weight = mask * np.exp(-((depth - 0.25) ** 2) * 3) if rng.random() < 0.35 else mask
    weight = weight * expit(2 * noise(rng, mask.shape, 150))
    marks(rng, melanin, weight, lesion.globules, (2.5, 6.0), (0.2, 0.7))
    marks(rng, melanin, mask, lesion.globules // 3, (1.2, 2.4), (0.4, 1.2))


def add_vessels(rng, blood, mask, redness):
    """Draw dots and short bent vessels where the lesion is red."""
    n = int(90 * redness)
    paths = [
        wander(rng, spot[::-1], rng.uniform(0, 2 * np.pi), rng.uniform(8, 60), rng.uniform(-4, 4))
        for spot in scatter(rng, mask, n)
    ]
    blood += 0.9 * gaussian_filter(strokes(mask.shape, paths, rng.uniform(1.2, 2.8, n)), 0.8)
    marks(rng, blood, mask, n, (1.5, 3.0), (0.4, 0.7))


def draw_lesion(rng, lesion):
    """Return the lesion's maps, stacked: melanin, blood, scar-like white, blue-white veil, keratin."""
    n = int(2 * HALF_MM * PX_PER_MM)
    shape = (n, n)
    y, x = (np.mgrid[:n, :n].astype(np.float32) - n / 2) / PX_PER_MM
    theta, rho = np.arctan2(y, x) % (2 * np.pi), np.hypot(y, x)
    depth = depth_below_border(rng, lesion, theta, rho, shape)
    mask = expit(depth / (lesion.softness * 0.5))
    inner = np.clip(depth / lesion.radius, 0, 1)
    turn = rng.uniform(0, 2 * np.pi)
    side = (float(np.cos(turn)) * x + float(np.sin(turn)) * y) / lesion.radius
    white, keratin = np.zeros(shape), np.zeros(shape)

    tone = 0.75 + 0.5 * inner + lesion.mottling * noise(rng, shape, 130, 5) + lesion.lopsided * side
    tone += 0.10 * noise(rng, shape, 7, 2)  # the grain of pigment
    melanin = lesion.pigment * np.maximum(tone + network_lines(rng, lesion, depth), 0.12)
    if lesion.blotch:
        where = expit(3.2 * (noise(rng, shape, 150, 5) + 1.1 * side - 0.6))
        melanin += 1.5 * lesion.blotch * where * (0.8 + 0.15 * noise(rng, shape, 20, 2))
    if lesion.globules:
        add_globules(rng, lesion, melanin, mask, depth)

    rim = np.exp(-(((depth + 0.3) / 0.6) ** 2))
    blood = lesion.redness * (0.8 + 0.4 * noise(rng, shape, 120, 3)) + 0.12 * rim
    add_vessels(rng, blood, mask, lesion.redness)
    if lesion.regression:
        center = inner * (2.4 if lesion.look == "pink" else 0.8)
        white = lesion.regression * expit(2.8 * (noise(rng, shape, 150, 5) + center - 1.4)) * mask
        melanin *= 1 - 0.85 * white
        marks(rng, melanin, white, 60, (1, 2), (0.2, 0.5))  # what is left of the pigment: peppery dots
    veil = 0.22 * expit(2 * noise(rng, shape, 150, 4) - 1) * mask  # a trace in all, so that browns vary
    if lesion.veil:
        patch = expit(2.5 * (noise(rng, shape, 190, 5) + 1.5 * inner - 1.1)) * expit(depth * 5 - 1)
        veil += 0.6 * lesion.veil * patch
        melanin *= 1 + 0.3 * patch
    if lesion.look == "keratotic":
        furrows = cell_walls(rng, shape, 42, 0.35, 7) * expit(2 * noise(rng, shape, 150))
        melanin *= 1 + 0.35 * furrows
        marks(rng, keratin, inner, lesion.cysts, (2, 7), (0.3, 0.8))
        marks(rng, melanin, inner, lesion.cysts // 3, (4, 9), (0.5, 1.2))  # comedo-like openings
    return np.stack([melanin * mask, np.maximum(blood, 0) * mask, white, veil, keratin])


def place(maps, rng, px_per_mm):
    """Turn, scale and shift a lesion's maps into a view, but never mirror them: a camera cannot."""
    angle = rng.uniform(0, 2 * np.pi)
    zoom = PX_PER_MM / px_per_mm
    matrix = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = np.array(WORK) / 2 + rng.normal(0, 22, 2)
    offset = np.array(maps.shape[1:]) / 2 - matrix @ target
    return np.stack([affine_transform(m, matrix, offset, WORK, order=1) for m in maps])


def skin_maps(rng, skin_type, px_per_mm):
    """Return skin melanin, skin blood and surface relief: follicles, skin lines, mottling."""
    base = SKIN_MELANIN[skin_type]
    mottle = 1 + 0.10 * noise(rng, WORK, 260, 4) + 0.05 * noise(rng, WORK, 6, 2)
    lines = cell_walls(rng, WORK, 0.55 * px_per_mm, 0.3, 0.09 * px_per_mm) * expit(noise(rng, WORK, 200))
    melanin = (base + 0.03) * mottle + (0.03 + 0.15 * base) * lines * rng.uniform(0.3, 1.2)
    n = int(rng.integers(15, 90))
    follicles = np.zeros(WORK)
    stamp(follicles, rng.random((n, 2)) * WORK, rng.uniform(3, 7, n), rng.uniform(0.3, 1.0, n))
    melanin += (0.04 - 0.22 * base) * follicles  # a faint brown dot in pale skin, a pale one in dark skin
    blood = 0.08 + 0.03 * noise(rng, WORK, 180, 4)
    flush = cell_walls(rng, WORK, 1.4 * px_per_mm, 0.35, 0.14 * px_per_mm)
    flush = gaussian_filter(flush * expit(2 * noise(rng, WORK, 220) - 1.5), 2.5)
    blood += rng.uniform(0, 0.18) * flush
    relief = 0.012 * noise(rng, WORK, 9, 2) - 0.02 * lines * rng.random()
    return np.maximum(melanin, 0.0), np.maximum(blood, 0.0), relief


def blend(rgb, color, alpha):
    """Lay `color` over the image with opacity `alpha`."""
    return rgb + (np.asarray(color) - rgb) * np.clip(alpha, 0, 1)[..., None]


def add_hair(rng, rgb):
    """Lay dark or light hairs over the image, roughly combed one way, each with a faint shadow."""
    n = int(rng.choice([rng.integers(1, 6), rng.integers(6, 18), rng.integers(18, 35)], p=[0.5, 0.35, 0.15]))
    comb, spread = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.0)
    starts = (rng.random((n, 2)) * 1.2 - 0.1) * WORK[::-1]
    angles, lengths, bends = rng.normal(comb, spread, n), rng.uniform(200, 800, n), rng.normal(0, 0.9, n)
    paths = [wander(rng, *traits, steps=40) for traits in zip(starts, angles, lengths, bends, strict=True)]
    widths = rng.uniform(1.2, 3.8) * rng.uniform(0.6, 1.2, n)
    hair = gaussian_filter(strokes(WORK, paths, widths), 0.6)
    dark = rng.random() < 0.75
    color = np.array([0.16, 0.11, 0.08]) * rng.uniform(0.5, 1.8) if dark else np.array([0.92, 0.88, 0.80])
    shadow = gaussian_filter(np.roll(hair, (3, 2), (0, 1)), 2.5)
    return blend(rgb * (1 - 0.25 * shadow[..., None]), color, hair * (0.88 if dark else 0.6))


def add_bubbles(rng, rgb):
    """Add bubbles in the gel: bright rim, dark inner ring and a highlight towards the lamp."""
    center = rng.random(2) * WORK
    y, x = np.mgrid[: WORK[0], : WORK[1]]
    lamp = rng.uniform(0, 2 * np.pi)
    bright, dim = np.zeros(WORK), np.zeros(WORK)
    for _ in range(int(rng.integers(3, 16))):
        row, col = center + rng.normal(0, 90, 2)
        radius = float(np.exp(rng.normal(2.4, 0.5)))
        d = np.hypot(y - row, x - col)
        towards = np.cos(np.arctan2(y - row, x - col) - lamp)
        dim += 0.16 * np.exp(-(((d - 0.85 * radius) / 2.5) ** 2))
        bright += 0.42 * np.exp(-(((d - radius) / 1.3) ** 2)) * (0.6 + 0.4 * towards)
        spot = np.hypot(y - row - 0.5 * radius * np.sin(lamp), x - col - 0.5 * radius * np.cos(lamp))
        bright += 0.9 * np.exp(-((spot / (0.17 * radius + 0.8)) ** 2))
    return blend(rgb * (1 - dim[..., None]), (1, 1, 1), bright)


def add_ruler(rng, rgb, px_per_mm):
    """Print a millimeter scale along one edge, as on a dermoscope's glass plate."""
    canvas = Image.new("L", (WORK[1] * 2, WORK[1] * 2))
    pen = ImageDraw.Draw(canvas)
    step, margin = 2 * px_per_mm, rng.uniform(10, 60)
    for k in range(int(2 * WORK[1] / step) + 1):
        length = 52 if k % 10 == 0 else 38 if k % 5 == 0 else 24
        pen.line([k * step, margin, k * step, margin + length], fill=255, width=3)
        if k % 5 == 0:
            pen.text((k * step + 6, margin + length - 4), str(k), fill=255, font_size=30)
    canvas = canvas.resize((WORK[1], WORK[1]), Image.Resampling.BOX)
    canvas = canvas.rotate(rng.normal(0, 1.5), Image.Resampling.BICUBIC)
    edge = np.rot90(np.asarray(canvas, dtype=float) / 255, int(rng.integers(4)))
    top, bottom = edge[: WORK[0]], edge[-WORK[0] :]  # the square's part that holds the scale
    rows = top if top.sum() > bottom.sum() else bottom
    return blend(rgb, rng.choice([0.08, 0.2]) * np.ones(3), 0.85 * rows)


def vignette(rng, strength):
    """Return the field's brightness: a gentle fall-off, or a dark tube around a bright disc."""
    y, x = np.mgrid[: WORK[0], : WORK[1]]
    center = np.array(WORK) / 2 + rng.normal(0, 14, 2)
    d = np.hypot(y - center[0], x - center[1]) / (WORK[1] / 2)
    if strength == "none":
        return 1 - rng.uniform(0.02, 0.14) * d**2
    radius = rng.uniform(1.02, 1.2) if strength == "corners" else rng.uniform(0.78, 0.95)
    edge = rng.uniform(0.012, 0.05)
    return (1 - 0.12 * d**4) * expit((radius - d) / edge) + 0.012


def draw_view(rng, maps, skin_type):
    """Draw one image of a lesion, with its own framing, light and artifacts."""
    px_per_mm = WORK[1] / rng.uniform(13.5, 20.0)
    melanin, blood, white, veil, keratin = place(maps, rng, px_per_mm)
    skin_melanin, skin_blood, relief = skin_maps(rng, skin_type, px_per_mm)
    absorbed = (skin_melanin + melanin)[..., None] * MELANIN + (skin_blood + blood)[..., None] * BLOOD
    rgb = BLOODLESS * np.exp(-absorbed) + 0.015
    pale = BLOODLESS * np.exp(-0.6 * SKIN_MELANIN[skin_type] * MELANIN)
    rgb = blend(rgb, pale * (0.93, 0.88, 0.88), 0.6 * white)
    light = 0.55 + 0.45 * np.exp(-SKIN_MELANIN[skin_type])
    rgb = blend(rgb, np.array([0.42, 0.47, 0.55]) * light, veil)
    rgb = blend(rgb, np.array([0.96, 0.88, 0.70]) * light, 0.85 * keratin)

    turn, y, x = rng.uniform(0, 6.28), *np.mgrid[-1 : 1 : WORK[0] * 1j, -1 : 1 : WORK[1] * 1j]
    lamp = 1 + rng.uniform(0, 0.09) * (np.cos(turn) * x + np.sin(turn) * y) + relief
    rgb = rgb * lamp[..., None]
    if rng.random() < 0.55:
        rgb = add_hair(rng, rgb)
    if rng.random() < 0.22:
        rgb = add_bubbles(rng, rgb)
    if rng.random() < 0.2:
        rgb = add_ruler(rng, rgb, px_per_mm)
    field = vignette(rng, rng.choice(["none", "corners", "circle"], p=[0.62, 0.23, 0.15]))
    # from a little warm to the blue of many dermoscopes' lamps
    cast = np.exp(rng.normal(0, 0.025, 3) + rng.uniform(-0.2, 1) * np.array([-0.10, 0.01, 0.08]))
    rgb = rgb * field[..., None] * cast * rng.uniform(0.96, 1.1)

    rgb = gaussian_filter(rgb, (*[rng.choice([0.5, 0.8, 1.4], p=[0.5, 0.35, 0.15])] * 2, 0))
    image = Image.fromarray((np.clip(rgb, 0, 1) * 255).astype(np.uint8))
    small = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS), dtype=float)
    small += rng.normal(0, rng.uniform(0.8, 2.5), small.shape)  # colored sensor noise, then gray
    small += rng.normal(0, 1.2, small.shape[:2])[..., None]
    return Image.fromarray(np.clip(small, 0, 255).astype(np.uint8))


def to_jpeg(image):
    """Encode at the best quality that keeps the file small."""
    for quality in range(88, 30, -4):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= MAX_BYTES:
            break
    return buffer.getvalue()


def draw_all_views(job):
    """Draw every view of one lesion; returns the JPEG files' bytes."""
    seed, score, look, skin_type, views = job
    traits_seed, map_seed, *view_seeds = seed.spawn(2 + views)
    lesion = sample_lesion(np.random.default_rng(traits_seed), score, look)
    maps = draw_lesion(np.random.default_rng(map_seed), lesion)
    return [to_jpeg(draw_view(np.random.default_rng(s), maps, skin_type)) for s in view_seeds]


def invent_lesions(rng):
    """Return the lesions' labels, scores and looks; the looks are as frequent in either class.

    The scores are the middles of equal slices of a normal distribution rather than free draws, so that
    a small sample overlaps as much as a large one would.
    """
    per_class = N_LESIONS // 2
    spread = ndtri((np.arange(per_class) + 0.5) / per_class)
    looks = ["melanocytic"] * 28 + ["keratotic"] * 7 + ["pink"] * 5
    lesions = []
    for label, shift in (("Benign", -SEPARATION / 2), ("Malignant", SEPARATION / 2)):
        pairs = zip(rng.permutation(spread) + shift, rng.permutation(looks), strict=True)
        lesions += [(label, float(score), str(look)) for score, look in pairs]
    return [lesions[i] for i in rng.permutation(N_LESIONS)]


def invent_patient(rng, number, label):
    """Return the fields that belong to a patient; only the age leans on the diagnosis, mildly."""
    age = int(np.clip(5 * round(rng.normal(58 if label == "Malignant" else 48, 16) / 5), 15, 85))
    return {
        "age_approx": "" if rng.random() < 0.06 else age,
        "sex": rng.choice(["male", "female", ""], p=[0.48, 0.47, 0.05]),
        "fitzpatrick_skin_type": rng.choice(list(SKIN_MELANIN), p=[0.13, 0.26, 0.24, 0.15, 0.12, 0.10]),
        "patient_id": f"IP_99{number:05d}",
    }


def describe(rng, label, look, lesion_number, patient):
    """Return the metadata that a lesion's images share."""
    diagnosis_2, diagnosis_3 = rng.choice(DIAGNOSES[look, label])
    expert = label == "Benign" and rng.random() < 0.4
    return patient | {
        "attribution": "Synthetic image drawn by sample_data/make_sample.py; no real patient",
        "copyright_license": "CC-0",
        "anatom_site_1": rng.choice(SITES, p=[0.16, 0.44, 0.17, 0.23]),
        "diagnosis_1": label,
        "diagnosis_2": diagnosis_2,
        "diagnosis_3": diagnosis_3,
        "diagnosis_confirm_type": "single image expert consensus" if expert else "histopathology",
        "image_type": "dermoscopic",
        "lesion_id": f"IL_99{lesion_number:05d}",
        "pixels_x": WIDTH,
        "pixels_y": HEIGHT,
    }


def make_sample(out, seed):
    """Draw the whole sample into the folder `out`."""
    plan_seed, *lesion_seeds = np.random.SeedSequence(seed).spawn(1 + N_LESIONS)
    rng = np.random.default_rng(plan_seed)
    numbers = {k: rng.choice(100_000, 4 * N_LESIONS, replace=False) for k in ("image", "lesion", "patient")}
    rows, jobs, patients = [], [], []
    for i, (label, score, look) in enumerate(invent_lesions(rng)):
        if i < N_LESIONS - N_SHARED:
            patients.append(invent_patient(rng, numbers["patient"][i], label))
        patient = patients[i % (N_LESIONS - N_SHARED)]  # the last lesions go to patients who have one already
        views = int(rng.choice([1, 2, 3, 4], p=[0.35, 0.37, 0.2, 0.08]))
        jobs.append((lesion_seeds[i], score, look, patient["fitzpatrick_skin_type"], views))
        shared = describe(rng, label, look, numbers["lesion"][i], patient)
        ids = numbers["image"][len(rows) : len(rows) + views]
        rows += [{"isic_id": f"ISIC_99{number:05d}"} | shared for number in ids]

    folder = out / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("ISIC_99*.jpg"):
        old.unlink()
    with Pool() as pool:  # the seeds, not the order of work, decide what is drawn
        images = [jpeg for lesion in pool.imap(draw_all_views, jobs) for jpeg in lesion]
    for row, jpeg in zip(rows, images, strict=True):
        (folder / f"{row['isic_id']}.jpg").write_bytes(jpeg)
    with (out / "metadata.csv").open("w", newline="") as file:
        fields = ["isic_id", *sorted(rows[0].keys() - {"isic_id"})]
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["isic_id"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the synthetic sample of dermoscopy-like images.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    parser.add_argument("--seed", type=int, default=99, help="the same seed draws the same files")
    arguments = parser.parse_args()
    make_sample(arguments.out, arguments.seed)
