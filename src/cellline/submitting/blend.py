"""Blending: the weighted mean of predictions, and the choice of the weights."""

from collections.abc import Sequence

import numpy as np

from cellline.scoring.decisions import likeliest, surprise
from cellline.scoring.metrics import Metric

# Weights finer than 1/20 can't be told apart with a few thousand samples.
ROUNDS = 20


def blend(
    probabilities: Sequence[np.ndarray] | np.ndarray, weights: Sequence[float] | None = None
) -> np.ndarray:
    """Mean of several predictions [sample, class] of the same samples, float32.

    `weights`, one per prediction, need not sum to 1; by default they are equal.
    """
    mean: np.ndarray = np.average(np.asarray(probabilities, dtype=np.float64), 0, weights)
    return mean.astype(np.float32)


def select_runs(prob: np.ndarray, labels: np.ndarray, metric: Metric) -> tuple[float, ...]:
    """Weights of the best blend found, from out-of-fold prob [run, n, class] and labels [n].

    Greedy forward selection with replacement (Caruana et al. 2004): start with the best run, and in
    each round add the run, chosen before or not, that makes the best mean. The weights are the
    shares in the best round: the one of the best score by `metric`, then lowest log loss.
    """
    total = np.zeros(prob.shape[1:])
    chosen: list[int] = []
    rounds: list[tuple[float, float]] = []
    for size in range(1, ROUNDS + 1):
        scores = [rate((total + of_run) / size, labels, metric) for of_run in prob]
        chosen.append(max(range(len(prob)), key=scores.__getitem__))
        rounds.append(scores[chosen[-1]])
        total += prob[chosen[-1]]
    # The first of several: the blend of the fewest runs.
    best = chosen[: rounds.index(max(rounds)) + 1]
    counts = np.bincount(best, minlength=len(prob))
    return tuple((counts / len(best)).tolist())


def rate(prob: np.ndarray, labels: np.ndarray, metric: Metric) -> tuple[float, float]:
    """Utility and, to break ties, log likelihood; the better of two blends is larger."""
    utility = metric.utility(metric.score(labels, likeliest(prob)))
    return utility, -float(surprise(labels, prob).mean())
