"""A tuning study: what its trials have in common, which parameters are next, and when it ends."""

import warnings
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from cellline.config import DEFAULT_BATCH_SIZE, DEFAULT_LR, Training, describe_differences
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.versions import code_version
from cellline.runs.folds import Folds
from cellline.seeding import TUNING, derive_seed
from cellline.tuning.retrying import VOID, count_ahead, draw_number, is_duplicate, put_back_lost
from cellline.tuning.storage import STUDY, Storage

# From a decade and a half below the known solution's 1e-3 to a decade above.
LR_RANGE = (3e-5, 1e-2)
BATCH_SIZES = (16, 32, 64, 128)
# A trial is pruned when after an epoch it is below the median of the earlier ones. Four trials
# must have ended before, and the first epoch, in which the rate still rises, does not count.
PRUNE_AFTER_TRIALS = 4
PRUNE_AFTER_EPOCHS = 1
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
BEGUN = (*FINISHED, TrialState.RUNNING)


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


def starting_point(training: Training) -> dict[str, float | int]:
    """The parameters of the first trial: what training would use today."""
    return {
        "lr": training.lr or DEFAULT_LR,
        "batch_size": training.batch_size or DEFAULT_BATCH_SIZE,
    }


def open_study(storage: Storage, settings: dict[str, Any], first: dict[str, Any]) -> optuna.Study:
    """The study in a storage: to be joined, or new with `first` as its first trial's parameters.

    What a process that has ended left undone is done first. Raises UserError when the study is of
    other settings.
    """
    with storage.turn():
        study = optuna.create_study(
            storage=storage.backend,
            study_name=STUDY,
            direction="maximize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(PRUNE_AFTER_TRIALS, PRUNE_AFTER_EPOCHS),
        )
        # Each by itself: the process that made the study may have ended after any.
        for key, value in (("settings", settings), ("first", first), ("code", code_version())):
            if key not in study.user_attrs:
                study.set_user_attr(key, value)
        check_settings(study, storage, settings)
        storage.fail_dead(study)
        put_back_lost(study)
    return study


def check_settings(study: optuna.Study, storage: Storage, settings: dict[str, Any]) -> None:
    """Raise UserError that names what differs when the study is of other settings."""
    differences = describe_differences(study.user_attrs["settings"], settings)
    if differences:
        raise UserError(
            f"the study in {storage.name} has other settings: {differences}. "
            "Give those again; or, to start another, move this one away, or name another --storage"
        )


def begin_trial(
    study: optuna.Study, storage: Storage, settings: dict[str, Any], n_trials: int, seed: int
) -> Trial | None:
    """The next trial, with its parameters; None while `n_trials` have finished or are under way.

    There are never more, however many workers begin at once: where they can't be kept apart, each
    sees afterwards which trials came first, and who was not among them leaves its own.
    Raises UserError as `open_study`.
    """
    with storage.turn():
        # In a database another may have begun the study in the same moment, and have gone last.
        check_settings(study, storage, settings)
        storage.fail_dead(study)
        if count(study, BEGUN) >= n_trials:
            return None
        with warnings.catch_warnings():
            # That heartbeats want Study.optimize(): the storage sends its own.
            warnings.simplefilter("ignore", UserWarning)
            trial = study.ask()
        storage.take(trial)
        trials = study.get_trials()
        own = trials[trial.number]
        if count_ahead(trials, own) >= n_trials or is_duplicate(trials, own):
            trial.set_user_attr(VOID, True)
            study.tell(trial, state=TrialState.FAIL)
            # What it would have taken the place of.
            put_back_lost(study)
            return None
        study.sampler = make_sampler(study.user_attrs["first"], draw_number(trials, own), seed)
        draw_parameters(trial, study.user_attrs["first"])
    return trial


def make_sampler(first: dict[str, Any], draw: int, seed: int) -> optuna.samplers.BaseSampler:
    """What makes the draw of this number; draw 0 is `first`.

    TPE's draws depend on the seed and on the trials that have finished: one that is made again, as
    no trial came of it, is the same. Trials that are under way count as bad ones ("constant liar",
    Optuna's default), so that workers don't draw what others try already; with one worker there
    are none.
    """
    sampler = optuna.samplers.TPESampler(
        seed=derive_seed(seed, TUNING, draw), n_startup_trials=PRUNE_AFTER_TRIALS
    )
    if draw > 0:
        return sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(first, sampler)


def draw_parameters(trial: Trial, first: dict[str, Any]) -> None:
    """Have the study's sampler draw what a trial does not have yet: `retrying.PARAMETERS`."""
    # What the study began with may lie outside of what is searched otherwise.
    low, high = min(LR_RANGE[0], first["lr"]), max(LR_RANGE[1], first["lr"])
    trial.suggest_float("lr", low, high, log=True)
    trial.suggest_categorical("batch_size", sorted({*BATCH_SIZES, first["batch_size"]}))


def end_trial(study: optuna.Study, trial: Trial, bac: float | None) -> None:
    """Note a trial's score; None where it was pruned.

    Raises UpdateFinishedTrialError when others have taken its worker for dead meanwhile.
    """
    state = TrialState.PRUNED if bac is None else TrialState.COMPLETE
    told = study.tell(trial, bac, state, skip_if_finished=True)
    if told.state == TrialState.FAIL:
        raise UpdateFinishedTrialError


def count(study: optuna.Study, states: Collection[TrialState]) -> int:
    """How many trials are in these states."""
    return len(study.get_trials(deepcopy=False, states=states))


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The one of the highest score, among equal ones the first; None where none has a score."""
    scored = study.get_trials(states=(TrialState.COMPLETE,))
    # Not Study.best_trial: which of equal ones that is depends on the storage.
    return max(scored, key=lambda trial: trial.value or 0.0, default=None)
