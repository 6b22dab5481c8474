"""A submission in words, and its record as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.errors import Caution
from cellline.host.names import align, name_classes
from cellline.scoring.metrics import Metric
from cellline.scoring.words import percent
from cellline.submitting.decision import (
    Expected,
    HeldOut,
    Part,
    PartTrial,
    Rule,
)
from cellline.submitting.pooling import count_members, count_pooled


def record_expected(expected: Expected, samples: HeldOut) -> dict[str, Any]:
    """The expected scores for a submission's record."""
    scored = expected.scored
    return {
        "of_rule": expected.of_rule is not None,
        "metric": samples.metric.name,
        "score": scored.like_test.value,
        "interval": scored.like_test.interval,
        "samples": len(samples.labels),
        "scores": asdict(scored),
        "plain_score": expected.plain.like_test.value,
    }


def record_rule(rule: Rule, runs: Sequence[str], metric: Metric) -> dict[str, Any]:
    """The rule for a submission's record; its runs by name."""
    trials = [
        {
            **asdict(trial),
            "part": name_part(trial.part, metric),
            "used": trial.used,
            "why": explain(trial, metric),
        }
        for trial in rule.trials
    ]
    weights = dict(zip(runs, rule.weights, strict=True))
    return {**asdict(rule), "weights": weights, "trials": trials}


def name_part(part: Part, metric: Metric) -> str:
    """The name of a part of the rule; that of the correction is the metric's own."""
    return metric.decision if part is Part.CORRECTION else part


def explain(trial: PartTrial, metric: Metric) -> str:
    """The reason for using a part or not."""
    if trial.gain is None:
        return "not used: fitting it on one fold and judging it on another takes two finished folds"
    used, than = ("used", "more") if trial.used else ("not used", "not more")
    chosen = "; this gain decided its use, so it is a little too high" if trial.used else ""
    error = f"{100 * trial.gain.error:.2f}" if metric.is_share else f"{trial.gain.error:.4f}"
    needed = f"two standard errors (2 x {error})" if trial.part.burden else f"0 (error {error})"
    return (
        f"{used}: on folds that it was not fitted on, its gain in {metric.title} is "
        f"{metric.show_gain(trial.gain)}, {than} than {needed}{chosen}"
    )


def describe_rule(rule: Rule, runs: Sequence[str], metric: Metric) -> list[str]:
    """A line on each part that was tried; the weights of several runs."""
    lines = []
    for trial in rule.trials:
        gain = "needs two finished folds"
        if trial.gain is not None:
            gain = metric.show_gain(trial.gain.value)
        name = name_part(trial.part, metric)
        lines.append(f"{name}: {'used' if trial.used else 'not used'}, {gain}")
    if rule.correction:
        lines[-1] += f" ({rule.correction.describe()})"
    if len(runs) > 1:
        shares = zip(runs, rule.weights, strict=True)
        lines.append("weights: " + ", ".join(f"{run} {weight:.2f}" for run, weight in shares))
    return lines


def describe_expected(expected: Expected, samples: HeldOut, n_train: int) -> list[str]:
    """Lines on the expected scores, from out-of-fold samples; `n_train` are in training."""
    scored, of_test, metric = expected.scored, samples.of_test, samples.metric
    what = "" if expected.of_rule else ", nothing pooled or corrected (judging that takes 3 folds)"
    # The first row of a picture with a training sample is one.
    related = int(np.sum(of_test < n_train))
    where, weighted = "new samples", ""
    if len(of_test):
        where = "test samples unrelated to training samples" if related else "this test set"
        weighted = "weighted so that pictures are as large as in the test set; "
    lines = [
        f"expect {metric.title} {metric.show(scored.like_test)} on {where}: OOF, "
        f"{len(samples.labels)} of {n_train} training samples{what}"
    ]
    if (samples.members > 1).any():
        lone = metric.show(scored.lone) if scored.lone else "some class has none"
        lines.append(
            f"  {weighted}each picture counted once: {metric.show(scored.by_picture)}; samples "
            f"that are alone in their picture: {lone}"
        )
    if related:
        lines.append(
            f"  expect more on the {related} of {len(of_test)} that are related: no network was "
            "scored on such"
        )
    return lines


def describe_pooling(samples: HeldOut) -> list[str]:
    """Number of test samples that share a picture; a Caution if the score assumes more."""
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


def describe_members(expected: Expected, runs: Sequence[str], metric: Metric) -> list[str]:
    """A line on each run by itself; a Caution if one is better than the blend."""
    if len(runs) == 1:
        return []
    single = dict(zip(runs, expected.single, strict=True))
    lines = [f"{run} alone: {metric.show(score)}" for run, score in single.items()]
    utility = {run: metric.utility(score.value) for run, score in single.items()}
    best = max(utility, key=lambda run: utility[run])
    gain = utility[best] - metric.utility(expected.scored.like_test.value)
    if gain > 0:
        lines.append(
            Caution(
                f"{best} alone is better than this blend by {metric.show_gain(gain)}, though "
                f"choosing the best of {len(runs)} flatters it a little: consider submitting it "
                "by itself"
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
