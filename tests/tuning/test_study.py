import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState
from postgres import PASSWORD, Server

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.runs.folds import Folds
from cellline.tuning.retrying import MAX_DEATHS, draw_number, history
from cellline.tuning.storage import WORKER, Storage, open_storage
from cellline.tuning.study import FINISHED, begin_trial, describe_study, end_trial, open_study

FIRST = {"lr": 1e-3, "batch_size": 64}


@pytest.fixture
def settings(competition: Competition, folds: Folds, training: Training) -> dict[str, Any]:
    return describe_study(competition, folds, training, 0)


def say(line: str) -> None:
    print(line)


# Threads share the filters that hide it in a process.
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_four_that_begin_at_once_make_as_many_trials_as_were_wanted(
    postgresql: Server, settings: dict[str, Any]
) -> None:
    url, wanted = postgresql.make_database("at_once"), 8
    together = Barrier(4, timeout=60)

    def work(number: int) -> None:
        together.wait()  # tables and study are not there yet
        storage = open_storage(url, say)
        with storage.joined():
            study = open_study(storage, settings, FIRST)
            together.wait()
            while len(study.get_trials(states=FINISHED)) < wanted:
                trial = begin_trial(study, storage, settings, wanted, 0)
                if trial is not None:
                    end_trial(study, trial, trial.params["lr"] if number % 2 else None)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    storage = open_storage(url, say)
    trials = open_study(storage, settings, FIRST).trials
    assert [trial.number for trial in trials] == list(range(len(trials)))
    finished = [trial for trial in trials if trial.state in FINISHED]
    assert len(finished) == wanted
    # Those that were one too many have never had parameters.
    assert {t.state for t in trials if not t.params} <= {TrialState.FAIL}
    assert sum(bool(t.params) for t in trials) == wanted
    # The first is what training would use today, and none is like another.
    assert sum(trial.params == FIRST for trial in trials) == 1
    assert len({trial.params["lr"] for trial in finished}) == wanted
    assert len({draw_number(trials, trial) for trial in finished}) == wanted


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_of_two_that_begin_the_last_trial_at_once_one_leaves_it(
    postgresql: Server, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.make_database("the_last")
    study = open_study(open_storage(url, say), settings, FIRST)
    together, ask = Barrier(2, timeout=60), optuna.Study.ask

    def ask_together(self: optuna.Study) -> optuna.Trial:
        together.wait()  # both have seen that there is room for one
        return ask(self)

    monkeypatch.setattr(optuna.Study, "ask", ask_together)

    def begin(storage: Storage) -> bool:
        own = open_study(storage, settings, FIRST)
        return begin_trial(own, storage, settings, 1, 0) is not None

    with ThreadPoolExecutor(2) as pool:
        begun = list(pool.map(begin, [open_storage(url, say) for _ in range(2)]))
    assert sorted(begun) == [False, True]
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.FAIL]
    # Nor is the one that was left tried again.
    study.tell(0, 1.0)
    assert [
        trial.state.name for trial in open_study(open_storage(url, say), settings, FIRST).trials
    ] == ["COMPLETE", "FAIL"]


def test_a_score_of_a_trial_that_others_have_failed_is_not_taken(
    storage: Storage, settings: dict[str, Any]
) -> None:
    study = open_study(storage, settings, FIRST)
    with storage.joined():
        trial = begin_trial(study, storage, settings, 1, 0)
        assert trial is not None
        study.tell(trial.number, state=TrialState.FAIL)
        with pytest.raises(UpdateFinishedTrialError):
            end_trial(study, trial, 0.5)


def test_a_worker_of_other_data_or_settings_is_refused(
    postgresql: Server, settings: dict[str, Any]
) -> None:
    url = postgresql.make_database("others")
    study = open_study(open_storage(url, say), settings, FIRST)
    for name, told in (
        ("folds_digest", r"folds_digest was 333.* and is other now"),
        ("input_digest", r"input_digest was 111.* and is other now"),
    ):
        with pytest.raises(UserError, match=told) as refused:
            open_study(open_storage(url, say), {**settings, name: "other"}, FIRST)
        assert PASSWORD not in str(refused.value)
    # Also one that began the study in the same moment, and was overwritten.
    study.set_user_attr("settings", {**settings, "fold": 1})
    with pytest.raises(UserError, match=r"fold was 1 and is 0 now"):
        begin_trial(study, open_storage(url, say), settings, 5, 0)


