"""A paired comparison of two sets of predictions for the same samples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.decisions import likeliest
from cellline.scoring.metrics import Metric

# Standard errors between 0 and a difference that 80 % of comparisons would detect: the two-sided
# 5 % point of the normal distribution, and its 80 % point.
POWER = 1.960 + 0.842


@dataclass(frozen=True)
class Comparison:
    """Predictions b compared with predictions a, paired: positive where b is better."""

    gain: Estimate
    """Gain in the metric."""
    recalls: tuple[Estimate, ...]
    """Difference in recall, by class."""
    marked: tuple[bool, ...]
    """For each class, true if the recall differs after correction for the number of classes."""

    @property
    def is_clear(self) -> bool:
        """True if the interval of the gain excludes 0."""
        return self.gain.low > 0 or self.gain.high < 0

    @property
    def needed(self) -> float:
        """Multiple of the present groups that would show the difference, were it the true one.

        Infinite if it is 0. The standard error falls with the root of the number of groups.
        """
        if self.gain.value == 0:
            return math.inf
        return (POWER * self.gain.error / self.gain.value) ** 2


def compare_predictions(
    metric: Metric,
    labels: np.ndarray,
    probs_a: Sequence[np.ndarray],
    probs_b: Sequence[np.ndarray],
    bootstrap: Bootstrap,
) -> Comparison:
    """Compare probabilities [n, class] for labels [n] on the same draws.

    Each side has one array for each of its seeds; the gain is that of the means over seeds.
    Pairing cancels what both find easy or hard, so the gain is known better than either score.
    With several seeds, their variance is added to the bootstrap's, which counts a part of it
    twice but keeps false verdicts under 5 % (`python -m benchmarks.verdicts`). Classes are marked
    after a Bonferroni correction: if nothing differs, none is marked in about 95 % of comparisons.
    """
    # Imported here because it takes a quarter of a second.
    from scipy.special import stdtrit

    n_classes, n_seeds = probs_a[0].shape[1], len(probs_a)
    # A class that the samples lack has no column until the end.
    there, column = np.unique(labels, return_inverse=True)
    is_class = np.eye(len(there))[column]
    sides = [[likeliest(prob) for prob in side] for side in (probs_a, probs_b)]
    right = [np.stack([decided.predicted == labels for decided in side]) for side in sides]
    more_right = right[1].mean(axis=0) - right[0].mean(axis=0)
    sums = bootstrap.sums(np.stack([is_class * more_right[:, None], is_class], axis=1))
    with np.errstate(invalid="ignore"):  # a class that is not drawn has NaN
        recall_draws = sums[:, 0] / sums[:, 1]
    side_recalls = [of @ is_class / is_class.sum(axis=0) for of in right]
    recalls = [recall_draws, *side_recalls]
    gain_draws, *utilities = metric.compare(labels, sides, recalls, bootstrap)
    # Columns: the metric, then the recall of each class.
    draws = np.insert(recall_draws, 0, gain_draws, axis=1)
    scores = [
        np.insert(of, 0, utility, axis=1)
        for of, utility in zip(side_recalls, utilities, strict=True)
    ]
    value = scores[1].mean(axis=0) - scores[0].mean(axis=0)
    variance, freedom = np.nanvar(draws, axis=0), np.full(1 + len(there), np.inf)
    if n_seeds > 1:
        of_seeds = np.stack([of.var(axis=0, ddof=1) / n_seeds for of in scores])
        variance += of_seeds.sum(axis=0)
        # Welch and Satterthwaite: the bootstrap's part is known as if from infinitely many seeds.
        unsure = np.sum(of_seeds**2, axis=0) / (n_seeds - 1)
        np.divide(variance**2, unsure, out=freedom, where=unsure > 0)

    def ends(tail: float) -> np.ndarray:
        """Ends of the intervals [2, score] with a share `tail` beyond each."""
        if n_seeds == 1:
            quantiles: np.ndarray = np.nanquantile(draws, [tail, 1 - tail], axis=0)
            return quantiles
        half = stdtrit(freedom.clip(max=1e9), 1 - tail) * np.sqrt(variance)
        return np.stack([value - half, value + half])

    columns = np.stack([value, *ends(0.025), np.sqrt(variance)], axis=1)
    by_class = np.full((n_classes, 4), np.nan)
    by_class[there] = columns[1:]
    low, high = ends(0.025 / n_classes)[:, 1:]
    marked = np.zeros(n_classes, bool)
    marked[there] = (low > 0) | (high < 0)
    differences = tuple(Estimate(*row) for row in by_class.tolist())
    return Comparison(Estimate(*columns[0].tolist()), differences, tuple(marked.tolist()))
