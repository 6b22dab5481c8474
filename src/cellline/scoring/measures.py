"""The formulas of the metrics, each for all draws of a bootstrap at once.

Those of balanced accuracy and log loss are in recalls.py and decisions.py. The tests compare with
scikit-learn, which scores one set of samples at a time, and MAP@5 with its definition. Classes must
be in their order for quadratic kappa, which takes a class's index for its rank.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from cellline.scoring.bootstrap import Draws
from cellline.scoring.decisions import Decided
from cellline.scoring.recalls import mean_of_classes, tally

# Scores [draw] of samples with labels [n], decisions and weights [n], or None for equal ones.
Measure = Callable[[np.ndarray, Decided, np.ndarray | None, Draws], np.ndarray]
# The ends of a run of ties, for searchsorted.
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


def by_sums(
    terms: Callable[[np.ndarray, Decided], np.ndarray],
    of_sums: Callable[[np.ndarray], np.ndarray],
) -> Measure:
    """The measure of a metric that is a function of sums over samples.

    `terms` of each sample are [n, ...]; `of_sums` maps their sums [draw, ...] to scores [draw].
    """

    def measure(
        labels: np.ndarray, decided: Decided, weights: np.ndarray | None, draws: Draws
    ) -> np.ndarray:
        values = terms(labels, decided)
        if weights is not None:
            values = values * weights.reshape(-1, *(1,) * (values.ndim - 1))
        return of_sums(draws.sums(values))

    return measure


def by_mean(value: Callable[[np.ndarray, Decided], np.ndarray]) -> Measure:
    """The measure of a metric that is the mean of a value [n] of each sample."""

    def terms(labels: np.ndarray, decided: Decided) -> np.ndarray:
        return np.stack([value(labels, decided), np.ones(len(labels))], axis=1)

    def of_sums(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # NaN for a draw without weight
            mean: np.ndarray = sums[:, 0] / sums[:, 1]
        return mean

    return by_sums(terms, of_sums)


def tally_decided(labels: np.ndarray, decided: Decided) -> np.ndarray:
    """See `tally`."""
    return tally(labels, decided.predicted, decided.prob.shape[1])


def macro_f1_of(sums: np.ndarray) -> np.ndarray:
    """Mean F1 score [...] of the classes that occur or are predicted, as in scikit-learn.

    `sums` [..., 3, class] are those of `tally`.
    """
    with np.errstate(invalid="ignore"):
        return mean_of_classes(2 * sums[..., 1, :] / (sums[..., 0, :] + sums[..., 2, :]))


def measure_auc(
    labels: np.ndarray, decided: Decided, weights: np.ndarray | None, draws: Draws
) -> np.ndarray:
    """Area under the ROC curve [draw]; a tie counts half.

    With two classes that of the second; with more the mean, one class against the rest. The area is
    Mann and Whitney's share of won pairs. An interval takes 2 s for 10,000 samples of 120 classes.
    """
    # Imported here because it takes time.
    from scipy.sparse import csr_array

    n, n_classes = decided.prob.shape
    ranked = []
    for positive in [1] if n_classes == 2 else np.unique(labels):
        prob = decided.prob[:, positive]
        own, others = np.flatnonzero(labels == positive), np.flatnonzero(labels != positive)
        own = own[np.argsort(prob[own])]
        # Row k adds up the samples that the k-th positive beats and the one before it doesn't:
        # twice, or once if it is a tie.
        beaten = np.concatenate([np.searchsorted(prob[own], prob[others], side) for side in SIDES])
        cells = (np.ones(len(beaten), np.float32), (beaten, np.tile(others, 2)))
        ranked.append((own, csr_array(cells, shape=(len(own) + 1, n))))
    scores = []
    for counts in draws.blocks():
        # 32 bits are enough for intervals, and twice as fast; a score itself has 64.
        drawn = np.ascontiguousarray(counts.T, np.float64 if len(counts) == 1 else np.float32)
        if weights is not None:
            drawn = drawn * weights.astype(drawn.dtype)[:, None]
        areas = np.full((len(counts), len(ranked)), np.nan)
        for column, (own, matrix) in enumerate(ranked):
            of_own, steps = drawn[own], matrix @ drawn
            won = np.sum(of_own * np.cumsum(steps[:-1], axis=0), axis=0, dtype=float)
            pairs = of_own.sum(axis=0, dtype=float) * steps.sum(axis=0, dtype=float)
            np.divide(won, pairs, out=areas[:, column], where=pairs > 0)
        scores.append(mean_of_classes(areas))
    return np.concatenate(scores)


def kappa_terms(labels: np.ndarray, decided: Decided) -> np.ndarray:
    """Moments of each sample's label and predicted class, float64 [n, 6]."""
    a, b = labels.astype(float), decided.predicted.astype(float)
    return np.stack([np.ones(len(a)), (a - b) ** 2, a**2, b**2, a, b], axis=1)


def kappa_of(sums: np.ndarray) -> np.ndarray:
    """Quadratic weighted kappa [draw] of sums of `kappa_terms` [draw, 6] (Cohen 1968).

    1 - (mean squared distance) / (that of labels and predictions paired at random), for which
    moments suffice. NaN if all are of one class.
    """
    n, observed, square_a, square_b, a, b = sums.T
    with np.errstate(invalid="ignore"):
        return np.asarray(1 - observed / (square_a + square_b - 2 * a * b / n))


def reciprocal_rank(labels: np.ndarray, decided: Decided) -> np.ndarray:
    """1 / (rank of the label among the classes), [n]; 0 beyond the best five.

    Of equally likely classes the first ranks first. With one true label for each sample, this is
    its average precision.
    """
    own = decided.prob[np.arange(len(labels)), labels][:, None]
    before = np.arange(decided.prob.shape[1]) < labels[:, None]
    rank = 1 + ((decided.prob > own) | ((decided.prob == own) & before)).sum(axis=1)
    return np.where(rank <= 5, 1 / rank, 0)
