import json
import os
import signal
import subprocess
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import optuna
import pytest
from disks import small_file_system
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.stopping import TIME_IS_UP, Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.folds import Folds
from cellline.training.memory import TooLittleMemoryError
from cellline.training.settings import Tuned, read_tuned
from cellline.tuning.journal import Journal
from cellline.tuning.storage import STUDY, open_storage
from cellline.tuning.study import FINISHED, begin_trial
from cellline.tuning.tune import tune

FOLDER = Path("oof/tuning")
JOURNAL = FOLDER / "journal.log"


class Search(Protocol):
    def __call__(
        self,
        trials: int,
        report: Callable[[str], None] = print,
        stop: Stop | None = None,
        storage: str | None = None,
        **changes: Any,
    ) -> Tuned: ...


@pytest.fixture
def search(competition: Competition, folds: Folds, training: Training, device: Device) -> Search:
    def run(
        trials: int,
        report: Callable[[str], None] = print,
        stop: Stop | None = None,
        storage: str | None = None,
        **changes: Any,
    ) -> Tuned:
        return tune(
            competition,
            folds,
            replace(training, **{"epochs": 2, "lr": None, "batch_size": None, **changes}),
            device,
            fold=0,
            trials=trials,
            folder=FOLDER,
            storage=storage,
            stop=stop or Stop(),
            report=report,
        )

    return run


def study() -> optuna.Study:
    """As Optuna alone reads it."""
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(JOURNAL))
    )
    return optuna.load_study(study_name=STUDY, storage=storage)


def finished(opened: optuna.Study | None = None) -> list[tuple[Any, ...]]:
    return [
        (t.params, t.value, t.state, t.intermediate_values)
        for t in (opened or study()).get_trials(states=FINISHED)
    ]


def test_todays_settings_come_first_and_the_best_is_written(
    search: Search, competition: Competition, folds: Folds
) -> None:
    found = search(3)
    trials = study().trials
    assert trials[0].params == {"lr": 1e-3, "batch_size": 64}
    assert len(trials) == 3
    best = max((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.value or 0)
    assert (found.lr, found.batch_size) == (best.params["lr"], best.params["batch_size"])
    assert found.bac == best.value
    assert read_tuned(Path("oof")) == found
    assert (found.trials, found.fold) == (3, 0)
    assert (found.input_digest, found.folds_digest) == (competition.digest, folds.digest)
    assert found.code == code_version()


def test_a_database_has_the_same_trials(search: Search) -> None:
    # More than are drawn at random.
    search(5)
    best = (FOLDER / "best.json").read_bytes()
    (FOLDER / "best.json").unlink()
    with warnings.catch_warnings():
        # Such as that heartbeats are experimental.
        warnings.simplefilter("error", ExperimentalWarning)
        warnings.simplefilter("error", UserWarning)
        search(5, storage="sqlite:///study.db")
    assert (FOLDER / "best.json").read_bytes() == best
    opened = optuna.load_study(study_name=STUDY, storage="sqlite:///study.db")
    assert finished(opened) == finished()


def test_what_others_are_at_is_waited_for(search: Search) -> None:
    where = "sqlite:///study.db"
    search(1, storage=where)
    elsewhere = open_storage(where, print)
    opened = optuna.load_study(study_name=STUDY, storage=elsewhere.backend)
    trial = begin_trial(opened, elsewhere, opened.user_attrs["settings"], 2, 0)
    assert trial is not None
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped):
        search(2, interrupt, storage=where)
    waiting = "1 of 2 trials are finished, and others are at the rest: waiting for them"
    assert lines == [waiting, "1 of 2 trials are finished and kept"]

    def finish(line: str) -> None:
        lines.append(line)
        opened.tell(trial, 1.0)

    # Not only what it ran itself.
    assert search(2, finish, storage=where).lr == trial.params["lr"]
    assert lines[2:] == [waiting]
    assert len(opened.trials) == 2


def test_a_finished_study_does_nothing_more(search: Search) -> None:
    search(2)
    before = (FOLDER / "best.json").read_bytes()
    search(2)
    assert len(study().trials) == 2
    assert (FOLDER / "best.json").read_bytes() == before


def test_wherever_a_study_was_killed_it_ends_as_if_it_had_not_been(search: Search) -> None:
    # More trials than are drawn at random, so that what was found before counts.
    search(6)
    expected, best = finished(), (FOLDER / "best.json").read_bytes()
    assert len({trial[0]["lr"] for trial in expected}) == 6
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    tells = [i for i, line in enumerate(lines) if b'"op_code":6,"' in line and b"complete" in line]
    assert len(tells) == 6
    # The journal is all the state there is, so it ends where the process was killed: while the
    # study began and in its first trial, and around its last trials.
    for wanted, cuts in ((1, range(tells[0] + 2)), (6, range(tells[4] - 1, len(lines) + 1))):
        for kept in cuts:
            JOURNAL.write_bytes(b"".join(lines[:kept]))
            (FOLDER / "best.json").unlink(missing_ok=True)
            search(wanted)
            assert finished() == expected[:wanted], f"killed after line {kept}"
            # Killed once more, after one of the operations that go on from there.
            again = JOURNAL.read_bytes().splitlines(keepends=True)
            JOURNAL.write_bytes(b"".join(again[: kept + 1 + kept % 4]))
            search(wanted)
            assert finished() == expected[:wanted], f"killed after line {kept}, then again"
            states = [trial.state for trial in study().trials]
            assert len(states) == wanted + states.count(TrialState.FAIL)
            assert states.count(TrialState.FAIL) <= 2
    assert (FOLDER / "best.json").read_bytes() == best


