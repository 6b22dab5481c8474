from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellline.errors import UserError
from cellline.journal import Journal, check_journal, cut_unfinished_line

PATH = Path("tuning/journal.log")


def begin(path: Path) -> optuna.Study:
    path.parent.mkdir(exist_ok=True)
    return optuna.create_study(storage=optuna.storages.JournalStorage(Journal(path)))


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
        Journal(path)
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
        Journal(path)


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
    assert cut_unfinished_line(path) == len(left) - len(whole)
    assert path.read_bytes() == whole
    check_journal(path)


def test_a_journal_that_has_not_begun_has_nothing_to_remove() -> None:
    assert cut_unfinished_line(PATH) == 0
    assert not PATH.exists()
