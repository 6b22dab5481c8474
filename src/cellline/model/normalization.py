"""Per-channel statistics of the training images of a fold; `Classifier` applies them."""

import math
from dataclasses import dataclass

import numpy as np

from cellline.data.cache import Images

# Rows read at once: 64 samples of 3 x 64 x 64 are 0.8 MB, which stay in the processor's cache.
BLOCK = 64


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, in grey values (0 to 255)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def no_normalization(n_channels: int) -> Normalization:
    """Statistics that change nothing, for a network whose own are not known yet."""
    return Normalization((0.0,) * n_channels, (1.0,) * n_channels)


def measure_normalization(images: Images, rows: np.ndarray) -> Normalization:
    """Exact statistics over all pixels of `rows` of uint8 images [sample, channel, height, width].

    They come from integer sums, so the order of summation changes nothing. A constant channel gets
    a deviation of 1 and normalizes to zero.
    """
    total, squares = np.zeros((2, images.shape[1]), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        block = images[rows[start : start + BLOCK]]
        total += block.sum((0, 2, 3), dtype=np.int64)
        wide = block.astype(np.uint16)  # 255 squared just fits
        squares += (wide * wide).sum((0, 2, 3), dtype=np.int64)
    pixels = len(rows) * math.prod(images.shape[2:])
    mean = total / pixels
    std = np.sqrt(np.maximum(squares / pixels - mean**2, 0.0))
    return Normalization(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))
