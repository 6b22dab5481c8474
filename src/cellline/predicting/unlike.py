"""Samples unlike those of training, such as those of a class that the networks never saw.

A network sees such a sample as a poor one of each class: its probability of each is among the
lowest that held-out samples of the class got. So its p-values for the classes, see `rank`, are all
low. The largest of them is ranked in turn among those of the samples that the network held out.
"""

from collections.abc import Sequence

import numpy as np

from cellline.predicting.sets import Held, rank

# Correlation of networks' ranks, as normal scores, with which 5 % of new samples of known classes
# are marked (docs/predicting.md).
CORRELATION = 0.5
# A sample that is more like its class than all others in one network may still be odd in another.
HIGHEST = 0.999


def combine_ranks(ranks: Sequence[np.ndarray]) -> np.ndarray:
    """Likeness, float64 [n], from the ranks [n] by each network: uniform for samples as training's.

    The mean of normal scores, scaled for correlated ones (Stouffer et al. 1949; Hartung 1999).
    """
    # Imported here because it takes a quarter of a second.
    from scipy.special import ndtr, ndtri

    mean = ndtri(np.minimum(ranks, HIGHEST)).mean(axis=0)
    likeness: np.ndarray = ndtr(mean / np.sqrt(CORRELATION + (1 - CORRELATION) / len(ranks)))
    return likeness


def rank_likeness(prob: np.ndarray, held: Held) -> np.ndarray:
    """Rank, float64 [n], of samples with probabilities [n, class] by the network of a fold.

    The share of its held-out groups that are as unlike their own class and all others.
    """
    return rank(find_largest(held.prob, held), held.group, find_largest(prob, held))


def find_largest(prob: np.ndarray, held: Held) -> np.ndarray:
    """Largest p-value, float64 [n], of the classes of samples with probabilities [n, class]."""
    ranks = [rank(*held.of_class(label), prob[:, label]) for label in np.unique(held.labels)]
    largest: np.ndarray = np.max(ranks, axis=0)
    return largest
