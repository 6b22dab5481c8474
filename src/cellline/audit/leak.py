"""Worth of a leak: the gain from having seen a copy or overlap of a sample that is predicted."""

from dataclasses import dataclass
from math import hypot

import numpy as np

from cellline.scoring.metrics import Bootstrap, Estimate, bac_of, tally


@dataclass(frozen=True)
class Leak:
    """Out-of-fold balanced accuracy of samples with a relative in the training part, and of others.

    Relatives are samples of the same group. Both scores are over the classes that both kinds hold.
    """

    leaked: Estimate
    rest: Estimate
    n_leaked: int
    n_rest: int

    @property
    def difference(self) -> Estimate:
        """Advantage of the leaked samples. The two kinds differ in more than the leak."""
        return combine(self.leaked, 1, self.rest, -1)

    def expected(self, share: float) -> Estimate:
        """Score to expect if this `share` of each class's samples has relatives in training."""
        return combine(self.leaked, share, self.rest, 1 - share)


def measure_leak(
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    leaked: np.ndarray,
    groups: np.ndarray,
) -> Leak | None:
    """Compare the leaked samples, bool [n], with the rest, by labels, predicted int [n], groups.

    A group is leaked as a whole or not at all, so each kind is bootstrapped
    over its own groups. None if the kinds have no class in common, as when one is empty.
    """
    both = np.intersect1d(labels[leaked], labels[~leaked])
    if len(both) == 0:
        return None
    comparable = np.isin(labels, both)
    cells = tally(labels, predicted, n_classes)
    kinds = [np.flatnonzero(comparable & kind) for kind in (leaked, ~leaked)]
    # Different seeds: the two are independent.
    of_leaked, of_rest = (
        Bootstrap(groups[rows], seed).estimate(bac_of, cells[rows])
        for seed, rows in enumerate(kinds)
    )
    return Leak(of_leaked, of_rest, *map(len, kinds))


def combine(a: Estimate, of_a: float, b: Estimate, of_b: float) -> Estimate:
    """Weighted sum of two independent figures, taken as normally distributed."""
    value, error = of_a * a.value + of_b * b.value, hypot(of_a * a.error, of_b * b.error)
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, error)
