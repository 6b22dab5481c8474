"""Runs the verbs as processes that are killed, and tells whether what they leave is the same."""

import csv
import hashlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import launcher
import optuna
import pytest
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from cellline.training.checkpoint import digest_values
from cellline.tuning.storage import STUDY
from cellline.tuning.tune import FINISHED

SOURCES = Path(__file__).resolve().parents[2] / "src"

# Longer than anything here takes; what hangs fails.
PATIENCE = 120.0
# Loaders look for their parent every five seconds.
LINGERING = 20.0

# For the verbs, of which several run at once.
ONE_THREAD = ("OMP_NUM_THREADS", "1")

# Columns of history.csv that are the clock's.
CLOCK = ("samples_per_second", "seconds")

# What a forked verb need not import again; nothing of this project is among it.
PACKAGES = ["torch", "torch._dynamo", "torchvision", "albumentations", "optuna", "tyro", "pytest"]
PACKAGES += ["sklearn.linear_model", "sklearn.model_selection", "scipy.optimize"]


@dataclass(frozen=True)
class Kill:
    """When a process gets a signal; see launcher."""

    at: str
    number: int = 1
    """Which moment of its kind, from 1."""
    after: float = 0.0
    """Seconds later."""
    by: int = signal.SIGKILL


@dataclass(frozen=True)
class Ended:
    """How a process ended."""

    status: int
    """Negative: killed by the signal of this number."""
    printed: str
    life: dict[str, Any]
    """Of one that was not killed: see launcher."""

    @property
    def killed(self) -> bool:
        return self.status == -signal.SIGKILL

    @property
    def asked(self) -> bool:
        """It ended because SIGTERM asked it to, after it had saved; or when it was done already."""
        # By the signal itself where Python shuts down, and no longer handles it.
        return self.status in (128 + signal.SIGTERM, -signal.SIGTERM)


@dataclass(frozen=True)
class Running:
    """A verb at work, leader of a session of its own."""

    pid: int
    wait: Callable[[], int]
    """Its status; raises TimeoutExpired when it hangs."""
    output: Path

    def printed(self) -> str:
        return self.output.read_text() if self.output.exists() else ""

    def await_stop(self) -> None:
        """Wait until it has stopped itself; see `Kill.by`."""
        self.await_true(lambda: self.states().get(self.pid) == "T", PATIENCE)

    def await_true(self, is_true: Callable[[], bool], seconds: float) -> None:
        give_up = time.monotonic() + seconds
        while not is_true():
            assert time.monotonic() < give_up, f"it hangs: {self.printed()}"
            time.sleep(0.01)

    def states(self) -> dict[int, str]:
        """How the processes of its group are, by id; without those that have ended."""
        command = ["ps", "-A", "-o", "pid=,pgid=,stat="]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = [row.split() for row in listed.splitlines()]
        return {
            int(pid): state[0]
            for pid, group, state in rows
            if int(group) == self.pid and state[0] != "Z"
        }

    def signal(self, *numbers: int) -> None:
        """Send signals as a terminal does, to the whole process group, and let it go on."""
        for number in (*numbers, signal.SIGCONT):
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """Kill what is left of its process group."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def end(self) -> Ended:
        """Wait for its end and that of all the processes that it started."""
        try:
            status = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it hangs: {self.printed()}") from None
        self.await_true(lambda: not self.states(), LINGERING)
        life = self.output.with_suffix(".json")
        return Ended(status, self.printed(), json.loads(life.read_text()) if life.exists() else {})


FORKS = multiprocessing.get_context("forkserver")


class Verbs:
    """Starts verbs, of a copy of the program: its sources may be edited meanwhile.

    `forked` from a process that has imported the packages already, which takes a sixth of the time;
    else by `python`, as a user does.
    """

    def __init__(self, folder: Path, *, forked: bool) -> None:
        self.sources = folder / "src"
        shutil.copytree(SOURCES, self.sources, ignore=shutil.ignore_patterns("__pycache__"))
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.numbers = itertools.count()
        self.forked = forked
        if forked:
            FORKS.set_forkserver_preload(PACKAGES)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(*ONE_THREAD)
                forkserver.ensure_running()

    def start(
        self,
        folder: Path,
        verb: str,
        *arguments: str,
        kill: Kill | None = None,
        ignored: tuple[int, ...] = (),
    ) -> Running:
        """Start a verb in `folder`, with these signals ignored."""
        output = self.logs / f"{next(self.numbers):04d}-{verb}.txt"
        order = {
            **asdict(kill or Kill("never")),
            "ignored": ignored,
            "life": str(output.with_suffix(".json")),
        }
        script = str(self.sources / f"{verb}.py")
        if self.forked:
            return fork(folder, output, order, script, list(arguments))
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, launcher.__file__, json.dumps(order), script, *arguments],
                cwd=folder,
                env={**os.environ, **dict([ONE_THREAD])},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(process.pid, lambda: process.wait(PATIENCE), output)

    def run(self, folder: Path, verb: str, *arguments: str, kill: Kill | None = None) -> Ended:
        """Run a verb in `folder` to its end."""
        return self.start(folder, verb, *arguments, kill=kill).end()


def fork(
    folder: Path, output: Path, order: dict[str, Any], script: str, arguments: list[str]
) -> Running:
    """Start a verb in a process that need not import the packages."""
    process = FORKS.Process(target=launcher.become, args=(folder, output, order, script, arguments))
    process.start()
    assert process.pid is not None

    def wait() -> int:
        process.join(PATIENCE)
        if process.exitcode is None:
            raise subprocess.TimeoutExpired(script, PATIENCE)
        return process.exitcode

    return Running(process.pid, wait, output)


def snapshot(folder: Path) -> dict[str, Any]:
    """All that verbs left in a folder, by path, without what is the clock's or a process's."""
    return {
        str(path.relative_to(folder)): content(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def content(path: Path) -> Any:
    """What must be the same in a file."""
    if path.name in (".lock", "checkpoint-previous.pt", "clock.json"):
        return "there"
    if path.name == "checkpoint.pt":
        values = torch.load(path, map_location="cpu", weights_only=True)
        del values["digest"]
        values["history"] = [without_clock(row) for row in values["history"]]
        return digest_values(values)
    if path.name == "history.csv":
        with path.open(newline="") as file:
            return [without_clock(row) for row in csv.DictReader(file)]
    if path.name == "journal.log":
        return finished_trials(path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in CLOCK}


def finished_trials(journal: Path) -> list[Any]:
    """Parameters, state and values of the trials that came to an end, in order."""
    storage = JournalStorage(JournalFileBackend(str(journal)))
    trials = optuna.load_study(study_name=STUDY, storage=storage).get_trials(states=FINISHED)
    return [(trial.params, trial.state, trial.intermediate_values) for trial in trials]


def half_written(folder: Path) -> set[tuple[str, int]]:
    """Path and inode of each temporary file in a folder: a file that was being written."""
    found = folder.rglob(".*.tmp")
    return {(str(path), path.stat().st_ino) for path in found}
