"""Which samples show one picture: exact copies, and crops of one field of view that overlap.

Copies are found by a digest that the eight flips and rotations of the square (D4) do not change;
for overlapping crops see `overlaps`.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cellline.audit.keypoints import Floats, Images, Ints
from cellline.audit.overlaps import VIEWS, Rows, find_overlaps, take_view


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


def find_copies(*arrays: Images, scratch: Path) -> Copies:
    """Group the samples of `arrays`, rows numbered consecutively over them.

    Each array is uint8 [n, channel, height, width], all of one sample shape; memory maps are read
    in blocks. Time is near-linear in the number of samples: 11 s for the challenge's 9,632 on one
    core. What must be remembered of them, 20 kB a sample of 64 x 64 pixels, is in a nameless file
    in the folder `scratch`. Constant samples are copies of each other when equal, and overlap with
    nothing. Of overlaps with texture in them, nearly all are found from a quarter of a sample's
    area on, two in three at a fifth, none below a tenth; images narrower than 2 * MARGIN + 1 pixels
    have none.

    Raises:
        ValueError: an array is not uint8 [n, channel, height, width], or sample shapes differ.
        OSError: the file has no room.
    """
    for array in arrays:
        if array.dtype != np.uint8 or array.ndim != 4 or array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                "find_copies needs uint8 arrays [n, channel, height, width] of one sample shape, "
                f"got {array.dtype} {array.shape}"
            )
    rows = Rows(arrays)
    exact, representatives = find_exact(rows)
    overlaps, fraction = find_overlaps(rows, representatives, scratch)
    group = connect(len(rows), np.concatenate([exact, overlaps]))
    return Copies(group=group, exact=exact, overlaps=overlaps, fraction=fraction)


def find_exact(rows: Rows) -> tuple[Ints, Ints]:
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
        views = (take_view(image, *which) for which in VIEWS)
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


def connect(n: int, edges: Ints) -> Ints:
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
