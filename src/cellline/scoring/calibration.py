"""Calibration: how far probabilities keep their word."""

import numpy as np

from cellline.scoring.bootstrap import Bootstrap, Estimate

# Guo et al. 2017, section 2.
BINS = 15
# Draws of labels for the calibration error that chance alone gives; their mean is known to 1 %.
CHANCE_DRAWS = 100


def calibration_error(labels: np.ndarray, prob: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Expected calibration error (ECE): the mean distance of confidence and accuracy, by bins.

    The confidence is that in the likeliest class, in 15 bins of equal width (Guo et al. 2017).
    Scatter within bins only adds to it: few samples read too high (`error_by_chance`), and a
    bootstrap's draws read higher still. So the interval is the basic one (Davison and Hinkley 1997,
    section 5.2), in which what the draws are above the value counts downwards.
    """

    def error(sums: np.ndarray) -> np.ndarray:
        count, confidence, right = np.moveaxis(sums, -1, 0)
        distance: np.ndarray = np.abs(confidence - right).sum(axis=-1) / count.sum(axis=-1)
        return distance

    found = bootstrap.estimate(error, binned(labels, prob))
    low, high = (max(0.0, 2 * found.value - end) for end in (found.high, found.low))
    return Estimate(found.value, low, high, found.error)


def error_by_chance(labels: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> float:
    """Calibration error that these probabilities would show, by chance, if perfectly calibrated.

    Mean over 100 draws, in which each sample is right with the probability that it was given. Those
    of a group [n] are drawn together as often as they are in truth: the correlation of their
    residuals is estimated, and each sample follows its group's draw with the root of that chance.
    """
    confidence = prob.max(axis=1).astype(np.float64)
    spread = np.sqrt(confidence * (1 - confidence))
    residual = (prob.argmax(axis=1) == labels) - confidence
    _, number = np.unique(groups, return_inverse=True)

    def pairs(values: np.ndarray) -> float:
        """Sum of products of two different samples of a group."""
        return float(np.sum(np.bincount(number, values) ** 2) - np.sum(values**2))

    most = pairs(spread)
    correlation = min(max(pairs(residual) / most, 0.0), 1.0) if most > 0 else 0.0
    generator = np.random.default_rng(0)
    shape = (CHANCE_DRAWS, len(confidence))
    of_group = generator.random((CHANCE_DRAWS, number.max() + 1))[:, number]
    together = generator.random(shape) < np.sqrt(correlation)
    right = np.where(together, of_group, generator.random(shape)) < confidence
    in_bin = np.eye(BINS)[find_bin(confidence)]
    return float(np.abs((confidence - right) @ in_bin).sum(axis=1).mean() / len(confidence))


def find_bin(confidence: np.ndarray) -> np.ndarray:
    """Bin of each confidence, int64 [n]."""
    # The upper edge belongs to a bin, as in the paper. None is at 0: it is the largest of several.
    bins: np.ndarray = np.ceil(confidence * BINS).astype(np.int64).clip(1, BINS) - 1
    return bins


def binned(labels: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Each sample's 1, confidence and 1 if it is right, in its bin: float64 [n, bin, 3].

    Confidence is the highest probability, by which the bins divide 0 to 1 equally.
    """
    confidence = prob.max(axis=1).astype(np.float64)
    values = np.zeros((len(labels), BINS, 3))
    right = prob.argmax(axis=1) == labels
    columns = np.stack([np.ones(len(labels)), confidence, right], axis=1)
    values[np.arange(len(labels)), find_bin(confidence)] = columns
    return values
