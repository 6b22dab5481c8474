"""Calibration: what probabilities a network's outputs stand for, and the best decision from them.

A network that is trained with class weights has learnt, more or less, probabilities as if all
classes were equally frequent. For balanced accuracy that is what a decision should be made from:
the best one is the argmax of p / prior, p being the probability at the classes' true frequencies
(Menon et al. 2013, on the balanced error). How much of that division is built in is measured on
held-out predictions, and only the rest is done.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from cellline.scoring.metrics import Bootstrap, Estimate, floored_log, surprise

# Guo et al. 2017, section 2.
BINS = 15
# Draws of labels for the calibration error that chance alone gives; their mean is known to 1 %.
CHANCE_DRAWS = 100
# Bounds that the fit meets only where the rows say nothing, such as when every label is right.
INVERSE_TEMPERATURES = (0.01, 100.0)
PRIOR_SHARES = (-10.0, 10.0)


@dataclass(frozen=True, eq=False)
class Decided:
    """A class for each sample, and the probabilities it was decided from.

    Its own type, so that what was corrected is not taken for a network's output again.
    """

    prob: np.ndarray
    """float32 [n, class]"""
    predicted: np.ndarray
    """int64 [n]"""


@dataclass(frozen=True)
class Correction:
    """p(class | x) ~ q(class | x)^(1 / temperature) * prior^prior_share, with q the network's."""

    temperature: float
    """Above 1 where the network is too sure of itself."""
    prior_share: float
    """The share of the prior that is divided out of q already: 1 all of it, 0 nothing.

    It can't be told when the classes are equally frequent, and then makes no difference.
    """
    prior: tuple[float, ...]
    """Share of each class."""

    def apply(self, prob: np.ndarray) -> Decided:
        """Calibrated probabilities at `prior`, and the argmax of p / prior, of q [n, class]."""
        log_q, log_prior = logarithms(prob, np.array(self.prior))
        log_q /= self.temperature
        log_p = log_softmax(log_q + self.prior_share * log_prior, axis=1)
        # p / prior, of which the part that is built in never enters: with equal classes, or all
        # of the prior built in, the decision is exactly the argmax of q.
        balanced = log_q + (self.prior_share - 1) * log_prior
        return Decided(np.exp(log_p).astype(np.float32), balanced.argmax(axis=1))


def fit_correction(prob: np.ndarray, labels: np.ndarray) -> Correction:
    """The correction under which `labels` [n] are likeliest, of a network's outputs [n, class].

    Maximum likelihood in 1 / temperature and prior_share, in which it is concave. `prob` and
    `labels` must be held out: on its own training rows a network is sure and right.
    """
    n_classes = prob.shape[1]
    prior = class_prior(labels, n_classes)
    log_q, log_prior = logarithms(prob, prior)
    rows = np.arange(len(labels))
    given = np.array([log_q[rows, labels].mean(), log_prior[labels].mean()])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Log loss and its gradient."""
        inverse_temperature, prior_share = parameters
        log_p = log_softmax(inverse_temperature * log_q + prior_share * log_prior, axis=1)
        p = np.exp(log_p)
        expected = np.array([np.sum(p * log_q), np.sum(p @ log_prior)]) / len(labels)
        return -log_p[rows, labels].mean(), expected - given

    # The start is what class weights promise: q is calibrated, all of the prior divided out.
    fitted = minimize(
        loss,
        x0=(1.0, 1.0),
        jac=True,
        method="L-BFGS-B",
        bounds=(INVERSE_TEMPERATURES, PRIOR_SHARES),
        options={"ftol": 1e-14, "gtol": 1e-8},
    )
    inverse_temperature, prior_share = map(float, fitted.x)
    return Correction(1 / inverse_temperature, prior_share, tuple(prior.tolist()))


def class_prior(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Share of each class, float64 [class], none 0.

    One sample is added to each class (Laplace): a class may be missing among a few rows.
    """
    prior: np.ndarray = (np.bincount(labels, minlength=n_classes) + 1) / (len(labels) + n_classes)
    return prior


def logarithms(prob: np.ndarray, prior: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of probabilities [n, class] and of a prior [class], float64.

    That of the prior is relative to the largest, so that of equal classes it is exactly 0.
    """
    return floored_log(prob), np.log(prior / prior.max())


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


def log_loss_gain(
    labels: np.ndarray, before: np.ndarray, after: np.ndarray, bootstrap: Bootstrap
) -> Estimate:
    """Mean log loss of probabilities `before` minus that of `after`, both [n, class], paired."""
    return bootstrap.mean(surprise(labels, before) - surprise(labels, after))


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
