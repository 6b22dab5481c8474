"""The decision rule: how the probabilities of several runs become one class per sample.

The plain rule blends the runs equally and takes the likeliest class. Three parts are added only if
they gain on folds that they were not fitted on: pooling the samples of one picture, selected
weights, and the correction of calibration.py. The rule for a fold is fitted to predictions and
labels of the other folds alone. (The networks that made those predictions were trained on the fold
itself, as in all stacking.)
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any

import numpy as np

from cellline.runs.predictions import OutOfFold, common_samples
from cellline.scoring.metrics import Bootstrap, Estimate, bac_of, estimate, points, tally
from cellline.submitting.blend import blend, select_runs
from cellline.submitting.calibration import (
    Correction,
    Decided,
    calibration_error,
    fit_correction,
)
from cellline.submitting.pooling import count_pooled, pool, thin


class Part(StrEnum):
    """An optional part of a rule; parts are tried in this order."""

    POOLING = "pooling samples of one picture"
    SELECTION = "weights of the runs by greedy selection"
    CORRECTION = "temperature and prior correction"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Out-of-fold predictions by several runs of the same samples."""

    prob: np.ndarray
    """float32 [run, n, class]"""
    labels: np.ndarray
    """int64 [n]"""
    fold: np.ndarray
    """int64 [n]"""
    group: np.ndarray
    """[n], see Folds: the unit that a bootstrap draws"""
    picture: np.ndarray
    """[n], see `thin`: the unit that pooling decides together"""

    def at(self, rows: np.ndarray) -> "HeldOut":
        """The predictions of some rows."""
        return HeldOut(
            prob=self.prob[:, rows],
            labels=self.labels[rows],
            fold=self.fold[rows],
            group=self.group[rows],
            picture=self.picture[rows],
        )


def hold_out(runs: Sequence[OutOfFold]) -> HeldOut:
    """The out-of-fold predictions by several runs of the samples that all have predicted."""
    first, *others = common_samples(runs)
    folds = first.folds
    return HeldOut(
        prob=np.stack([first.prob, *(run.prob for run in others)]),
        labels=first.labels,
        fold=first.fold,
        group=first.group,
        picture=thin(folds.group, len(folds.competition.test_ids))[first.rows],
    )


@dataclass(frozen=True)
class PartTrial:
    """The outcome of trying a part."""

    part: Part
    gain: Estimate | None
    """In balanced accuracy, over the rule without it; None if only one fold is finished."""

    @property
    def used(self) -> bool:
        """True if the gain exceeds its standard error."""
        return self.gain is not None and self.gain.value > self.gain.error

    @property
    def why(self) -> str:
        """The reason for using the part or not, for a person."""
        if self.gain is None:
            return (
                "not used: fitting it on one fold and judging it on another takes two finished "
                "folds"
            )
        return (
            f"{'used' if self.used else 'not used'}: on folds that it was not fitted on, it "
            f"changes BAC by {points(self.gain)} points; {100 * self.gain.value:.2f} is "
            f"{'' if self.used else 'not '}more than its standard error, "
            f"{100 * self.gain.error:.2f}"
        )

    def record(self) -> dict[str, Any]:
        """The trial for a submission's record."""
        gain = self.gain and {
            "bac": self.gain.value,
            "interval": self.gain.interval,
            "standard_error": self.gain.error,
        }
        return {"part": self.part, "gain": gain, "used": self.used, "why": self.why}


@dataclass(frozen=True)
class Rule:
    """The steps from the runs' probabilities to classes, and the trials that chose them."""

    weights: tuple[float, ...]
    """One per run; they sum to 1."""
    pooled: bool = False
    """True if samples of one picture are decided together."""
    correction: Correction | None = None
    trials: tuple[PartTrial, ...] = ()

    def apply(self, prob: np.ndarray, picture: np.ndarray) -> Decided:
        """Decide from the runs' probabilities [run, n, class] of samples of pictures [n].

        With a correction, the resulting probabilities are calibrated; without, they are the
        blend's. Probabilities of the test set, means over the folds' networks, are a little less
        confident than those that the temperature was fitted to.
        """
        blended = blend(pool(prob, picture) if self.pooled else prob, self.weights)
        if self.correction is None:
            return Decided(blended, blended.argmax(axis=1))
        return self.correction.apply(blended)


def plain_rule(n_runs: int) -> Rule:
    """Equal weights and the likeliest class, which need no fitting."""
    return Rule((1 / n_runs,) * n_runs)


