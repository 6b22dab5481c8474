"""Training a run: its settings, then fold after fold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cellline.audit.leak import describe_run_leak
from cellline.config import Config
from cellline.errors import UserError
from cellline.host.device import choose_device
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.folds import IGNORING_GROUPS, open_folds, read_record
from cellline.runs.run_folder import (
    OutOfFold,
    check_same_run,
    check_scored,
    claim_run,
    describe_run,
    finished_folds,
    read_config,
    read_out_of_fold,
    run_folder,
    score_out_of_fold,
    train_command,
)
from cellline.scoring.metrics import balanced_accuracy, percent
from cellline.training.fold import train_fold
from cellline.training.loop import FoldTrainer
from cellline.training.ranks import LostRankError, Ranks, join_ranks
from cellline.training.settings import settle


def train_run(config: Config, report: Callable[[str], None], processes: int = 1) -> None:
    """Train the fold that `config` names, or every fold; finished ones are skipped.

    Under torchrun with all the processes that it has started, of which the first alone writes and
    reports; `make train` has started `processes`. Raises UserError for settings that the run was
    not begun with, and everything that reading the input and building the network can find wrong;
    Stopped when it was ended early, and saved; LostRankError when another process has ended.
    """
    with join_ranks() as ranks:
        stop = Stop(config.machine.max_minutes)
        if ranks.size > 1:
            stop.agree = ranks.largest
            # A second Ctrl-C reaches who started them alone.
            stop.notice = "finishing the step, then saving" if ranks.first else ""
        try:
            train_with(ranks, stop, config, report, processes)
        except LostRankError:
            if stop.number is not None:
                raise Stopped(stop.number) from None
            raise


def train_with(
    ranks: Ranks, stop: Stop, config: Config, report: Callable[[str], None], processes: int
) -> None:
    """Be one of the ranks of `train_run`."""
    competition, folds = ranks.one_by_one(lambda: open_folds(config.folders))
    folder = run_folder(config.folders.oof_dir, config.run)
    if config.fold is not None and config.fold not in range(folds.n_folds):
        raise UserError(f"--fold {config.fold}: folds are 0 to {folds.n_folds - 1}")
    ranks.check_same(
        {
            "input": competition.digest,
            "folds": folds.digest,
            "program": code_version(),
            "--run": config.run,
            "--fold": config.fold,
            "--max-minutes": config.machine.max_minutes,
        }
    )
    # Of the OOF folder's runs rank 0's disk decides.
    training, source, chosen = ranks.of_first(
        lambda: settle(
            config.training, read_config(folder), config.folders.oof_dir, competition, folds
        )
    )
    record = describe_run(training, competition, folds)
    ranks.of_first(lambda: continue_run(folder, record, folds.n_folds))
    device = choose_device(config.machine, ranks.local_rank, ranks.local_size)
    # A precision scales the loss or does not, and a kind of device has its own way to talk.
    ranks.check_same({"kind of device": device.device.type, "--precision": device.precision})
    if folds.ignore_groups:
        report(IGNORING_GROUPS)
    report(f"run {config.run}: {training.network}, {source}")

    def train_one(fold: int) -> OutOfFold:
        trainer = FoldTrainer(competition, folds, fold, training, device, ranks)
        # Only now, when the network could be built, does the run begin.
        ranks.of_first(lambda: claim_run(folder, record, chosen))
        try:
            return train_fold(
                trainer,
                folder / f"fold{fold}",
                record,
                fold,
                stop,
                tensorboard=config.machine.tensorboard,
            )
        except Stopped:
            command = train_command(
                config.folders, config.run, config.fold, config.machine, processes
            )
            report(f"what fold {fold} has is saved; to go on from there:\n  {command}")
            raise

    for fold in range(folds.n_folds) if config.fold is None else [config.fold]:
        # Another training may have finished it meanwhile.
        if fold in ranks.of_first(lambda: finished_folds(folder, folds.n_folds)):
            if ranks.first:
                predictions = read_out_of_fold(folder, [fold])
                report(f"fold {fold} is finished already: {describe_scores(predictions)}")
            continue
        # In a call of its own: the network is gone before the next fold's is built.
        predictions = train_one(fold)
        report(f"fold {fold} is finished: {describe_scores(predictions)}")
    if not ranks.first:
        return
    finished = finished_folds(folder, folds.n_folds)
    if len(finished) > 1:
        predictions = read_out_of_fold(folder, finished)
        interval = score_out_of_fold(predictions, competition, folds).interval
        report(
            f"folds {', '.join(map(str, finished))}: {describe_scores(predictions)}; "
            f"95 % interval {percent(interval[0])} to {percent(interval[1])}"
        )
    if folds.ignore_groups and finished:
        share = read_record(config.folders.oof_dir)["audit"]["test_grouped"]
        share /= len(competition.test_ids)
        predictions = read_out_of_fold(folder, finished)
        for line in describe_run_leak(predictions, competition, folds, share):
            report(line)


def continue_run(folder: Path, record: dict[str, Any], n_folds: int) -> None:
    """Raise UserError where the run was begun with another config; restore a lost one."""
    check_same_run(folder, record)
    finished = finished_folds(folder, n_folds)
    if finished and read_config(folder) is None:
        # It was lost, or moved away as damaged: the folds say what it must have been.
        for fold in finished:
            check_scored(folder / f"fold{fold}" / "oof.npz", {**record, "fold": fold})
        claim_run(folder, record)


def describe_scores(predictions: OutOfFold) -> str:
    """The balanced accuracy with and without test-time augmentation."""
    with_tta = balanced_accuracy(predictions.labels, predictions.prob.argmax(1))
    plain = balanced_accuracy(predictions.labels, predictions.prob_plain.argmax(1))
    return f"OOF BAC {percent(with_tta)} with all views, {percent(plain)} with one"
