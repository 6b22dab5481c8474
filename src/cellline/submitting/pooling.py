"""Pictures with several samples: decided together, and as frequent as in the test set.

Crops of one field of view show cells of one line, so a prediction for each is evidence for all. The
search for samples that belong together (audit/copies.py) sees pixels alone, in the test set as in
training; no label is passed on. Test samples that only training samples connect are pooled as well.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from cellline.scoring.decisions import floored_log


def thin(picture: np.ndarray, n_test: int) -> NDArray[np.int64]:
    """Split the training samples' pictures [n] into pictures [n] as small as the test set's.

    A test set of `n_test` samples, drawn from as many fields of view, has fewer crops of each. A
    score with whole pictures would promise too much. So the samples of each picture are dealt at
    random into n / n_test parts, rounded up for some pictures and down for others. Without a test
    set, pictures stay whole.
    """
    rng = np.random.default_rng(0)
    _, number = np.unique(picture, return_inverse=True)
    ratio = max(1.0, len(picture) / (n_test or len(picture)))
    fewest = int(ratio)
    # A sample meets any other of its picture with the chance n_test / n.
    more = rng.random(number.max() + 1) < fewest * (fewest + 1) * (1 / fewest - 1 / ratio)
    parts = fewest + more[number]
    pictures: NDArray[np.int64] = number * (fewest + 1)
    pictures += (rng.random(len(picture)) * parts).astype(np.int64)
    return pictures


def count_members(picture: np.ndarray) -> np.ndarray:
    """Number of samples, int64 [n], in the picture [n] of each."""
    _, number, sizes = np.unique(picture, return_inverse=True, return_counts=True)
    return np.asarray(sizes[number])


def match_test(picture: np.ndarray, of_test: np.ndarray) -> np.ndarray:
    """Weights of samples, float64 [n], that make their pictures [n] like the test set's [m].

    Crops of a picture that has many may be easier or harder, pooled or not, so pictures of 1, 2,
    3 to 4, 5 to 8 samples and so on get the share that they have in the test set. A size that no
    sample here has counts as the next smaller one, or else the smallest. Every sample keeps a
    twentieth of its weight, so that no class or fold is without any. Without a test set, all
    weights are 1.
    """
    if not len(of_test):
        return np.ones(len(picture))
    own, wanted = (np.ceil(np.log2(count_members(of))) for of in (picture, of_test))
    there, kind, count = np.unique(own, return_inverse=True, return_counts=True)
    nearest = np.maximum(np.searchsorted(there, wanted, side="right") - 1, 0)
    share = np.bincount(nearest, minlength=len(there)) / len(of_test)
    return np.asarray(0.95 * (share * len(picture) / count)[kind] + 0.05)


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
    return int(np.sum(count_members(picture) > 1))
