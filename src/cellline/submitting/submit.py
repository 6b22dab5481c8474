"""From trained runs to a submission file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellline.audit.groups import audit_copies
from cellline.config import Config
from cellline.data.competition import Competition
from cellline.errors import Caution, UserError
from cellline.host.device import choose_device
from cellline.host.names import align, name_classes
from cellline.host.progress import say
from cellline.runs.folds import open_folds
from cellline.runs.run import Run, open_runs
from cellline.scoring.metrics import with_interval
from cellline.submitting.decision import Expected, Rule, expect, fit_rule, hold_out, plain_rule
from cellline.submitting.inference import predict_run
from cellline.submitting.pooling import count_pooled
from cellline.submitting.submission import (
    join_names,
    render_submission,
    validate_submission,
    write_submission,
)


def submit(config: Config, names: Sequence[str], partial: bool = False) -> Path:
    """Decide the test set from all folds of some runs, write the submission and return its path.

    Raises UserError if a run is missing or of other data, and, unless `partial`, if a fold of it is
    not finished. `partial` blends a run's finished folds, and if it has none those that were begun,
    so that there is always something to submit.
    """
    folds = open_folds(config.folders)
    runs = open_runs(config, names, folds)
    check_finished(runs, partial)
    if folds.ignore_groups:
        say(
            Caution(
                "these folds ignore groups, so networks have seen relatives of the samples that "
                "score them: the OOF score flatters, and the decision rule is fitted to such "
                "predictions. Submit from folds that keep groups together"
            )
        )
    device = choose_device(config.machine)
    predictions, described = zip(*(predict_run(run, device) for run in runs), strict=True)
    outlook = judge_rule(runs)
    # Without pooling every sample is its own picture; the search for copies takes a while.
    picture = folds.competition.test_ids
    if outlook.rule.pooled:
        say("looking for copies and overlaps")
        picture = audit_copies(folds.competition, config.folders.oof_dir).test_group
        outlook.lines += describe_pooling(picture, outlook.picture)
    predicted = outlook.rule.apply(np.stack(predictions), picture).predicted
    data = render_submission(folds.competition, predicted)
    validate_submission(data, folds.competition)

    named = [run.name for run in runs]
    record: dict[str, Any] = {
        "runs": described,
        "input_digest": folds.competition.digest,
        "folds_digest": folds.digest,
        "rule": record_rule(outlook.rule, named, folds.competition.classes),
        "pooled_samples": count_pooled(picture),
        "oof": outlook.record,
        "precision": device.precision,
    }
    kind = ("-partial" if any(run.missing for run in runs) else "") + (
        "-leaky" if folds.ignore_groups else ""
    )
    path = write_submission(config.folders.submissions_dir, join_names(named) + kind, data, record)
    for line in (
        *describe_counts(folds.competition, predicted),
        *describe_rule(outlook.rule, named),
        *outlook.lines,
        f"wrote {path} ({len(predicted)} rows)",
    ):
        say(line)
    return path


def check_finished(runs: Sequence[Run], partial: bool) -> None:
    """Raise UserError if the runs have too few finished folds to decide from."""
    missing = [run.command(fold) for run in runs for fold in run.missing]
    if missing and not partial:
        raise UserError(
            "these folds are not trained:\n  " + "\n  ".join(missing) + "\n"
            "Train them, or blend those that are: the same command with --partial"
        )
    untrained = [run.name for run in runs if not run.begun and not run.finished]
    if untrained:
        raise UserError(f"no fold of {', '.join(untrained)} was begun: there is nothing to blend")
    finished = [set(run.finished) for run in runs]
    if all(finished) and not set.intersection(*finished):
        raise UserError("the runs have no finished fold in common; train one with all of them")


@dataclass
class Outlook:
    """The decision rule, and the score that it may expect."""

    rule: Rule
    picture: np.ndarray
    """[n]: the pictures of the out-of-fold samples that judged the rule"""
    lines: list[str]
    record: dict[str, Any] | None
    """The expected score for the submission's record; None if no fold is finished."""


