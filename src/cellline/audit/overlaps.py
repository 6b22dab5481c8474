"""Overlapping crops of one field of view, found by content without comparing all pairs.

Cut first and shrunk afterwards, such crops differ by a fraction of a pixel, so hashes of pixel
windows find 30 of some 10,000 pairs. So three steps come from image registration:

1. Keypoints with descriptors; see `keypoints`.
2. Candidates: pairs of keypoints with nearly equal descriptors, by locality-sensitive hashing and
   sorting (Datar et al. 2004, doi:10.1145/997817.997857).
3. A test of each pair: resample one crop at the shift that the keypoints imply, and compare every
   pixel and channel of the whole overlap; see MAX_RESIDUAL. Refining the shift (Lucas-Kanade) found
   0.2 % more: not worth the code.

The search ignores labels, so they can judge it. On cell-lines they agree in all of some 7,000
accepted pairs of training samples; six of seven would differ by chance. Elsewhere one keypoint and
a small residual can deceive: a bright dot on black fits every other dot, and one background fills
all pictures of a dish. So each pair is rated by two stricter tests; see STRICTEST.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from cellline.audit.keypoints import MAX_DISTANCE, chunks, find_keypoints, find_neighbours
from cellline.data.cache import Images
from cellline.data.views import VIEWS, take_view
from cellline.host.files import name_in_errors
from cellline.host.processors import map_in_order

# Pixels that a thread reads at once: intermediate arrays, so many times as large, fit the cache.
BLOCK_BYTES, TIMES = 3 << 18, 60
ATTEMPTS = 2  # candidate shifts that are checked for one pair of samples

MAX_RESIDUAL = 0.4  # of the contrast (rms): true overlaps leave 0.05 to 0.4, chance 0.55 to 1.5
MIN_AREA = 256  # pixels compared, after TRIM: on less, the smooth edges of two cells may agree
MIN_CONTRAST = 4.0  # gray values (rms): a flat overlap, like shared background, proves nothing
TRIM = 3  # pixels at a crop's border, where shrinking saw other neighbours (3-lobed Lanczos)
# The stricter tests, and the share of cell-lines' pairs that passes: each part has texture and
# agrees (96 %), and several keypoints imply the same shift as well (78 %).
STRICTEST = 2
PART = 8  # pixels, about the side of a part
PART_CONTRAST = 8.0  # gray values (rms): a part with less has no texture
PART_TEXTURE = 0.75  # share of the parts that have texture; a bright dot on black fills few
PART_RESIDUAL = 0.5  # of a part's contrast (rms): an object on a shared background differs there
KEYPOINTS = 3  # that imply one shift; one or two agree by chance, as dots or ends of strokes do
SUBPIXELS = 32  # positions distinguished within a pixel, so that few kernels are computed


class Rows:
    """Samples uint8 [channel, height, width] of several arrays, by their number over all arrays."""

    def __init__(self, arrays: Sequence[Images]) -> None:
        self.arrays = arrays
        self.starts = np.cumsum([0, *map(len, arrays)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, row: int) -> np.ndarray:
        number = int(np.searchsorted(self.starts, row, "right")) - 1
        return self.arrays[number][row - self.starts[number]]


@dataclass
class Found:
    """The evidence that two crops overlap."""

    view: int
    """View of the later crop."""
    shift: np.ndarray
    """Position [y, x] of the later crop in the other, in pixels."""
    parts_agree: bool
    """True if each part of the overlap agrees, and most parts have texture."""
    keypoints: int = 1
    """Pairs of keypoints that imply this shift, within a pixel."""

    @property
    def strictness(self) -> int:
        """Number of stricter tests passed, up to STRICTEST."""
        return self.parts_agree * (1 + (self.keypoints >= KEYPOINTS))


def find_overlaps(
    rows: Rows, representatives: np.ndarray, scratch: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Edges int64 [m, 2] between overlapping crops among `representatives`; `Found.strictness`."""
    found: dict[tuple[int, int], Found] = {}
    attempts: Counter[tuple[int, int]] = Counter()
    shape = rows[0].shape[1:]
    for i, j, view, here, there in find_candidates(rows, representatives, scratch):
        known = found.get((i, j))
        if known is None and attempts[i, j] == ATTEMPTS:
            continue
        (y, x), (height, width) = there, shape
        for _ in range(view % 4):
            y, x, height, width = width - 1 - x, y, width, height
        x = width - 1 - x if view >= 4 else x
        shift = here - np.array([y, x])
        if known is not None:
            known.keypoints += view == known.view and np.abs(shift - known.shift).max() < 1
            continue
        attempts[i, j] += 1
        overlap = overlay(rows[i], take_view(rows[j], view), shift)
        if overlap is not None and show_same(*overlap):
            found[i, j] = Found(view, shift, agree_in_parts(*overlap))
    edges = sorted(found)
    strictness = np.array([found[edge].strictness for edge in edges], np.int64)
    return np.array(edges, np.int64).reshape(-1, 2), strictness


