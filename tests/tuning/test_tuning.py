import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from disks import small_file_system
from optuna.trial import FrozenTrial, TrialState

from cellline.config import MetricName, Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.files import read_json
from cellline.host.stopping import TIME_IS_UP, Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.folds import Folds
from cellline.training.memory import TooLittleMemoryError
from cellline.training.settings import Tuned, read_tuned
from cellline.tuning.storage import MAX_RETRIES, STUDY, Journal, load_study
from cellline.tuning.tune import FINISHED, Task, tune

FOLDER = Path("oof/tuning")
JOURNAL = FOLDER / "journal.log"

COMPLETE, FAIL, PRUNED = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED

Search = Callable[..., Tuned]


@pytest.fixture
def search(folds: Folds, training: Training, device: Device) -> Search:
    """Tune for so many trials, with a storage, a stop and changes of settings."""

    def run(
        trials: int,
        where: str | None = None,
        stop: Stop | None = None,
        metric: MetricName = "balanced_accuracy",
        **changes: Any,
    ) -> Tuned:
        scored = replace(folds, competition=replace(folds.competition, metric=metric))
        settings = {"epochs": 2, "lr": None, "batch_size": None, **changes}
        task = Task(scored, 0, replace(training, **settings), device)
        return tune(task, trials, FOLDER, where, stop or Stop())

    return run


def trials(where: str = str(JOURNAL)) -> list[FrozenTrial]:
    study = load_study(where)
    assert study is not None
    return study.trials


def finished(where: str = str(JOURNAL)) -> list[tuple[Any, ...]]:
    """What is the same for the same study, whatever disturbed it."""
    ended = [trial for trial in trials(where) if trial.state in FINISHED]
    return [(t.params, t.value, t.state, t.intermediate_values) for t in ended]


