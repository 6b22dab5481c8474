"""Tuning the learning rate and the batch size with Optuna, on one held-out fold."""

import time
import warnings
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages._heartbeat import get_heartbeat_thread
from optuna.trial import FrozenTrial, Trial, TrialState

from cellline.config import DEFAULT_BATCH_SIZE, DEFAULT_LR, Config, Training, describe_differences
from cellline.errors import UserError
from cellline.host.device import choose_device
from cellline.host.files import write_json
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.host.stopping import Stop
from cellline.host.versions import code_version
from cellline.model.network import build_network
from cellline.model.normalization import no_normalization
from cellline.model.weights import find_start
from cellline.runs.folds import keep_folds, open_folds
from cellline.scoring.decisions import likeliest
from cellline.seeding import TUNING, derive_seed
from cellline.training.learner import DivergedError
from cellline.training.memory import TooLittleMemoryError
from cellline.training.settings import BEST, Tuned
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer
from cellline.tuning.storage import (
    JOURNAL,
    STUDY,
    check_readable,
    name_storage,
    open_storage,
    plain_errors,
)

# From a decade and a half below the known solution's 1e-3 to a decade above.
LR_RANGE = (3e-5, 1e-2)
BATCH_SIZES = (16, 32, 64, 128)
# A trial is pruned if it is below the median of the earlier ones after an epoch. Four trials must
# have ended before, and the first epoch, in which the rate still rises, does not count.
PRUNE_AFTER_TRIALS = 4
PRUNE_AFTER_EPOCHS = 1

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
# Between two looks at other workers' trials.
LOOK_SECONDS = 1.0
# To wait for another worker that writes into the same folder.
WRITING_SECONDS = 60.0


def first_parameters(training: Training) -> dict[str, Any]:
    """Return the parameters of the first trial: what training would use today."""
    return {
        "lr": training.lr or DEFAULT_LR,
        "batch_size": training.batch_size or DEFAULT_BATCH_SIZE,
    }


def describe(task: Task) -> dict[str, Any]:
    """Return all that must be the same for trials to be compared."""
    return {
        "settings": {**asdict(task.training), **first_parameters(task.training)},
        "weights_digest": task.start.digest,
        "metric": task.competition.metric,
        "fold": task.fold,
        "input_digest": task.folds.competition.digest,
        "folds_digest": task.folds.digest,
    }


def value_of(trial: FrozenTrial) -> float:
    """The score of a completed trial."""
    assert trial.value is not None
    return trial.value


