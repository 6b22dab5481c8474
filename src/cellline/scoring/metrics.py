"""The competition's metric and other scores, each with its interval.

Recalls and balanced accuracy have a formula, which covers the truth where a bootstrap does not;
`python -m benchmarks.coverage` shows how often. Other scores have a bootstrap over groups.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

# A class's own correlation within groups weighs as much as that of all classes where this many
# effective groups show it. From its own alone, intervals of ten effective groups hold the truth in
# 66 to 93 % of data sets instead of 94 to 97 %; of 10, 20 and 40, this value is best.
PRIOR_GROUPS = 40

BOOTSTRAP_DRAWS = 2000
# Draws worked on at once: with 8,000 groups their 64-bit counts take 6 MB.
BLOCK = 100
BLOCKS = [slice(start, start + BLOCK) for start in range(0, BOOTSTRAP_DRAWS, BLOCK)]


@dataclass(frozen=True)
class Estimate:
    """A value with its interval."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    error: float
    """Standard error."""

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends."""
        return self.low, self.high


@dataclass(frozen=True)
class Recall(Estimate):
    """The recall of a class."""

    effective_groups: float
    """Number of groups of equal size that would tell as much, if each is right or wrong as a whole.

    Kish 1965: 1 / (sum of squared shares of the groups in the class).
    """


def estimate(value: float | np.ndarray, draws: np.ndarray) -> Estimate:
    """A scalar with the percentile interval and standard error of its bootstrap draws [draw].

    NaN draws, such as the recall of a class that was not drawn, are omitted.
    """
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), float(np.std(draws)))


class Bootstrap:
    """Samples drawn with replacement, by whole groups.

    Copies of one picture are one observation, so groups are drawn, not samples (the cluster
    bootstrap, Field and Welsh 2007). One object gives every statistic the same draws, which makes
    differences paired.
    """

    def __init__(self, groups: np.ndarray, seed: int = 0) -> None:
        """Draw from `groups` [n], numbers or text: samples with equal entries stay together."""
        _, self.group = np.unique(groups, return_inverse=True)
        self.n_groups = int(self.group.max()) + 1
        generator = np.random.default_rng(seed)
        chances = np.full(self.n_groups, 1 / self.n_groups)
        # Draws of each group, uint8 [draw, group]: the chance of 256 is negligible.
        self.counts = np.empty((BOOTSTRAP_DRAWS, self.n_groups), np.uint8)
        for block in BLOCKS:
            self.counts[block] = generator.multinomial(self.n_groups, chances, size=BLOCK)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sums of values [n, ...] over each draw's samples, float64 [draw, ...]."""
        flat = values.reshape(len(values), -1)
        by_group = np.zeros((self.n_groups, flat.shape[1]))
        np.add.at(by_group, self.group, flat)
        sums = np.concatenate([self.counts[block].astype(float) @ by_group for block in BLOCKS])
        return sums.reshape(-1, *values.shape[1:])

    def estimate(
        self, statistic: Callable[[np.ndarray], np.ndarray], values: np.ndarray
    ) -> Estimate:
        """A statistic of sums of values [n, ...]; it maps sums [draw, ...] to figures [draw]."""
        value = statistic(values.sum(axis=0, keepdims=True))[0]
        return estimate(value, statistic(self.sums(values)))

    def mean(self, values: np.ndarray) -> Estimate:
        """The mean of values [n]."""
        # Draws of groups differ in their number of samples.
        counted = np.stack([values, np.ones(len(values))], axis=1)
        return self.estimate(lambda sums: sums[:, 0] / sums[:, 1], counted)


