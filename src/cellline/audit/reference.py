"""A reference model that takes seconds, and how much naive folds would flatter it.

The model sees a few dozen statistics of each image and nothing else. Its trees grow to single
samples, so it remembers what it has seen, as a network does. Its score says nothing about a
network's; the difference between two splits of the same samples measures the leak.
"""

import warnings
from dataclasses import dataclass
from math import hypot

import numpy as np

from cellline.audit.splitting import find_straddling
from cellline.audit.statistics import Part
from cellline.host.processors import count_processors
from cellline.scoring.bootstrap import Bootstrap, Estimate, estimate
from cellline.scoring.recalls import bac_of, tally

# On cell-lines 100 trees score 1 point (naive) and 2 points (grouped) more, in twice the time.
TREES = 50
# Samples times classes that the trees see; each of their nodes has a share for every class: 1 GB.
MOST_CELLS = 1_000_000


@dataclass(frozen=True)
class Leak:
    """Balanced accuracy of samples with relatives, of their group, in training, and of the rest.

    Both scores are over the classes that both kinds hold. The kinds differ in more than the leak.
    """

    leaked: Estimate
    rest: Estimate
    n_leaked: int
    n_rest: int

    def expected(self, share: float) -> Estimate:
        """Score to expect if this `share` of each class's samples has relatives in training.

        The two scores are independent, and taken as normally distributed.
        """
        a, b = share, 1 - share
        value = a * self.leaked.value + b * self.rest.value
        error = hypot(a * self.leaked.error, b * self.rest.error)
        return Estimate(value, value - 1.96 * error, value + 1.96 * error, error)


@dataclass(frozen=True)
class Reference:
    """Out-of-fold balanced accuracy of the reference model in two splits of the same samples."""

    naive: Estimate
    """Split at random, stratified."""
    grouped: Estimate
    """Split by groups, as the folds are."""
    difference: Estimate
    """Naive minus grouped, paired by sample."""
    leak: Leak | None
    """In the naive split; None if it tears no group apart, or every one."""
    same_by_groups: Leak | None
    """Same two kinds of samples in the split by groups, where neither has a leak."""
    test_share: float
    """Share of the test samples that are in a group with a training sample."""

    @property
    def flatters(self) -> bool:
        """True if the naive split scores higher than by chance."""
        return self.difference.low > 0


def measure_reference(
    train: Part, labels: np.ndarray, naive: np.ndarray, grouped: np.ndarray, test_share: float
) -> Reference:
    """Score the reference model on the training part in two splits, without groups and by them.

    `naive` and `grouped`, int [n], are the folds. 7,890 samples take 7 s on one core.
    """
    n_classes, group = int(labels.max()) + 1, train.group
    # If every sample is alone, two splits would differ by chance only.
    splits = [naive] if len(set(group)) == len(group) else [naive, grouped]
    predicted = [predict_held_out(train.statistics, labels, fold).argmax(1) for fold in splits]
    cells = [tally(labels, guesses, n_classes) for guesses in predicted]
    values = [bac_of(each.sum(axis=0)) for each in cells]
    bootstrap = Bootstrap(group)
    draws = [bac_of(bootstrap.sums(each)) for each in cells]
    leaked = find_straddling(group, naive)
    return Reference(
        naive=estimate(values[0], draws[0]),
        grouped=estimate(values[-1], draws[-1]),
        difference=estimate(values[0] - values[-1], draws[0] - draws[-1]),
        leak=measure_leak(labels, cells[0], leaked, group),
        same_by_groups=measure_leak(labels, cells[-1], leaked, group),
        test_share=test_share,
    )


def choose_classes(labels: np.ndarray) -> np.ndarray:
    """Samples, bool [n], of as many classes as the trees' memory allows, at least two of them."""
    of_class = np.bincount(labels)
    order = np.random.default_rng(0).permutation(len(of_class))
    cells = of_class[order].cumsum() * np.arange(1, len(order) + 1)
    n_chosen = max(2, int(np.searchsorted(cells, MOST_CELLS, side="right")))
    return np.asarray(np.isin(labels, order[:n_chosen]))


def measure_leak(
    labels: np.ndarray, cells: np.ndarray, leaked: np.ndarray, group: np.ndarray
) -> Leak | None:
    """Compare the leaked samples, bool [n], with the rest, by labels, `tally` and groups.

    A group is leaked as a whole or not at all, so each kind has a bootstrap of its own groups. None
    if the kinds have no class in common.
    """
    both = np.intersect1d(labels[leaked], labels[~leaked])
    if len(both) == 0:
        return None
    kinds = [np.flatnonzero(np.isin(labels, both) & kind) for kind in (leaked, ~leaked)]
    # Different seeds: the two are independent.
    of_leaked, of_rest = (
        Bootstrap(group[rows], seed).estimate(bac_of, cells[rows])
        for seed, rows in enumerate(kinds)
    )
    return Leak(of_leaked, of_rest, *map(len, kinds))


def predict_held_out(statistics: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, class] of each fold's samples by trees grown on the other folds.

    Extremely randomized trees (Geurts et al. 2006, doi:10.1007/s10994-006-6226-1): as good here as
    a random forest, and twice as fast. They take 10 kB per sample.
    """
    # Imported here, because it takes a second.
    from sklearn.ensemble import ExtraTreesClassifier

    prob = np.zeros((len(labels), int(labels.max()) + 1))
    for held_out in (fold == number for number in np.unique(fold)):
        forest = ExtraTreesClassifier(
            TREES, class_weight="balanced", random_state=0, n_jobs=count_processors()
        )
        with warnings.catch_warnings():
            # About many classes of few samples each.
            warnings.simplefilter("ignore", UserWarning)
            forest.fit(statistics[~held_out], labels[~held_out])
        # One thread sums the votes in the trees' order; any other order can change the last bit.
        votes = forest.set_params(n_jobs=1).predict_proba(statistics[held_out])
        prob[np.ix_(held_out, forest.classes_)] = votes
    return prob
