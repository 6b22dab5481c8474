"""Which samples show one picture: exact copies, and crops of one field of view that overlap.

Copies are found by a digest that the eight flips and rotations of the square (D4) do not change.

Overlaps are hardly ever pixel-identical: crops that are cut first and shrunk afterwards differ by a
fraction of a pixel. The challenge's crops are shifted by multiples of 0.16 pixels (as if 400 pixels
had become 64), so pixels agree only where both coordinates are multiples of 4: comparing hashes of
pixel windows finds 30 of some 10,000 pairs. Hence three steps from image registration, none of
which compares all pairs:

1. Keypoints, the local extrema of the smoothed image, located to a fraction of a pixel, each with
   a descriptor of its surroundings that D4 does not change (the pattern is Lowe 2004, "Distinctive
   image features from scale-invariant keypoints"; crops of one field share scale and exposure, so
   no scale space is needed, and gray values may be compared as they are).
2. Candidates, pairs of keypoints with nearly equal descriptors, by locality-sensitive hashing and
   sorting (Datar et al. 2004, doi:10.1145/997817.997857).
3. Proof, the guard against false positives: resample one crop at the shift that the keypoints
   imply, and compare every pixel and channel of the whole overlap; see MAX_RESIDUAL. The labels,
   which are not looked at, agree in all of the 7,000 accepted pairs that have two, where chance
   would make them differ in six of seven. Refining the shift (Lucas-Kanade) found 0.2 % more: not
   worth its lines.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 64  # samples read at once: smoothed blocks stay in the processor's cache

RINGS = (2.0, 3.5, 5.0)  # radii of a descriptor, pixels: wider sees less at a crop's border
MARGIN = 6  # the largest ring, and half a pixel of the keypoint's own position
MIN_CURVATURE = 6.0  # gray values per pixel^2, smoothed: flatter extrema are camera noise
MAX_DISTANCE = 0.15  # between unit descriptors: true pairs have 0.03 (median), 0.08 (90 %)
CELL = 0.2  # width of a hash cell
PROJECTIONS, TABLES = 6, 8  # 43 % of the true pairs share a table's cell, 99 % one in eight tables
NEIGHBOURS = 12  # followers in a cell that are compared: a pattern shared by all stays linear
ATTEMPTS = 2  # candidates of one pair of samples that are put to the proof

MAX_RESIDUAL = 0.4  # of the contrast (rms): true overlaps leave 0.05 to 0.4, chance 0.55 to 1.5
MIN_AREA = 256  # pixels compared, after TRIM: the smooth edges of two cells agree by chance in less
MIN_CONTRAST = 4.0  # gray values (rms): a flat overlap, like shared background, proves nothing
TRIM = 3  # pixels at a crop's border, where shrinking saw other neighbours (3-lobed Lanczos)
SUBPIXELS = 32  # positions a pixel that are told apart, so that few kernels are computed

# The eight views of a crop: turned by `turns` quarters after mirroring left to right.
VIEWS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]


@dataclass(frozen=True)
class Copies:
    """Edges between samples of one picture, and the groups that they connect."""

    group: Ints
    """[n]: smallest row in the sample's connected component, its own row when it is alone."""
    exact: Ints
    """[k, 2]: exact copies in one of the eight views; first row of the picture, later row."""
    overlaps: Ints
    """[m, 2]: overlapping crops, lower row first; of exact copies only the first takes part."""
    fraction: Floats
    """[m]: area of each overlap, as a share of a sample's area."""


