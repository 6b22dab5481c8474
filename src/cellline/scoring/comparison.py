"""Whether one set of predictions is better than another on the same samples."""

import math
from dataclasses import dataclass

import numpy as np

from cellline.scoring.metrics import (
    Bootstrap,
    Estimate,
    bac_of,
    estimate,
    points,
    recalls,
    tally,
)

# Standard errors between 0 and a difference that 80 % of comparisons would see: the two-sided 5 %
# point of the normal distribution, and its 80 % point.
POWER = 1.960 + 0.842


@dataclass(frozen=True)
class Comparison:
    """Predictions b against predictions a, paired: positive where b is better."""

    bac: Estimate
    """Balanced accuracy of b minus that of a."""
    recalls: tuple[Estimate, ...]
    """Recall of b minus that of a, by class."""
    marked: tuple[bool, ...]
    """By class: recall differs even when one allows for as many classes being looked at."""
    n_samples: int

    @property
    def is_clear(self) -> bool:
        """The interval of the difference in balanced accuracy excludes 0."""
        return self.bac.low > 0 or self.bac.high < 0

    @property
    def needed(self) -> float:
        """How many times as many groups would show a difference of this size; inf for none.

        Show: in 80 % of such comparisons the 95 % interval would exclude 0, were the difference
        found the true one. The standard error falls with the root of the number of groups.
        """
        if self.bac.value == 0:
            return math.inf
        return (POWER * self.bac.error / self.bac.value) ** 2

    def verdict(self, name_a: str, name_b: str, where: str = "") -> str:
        """One line to act on; `where`, such as ' of fold 0', tells of which samples."""
        found = f"{points(self.bac)} points of BAC on {self.n_samples:,} samples{where}"
        if self.is_clear:
            better = self.bac.value > 0
            return (
                f"{name_b} is {'better' if better else 'worse'} than {name_a}: {found}: "
                f"use {name_b if better else name_a}"
            )
        if self.bac.value == self.bac.error == 0:
            return f"{name_a} and {name_b} are right on the same samples{where}: keep the cheaper"
        needed = f"about {self.needed:,.0f}" if self.needed < 1000 else "more than 1,000"
        return (
            f"no difference can be told between {name_a} and {name_b}: {found}; to see one this "
            f"small, {needed} times as many groups of pictures would be needed: keep the cheaper"
        )


def compare_predictions(
    labels: np.ndarray, prob_a: np.ndarray, prob_b: np.ndarray, bootstrap: Bootstrap
) -> Comparison:
    """Two probabilities [n, class] of labels [n], every class among them, drawn together.

    What both find easy or hard cancels out, so that the difference is known better than either
    score. Classes are marked by a Bonferroni correction: when nothing differs, all stay unmarked
    in about 95 % of comparisons.
    """
    n_classes = prob_a.shape[1]
    cells = [tally(labels, prob.argmax(1), n_classes) for prob in (prob_a, prob_b)]
    bac = [(bac_of(own.sum(axis=0)), bac_of(bootstrap.sums(own))) for own in cells]
    recall = [(recalls(own.sum(axis=0)), recalls(bootstrap.sums(own))) for own in cells]
    by_class, draws = (b - a for a, b in zip(*recall, strict=True))
    low, high = np.nanquantile(draws, [0.025 / n_classes, 1 - 0.025 / n_classes], axis=0)
    return Comparison(
        estimate(*(b - a for a, b in zip(*bac, strict=True))),
        tuple(estimate(value, own) for value, own in zip(by_class, draws.T, strict=True)),
        tuple(((low > 0) | (high < 0)).tolist()),
        len(labels),
    )
