"""The class mix of the test set, from what the network predicts there and how it errs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cellline.scoring.metrics import BLOCKS, Bootstrap, percent

# Of the bootstrap's: enough for a 95 % limit, and each takes a least squares.
RESIDUAL_DRAWS = 500


@dataclass(frozen=True)
class ClassMix:
    """Shares of the classes, float64 [class] each: in training, as predicted, and as they may be.

    "Explained" is what out-of-fold confusion makes of a test set with the training mix.
    """

    training: np.ndarray
    """Share of the labels that were predicted out of fold."""
    predicted: np.ndarray
    """Share of the test predictions, the mean over folds."""
    low: np.ndarray
    """Lower end of the predicted share that is explained, 95 % for all classes together."""
    high: np.ndarray
    mix: np.ndarray
    """The test set's, estimated."""
    mix_low: np.ndarray
    """Lower end of the 95 % interval of the estimate, class by class."""
    mix_high: np.ndarray
    residual: float
    """Share of the test predictions that no mix explains."""
    residual_limit: float
    """What chance leaves unexplained at most, in 95 % of cases."""

    def describe(self, classes: Sequence[str]) -> list[str]:
        """A table by class, a line each, and warnings."""
        width = max(map(len, classes))
        lines = [" " * width + "  training  predicted       explained  estimated mix"]
        for index, name in enumerate(classes):
            interval = (self.mix_low[index], self.mix_high[index])
            lines.append(
                f"{name:<{width}}  {percent(self.training[index]):>8}  "
                f"{percent(self.predicted[index]):>9}  {self._explained(index):>14}  "
                f"{percent(self.mix[index], interval)}"
            )
        lines.append(
            "(explained: by the OOF confusion, if the test set had the training mix; samples with "
            "relatives in training are predicted better than the OOF confusion says)"
        )
        outside = (self.predicted < self.low) | (self.predicted > self.high)
        odd = [
            f"{classes[index]} predicted {percent(self.predicted[index])}, "
            f"{self._explained(index)} explained"
            for index in np.flatnonzero(outside).tolist()
        ]
        if odd:
            lines.append(
                "warning: the test set's class mix differs from training's, or its images do: "
                f"{'; '.join(odd)}. Balanced accuracy does not depend on the mix: leave the "
                "predictions as they are, but look at test images that are predicted so"
            )
        if self.residual > self.residual_limit:
            lines.append(
                f"warning: no class mix explains the predictions ({percent(self.residual)} of them "
                f"remain, by chance at most {percent(self.residual_limit)}): the images themselves "
                "differ from training's, and the OOF score does not hold for them; compare both"
            )
        return lines

    def _explained(self, index: int) -> str:
        return f"{100 * self.low[index]:.1f} to {percent(self.high[index])}"


def estimate_mix(
    labels: np.ndarray,
    oof_predicted: np.ndarray,
    groups: np.ndarray,
    test_predicted: Sequence[np.ndarray],
    n_classes: int,
) -> ClassMix:
    """The class mix behind test predictions, one int array [m] a fold, of the same samples.

    `labels` (every class among them) and `oof_predicted`, int [n], and `groups` [n] are of the
    held-out samples of the same folds: a fold's confusion holds for its own model, not for a blend.

    Black-box shift estimation (Lipton et al. 2018): with C[y, p] the rate at which class y is
    predicted as p, the predicted shares are C^T mix. Solved on the simplex by least squares. The
    EM of Saerens et al. (2002) needs calibrated probabilities, which a network's are not, and over
    predicted classes it comes to the same estimate.

    The uncertain part is C. A class may be thousands of samples but a hundred groups of pictures,
    and the test set has its own, so every interval is over confusions that a test set of m samples
    may have, drawn by whole groups. What is explained holds the mix to the training mix, from which
    labels are drawn one by one: a test set that was itself drawn by whole groups may leave the
    range, and its mix does differ then.
    """
    _, group = np.unique(groups, return_inverse=True)
    cells = np.zeros((group.max() + 1, n_classes, n_classes))
    np.add.at(cells, (group, labels, oof_predicted), 1)
    n_test = len(test_predicted[0])
    counts = np.stack([np.bincount(fold, minlength=n_classes) for fold in test_predicted])
    predicted: np.ndarray = counts.mean(axis=0) / n_test
    training = np.bincount(labels, minlength=n_classes) / len(labels)
    confusion = _rates(cells.sum(axis=0))
    generator = np.random.default_rng(1)
    possible = _draw_confusions(cells, n_test, generator)

    # Bonferroni's correction: at 5 % each, one of nine classes would often be outside by chance.
    tails = [0.025 / n_classes, 1 - 0.025 / n_classes]
    explained = generator.multinomial(n_test, training @ possible) / n_test
    low, high = np.quantile(explained, tails, axis=0)

    mix = fit_mix(predicted, confusion)
    mixes = np.stack([fit_mix(predicted, own) for own in possible])
    mix_low, mix_high = np.quantile(mixes, [0.025, 0.975], axis=0)
    residuals = [_residual(shares, confusion) for shares in mix @ possible[:RESIDUAL_DRAWS]]
    return ClassMix(
        training,
        predicted,
        low,
        high,
        mix,
        mix_low,
        mix_high,
        _residual(predicted, confusion),
        float(np.quantile(residuals, 0.95)),
    )


def fit_mix(predicted: np.ndarray, confusion: np.ndarray) -> np.ndarray:
    """The mix [class] that comes closest to predicted shares [class], by least squares.

    `confusion` [class, predicted] has rows that sum to 1.
    """
    # Imported where it is used: it takes half a second, which most verbs need not spend.
    from scipy.optimize import nnls

    # One more equation, of great weight: the shares sum to 1.
    equations = np.vstack([confusion.T, np.full(len(predicted), 1e3)])
    solution: np.ndarray = nnls(equations, np.append(predicted, 1e3))[0]
    mix: np.ndarray = solution / solution.sum()
    return mix


def _residual(predicted: np.ndarray, confusion: np.ndarray) -> float:
    """The share of predictions that the closest mix leaves unexplained (total variation)."""
    nearest = fit_mix(predicted, confusion) @ confusion
    # Rounded: where a mix explains everything, what is left is of arithmetic.
    return round(float(np.abs(predicted - nearest).sum()) / 2, 6)


def _rates(confusion: np.ndarray) -> np.ndarray:
    """Counts [..., class, predicted] as shares of each class; NaN for a class without any."""
    with np.errstate(invalid="ignore"):
        rates: np.ndarray = confusion / confusion.sum(axis=-1, keepdims=True)
    return rates


def _draw_confusions(cells: np.ndarray, n_test: int, generator: np.random.Generator) -> np.ndarray:
    """Rates [draw, class, predicted] that a test set may have; `cells` [group, class, predicted].

    Two stages: what is known of the classes' pictures is one draw of groups from all there are,
    and the test set is another one, of about `n_test` samples, from the same.
    """
    n_groups = len(cells)
    known = Bootstrap(np.arange(n_groups)).counts
    in_test = max(1, round(n_groups * n_test / cells.sum()))
    drawn = (generator.multinomial(in_test, known[block] / n_groups) for block in BLOCKS)
    rates = _rates(np.concatenate([np.tensordot(counts, cells, axes=1) for counts in drawn]))
    # A draw without a class says nothing of how the class is confused.
    return np.where(np.isnan(rates), _rates(cells.sum(axis=0)), rates)
