"""Tuning the learning rate and the batch size with Optuna, on one held-out fold."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from cellline.config import DEFAULT_BATCH_SIZE, DEFAULT_LR, Config, Training
from cellline.data.competition import Competition
from cellline.data.folds import IGNORING_GROUPS, Folds, open_folds
from cellline.device import Device, choose_device
from cellline.errors import UserError
from cellline.files import write_json
from cellline.journal import Journal, cut_unfinished_line
from cellline.locking import one_writer
from cellline.prediction.metrics import percent
from cellline.prediction.run_folder import compare
from cellline.seeding import TUNING, derive_seed
from cellline.stopping import Stop, Stopped
from cellline.training.loop import DivergedError, FoldTrainer
from cellline.training.memory import TooLittleMemoryError
from cellline.training.progress import Progress
from cellline.training.settings import BEST, Tuned
from cellline.versions import code_version

JOURNAL = "journal.log"
STUDY = "lr-and-batch-size"
# From a decade and a half below the known solution's 1e-3 to a decade above.
LR_RANGE = (3e-5, 1e-2)
BATCH_SIZES = (16, 32, 64, 128)
# A trial is pruned when after an epoch it is below the median of the earlier ones. Four trials
# must have ended before, and the first epoch, in which the rate still rises, does not count.
PRUNE_AFTER_TRIALS = 4
PRUNE_AFTER_EPOCHS = 1
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


def tune(
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    *,
    fold: int,
    trials: int,
    folder: Path,
    stop: Stop,
    report: Callable[[str], None],
) -> Tuned:
    """Run trials until `trials` have finished in the study kept in `folder`; the best settings.

    A trial trains fold `fold` for `training.epochs` epochs and is scored by the balanced accuracy
    of the held-out rows after the last (not the best) epoch. Wherever an earlier process ended,
    the finished trials become those of a study that was never interrupted: a trial that was under
    way is marked failed, and its settings are tried again from their beginning. Raises UserError
    when the study there is of other settings or data, damaged, or of another process now; Stopped
    when `stop` says so.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = describe_study(competition, folds, training, fold)
    with one_writer(folder, "tuning"), stop.on_signals():
        cut = cut_unfinished_line(folder / JOURNAL)
        if cut:
            report(
                f"the last line of {folder / JOURNAL} was not finished, as after a power cut or on "
                f"a full disk: its {cut} bytes are removed, what is before it is kept"
            )
        study = open_study(folder, settings, starting_point(training))
        if study.user_attrs["code"] != code_version():
            report(
                "warning: this study was begun with another version of this program "
                f"({study.user_attrs['code'][:12]}) than the one that goes on "
                f"({code_version()[:12]}): its trials may not be alike"
            )

        def keep_best() -> Tuned | None:
            if not study.get_trials(states=(TrialState.COMPLETE,)):
                return None
            best = study.best_trial
            tuned = Tuned(
                lr=best.params["lr"],
                batch_size=best.params["batch_size"],
                bac=float(best.value or 0.0),
                fold=fold,
                trials=len(study.get_trials(states=FINISHED)),
                settings=settings["settings"],
                input_digest=competition.digest,
                folds_digest=folds.digest,
                code=code_version(),
            )
            write_json(folder / BEST, asdict(tuned))
            return tuned

        # Also of what an earlier process had finished when it was killed.
        tuned = keep_best()
        try:
            while (finished := len(study.get_trials(states=FINISHED))) < trials:
                stop.check()
                # TPE's draws depend on the seed and on the finished trials alone: a trial that is
                # tried again draws what it drew before, not the first trials' numbers.
                study.sampler = optuna.samplers.TPESampler(
                    seed=derive_seed(training.seed, TUNING, finished),
                    n_startup_trials=PRUNE_AFTER_TRIALS,
                )
                run_trial(study, competition, folds, training, device, fold, stop, report)
                # Now, not at the end: whoever has no time for all trials trains with these.
                tuned = keep_best()
        except Stopped:
            report(
                f"{finished} of {trials} trials are finished and kept; the one that was under way "
                "begins again next time"
            )
            raise
        if tuned is None:
            raise UserError(
                f"no trial came to its end; move {folder} away and start with a lower --lr, "
                "or --batch-size"
            )
    return tuned


