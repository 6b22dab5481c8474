"""Samples unlike those of training, such as those of a class that the networks never saw.

A network sees such a sample as a poor one of each class: its probability of each is among the
lowest that held-out samples of the class got. So its p-values for the classes, see `rank`, are all
low. The largest of them is ranked in turn among those of the samples that the network held out. A
sample's likeness is the mean of these ranks over the networks, as in cross-conformal prediction
(Vovk 2015, arXiv:1208.0806).
"""

import numpy as np

from cellline.predicting.sets import Held, rank

# Largest likeness of a sample that is marked. A mean of ranks is seldom low: of samples of known
# classes, 5 % have one of 0.12 or less (docs/predicting.md).
UNLIKE = 0.12


def rank_likeness(prob: np.ndarray, held: Held) -> np.ndarray:
    """Likeness, float64 [n], of samples with probabilities [n, class] by the network of a fold.

    The share of its held-out groups that are as unlike their own class and all others.
    """
    return rank(find_largest(held.prob, held), held.group, find_largest(prob, held))


def find_largest(prob: np.ndarray, held: Held) -> np.ndarray:
    """Largest p-value, float64 [n], of the classes of samples with probabilities [n, class]."""
    classes = range(prob.shape[1])
    ranks = [rank(*held.of_class(label), prob[:, label]) for label in classes]
    largest: np.ndarray = np.max(ranks, axis=0)
    return largest
