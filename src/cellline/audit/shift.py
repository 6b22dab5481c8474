"""Differences between the training and the test set.

Adversarial validation: if a classifier tells training from test samples better than by guessing,
their distributions differ (a classifier two-sample test, Lopez-Paz and Oquab 2017,
arXiv:1610.06545). Each statistic is compared as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist

import numpy as np

from cellline.audit.reference import predict_held_out
from cellline.audit.splitting import deal_folds
from cellline.audit.statistics import Part
from cellline.scoring.bootstrap import BLOCKS, Bootstrap, Estimate, estimate

# Probability, for either verdict, to call a test set different that is like the training set.
FALSE_ALARMS = 0.01
# With 12, the normal distribution calls statistics of 6 in 60 drawn test sets different.
FEWEST_GROUPS = 15


@dataclass(frozen=True)
class Shift:
    """Differences between training and test samples."""

    auc: Estimate
    """Probability that the classifier picks the test sample from a training and a test sample."""
    differences: dict[str, Estimate]
    """Test mean minus training mean of each statistic, in training standard deviations."""

    @property
    def shifted(self) -> bool:
        """True if the test set looks different: a one-sided test at the level FALSE_ALARMS."""
        return self.auc.value - NormalDist().inv_cdf(1 - FALSE_ALARMS) * self.auc.error > 0.5

    @property
    def differing(self) -> tuple[str, ...]:
        """Statistics whose means differ, largest first: two-sided tests with Bonferroni correction.

        They assume normal distributions: of 60 drawn parts of 18 samples, 2 raise an alarm.
        """
        width = NormalDist().inv_cdf(1 - FALSE_ALARMS / 2 / len(self.differences))
        by_size = sorted(self.differences.items(), key=lambda item: -abs(item[1].value))
        return tuple(name for name, each in by_size if abs(each.value) > width * each.error)


def measure_shift(
    train: Part, test: Part, names: Sequence[str], n_folds: int, seed: int
) -> Shift | None:
    """Compare the statistics, called `names`, of two parts whose groups span both.

    None if either part has too few groups to tell.
    """
    fewest = min(len(np.unique(part.group)) for part in (train, test))
    if fewest < max(n_folds, FEWEST_GROUPS):
        return None
    is_test = np.repeat([0, 1], [len(train.group), len(test.group)])
    groups = np.concatenate([train.group, test.group])
    statistics = np.concatenate([train.statistics, test.statistics])
    bootstrap = Bootstrap(groups)
    # By groups: a classifier that has seen a training sample is wrong about its copy in the test.
    fold = deal_folds(is_test, groups, n_folds, seed)
    prob = predict_held_out(statistics, is_test, fold)[:, 1]
    return Shift(
        measure_auc(is_test, prob, fold, bootstrap),
        dict(zip(names, compare_means(statistics, is_test, bootstrap), strict=True)),
    )


def measure_auc(
    is_test: np.ndarray, prob: np.ndarray, fold: np.ndarray, bootstrap: Bootstrap
) -> Estimate:
    """Area under the ROC curve of `prob` [n], over pairs of samples within a fold.

    Scores of different folds' models can't be compared. Two similar samples in different folds
    judge each other, both right or both wrong. So the AUC of indistinguishable parts varies up to
    sqrt(2) times as much as its bootstrap over given scores (measured: 1.38 and 1.40 times). The
    draws are widened by that factor.
    """
    parts = []
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        rows = rows[np.argsort(prob[rows])]
        parts.append((rows, np.unique(prob[rows], return_index=True)[1]))

    def of_draws(counts: np.ndarray) -> np.ndarray:
        """AUC [draw] for the number of times that each group counts, int [draw, group]."""
        right, pairs = np.zeros((2, len(counts)))
        for rows, ties in parts:
            drawn = counts[:, bootstrap.group[rows]]
            test = np.add.reduceat(drawn * is_test[rows], ties, axis=1)
            training = np.add.reduceat(drawn * (1 - is_test[rows]), ties, axis=1)
            below = training.cumsum(axis=1) - training / 2  # a tie counts half
            right += (test * below).sum(axis=1)
            pairs += test.sum(axis=1) * training.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(right / pairs)

    [value] = of_draws(np.ones((1, bootstrap.n_groups), np.uint8))
    # In blocks: every draw takes a few numbers per sample.
    drawn = np.concatenate([of_draws(bootstrap.counts[block]) for block in BLOCKS])
    return estimate(value, np.clip(value + sqrt(2) * (drawn - value), 0, 1))


def compare_means(
    statistics: np.ndarray, is_test: np.ndarray, bootstrap: Bootstrap
) -> list[Estimate]:
    """Test minus training mean of statistics [n, k], in training standard deviations.

    A statistic that never varies in training is compared in its own unit.
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
