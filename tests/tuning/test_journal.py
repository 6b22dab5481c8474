import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState

from cellline.errors import UserError
from cellline.tuning.journal import Journal

PATH = Path("tuning/journal.log")
SOURCES = Path(__file__).resolve().parents[2] / "src"


def begin(path: Path) -> optuna.Study:
    path.parent.mkdir(exist_ok=True)
    return optuna.create_study(storage=optuna.storages.JournalStorage(Journal(path)))


def check_journal(path: Path) -> None:
    """Read it all."""
    for _ in Journal(path).read_logs(0):
        pass


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A journal of three trials."""
    path = tmp_path_factory.mktemp("written") / "journal.log"
    study = begin(path)
    study.set_user_attr("settings", {"text": 'a "b", c\nd é', "digest": "x", "none": None})
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 1e-2, log=True), n_trials=3)
    return path.read_bytes()


def test_optuna_reads_it_as_its_own() -> None:
    study = begin(PATH)
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 1e-2, log=True), n_trials=3)
    alone = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(PATH)))
    assert optuna.load_study(study_name=None, storage=alone).trials == study.trials
    # Opened again, it goes on.
    again = optuna.load_study(
        study_name=None, storage=optuna.storages.JournalStorage(Journal(PATH))
    )
    again.set_user_attr("settings", "more")
    check_journal(PATH)


@given(st.data())
def test_no_byte_of_it_changes_unnoticed(
    written: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(written) - 2))
    byte = data.draw(st.binary(min_size=0, max_size=2).filter(lambda b: b != written[at : at + 1]))
    damaged = written[:at] + byte + written[at + 1 :]
    path = tmp_path_factory.mktemp("damaged") / "journal.log"
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"journal.log is damaged: line \d+ is not what") as refused:
        check_journal(path)
    assert f"line {written[:at].count(10) + 1} is" in str(refused.value)
    assert path.read_bytes() == damaged


@given(st.data())
def test_no_line_goes_or_comes_unnoticed(
    written: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = written.splitlines(keepends=True)
    at = data.draw(st.integers(0, len(lines) - 2))
    put = data.draw(st.sampled_from([[], [lines[at], lines[at]], [lines[at + 1]]]))
    path = tmp_path_factory.mktemp("damaged") / "journal.log"
    path.write_bytes(b"".join([*lines[:at], *put, *lines[at + 1 :]]))
    with pytest.raises(UserError, match=rf"line ({at + 1}|{at + 2}) is not what was written"):
        check_journal(path)


@given(st.data())
def test_what_was_cut_off_is_removed_to_the_last_line_that_is_whole(
    written: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    kept = data.draw(st.integers(0, len(written)))
    path = tmp_path_factory.mktemp("cut") / "journal.log"
    # After a power cut some file systems leave zeros where data had not arrived.
    left = written[:kept] + bytes(data.draw(st.integers(0, 9)))
    path.write_bytes(left)
    check_journal(path)  # who only reads it takes no notice
    whole = written[: written[:kept].rfind(b"\n") + 1]
    assert Journal(path).cut_unfinished_line() == len(left) - len(whole)
    assert path.read_bytes() == whole
    check_journal(path)


def test_a_file_that_was_replaced_by_a_shorter_one_is_not_written(written: bytes) -> None:
    study = begin(PATH)
    study.tell(study.ask(), 1.0)
    PATH.write_bytes(b"".join(PATH.read_bytes().splitlines(keepends=True)[:-1]))
    before = PATH.read_bytes()
    with pytest.raises(UserError, match=r"journal\.log was \d+ bytes long and has \d+ now"):
        study.ask()
    assert PATH.read_bytes() == before


# Several processes at one journal; each is forked, which takes less than to import Optuna.
MANY = """
import os, signal, sys
from pathlib import Path
import optuna
from cellline.tuning.journal import Journal

optuna.logging.set_verbosity(optuna.logging.ERROR)
path, go = Path(sys.argv[1]), os.pipe()
children = []
for number in range(4):
    if os.fork() == 0:
        os.close(go[1])
        os.read(go[0], 1)  # all at once
        study = optuna.load_study(
            study_name="one", storage=optuna.storages.JournalStorage(Journal(path))
        )
        for _ in range(20):
            trial = study.ask()
            trial.set_user_attr("by", number)
            study.tell(trial, number)
        if number == 0:
            # Killed in a write, with the lock.
            journal = study._storage._backend
            with journal.lock.held(), path.open("ab") as file:
                file.write(b'{"op_code":4,"work')
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
        os._exit(0)
os.close(go[0])
os.close(go[1])
sys.exit(sorted(os.wait()[1] for _ in range(4)) != [0, 0, 0, signal.SIGKILL])
"""


def test_several_write_at_once_and_one_is_killed_in_a_write() -> None:
    PATH.parent.mkdir()
    # Of one that has read all until now, and must notice what comes after.
    here = optuna.storages.JournalStorage(Journal(PATH))
    study = optuna.create_study(study_name="one", storage=here)
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MANY), str(PATH)],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        check=True,
    )
    # None is lost, and each is of one process alone.
    assert [trial.number for trial in study.trials] == list(range(80))
    for trial in study.trials:
        assert trial.state == TrialState.COMPLETE
        assert trial.value == trial.user_attrs["by"]
    assert sorted(trial.user_attrs["by"] for trial in study.trials) == sorted([0, 1, 2, 3] * 20)
    study.set_user_attr("more", 1)
    check_journal(PATH)
    alone = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(PATH)))
    assert optuna.load_study(study_name="one", storage=alone).trials == study.trials


def test_who_waits_for_a_writer_goes_on_when_it_is_killed() -> None:
    study = begin(PATH)
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from cellline.host.locking import Lock\n"
            "with Lock(Path(sys.argv[1])).held(): print(flush=True); time.sleep(600)",
            str(PATH.with_name(".journal.log.lock")),
        ],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    order: list[str] = []

    def kill(*_: object) -> None:
        order.append("killed")
        process.kill()

    # By a signal that comes while the lock is waited for.
    previous = signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        study.ask()
        order.append("gone on")
        assert order == ["killed", "gone on"]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        process.kill()
        process.wait()
    assert len(study.trials) == 1
