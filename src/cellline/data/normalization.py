"""Per-channel statistics of the training images of a fold."""

from dataclasses import dataclass

import numpy as np

# Rows read at once: 256 samples of 3 x 64 x 64 are 3 MB, so memory doesn't grow with the data.
BLOCK = 256


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of each channel, in grey values (0 to 255)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def measure_normalization(images: np.ndarray, rows: np.ndarray) -> Normalization:
    """Exact statistics over all pixels of `rows` of images, uint8 [sample, channel, height, width].

    Counted as histograms of integers, so that no order of summation changes a digit. A channel
    that never varies gets 1 for its deviation: it normalizes to zero.
    """
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(rows), BLOCK):
        block = images[rows[start : start + BLOCK]]
        for channel in range(images.shape[1]):
            counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
    values = np.arange(256)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    variance = counts @ values**2 / total - mean**2
    std = np.sqrt(np.maximum(variance, 0.0))
    return Normalization(tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist()))
