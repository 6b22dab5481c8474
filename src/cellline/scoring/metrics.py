"""The metrics of competitions: score, interval, and the decision that suits each.

`METRICS[name]` has all that another room needs. Balanced accuracy has its interval by a formula
(recalls.py), the others by a bootstrap over groups. Classes must be in their order for quadratic
kappa, which takes a class's index for its rank.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from cellline.config import MetricName
from cellline.scoring.bootstrap import Bootstrap, Draws, Estimate, Whole, estimate
from cellline.scoring.decisions import (
    POWERS,
    Correction,
    Decided,
    Decision,
    fit_correction,
    fit_thresholds,
    likeliest,
    surprise,
)
from cellline.scoring.recalls import (
    bac_of,
    balanced_accuracy,
    mean_of_classes,
    mean_recall,
    score_recalls,
    tally,
)
from cellline.scoring.words import percent, points, with_interval

# Scores [draw] of samples with labels [n], decisions and weights [n], or None for equal ones.
Measure = Callable[[np.ndarray, Decided, np.ndarray | None, Draws], np.ndarray]
# A metric's decision, fitted to held-out probabilities [n, class] and labels [n].
Fit = Callable[[np.ndarray, np.ndarray], Decision]
# The ends of a run of ties, for searchsorted.
SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")


@dataclass(frozen=True)
class Metric:
    """A metric. Classes that samples or a draw lack are omitted; weights [n] are 1 by default."""

    name: MetricName
    title: str
    """As printed within a sentence."""
    measure: Measure
    """Scores [draw]; NaN where a draw has none, such as the ROC AUC of a single class."""
    fit: Fit
    """The decision that suits the metric."""
    higher_is_better: bool = True
    is_share: bool = True
    """True if printed in percent, and differences in points."""
    balanced: bool = False
    """True if training should count all classes equally, however frequent they are."""
    decision: str = "temperature, prior and class biases"
    """Name of what `fit` fits."""
    fewest_classes: int = 2
    """Number of classes from which it can change the score."""

    def score(
        self, labels: np.ndarray, decided: Decided, weights: np.ndarray | None = None
    ) -> float:
        """Score decisions for `labels` [n]."""
        return float(self.measure(labels, decided, weights, Whole(len(labels)))[0])

    def estimate(
        self,
        labels: np.ndarray,
        decided: Decided,
        bootstrap: Bootstrap,
        weights: np.ndarray | None = None,
    ) -> Estimate:
        """The score, with its 95 % interval over new groups."""
        value = self.score(labels, decided, weights)
        return estimate(value, self.measure(labels, decided, weights, bootstrap))

    def gain(
        self,
        labels: np.ndarray,
        pair: tuple[Decided, Decided],
        bootstrap: Bootstrap,
        weights: np.ndarray | None = None,
    ) -> Estimate:
        """The gain of the second of two decisions over the first, paired by sample.

        Positive where the second is better, also if less is better.
        """

        def differ(draws: Draws) -> np.ndarray:
            old, new = (self.measure(labels, each, weights, draws) for each in pair)
            return self.sign * (new - old)

        return estimate(differ(Whole(len(labels)))[0], differ(bootstrap))

    def compare(
        self,
        labels: np.ndarray,
        sides: Sequence[Sequence[Decided]],
        recalls: Sequence[np.ndarray],
        bootstrap: Bootstrap,
    ) -> list[np.ndarray]:
        """Gain [draw] of the second side, as means over seeds, and utilities [seed] of both.

        `recalls` has the same for the recalls: [draw, class], and [seed, class] of each side.
        """

        def measure(draws: Draws) -> list[np.ndarray]:
            """Utilities [seed, draw] of each side."""
            return [
                self.sign * np.stack([self.measure(labels, one, None, draws) for one in side])
                for side in sides
            ]

        old, new = measure(bootstrap)
        gain = new.mean(axis=0) - old.mean(axis=0)
        return [gain, *(of[:, 0] for of in measure(Whole(len(labels))))]

    @property
    def sign(self) -> int:
        """-1 if less is better."""
        return 1 if self.higher_is_better else -1

    def utility(self, score: float) -> float:
        """A number that is larger where the score is better."""
        return self.sign * score

    def show(self, score: float | Estimate) -> str:
        """Format a score: '84.2 % [82.1, 86.0]', or '0.312 [0.290, 0.334]' if it is no share.

        NaN, such as the ROC AUC of a fold that lacks a class, is 'none'.
        """
        if is_missing(score):
            return "none"
        if isinstance(score, Estimate):
            if self.is_share:
                return with_interval(score)
            return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"
        return percent(score) if self.is_share else f"{score:.3f}"

    def show_gain(self, gain: float | Estimate) -> str:
        """Format a gain: '+1.8 [0.4, 3.2] points', or '+0.012 [0.004, 0.020]' if it is no share.

        NaN is 'none'.
        """
        if is_missing(gain):
            return "none"
        if isinstance(gain, Estimate):
            if self.is_share:
                return f"{points(gain)} points"
            return f"{gain.value:+.3f} [{gain.low:.3f}, {gain.high:.3f}]"
        return f"{100 * gain:+.1f} points" if self.is_share else f"{gain:+.3f}"

    def show_spread(self, spread: float) -> str:
        """Format a standard deviation of scores: '1.8 points', or '0.012' if it is no share."""
        return f"{100 * spread:.1f} points" if self.is_share else f"{spread:.3f}"

    def guess(self, labels: np.ndarray) -> float:
        """Score of the classes' frequencies among `labels` [n], predicted for every sample."""
        share = np.bincount(labels) / len(labels)
        return self.score(labels, likeliest(np.tile(share, (len(labels), 1))))


