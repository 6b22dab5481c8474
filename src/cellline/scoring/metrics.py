"""The metrics of competitions: score, interval, and the decision that suits each.

`METRICS[name]` has all that another room needs. Balanced accuracy has its interval by a formula
(recalls.py), the others by a bootstrap over groups. The formulas of the scores are in measures.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

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
from cellline.scoring.measures import (
    Measure,
    by_mean,
    by_sums,
    kappa_of,
    kappa_terms,
    macro_f1_of,
    measure_auc,
    reciprocal_rank,
    tally_decided,
)
from cellline.scoring.recalls import (
    bac_of,
    balanced_accuracy,
    mean_of_classes,
    mean_recall,
    score_recalls,
)
from cellline.scoring.words import percent, points, with_interval

# A metric's decision, fitted to held-out probabilities [n, class] and labels [n].
Fit = Callable[[np.ndarray, np.ndarray], Decision]


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


def fit_power(prob: np.ndarray, labels: np.ndarray) -> Correction:
    """The correction, and the power of the prior that has the best macro F1 on these rows."""
    fitted = fit_correction(prob, labels, 0)
    options = [replace(fitted, power=power) for power in POWERS]
    scores = [METRICS["macro_f1"].score(labels, option.apply(prob)) for option in options]
    return options[int(np.argmax(scores))]


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
