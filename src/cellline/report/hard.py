"""What a network finds hard: its most confident errors, and the classes it confuses most."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Pair:
    """A class and another that it is taken for."""

    label: int
    taken_for: int
    count: int
    """Samples of the class that are taken for the other."""
    share: float
    """Their share of the class's samples: recall lost, which balanced accuracy averages."""
    rows: np.ndarray
    """int64: the most confident of them in each group, most confident first."""


def most_confident_errors(
    labels: np.ndarray, prob: np.ndarray, groups: np.ndarray, k: int
) -> np.ndarray:
    """Up to `k` rows, most confident first, of those whose likeliest class isn't the label.

    Labels int [n], probabilities [n, class]; of a group ([n]), which shows one picture, only
    the most confident row.
    """
    errors = np.flatnonzero(prob.argmax(axis=1) != labels)
    return one_of_each_group(by_confidence(errors, prob), groups)[:k]


def hardest_pairs(labels: np.ndarray, prob: np.ndarray, groups: np.ndarray, k: int) -> list[Pair]:
    """Up to `k` pairs of classes that cost the most recall, costliest first.

    Labels int [n], probabilities [n, class], groups [n].
    """
    predicted = prob.argmax(axis=1)
    pairs = []
    errors = np.flatnonzero(predicted != labels)
    for label, taken_for in np.unique(np.stack([labels, predicted])[:, errors], axis=1).T.tolist():
        rows = np.flatnonzero((labels == label) & (predicted == taken_for))
        examples = one_of_each_group(by_confidence(rows, prob), groups)
        share = len(rows) / int(np.sum(labels == label))
        pairs.append(Pair(label, taken_for, len(rows), share, examples))
    return sorted(pairs, key=lambda pair: -pair.share)[:k]


def by_confidence(rows: np.ndarray, prob: np.ndarray) -> np.ndarray:
    """Rows in descending order of their highest probability."""
    ordered: np.ndarray = rows[np.argsort(-prob[rows].max(axis=1), kind="stable")]
    return ordered


def one_of_each_group(rows: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The first row of each group, in their order."""
    _, first = np.unique(groups[rows], return_index=True)
    kept: np.ndarray = rows[np.sort(first)]
    return kept
