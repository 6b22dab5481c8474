"""A reference model that takes seconds, and how much naive folds would flatter it.

The model sees a few dozen statistics of each image and nothing else. Its trees grow to single
samples, so it remembers what it has seen, as a network does. Its score says nothing about a
network's; the difference between two splits of the same samples measures the leak.
"""

from dataclasses import dataclass

import numpy as np

from cellline.audit.leak import Leak, measure_leak
from cellline.audit.splitting import find_straddling
from cellline.audit.statistics import Part
from cellline.host.processors import map_in_order
from cellline.scoring.metrics import Bootstrap, Estimate, bac_of, estimate, tally

# On cell-lines 100 trees score 1 point (naive) and 2 points (grouped) more, in twice the time.
TREES = 50


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
        """True if the naive split scores more than chance explains."""
        return self.difference.low > 0


def measure_reference(
    train: Part, labels: np.ndarray, naive: np.ndarray, grouped: np.ndarray, test_share: float
) -> Reference:
    """Score the reference model on the training part in two splits, without groups and by them.

    `naive` and `grouped`, int [n], are the folds. The challenge's 7,890 samples take 7 s on one
    core.
    """
    n_classes, group = int(labels.max()) + 1, train.group
    # If every sample is alone, a second split would differ by chance only: use one for both.
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
        leak=measure_leak(labels, predicted[0], n_classes, leaked, group),
        same_by_groups=measure_leak(labels, predicted[-1], n_classes, leaked, group),
        test_share=test_share,
    )


def predict_held_out(statistics: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, class] of each fold's samples by trees grown on the other folds.

    Extremely randomized trees (Geurts et al. 2006, doi:10.1007/s10994-006-6226-1): as good here as
    a random forest, twice as fast, and indifferent to scale. The same arguments give the same bits
    on any number of processors.
    """
    prob = np.zeros((len(labels), int(labels.max()) + 1))
    for held_out in (fold == number for number in np.unique(fold)):
        known = labels[~held_out]
        votes = grow_and_ask(statistics[~held_out], known, statistics[held_out])
        prob[np.ix_(held_out, np.unique(known))] = votes
    return prob


def grow_and_ask(rows: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Mean vote float64 [n, class that occurs] on `asked` by trees grown on `rows`.

    Trees are forgotten one by one: a forest, as ExtraTreesClassifier keeps it, takes 10 kB per row.
    """
    # Imported here: it takes a second, which the other verbs need not spend.
    from sklearn.tree import ExtraTreeClassifier
    from sklearn.utils.class_weight import compute_sample_weight

    weights = compute_sample_weight("balanced", labels)

    def vote(seed: int) -> np.ndarray:
        tree = ExtraTreeClassifier(random_state=seed).fit(rows, labels, weights)
        return np.asarray(tree.predict_proba(asked))

    seeds = np.random.RandomState(0).randint(2**31 - 1, size=TREES).tolist()
    # Sum in the trees' order: any other order can change the last bit.
    return np.asarray(sum(map_in_order(vote, seeds)) / TREES)
