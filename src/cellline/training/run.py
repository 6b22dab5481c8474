"""Training a run: its settings, then fold after fold."""

from dataclasses import replace

from cellline.config import Config
from cellline.errors import UserError
from cellline.host.device import choose_device
from cellline.host.progress import say
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.folds import open_folds
from cellline.runs.predictions import OutOfFold
from cellline.runs.run import new_run, read_record, run_folder
from cellline.scoring.metrics import balanced_accuracy, percent
from cellline.training.fold import train_fold
from cellline.training.loop import FoldTrainer
from cellline.training.ranks import LostRankError, Ranks, join_ranks
from cellline.training.settings import settle


def train_run(config: Config, processes: int = 1) -> None:
    """Train the fold that `config` names, or every fold; skip finished ones.

    Under torchrun, which `make train` starts with `processes`, every process calls this; only the
    first writes and prints. Raises UserError for settings that the run was not begun with, and for
    anything wrong with input or network; Stopped when training ended early, saved; LostRankError
    when another process has ended.
    """
    with join_ranks() as ranks:
        stop = Stop(config.machine.max_minutes)
        if ranks.size > 1:
            stop.agree = ranks.largest
            # A second Ctrl-C reaches only the process that started them.
            stop.notice = "finishing the step, then saving" if ranks.first else ""
        try:
            _train(ranks, stop, config, processes)
        except LostRankError:
            if stop.number is not None:
                raise Stopped(stop.number) from None
            raise


def _train(ranks: Ranks, stop: Stop, config: Config, processes: int) -> None:
    """Train as one of the ranks of `train_run`."""
    folds = ranks.one_by_one(lambda: open_folds(config.folders))
    folder = run_folder(config)
    if config.fold is not None and config.fold not in folds.numbers:
        raise UserError(f"--fold {config.fold}: folds are 0 to {folds.n_folds - 1}")
    ranks.check_same(
        {
            "input": folds.competition.digest,
            "folds": folds.digest,
            "program": code_version(),
            "--run": config.run,
            "--fold": config.fold,
            "--max-minutes": config.machine.max_minutes,
        }
    )
    # The OOF folder on rank 0's disk decides.
    settled = ranks.of_first(lambda: settle(config, read_record(folder), folds))
    run = new_run(replace(config, training=settled.training), folds)
    ranks.of_first(run.check_unchanged)
    device = choose_device(config.machine, ranks.local_rank, ranks.local_size)
    # Precision decides whether the loss is scaled; each kind of device has its own communication.
    ranks.check_same({"kind of device": device.device.type, "--precision": device.precision})
    say(f"run {run.name}: {settled.training.network}, {settled.line}")

    def train_one(fold: int) -> OutOfFold:
        trainer = FoldTrainer(folds, fold, settled.training, device, ranks)
        # Only now, with the network built, does the run begin.
        ranks.of_first(lambda: run.begin(settled.tuning))
        try:
            return train_fold(trainer, run, fold, stop)
        except Stopped:
            say(f"fold {fold} is saved; to resume:\n  {run.command(config.fold, processes)}")
            raise

    for fold in folds.numbers if config.fold is None else [config.fold]:
        # Another training may have finished it meanwhile.
        if fold in ranks.of_first(lambda: run.finished):
            if ranks.first:
                say(f"fold {fold} is finished already: {_describe(run.out_of_fold([fold]))}")
            continue
        # In a call of its own, which frees the network before the next fold's is built.
        say(f"fold {fold} is finished: {_describe(train_one(fold))}")
    if ranks.first and len(run.finished) > 1:
        named = ", ".join(map(str, run.finished))
        score = run.oof.score()
        say(
            f"folds {named}: {_describe(run.oof)}; "
            f"95 % interval {percent(score.low)} to {percent(score.high)}"
        )


def _describe(predictions: OutOfFold) -> str:
    """Balanced accuracy with and without test-time augmentation."""
    with_tta = balanced_accuracy(predictions.labels, predictions.predicted)
    plain = balanced_accuracy(predictions.labels, predictions.prob_plain.argmax(1))
    return f"OOF BAC {percent(with_tta)} with all views, {percent(plain)} with one"
