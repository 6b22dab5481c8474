"""Pooling: samples that show one picture are decided together.

Crops of one field of view show cells of one line, so what a network says of each is evidence for
all. Which samples belong together is found in the pixels alone (data/copies.py), in the test set as
in training; no label is handed on.
"""

import numpy as np
from numpy.typing import NDArray

from cellline.scoring.metrics import floored_log, log_softmax


def thin(group: np.ndarray, n_test: int) -> NDArray[np.int64]:
    """Pictures [n] of the training samples' groups [n], of no more samples than the test set has.

    A test set of `n_test` samples has fewer crops of each field of view, if it was drawn from as
    many. A score of whole groups would promise it too much, so each group is dealt at random into
    as many parts as the training set is times larger, rounded up.
    """
    parts = -(-len(group) // n_test)
    _, number = np.unique(group, return_inverse=True)
    pictures: NDArray[np.int64] = number * parts
    pictures += np.random.default_rng(0).integers(parts, size=len(group))
    return pictures


def pool(prob: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Each sample with what its whole picture says: probabilities [run, n, class], float32.

    The geometric mean over the samples of the picture [n], made to sum to 1: the logarithmic
    opinion pool (Genest and Zidek 1986), in which it counts most what a class is ruled out by.
    """
    _, number, size = np.unique(picture, return_inverse=True, return_counts=True)
    sums = np.zeros((len(size), len(prob), prob.shape[2]))
    np.add.at(sums, number, floored_log(prob).swapaxes(0, 1))
    means = np.exp(log_softmax(sums / size[:, None, None])).astype(np.float32)
    pooled: np.ndarray = means[number].swapaxes(0, 1)
    return pooled


def count_pooled(picture: np.ndarray) -> int:
    """How many samples share their picture [n] with another."""
    _, size = np.unique(picture, return_counts=True)
    return int(size[size > 1].sum())
