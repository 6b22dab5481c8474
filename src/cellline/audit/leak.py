"""What it is worth to a model to have seen a copy or an overlapping crop of what it predicts."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any, Self

import numpy as np

from cellline.runs.predictions import OutOfFold
from cellline.scoring.metrics import (
    Bootstrap,
    Estimate,
    bac_of,
    percent,
    points,
    tally,
    with_interval,
)


@dataclass(frozen=True)
class Leak:
    """Out-of-fold balanced accuracy of samples with a relative in the training part, and of others.

    Relatives are samples of the same group. Both figures are of the classes that both kinds hold.
    """

    leaked: Estimate
    rest: Estimate
    n_leaked: int
    n_rest: int

    @property
    def difference(self) -> Estimate:
        """By how much the leaked ones score more. The two differ in more than the leak."""
        return combine(self.leaked, 1, self.rest, -1)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        leaked, rest = (Estimate(**record[key]) for key in ("leaked", "rest"))
        return cls(leaked, rest, record["n_leaked"], record["n_rest"])

    def describe(self) -> str:
        """Both scores and their difference."""
        return (
            f"{self.n_leaked} samples with a copy or overlap in another fold score "
            f"{with_interval(self.leaked)}, the {self.n_rest} others "
            f"{with_interval(self.rest)}: {points(self.difference)} points, of "
            "the leak and of whatever else tells the two kinds apart"
        )


def measure_leak(
    labels: np.ndarray,
    predicted: np.ndarray,
    n_classes: int,
    leaked: np.ndarray,
    groups: np.ndarray,
) -> Leak | None:
    """Compare the leaked samples, bool [n], with the rest, by labels, predicted int [n], groups.

    A group is leaked as a whole or not at all (see `Folds.leaked`), so each kind is bootstrapped
    over its own groups. None when the kinds have no class in common, as when one is empty.
    """
    both = np.intersect1d(labels[leaked], labels[~leaked])
    if len(both) == 0:
        return None
    comparable = np.isin(labels, both)
    cells = tally(labels, predicted, n_classes)
    kinds = [np.flatnonzero(comparable & kind) for kind in (leaked, ~leaked)]
    # Seeds that differ: the two are independent.
    of_leaked, of_rest = (
        Bootstrap(groups[rows], seed).estimate(bac_of, cells[rows])
        for seed, rows in enumerate(kinds)
    )
    return Leak(of_leaked, of_rest, *map(len, kinds))


def measure_run_leak(predictions: OutOfFold) -> Leak | None:
    """The leak of a run's out-of-fold predictions; None for folds that keep groups together."""
    return measure_leak(
        predictions.labels,
        predictions.predicted,
        predictions.prob.shape[1],
        predictions.folds.leaked()[predictions.rows],
        predictions.group,
    )


def describe_run_leak(predictions: OutOfFold, test_share: float) -> list[str]:
    """Lines on what a run gained from folds that tear groups apart; none for other folds.

    `test_share` is the share of the test samples with relatives in training.
    """
    leak = measure_run_leak(predictions)
    if leak is None:
        return []
    return [leak.describe(), *([describe_expected(leak, test_share)] if test_share else [])]


def expected(leak: Leak, share: float) -> Estimate:
    """The score to expect where a `share` of samples has relatives in training, in every class."""
    return combine(leak.leaked, share, leak.rest, 1 - share)


def combine(a: Estimate, of_a: float, b: Estimate, of_b: float) -> Estimate:
    """The weighted sum of two independent figures, taken as normally distributed."""
    value, error = of_a * a.value + of_b * b.value, hypot(of_a * a.error, of_b * b.error)
    return Estimate(value, value - 1.96 * error, value + 1.96 * error, error)


def describe_expected(leak: Leak, share: float) -> str:
    """What the model can expect of a test set of which a `share` has relatives in training."""
    score = expected(leak, share)
    return (
        f"for a test set of which {percent(share)} have one in training that makes "
        f"{with_interval(score)}"
    )
