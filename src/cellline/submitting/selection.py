"""Ensemble selection: which runs to blend, and how much of each."""

import numpy as np

from cellline.scoring.metrics import surprise

# Twentieths are as fine as a few thousand samples can tell apart.
ROUNDS = 20


def select_runs(prob: np.ndarray, labels: np.ndarray) -> tuple[float, ...]:
    """Weights of the runs in the best blend found, of out-of-fold prob [run, n, class], labels [n].

    Greedy forward selection with replacement (Caruana et al. 2004): begin with the best run, and
    in each round add the one, chosen before or not, that makes the best mean; the best round's
    shares are the weights. Best is the highest balanced accuracy, then the lowest log loss.
    """
    total = np.zeros(prob.shape[1:])
    chosen: list[int] = []
    rounds: list[tuple[float, float]] = []
    for size in range(1, ROUNDS + 1):
        scores = [rate((total + of_run) / size, labels) for of_run in prob]
        chosen.append(max(range(len(prob)), key=scores.__getitem__))
        rounds.append(scores[chosen[-1]])
        total += prob[chosen[-1]]
    # The first of equals: the blend of the fewest.
    best = chosen[: rounds.index(max(rounds)) + 1]
    counts = np.bincount(best, minlength=len(prob))
    return tuple((counts / len(best)).tolist())


def rate(prob: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy and, to break ties, log likelihood: of two blends the better is larger."""
    counts = np.bincount(labels)
    right = np.bincount(labels[prob.argmax(axis=1) == labels], minlength=len(counts))
    occurs = counts > 0
    return float(np.mean(right[occurs] / counts[occurs])), -float(surprise(labels, prob).mean())
