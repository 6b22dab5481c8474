"""Crops of one field of view that overlap, found by content without comparing all pairs.

Such crops are hardly ever pixel-identical: cut first and shrunk afterwards, they differ by a
fraction of a pixel. The challenge's are shifted by multiples of 0.16 pixels (as if 400 pixels had
become 64), so pixels agree only where both coordinates are multiples of 4: comparing hashes of
pixel windows finds 30 of some 10,000 pairs. Hence three steps from image registration:

1. Keypoints with descriptors; see `keypoints`.
2. Candidates, pairs of keypoints with nearly equal descriptors, by locality-sensitive hashing and
   sorting (Datar et al. 2004, doi:10.1145/997817.997857).
3. Proof, the guard against false positives: resample one crop at the shift that the keypoints
   imply, and compare every pixel and channel of the whole overlap; see MAX_RESIDUAL. The labels,
   which are not looked at, agree in all of the 7,000 accepted pairs that have two, where chance
   would make them differ in six of seven. Refining the shift (Lucas-Kanade) found 0.2 % more: not
   worth its lines.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cellline.audit.keypoints import (
    MAX_DISTANCE,
    Floats,
    Images,
    Ints,
    chunks,
    describe_keypoints,
    find_keypoints,
    find_neighbours,
)
from cellline.host.files import name_in_errors
from cellline.host.processors import map_in_order

# Of pixels that a thread reads at once, 64 samples of 3 x 64 x 64: smoothed, they stay in the
# processor's cache. What is computed of them takes some 60 times as much.
BLOCK_BYTES = 3 << 18
ATTEMPTS = 2  # candidates of one pair of samples that are put to the proof

MAX_RESIDUAL = 0.4  # of the contrast (rms): true overlaps leave 0.05 to 0.4, chance 0.55 to 1.5
MIN_AREA = 256  # pixels compared, after TRIM: the smooth edges of two cells agree by chance in less
MIN_CONTRAST = 4.0  # gray values (rms): a flat overlap, like shared background, proves nothing
TRIM = 3  # pixels at a crop's border, where shrinking saw other neighbours (3-lobed Lanczos)
SUBPIXELS = 32  # positions a pixel that are told apart, so that few kernels are computed

# The eight views of a crop: turned by `turns` quarters after mirroring left to right.
VIEWS = [(mirrored, turns) for mirrored in (False, True) for turns in range(4)]


class Rows:
    """Several arrays as one sequence of samples, without copying them."""

    def __init__(self, arrays: Sequence[Images]) -> None:
        # As plain arrays: indexing a memory map costs four times as much.
        self._arrays = [np.asarray(array) for array in arrays]
        self._ends = np.cumsum([len(array) for array in arrays], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: int) -> Images:
        k = int(np.searchsorted(self._ends, row, side="right"))
        image: Images = self._arrays[k][row - int(self._ends[k])]
        return image


def take_view(image: Images, mirrored: bool, turns: int) -> Images:
    """One of the VIEWS of [channel, height, width]."""
    return np.rot90(image[:, :, ::-1] if mirrored else image, turns, axes=(1, 2))


def best_view(first: Floats, second: Floats) -> tuple[Ints, Floats]:
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


def find_overlaps(rows: Rows, representatives: Ints, scratch: Path) -> tuple[Ints, Floats]:
    """Edges [m, 2] between overlapping crops among `representatives`, and their areas [m].

    What must be remembered of each keypoint is in a file in `scratch`, in page cache.
    """
    found: dict[tuple[int, int], float] = {}
    attempts: Counter[tuple[int, int]] = Counter()
    for i, j, view, here, there in find_candidates(rows, representatives, scratch):
        if (i, j) in found or attempts[i, j] == ATTEMPTS:
            continue
        attempts[i, j] += 1
        crop, (y, x) = rows[j], there
        mirrored, turns = VIEWS[view]
        height, width = crop.shape[1:]
        x = width - 1 - x if mirrored else x
        for _ in range(turns):
            y, x, height, width = width - 1 - x, y, width, height
        area = shared_area(rows[i], take_view(crop, mirrored, turns), here - np.array([y, x]))
        if area:
            found[i, j] = area
    edges = np.array(sorted(found), np.int64).reshape(-1, 2)
    return edges, np.array([found[edge] for edge in sorted(found)], np.float32)


def find_candidates(
    rows: Rows, representatives: Ints, scratch: Path
) -> Iterator[tuple[int, int, int, Floats, Floats]]:
    """Row, later row, view, and the keypoint [y, x] that each has of both, closest first."""
    with name_in_errors(scratch), tempfile.TemporaryFile(dir=scratch) as file:
        for block in described_blocks(rows, representatives):
            file.write(block.tobytes())
        if not file.tell():
            return
        file.flush()
        keypoints = np.asarray(np.memmap(file, block.dtype, mode="r"))
        row, position = np.array(keypoints["row"]), keypoints["position"]
        rings = keypoints["rings"]
        first, second = find_neighbours(keypoints["descriptor"], row)
        view, distance = np.empty(len(first), np.int8), np.empty(len(first), np.float32)
        for part in chunks(len(first)):
            view[part], distance[part] = best_view(rings[first[part]], rings[second[part]])
        for k in np.argsort(distance, kind="stable"):
            if distance[k] > MAX_DISTANCE:
                return
            a, b = first[k], second[k]
            yield int(row[a]), int(row[b]), int(view[k]), position[a], position[b]


def described_blocks(rows: Rows, representatives: Ints) -> Iterator[NDArray[np.void]]:
    """Keypoints of a block of samples after the other, as they are kept in the file."""
    if not len(representatives):
        return
    length = max(1, BLOCK_BYTES // rows[0].nbytes)
    starts = range(0, len(representatives), length)

    def describe(start: int) -> NDArray[np.void]:
        block = representatives[start : start + length]
        found = find_keypoints(np.stack([rows[int(row)] for row in block]), block)
        descriptors, contrast = describe_keypoints(found.rings)
        # Contrast is evidence too: its logarithm is a coordinate beside those of the descriptor.
        columns: dict[str, NDArray[Any]] = {
            "row": found.row,
            "position": found.position,
            "descriptor": np.column_stack([descriptors, np.log(contrast)]),
            "rings": found.rings / contrast[:, None, None, None],
        }
        kept = np.empty(
            len(found.row),
            [(name, column.dtype, column.shape[1:]) for name, column in columns.items()],
        )
        for name, column in columns.items():
            kept[name] = column
        return kept

    # Threads: nearly all the time is spent in NumPy's loops, which run beside each other.
    yield from map_in_order(describe, starts)


def shared_area(a: Images, b: Images, shift: NDArray[np.float64]) -> float:
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
        lanczos(shift[k] - whole[k], a.shape[1 + k])[low[k] + whole[k] : high[k] + whole[k]]
        for k in (0, 1)
    )
    here = rows @ a.astype(np.float32) @ columns.T
    if np.sqrt(np.square(there - here).mean((1, 2)).sum()) > MAX_RESIDUAL * contrast:
        return 0.0
    shared = np.minimum(other, size - shift) - np.maximum(0, -shift)
    return float(np.prod(shared) / np.prod(size))


@cache
def lanczos(fraction: float, size: int) -> Floats:
    """Weights [size, size]: row k interpolates a line of pixels at k + fraction (3 lobes).

    Rows within TRIM of the ends lack some of their six pixels.
    """
    distance = np.arange(size) - np.arange(size)[:, None] - fraction
    weights = np.sinc(distance) * np.sinc(distance / 3) * (np.abs(distance) < 3)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)
