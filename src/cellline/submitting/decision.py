"""The decision rule: from the probabilities of several runs to one decision for each sample.

The plain rule blends the runs equally and takes the likeliest class. Three parts are added if they
gain on folds that they were not fitted on: pooling the samples of a picture, selected weights, and
the decision that suits the metric (`Metric.fit`). The rule for a fold is fitted to predictions and
labels of the other folds alone. (The networks that made those predictions were trained on the fold
itself, as in all stacking.)
"""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property, partial

import numpy as np

from cellline.audit.findings import read_findings
from cellline.runs.predictions import OutOfFold, common_samples
from cellline.scoring.bootstrap import Bootstrap, Estimate
from cellline.scoring.decisions import Decided, Decision, likeliest
from cellline.scoring.metrics import Metric
from cellline.submitting.blend import blend, select_runs
from cellline.submitting.pooling import count_members, count_pooled, match_test, pool, thin


class Part(StrEnum):
    """An optional part of a rule; parts are tried in this order."""

    POOLING = "pooling samples of one picture"
    SELECTION = "weights of the runs by greedy selection"
    CORRECTION = "correction"  # printed as `Metric.decision`

    @property
    def burden(self) -> int:
        """Standard errors that a part's gain must exceed.

        With one, parts without a true gain would be used in every sixth case, and reported with a
        gain of a point. Corrections have little to lose: where networks are calibrated already, one
        fitted to 200 simulated samples of five classes costs 0.1 points of balanced accuracy and
        0.4 of accuracy, one fitted to 600 0.1 of either.
        """
        return 0 if self is Part.CORRECTION else 2


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Out-of-fold predictions by several runs of the same samples."""

    metric: Metric
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
    members: np.ndarray
    """int64 [n]: training samples of the sample's picture, itself included"""
    alone: np.ndarray
    """bool [n]: samples without relatives, in the test set as well"""
    weight: np.ndarray
    """float64 [n], see `match_test`: what a sample counts where the score is for the test set"""

    of_test: np.ndarray
    """int64 [m]: the picture of each test sample; below the number of training samples if it has
    one of them, see `Folds.picture`"""

    @cached_property
    def bootstrap(self) -> Bootstrap:
        """Draws of these samples by group."""
        return Bootstrap(self.group)

    @property
    def rate(self) -> np.ndarray:
        """Expected count, float64 [n], of each sample in a test set like the real one.

        Without one, in a test set as large as the training set.
        """
        n_test = len(self.of_test) or len(self.weight)
        rate: np.ndarray = self.weight * n_test / self.weight.sum()
        return rate

    def at(self, rows: np.ndarray) -> "HeldOut":
        """The predictions of some rows."""
        return HeldOut(
            metric=self.metric,
            prob=self.prob[:, rows],
            labels=self.labels[rows],
            fold=self.fold[rows],
            group=self.group[rows],
            picture=self.picture[rows],
            members=self.members[rows],
            alone=self.alone[rows],
            weight=self.weight[rows],
            of_test=self.of_test,
        )


def hold_out(runs: Sequence[OutOfFold]) -> HeldOut:
    """Several runs' out-of-fold predictions for the samples that every run has predicted."""
    first, *others = common_samples(runs)
    folds = first.folds
    own, of_test = np.split(folds.picture, [len(folds.fold)])
    picture = thin(own, len(of_test))[first.rows]
    weight = match_test(picture, of_test)
    # Pictures that labels contradict would be decided together, and wrongly.
    if count_pooled(picture) and not read_findings(folds.record).trust.trusted:
        picture = first.rows
    return HeldOut(
        metric=folds.metric,
        prob=np.stack([first.prob, *(run.prob for run in others)]),
        labels=first.labels,
        fold=first.fold,
        group=first.group,
        picture=picture,
        members=count_members(own)[first.rows],
        alone=(count_members(folds.picture) == 1)[first.rows],
        weight=weight,
        of_test=of_test,
    )


@dataclass(frozen=True)
class PartTrial:
    """The outcome of trying a part."""

    part: Part
    gain: Estimate | None
    """In the metric, over the rule without it; None if only one fold is finished."""

    @property
    def used(self) -> bool:
        """True if the gain is large enough, see `Part.burden`."""
        return self.gain is not None and self.gain.value > self.part.burden * self.gain.error