def tally(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Each sample's class, its class if it is right, and its predicted class, bool [n, 3, class].

    Their sums give recalls and F1 scores; `Bootstrap.sums` gives those of each draw. A confusion
    matrix of each sample would take memory that grows with the square of the number of classes.
    """
    is_class, is_predicted = (np.eye(n_classes, dtype=bool)[of] for of in (labels, predicted))
    return np.stack([is_class, is_class & is_predicted, is_predicted], axis=1)


def recalls(sums: np.ndarray) -> np.ndarray:
    """Recall [..., class] of sums of `tally` [..., 3, class]; NaN for an absent class."""
    with np.errstate(invalid="ignore"):
        recall: np.ndarray = sums[..., 1, :] / sums[..., 0, :]
    return recall


def bac_of(sums: np.ndarray) -> np.ndarray:
    """Balanced accuracy [...] of sums of `tally` [..., 3, class]; absent classes are omitted."""
    return bac_of_recalls(recalls(sums))


def bac_of_recalls(recall: np.ndarray) -> np.ndarray:
    """Balanced accuracy [...] of recalls [..., class]; NaN ones are omitted."""
    there = np.isfinite(recall)
    # NaN if every class is absent, as with nanmean, but without its warning.
    with np.errstate(invalid="ignore"):
        bac: np.ndarray = np.where(there, recall, 0).sum(axis=-1) / there.sum(axis=-1)
    return bac


def score_recalls(
    labels: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    weights: np.ndarray | None = None,
) -> tuple[Recall, ...]:
    """Recall of each class, with the 95 % interval of Wilson's score for grouped samples.

    `labels`, `predicted`, `groups` (numbers or text) and `weights` (1 by default) are [n]. In
    Wilson's formula, n is the effective number of samples, recall (1 - recall) / (variance of the
    recall), and Student's t with n - 1 degrees of freedom replaces the normal quantile. The
    variance follows from the correlation within groups, which is estimated without bias from the
    squared residuals of groups and shrunk to that of all classes, because few groups say little
    about their own. A class without weight has NaN.
    """
    # Imported here because it takes a quarter of a second, and training doesn't need it.
    from scipy.special import stdtrit

    weights = np.ones(len(labels)) if weights is None else weights.astype(float)
    total = np.bincount(labels, weights, n_classes)
    there = total > 0
    share = weights / np.where(there, total, 1)[labels]
    correct = np.bincount(labels, weights * (predicted == labels), n_classes)
    value = np.divide(correct, total, out=np.full(n_classes, np.nan), where=there)
    # The part of a group in a class is one observation.
    _, number = np.unique(groups, return_inverse=True)
    cell, of_cell = np.unique(labels * (number.max() + 1) + number, return_inverse=True)
    class_of = cell // (number.max() + 1)
    size, squares, right = (
        np.bincount(of_cell, values) for values in (share, share**2, share * (predicted == labels))
    )

    def by_class(values: np.ndarray) -> np.ndarray:
        return np.bincount(class_of, values, n_classes)

    def residual(variance: np.ndarray) -> np.ndarray:
        """Expected sum of squared residuals, for variances of the groups' sums."""
        sums: np.ndarray = by_class(variance * (1 - 2 * size)) + whole * by_class(variance)
        return sums

    # Variances, in units of recall * (1 - recall), of samples that are independent and of groups
    # that are right or wrong as a whole, of the class and of its residuals.
    alone, whole = by_class(squares), by_class(size**2)
    of_alone, of_whole = residual(squares), residual(size**2)
    found = by_class((right - value[class_of] * size) ** 2)
    spread = value * (1 - value)
    above = found * (1 - alone) - spread * of_alone
    most = spread * (of_whole - of_alone) + found * (whole - alone)
    known = most > 1e-12  # False for NaN
    # If nothing tells, as where every sample is right, groups count as a whole.
    pooled = above[known].sum() / most[known].sum() if known.any() else 1.0
    own = np.divide(above, most, out=np.full(n_classes, pooled), where=known)
    effective = np.divide(1, whole, out=np.zeros(n_classes), where=there)
    trust = effective / (effective + PRIOR_GROUPS)
    correlation = np.clip(trust * own + (1 - trust) * pooled, 0, 1)
    variance = (1 - correlation) * alone + correlation * whole
    n = np.divide(1, variance, out=np.ones(n_classes), where=there)
    # One group has no degree of freedom: one makes its interval nearly all of 0 to 1.
    t2 = stdtrit(np.maximum(n - 1, 1), 0.975) ** 2
    centre = (value + t2 / (2 * n)) / (1 + t2 / n)
    half = np.sqrt(t2 * (spread / n + t2 / (4 * n**2))) / (1 + t2 / n)
    # Rounding may take an end beyond the value, if that is 0 or 1.
    low, high = np.minimum(centre - half, value), np.maximum(centre + half, value)
    columns = (value, low.clip(0, 1), high.clip(0, 1), np.sqrt(spread * variance), effective)
    return tuple(Recall(*row) for row in np.stack(columns, axis=1).tolist())


