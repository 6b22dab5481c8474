"""How much a split that ignores copies would flatter, told by a model that takes seconds.

The reference model sees a few dozen statistics of each image and nothing else. Its trees are grown
to single samples, so that it remembers what it has seen, as a network does; its score says nothing
of how well a network does, the difference between two splits of the same samples says what a leak
is worth.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import numpy as np

from cellline.audit.leak import Leak, describe_expected, measure_leak
from cellline.host.processors import map_in_order
from cellline.runs.folds import find_straddling
from cellline.scoring.metrics import (
    Bootstrap,
    Estimate,
    bac_of,
    estimate,
    points,
    tally,
    with_interval,
)

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
    """In the naive split; None when it tears no group apart, or every one."""
    same_by_groups: Leak | None
    """The same two kinds of samples in the split by groups, where neither has a leak."""
    test_share: float
    """Of the test samples, those in a group with a training sample."""

    @property
    def flatters(self) -> bool:
        """Whether the naive split scores more than chance explains."""
        return self.difference.low > 0

    def record(self) -> dict[str, Any]:
        """For folds.json."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `record`."""
        kinds = [
            record[key] and Leak.from_record(record[key]) for key in ("leak", "same_by_groups")
        ]
        return cls(
            naive=Estimate(**record["naive"]),
            grouped=Estimate(**record["grouped"]),
            difference=Estimate(**record["difference"]),
            leak=kinds[0],
            same_by_groups=kinds[1],
            test_share=record["test_share"],
        )

    def describe(self) -> list[str]:
        """What a split that ignores copies would do, a line each."""
        scores = (
            f"a model of image statistics scores {with_interval(self.naive)} "
            f"split naively and {with_interval(self.grouped)} by groups, "
            f"{points(self.difference)} points"
        )
        if not self.flatters:
            return [f"no leak can be told: {scores}"]
        lines = [f"a split that ignores copies would flatter: {scores}"]
        if self.leak is not None and self.same_by_groups is not None:
            # The two kinds differ in more than the leak: each is compared with itself.
            (with_it, others), (same, same_others) = (
                [with_interval(score) for score in (kind.leaked, kind.rest)]
                for kind in (self.leak, self.same_by_groups)
            )
            lines.append(
                f"the {self.leak.n_leaked} samples with a copy or overlap in another fold score "
                f"{with_it} split naively and {same} by groups, the {self.leak.n_rest} others "
                f"{others} and {same_others}"
            )
            if self.test_share:
                lines.append(describe_expected(self.leak, self.test_share))
        return lines


def measure_reference(
    statistics: np.ndarray,
    labels: np.ndarray,
    group: np.ndarray,
    naive: np.ndarray,
    grouped: np.ndarray,
    test_share: float,
) -> Reference:
    """Score the reference model on statistics [n, k] in two splits, by groups [n] and without.

    `naive` and `grouped`, int [n], are the folds. The challenge's 7,890 samples take 7 s of one
    core.
    """
    n_classes = int(labels.max()) + 1
    # Without groups, another deal would differ by chance alone: both figures are of the same one.
    splits = [naive] if len(set(group)) == len(group) else [naive, grouped]
    predicted = [cross_fit(statistics, labels, fold).argmax(1) for fold in splits]
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


def cross_fit(statistics: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Probabilities float64 [n, class] of each fold's samples by trees grown on the other folds.

    Extremely randomized trees (Geurts et al. 2006, doi:10.1007/s10994-006-6226-1): as good here as
    a random forest, twice as fast, and in no need of scaled inputs. The same arguments give the
    same bits on any number of processors.
    """
    # Imported where it is used: it takes a second, which the other verbs need not spend.
    from sklearn.utils.class_weight import compute_sample_weight

    prob = np.zeros((len(labels), int(labels.max()) + 1))
    seeds = np.random.RandomState(0).randint(2**31 - 1, size=TREES).tolist()
    for held_out in (fold == number for number in np.unique(fold)):
        known = labels[~held_out]
        weights = compute_sample_weight("balanced", known)
        vote = partial(grow_and_ask, statistics[~held_out], known, weights, statistics[held_out])
        # Added up in the trees' order: any other can change the last bit.
        prob[np.ix_(held_out, np.unique(known))] = sum(map_in_order(vote, seeds)) / TREES
    return prob


def grow_and_ask(
    rows: np.ndarray, labels: np.ndarray, weights: np.ndarray, asked: np.ndarray, seed: int
) -> np.ndarray:
    """What a tree that is grown on `rows` says of `asked`: float64 [n, class that occurs].

    The tree is forgotten: all of a forest, as ExtraTreesClassifier keeps it, take 10 kB a row.
    """
    # Imported where it is used, as above.
    from sklearn.tree import ExtraTreeClassifier

    tree = ExtraTreeClassifier(random_state=seed)
    votes: np.ndarray = tree.fit(rows, labels, weights).predict_proba(asked)
    return votes