@dataclass(frozen=True)
class Rule:
    """The steps from the runs' probabilities to classes, and the trials that chose them."""

    weights: tuple[float, ...]
    """One per run; they sum to 1."""
    pooled: bool = False
    """True if samples of one picture are decided together."""
    correction: Decision | None = None
    """The decision that suits the metric; None for the likeliest class."""
    trials: tuple[PartTrial, ...] = ()

    def apply(self, prob: np.ndarray, picture: np.ndarray) -> Decided:
        """Decide from the runs' probabilities [run, n, class] of samples of pictures [n].

        With a correction, the resulting probabilities are calibrated; without, they are the
        blend's. Test probabilities are averaged over the folds' networks, so they are a little less
        confident than those that the temperature was fitted to.
        """
        blended = blend(pool(prob, picture) if self.pooled else prob, self.weights)
        if self.correction is None:
            return likeliest(blended)
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
        weights = select_runs(prob, samples.labels, samples.metric)
    if Part.CORRECTION not in parts:
        return Rule(weights, pooled)
    return Rule(weights, pooled, samples.metric.fit(blend(prob, weights), samples.labels))


def fit_rule(samples: HeldOut) -> Rule:
    """The rule for `samples`, with the parts that help.

    A part helps if its gain in the metric, fitted on all folds but one and measured on that one in
    turn, exceeds two standard errors (paired bootstrap over groups), or for the correction 0. Each
    part is tried on top of those already chosen, if there is anything to pool, to weigh or to
    correct.
    """
    n_runs, _, n_classes = samples.prob.shape
    useful = {
        Part.POOLING: count_pooled(samples.picture) > 0,
        Part.SELECTION: n_runs > 1,
        Part.CORRECTION: n_classes >= samples.metric.fewest_classes,
    }
    candidates = [part for part in Part if useful[part]]
    if len(np.unique(samples.fold)) < 2:
        trials = [PartTrial(part, None) for part in candidates]
        return replace(fit_parts(frozenset(), samples), trials=tuple(trials))
    used: frozenset[Part] = frozenset()
    decided = cross_fit(partial(fit_parts, used), samples)
    trials = []
    for part in candidates:
        other = cross_fit(partial(fit_parts, used | {part}), samples)
        gain = samples.metric.gain(
            samples.labels, (decided, other), samples.bootstrap, samples.weight
        )
        trials.append(PartTrial(part, gain))
        if trials[-1].used:
            used, decided = used | {part}, other
    return replace(fit_parts(used, samples), trials=tuple(trials))


def cross_fit(fit: Callable[[HeldOut], Rule], samples: HeldOut) -> Decided:
    """Decide each fold of `samples` by the rule that `fit` makes from the other folds.

    With `fit_rule`, its choices are repeated for each fold, so the score of these decisions
    estimates that of a rule fitted to all folds. The probabilities are calibrated only in folds
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


@dataclass(frozen=True)
class Scored:
    """Scores of the same decisions, for three kinds of new samples."""

    like_test: Estimate
    """For samples whose pictures are as large as those of this test set, see `match_test`."""
    by_picture: Estimate
    """For pictures: each group counts once, however many samples it has."""
    lone: Estimate | None
    """For samples that share their picture with no other; None if a class has none."""


def score_decided(samples: HeldOut, decided: Decided) -> Scored:
    """Score decisions for held-out samples."""

    def score(weight: np.ndarray) -> Estimate:
        return samples.metric.estimate(samples.labels, decided, samples.bootstrap, weight)

    has_all = np.isin(samples.labels, samples.labels[samples.alone]).all()
    of_lone = score(samples.alone.astype(float)) if has_all else None
    return Scored(score(samples.weight), score(1 / samples.members), of_lone)


@dataclass(frozen=True, eq=False)
class Expected:
    """Scores of rules on folds that they were not fitted on."""

    of_rule: Scored | None
    """For rules by `fit_rule`: each fold is scored by the rule fitted to the others.

    None with fewer than three folds: from one other fold it can only make the plain rule.
    """
    plain: Scored
    """For the plain rule, which needs no fitting."""
    single: tuple[Estimate, ...]
    """For each run by itself, decided like `scored`, as `Scored.like_test`."""
    decided: Decided
    """The decisions that `scored` is about."""
    rate: np.ndarray
    """float64 [n]: expected count of each sample in a test set like this one."""

    @property
    def scored(self) -> Scored:
        """The rule's scores if three folds or more can judge it, else the plain rule's."""
        return self.of_rule or self.plain


def expect(samples: HeldOut) -> Expected:
    """Score `fit_rule`, by cross-fitting, and the plain rule on `samples`."""
    judged = len(np.unique(samples.fold)) > 2

    def decide(samples: HeldOut) -> Decided:
        if judged:
            return cross_fit(fit_rule, samples)
        return plain_rule(len(samples.prob)).apply(samples.prob, samples.picture)

    plain = plain_rule(len(samples.prob)).apply(samples.prob, samples.picture)
    runs = [replace(samples, prob=prob[None]) for prob in samples.prob]
    decided = decide(samples)
    whole = score_decided(samples, decided)
    single = [whole] if len(runs) == 1 else [score_decided(run, decide(run)) for run in runs]
    return Expected(
        whole if judged else None,
        score_decided(samples, plain),
        tuple(scored.like_test for scored in single),
        decided,
        samples.rate,
    )
