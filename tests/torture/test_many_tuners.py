"""Several `tune` at one study: one is killed, and every trial is accounted for."""

import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import PATIENCE, Ended, Running
from optuna.trial import TrialState
from postgres import PASSWORD, Server
from scenes import TINY, Scenes, copy

from cellline.host.files import read_json
from cellline.tuning.storage import load_study
from cellline.tuning.tune import FINISHED

# A trial must be long beside a look at it from here.
EPOCHS = 12


@dataclass(frozen=True)
class Shared:
    """A study that workers share: in a journal, or in a database of a server."""

    where: str
    server: Server | None = None

    def forget(self, number: int) -> None:
        """As if an hour had passed since a trial's last heartbeat."""
        if self.server is not None:
            self.server.execute(
                self.where.rpartition("/")[2],
                "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 hour' WHERE "
                f"trial_id = (SELECT trial_id FROM trials WHERE number = {number})",
            )

    def check(self, wanted: int, killed: int, workers: int = 1) -> None:
        """Enough trials have finished, the one that was killed among them."""
        study = load_study(self.where)
        assert study is not None
        finished = study.get_trials(states=FINISHED)
        assert wanted <= len(finished) < wanted + workers
        failed = study.trials[killed]
        assert [t.number for t in study.trials if t.state == TrialState.FAIL] == [killed]
        [again] = [trial for trial in finished if "retry_history" in trial.system_attrs]
        assert again.system_attrs["retry_history"] == [killed]
        assert again.params == failed.params
        assert len(study.trials) == len(finished) + 1
        assert len({trial.params["lr"] for trial in finished}) == len(finished)


@dataclass(frozen=True)
class Worker:
    """`tune` in a folder of its own, as on a machine of its own."""

    folder: Path
    shared: Shared
    running: Running

    def await_trial(self) -> int:
        """Wait until it trains; the trial's number."""
        begun = re.compile(r"trial (\d+): lr .* steps; about .*\n$")
        self.running.await_true(lambda: bool(begun.search(self.running.printed())), PATIENCE)
        found = begun.search(self.running.printed())
        assert found is not None
        return int(found[1])

    def stop_within_a_trial(self, server: Server) -> int:
        """Stop it while it trains, and not where others would wait for it; the trial's number."""
        database = self.shared.where.rpartition("/")[2]
        while True:
            number = self.await_trial()
            os.kill(self.running.pid, signal.SIGSTOP)
            self.running.await_stop()
            if not server.is_busy(database, self.folder.name):
                return number
            self.running.signal()

    def end(self, status: int = 0) -> Ended:
        ended = self.running.end()
        assert ended.status == status, ended.printed
        for unwanted in (PASSWORD, "Traceback", "Warning"):
            assert unwanted not in ended.printed
        for path in self.folder.rglob("*"):
            assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
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


@pytest.mark.parametrize(
    ("kind", "workers", "wanted"),
    [
        ("journal", 2, 2),
        ("postgresql", 2, 2),
        pytest.param("journal", 4, 8, marks=pytest.mark.torture),
        pytest.param("postgresql", 4, 8, marks=pytest.mark.torture),
    ],
)
def test_workers_of_which_one_is_killed(
    scenes: Scenes,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    kind: str,
    workers: int,
    wanted: int,
) -> None:
    if kind == "postgresql":
        server: Server = request.getfixturevalue("postgresql")
        shared = Shared(server.make_database(f"workers{workers}"), server)
    else:
        shared = Shared(str(tmp_path / "shared/study.log"))
    # One first: workers that begin at the same moment may all queue the first parameters.
    victim = start(scenes, tmp_path / "worker0", shared, wanted)
    killed = victim.await_trial()
    survivors = [
        start(scenes, tmp_path / f"worker{number}", shared, wanted) for number in range(1, workers)
    ]
    victim.running.kill()
    assert victim.running.end().killed
    shared.forget(killed)
    for worker in survivors:
        worker.end()

    shared.check(wanted, killed, workers)
    for worker in survivors:
        assert read_json(worker.folder / "oof/tuning/best.json")["trials"] >= wanted


@pytest.mark.torture
def test_a_server_that_ends_is_told_of_and_gone_on_with_when_it_is_back(
    scenes: Scenes, tmp_path: Path, postgresql: Server
) -> None:
    shared = Shared(postgresql.make_database("ends"), postgresql)
    worker = start(scenes, tmp_path / "folder", shared, 4)
    number = worker.stop_within_a_trial(postgresql)
    postgresql.stop()
    worker.running.signal()
    ended = worker.end(2)
    assert re.search(r"^error: postgresql\+psycopg://127.* fails: .*", ended.printed, re.MULTILINE)
    start(scenes, tmp_path / "folder", shared, 4).end(2)
    postgresql.start()
    shared.forget(number)
    start(scenes, tmp_path / "folder", shared, 4).end()
    shared.check(4, number)


@pytest.mark.torture
def test_a_worker_that_was_taken_for_dead_leaves_its_trial_to_the_other(
    scenes: Scenes, tmp_path: Path, postgresql: Server
) -> None:
    shared = Shared(postgresql.make_database("asleep"), postgresql)
    asleep = start(scenes, tmp_path / "asleep", shared, 4)
    # As a laptop that is closed.
    number = asleep.stop_within_a_trial(postgresql)
    shared.forget(number)
    start(scenes, tmp_path / "other", shared, 4).end()
    asleep.running.signal()
    ended = asleep.end()
    assert re.search(rf"trial {number}: .*: another worker took it over", ended.printed)
    shared.check(4, number)
