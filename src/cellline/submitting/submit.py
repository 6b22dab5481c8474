"""From trained runs to a submission file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellline.audit.groups import audit_copies
from cellline.config import Config, Folders
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device, choose_device
from cellline.host.names import align, name_classes
from cellline.runs.folds import Folds, open_folds
from cellline.runs.run_folder import (
    check_run,
    finished_folds,
    read_out_of_fold,
    run_folder,
    train_command,
)
from cellline.scoring.metrics import with_interval
from cellline.submitting.blend import blend, common_samples
from cellline.submitting.decision import (
    Expected,
    HeldOut,
    Rule,
    expect,
    fit_rule,
    hold_out,
    plain_rule,
)
from cellline.submitting.inference import UntrainedError, predict_test
from cellline.submitting.pooling import count_pooled
from cellline.submitting.submission import (
    join_names,
    render_submission,
    validate_submission,
    write_submission,
)


def submit(
    config: Config, runs: Sequence[str], partial: bool, report: Callable[[str], None]
) -> Path:
    """Decide the test set from all folds of `runs` and write the submission; its path.

    Raises UserError when a run is missing or of other data, and, unless `partial`, when a fold of
    it has not been trained. `partial` blends the finished folds of a run, and where it has none
    those that were begun, so that there is always something to submit.
    """
    competition, folds = open_folds(config.folders)
    folders = [run_folder(config.folders.oof_dir, run) for run in dict.fromkeys(runs)]
    configs = [check_run(folder, competition, folds) for folder in folders]
    finished = [finished_folds(folder, folds.n_folds) for folder in folders]
    check_finished(config.folders, folders, finished, folds.n_folds, partial)
    if folds.ignore_groups:
        report(
            "warning: these folds ignore groups, so networks have seen pictures that belong "
            "together with those they are scored on: the OOF score flatters, and the decision rule "
            "is fitted to such predictions. Submit from folds that keep groups together"
        )

    device = choose_device(config.machine)
    predictions, described = [], []
    for folder, run_config, there in zip(folders, configs, finished, strict=True):
        by = there or begun_folds(folder)
        prob, description = predict_run(folder, run_config, by, competition, device)
        predictions.append(prob)
        described.append(description)
    if all(finished):
        samples = gather(folders, finished, competition, folds)
        rule, expected = fit_rule(samples), expect(samples)
        expectation = describe_expected(expected, len(samples.labels), len(competition.labels))
        oof = record_expected(expected, len(samples.labels), folds.ignore_groups)
    else:
        rule, oof = plain_rule(len(folders)), None
        expectation = [
            "warning: a run has no finished fold: the weights of its last checkpoints predict as "
            "they are, and nothing tells how well"
        ]
    # Each its own, where it makes no difference: the search takes a while.
    picture = competition.test_ids
    if rule.pooled:
        report("looking for copies and overlaps")
        picture = audit_copies(competition, config.folders.oof_dir).test_group
        expectation += describe_pooling(picture, samples.picture)
    predicted = rule.apply(np.stack(predictions), picture).predicted
    data = render_submission(competition, predicted)
    validate_submission(data, competition)

    names = [folder.name for folder in folders]
    record: dict[str, Any] = {
        "runs": described,
        "input_digest": competition.digest,
        "folds_digest": folds.digest,
        "rule": record_rule(rule, names, competition.classes),
        "pooled_samples": count_pooled(picture),
        "oof": oof,
        "precision": device.precision,
    }
    whole = all(len(there) == folds.n_folds for there in finished)
    kind = ("" if whole else "-partial") + ("-leaky" if folds.ignore_groups else "")
    name = join_names(names) + kind
    path = write_submission(config.folders.submissions_dir, name, data, record)
    for line in (
        *describe_counts(competition, predicted),
        *describe_rule(rule, names),
        *expectation,
        f"wrote {path} ({len(predicted)} rows)",
    ):
        report(line)
    return path


def check_finished(
    where: Folders,
    folders: Sequence[Path],
    finished: Sequence[list[int]],
    n_folds: int,
    partial: bool,
) -> None:
    """Raise UserError where the finished folds of the runs are too few to decide from."""
    missing = [
        train_command(where, folder.name, fold)
        for folder, there in zip(folders, finished, strict=True)
        for fold in range(n_folds)
        if fold not in there
    ]
    if missing and not partial:
        raise UserError(
            "these folds have not been trained:\n  " + "\n  ".join(missing) + "\n"
            "Train them, or blend what there is: the same command with ARGS=--partial"
        )
    untrained = [
        folder.name
        for folder, there in zip(folders, finished, strict=True)
        if not there and not begun_folds(folder)
    ]
    if untrained:
        raise UserError(f"no fold of {', '.join(untrained)} was begun: there is nothing to blend")
    if all(finished) and not set.intersection(*map(set, finished)):
        raise UserError("the runs have no finished fold in common; train one with all of them")


def begun_folds(folder: Path) -> list[int]:
    """The folds of a run that have a checkpoint."""
    there = {path.parent.name for path in folder.glob("fold[0-9]*/checkpoint*.pt")}
    return sorted(int(name.removeprefix("fold")) for name in there)


def predict_run(
    folder: Path,
    config: dict[str, Any],
    folds: list[int],
    competition: Competition,
    device: Device,
) -> tuple[np.ndarray, dict[str, Any]]:
    """A run's test predictions [test sample, class], the mean of its folds', and what made them.

    Folds that were begun, but not trained for a step, are left out. Raises UserError if all are.
    """
    probs, models, untrained = [], {}, []
    for fold in folds:
        try:
            prob, digest = predict_test(folder / f"fold{fold}", config, competition, device)
        except UntrainedError as error:
            untrained.append(error)
        else:
            probs.append(prob)
            models[str(fold)] = digest
    if not probs:
        raise untrained[0]
    description = {"run": folder.name, "settings": config["settings"], "models": models}
    return blend(probs), description


def gather(
    folders: Sequence[Path],
    finished: Sequence[list[int]],
    competition: Competition,
    folds: Folds,
) -> HeldOut:
    """The out-of-fold predictions of the samples that all runs have."""
    runs = common_samples(
        [read_out_of_fold(folder, there) for folder, there in zip(folders, finished, strict=True)]
    )
    return hold_out(runs, competition, folds)


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
            "warning: fewer of the test samples share a picture, so they gain less by pooling than "
            "the OOF BAC of this rule says"
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