@dataclass(frozen=True)
class Worker:
    """One of the processes that run a study's trials."""

    task: Task
    """Its training has the first trial's learning rate and batch size, or None for defaults."""
    study: optuna.Study
    folder: Path
    """For best.json."""
    stop: Stop

    def run(self, trials: int) -> Tuned | None:
        """Run trials until `trials` have finished, those of others included; return the best.

        If enough are under way elsewhere, wait for them. Raises Stopped.
        """
        waiting = False
        while (finished := len(self.trials(*FINISHED))) < trials:
            self.stop.check()
            # Optuna warns that heartbeats are experimental and meant for Study.optimize. That would
            # fail a trial again after another worker has taken it over.
            with warnings.catch_warnings(action="ignore"):
                optuna.storages.fail_stale_trials(self.study)
                missing = len(self.trials(*FINISHED, TrialState.RUNNING)) < trials
                trial = self.study.ask() if missing else None
            if trial is not None:
                with get_heartbeat_thread(trial._trial_id, self.study._storage):
                    self.run_trial(trial)
                # Now, not at the end: whoever has no time for all trials trains with these.
                self.keep_best()
            else:
                if not waiting:
                    say(f"{finished} of {trials} trials are finished, others run the rest: waiting")
                time.sleep(LOOK_SECONDS)
            waiting = trial is None
        # Others may have finished the last ones.
        return self.keep_best()

    def run_trial(self, trial: Trial) -> None:
        """Train with a trial's parameters; score it after the last, not the best, epoch.

        A trial that ends early is queued again, whatever the reason but pruning.
        """
        training = self.draw(trial)
        title = f"trial {trial.number}: lr {training.lr:.2g}, batch size {training.batch_size}"
        try:
            score = self.train(trial, title, training)
            self.study.tell(trial, score, skip_if_finished=True)
        except optuna.TrialPruned as pruned:
            self.study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
            say(f"{title}: {pruned}")
        except UpdateFinishedTrialError:
            say(f"{title}: another worker took it over, because this one seemed dead")
        except BaseException:
            self.study.enqueue_trial(trial.params)
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        else:
            metric = self.task.folds.metric
            others = (value_of(other) for other in self.trials(TrialState.COMPLETE))
            best = max([score, *others], key=metric.utility)
            shown = metric.show(score)
            say(f"{title}: held-out {metric.title} {shown}; best so far {metric.show(best)}")

    def draw(self, trial: Trial) -> Training:
        """Return the settings of a trial: queued ones, or what Optuna draws."""
        # Failed trials are tried again and not counted, so that draws don't depend on failures.
        earlier = self.study.get_trials(deepcopy=False)[: trial.number]
        draw = sum(each.state != TrialState.FAIL for each in earlier)

        def reseed(parameter: int) -> None:
            """Let a parameter depend on no other's draw: a kill may come between the two."""
            # Trials under way count as bad ones (Optuna's default), so that workers draw others.
            self.study.sampler = optuna.samplers.TPESampler(
                seed=derive_seed(self.task.training.seed, TUNING, draw, parameter),
                n_startup_trials=PRUNE_AFTER_TRIALS,
            )

        # The first trial may lie outside the range that is searched otherwise.
        first = first_parameters(self.task.training)
        low, high = min(LR_RANGE[0], first["lr"]), max(LR_RANGE[1], first["lr"])
        sizes = sorted({*BATCH_SIZES, first["batch_size"]})
        reseed(0)
        lr = trial.suggest_float("lr", low, high, log=True)
        reseed(1)
        batch_size = trial.suggest_categorical("batch_size", sizes)
        return replace(self.task.training, lr=lr, batch_size=batch_size)

    def train(self, trial: Trial, title: str, training: Training) -> float:
        """Train a trial to its end; return its score.

        Raises TrialPruned also if the loss diverges or memory is too small: the same parameters
        would only fail again.
        """
        try:
            trainer = FoldTrainer(replace(self.task, training=training), title)
            for epoch in range(training.epochs):
                score = trainer.train_epoch(self.stop.check).held_out_score
                trial.report(score, epoch)
                if trial.should_prune() and epoch + 1 < training.epochs:
                    shown = self.task.folds.metric.show(score)
                    raise optuna.TrialPruned(f"pruned after epoch {epoch + 1} at {shown}")
        except DivergedError as error:
            raise optuna.TrialPruned("the loss is NaN or infinite") from error
        except TooLittleMemoryError as error:
            raise optuna.TrialPruned(str(error)) from error
        return score

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Trials in these states, in order."""
        return self.study.get_trials(deepcopy=False, states=states)

    def keep_best(self) -> Tuned | None:
        """Write best.json; return its content, None while no trial has a score."""
        # The last of several workers to write it has seen all trials.
        with one_writer(self.folder, "tuning", WRITING_SECONDS):
            # Not Study.best_trial, which chooses among equal ones by the storage.
            scored = self.trials(TrialState.COMPLETE)
            if not scored:
                return None
            utility = self.task.folds.metric.utility
            best = max(scored, key=lambda trial: utility(value_of(trial)))
            tuned = Tuned(
                lr=best.params["lr"],
                batch_size=best.params["batch_size"],
                score=value_of(best),
                trials=len(self.trials(*FINISHED)),
                code=code_version(),
                **describe(self.task),
            )
            write_json(self.folder / BEST, asdict(tuned))
        return tuned


def tune(task: Task, trials: int, folder: Path, where: str | None, stop: Stop) -> Tuned:
    """Work at the study in the storage `where` until `trials` have finished; return the best.

    By default the study is in a journal in `folder`; best.json is always written there. Raises
    UserError if the study has other settings or data, is damaged or can't be reached; and Stopped.
    """
    place = where or folder / JOURNAL
    check_trainable(task)
    with plain_errors(place), stop.on_signals():
        with keep_folds(folder.parent, task.folds, WRITING_SECONDS):
            study = open_study(place, task)
            with one_writer(folder, "tuning", WRITING_SECONDS):
                # It tells `make folds` that a study depends on these folds.
                write_json(folder / "config.json", describe(task))
        tuned = Worker(task, study, folder, stop).run(trials)
    if tuned is None:
        raise UserError(
            f"no trial was completed; move the study in {name_storage(place)} away, or name "
            "another --storage, and start with a lower --lr or --batch-size"
        )
    return tuned


def check_trainable(task: Task) -> None:
    """Raise UserError if no trial could be trained and scored, whatever its parameters.

    A study keeps its settings, so it must not begin with ones that have to be corrected.
    """
    n_classes, image_shape = len(task.competition.classes), task.competition.train_images.shape[1:]
    labels, metric = task.competition.labels[task.held_out], task.folds.metric
    perfect = np.eye(n_classes)[labels]
    if isnan(metric.score(labels, likeliest(perfect))):
        raise UserError(
            f"fold {task.fold} has no {metric.title}, because its samples are of one class: tune "
            "on another --fold"
        )
    unknown = no_normalization(image_shape[0])
    build_network(task.training, n_classes, image_shape, unknown, task.start.path)


def open_study(where: str | Path, task: Task) -> optuna.Study:
    """Create the study in a storage, or join it. Raises UserError if it has other settings."""
    study = optuna.create_study(
        storage=open_storage(where),
        study_name=STUDY,
        direction="maximize" if task.folds.metric.higher_is_better else "minimize",
        pruner=optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS),
        load_if_exists=True,
    )
    check_readable(study, where)
    # Each by itself: the worker that created the study may have been killed in between.
    if "settings" not in study.user_attrs:
        study.set_user_attr("settings", describe(task))
    if not study.trials:
        study.enqueue_trial(first_parameters(task.training), skip_if_exists=True)
    if differences := describe_differences(study.user_attrs["settings"], describe(task)):
        raise UserError(
            f"the study in {name_storage(where)} has other settings: {differences}. Give those "
            "again; or, to start another study, move this one away or name another --storage"
        )
    return study


def tune_run(config: Config, trials: int, storage: str | None = None) -> Tuned:
    """Tune on the fold that `config` names (by default 0), with its epochs for each trial."""
    folds = open_folds(config.folders, config.reading, for_training=True)
    fold = config.fold or 0
    if fold not in folds.numbers:
        raise UserError(f"--fold {fold}: folds are 0 to {folds.n_folds - 1}")
    start = find_start(config.training.network, config.training.weights)
    task = Task(folds, fold, config.training, choose_device(config.machine), start=start)
    folder = config.folders.oof_dir / "tuning"
    tuned = tune(task, trials, folder, storage, Stop(config.machine.max_minutes))
    say(
        f"best trial of {tuned.trials} on fold {fold}: learning rate {tuned.lr:.3g}, batch size "
        f"{tuned.batch_size} (held-out {folds.metric.title} {folds.metric.show(tuned.score)} after "
        f"{config.training.epochs} epochs). New runs of {config.training.network} use them; "
        f"{folder / BEST} says so"
    )
    return tuned