def is_missing(score: float | Estimate) -> bool:
    """True for NaN."""
    return bool(np.isnan(score.value if isinstance(score, Estimate) else score))


@dataclass(frozen=True)
class BalancedAccuracy(Metric):
    """Mean recall. Its interval is that of `score_recalls`."""

    def score(
        self, labels: np.ndarray, decided: Decided, weights: np.ndarray | None = None
    ) -> float:
        """Score decisions for `labels` [n]."""
        return balanced_accuracy(labels, decided.predicted, weights)

    def estimate(
        self,
        labels: np.ndarray,
        decided: Decided,
        bootstrap: Bootstrap,
        weights: np.ndarray | None = None,
    ) -> Estimate:
        """The score, with its 95 % interval over new groups."""
        n_classes = decided.prob.shape[1]
        return mean_recall(
            score_recalls(labels, decided.predicted, bootstrap.group, n_classes, weights)
        )

    def compare(
        self,
        labels: np.ndarray,
        sides: Sequence[Sequence[Decided]],
        recalls: Sequence[np.ndarray],
        bootstrap: Bootstrap,
    ) -> list[np.ndarray]:
        """Gain and utilities, see `Metric.compare`: the means of the recalls.

        Draws that gain in one class what they lose in another are then exactly 0.
        """
        return [mean_of_classes(of) for of in recalls]


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


def fit_power(prob: np.ndarray, labels: np.ndarray) -> Correction:
    """The correction, and the power of the prior that has the best macro F1 on these rows."""
    fitted = fit_correction(prob, labels, 0)
    options = [replace(fitted, power=power) for power in POWERS]
    scores = [METRICS["macro_f1"].score(labels, option.apply(prob)) for option in options]
    return options[int(np.argmax(scores))]


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


METRICS: Mapping[MetricName, Metric] = {
    metric.name: metric
    for metric in (
        BalancedAccuracy(
            name="balanced_accuracy",
            title="BAC",
            measure=by_sums(tally_decided, bac_of),
            fit=fit_correction,
            balanced=True,
        ),
        Metric(
            name="accuracy",
            title="accuracy",
            measure=by_mean(lambda labels, decided: decided.predicted == labels),
            fit=partial(fit_correction, power=0),
        ),
        Metric(
            name="macro_f1",
            title="macro F1",
            measure=by_sums(tally_decided, macro_f1_of),
            fit=fit_power,
            balanced=True,
            decision="temperature, class biases, and the prior divided out in part",
        ),
        Metric(
            name="log_loss",
            title="log loss",
            measure=by_mean(lambda labels, decided: surprise(labels, decided.prob)),
            fit=partial(fit_correction, power=0),
            higher_is_better=False,
            is_share=False,
            decision="calibration by temperature, prior and class biases",
        ),
        Metric(
            name="roc_auc",
            title="ROC AUC",
            measure=measure_auc,
            fit=partial(fit_correction, power=0),
            decision="calibration by temperature, prior and class biases",
            fewest_classes=3,  # with two it leaves the samples in their order
        ),
        # Its thresholds undo what frequent classes do to the expected class, weights would not.
        Metric(
            name="quadratic_kappa",
            title="quadratic kappa",
            measure=by_sums(kappa_terms, kappa_of),
            fit=fit_thresholds,
            is_share=False,
            decision="decision by ordinal thresholds",
        ),
        Metric(
            name="map5",
            title="MAP@5",
            measure=by_mean(reciprocal_rank),
            fit=partial(fit_correction, power=0),
            decision="calibration by temperature, prior and class biases",
        ),
    )
}
