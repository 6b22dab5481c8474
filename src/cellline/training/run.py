"""Training a run: its settings, then one fold after another."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cellline.config import Config
from cellline.errors import UserError
from cellline.host.device import choose_device
from cellline.host.progress import say
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.model.weights import Start, find_start
from cellline.runs.folds import describe_choice, open_folds
from cellline.runs.predictions import OutOfFold
from cellline.runs.run import Fitted, Run, last_score, new_run, read_fitted, read_record
from cellline.scoring.decisions import likeliest
from cellline.training.fitting import fit_schedule
from cellline.training.fold import train_fold
from cellline.training.ranks import LostRankError, Ranks, join_ranks
from cellline.training.settings import SCHEDULE, Settled, describe_enlarging, settle
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer


def train_run(config: Config, processes: int = 1) -> None:
    """Train the fold that `config` names, or every fold; skip finished ones.

    Under torchrun, which `train` starts for several `processes`, each of them calls this; only the
    first writes and prints. Raises UserError if the run was begun with other settings, or if
    anything is wrong with input or network; Stopped if training was saved and ended early;
    LostRankError if another process has ended.
    """
    with join_ranks() as ranks:
        stop = Stop(config.machine.max_minutes)
        if ranks.size > 1:
            stop.agree = ranks.largest
            # A second Ctrl-C reaches only the process that started them: don't promise it.
            stop.notice = "finishing the step" if ranks.first else ""
        try:
            train_folds(ranks, stop, config, processes)
        except LostRankError:
            if stop.number is not None:
                raise Stopped(stop.number) from None
            raise


def train_folds(ranks: Ranks, stop: Stop, config: Config, processes: int) -> None:
    """Do the work of `train_run` as one of the ranks."""
    folds = ranks.local_first(lambda: open_folds(config.folders, config.reading, for_training=True))
    run = new_run(config, folds)
    if config.fold is not None and config.fold not in folds.numbers:
        raise UserError(f"--fold {config.fold}: folds are 0 to {folds.n_folds - 1}")
    ranks.check_same(
        {
            "input": folds.competition.digest,
            "folds": folds.digest,
            "program": code_version(),
            "--run": run.name,
            "--fold": config.fold,
            "--max-minutes": config.machine.max_minutes,
            "--fit-minutes": config.machine.fit_minutes,
        }
    )
    wanted = folds.numbers if config.fold is None else [config.fold]
    # The OOF folder on rank 0's disk decides.
    recorded = ranks.of_first(lambda: read_record(run.folder))
    start = choose_start(run, wanted, recorded, ranks)

    def settle_now() -> Settled:
        fitted = read_fitted(run.folder)
        return settle(config, read_record(run.folder), folds, start.digest, fitted)

    settled = ranks.of_first(settle_now)
    run = new_run(replace(config, training=settled.training), folds, start.digest)
    ranks.of_first(run.check_unchanged)
    device = choose_device(config.machine, ranks.local_rank, ranks.local_size)
    # The precision decides if the loss is scaled; each kind of device communicates in its own way.
    ranks.check_same({"kind of device": device.device.type, "--precision": device.precision})
    of = f" from {start.path}" if start.path else ""
    say(f"run {run.name}: {settled.training.network}{of}, {settled.line}")
    if recorded is None and config.machine.fit_minutes is not None:
        task = Task(folds, wanted[0], settled.training, device, ranks, start)
        begin_fitted(task, run, settled, len(wanted))
        settled = ranks.of_first(settle_now)
        run = new_run(replace(config, training=settled.training), folds, start.digest)
    for caution in describe_enlarging(settled.training, folds.competition):
        say(caution)
    if settled.training.symmetry == "d4":
        say(
            "images are flipped and turned (--symmetry d4): right for microscopes; for photographs "
            "give mirror, for text, digits and X-rays none"
        )

    def train_one(fold: int) -> OutOfFold:
        trainer = FoldTrainer(Task(folds, fold, settled.training, device, ranks, start))
        # Only now: a network that can't be built leaves no run behind.
        ranks.of_first(lambda: run.begin(settled.tuning))
        try:
            return train_fold(trainer, run, stop)
        except Stopped:
            score = f", {last_score(trainer.history, run.metric)}" if trainer.history else ""
            say(f"fold {fold} is saved{score}; to resume:\n  {run.command(config.fold, processes)}")
            raise

    for fold in wanted:
        # Looked up each time: another training may have finished it meanwhile.
        if fold in ranks.of_first(lambda: run.finished):
            if ranks.first:
                say(f"fold {fold} is finished already: {describe(run.out_of_fold([fold]))}")
            continue
        # A call of its own frees the network before the next fold's is built.
        say(f"fold {fold} is finished: {describe(train_one(fold))}")
    if ranks.first and len(run.finished) > 1:
        say_whole(run)


def say_whole(run: Run) -> None:
    """Print the score of all finished folds."""
    named, score, show = ", ".join(map(str, run.finished)), run.oof.score(), run.folds.metric.show
    say(
        f"folds {named}: {describe(run.oof)}; 95 % interval {show(score.low)} to {show(score.high)}"
    )
    for line in describe_choice(run.config.folders.oof_dir, run.folds):
        say(line)


def choose_start(
    run: Run, wanted: Sequence[int], recorded: dict[str, Any] | None, ranks: Ranks
) -> Start:
    """The weights that a run starts from.

    If the `wanted` folds are finished, they need no file: the digest in the `recorded` config.json
    stands. Raises UserError if there is no such file, or if the ranks have different ones.
    """
    training = run.config.training
    finished = ranks.of_first(lambda: set(wanted) <= set(run.finished))
    if finished and recorded is not None and recorded["settings"]["weights"] == training.weights:
        return Start(digest=recorded["weights_digest"])
    try:
        start = ranks.local_first(lambda: find_start(training.network, training.weights))
    except UserError as error:
        if recorded is None:
            raise
        digest = recorded["weights_digest"]
        begun_with = f"weights of SHA-256 {digest}" if digest else "--weights none"
        raise UserError(
            f"{error}\n{run.folder} was begun with {begun_with}: give the same to resume it"
        ) from error
    ranks.check_same({"--weights": start.digest})
    return start


def begin_fitted(task: Task, run: Run, settled: Settled, n_folds: int) -> None:
    """Begin a run with the schedule that --fit-minutes allows.

    If another process has begun the run meanwhile, its schedule stands.
    """
    minutes = run.config.machine.fit_minutes
    assert minutes is not None
    chosen = fit_schedule(task, minutes, n_folds, run.config.folders.oof_dir)
    replaced = {name: getattr(task.training, name) for name in SCHEDULE}
    begun = new_run(replace(run.config, training=chosen), run.folds, task.start.digest)

    def begin() -> None:
        try:
            begun.begin(settled.tuning, Fitted(minutes, n_folds, replaced))
        except UserError:
            if read_record(run.folder) is None:
                raise

    task.ranks.of_first(begin)


def describe(predictions: OutOfFold) -> str:
    """Scores with and without test-time augmentation; one score without symmetry."""
    metric = predictions.folds.metric
    with_tta, plain = (
        metric.show(metric.score(predictions.labels, decided))
        for decided in (predictions.decided, likeliest(predictions.prob_plain))
    )
    score = f"OOF {metric.title} {with_tta}"
    if np.array_equal(predictions.prob, predictions.prob_plain):
        return score
    return f"{score} with all views, {plain} with one"
