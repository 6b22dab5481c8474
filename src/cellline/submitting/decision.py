"""The decision rule: how the probabilities of several runs become one class for each sample.

The plain rule blends the runs equally and takes the likeliest class. Pooling of samples that show
one picture, selected weights and the correction of calibration.py are used only where they have
gained on folds that they were not fitted on. What is fitted for a fold comes from the other folds'
predictions and labels alone. (The networks that made those predictions were trained on the fold
itself, as in all stacking.)
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import numpy as np

from cellline.runs.predictions import OutOfFold, common_samples
from cellline.scoring.metrics import Bootstrap, Estimate, bac_of, estimate, points, tally
from cellline.submitting.blend import blend
from cellline.submitting.calibration import (
    Correction,
    Decided,
    calibration_error,
    fit_correction,
)
from cellline.submitting.pooling import count_pooled, pool, thin
from cellline.submitting.selection import select_runs


class Part(StrEnum):
    """What a rule has only if it helps, in the order in which it is tried."""

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
    """[n], see Folds: what a bootstrap draws"""
    picture: np.ndarray
    """[n], see `thin`: what pooling takes together"""

    def at(self, rows: np.ndarray) -> "HeldOut":
        """Those of some rows."""
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
class Trial:
    """What came of trying a part."""

    part: Part
    gain: Estimate | None
    """In balanced accuracy, over the rule without it; None where it could not be measured."""
    used: bool
    why: str
    """For a person to read."""


@dataclass(frozen=True)
class Rule:
    """What is done to the runs' probabilities, and why."""

    weights: tuple[float, ...]
    """Of the runs; they sum to 1."""
    pooled: bool = False
    """Samples of one picture are decided together."""
    correction: Correction | None = None
    trials: tuple[Trial, ...] = ()

    def apply(self, prob: np.ndarray, picture: np.ndarray) -> Decided:
        """Decide for the runs' probabilities [run, n, class] of samples of pictures [n].

        The result's are calibrated when there is a correction; else they are the blend's. Those
        of the test set, means over the folds' networks, are a little less sure than what the
        temperature was fitted to.
        """
        blended = blend(pool(prob, picture) if self.pooled else prob, self.weights)
        if self.correction is None:
            return Decided(blended, blended.argmax(axis=1))
        return self.correction.apply(blended)


def plain_rule(n_runs: int) -> Rule:
    """Equal weights and the likeliest class: what nothing has to be fitted for."""
    return Rule((1 / n_runs,) * n_runs)


def fit_parts(parts: Set[Part], samples: HeldOut) -> Rule:
    """The rule that has these parts, fitted on all `samples`."""
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

    A part helps when its gain in balanced accuracy, fitted on all folds but one and measured on
    that one in turn, exceeds the gain's standard error (bootstrap over groups, paired). Each is
    tried on top of those that were settled on, where there is something to pool or to weigh.
    """
    idle = {
        Part.POOLING: not count_pooled(samples.picture),
        Part.SELECTION: len(samples.prob) == 1,
    }
    tried = [part for part in Part if not idle.get(part)]
    if len(np.unique(samples.fold)) < 2:
        why = "not used: fitting it on one fold and judging it on another takes two finished folds"
        trials = [Trial(part, None, False, why) for part in tried]
        return replace(fit_parts(frozenset(), samples), trials=tuple(trials))
    bootstrap = Bootstrap(samples.group)
    used: frozenset[Part] = frozenset()
    decided = cross_fit(partial(fit_parts, used), samples)
    trials = []
    for part in tried:
        other = cross_fit(partial(fit_parts, used | {part}), samples)
        trial = judge(part, samples, decided, other, bootstrap)
        trials.append(trial)
        if trial.used:
            used, decided = used | {part}, other
    return replace(fit_parts(used, samples), trials=tuple(trials))


def cross_fit(fit: Callable[[HeldOut], Rule], samples: HeldOut) -> Decided:
    """Decisions for `samples`, of each fold by the rule that `fit` makes of the other folds.

    With `fit_rule`, its choices are made anew for each fold: the score of these decisions is what
    a rule may expect that is fitted on all folds. The probabilities are then calibrated in those
    folds alone whose rule has a correction.
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


def judge(
    part: Part, samples: HeldOut, without: Decided, having: Decided, bootstrap: Bootstrap
) -> Trial:
    """Whether decisions gain from a part that they are cross-fitted with."""
    gain = bac_gain(samples, without, having, bootstrap)
    used = gain.value > gain.error
    why = (
        f"{'used' if used else 'not used'}: on folds that it was not fitted on, it changes BAC by "
        f"{points(gain)} points; {100 * gain.value:.2f} is {'' if used else 'not '}more than its "
        f"standard error, {100 * gain.error:.2f}"
    )
    return Trial(part, gain, used, why)


def bac_gain(samples: HeldOut, old: Decided, new: Decided, bootstrap: Bootstrap) -> Estimate:
    """The difference in balanced accuracy between two decisions for the same samples, paired."""
    n_classes = samples.prob.shape[2]
    before, after = (tally(samples.labels, of.predicted, n_classes) for of in (old, new))
    return estimate(
        bac_of(after.sum(axis=0)) - bac_of(before.sum(axis=0)),
        bac_of(bootstrap.sums(after)) - bac_of(bootstrap.sums(before)),
    )


@dataclass(frozen=True)
class Expected:
    """What the rule and calibration come to on folds that they are not fitted on."""

    bac: Estimate | None
    """Balanced accuracy of what `fit_rule` makes, for each fold, of the others.

    None with fewer than three folds: of one other fold it can make the plain rule alone.
    """
    plain_bac: Estimate
    """Balanced accuracy of the plain rule: nothing is fitted."""
    calibration_error: Estimate
    """Of the equal blend."""
    corrected_calibration_error: Estimate | None
    """Of the equal blend, corrected on the other folds; None where there are none."""


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
    n_folds = len(np.unique(samples.fold))
    return Expected(
        expect_bac(samples, bootstrap),
        bootstrap.estimate(bac_of, cells),
        error(plain),
        error(cross_fit(correct, samples)) if n_folds > 1 else None,
    )