def starting_point(training: Training) -> dict[str, float | int]:
    """The parameters of the first trial: what training would use today."""
    return {
        "lr": training.lr or DEFAULT_LR,
        "batch_size": training.batch_size or DEFAULT_BATCH_SIZE,
    }


def open_study(folder: Path, settings: dict[str, Any], first: dict[str, Any]) -> optuna.Study:
    """The study kept in `folder`: to be continued, or new with `first` as its first trial.

    Each step finds by itself whether it is still to be done, as the process may end after any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=JournalStorage(Journal(folder / JOURNAL)),
        study_name=STUDY,
        direction="maximize",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS),
    )
    if not study.trials:
        study.set_user_attr("settings", settings)
        study.set_user_attr("first", first)
        study.set_user_attr("code", code_version())
    differences = compare(study.user_attrs["settings"], settings)
    if differences:
        raise UserError(
            f"the study in {folder} has other settings: {'; '.join(differences)}. "
            f"Give those again, or move {folder} away to start another"
        )
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    if not study.get_trials(states=(*FINISHED, TrialState.WAITING)):
        study.enqueue_trial(study.user_attrs["first"])
    return study


def describe_study(
    competition: Competition, folds: Folds, training: Training, fold: int
) -> dict[str, Any]:
    """What trials must have in common to be compared."""
    settings = asdict(training)
    del settings["lr"], settings["batch_size"]
    return {
        "settings": settings,
        "fold": fold,
        "input_digest": competition.digest,
        "folds_digest": folds.digest,
    }


def run_trial(
    study: optuna.Study,
    competition: Competition,
    folds: Folds,
    training: Training,
    device: Device,
    fold: int,
    stop: Stop,
    report: Callable[[str], None],
) -> None:
    """Train with the study's next parameters and tell it the result."""
    trial = study.ask()
    # What the study began with may lie outside of what is searched otherwise.
    first = study.user_attrs["first"]
    low, high = min(LR_RANGE[0], first["lr"]), max(LR_RANGE[1], first["lr"])
    lr = trial.suggest_float("lr", low, high, log=True)
    sizes = sorted({*BATCH_SIZES, first["batch_size"]})
    batch_size = trial.suggest_categorical("batch_size", sizes)
    title = f"trial {trial.number}: lr {lr:.2g}, batch size {batch_size}"
    try:
        trainer = FoldTrainer(
            competition, folds, fold, replace(training, lr=lr, batch_size=batch_size), device
        )
        epochs = range(training.epochs)
        progress = Progress(
            title, device, trainer.n_train, len(trainer.held_out), epochs, len(trainer.batches)
        )
        for epoch in epochs:
            bac = trainer.train_epoch(epoch, progress, stop.check).held_out_bac
            trial.report(bac, epoch)
            if trial.should_prune() and epoch + 1 < training.epochs:
                study.tell(trial, state=TrialState.PRUNED)
                report(f"{title}: pruned after epoch {epoch + 1} at {percent(bac)}")
                return
    except (DivergedError, TooLittleMemoryError) as error:
        # Not FAIL, after which the same settings would be tried again, for ever.
        study.tell(trial, state=TrialState.PRUNED)
        diverged = isinstance(error, DivergedError)
        report(f"{title}: {'the loss is no longer a number' if diverged else error}")
        return
    study.tell(trial, bac)
    report(f"{title}: held-out BAC {percent(bac)}; best so far {percent(study.best_value)}")


def tune_run(config: Config, trials: int, report: Callable[[str], None]) -> None:
    """Tune on the fold that `config` names (by default 0), with its epochs for a trial."""
    competition, folds = open_folds(config.folders)
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
        stop=Stop(config.machine.max_minutes),
        report=report,
    )
    report(
        f"best trial of {tuned.trials} on fold {fold}: learning rate {tuned.lr:.3g}, batch size "
        f"{tuned.batch_size} (held-out BAC {percent(tuned.bac)} after {config.training.epochs} "
        f"epochs). New runs of {config.training.network} use them; {folder / BEST} says so"
    )
