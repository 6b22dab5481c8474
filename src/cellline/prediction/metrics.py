"""The competition's metric, and how sure one can be of it."""

from collections.abc import Sequence

import numpy as np

BOOTSTRAP_DRAWS = 2000
# Draws made at once: with 8,000 groups and nine classes the weights take 6 MB.
BLOCK = 100


def balanced_accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean recall of the classes that occur in `labels`; both int [n].

    scikit-learn's balanced_accuracy_score, which a test compares it with; kept here because the
    training loop needs it each epoch and scikit-learn takes a second to import.
    """
    classes = np.unique(labels)
    return float(np.mean([np.mean(predicted[labels == name] == name) for name in classes]))


def bac_interval(
    labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """The 95 % interval of the balanced accuracy from a bootstrap over groups; all int [n].

    Groups, not samples, are drawn: copies of one picture are one observation (Field and Welsh
    2007, the cluster bootstrap). A draw that misses a class leaves that class out of its mean.
    """
    classes, label = np.unique(labels, return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    n_groups = int(group.max()) + 1
    seen = np.zeros((n_groups, len(classes)))
    np.add.at(seen, (group, label), 1)
    right = np.zeros_like(seen)
    np.add.at(right, (group, label), labels == predicted)
    generator = np.random.default_rng(seed)
    scores = []
    for _ in range(BOOTSTRAP_DRAWS // BLOCK):
        weights = generator.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=BLOCK)
        with np.errstate(invalid="ignore"):
            scores.append(np.nanmean((weights @ right) / (weights @ seen), axis=1))
    low, high = np.quantile(np.concatenate(scores), [0.025, 0.975])
    return float(low), float(high)


def percent(score: float, interval: Sequence[float] | None = None) -> str:
    """Such as '84.2 % [82.1, 86.0]'."""
    text = f"{100 * score:.1f} %"
    if interval is not None:
        text += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return text
