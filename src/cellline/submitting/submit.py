"""From trained runs to a submission file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Config
from cellline.errors import Caution, UserError
from cellline.host.device import choose_device
from cellline.host.progress import say
from cellline.runs.folds import describe_choice, open_folds
from cellline.runs.run import Run, check_trained, open_runs
from cellline.submitting.decision import expect, fit_rule, hold_out, plain_rule
from cellline.submitting.inference import predict_run
from cellline.submitting.pooling import count_pooled
from cellline.submitting.submission import (
    join_names,
    render_submission,
    validate_submission,
    write_submission,
)
from cellline.submitting.words import (
    describe_counts,
    describe_expected,
    describe_members,
    describe_pooling,
    describe_rule,
    record_expected,
    record_rule,
)


def submit(config: Config, names: Sequence[str], partial: bool = False) -> Path:
    """Decide for each test sample, write the submission and return its path.

    Raises UserError if a run is missing or of other data, and, unless `partial`, if a fold of it is
    not finished. `partial` blends a run's finished folds or, if there are none, the checkpoints of
    those that were begun.
    """
    folds = open_folds(config.folders, config.reading)
    if not folds.competition.template:
        raise UserError(
            f"there is no test set in {config.folders.input_dir}: to submit, put the template and "
            "the test images there (or name them: --template, --test-images), and run `folds` "
            "again; trained folds stay valid"
        )
    runs = open_runs(config, names, folds)
    check_finished(runs, partial)
    named, metric = [run.name for run in runs], folds.metric
    device = choose_device(config.machine)
    predictions, described = zip(*(predict_run(run, device) for run in runs), strict=True)
    # Without pooling every sample is its own picture.
    picture = folds.competition.test_ids
    if all(run.finished for run in runs):
        samples = hold_out([run.oof for run in runs])
        rule, expected = fit_rule(samples), expect(samples)
        oof = record_expected(expected, samples)
        lines = describe_members(expected, named, metric)
        if rule.pooled:
            picture = samples.of_test
            lines += describe_pooling(samples)
        lines += describe_expected(expected, samples, len(folds.fold))
        lines += describe_choice(config.folders.oof_dir, folds, len(runs))
    else:
        rule, oof = plain_rule(len(runs)), None
        lines = [
            Caution(
                "a run has no finished fold: its last checkpoints predict as they are; their "
                f"held-out {metric.title} is of one view, after the last epoch that ended"
            )
        ]
    decided = rule.apply(np.stack(predictions), picture)
    data = render_submission(folds.competition, decided)
    validate_submission(data, folds.competition)

    record: dict[str, Any] = {
        "runs": described,
        "input_digest": folds.competition.digest,
        "folds_digest": folds.digest,
        "rule": record_rule(rule, named, metric),
        "pooled_samples": count_pooled(picture),
        "oof": oof,
        "precision": device.precision,
    }
    kind = "-partial" if any(run.missing for run in runs) else ""
    path = write_submission(config.folders.submissions_dir, join_names(named) + kind, data, record)
    counts = []
    if folds.competition.output == "label":
        counts = describe_counts(folds.competition, decided.predicted)
    for line in (
        *counts,
        *describe_rule(rule, named, metric),
        *lines,
        f"wrote {path} ({len(folds.competition.template)} rows)",
    ):
        say(line)
    return path


def check_finished(runs: Sequence[Run], partial: bool) -> None:
    """Raise UserError if the runs have too few finished folds to decide from."""
    if not partial:
        check_trained(
            runs, "\nTrain them, or blend those that are: the same command with --partial"
        )
    untrained = [run.name for run in runs if not run.begun and not run.finished]
    if untrained:
        raise UserError(f"no fold of {', '.join(untrained)} was begun: there is nothing to blend")
    finished = [set(run.finished) for run in runs]
    if all(finished) and not set.intersection(*finished):
        raise UserError("the runs have no finished fold in common; train one with all of them")
