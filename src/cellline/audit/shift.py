"""Whether the test set looks like the training set.

Adversarial validation: where a classifier tells training from test samples better than by guessing,
their distributions differ (a classifier two-sample test, Lopez-Paz and Oquab 2017,
arXiv:1610.06545). Which statistics differ is told one by one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist
from typing import Any, Self

import numpy as np

from cellline.audit.reference import cross_fit
from cellline.audit.splitting import deal_folds
from cellline.errors import Caution
from cellline.scoring.metrics import BLOCKS, Bootstrap, Estimate, estimate

# How often a test set that is like the training set may be called different, by either verdict.
FALSE_ALARMS = 0.01
NAMED = 5  # statistics that are named at most
# Below, the normal distribution calls statistics different far too often: of 60 parts of 12 drawn
# test samples 6 times.
FEWEST_GROUPS = 15


@dataclass(frozen=True)
class Shift:
    """How training and test samples differ."""

    auc: Estimate
    """Chance that of a training and a test sample the classifier takes the right one for test."""
    differences: dict[str, Estimate]
    """By statistic: test mean minus training mean, in the training samples' standard deviations."""

    @property
    def shifted(self) -> bool:
        """Whether the test set looks different: a one-sided test at the level FALSE_ALARMS."""
        return self.auc.value - NormalDist().inv_cdf(1 - FALSE_ALARMS) * self.auc.error > 0.5

    @property
    def differing(self) -> tuple[str, ...]:
        """Statistics whose means differ, the most first: two-sided tests, after Bonferroni.

        By the normal distribution, which with fewer than some 50 test groups alarms more often than
        FALSE_ALARMS: of 60 drawn parts of 18 samples twice, of 60 samples once.
        """
        width = NormalDist().inv_cdf(1 - FALSE_ALARMS / 2 / len(self.differences))
        sizes = {
            name: abs(difference.value)
            for name, difference in self.differences.items()
            if abs(difference.value) > width * difference.error
        }
        return tuple(sorted(sizes, key=lambda name: -sizes[name]))

    def record(self) -> dict[str, Any]:
        """For folds.json."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `record`."""
        differences = {name: Estimate(**each) for name, each in record["differences"].items()}
        return cls(Estimate(**record["auc"]), differences)

    def describe(self) -> list[str]:
        """The verdict, what it rests on, and what to do about it, a line each."""
        auc = f"AUC {self.auc.value:.2f} [{self.auc.low:.2f}, {self.auc.high:.2f}]"
        unit = " standard deviations"
        named = ", ".join(
            f"{name} ({self.differences[name].value:+.2f}{'' if place else unit})"
            for place, name in enumerate(self.differing[:NAMED])
        )
        if len(self.differing) > NAMED:
            named += f" and {len(self.differing) - NAMED} more"
        if not self.shifted:
            verdict = f"training and test samples can't be told apart: {auc}"
            if named:
                return [verdict, f"though on average they differ in {named}"]
            return [f"{verdict}, nothing to correct"]
        return [
            Caution(
                f"the test set looks different: {auc}; "
                + (f"most in {named}" if named else "in how statistics go together, in none's mean")
            ),
            "expect less there than the OOF score, and augment what differs (--gain and --offset "
            "for brightness)",
        ]


def measure_shift(
    train: np.ndarray,
    test: np.ndarray,
    names: Sequence[str],
    group: np.ndarray,
    test_group: np.ndarray,
    n_folds: int,
    seed: int,
) -> Shift | None:
    """Compare statistics [n, k] and [m, k], called `names`; groups, [n] and [m], span both.

    None when either part has too few groups to tell.
    """
    if min(len(np.unique(group)), len(np.unique(test_group))) < max(n_folds, FEWEST_GROUPS):
        return None
    is_test = np.repeat([0, 1], [len(train), len(test)])
    groups = np.concatenate([group, test_group])
    statistics = np.concatenate([train, test])
    bootstrap = Bootstrap(groups)
    # A test sample has the other label than a training sample that it is a copy of: that would
    # teach the classifier to be wrong.
    fold = deal_folds(is_test, groups, n_folds, seed)
    prob = cross_fit(statistics, is_test, fold)[:, 1]
    return Shift(
        measure_auc(is_test, prob, fold, bootstrap),
        dict(zip(names, compare_means(statistics, is_test, bootstrap), strict=True)),
    )


def measure_auc(
    is_test: np.ndarray, prob: np.ndarray, fold: np.ndarray, bootstrap: Bootstrap
) -> Estimate:
    """Area under the ROC curve of `prob` [n], over pairs of samples within a fold.

    Only there, as scores of different models don't compare. Two samples of different folds that
    are alike judge each other, right both times or wrong both times: that makes the AUC of parts
    that can't be told apart vary up to sqrt(2) times as much as its bootstrap over given scores
    (1.38 and 1.40 times, measured with trees and a linear classifier), so the draws are widened.
    """
    orders, starts = [], []
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        orders.append(rows[np.argsort(prob[rows])])
        starts.append(np.unique(prob[orders[-1]], return_index=True)[1])

    def of_draws(counts: np.ndarray) -> np.ndarray:
        """AUC [draw] where each group counts so often, int [draw, group]."""
        right, pairs = np.zeros((2, len(counts)))
        for rows, ties in zip(orders, starts, strict=True):
            drawn = counts[:, bootstrap.group[rows]]
            test = np.add.reduceat(drawn * is_test[rows], ties, axis=1)
            training = np.add.reduceat(drawn * (1 - is_test[rows]), ties, axis=1)
            # A tie is half right.
            below = training.cumsum(axis=1) - training / 2
            right += (test * below).sum(axis=1)
            pairs += test.sum(axis=1) * training.sum(axis=1)
        with np.errstate(invalid="ignore"):
            auc: np.ndarray = right / pairs
        return auc

    [value] = of_draws(np.ones((1, bootstrap.n_groups), np.uint8))
    # In blocks: a draw of all samples takes a few numbers of each.
    drawn = np.concatenate([of_draws(bootstrap.counts[block]) for block in BLOCKS])
    return estimate(value, np.clip(value + sqrt(2) * (drawn - value), 0, 1))


def compare_means(
    statistics: np.ndarray, is_test: np.ndarray, bootstrap: Bootstrap
) -> list[Estimate]:
    """Test minus training mean of statistics [n, k], in training standard deviations.

    What never varies in training is compared in its own unit.
    """
    deviation = statistics[is_test == 0].std(axis=0, dtype=np.float64)
    scaled = statistics / np.where(deviation > 0, deviation, 1)
    parts = np.stack([1 - is_test, is_test], axis=1)
    values = np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)[:, None] * parts[..., None]
    sums = np.concatenate([values.sum(axis=0, keepdims=True), bootstrap.sums(values)])
    with np.errstate(invalid="ignore"):
        means = sums[:, :, :-1] / sums[:, :, -1:]
    differences = means[:, 1] - means[:, 0]
    return [estimate(column[0], column[1:]) for column in differences.T]
