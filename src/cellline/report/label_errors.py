"""Likely label errors: evidence of any, their number, and which labels they are.

A network is sometimes sure and wrong, so a label that it is sure to be wrong proves nothing:
confident learning (Northcutt, Jiang and Chuang 2021) named 157 of 1,579 labels that are believed to
be right, with a network of 69 % BAC. The two kinds of errors differ in how they fall. A model of
both is fitted to the labels by maximum likelihood:

- The network's probabilities, at the right temperature and class frequencies (see calibration),
  are right except for a share of pictures in which it is wrong however sure it is. The truth is
  then one of the classes that it usually mistakes for its prediction.
- Labels are wrong at some rate, and then any other class is equally likely (random classification
  noise, Angluin and Laird 1988; such a likelihood, Lawrence and Schoelkopf 2001).

Label errors are evident if the rate's interval excludes zero. In doubt the network is blamed. So
some errors are missed: people's errors among just the classes that the network confuses, one wrong
label on all samples of a group, and any error between only two classes.

Samples in groups whose labels differ are left out: either a label is wrong or the group is, and
these probabilities can't tell which. A network below WEAK says nothing about labels.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq, minimize
from scipy.special import softmax

from cellline.scoring.bootstrap import Estimate
from cellline.scoring.decisions import INVERSE_TEMPERATURES, class_prior, logarithms
from cellline.scoring.recalls import balanced_accuracy

# A rate that means no label errors, as a number whose logarithm is finite.
NONE = 1e-7
# Above this rate labels say less of the truth than of the errors, and the model could turn around.
HALF = 0.5
# Bounds of the prior's share that is divided out; see calibration.
PRIOR_SHARE = (-5.0, 5.0)
# Half the 95 % quantile of the chi-squared distribution with one degree of freedom: the drop of the
# log likelihood from its peak to the ends of an interval (Wilks 1938).
DROP = 1.92
# Balanced accuracy below which a network can't tell a wrong label from its own mistakes. Of 800
# right labels of 40 classes, randomized trees of 23 % BAC named 8; with 40 made wrong they named
# 52, 9 of them wrong. At 78 % they named none and 27, of which 24 were wrong.
WEAK = 0.5
TINY = np.finfo(np.float64).tiny


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """The labels that are likely wrong; none without evidence of any."""

    rows: np.ndarray
    """int64 [k], likeliest first."""
    suggested: np.ndarray
    """int64 [k]: the likeliest other class."""
    score: np.ndarray
    """float64 [k]: the probability that the label is wrong."""
    rate: Estimate
    """Share of wrong labels, with a profile likelihood interval."""
    n: int
    """Labels examined."""
    mixed: int
    """Samples left out, because they are in groups whose labels differ."""

    @property
    def evidence(self) -> bool:
        """True if the interval excludes that all labels are right."""
        return self.rate.low > 0


def find_label_errors(
    labels: np.ndarray, prob: np.ndarray, groups: np.ndarray
) -> LabelErrors | None:
    """Label errors among labels int [n], by out-of-fold probabilities [n, class].

    `groups` [n], numbers or text: samples with equal entries show one picture. None if the network
    is too weak to tell.
    """
    if balanced_accuracy(labels, prob.argmax(axis=1)) < WEAK:
        return None
    _, group = np.unique(groups, return_inverse=True)
    lowest, highest = np.full(group.max() + 1, prob.shape[1]), np.zeros(group.max() + 1, int)
    np.minimum.at(lowest, group, labels)
    np.maximum.at(highest, group, labels)
    kept = np.flatnonzero((lowest == highest)[group])
    mixed = len(labels) - len(kept)
    if not len(kept):
        return None
    labels, prob = labels[kept], prob[kept]
    model = NoiseModel(labels, prob, group[kept])
    fitted, peak = model.fit()
    rate = model.interval(fitted, peak)
    count = max(1, round(rate.value * len(labels))) if rate.low > 0 else 0
    likely = model.evaluate(fitted)[2][model.group]
    score = 1 - likely[np.arange(len(labels)), labels]
    likely[np.arange(len(labels)), labels] = 0
    rows = np.argsort(-score, kind="stable")[:count]
    suggested = likely[rows].argmax(1)
    return LabelErrors(kept[rows], suggested, score[rows], rate, len(labels), mixed)


class NoiseModel:
    """The likelihood of labels, by group, in four parameters.

    They are the sharpness and the prior's share of the calibration, the share of groups in which
    the network is wrong however sure it is, and the rate of label errors.
    """

    def __init__(self, labels: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> None:
        n_classes = prob.shape[1]
        _, self.group = np.unique(groups, return_inverse=True)
        size = np.bincount(self.group)
        mean = np.zeros((len(size), n_classes))
        np.add.at(mean, self.group, prob)
        mean /= size[:, None]
        # Labels of a group that are each class, and labels that are not.
        self.same = np.zeros((len(size), n_classes))
        np.add.at(self.same, (self.group, labels), 1)
        self.other = size[:, None] - self.same
        self.log_prob, self.log_prior = logarithms(mean, class_prior(labels, n_classes))
        # Only calibrated probabilities show usual mistakes: a network that learned from wrong
        # labels is unsure in all directions.
        self.mistaken = np.full_like(mean, 1 / n_classes)
        calibration, _ = self.maximize(np.array([1, 1, 0, 0.02]), sure_mistakes=(0.0, 0.0))
        self.mistaken = usual_mistakes(self.calibrate(calibration))

    def calibrate(self, parameters: np.ndarray) -> np.ndarray:
        """The network's probabilities [group, class] at these parameters."""
        sharpness, prior_share = parameters[:2]
        p: np.ndarray = softmax(sharpness * self.log_prob + prior_share * self.log_prior, axis=1)
        return p

    def evaluate(self, parameters: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Log likelihood, its gradient [4], and the posterior of the true class [group, class]."""
        sure_mistakes, rate = parameters[2:]
        p = self.calibrate(parameters)
        truth = np.maximum((1 - sure_mistakes) * p + sure_mistakes * self.mistaken, TINY)
        wrong = rate / (p.shape[1] - 1)
        log_joint = np.log(truth) + self.same * np.log1p(-rate) + self.other * np.log(wrong)
        highest = log_joint.max(axis=1, keepdims=True)
        joint = np.exp(log_joint - highest)
        total = joint.sum(axis=1, keepdims=True)
        posterior = joint / total

        by_truth = posterior / truth
        by_p = (1 - sure_mistakes) * by_truth * p
        by_logit = by_p - p * by_p.sum(axis=1, keepdims=True)
        gradient = np.array(
            [
                np.sum(by_logit * self.log_prob),
                np.sum(by_logit @ self.log_prior),
                np.sum(by_truth * (self.mistaken - p)),
                np.sum(posterior * (self.other / rate - self.same / (1 - rate))),
            ]
        )
        return float((np.log(total) + highest).sum()), gradient, posterior

    def maximize(
        self,
        start: np.ndarray,
        sure_mistakes: tuple[float, float] = (0.0, HALF),
        rate: tuple[float, float] = (NONE, HALF),
    ) -> tuple[np.ndarray, float]:
        """The likeliest parameters within bounds, and their log likelihood."""
        n = len(self.group)

        def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            likelihood, gradient, _ = self.evaluate(parameters)
            return -likelihood / n, -gradient / n

        bounds = (INVERSE_TEMPERATURES, PRIOR_SHARE, sure_mistakes, rate)
        inside = np.clip(start, *np.transpose(bounds))
        fitted = minimize(loss, inside, jac=True, method="L-BFGS-B", bounds=bounds)
        return fitted.x, -n * float(fitted.fun)

    def fit(self) -> tuple[np.ndarray, float]:
        """The likeliest parameters, from several starts because there can be several peaks."""
        starts = [
            np.array([1, 1, mistakes, rate]) for mistakes in (0, 0.1) for rate in (0.002, 0.1)
        ]
        return max((self.maximize(start) for start in starts), key=lambda found: found[1])

    def interval(self, fitted: np.ndarray, peak: float) -> Estimate:
        """The rate of label errors with its profile likelihood's 95 % interval."""

        @cache
        def above(log_rate: float) -> float:
            """Log likelihood at a rate above that at the interval's ends."""
            rate = np.exp(log_rate)
            starts = (fitted, np.array([*fitted[:2], 0.1, rate]))
            return max(self.maximize(x, rate=(rate, rate))[1] for x in starts) - peak + DROP

        value = float(fitted[3])
        none, middle, half = np.log([NONE, value, HALF]).tolist()
        # To within one part in a hundred.
        low = 0.0 if above(none) > 0 else np.exp(brentq(above, none, middle, xtol=0.01))
        high = HALF if above(half) > 0 else np.exp(brentq(above, middle, half, xtol=0.01))
        # A normal distribution with this interval has this standard error.
        return Estimate(value, float(low), float(high), float(high - low) / (2 * 1.96))


def usual_mistakes(p: np.ndarray) -> np.ndarray:
    """Chances [n, class] of the true class if the likeliest of calibrated `p` [n, class] is wrong.

    They are those of the classes that are usually mistaken for it.
    """
    predicted, n_classes = p.argmax(axis=1), p.shape[1]
    # Half a mistake more for each class, equally likely to be any: among few samples, many mistakes
    # that a network makes have not been seen. Without it, an MLP of 82 % BAC named 5 of 800 right
    # labels of 40 classes.
    confused = np.full((n_classes, n_classes), 0.5 / (n_classes - 1))
    np.add.at(confused, predicted, p)
    np.fill_diagonal(confused, 0)
    confused /= confused.sum(axis=1, keepdims=True)
    usual: np.ndarray = confused[predicted]
    return usual
