"""Several `make tune` at one study: some are killed, and every trial is accounted for."""

import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
from cellline.tuning.retrying import DEATHS, PARAMETERS, history, is_duplicate
from cellline.tuning.study import FINISHED
from harness import PATIENCE, Ended, Running
from optuna.trial import FrozenTrial, TrialState
from postgres import PASSWORD, Server
from scenes import TINY, Scenes, copy

from cellline.host.files import read_json
from cellline.host.locking import is_locked
from cellline.tuning.storage import STUDY, WORKER, storage_to_read

# Of a trial: it must be long beside what it takes to look at a study, or it is never met.
EPOCHS = 30

RUNNING, FAIL = TrialState.RUNNING, TrialState.FAIL


@dataclass(frozen=True)
class Shared:
    """A study that workers share: in a journal, or in a database of a server."""

    where: str
    server: Server | None = None

    def trials(self) -> list[FrozenTrial]:
        """None before the study has begun."""
        if self.server is None and not Path(self.where).exists():
            return []
        with storage_to_read(self.where) as (_, storage):
            if not storage.get_all_studies():
                return []
            return optuna.load_study(study_name=STUDY, storage=storage).trials

    def is_held_up(self, worker: str) -> bool:
        """Whether others would wait for a worker that is stopped now."""
        if self.server is None:
            path = Path(self.where)
            return is_locked(path.with_name(f".{path.name}.lock"))
        return self.server.is_busy(self.database, worker)

    @property
    def database(self) -> str:
        return self.where.rpartition("/")[2]

    def forget(self, trial: FrozenTrial) -> None:
        """As if an hour had passed since a trial's last heartbeat."""
        if self.server is not None:
            self.server.execute(
                self.database,
                "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour' WHERE "
                f"trial_id = (SELECT trial_id FROM trials WHERE number = {trial.number})",
            )