class StopInTrial(Stop):
    """As if SIGTERM came within the trial of this number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def look(self) -> int:
        begun = [trial.number for trial in trials() if trial.params]
        return TIME_IS_UP + signal.SIGTERM if self.number in begun else 0


def test_todays_settings_come_first_and_the_best_is_written(
    search: Search, competition: Competition, folds: Folds
) -> None:
    found = search(3)
    tried = trials()
    assert tried[0].params == {"lr": 1e-3, "batch_size": 64}
    assert len(tried) == 3
    best = max((t for t in tried if t.state == COMPLETE), key=lambda t: t.value or 0)
    assert (found.lr, found.batch_size) == (best.params["lr"], best.params["batch_size"])
    assert found.score == best.value
    assert read_tuned(Path("oof")) == found
    assert (found.trials, found.fold) == (3, 0)
    assert (found.input_digest, found.folds_digest) == (competition.digest, folds.digest)
    assert found.code == code_version()
    # By this, dealing other folds knows that the study depends on these.
    assert read_json(FOLDER / "config.json")["folds_digest"] == folds.digest


def test_where_less_is_better_the_least_is_the_best(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search(1)
    with pytest.raises(UserError, match="metric was balanced_accuracy and is log_loss now"):
        search(1, metric="log_loss")
    JOURNAL.unlink()
    found = search(3, metric="log_loss")
    scored = [trial.value for trial in trials() if trial.state == COMPLETE]
    assert found.score == min(value for value in scored if value is not None)
    assert read_json(FOLDER / "best.json")["metric"] == "log_loss"
    assert f"best so far {found.score:.3f}\n" in capsys.readouterr().out


def test_a_fold_that_has_no_score_is_reported(search: Search, competition: Competition) -> None:
    competition.labels[::3] = 0
    with pytest.raises(UserError, match=r"fold 0 has no ROC AUC, because .* --fold"):
        search(1, metric="roc_auc")
    assert not FOLDER.exists()


def test_a_study_begins_only_with_settings_that_can_be_trained(search: Search) -> None:
    with pytest.raises(UserError, match="can't take images of 1 pixels"):
        search(1, image_size=1)
    assert not FOLDER.exists()
    assert search(1).trials == 1


def test_a_database_has_the_same_trials(search: Search) -> None:
    found = search(3)
    assert search(3, where="sqlite:///study.db") == found
    assert finished("sqlite:///study.db") == finished()


def test_a_study_continues_wherever_it_was_killed(search: Search) -> None:
    found = search(3)
    expected = finished()
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    # The journal is all the state there is, so it ends where the process was killed: between two
    # operations or within one, also with one of a trial's two parameters.
    halves = [at + 1 for at, line in enumerate(lines) if b'"param_name":"lr"' in line]
    assert len(halves) == 3
    for kept in (*range(1, len(lines), 5), *halves):
        half = lines[kept][: kept % 20]
        JOURNAL.write_bytes(b"".join(lines[:kept]) + half)
        (FOLDER / "best.json").unlink(missing_ok=True)
        assert search(3) == found, f"killed after line {kept}"
        assert finished() == expected, f"killed after line {kept}"


def test_an_unfinished_line_is_removed_and_reported(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search(2)
    expected = finished()
    with JOURNAL.open("ab") as file:
        file.write(b'{"op_code":4,"work')
    assert finished() == expected  # to the report it is not there
    search(2)
    told = f"the last line of {JOURNAL} was unfinished: removed its 18 bytes"
    assert told in capsys.readouterr().out
    assert finished() == expected


@pytest.mark.parametrize("line", [b"\0\0\0", b'{"op_code":', b"5", b"{}"])
def test_a_damaged_journal_is_named(search: Search, line: bytes) -> None:
    search(1)
    lines = JOURNAL.read_bytes().splitlines(keepends=True)
    damaged = b"".join([*lines[:4], line, b"\n", *lines[4:]])
    JOURNAL.write_bytes(damaged)
    for read in (partial(search, 2), trials):
        with pytest.raises(UserError, match=rf"{JOURNAL} is damaged \(a line is .*put a copy back"):
            read()
    assert JOURNAL.read_bytes() == damaged


@pytest.mark.parametrize(
    "damage",
    ["trial_params SET distribution_json = 'x'", "study_user_attributes SET value_json = '{bad'"],
)
def test_a_damaged_database_is_named(search: Search, damage: str) -> None:
    search(1, "sqlite:///study.db")
    with closing(sqlite3.connect("study.db")) as database, database:
        database.execute(f"UPDATE {damage}")
    for read in (partial(search, 2), trials):
        with pytest.raises(UserError, match=r"study in sqlite:///study\.db is damaged"):
            read("sqlite:///study.db")


@pytest.mark.parametrize(
    "content", [b'{"only":"copy"}', b"host:5432:db:me:secret", b"\7" * 4000, b"a line\n"]
)
@pytest.mark.parametrize("url", ["", "sqlite:///"])
def test_a_file_that_is_no_study_is_left_as_it_is(search: Search, content: bytes, url: str) -> None:
    Path("mine").write_bytes(content)
    told = "file is not a database" if url else "mine is not the journal of a study"
    with pytest.raises(UserError, match=told):
        search(1, f"{url}mine")
    assert Path("mine").read_bytes() == content
    assert {path.name for path in Path().iterdir()} == {"mine", "oof"}  # no lock beside it


def test_what_is_no_file_is_no_journal(search: Search) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    for place in ("folder", "pipe", "/dev/zero"):
        for read in (partial(search, 1, place), partial(trials, place)):
            with pytest.raises(UserError, match=f"{place} is not the journal of a study"):
                read()


def test_a_trial_that_is_stopped_is_queued_again(search: Search) -> None:
    with pytest.raises(Stopped) as stopped:
        search(2, stop=StopInTrial(1))
    assert stopped.value.status == 143
    first, ended, waiting = trials()
    assert [first.state, ended.state, waiting.state] == [COMPLETE, FAIL, TrialState.WAITING]
    best = read_tuned(Path("oof"))
    assert best is not None and best.trials == 1
    search(2)
    assert [trial.state in FINISHED for trial in trials()] == [True, False, True]
    assert trials()[2].params == ended.params


def test_when_the_time_is_up_nothing_begins(search: Search) -> None:
    with pytest.raises(Stopped):
        search(3, stop=Stop(1e-9))
    assert [trial.state for trial in trials()] == [TrialState.WAITING]


def test_enough_trials_under_way_elsewhere_are_waited_for(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search(1)
    (begun, begins), (ends, end) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        study = optuna.load_study(study_name=STUDY, storage=Journal(JOURNAL))

        def train(trial: optuna.Trial) -> float:
            trial.suggest_float("lr", 3e-5, 1e-2, log=True)
            trial.suggest_categorical("batch_size", (16, 32, 64, 128))
            os.write(begins, b"begun")
            os.read(ends, 1)
            return 1.0

        study.optimize(train, n_trials=1)
        os._exit(0)

    class Waiting(Stop):
        looks = 0

        def look(self) -> int:
            self.looks += 1
            if self.looks == 3:
                os.write(end, b"!")
            return 0

    os.read(begun, 5)
    found = search(2, stop=Waiting())
    os.waitpid(child, 0)
    assert found.trials == len(trials()) == 2
    waiting = "1 of 2 trials are finished, others run the rest: waiting"
    assert capsys.readouterr().out.count(waiting) == 1


def test_a_trial_that_kills_its_workers_is_given_up(search: Search) -> None:
    with pytest.raises(Stopped):
        search(1, stop=Stop(1e-9))
    for _ in range(MAX_RETRIES + 1):
        child = os.fork()
        if child == 0:
            study = optuna.load_study(study_name=STUDY, storage=Journal(JOURNAL))
            study.optimize(lambda trial: os.kill(os.getpid(), signal.SIGKILL), n_trials=1)
        os.waitpid(child, 0)
    search(1)
    assert [trial.state for trial in trials()] == [FAIL] * (MAX_RETRIES + 1) + [COMPLETE]


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """The folder of the OOF folder's tuning, on a file system of 4 MB."""
    with small_file_system(FOLDER, "4m") as folder:
        yield folder


