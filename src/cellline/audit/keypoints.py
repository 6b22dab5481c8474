"""Keypoints: places that can be found again in another crop of the same field of view.

They follow Lowe 2004, "Distinctive image features from scale-invariant keypoints": local extrema of
the smoothed image, each with a descriptor that the eight flips and rotations of a square (D4) leave
unchanged. Crops of one field share scale and exposure, so neither is normalized.
"""

from collections.abc import Iterator
from functools import reduce

import numpy as np

RINGS = (2.0, 3.5, 5.0)  # radii of a descriptor, pixels: wider ones see less at a crop's border
MARGIN = 6  # the largest ring, and half a pixel for the keypoint's own position
MIN_CURVATURE = 6.0  # gray values per pixel^2, smoothed: flatter extrema are camera noise
# Sharpest extrema of a sample. Cell-lines has up to 83. Images of 224 px with the spectrum of a
# photograph have 900; all of them find no more overlaps and take 3.5 times as long.
MOST = 256
MAX_DISTANCE = 0.15  # between unit descriptors: true pairs have 0.03 (median), 0.08 (90 %)
CELL = 0.2  # width of a hash cell
PROJECTIONS, TABLES = 6, 8  # 43 % of the true pairs share a cell in one table, 99 % in one of eight
CHUNK = 4096  # keypoints, or pairs, whose descriptors are in memory at once
NEIGHBOURS = 12  # followers compared in a cell: keeps a pattern that all samples share linear


def smooth_images(images: np.ndarray) -> np.ndarray:
    """Smooth uint8 [n, channel, height, width]: binomial filter of variance 2, borders repeated.

    The sums are whole numbers below 2**24, exact in any order, so smoothing commutes with views
    bit for bit.
    """
    out = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge").astype(np.float32)
    for _ in range(8):
        out = out[:, :, 1:] + out[:, :, :-1]
    for _ in range(8):
        out = out[..., 1:] + out[..., :-1]
    return out / np.float32(2**16)


