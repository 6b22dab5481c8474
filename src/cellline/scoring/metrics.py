"""The competition's metric, the usual others, and how sure one can be of each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BOOTSTRAP_DRAWS = 2000
# Draws of groups worked on at once: with 8,000 groups their 64-bit counts take 6 MB.
BLOCK = 100
BLOCKS = [slice(start, start + BLOCK) for start in range(0, BOOTSTRAP_DRAWS, BLOCK)]


@dataclass(frozen=True)
class Estimate:
    """A figure and what a bootstrap says of it."""

    value: float
    low: float
    """Lower end of the 95 % interval."""
    high: float
    error: float
    """Standard error."""

    @property
    def interval(self) -> tuple[float, float]:
        """Both ends of the 95 % interval."""
        return self.low, self.high


def estimate(value: float | np.ndarray, draws: np.ndarray) -> Estimate:
    """A scalar with the percentile interval and standard error of its bootstrap draws [draw].

    Draws that are not a number, such as the recall of a class that was not drawn, don't count.
    """
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(value), float(low), float(high), float(np.std(draws)))


class Bootstrap:
    """Samples drawn with replacement, by whole groups.

    Groups, not samples, are drawn: copies of one picture are one observation (Field and Welsh
    2007, the cluster bootstrap). All that is asked of one object is of the same draws, so that
    differences are paired.
    """

    def __init__(self, groups: np.ndarray, seed: int = 0) -> None:
        """`groups` [n], numbers or text: samples of one are drawn together."""
        _, self.group = np.unique(groups, return_inverse=True)
        self.n_groups = int(self.group.max()) + 1
        generator = np.random.default_rng(seed)
        chances = np.full(self.n_groups, 1 / self.n_groups)
        # How often each group is drawn, uint8 [draw, group]: that one is drawn 256 times will not
        # happen, its chance is below 1 / 256!.
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


def tally(labels: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Each sample's own confusion matrix, bool [n, class, predicted class], one cell true.

    Its sum is the confusion matrix of all, and `Bootstrap.sums` gives that of each draw.
    """
    cells = np.zeros((len(labels), n_classes, n_classes), dtype=bool)
    cells[np.arange(len(labels)), labels, predicted] = True
    return cells


def recalls(confusion: np.ndarray) -> np.ndarray:
    """Recall by class [..., class] of confusions [..., class, predicted]; NaN for one not there."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        recall: np.ndarray = right / confusion.sum(axis=-1)
    return recall


def bac_of(confusion: np.ndarray) -> np.ndarray:
    """Balanced accuracy [...] of confusions [..., class, predicted], of the classes there are."""
    recall = recalls(confusion)
    there = np.isfinite(recall)
    # NaN where no class is there, which nanmean would warn of.
    with np.errstate(invalid="ignore"):
        bac: np.ndarray = np.where(there, recall, 0).sum(axis=-1) / there.sum(axis=-1)
    return bac


def accuracy_of(confusion: np.ndarray) -> np.ndarray:
    """Accuracy [...] of confusions [..., class, predicted]."""
    right = np.trace(confusion, axis1=-2, axis2=-1)
    accuracy: np.ndarray = right / confusion.sum(axis=(-2, -1))
    return accuracy


def macro_f1_of(confusion: np.ndarray) -> np.ndarray:
    """Mean F1 score [...] of the classes that occur or are predicted, as in scikit-learn."""
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        f1 = 2 * right / (confusion.sum(axis=-1) + confusion.sum(axis=-2))
    mean: np.ndarray = np.nanmean(f1, axis=-1)
    return mean


def surprise(labels: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """-log of the probability [n, class] that was given to each label [n]; its mean is log loss."""
    given = prob[np.arange(len(labels)), labels]
    # The smallest positive float32, where a softmax has come out as zero.
    loss: np.ndarray = -np.log(np.maximum(given, np.finfo(np.float32).tiny), dtype=np.float64)
    return loss


@dataclass(frozen=True)
class Scores:
    """Every score of one set of predictions."""

    bac: Estimate
    accuracy: Estimate
    macro_f1: Estimate
    log_loss: Estimate
    recalls: tuple[Estimate, ...]
    """By class."""


def score(labels: np.ndarray, prob: np.ndarray, bootstrap: Bootstrap) -> Scores:
    """Scores of probabilities [n, class] for labels [n], every class among them."""
    cells = tally(labels, prob.argmax(1), prob.shape[1])
    whole, draws = cells.sum(axis=0), bootstrap.sums(cells)
    # The number of samples differs between draws of groups.
    losses = np.stack([surprise(labels, prob), np.ones(len(labels))], axis=1)
    return Scores(
        estimate(bac_of(whole), bac_of(draws)),
        estimate(accuracy_of(whole), accuracy_of(draws)),
        estimate(macro_f1_of(whole), macro_f1_of(draws)),
        bootstrap.estimate(lambda sums: sums[:, 0] / sums[:, 1], losses),
        tuple(
            estimate(value, of_draws)
            for value, of_draws in zip(recalls(whole), recalls(draws).T, strict=True)
        ),
    )


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean recall of the classes that occur in `labels`; both int [n].

    scikit-learn's balanced_accuracy_score, which a test compares it with; kept here because the
    training loop needs it each epoch and scikit-learn takes a second to import.
    """
    classes = np.unique(labels)
    return float(np.mean([np.mean(predicted[labels == name] == name) for name in classes]))


def percent(score: float, interval: Sequence[float] | None = None) -> str:
    """Such as '84.2 % [82.1, 86.0]'."""
    text = f"{100 * score:.1f} %"
    if interval is not None:
        text += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return text


def with_interval(score: Estimate) -> str:
    """Such as '84.2 % [82.1, 86.0]'."""
    return percent(score.value, score.interval)


def points(difference: Estimate) -> str:
    """A difference of scores in points of percent, such as '+1.8 [0.4, 3.2]'.

    With as many digits as it takes to see on which side of 0 the interval ends.
    """
    value, low, high = (100 * x for x in (difference.value, *difference.interval))
    digits = 2 if any(0 < abs(end) < 0.05 for end in (low, high)) else 1
    return f"{value:+.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
