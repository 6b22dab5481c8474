import os
import signal
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from postgres import PASSWORD, Server

from cellline.errors import UserError
from cellline.tuning.storage import Journal, connect, open_storage, plain_errors

JOURNAL = Path("tuning/journal.log")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        # A port that nobody listens at.
        ("postgresql+psycopg://me:{SECRET}@127.0.0.1:1/x", "127.0.0.1:1/x fails: .*refused"),
        ("postgresql+psycopg://127.0.0.1:1/x?pasword=SECRET", "fails: invalid connection option"),
        ("mssql+pymssql://me:SECRET@host/x", "driver is not installed .No module named 'pymssq"),
        ("nosuch://me:SECRET@host/x", "not the URL of a database"),
        # Misspelt, so that a part of the password stands where other things do.
        ("postgresql://me:SEC@RET@host/x", "not the URL of a database"),
        ("postgresql:/me:SECRET@host/x", "not the URL of a database"),
        (" postgresql://me:SECRET@host/x", "not the URL of a database"),
        ("postgresql-psycopg://me:SECRET@host/x", "not the URL of a database"),
        ("//me:SECRET@host/x", "not the URL of a database"),
        ("host=127.0.0.1 user=me password=SECRET", "not the URL of a database"),
        ("postgresql://host/x password=SECRET", "not the URL of a database"),
        # Its driver refuses these.
        ("postgresql+psycopg://me:SECRET@a..b/x", "not the URL of a database"),
        ("postgresql+psycopg://host/x?port=SECRET", "not the URL of a database"),
        ("sqlite://me:SECRET@host/x", "not the URL of a database"),
        ("sqlite:///missing/study.db", "sqlite:///missing/study.db fails: unable to open"),
    ],
)
def test_a_server_that_cannot_be_reached_is_named_without_the_password(url: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as refused, plain_errors(url):
        open_storage(url)
    assert "SEC" not in str(refused.value)
    assert "RET" not in str(refused.value)
    assert not list(Path().iterdir())


def test_paths_with_signs_of_a_url_are_those_of_journals() -> None:
    for path in ("./lr=0.1/me@host:study.log", str(Path.cwd() / "a@b" / "study.log")):
        open_storage(path)
        assert Path(path).read_bytes() == b""


def test_a_wrong_password_is_told_with_where_to_put_it(postgresql: Server) -> None:
    url = postgresql.url("postgres", "SECRET")
    told = r"password authentication failed.*~/\.pgpass"
    with pytest.raises(UserError, match=told) as refused, plain_errors(url):
        connect(url)
    assert "SECRET" not in str(refused.value)


def test_tables_of_another_version_of_optuna_are_told(postgresql: Server) -> None:
    url = postgresql.make_database("older")
    connect(url)
    postgresql.execute("older", "UPDATE alembic_version SET version_num = 'v3.0.0.a'")
    with pytest.raises(UserError, match=r"/older: .*optuna storage upgrade") as refused:
        connect(url)
    assert PASSWORD not in str(refused.value)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_workers_that_start_together_all_connect(postgresql: Server) -> None:
    url = postgresql.make_database("together")
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(connect, [url] * 4))) == 4


def test_a_server_that_was_restarted_goes_unnoticed(postgresql: Server) -> None:
    storage = connect(postgresql.make_database("restarted"))
    study = optuna.create_study(storage=storage)

    def restart(trial: optuna.Trial) -> float:
        postgresql.stop()
        storage.record_heartbeat(trial._trial_id)  # from Optuna's thread, which must survive it
        postgresql.start()
        return 1.0

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.optimize(restart, n_trials=1)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def work(*, is_killed: bool) -> None:
    """Run ten trials as a process of its own does; or be killed in the first, within a write."""
    journal = Journal(JOURNAL)

    def train(trial: optuna.Trial) -> float:
        value = trial.suggest_float("value", 0, 1)
        if is_killed:
            journal.lock.acquire()
            with JOURNAL.open("ab") as file:
                file.write(b'{"op_code":4,"work')
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    optuna.load_study(study_name="one", storage=journal).optimize(train, n_trials=10)


def test_workers_of_a_journal_are_kept_apart_and_a_dead_one_is_noticed_at_once() -> None:
    study = optuna.create_study(study_name="one", storage=Journal(JOURNAL))
    workers = []
    for number in range(4):
        workers.append(os.fork())
        if workers[-1] == 0:
            work(is_killed=number == 3)
            os._exit(0)
    assert sorted(os.waitpid(worker, 0)[1] for worker in workers) == [0, 0, 0, signal.SIGKILL]
    study.optimize(lambda trial: trial.suggest_float("value", 0, 1), n_trials=1)

    # No operation is lost, and each trial was one worker's.
    trials = study.trials
    [failed] = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    assert failed.state == TrialState.FAIL
    assert len(trials) == 32
    [again] = [trial for trial in trials if "retry_history" in trial.system_attrs]
    assert again.system_attrs["retry_history"] == [failed.number]
    assert again.params == failed.params
    assert all(trial.value == trial.params["value"] for trial in trials if trial != failed)
    # Optuna reads it as its own.
    alone = JournalStorage(JournalFileBackend(str(JOURNAL)))
    assert optuna.load_study(study_name="one", storage=alone).trials == trials
