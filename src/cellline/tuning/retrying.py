"""Trials whose worker died, or was asked to end: each is put back, to be tried again.

A trial that is tried again is another of the same parameters, which knows by its history what it
repeats. So all that is decided here is a function of the trials and their numbers, which every
worker sees alike, whatever storage they are in.

Optuna's RetryHeartbeatStaleTrialCallback puts back as well, with the same attributes. But it keeps
parameters of which only some were drawn, counts an end that was asked for like a death, and what
is lost between failing a trial and putting it back stays lost.
"""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

PARAMETERS = {"lr", "batch_size"}

# Workers that a trial may cost; with one more it is given up, as it may be what kills them (by its
# memory). It is more than chance takes: machines that are taken away ask first.
MAX_DEATHS = 5

# Attributes of trials: how many workers it cost; that it was never to be run.
DEATHS, VOID = "deaths", "void"
# As Optuna names them.
_ORIGIN, _HISTORY = "failed_trial", "retry_history"


def put_back(study: optuna.Study, trial: FrozenTrial, *, died: bool) -> bool:
    """Let a failed trial be tried again, by whoever asks first; False where it is given up."""
    deaths = trial.user_attrs.get(DEATHS, 0) + died
    if deaths > MAX_DEATHS or VOID in trial.user_attrs:
        return False
    is_drawn = trial.params.keys() >= PARAMETERS
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params if is_drawn else {},
            distributions=trial.distributions if is_drawn else {},
            user_attrs={DEATHS: deaths},
            system_attrs={_ORIGIN: origin(trial), _HISTORY: [*history(trial), trial.number]},
        )
    )
    return True


def put_back_lost(study: optuna.Study) -> None:
    """Put back the failed trials whose worker was killed before it could.

    Two who do so at once put back twice; see `is_duplicate`.
    """
    for trial in find_lost(study.get_trials()):
        put_back(study, trial, died=True)


def find_lost(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The failed trials that are to be put back and are not yet."""
    successors = {number for trial in trials for number in history(trial)[-1:]}
    return [
        trial
        for trial in trials
        if trial.state == TrialState.FAIL
        and trial.number not in successors
        and trial.user_attrs.get(DEATHS, 0) < MAX_DEATHS
        and VOID not in trial.user_attrs
        and not is_duplicate(trials, trial)
    ]


def count_ahead(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """How many trials that began before it have finished, or will.

    Those that repeat one another count as one, which began with the first.
    """
    lost = {other.number for other in find_lost(trials)}
    return len(
        {
            origin(other)
            for other in trials
            if (other.state != TrialState.FAIL or other.number in lost)
            and origin(other) < origin(trial)
        }
    )


def is_duplicate(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> bool:
    """Whether a trial before it repeats the same one."""
    return bool(history(trial)) and any(
        history(other) == history(trial) for other in trials[: trial.number]
    )


def draw_number(trials: Sequence[FrozenTrial], trial: FrozenTrial) -> int:
    """Which draw of parameters a trial is: the same for all that repeat one another, else its own.

    For a single worker it is the number of finished trials when the draw is first made.
    """
    return sum(not history(other) for other in trials[: origin(trial)])


def origin(trial: FrozenTrial) -> int:
    """The number of the first of those that repeat one another."""
    number: int = trial.system_attrs.get(_ORIGIN, trial.number)
    return number


def history(trial: FrozenTrial) -> list[int]:
    """The numbers of the trials that it repeats."""
    numbers: list[int] = trial.system_attrs.get(_HISTORY, [])
    return numbers
