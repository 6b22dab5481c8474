"""Pooling: samples that show one picture are decided together.

Crops of one field of view show cells of one line, so a prediction for each is evidence for all. The
search for samples that belong together (audit/copies.py) sees pixels alone, in the test set as in
training; no label is passed on.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from cellline.scoring.metrics import floored_log


def thin(group: np.ndarray, n_test: int) -> NDArray[np.int64]:
    """Split the training samples' groups [n] into pictures [n] as small as the test set's.

    A test set of `n_test` samples, drawn from as many fields of view, has fewer crops of each. A
    score with whole groups would promise too much, so each group is dealt at random into as many
    parts as the training set is times larger, rounded up.
    """
    parts = -(-len(group) // n_test)
    _, number = np.unique(group, return_inverse=True)
    pictures: NDArray[np.int64] = number * parts
    pictures += np.random.default_rng(0).integers(parts, size=len(group))
    return pictures


def pool(prob: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Replace each sample's probabilities [run, n, class] by those of its picture, float32.

    These are the geometric mean over the samples of the picture [n], scaled to sum to 1: the
    logarithmic opinion pool (Genest and Zidek 1986), in which evidence against a class counts most.
    """
    _, number, size = np.unique(picture, return_inverse=True, return_counts=True)
    sums = np.zeros((len(size), len(prob), prob.shape[2]))
    np.add.at(sums, number, floored_log(prob).swapaxes(0, 1))
    means = np.exp(log_softmax(sums / size[:, None, None], axis=-1)).astype(np.float32)
    pooled: np.ndarray = means[number].swapaxes(0, 1)
    return pooled


def count_pooled(picture: np.ndarray) -> int:
    """Number of samples that share their picture [n] with another."""
    _, size = np.unique(picture, return_counts=True)
    return int(size[size > 1].sum())