def find_copies(*arrays: Images) -> Copies:
    """Group the samples of `arrays`, rows numbered consecutively over them.

    Each array is uint8 [n, channel, height, width], all of one sample shape; memory maps are read
    in blocks. Time and memory are near-linear in the number of samples: 12 s and 50 kB a sample for
    the challenge's 9,632 on one core. Constant samples are copies of each other when equal, and
    overlap with nothing. Of overlaps with texture in them, nearly all are found from a quarter of
    a sample's area on, two in three at a fifth, none below a tenth; images narrower than
    2 * MARGIN + 1 pixels have none.

    Raises:
        ValueError: an array is not uint8 [n, channel, height, width], or sample shapes differ.
    """
    for array in arrays:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                "find_copies needs uint8 arrays [n, channel, height, width] of one sample shape, "
                f"got {array.dtype} {array.shape}"
            )
    rows = _Rows(arrays)
    exact, representatives = _exact(rows)
    overlaps, fraction = _overlaps(rows, representatives)
    group = _components(len(rows), np.concatenate([exact, overlaps]))
    return Copies(group=group, exact=exact, overlaps=overlaps, fraction=fraction)


class _Rows:
    """Several arrays as one sequence of samples, without copying them."""

    def __init__(self, arrays: Sequence[Images]) -> None:
        self._arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> Images:
        k = int(np.searchsorted(self._ends, row, side="right"))
        return np.asarray(self._arrays[k][row - int(self._ends[k])])


def _viewed(image: Images, mirrored: bool, turns: int) -> Images:
    """One of the VIEWS of [channel, height, width]."""
    return np.rot90(image[:, :, ::-1] if mirrored else image, turns, axes=(1, 2))


def _exact(rows: _Rows) -> tuple[Ints, Ints]:
    """Edges [k, 2] from the first row of each picture to its copies; those first rows.

    Copies have equal channel sums in every view, so only rows whose sums repeat need digests.
    """
    sums = np.array([rows[row].sum((1, 2), dtype=np.int64) for row in range(len(rows))])
    _, kind, count = np.unique(sums, axis=0, return_inverse=True, return_counts=True)
    repeated = np.flatnonzero(count[kind.ravel()] > 1)
    first: dict[bytes, int] = {}
    edges: list[tuple[int, int]] = []
    for row in repeated.tolist():
        image = rows[row]
        views = (_viewed(image, *which) for which in VIEWS)
        digest = min(
            hashlib.blake2b(view.tobytes(), digest_size=16).digest()
            for view in views
            if view.shape == image.shape
        )
        known = first.setdefault(digest, row)
        if known != row:
            edges.append((known, row))
    exact = np.array(edges, np.int64).reshape(-1, 2)
    return exact, np.setdiff1d(np.arange(len(rows)), exact[:, 1])


def _smooth(images: Images) -> Floats:
    """Binomial filter of variance 2 on the last two axes, borders repeated.

    Sums of whole numbers below 2**24, so a view's result is the result's view, bit for bit.
    """
    out = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)), mode="edge").astype(np.float32)
    for _ in range(8):
        out = out[:, :, 1:] + out[:, :, :-1]
    for _ in range(8):
        out = out[:, :, :, 1:] + out[:, :, :, :-1]
    return out / np.float32(2**16)


@dataclass(frozen=True)
class _Keypoints:
    """k keypoints in the rows that they lie in."""

    row: Ints  # [k]
    position: Floats  # [k, 2]: y, x in pixels
    rings: Floats  # [k, channel, ring, 8]: contrast to the keypoint, every 45 degrees


def _keypoints(images: Images, rows: Ints) -> _Keypoints:
    """Extrema of the smoothed channel sum, with what surrounds them."""
    smooth = _smooth(images)
    total = smooth.sum(1)
    height, width = total.shape[1:]
    shifted = {
        (y, x): total[:, MARGIN + y : height - MARGIN + y, MARGIN + x : width - MARGIN + x]
        for y in (-1, 0, 1)
        for x in (-1, 0, 1)
    }
    centre = shifted.pop((0, 0))
    four = shifted[-1, 0] + shifted[1, 0] + shifted[0, -1] + shifted[0, 1]
    extremum = np.abs(four - 4 * centre) > MIN_CURVATURE
    around = list(shifted.values())
    high, low = around[0], around[0]
    for other in around[1:]:
        high, low = np.maximum(high, other), np.minimum(low, other)
    extremum &= (centre > high) | (centre < low)
    n, y, x = (index.astype(np.int64) for index in np.nonzero(extremum))
    y, x = y + MARGIN, x + MARGIN

    def vertex(before: Floats, middle: Floats, after: Floats) -> Floats:
        """Where the parabola through three equidistant values has its extremum."""
        return np.asarray((before - after) / (2 * (before - 2 * middle + after)), np.float32)

    middle = total[n, y, x]
    position = np.stack(
        [
            y + vertex(total[n, y - 1, x], middle, total[n, y + 1, x]),
            x + vertex(total[n, y, x - 1], middle, total[n, y, x + 1]),
        ],
        1,
    )
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
    rings = (values[:, :, 1:] - values[:, :, :1]).reshape(len(n), images.shape[1], len(RINGS), 8)
    return _Keypoints(rows[n], position.astype(np.float32), rings.astype(np.float32))


