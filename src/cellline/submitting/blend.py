"""Blending: the average of predictions, of folds and of runs."""

from collections.abc import Sequence

import numpy as np


def blend(
    probabilities: Sequence[np.ndarray] | np.ndarray, weights: Sequence[float] | None = None
) -> np.ndarray:
    """The mean of several predictions [sample, class] of the same samples, float32.

    `weights`, one a prediction, need not sum to 1; by default they are equal.
    """
    mean: np.ndarray = np.average(np.asarray(probabilities, dtype=np.float64), 0, weights)
    return mean.astype(np.float32)