def judge_rule(runs: Sequence[Run]) -> Outlook:
    """Fit the decision rule to the runs' out-of-fold predictions and estimate its score."""
    if not all(run.finished for run in runs):
        unknown = Caution(
            "a run has no finished fold: its last checkpoints predict as they are, and no score "
            "is known"
        )
        return Outlook(plain_rule(len(runs)), np.empty(0), [unknown], None)
    samples = hold_out([run.oof for run in runs])
    rule, expected = fit_rule(samples), expect(samples)
    folds = runs[0].folds
    lines = describe_expected(expected, len(samples.labels), len(folds.competition.labels))
    record = record_expected(expected, len(samples.labels), folds.ignore_groups)
    return Outlook(rule, samples.picture, lines, record)


def record_expected(expected: Expected, n: int, ignoring_groups: bool) -> dict[str, Any]:
    """What `n` out-of-fold samples let one expect, for a submission's record."""
    scored = expected.bac or expected.plain_bac
    return {
        "ignoring_groups": ignoring_groups,
        # Of the rule where three folds or more can judge it, else of the plain rule.
        "of_rule": expected.bac is not None,
        "bac": scored.value,
        "interval": scored.interval,
        "samples": n,
        "plain_bac": expected.plain_bac.value,
    }


def record_rule(rule: Rule, runs: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """The rule for a submission's record."""
    correction = rule.correction and {
        "temperature": rule.correction.temperature,
        "prior_share": rule.correction.prior_share,
        "prior": dict(zip(classes, rule.correction.prior, strict=True)),
    }
    trials = [
        {
            "part": trial.part,
            "gain": trial.gain
            and {
                "bac": trial.gain.value,
                "interval": trial.gain.interval,
                "standard_error": trial.gain.error,
            },
            "used": trial.used,
            "why": trial.why,
        }
        for trial in rule.trials
    ]
    return {
        "pooled": rule.pooled,
        "weights": dict(zip(runs, rule.weights, strict=True)),
        "correction": correction,
        "trials": trials,
    }


def describe_rule(rule: Rule, runs: Sequence[str]) -> list[str]:
    """What was tried beyond the plain rule, and what is used, a line each."""
    lines = [f"{trial.part}: {trial.why}" for trial in rule.trials]
    if len(runs) > 1:
        shares = zip(runs, rule.weights, strict=True)
        lines.append("weights: " + ", ".join(f"{run} {weight:.2f}" for run, weight in shares))
    if rule.correction:
        lines.append(
            f"temperature {rule.correction.temperature:.2f}; the share of the prior that training "
            f"had divided out: {rule.correction.prior_share:.2f}"
        )
    return lines


def describe_expected(expected: Expected, n: int, n_train: int) -> list[str]:
    """What `n` out-of-fold samples among `n_train` let one expect, a line each."""
    plain = expected.plain_bac
    lines = [
        f"OOF BAC with equal weights, nothing pooled or corrected, on {n} of {n_train} training "
        f"samples: {with_interval(plain)} (95 % interval)",
        f"OOF BAC of this rule, made anew for each fold from the others: "
        f"{with_interval(expected.bac)}"
        if expected.bac
        else "OOF BAC of this rule: three finished folds are needed to judge it",
    ]
    before, after = expected.calibration_error, expected.corrected_calibration_error
    line = f"expected calibration error of equal weights: {with_interval(before)}"
    if after:
        line += f", corrected on other folds {with_interval(after)}"
    return [*lines, line]


def describe_pooling(of_test: np.ndarray, scored: np.ndarray) -> list[str]:
    """How many samples share their picture, of the test set's [m] and of those scored [n]."""
    pooled, pooled_scored = count_pooled(of_test), count_pooled(scored)
    lines = [
        f"pooled with others of their picture: {pooled} of {len(of_test)} test samples; for the "
        f"OOF BAC, pictures thinned as the test set is smaller, {pooled_scored} of {len(scored)}"
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
    """Predicted class counts beside the training ones, a line each."""
    n_classes = len(competition.classes)
    train = np.bincount(competition.labels, minlength=n_classes)
    test = np.bincount(predicted, minlength=n_classes)
    margin, *names = align(["", *name_classes(competition.classes)])
    lines = [margin + "        training       predicted"]
    for index, name in enumerate(names):
        shares = [f"{c[index]:7d} {c[index] / c.sum():7.1%}" for c in (train, test)]
        lines.append(f"{name} {'  '.join(shares)}")
    return lines
