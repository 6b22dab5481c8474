"""Importance of channels by permutation (Breiman 2001, there of variables)."""

from collections.abc import Callable

import numpy as np

from cellline.data.cache import Images
from cellline.model.views import PLAIN, Predictor
from cellline.seeding import PERMUTATION, derive_seed

# Images at once in memory, beside those of a batch: 512 of 3 x 64 x 64 are 6 MB.
BLOCK = 512


def permute(rows: np.ndarray, seed: int, channel: int) -> np.ndarray:
    """For each of `rows`, the row whose `channel` it gets: the same rows in another order."""
    generator = np.random.default_rng(derive_seed(seed, PERMUTATION, channel))
    donors: np.ndarray = generator.permutation(rows)
    return donors


def predict_permuted(
    predictor: Predictor,
    images: Images,
    pairs: tuple[np.ndarray, np.ndarray],
    channel: int,
    advance: Callable[[int], object],
) -> np.ndarray:
    """Class probabilities float32 [n, class], by one view, of images with a channel of others.

    `pairs` are the rows [n] of the images, and those [n] that give the channel.
    """
    parts = []
    for start in range(0, len(pairs[0]), BLOCK):
        own, donors = (rows[start : start + BLOCK] for rows in pairs)
        pixels = images[own]
        pixels[:, channel] = images[donors][:, channel]
        [prob] = predictor.predict(pixels, np.arange(len(own)), PLAIN, advance)
        parts.append(prob)
    return np.concatenate(parts)
