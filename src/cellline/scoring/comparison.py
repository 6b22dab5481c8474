"""A paired comparison of two sets of predictions for the same samples."""

import math
from dataclasses import dataclass

import numpy as np

from cellline.scoring.metrics import Bootstrap, Estimate, bac_of, estimate, recalls, tally

# Standard errors between 0 and a difference that 80 % of comparisons would detect: the two-sided
# 5 % point of the normal distribution, and its 80 % point.
POWER = 1.960 + 0.842


@dataclass(frozen=True)
class Comparison:
    """Predictions b minus predictions a, paired: positive where b is better."""

    bac: Estimate
    """Difference in balanced accuracy."""
    recalls: tuple[Estimate, ...]
    """Difference in recall, by class."""
    marked: tuple[bool, ...]
    """For each class, true if the recall differs after correction for the number of classes."""

    @property
    def is_clear(self) -> bool:
        """True if the interval of the difference in balanced accuracy excludes 0."""
        return self.bac.low > 0 or self.bac.high < 0

    @property
    def needed(self) -> float:
        """Multiple of the present groups that would show the difference, were it the true one.

        Infinite if it is 0. The standard error falls with the root of the number of groups.
        """
        if self.bac.value == 0:
            return math.inf
        return (POWER * self.bac.error / self.bac.value) ** 2


def compare_predictions(
    labels: np.ndarray, prob_a: np.ndarray, prob_b: np.ndarray, bootstrap: Bootstrap
) -> Comparison:
    """Compare probabilities [n, class] for labels [n], every class among them, on the same draws.

    Pairing cancels what both find easy or hard, so the difference is known better than either
    score. Classes are marked after a Bonferroni correction: if nothing differs, none is marked in
    about 95 % of comparisons.
    """
    n_classes = prob_a.shape[1]
    cells = [tally(labels, prob.argmax(1), n_classes) for prob in (prob_a, prob_b)]
    confusions = [(own.sum(axis=0), bootstrap.sums(own)) for own in cells]
    bac, bac_draws = (bac_of(b) - bac_of(a) for a, b in zip(*confusions, strict=True))
    by_class, draws = (recalls(b) - recalls(a) for a, b in zip(*confusions, strict=True))
    low, high = np.nanquantile(draws, [0.025 / n_classes, 1 - 0.025 / n_classes], axis=0)
    return Comparison(
        estimate(bac, bac_draws),
        tuple(map(estimate, by_class, draws.T)),
        tuple(((low > 0) | (high < 0)).tolist()),
    )
