"""The eight flips and rotations of a square (the dihedral group D4), under one numbering."""

import numpy as np

VIEWS = tuple(range(8))


def take_view(images: np.ndarray, view: int) -> np.ndarray:
    """Turn images [..., height, width] `view % 4` quarters; mirror them left to right from 4 on.

    View 0 is the image itself. The result shares the memory of `images`.
    """
    turned = np.rot90(images, view % 4, axes=(-2, -1))
    return turned[..., ::-1] if view >= 4 else turned
