"""Decisions: the class of each sample, from probabilities, as a metric rewards it.

A network that is trained with class weights has learnt, more or less, probabilities as if all
classes were equally frequent. For balanced accuracy that is what a decision should be made from:
the best one is the argmax of p / prior, p being the probability at the classes' true frequencies
(Menon et al. 2013, on the balanced error). For accuracy it is the argmax of p; macro F1 lies
between the two. How much of the prior is divided out already is measured on held-out predictions.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

# Bounds that the fit meets only where the rows say nothing, such as when every label is right.
INVERSE_TEMPERATURES = (0.01, 100.0)
PRIOR_SHARES = (-10.0, 10.0)
# Standard deviation of the classes' biases that a fit expects, as if samples were independent. With
# twice that, two runs of MobileNetV2 gain as much on the challenge.
BIAS = 0.25
# Powers of the prior to divide by: finer steps can't be told apart with a few thousand samples.
POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Decided:
    """A class for each sample, and the probabilities it was decided from.

    Its own type, so that what was corrected is not taken for a network's output again.
    """

    prob: np.ndarray
    """float32 [n, class]"""
    predicted: np.ndarray
    """int64 [n]"""


def likeliest(prob: np.ndarray) -> Decided:
    """Decide for the likeliest class of `prob` [n, class]."""
    return Decided(prob, prob.argmax(axis=1))


class Decision(Protocol):
    """A rule, fitted to held-out predictions."""

    def apply(self, prob: np.ndarray) -> Decided:
        """Decide from a network's outputs [n, class]."""

    def describe(self) -> str:
        """Return what was fitted, in a few words."""


@dataclass(frozen=True)
class Correction:
    """p(class | x) ~ q(class | x)^(1 / temperature) * prior^prior_share * e^bias, q the network's.

    The decision is the argmax of p / prior^power. Temperature with a bias for each class calibrates
    better than temperature alone (Alexandari et al. 2020).
    """

    temperature: float
    """Above 1 where the network is too sure of itself."""
    prior_share: float
    """The share of the prior that is divided out of q already: 1 all of it, 0 nothing.

    It can't be told when the classes are equally frequent, and then makes no difference.
    """
    prior: tuple[float, ...]
    """Share of each class."""
    bias: tuple[float, ...]
    """Added to each class's log probability; above 0 where the network misses the class in pictures
    that are new to it."""
    power: float = 1.0
    """1 for balanced accuracy, 0 for accuracy."""

    def apply(self, prob: np.ndarray) -> Decided:
        """Calibrate q [n, class] to the frequencies `prior`, and decide from the result."""
        from scipy.special import log_softmax

        log_q, log_prior = logarithms(prob, np.array(self.prior))
        log_q = log_q / self.temperature + self.bias
        log_p = log_softmax(log_q + self.prior_share * log_prior, axis=1)
        divided = log_q + (self.prior_share - self.power) * log_prior
        return Decided(np.exp(log_p).astype(np.float32), divided.argmax(axis=1))

    def describe(self) -> str:
        """Temperature, how much of the prior was and is divided out, and the extreme biases."""
        return (
            f"temperature {self.temperature:.2f}; share of the prior that training had divided "
            f"out: {self.prior_share:.2f}, that the decision divides out: {self.power:.2f}; "
            f"biases of classes {min(self.bias):+.2f} to {max(self.bias):+.2f}"
        )


@dataclass(frozen=True)
class Thresholds:
    """Cuts between ordered classes, on the scale of the expected class number."""

    cuts: tuple[float, ...]
    """Ascending, one fewer than classes."""

    def apply(self, prob: np.ndarray) -> Decided:
        """Decide for the class whose interval holds the expected class number."""
        return Decided(prob, np.searchsorted(self.cuts, expected_class(prob), side="right"))

    def describe(self) -> str:
        """The cuts."""
        return "cuts at " + ", ".join(f"{cut:.2f}" for cut in self.cuts)


def expected_class(prob: np.ndarray) -> np.ndarray:
    """Mean class number, float64 [n], by probabilities [n, class]."""
    number: np.ndarray = prob.astype(np.float64) @ np.arange(prob.shape[1])
    return number


def fit_thresholds(prob: np.ndarray, labels: np.ndarray) -> Thresholds:
    """Cuts that decide for each class as often as it occurs among `labels` [n].

    Expected class numbers are drawn to the middle, so rounding them decides too seldom for the
    classes at the ends, which quadratic kappa punishes. A search for the cuts of best kappa
    (Nelder-Mead) adds 0.002 on average of simulated data sets, and takes 100 times as long.
    """
    occurring = np.bincount(labels, minlength=prob.shape[1])[:-1].cumsum() / len(labels)
    return Thresholds(tuple(np.quantile(expected_class(prob), occurring).tolist()))


def fit_correction(prob: np.ndarray, labels: np.ndarray, power: float = 1.0) -> Correction:
    """The correction under which `labels` [n] are likeliest, of a network's outputs [n, class].

    Maximum likelihood in 1 / temperature, prior_share and bias, with a normal prior on each bias
    (mean 0, standard deviation BIAS); the objective is concave. `prob` and `labels` must be held
    out: on its own training rows a network is sure and right.
    """
    # Imported here because it takes a quarter of a second, and training doesn't need it.
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    n_classes = prob.shape[1]
    prior = class_prior(labels, n_classes)
    log_q, log_prior = logarithms(prob, prior)
    n, rows = len(labels), np.arange(len(labels))

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Log loss, plus what the biases cost, and its gradient."""
        inverse_temperature, prior_share, bias = parameters[0], parameters[1], parameters[2:]
        log_p = log_softmax(inverse_temperature * log_q + prior_share * log_prior + bias, axis=1)
        excess = np.exp(log_p) / n
        excess[rows, labels] -= 1 / n
        by_class = excess.sum(axis=0)
        of_bias = bias / (n * BIAS**2)
        gradient = [np.sum(excess * log_q)], [by_class @ log_prior], by_class + of_bias
        return -log_p[rows, labels].mean() + bias @ of_bias / 2, np.concatenate(gradient)

    # The start is what class weights promise: q is calibrated, all of the prior divided out.
    fitted = minimize(
        loss,
        x0=(1.0, 1.0, *np.zeros(n_classes)),
        jac=True,
        method="L-BFGS-B",
        bounds=(INVERSE_TEMPERATURES, PRIOR_SHARES, *[(None, None)] * n_classes),
        options={"ftol": 1e-12, "gtol": 1e-8, "maxiter": 1000},
    )
    inverse_temperature, prior_share, *bias = map(float, fitted.x)
    return Correction(
        1 / inverse_temperature, prior_share, tuple(prior.tolist()), tuple(bias), power
    )


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


def floored_log(prob: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, float64; finite where a softmax underflows to zero."""
    # The floor is the smallest normal float32.
    log_p: np.ndarray = np.log(np.maximum(prob, np.finfo(np.float32).tiny, dtype=np.float64))
    return log_p


def surprise(labels: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Minus the log of the probability [n, class] given to each label [n]; its mean is log loss."""
    return -floored_log(prob[np.arange(len(labels)), labels])