def mean_recall(recalls: Sequence[Estimate]) -> Estimate:
    """Balanced accuracy: the mean of the recalls, NaN ones omitted, with its 95 % interval.

    Half of its width is the root of the summed squares of the recalls' own halves, as in MOVER (Zou
    and Donner 2008), but equal on both sides: a mean of several recalls is nearly symmetric, and
    with MOVER's own sides the truth is above the interval up to 12 % of the time.
    """
    table = np.array([[of.value, of.low, of.high, of.error] for of in recalls])
    value, low, high, error = table[np.isfinite(table[:, 0])].T
    mean, count = value.mean(), len(value)
    half = np.sqrt(np.sum((high - low) ** 2)) / 2 / count
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    return Estimate(float(mean), float(low), float(high), float(np.sqrt(np.sum(error**2)) / count))


def score_bac(
    labels: np.ndarray,
    predicted: np.ndarray,
    groups: np.ndarray,
    n_classes: int,
    weights: np.ndarray | None = None,
) -> Estimate:
    """Balanced accuracy over the classes that occur; see `score_recalls`."""
    return mean_recall(score_recalls(labels, predicted, groups, n_classes, weights))


def macro_f1_of(sums: np.ndarray) -> np.ndarray:
    """Mean F1 score [...] of the classes that occur or are predicted, as in scikit-learn."""
    with np.errstate(invalid="ignore"):
        f1 = 2 * sums[..., 1, :] / (sums[..., 0, :] + sums[..., 2, :])
    mean: np.ndarray = np.nanmean(f1, axis=-1)
    return mean


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Mean recall of the classes that occur in `labels` [n]; numbers or text.

    Our own, because importing scikit-learn takes a second and every training needs this.
    """
    _, index = np.unique(labels, return_inverse=True)
    return float(np.mean(np.bincount(index, predicted == labels) / np.bincount(index)))


def floored_log(prob: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, float64; finite where a softmax underflows to zero."""
    # The floor is the smallest normal float32.
    log_p: np.ndarray = np.log(np.maximum(prob, np.finfo(np.float32).tiny, dtype=np.float64))
    return log_p


def surprise(labels: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Minus the log of the probability [n, class] given to each label [n]; its mean is log loss."""
    return -floored_log(prob[np.arange(len(labels)), labels])


@dataclass(frozen=True)
class Scores:
    """Every score of one set of predictions."""

    bac: Estimate
    accuracy: Estimate
    macro_f1: Estimate
    log_loss: Estimate
    recalls: tuple[Recall, ...]
    """One for each class."""


def score(labels: np.ndarray, prob: np.ndarray, bootstrap: Bootstrap) -> Scores:
    """Scores of probabilities [n, class] for labels [n], every class among them."""
    predicted = prob.argmax(1)
    cells = tally(labels, predicted, prob.shape[1])
    whole, draws = cells.sum(axis=0), bootstrap.sums(cells)

    by_class = score_recalls(labels, predicted, bootstrap.group, prob.shape[1])
    return Scores(
        mean_recall(by_class),
        bootstrap.mean(predicted == labels),
        estimate(macro_f1_of(whole), macro_f1_of(draws)),
        bootstrap.mean(surprise(labels, prob)),
        by_class,
    )


def percent(score: float, interval: Sequence[float] | None = None) -> str:
    """Format a share, such as '84.2 % [82.1, 86.0]'."""
    ends = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * score:.1f} %{ends}"


def with_interval(score: Estimate) -> str:
    """Format a score, such as '84.2 % [82.1, 86.0]'."""
    return percent(score.value, score.interval)


def points(difference: Estimate) -> str:
    """Format a difference of scores in percentage points, such as '+1.8 [0.4, 3.2]'.

    A second digit appears where an end of the interval would otherwise round to 0.
    """
    value, low, high = (100 * x for x in (difference.value, *difference.interval))
    digits = 2 if any(0 < abs(end) < 0.05 for end in (low, high)) else 1
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
