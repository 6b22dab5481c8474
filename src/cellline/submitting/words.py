"""A submission in words, and its record as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from cellline.data.competition import Competition
from cellline.errors import Caution
from cellline.host.names import align, name_classes
from cellline.scoring.metrics import points, with_interval
from cellline.submitting.decision import Expected, PartTrial, Rule
from cellline.submitting.pooling import count_pooled


def record_expected(expected: Expected, n: int) -> dict[str, Any]:
    """The expected score for a submission's record, from `n` out-of-fold samples."""
    # The rule's score if three folds or more can judge it, else the plain rule's.
    scored = expected.of_rule or expected.plain
    return {
        "of_rule": expected.of_rule is not None,
        "bac": scored.value,
        "interval": scored.interval,
        "samples": n,
        "plain_bac": expected.plain.value,
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
    return (
        f"{used}: on folds that it was not fitted on, it changes BAC by {points(trial.gain)} "
        f"points; {100 * trial.gain.value:.2f} is {than} than its standard error, "
        f"{100 * trial.gain.error:.2f}"
    )


def describe_rule(rule: Rule, runs: Sequence[str]) -> list[str]:
    """Lines on the parts that were tried beyond the plain rule, and on those in use."""
    lines = [f"{trial.part}: {explain(trial)}" for trial in rule.trials]
    if len(runs) > 1:
        shares = zip(runs, rule.weights, strict=True)
        lines.append("weights: " + ", ".join(f"{run} {weight:.2f}" for run, weight in shares))
    if rule.correction:
        lines.append(
            f"temperature {rule.correction.temperature:.2f}; share of the prior that training had "
            f"divided out: {rule.correction.prior_share:.2f}"
        )
    return lines


def describe_expected(expected: Expected, n: int, n_train: int) -> list[str]:
    """Lines on the expected score, from `n` out-of-fold samples among `n_train`."""
    judged = (
        f", fitted for each fold on the others: {with_interval(expected.of_rule)}"
        if expected.of_rule
        else ": three finished folds are needed to judge it"
    )
    return [
        f"OOF BAC with equal weights, nothing pooled or corrected, on {n} of {n_train} training "
        f"samples: {with_interval(expected.plain)} (95 % interval)",
        f"OOF BAC of this rule{judged}",
    ]


def describe_pooling(of_test: np.ndarray, scored: np.ndarray) -> list[str]:
    """Lines on how many samples share a picture, in the test set [m] and among those scored [n]."""
    pooled, pooled_scored = count_pooled(of_test), count_pooled(scored)
    lines = [
        f"pooled with others of their picture: {pooled} of {len(of_test)} test samples; for the "
        "OOF BAC, with pictures thinned to the size of the test set, "
        f"{pooled_scored} of {len(scored)}"
    ]
    if pooled / len(of_test) < pooled_scored / len(scored):
        lines.append(
            Caution(
                "fewer of the test samples share a picture, so they gain less by pooling than the "
                "OOF BAC of this rule says"
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