def _descriptors(rings: Floats) -> tuple[Floats, Floats]:
    """D4-invariant unit descriptors [k, d], and the contrasts [k] that they were divided by.

    D4 shifts and reverses a ring's eight points, which leaves the magnitudes of their Fourier
    coefficients as they are. A product, as eight points are too few for an FFT to pay.
    """
    wave = np.exp(2j * np.pi * np.outer(np.arange(8), np.arange(5)) / 8) / 8
    wave[:, 1:4] *= np.sqrt(2)  # each stands for two coefficients (Parseval)
    power = np.hypot(rings @ wave.real.astype(np.float32), rings @ wave.imag.astype(np.float32))
    power[..., 0] = rings.mean(-1)  # with its sign
    flat = power.reshape(len(rings), np.prod(power.shape[1:]))
    contrast = np.maximum(np.linalg.norm(flat, axis=1), np.float32(1e-3))  # never 0: see log
    return flat / contrast[:, None], contrast


def _neighbours(descriptors: Floats, row: Ints) -> tuple[Ints, Ints]:
    """Pairs of keypoints of different rows that share a hash cell and have close descriptors."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(TABLES):
        direction = rng.standard_normal((descriptors.shape[1], PROJECTIONS), np.float32)
        start = rng.random(PROJECTIONS, np.float32)
        mixer = rng.integers(2**63, size=PROJECTIONS, dtype=np.int64) | 1
        cell = np.floor(descriptors @ direction / np.float32(CELL) + start).astype(np.int64)
        key = (cell * mixer).sum(1)  # wraps around, as a hash may
        order = np.argsort(key, kind="stable")
        key = key[order]
        for step in range(1, NEIGHBOURS + 1):
            same = np.flatnonzero(key[step:] == key[:-step])
            a, b = order[same], order[same + step]
            differ = row[a] != row[b]
            a, b = a[differ], b[differ]
            near = np.linalg.norm(descriptors[a] - descriptors[b], axis=1) < MAX_DISTANCE
            found.append(np.minimum(a, b)[near] * len(row) + np.maximum(a, b)[near])
    first, second = np.divmod(np.unique(np.concatenate(found)), max(len(row), 1))
    return first, second


def _best_view(first: Floats, second: Floats) -> tuple[Ints, Floats]:
    """Which of VIEWS of the second keypoints' rings [k, ...] is closest to the first's, how close.

    Mirroring moves point p of a ring to 4 - p, a quarter turn moves it to p - 2.
    """
    point = np.arange(8)
    distance = np.empty((len(VIEWS), len(first)), np.float32)
    for k, (mirrored, turns) in enumerate(VIEWS):
        source = (4 - point - 2 * turns if mirrored else point + 2 * turns) % 8
        squares = np.square(first - second[..., source])
        distance[k] = np.sqrt(squares.mean(-1).sum((1, 2)))  # on the scale of the descriptors
    return distance.argmin(0), distance.min(0)


def _overlaps(rows: _Rows, representatives: Ints) -> tuple[Ints, Floats]:
    """Edges [m, 2] between overlapping crops among `representatives`, and their areas [m]."""
    found: dict[tuple[int, int], float] = {}
    attempts: Counter[tuple[int, int]] = Counter()
    for i, j, view, here, there in _candidates(rows, representatives):
        if (i, j) in found or attempts[i, j] == ATTEMPTS:
            continue
        attempts[i, j] += 1
        crop, (y, x) = rows[j], there
        mirrored, turns = VIEWS[view]
        height, width = crop.shape[1:]
        x = width - 1 - x if mirrored else x
        for _ in range(turns):
            y, x, height, width = width - 1 - x, y, width, height
        area = _shared_area(rows[i], _viewed(crop, mirrored, turns), here - np.array([y, x]))
        if area:
            found[i, j] = area
    edges = np.array(sorted(found), np.int64).reshape(-1, 2)
    return edges, np.array([found[edge] for edge in sorted(found)], np.float32)


def _candidates(
    rows: _Rows, representatives: Ints
) -> Iterator[tuple[int, int, int, Floats, Floats]]:
    """Row, later row, view, and the keypoint [y, x] that each has of both, closest first."""
    if not len(representatives):
        return
    blocks = [
        _keypoints(np.stack([rows[int(row)] for row in block]), block)
        for block in np.split(representatives, range(BLOCK, len(representatives), BLOCK))
    ]
    row = np.concatenate([block.row for block in blocks])
    position = np.concatenate([block.position for block in blocks])
    rings = np.concatenate([block.rings for block in blocks])
    del blocks
    descriptors, contrast = _descriptors(rings)
    rings /= contrast[:, None, None, None]
    # Contrast is evidence too: its logarithm is a coordinate beside those of the unit descriptor.
    first, second = _neighbours(np.column_stack([descriptors, np.log(contrast)]), row)
    view, distance = _best_view(rings[first], rings[second])
    for k in np.argsort(distance, kind="stable"):
        if distance[k] > MAX_DISTANCE:
            return
        a, b = first[k], second[k]
        yield int(row[a]), int(row[b]), int(view[k]), position[a], position[b]


def _shared_area(a: Images, b: Images, shift: Doubles) -> float:
    """Share of a's area that `b` shows too; 0 if the two differ where they should agree.

    `shift` is where b's corner lies in a, in pixels.
    """
    size, other = np.array(a.shape[1:]), np.array(b.shape[1:])
    shift = np.round(shift * SUBPIXELS) / SUBPIXELS
    whole = np.floor(shift).astype(np.int64)
    low = np.maximum(TRIM, TRIM - whole)
    high = np.minimum(other - TRIM, size - TRIM - whole)
    if (high <= low).any() or np.prod(high - low) < MIN_AREA:
        return 0.0
    there = b[:, low[0] : high[0], low[1] : high[1]].astype(np.float32)
    contrast = np.sqrt(there.var((1, 2)).sum())
    if contrast < MIN_CONTRAST:
        return 0.0
    rows, columns = (
        _lanczos(shift[k] - whole[k], a.shape[1 + k])[low[k] + whole[k] : high[k] + whole[k]]
        for k in (0, 1)
    )
    here = rows @ a.astype(np.float32) @ columns.T
    if np.sqrt(np.square(there - here).mean((1, 2)).sum()) > MAX_RESIDUAL * contrast:
        return 0.0
    shared = np.minimum(other, size - shift) - np.maximum(0, -shift)
    return float(np.prod(shared) / np.prod(size))


@cache
def _lanczos(fraction: float, size: int) -> Floats:
    """Weights [size, size]: row k interpolates a line of pixels at k + fraction (3 lobes).

    Rows within TRIM of the ends lack some of their six pixels.
    """
    distance = np.arange(size) - np.arange(size)[:, None] - fraction
    weights = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def _components(n: int, edges: Ints) -> Ints:
    """Smallest node of each node's connected component (pointer jumping)."""
    label = np.arange(n, dtype=np.int64)
    while True:
        before = label.copy()
        low = np.minimum(label[edges[:, 0]], label[edges[:, 1]])
        np.minimum.at(label, label[edges[:, 0]], low)
        np.minimum.at(label, label[edges[:, 1]], low)
        label = label[label]
        if np.array_equal(label, before):
            return label
