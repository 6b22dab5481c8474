import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FrozenTrial, TrialState

from cellline.tuning.retrying import (
    DEATHS,
    MAX_DEATHS,
    VOID,
    count_ahead,
    draw_number,
    history,
    is_duplicate,
    origin,
    put_back,
    put_back_lost,
)

FAIL, WAITING = TrialState.FAIL, TrialState.WAITING


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study()


def begin(study: optuna.Study, *, batch_size: bool = True) -> optuna.Trial:
    trial = study.ask()
    trial.suggest_float("lr", 1e-5, 1e-2, log=True)
    if batch_size:
        trial.suggest_categorical("batch_size", [16, 64])
    return trial


def fail(study: optuna.Study, trial: optuna.Trial) -> FrozenTrial:
    return study.tell(trial, state=FAIL)


def test_the_same_parameters_are_tried_again(study: optuna.Study) -> None:
    failed = fail(study, begin(study))
    assert put_back(study, failed, died=True)
    again = begin(study)
    assert again.number == 1
    assert again.params == failed.params
    assert history(study.trials[1]) == [0]
    # Nothing else of it: another runs it, who has scored nothing yet.
    assert study.trials[1].user_attrs == {DEATHS: 1}
    assert not study.trials[1].intermediate_values


def test_parameters_that_were_half_drawn_are_drawn_anew(study: optuna.Study) -> None:
    put_back(study, fail(study, begin(study, batch_size=False)), died=True)
    assert study.trials[1].state == WAITING
    assert study.trials[1].params == {}


def test_a_trial_that_kills_every_worker_is_given_up(study: optuna.Study) -> None:
    for _ in range(MAX_DEATHS):
        assert put_back(study, fail(study, begin(study)), died=True)
    assert not put_back(study, fail(study, begin(study)), died=True)
    put_back_lost(study)
    assert [trial.state for trial in study.trials] == [FAIL] * (MAX_DEATHS + 1)


def test_an_end_that_was_asked_for_counts_for_nothing(study: optuna.Study) -> None:
    for _ in range(MAX_DEATHS + 3):
        assert put_back(study, fail(study, begin(study)), died=False)
    assert study.trials[-1].user_attrs[DEATHS] == 0


def test_what_was_not_put_back_is_and_nothing_else(study: optuna.Study) -> None:
    put_back(study, fail(study, begin(study)), died=True)
    fail(study, begin(study))  # again, of the same
    study.tell(begin(study), 1.0)
    fail(study, begin(study))
    for _ in range(2):
        put_back_lost(study)
        waiting = [trial for trial in study.trials if trial.state == WAITING]
        assert [history(trial) for trial in waiting] == [[0, 1], [3]]


def test_who_began_while_a_trial_was_put_back_comes_after_it(study: optuna.Study) -> None:
    failed = fail(study, begin(study))
    late = study.ask()
    assert count_ahead(study.trials, study.trials[late.number]) == 1
    put_back(study, failed, died=True)
    assert count_ahead(study.trials, study.trials[late.number]) == 1
    assert count_ahead(study.trials, study.trials[2]) == 0


# What happens to a study, of any number of workers.
STEPS = st.sampled_from(["begin", "finish", "fail", "fail and put back", "put back the lost twice"])


@given(st.lists(STEPS, max_size=30))
def test_no_draw_is_made_twice_and_none_is_left_out(steps: list[str]) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    running: list[optuna.Trial] = []
    for step in steps:
        if step == "begin":
            running.append(study.ask())
        elif step == "put back the lost twice":
            # Two workers that see the same at the same time.
            lost = study.trials
            put_back_lost(study)
            for trial in lost:
                if trial.state == FAIL and not any(
                    history(other)[-1:] == [trial.number] for other in lost
                ):
                    put_back(study, trial, died=False)
        elif running:
            trial = running.pop(0)
            if step == "finish":
                study.tell(trial, 1.0)
            else:
                failed = study.tell(trial, state=FAIL)
                if step == "fail and put back":
                    put_back(study, failed, died=False)
    trials = study.trials
    firsts = [trial for trial in trials if not history(trial)]
    assert [draw_number(trials, trial) for trial in firsts] == list(range(len(firsts)))
    for trial in trials:
        if history(trial):
            first, last = history(trial)[0], history(trial)[-1]
            assert draw_number(trials, trial) == draw_number(trials, trials[first])
            assert trials[last].state == FAIL
    # Of those that repeat the same one, one is run.
    runs = [tuple(history(trial)) for trial in trials if history(trial)]
    assert len(set(runs)) == sum(
        not is_duplicate(trials, trial) for trial in trials if history(trial)
    )


@given(st.lists(STEPS, max_size=30), st.integers(1, 4))
def test_as_many_come_to_their_end_as_are_wanted(steps: list[str], wanted: int) -> None:
    """Of workers that see no room taken when they begin, and look afterwards."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    running: list[optuna.Trial] = []

    def begin() -> None:
        trial = study.ask()
        own = study.trials[trial.number]
        if count_ahead(study.trials, own) < wanted and not is_duplicate(study.trials, own):
            running.append(trial)
        else:
            trial.set_user_attr(VOID, True)
            study.tell(trial, state=FAIL)

    for step in steps:
        if step == "begin":
            begin()
        elif step == "put back the lost twice":
            put_back_lost(study)
        elif running:
            trial = running.pop(0)
            if step == "finish":
                study.tell(trial, 1.0)
            else:
                failed = study.tell(trial, state=FAIL)
                if step == "fail and put back":
                    put_back(study, failed, died=False)
    # From here on nobody dies.
    put_back_lost(study)
    for _ in range(wanted + len(steps)):
        begin()
        while running:
            study.tell(running.pop(), 1.0)
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    assert len(finished) == wanted
    # The first that were begun, whatever became of them at first; none was given up.
    given_up = {origin(t) for t in study.trials if t.user_attrs.get(DEATHS, 0) >= MAX_DEATHS} - {
        origin(t) for t in finished
    }
    firsts = [t.number for t in study.trials if not history(t) and t.number not in given_up]
    assert sorted(map(origin, finished)) == firsts[:wanted]
