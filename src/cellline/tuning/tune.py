"""Tuning the learning rate and the batch size with Optuna, on one held-out fold."""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from cellline.config import Config, Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device, choose_device
from cellline.host.files import write_json
from cellline.host.locking import one_writer
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.folds import IGNORING_GROUPS, Folds, open_folds
from cellline.scoring.metrics import percent
from cellline.training.learner import DivergedError
from cellline.training.memory import TooLittleMemoryError
from cellline.training.settings import BEST, Tuned
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer
from cellline.tuning.retrying import put_back
from cellline.tuning.storage import JOURNAL, open_storage
from cellline.tuning.study import (
    FINISHED,
    begin_trial,
    best_trial,
    count,
    describe_study,
    end_trial,
    open_study,
    starting_point,
)

# How often a worker looks that waits for the trials of others.
LOOK_SECONDS = 1.0
# For another worker that writes best.json into the same folder.
WRITING_SECONDS = 60.0


def tune(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    *,
    fold: int,
    trials: int,
    folder: Path,
    storage: str | None,
    stop: Stop,
    report: Callable[[str], None],
) -> Tuned:
    """Run trials until `trials` have finished in a study, which others may work at; the best one.

    The study is in `storage`, by default in a journal in `folder`; best.json is written to `folder`
    after each trial. A trial trains fold `fold` for `training.epochs` epochs and is scored by the
    balanced accuracy of the held-out rows after the last (not the best) epoch. Where enough trials
    are under way elsewhere, it waits for their end.

    Wherever an earlier process ended, a trial that was under way is marked failed, and another
    tries its parameters again from their beginning: with one worker at a time, the finished trials
    become those of a study that was never interrupted. Raises UserError when the study is of other
    settings or data, damaged, or can't be reached; Stopped when `stop` says so.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings = describe_study(competition, folds, training, fold)
    store = open_storage(storage or str(folder / JOURNAL), report)
    with store.joined(), stop.on_signals():
        study = open_study(store, settings, starting_point(training))
        if study.user_attrs["code"] != code_version():
            report(
                "warning: this study was begun with another version of this program "
                f"({study.user_attrs['code'][:12]}) than the one that goes on "
                f"({code_version()[:12]}): its trials may not be alike"
            )

        def keep_best() -> Tuned | None:
            # Others may write it at the same time: the last to do so has seen all.
            with one_writer(folder, "tuning", WRITING_SECONDS):
                best = best_trial(study)
                if best is None:
                    return None
                tuned = Tuned(
                    lr=best.params["lr"],
                    batch_size=best.params["batch_size"],
                    bac=float(best.value or 0.0),
                    fold=fold,
                    trials=count(study, FINISHED),
                    settings=settings["settings"],
                    input_digest=competition.digest,
                    folds_digest=folds.digest,
                    code=code_version(),
                )
                write_json(folder / BEST, asdict(tuned))
            return tuned

        # Also of what an earlier process had finished when it was killed.
        keep_best()
        is_waiting = False
        try:
            while (finished := count(study, FINISHED)) < trials:
                stop.check()
                trial = begin_trial(study, store, settings, trials, training.seed)
                if trial is None:
                    if not is_waiting:
                        report(
                            f"{finished} of {trials} trials are finished, and others are at the "
                            "rest: waiting for them"
                        )
                    is_waiting = True
                    time.sleep(LOOK_SECONDS)
                    continue
                is_waiting = False
                with store.alive(trial):
                    run_trial(
                        study, trial, competition, folds, training, device, fold, stop, report
                    )
                # Now, not at the end: whoever has no time for all trials trains with these.
                keep_best()
        except Stopped:
            report(
                f"{finished} of {trials} trials are finished and kept"
                + ("" if is_waiting else "; the one that was under way begins again next time")
            )
            raise
        # Others may have ended the last trials since.
        tuned = keep_best()
        if tuned is None:
            raise UserError(
                f"no trial came to its end; move the study in {store.name} away, or name another "
                "--storage, and start with a lower --lr, or --batch-size"
            )
    return tuned


def run_trial(
    study: optuna.Study,
    trial: Trial,
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    fold: int,
    stop: Stop,
    report: Callable[[str], None],
) -> None:
    """Train with a trial's parameters and tell the study the result.

    Where `stop` ends it, the trial is put back for whoever comes next.
    """
    lr, batch_size = trial.params["lr"], trial.params["batch_size"]
    title = f"trial {trial.number}: lr {lr:.2g}, batch size {batch_size}"
    training = replace(training, lr=lr, batch_size=batch_size)
    try:
        bac, outcome = train_trial(trial, title, competition, folds, training, device, fold, stop)
        end_trial(study, trial, bac)
    except UpdateFinishedTrialError:
        report(f"{title}: left to another, as this worker was not heard of and taken for dead")
        return
    except Stopped:
        failed = study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        put_back(study, failed, died=False)
        raise
    best = best_trial(study)
    if bac is not None and best is not None:
        outcome += f"; best so far {percent(best.value or 0.0)}"
    report(f"{title}: {outcome}")


def train_trial(
    trial: Trial,
    title: str,
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    fold: int,
    stop: Stop,
) -> tuple[float | None, str]:
    """A trial's score, None where it is pruned, and what to say of it.

    Raises what `stop` does, and UpdateFinishedTrialError as `end_trial`.
    """
    try:
        trainer = FoldTrainer(Task(folds, fold, training, device), title)
        for epoch in range(training.epochs):
            bac = trainer.train_epoch(stop.check).held_out_bac
            trial.report(bac, epoch)
            if trial.should_prune() and epoch + 1 < training.epochs:
                return None, f"pruned after epoch {epoch + 1} at {percent(bac)}"
    except DivergedError:
        # Not a failure, after which the same parameters would be tried again. Nor is the next.
        return None, "the loss is no longer a number"
    except TooLittleMemoryError as error:
        return None, str(error)
    return bac, f"held-out BAC {percent(bac)}"


def tune_run(
    config: Config, trials: int, report: Callable[[str], None], storage: str | None = None
) -> None:
    """Tune on the fold that `config` names (by default 0), with its epochs for a trial."""
    folds = open_folds(config.folders)
    competition = folds.competition
    fold = config.fold or 0
    if fold not in range(folds.n_folds):
        raise UserError(f"--fold {fold}: folds are 0 to {folds.n_folds - 1}")
    if trials < 1:
        raise UserError(f"--trials {trials}: at least 1 is needed")
    if folds.ignore_groups:
        report(IGNORING_GROUPS)
    folder = config.folders.oof_dir / "tuning"
    device = choose_device(config.machine)
    tuned = tune(
        competition,
        folds,
        config.training,
        device,
        fold=fold,
        trials=trials,
        folder=folder,
        storage=storage,
        stop=Stop(config.machine.max_minutes),
        report=report,
    )
    report(
        f"best trial of {tuned.trials} on fold {fold}: learning rate {tuned.lr:.3g}, batch size "
        f"{tuned.batch_size} (held-out BAC {percent(tuned.bac)} after {config.training.epochs} "
        f"epochs). New runs of {config.training.network} use them; {folder / BEST} says so"
    )