@dataclass(frozen=True)
class Worker:
    """`make tune` in a folder of its own, as on a machine of its own."""

    folder: Path
    shared: Shared
    running: Running

    def runs(self, trial: FrozenTrial) -> bool:
        return f"-{self.running.pid}-" in trial.user_attrs.get(WORKER, "")

    def own_trial(self) -> FrozenTrial | None:
        """What it is training now."""
        for trial in self.shared.trials():
            if self.runs(trial) and trial.state == RUNNING and trial.params.keys() == PARAMETERS:
                return trial
        return None

    def stop_within_a_trial(self) -> FrozenTrial:
        """Stop it while it trains, and not where others would wait for it; the trial."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            if self.own_trial():
                os.kill(self.running.pid, signal.SIGSTOP)
                self.running.await_stop()
                # Asked again: the trial may have ended meanwhile.
                if not self.shared.is_held_up(self.folder.name) and (trial := self.own_trial()):
                    return trial
                self.running.signal()
            time.sleep(0.01)
        raise AssertionError(f"it never trains: {self.running.printed()}")

    def end(self, status: int = 0) -> Ended:
        ended = self.running.end()
        assert ended.status == status, ended.printed
        assert PASSWORD not in ended.printed
        assert "Traceback" not in ended.printed
        assert "Warning" not in ended.printed
        return ended


def start(scenes: Scenes, folder: Path, shared: Shared, trials: int) -> Worker:
    """Start a worker in a folder, which is made if need be."""
    if not folder.exists():
        copy(scenes.start.after, folder)
    # By this name the server knows it.
    where = shared.where + (f"?application_name={folder.name}" if shared.server else "")
    arguments = ("--input-dir", str(scenes.folder / "input"), "--storage", where)
    arguments += ("--trials", str(trials), "--tune-epochs", str(EPOCHS), *TINY)
    return Worker(folder, shared, scenes.verbs.start(folder, "tune", *arguments))


def check_account(shared: Shared, wanted: int, killed: FrozenTrial) -> list[FrozenTrial]:
    """So many trials have finished, the one that was killed among them; the finished ones."""
    trials = shared.trials()
    assert [trial.number for trial in trials] == list(range(len(trials)))
    # Two workers may put back the same trial at once: one of them is never run.
    trials = [trial for trial in trials if not is_duplicate(trials, trial)]
    finished = [trial for trial in trials if trial.state in FINISHED]
    failed = [trial for trial in trials if trial.state == FAIL]
    assert len(finished) == wanted
    assert len(finished) + len(failed) == len(trials)
    # Two may begin the last trial of a study in a database at once: one leaves it again, and never
    # has parameters.
    assert [trial.number for trial in failed if trial.params] == [killed.number]
    assert len({tuple(trial.params.items()) for trial in finished}) == wanted
    [retry] = [trial for trial in trials if history(trial)]
    assert history(retry) == [killed.number]
    assert retry.state in FINISHED
    assert retry.params == killed.params
    assert retry.user_attrs[DEATHS] == 1
    return finished


@pytest.mark.parametrize("kind", ["journal", "postgresql"])
def test_four_workers_of_which_one_is_killed(
    scenes: Scenes, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        shared = Shared(server.make_database("four_workers"), server)
    else:
        shared = Shared(str(tmp_path / "shared/study.log"))
    wanted, workers, at_once = 8, [], []
    for number in range(4):
        workers.append(start(scenes, tmp_path / f"worker{number}", shared, wanted))
        at_once.append(workers[-1].stop_within_a_trial())
    assert [t.number for t in shared.trials() if t.state == RUNNING] == [t.number for t in at_once]
    killed, survivors = workers[1], [workers[0], *workers[2:]]
    os.kill(killed.running.pid, signal.SIGKILL)
    assert killed.running.end().killed
    shared.forget(at_once[1])
    for worker in survivors:
        worker.running.signal()
    ends = [worker.end() for worker in survivors]

    finished = check_account(shared, wanted, at_once[1])
    for worker in survivors:
        assert any(worker.runs(trial) for trial in finished)
    died = f"trial {at_once[1].number}: its worker has died; it is tried again"
    assert sum(died in ended.printed for ended in ends) == 1
    best = max(t.value for t in finished if t.state == TrialState.COMPLETE and t.value is not None)
    for worker in survivors:
        left = read_json(worker.folder / "oof/tuning/best.json")
        assert (left["trials"], left["bac"]) == (wanted, best)
        for path in worker.folder.rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
    if kind == "journal":
        left_there = {path.name for path in Path(shared.where).parent.rglob("*")}
        assert left_there == {"study.log", ".study.log.lock", ".study.log.workers"}


@pytest.mark.torture
def test_a_server_that_ends_is_told_of_and_gone_on_with_when_it_is_back(
    scenes: Scenes, tmp_path: Path, postgresql: Server
) -> None:
    shared = Shared(postgresql.make_database("ends"), postgresql)
    worker = start(scenes, tmp_path / "folder", shared, 4)
    trial = worker.stop_within_a_trial()
    postgresql.stop()
    worker.running.signal()
    ended = worker.end(2)
    assert re.search(r"^error: postgresql\+psycopg://127.* fails: .*", ended.printed, re.MULTILINE)
    start(scenes, tmp_path / "folder", shared, 4).end(2)
    postgresql.start()
    shared.forget(trial)
    start(scenes, tmp_path / "folder", shared, 4).end()
    check_account(shared, 4, trial)


@pytest.mark.torture
def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_the_other(
    scenes: Scenes, tmp_path: Path, postgresql: Server
) -> None:
    shared = Shared(postgresql.make_database("asleep"), postgresql)
    asleep = start(scenes, tmp_path / "asleep", shared, 4)
    # As a laptop that is closed.
    trial = asleep.stop_within_a_trial()
    shared.forget(trial)
    other = start(scenes, tmp_path / "other", shared, 4).end()
    asleep.running.signal()
    ended = asleep.end()
    assert f"trial {trial.number}: its worker has died; it is tried again" in other.printed
    assert re.search(rf"trial {trial.number}: .*: left to another", ended.printed)
    check_account(shared, 4, trial)
