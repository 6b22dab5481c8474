"""Prediction sets: the classes that a sample may well be of, so that few sets lack the true one.

Class-conditional conformal prediction: a class is in the set if its probability is not among the
lowest 5 % of those that out-of-fold samples of the class got (Vovk et al. 2005, "Algorithmic
learning in a random world"; Sadinle, Lei and Wasserman 2019, arXiv:1609.00451). Crops of one
picture are about one observation, so groups are counted: each has the same weight, and the promise
is for samples of new groups (Dunn, Wasserman and Ramdas 2023, arXiv:1809.07441).
"""

from dataclasses import dataclass

import numpy as np

from cellline.scoring.recalls import Recall, score_recalls
from cellline.submitting.pooling import count_members

# Share of the sets that may lack the true class.
ERROR = 0.05


@dataclass(frozen=True, eq=False)
class Held:
    """Held-out samples, which new ones are compared with."""

    prob: np.ndarray
    """float32 [n, class]"""
    labels: np.ndarray
    """int64 [n]"""
    group: np.ndarray
    """[n], see `Folds.group`"""

    def of_class(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """A class's own probability, and the group, of each of its samples."""
        own = self.labels == label
        return self.prob[own, label], self.group[own]


@dataclass(frozen=True)
class Sets:
    """Thresholds that put classes into a sample's set."""

    thresholds: tuple[float, ...]
    """Lowest probability of each class that puts it into a set; 0 if it is always in."""
    groups: tuple[int, ...]
    """Number of groups that each threshold was made from."""

    def hold(self, prob: np.ndarray) -> np.ndarray:
        """Classes in the set of each sample, bool [n, class], from probabilities [n, class].

        The likeliest class is always in.
        """
        held: np.ndarray = prob >= np.array(self.thresholds)
        held[np.arange(len(prob)), prob.argmax(axis=1)] = True
        return held


def rank(values: np.ndarray, group: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Conformal p-values, float64 [m]: how many held-out groups have values as low as new ones [m].

    A share of the groups [n] of `values` [n], each of which counts once, and of the new sample.
    """
    order = np.argsort(values)
    weight = 1 / count_members(group)[order]
    total = 1 + np.concatenate([[0.0], np.cumsum(weight)])
    lowest: np.ndarray = total[np.searchsorted(values[order], new, side="right")] / total[-1]
    return lowest


def fit_sets(prob: np.ndarray, labels: np.ndarray, group: np.ndarray) -> Sets:
    """Thresholds from held-out probabilities [n, class], labels [n] and groups [n].

    A class with fewer groups than 1 / ERROR - 1 is in every set: so few can't exclude it.
    """
    thresholds, counts = [], []
    for label in range(prob.shape[1]):
        of_class = labels == label
        n_groups = len(np.unique(group[of_class]))
        own = prob[of_class, label]
        order = np.argsort(own, kind="stable")
        weight = 1 / count_members(group[of_class])[order]
        # What is below each sample, and a new group that may be lower than all.
        below = 1 + np.cumsum(weight) - weight
        allowed = own[order][below <= ERROR * (n_groups + 1)]
        thresholds.append(float(allowed[-1]) if len(allowed) else 0.0)
        counts.append(n_groups)
    return Sets(tuple(thresholds), tuple(counts))


@dataclass(frozen=True)
class Judged:
    """Sets of held-out samples, made from the samples of the other folds."""

    coverage: tuple[Recall, ...]
    """For each class: share of its groups' samples whose set holds it."""
    size: float
    """Mean number of classes in a set, each group counted once."""


def judge_sets(prob: np.ndarray, labels: np.ndarray, group: np.ndarray, fold: np.ndarray) -> Judged:
    """Judge the sets of held-out probabilities [n, class] of samples in folds [n]."""
    held = np.zeros(prob.shape, dtype=bool)
    for number in np.unique(fold):
        own = fold == number
        held[own] = fit_sets(prob[~own], labels[~own], group[~own]).hold(prob[own])
    rows, n_classes = np.arange(len(labels)), prob.shape[1]
    weight = 1 / count_members(group)
    # A recall is a share of right samples: right is here a set with the true class.
    found = np.where(held[rows, labels], labels, (labels + 1) % n_classes)
    coverage = score_recalls(labels, found, group, n_classes, weight)
    return Judged(coverage, float(np.average(held.sum(axis=1), weights=weight)))
