"""Samples that a network finds hard: its most confident errors, and the classes it confuses."""

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
    """Their share of the class: recall lost, which balanced accuracy averages."""
    rows: np.ndarray
    """int64: the most confident of them in each group, most confident first."""


def most_confident_errors(
    labels: np.ndarray, prob: np.ndarray, groups: np.ndarray, k: int
) -> np.ndarray:
    """Up to `k` rows whose likeliest class isn't the label, most confident first.

    Labels int [n], probabilities [n, class]. A group ([n]) shows one picture, so it is represented
    by its most confident row.
    """
    errors = np.flatnonzero(prob.argmax(axis=1) != labels)
    return pick_by_confidence(errors, prob, groups)[:k]


def hardest_pairs(labels: np.ndarray, prob: np.ndarray, groups: np.ndarray, k: int) -> list[Pair]:
    """Up to `k` pairs of classes that cost the most recall, costliest first.

    Labels int [n], probabilities [n, class], groups [n].
    """
    predicted = prob.argmax(axis=1)
    pairs = []
    errors = np.flatnonzero(predicted != labels)
    for label, taken_for in np.unique(np.stack([labels, predicted])[:, errors], axis=1).T.tolist():
        rows = np.flatnonzero((labels == label) & (predicted == taken_for))
        share = len(rows) / int(np.sum(labels == label))
        examples = pick_by_confidence(rows, prob, groups)
        pairs.append(Pair(label, taken_for, len(rows), share, examples))
    return sorted(pairs, key=lambda pair: -pair.share)[:k]


def pick_by_confidence(rows: np.ndarray, prob: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The most confident of `rows` in each group, most confident first."""
    ordered = rows[np.argsort(-prob[rows].max(axis=1), kind="stable")]
    _, first = np.unique(groups[ordered], return_index=True)
    picked: np.ndarray = ordered[np.sort(first)]
    return picked