@pytest.mark.parametrize("keep", [1, 40, -1])
def test_a_line_that_was_not_finished_is_removed_and_reported(search: Search, keep: int) -> None:
    search(2)
    expected = finished()
    whole = JOURNAL.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    JOURNAL.write_bytes(whole.removesuffix(last) + last[:keep])
    lines: list[str] = []
    search(2, lines.append)
    assert lines[0].startswith(f"the last line of {JOURNAL} was not finished")
    assert f"its {len(last[:keep])} bytes are removed" in lines[0]
    assert finished() == expected


def test_a_lock_that_an_older_version_left_is_no_matter(search: Search) -> None:
    # Optuna's, of a process that was killed: it would be waited for.
    FOLDER.mkdir(parents=True)
    lock = JOURNAL.with_name("journal.log.lock")
    lock.symlink_to(JOURNAL)
    search(1)
    assert lock.is_symlink()


def test_a_study_that_newer_code_goes_on_with_says_so(search: Search) -> None:
    lines: list[str] = []
    search(1, lines.append)
    assert not any("warning" in line for line in lines)
    storage = optuna.storages.JournalStorage(Journal(JOURNAL))
    optuna.load_study(study_name=STUDY, storage=storage).set_user_attr("code", "0" * 40)
    search(2, lines.append)
    [warning] = [line for line in lines if "warning" in line]
    assert f"(000000000000) than the one that goes on ({code_version()[:12]})" in warning


def test_a_signal_or_the_time_ends_it_with_what_is_finished(search: Search) -> None:
    search(3)
    expected = finished()
    FOLDER.rename("oof/whole")
    lines: list[str] = []

    def interrupt(line: str) -> None:
        lines.append(line)
        if line.startswith("trial 0"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Stopped) as stopped:
        search(3, interrupt)
    assert stopped.value.status == 143
    assert lines[-1].startswith("1 of 3 trials are finished and kept")
    best = read_tuned(Path("oof"))
    assert best is not None
    assert (best.trials, best.lr) == (1, expected[0][0]["lr"])
    # The time is up before anything could begin.
    with pytest.raises(Stopped):
        search(3, stop=Stop(1e-9))
    assert finished() == expected[:1]
    search(3)
    assert finished() == expected


def test_a_trial_that_is_stopped_is_put_back_at_once(search: Search) -> None:
    class InTheFirstTrial(Stop):
        def look(self) -> int:
            return TIME_IS_UP if study().trials else 0

    with pytest.raises(Stopped):
        search(2, stop=InTheFirstTrial())
    stopped, waiting = study().trials
    assert (stopped.state, waiting.state) == (TrialState.FAIL, TrialState.WAITING)
    assert waiting.params == stopped.params == {"lr": 1e-3, "batch_size": 64}
    search(2)
    assert [trial.state for trial in study().trials[1:]] == [TrialState.COMPLETE] * 2


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """The folder of the OOF folder's tuning, on a file system of 4 MB."""
    with small_file_system(FOLDER, "4m") as folder:
        yield folder


def fill(folder: Path) -> Path:
    """Take all the room on a disk that there is."""
    with (folder / "others").open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(4096))
    return folder / "others"


def test_a_disk_that_fills_up_costs_no_finished_trial(search: Search, small_disk: Path) -> None:
    def fill_after_a_trial(line: str) -> None:
        if line.startswith("trial 0"):
            fill(small_disk)

    with pytest.raises(OSError, match="No space left") as full:
        search(3, fill_after_a_trial)
    # As cli.py tells it; the trial is in the journal, and what comes next can't be.
    assert Path(full.value.filename) == FOLDER / "best.json"
    with pytest.raises(OSError, match="No space left"):
        search(3)
    (small_disk / "others").unlink()
    search(3)
    continued = finished()
    for path in small_disk.rglob("*"):
        if path.is_file():
            path.unlink()
    search(3)
    assert finished() == continued


def test_a_disk_that_cannot_be_written_is_named(search: Search, small_disk: Path) -> None:
    search(1)
    before = JOURNAL.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(FOLDER.absolute())], check=True)
    with pytest.raises(OSError, match="Read-only file system") as refused:
        search(2)
    assert Path(refused.value.filename).parent == FOLDER
    assert JOURNAL.read_bytes() == before


def test_the_first_trial_may_lie_outside_the_search(search: Search) -> None:
    found = search(1, lr=0.05, batch_size=48)
    assert (found.lr, found.batch_size) == (0.05, 48)
    search(3)
    assert finished()[0][0] == {"lr": 0.05, "batch_size": 48}


def test_a_trial_that_diverges_is_pruned_and_is_never_the_best(search: Search) -> None:
    with pytest.raises(UserError, match="no trial came to its end"):
        search(1, lr=1e30)
    assert [trial.state for trial in study().trials] == [TrialState.PRUNED]
    assert not (FOLDER / "best.json").exists()


def test_a_trial_that_memory_is_too_small_for_does_not_end_the_study(search: Search) -> None:
    class FullInTheFirstTrial(Stop):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls == 3:  # after a step
                raise TooLittleMemoryError("--batch-size 16 needs about 9 GiB of memory")

    lines: list[str] = []
    found = search(2, lines.append, FullInTheFirstTrial())
    assert [trial.state for trial in study().trials] == [TrialState.PRUNED, TrialState.COMPLETE]
    assert lines[0].endswith("--batch-size 16 needs about 9 GiB of memory")
    assert found.trials == 2


def test_a_study_of_other_settings_is_not_continued(search: Search) -> None:
    search(1)
    with pytest.raises(UserError, match=r"dropout was 0\.2 and is 0\.3 now.*move .* away"):
        search(1, dropout=0.3)
    assert json.loads((FOLDER / "best.json").read_text())["settings"]["dropout"] == 0.2
