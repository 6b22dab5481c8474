"""A submission in words, and its record as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.errors import Caution
from cellline.host.names import align, name_classes
from cellline.scoring.words import percent, points, with_interval
from cellline.submitting.decision import (
    Expected,
    HeldOut,
    PartTrial,
    Rule,
)
from cellline.submitting.pooling import count_members, count_pooled


def record_expected(expected: Expected, n: int) -> dict[str, Any]:
    """The expected scores for a submission's record, from `n` out-of-fold samples."""
    scored = expected.scored
    return {
        "of_rule": expected.of_rule is not None,
        "bac": scored.like_test.value,
        "interval": scored.like_test.interval,
        "samples": n,
        "scores": asdict(scored),
        "plain_bac": expected.plain.like_test.value,
    }


def record_rule(rule: Rule, runs: Sequence[str]) -> dict[str, Any]:
    """The rule for a submission's record; its runs by name."""
    trials = [{**asdict(trial), "used": trial.used, "why": explain(trial)} for trial in rule.trials]
    weights = dict(zip(runs, rule.weights, strict=True))
    return {**asdict(rule), "weights": weights, "trials": trials}


def explain(trial: PartTrial) -> str:
    """The reason for using a part or not."""
    if trial.gain is None:
        return "not used: fitting it on one fold and judging it on another takes two finished folds"
    used, than = ("used", "more") if trial.used else ("not used", "not more")
    chosen = "; this gain decided its use, so it is a little too high" if trial.used else ""
    return (
        f"{used}: on folds that it was not fitted on, it changes BAC by {points(trial.gain)} "
        f"points, {than} than two standard errors (2 x {100 * trial.gain.error:.2f}){chosen}"
    )


def describe_rule(rule: Rule, runs: Sequence[str]) -> list[str]:
    """A short line on each part that was tried beyond the plain rule, and those in use."""
    lines = []
    for trial in rule.trials:
        gain = "needs two finished folds"
        if trial.gain is not None:
            gain = f"{100 * trial.gain.value:+.1f} points"
        lines.append(f"{trial.part}: {'used' if trial.used else 'not used'}, {gain}")
    if rule.correction:
        lines[-1] += f" ({rule.correction.describe()})"
    if len(runs) > 1:
        shares = zip(runs, rule.weights, strict=True)
        lines.append("weights: " + ", ".join(f"{run} {weight:.2f}" for run, weight in shares))
    return lines


def describe_expected(expected: Expected, samples: HeldOut, n_train: int) -> list[str]:
    """Lines on the scores that out-of-fold samples, of `n_train`, promise; the test set's first."""
    scored, of_test = expected.scored, samples.of_test
    what = "" if expected.of_rule else ", nothing pooled or corrected (judging that takes 3 folds)"
    # The first row of a group with a training sample is one.
    related = int(np.sum(of_test < n_train))
    where = "test samples that are not related to training samples" if related else "this test set"
    lines = [
        f"expect BAC {with_interval(scored.like_test)} on {where}: OOF, "
        f"{len(samples.labels)} of {n_train} training samples{what}"
    ]
    if (samples.members > 1).any():
        lone = with_interval(scored.lone) if scored.lone else "some class has none"
        lines.append(
            "  weighted so that pictures are as large as in the test set; each picture counted "
            f"once: {with_interval(scored.by_picture)}; samples that are alone in theirs: {lone}"
        )
    if related:
        lines.append(
            f"  expect more on the {related} of {len(of_test)} that are related: no network was "
            "scored on such"
        )
    return lines


def describe_pooling(samples: HeldOut) -> list[str]:
    """How many test samples share a picture, and a Caution if fewer do than are scored so."""
    n_pooled, n_test = count_pooled(samples.of_test), len(samples.of_test)
    scored = samples.weight @ (count_members(samples.picture) > 1) / samples.weight.sum()
    lines = [f"{n_pooled} of {n_test} test samples are pooled with others of their picture"]
    if n_pooled / n_test < scored - 0.01:
        lines.append(
            Caution(
                f"{percent(scored)} are in the score below: too few training samples are alone in "
                "their picture to score what this test set gains by pooling"
            )
        )
    return lines


def describe_members(expected: Expected, runs: Sequence[str]) -> list[str]:
    """Lines on each run by itself, and a Caution if one is better than the blend."""
    if len(runs) == 1:
        return []
    single = dict(zip(runs, expected.single, strict=True))
    lines = [f"{run} alone: {with_interval(score)}" for run, score in single.items()]
    best = max(single, key=lambda run: single[run].value)
    gain = single[best].value - expected.scored.like_test.value
    if gain > 0:
        lines.append(
            Caution(
                f"{best} alone scores {100 * gain:.1f} points more than this blend, though the "
                f"best of {len(runs)} is a little flattered: consider submitting it by itself"
            )
        )
    return lines


def describe_counts(competition: Competition, predicted: np.ndarray) -> list[str]:
    """A table of the predicted class counts beside those in training."""
    n_classes = len(competition.classes)
    train = np.bincount(competition.labels, minlength=n_classes)
    test = np.bincount(predicted, minlength=n_classes)
    margin, *names = align(["", *name_classes(competition.classes)])
    lines = [margin + "        training       predicted"]
    for index, name in enumerate(names):
        shares = [f"{c[index]:7d} {c[index] / c.sum():7.1%}" for c in (train, test)]
        lines.append(f"{name} {'  '.join(shares)}")
    return lines