def fit_parts(parts: Set[Part], samples: HeldOut) -> Rule:
    """The rule with these parts, fitted to all `samples`."""
    pooled = Part.POOLING in parts
    prob = pool(samples.prob, samples.picture) if pooled else samples.prob
    weights = plain_rule(len(prob)).weights
    if Part.SELECTION in parts:
        weights = select_runs(prob, samples.labels)
    if Part.CORRECTION not in parts:
        return Rule(weights, pooled)
    return Rule(weights, pooled, fit_correction(blend(prob, weights), samples.labels))


def fit_rule(samples: HeldOut) -> Rule:
    """The rule for `samples`, with the parts that help.

    A part helps if its gain in balanced accuracy, fitted on all folds but one and measured on that
    one in turn, exceeds the gain's standard error (paired bootstrap over groups). Each part is
    tried on top of those already chosen, if there is anything to pool or to weigh.
    """
    idle = {
        Part.POOLING: not count_pooled(samples.picture),
        Part.SELECTION: len(samples.prob) == 1,
    }
    candidates = [part for part in Part if not idle.get(part)]
    if len(np.unique(samples.fold)) < 2:
        trials = [PartTrial(part, None) for part in candidates]
        return replace(fit_parts(frozenset(), samples), trials=tuple(trials))
    bootstrap = Bootstrap(samples.group)
    used: frozenset[Part] = frozenset()
    decided = cross_fit(partial(fit_parts, used), samples)
    trials = []
    for part in candidates:
        other = cross_fit(partial(fit_parts, used | {part}), samples)
        trials.append(PartTrial(part, bac_gain(samples, decided, other, bootstrap)))
        if trials[-1].used:
            used, decided = used | {part}, other
    return replace(fit_parts(used, samples), trials=tuple(trials))


def cross_fit(fit: Callable[[HeldOut], Rule], samples: HeldOut) -> Decided:
    """Decide each fold of `samples` by the rule that `fit` makes from the other folds.

    With `fit_rule`, its choices are repeated for each fold, so the score of these decisions is the
    one that a rule fitted to all folds may expect. The probabilities are calibrated only in folds
    whose rule has a correction.
    """
    _, n, n_classes = samples.prob.shape
    decided = Decided(np.empty((n, n_classes), np.float32), np.empty(n, np.int64))
    for fold in np.unique(samples.fold):
        held_out = samples.fold == fold
        rule = fit(samples.at(~held_out))
        of_fold = rule.apply(samples.prob[:, held_out], samples.picture[held_out])
        decided.prob[held_out] = of_fold.prob
        decided.predicted[held_out] = of_fold.predicted
    return decided


def bac_gain(samples: HeldOut, old: Decided, new: Decided, bootstrap: Bootstrap) -> Estimate:
    """Difference in balanced accuracy between two decisions for the same samples, paired."""
    n_classes = samples.prob.shape[2]
    before, after = (tally(samples.labels, of.predicted, n_classes) for of in (old, new))
    return estimate(
        bac_of(after.sum(axis=0)) - bac_of(before.sum(axis=0)),
        bac_of(bootstrap.sums(after)) - bac_of(bootstrap.sums(before)),
    )


@dataclass(frozen=True)
class Expected:
    """The scores of rule and calibration on folds that they were not fitted on."""

    bac: Estimate | None
    """Balanced accuracy of the rules that `fit_rule` makes, for each fold, from the others.

    None with fewer than three folds: from one other fold it can only make the plain rule.
    """
    plain_bac: Estimate
    """Balanced accuracy of the plain rule, which needs no fitting."""
    calibration_error: Estimate
    """The calibration error of the equal blend."""
    corrected_calibration_error: Estimate | None
    """The same, corrected on the other folds; None if there are none."""


def expect_bac(samples: HeldOut, bootstrap: Bootstrap) -> Estimate | None:
    """Score `fit_rule` on `samples` by cross-fitting; see `Expected`."""
    if len(np.unique(samples.fold)) < 3:
        return None
    decided = cross_fit(fit_rule, samples)
    cells = tally(samples.labels, decided.predicted, samples.prob.shape[2])
    return bootstrap.estimate(bac_of, cells)


def expect(samples: HeldOut) -> Expected:
    """Score `fit_rule` and the correction on `samples`, by cross-fitting."""
    bootstrap = Bootstrap(samples.group)
    plain = fit_parts(frozenset(), samples).apply(samples.prob, samples.picture)
    cells = tally(samples.labels, plain.predicted, samples.prob.shape[2])

    def error(decided: Decided) -> Estimate:
        return calibration_error(samples.labels, decided.prob, bootstrap)

    correct = partial(fit_parts, {Part.CORRECTION})
    several = len(np.unique(samples.fold)) > 1
    return Expected(
        expect_bac(samples, bootstrap),
        bootstrap.estimate(bac_of, cells),
        error(plain),
        error(cross_fit(correct, samples)) if several else None,
    )