def test_a_full_disk_is_named_and_costs_no_finished_trial(search: Search, small_disk: Path) -> None:
    class Filling(Stop):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls == 3:  # in the trial
                with (small_disk / "others").open("wb", buffering=0) as file, suppress(OSError):
                    while True:
                        file.write(bytes(4096))

    search(1)
    expected = finished()
    for stop in (Filling(), Stop()):
        with pytest.raises(OSError, match="No space left") as full:
            search(3, stop=stop)
        assert Path(full.value.filename).parent == FOLDER
    (small_disk / "others").unlink()
    search(3)
    assert finished()[:1] == expected
    assert len(finished()) == 3


def test_the_first_trial_may_lie_outside_the_search(search: Search) -> None:
    found = search(1, lr=0.05, batch_size=48)
    assert (found.lr, found.batch_size) == (0.05, 48)
    search(3, lr=0.05, batch_size=48)
    assert finished()[0][0] == {"lr": 0.05, "batch_size": 48}


def test_a_trial_that_diverges_is_pruned_and_is_never_the_best(search: Search) -> None:
    with pytest.raises(UserError, match="no trial was completed"):
        search(1, lr=1e30)
    assert [trial.state for trial in trials()] == [PRUNED]
    assert not (FOLDER / "best.json").exists()


def test_a_trial_that_memory_is_too_small_for_does_not_end_the_study(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    class FullInTheFirstTrial(Stop):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls == 3:  # after a step
                raise TooLittleMemoryError("--batch-size 16 needs about 9 GiB of memory")

    found = search(2, stop=FullInTheFirstTrial())
    assert [trial.state for trial in trials()] == [PRUNED, COMPLETE]
    assert "--batch-size 16 needs about 9 GiB of memory" in capsys.readouterr().out
    assert found.trials == 2


def test_a_trial_below_the_median_is_pruned(
    search: Search, capsys: pytest.CaptureFixture[str]
) -> None:
    search(1, epochs=3)
    study = optuna.load_study(study_name=STUDY, storage=Journal(JOURNAL))
    [trial] = study.trials
    for _ in range(3):
        better = optuna.create_trial(
            value=1.0,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=dict.fromkeys(range(3), 1.0),
        )
        study.add_trial(better)
    search(5, epochs=3)
    # Not after the first epoch, which does not count.
    assert trials()[4].state == PRUNED
    assert list(trials()[4].intermediate_values) == [0, 1]
    assert "pruned after epoch 2 at " in capsys.readouterr().out


def test_a_mistake_in_a_trial_queues_it_again(search: Search) -> None:
    class Mistaken(Stop):
        calls = 0

        def check(self) -> None:
            self.calls += 1
            if self.calls == 3:
                raise UserError("some file is missing")

    with pytest.raises(UserError, match="some file is missing"):
        search(1, stop=Mistaken())
    search(1)
    assert [trial.state for trial in trials()] == [FAIL, COMPLETE]
    assert trials()[1].params == trials()[0].params


def test_a_study_of_other_settings_is_not_continued(search: Search) -> None:
    search(1)
    before = (FOLDER / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"dropout was 0\.2 and is 0\.3 now.*move .* away"):
        search(1, dropout=0.3)
    assert json.loads((FOLDER / "best.json").read_text())["settings"]["dropout"] == 0.2
    assert (FOLDER / "config.json").read_bytes() == before