def find_candidates(
    rows: Rows, representatives: np.ndarray, scratch: Path
) -> Iterator[tuple[int, int, int, np.ndarray, np.ndarray]]:
    """Yield row, later row, view of the later, and the keypoint [y, x] in each; closest first."""
    length = max(1, BLOCK_BYTES // rows[0].nbytes)
    starts = range(0, len(representatives), length)
    blocks = (representatives[start : start + length] for start in starts)

    def describe(block: np.ndarray) -> np.ndarray:
        return find_keypoints(np.stack([rows[row] for row in block]), block)

    with name_in_errors(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        n_bytes = TIMES * length * rows[0].nbytes
        for keypoints in map_in_order(describe, blocks, n_bytes=n_bytes):
            file.write(keypoints.tobytes())
        if not file.tell():
            return
        file.flush()
        keypoints = np.asarray(np.memmap(file, keypoints.dtype, mode="r"))
        row, position, rings = (keypoints[name] for name in ("row", "position", "rings"))
        row = np.array(row)
        first, second = find_neighbours(keypoints["descriptor"], row)
        view, distance = np.empty(len(first), np.int8), np.empty(len(first), np.float32)
        for part in chunks(len(first)):
            view[part], distance[part] = best_view(rings[first[part]], rings[second[part]])
        for k in np.argsort(distance, kind="stable"):
            if distance[k] > MAX_DISTANCE:
                return
            a, b = first[k], second[k]
            yield int(row[a]), int(row[b]), int(view[k]), position[a], position[b]


def best_view(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """View of the second keypoints' rings [k, ...] that is closest to the first's; its distance.

    A quarter turn moves point p of a ring to p - 2, mirroring moves it to 4 - p.
    """
    point = np.arange(8)
    distance = np.empty((len(VIEWS), len(first)), np.float32)
    for view in VIEWS:
        source = ((4 - point if view >= 4 else point) + 2 * (view % 4)) % 8
        squares = np.square(first - second[..., source])
        distance[view] = np.sqrt(squares.mean(-1).sum((1, 2)))  # on the scale of the descriptors
    return distance.argmin(0), distance.min(0)


def overlay(
    a: np.ndarray, b: np.ndarray, shift: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Overlap of two crops, b at `shift` pixels in a: pixels of a, resampled, and of b.

    Both are float32 [channel, height, width]. None if the overlap is too small to compare.
    """
    size, other = np.array(a.shape[1:]), np.array(b.shape[1:])
    shift = np.round(shift * SUBPIXELS) / SUBPIXELS
    whole = np.floor(shift).astype(np.int64)
    low = np.maximum(TRIM, TRIM - whole)
    high = np.minimum(other - TRIM, size - TRIM - whole)
    if (high <= low).any() or np.prod(high - low) < MIN_AREA:
        return None
    there = b[:, low[0] : high[0], low[1] : high[1]].astype(np.float32)
    rows, columns = (
        lanczos(shift[k] - whole[k], a.shape[1 + k])[low[k] + whole[k] : high[k] + whole[k]]
        for k in (0, 1)
    )
    return rows @ a.astype(np.float32) @ columns.T, there


def show_same(here: np.ndarray, there: np.ndarray) -> bool:
    """Tell if two crops agree over their whole overlap, and have contrast."""
    contrast = np.sqrt(there.var((1, 2)).sum())
    residual = np.sqrt(np.square(there - here).mean((1, 2)).sum())
    return bool(contrast >= MIN_CONTRAST and residual <= MAX_RESIDUAL * contrast)


def agree_in_parts(here: np.ndarray, there: np.ndarray) -> bool:
    """Tell if two crops agree in each part of their overlap, and most parts have texture."""
    starts = [np.arange(round(n / PART) or 1) * n // (round(n / PART) or 1) for n in here.shape[1:]]

    def average(values: np.ndarray) -> np.ndarray:
        """Mean of values [channel, height, width] over each part, float32 [channel, part]."""
        sums = [
            np.add.reduceat(np.add.reduceat(each, starts[0], axis=1), starts[1], axis=2)
            for each in (values, np.ones_like(values[:1]))
        ]
        return np.asarray(sums[0] / sums[1]).reshape(len(values), -1)

    variance = sum(average(np.square(each)) - np.square(average(each)) for each in (here, there))
    contrast = np.sqrt(np.maximum(np.asarray(variance).sum(0) / 2, 0))
    residual = np.sqrt(average(np.square(there - here)).sum(0))
    textured = contrast > PART_CONTRAST
    agree = residual <= PART_RESIDUAL * np.maximum(contrast, PART_CONTRAST)
    return bool(agree.all() and textured.mean() > PART_TEXTURE)


@cache
def lanczos(fraction: float, size: int) -> np.ndarray:
    """Weights float32 [size, size]: row k interpolates a line of pixels at k + fraction."""
    distance = np.arange(size) - np.arange(size)[:, None] - fraction
    weights = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