@pytest.fixture(params=["journal", "database"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    where = {"journal": tmp_path / "study.log", "database": f"sqlite:///{tmp_path}/study.db"}
    return open_storage(str(where[request.param]), say)


def test_enough_trials_under_way_are_waited_for(storage: Storage, settings: dict[str, Any]) -> None:
    study = open_study(storage, settings, FIRST)
    with storage.joined():
        trials = [begin_trial(study, storage, settings, 3, 0) for _ in range(3)]
        assert begin_trial(study, storage, settings, 3, 0) is None
        assert trials[1] is not None
        end_trial(study, trials[1], None)
        assert begin_trial(study, storage, settings, 3, 0) is None
        assert len(study.trials) == 3


def test_nothing_takes_the_place_of_a_trial_whose_worker_was_killed_as_it_put_another_back(
    storage: Storage, settings: dict[str, Any]
) -> None:
    study = open_study(storage, settings, FIRST)
    with storage.joined():
        failed = begin_trial(study, storage, settings, 1, 0)
        assert failed is not None
        study.tell(failed, state=TrialState.FAIL)
        # Another, which began in the same moment, sees so and leaves what it began.
        assert begin_trial(study, storage, settings, 1, 0) is None
        again = begin_trial(study, storage, settings, 1, 0)
        assert again is not None
        assert history(study.trials[again.number]) == [0]
        assert again.params == failed.params


def test_who_joins_puts_back_what_was_not(storage: Storage, settings: dict[str, Any]) -> None:
    study = open_study(storage, settings, FIRST)
    with storage.joined():
        failed = begin_trial(study, storage, settings, 5, 0)
        assert failed is not None
        study.tell(failed, state=TrialState.FAIL)
        open_study(storage, settings, FIRST)
        # First, so that the trials after it are drawn knowing it.
        again = begin_trial(study, storage, settings, 5, 0)
        assert again is not None
        assert (again.number, again.params) == (1, failed.params)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_trial_whose_worker_died_before_it_took_it_is_not_waited_for(
    storage: Storage, settings: dict[str, Any]
) -> None:
    """Killed between Optuna's giving out a trial and the worker's name on it."""
    study = open_study(storage, settings, FIRST)
    optuna.load_study(study_name=study.study_name, storage=storage.backend).ask()
    with storage.joined():
        trial = begin_trial(study, storage, settings, 2, 0)
        assert trial is not None
        end_trial(study, trial, 0.5)
        age_heartbeats(storage)
        trial = begin_trial(study, storage, settings, 2, 0)
        assert trial is not None
        end_trial(study, trial, 0.5)
    assert [t.state for t in study.trials].count(TrialState.FAIL) == 1
    assert FIRST in [t.params for t in study.trials]


def age_heartbeats(storage: Storage) -> None:
    """As if an hour had passed since."""
    if isinstance(storage.backend, optuna.storages.RDBStorage):
        import sqlalchemy

        statement = "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 hour')"
        with storage.backend.engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement))


def test_a_trial_that_kills_its_workers_is_given_up(
    storage: Storage, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    study = open_study(storage, settings, FIRST)
    with storage.joined():
        for _ in range(MAX_DEATHS + 1):
            trial = begin_trial(study, storage, settings, 1, 0)
            assert trial is not None
            assert trial.params == FIRST
            # As another's that is not there any more.
            trial.set_user_attr(WORKER, "dead")
            age_heartbeats(storage)
        trial = begin_trial(study, storage, settings, 1, 0)
        assert trial is not None
        assert trial.params != FIRST
    assert len(history(study.trials[MAX_DEATHS])) == MAX_DEATHS
    assert "trial 5: its worker has died; given up, as it is the 6th" in capsys.readouterr().out


def test_a_trial_that_is_run_stays_alive_also_when_the_server_was_away(
    postgresql: Server, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellline.storage.BEAT_SECONDS", 0.05)
    storage = open_storage(postgresql.make_database("beats"), say)
    study = open_study(storage, settings, FIRST)
    trial = begin_trial(study, storage, settings, 1, 0)
    assert trial is not None
    with storage.alive(trial):
        postgresql.stop()
        postgresql.start()
        age = "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour'"
        postgresql.execute("beats", age)
        give_up = time.monotonic() + 60
        while not postgresql.value(
            "beats", "SELECT heartbeat > now() - interval '1 minute' FROM trial_heartbeats"
        ):
            assert time.monotonic() < give_up, "no heartbeat has come"
    storage.fail_dead(study)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