def find_keypoints(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Find and describe the sharpest extrema of the smoothed channel sum; a structured array [k].

    `rows` [n] numbers the `images` uint8 [n, channel, height, width]. Fields: `row` int64;
    `position` [y, x] in pixels; `descriptor`, see `describe_keypoints`; `rings` [channel, ring, 8]:
    contrast to the keypoint every 45 degrees, on the descriptor's scale. All but `row` are float32.
    """
    smooth = smooth_images(images)
    total = smooth.sum(1)
    height, width = total.shape[1:]
    shifted = {
        (y, x): total[:, MARGIN + y : height - MARGIN + y, MARGIN + x : width - MARGIN + x]
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    }
    centre = shifted.pop((0, 0))
    four = shifted[-1, 0] + shifted[1, 0] + shifted[0, -1] + shifted[0, 1]
    curvature = np.abs(four - 4 * centre)
    extremum = curvature > MIN_CURVATURE
    high, low = (reduce(extreme, shifted.values()) for extreme in (np.maximum, np.minimum))
    extremum &= (centre > high) | (centre < low)
    n, y, x = (index.astype(np.int64) for index in np.nonzero(extremum))
    order = np.lexsort((-curvature[n, y, x], n))
    sharpest = np.sort(order[np.arange(len(n)) - np.searchsorted(n, n) < MOST])
    n, y, x = n[sharpest], y[sharpest], x[sharpest]
    y, x = y + MARGIN, x + MARGIN
    position, middle = np.stack([y, x], 1).astype(np.float64), total[n, y, x]
    for axis, (down, right) in enumerate(((1, 0), (0, 1))):
        before, after = total[n, y - down, x - right], total[n, y + down, x + right]
        # The vertex of a parabola through three values.
        position[:, axis] += (before - after) / (2 * (before - 2 * middle + after))
    angle = np.arange(8) * np.pi / 4
    circle = np.stack([np.sin(angle), np.cos(angle)], 1)
    offsets = np.concatenate([np.zeros((1, 2)), *(radius * circle for radius in RINGS)])
    at = position[:, None] + offsets.astype(np.float32)  # [k, point, 2]
    corner = np.floor(at).astype(np.int64)
    fy, fx = (at - corner)[:, :, None, 0], (at - corner)[:, :, None, 1]
    flat = np.ascontiguousarray(smooth.transpose(0, 2, 3, 1)).reshape(-1, smooth.shape[1])
    index = (n[:, None] * height + corner[..., 0]) * width + corner[..., 1]
    values = (flat[index] * (1 - fx) + flat[index + 1] * fx) * (1 - fy)
    values += (flat[index + width] * (1 - fx) + flat[index + width + 1] * fx) * fy
    values = values.transpose(0, 2, 1)
    rings = (values[:, :, 1:] - values[:, :, :1]).astype(np.float32)
    rings = rings.reshape(len(n), images.shape[1], len(RINGS), 8)
    descriptor, contrast = describe_keypoints(rings)
    columns = {
        "row": rows[n],
        "position": position.astype(np.float32),
        "descriptor": descriptor,
        "rings": rings / contrast[:, None, None, None],
    }
    kinds = [(name, column.dtype, column.shape[1:]) for name, column in columns.items()]
    keypoints = np.empty(len(n), kinds)
    for name, column in columns.items():
        keypoints[name] = column
    return keypoints


def describe_keypoints(rings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D4-invariant descriptors [k, d] of rings [k, channel, ring, 8], and their contrasts [k].

    A descriptor is a unit vector and the logarithm of its contrast, which is evidence too. D4
    shifts and reverses a ring, which leaves the magnitudes of its Fourier coefficients unchanged.
    """
    wave = np.exp(2j * np.pi * np.outer(np.arange(8), np.arange(5)) / 8) / 8
    wave[:, 1:4] *= np.sqrt(2)  # each stands for two coefficients (Parseval)
    points = rings.reshape(-1, 8)  # one product, not one per keypoint
    power = np.hypot(points @ wave.real.astype(np.float32), points @ wave.imag.astype(np.float32))
    power[:, 0] = points.mean(-1)  # with its sign
    flat = power.reshape(len(rings), np.prod(rings.shape[1:3]) * 5)
    contrast = np.maximum(np.linalg.norm(flat, axis=1), np.float32(1e-3))  # never 0: see log
    return np.column_stack([flat / contrast[:, None], np.log(contrast)]), contrast


def find_neighbours(descriptors: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of keypoints of different rows that share a hash cell and have close descriptors.

    `descriptors` [k, d] may be a memory map; at most CHUNK of them are copied at once.
    """
    rng = np.random.default_rng(0)
    pairs = np.empty(0, np.int64)
    for _ in range(TABLES):
        # All tables find most pairs: kept until the end, they would take eight times the memory.
        found = [pairs]
        direction = rng.standard_normal((descriptors.shape[1], PROJECTIONS), np.float32)
        start = rng.random(PROJECTIONS, np.float32)
        mixer = rng.integers(2**63, size=PROJECTIONS, dtype=np.int64) | 1
        key = np.empty(len(row), np.int64)
        for part in chunks(len(row)):
            cell = np.floor(descriptors[part] @ direction / np.float32(CELL) + start)
            key[part] = (cell.astype(np.int64) * mixer).sum(1)  # wraps around, as a hash may
        order = np.argsort(key, kind="stable")
        key = key[order]
        for step in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero(key[step:] == key[:-step])
            a, b = order[same], order[same + step]
            differ = row[a] != row[b]
            a, b = a[differ], b[differ]
            for part in chunks(len(a)):
                here, there = a[part], b[part]
                difference = descriptors[here] - descriptors[there]
                near = np.linalg.norm(difference, axis=1) < MAX_DISTANCE
                here, there = here[near], there[near]
                found.append(np.minimum(here, there) * len(row) + np.maximum(here, there))
        pairs = np.unique(np.concatenate(found))
    first, second = np.divmod(pairs, max(len(row), 1))
    return first, second


def chunks(n: int) -> Iterator[slice]:
    """Slices of a range of n, CHUNK long."""
    return (slice(start, start + CHUNK) for start in range(0, n, CHUNK))
