"""Where a tuning study is kept, for any number of workers: in a journal file, or in a database.

Beside the study itself, a storage knows which workers live: those that hold the lock on their file
beside the journal, or whose trials' heartbeats reach the database.
"""

import fcntl
import os
import platform
import re
import threading
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from cellline.errors import UserError
from cellline.host.locking import is_locked
from cellline.tuning.database import connect, name_database, told_plainly
from cellline.tuning.journal import Journal
from cellline.tuning.retrying import MAX_DEATHS, VOID, put_back

STUDY = "lr-and-batch-size"
JOURNAL = "journal.log"

# A trial's attribute: who runs it.
WORKER = "worker"

# Of a trial in a database. Twelve beats in a row fail where a worker is dead, seldom where it is
# busy: a step may keep Python's lock for seconds, a server may take a minute to start again. A
# trial takes many minutes, so that two are no loss.
BEAT_SECONDS = 10
GRACE_SECONDS = 120


class Storage(ABC):
    """Where a study is kept."""

    def __init__(self, name: str, backend: BaseStorage, report: Callable[[str], None]) -> None:
        """`name` is what messages may call it: no password is in it."""
        self.name = name
        self.backend = backend
        self.report = report
        self.worker = f"{platform.node()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    @abstractmethod
    def joined(self) -> AbstractContextManager[None]:
        """Within, this process is one of the workers."""

    @abstractmethod
    def turn(self) -> AbstractContextManager[None]:
        """Within, no other worker begins a trial, where the storage can see to that."""

    @abstractmethod
    def fail_dead(self, study: optuna.Study) -> None:
        """Fail the trials of dead workers and put them back; in a turn."""

    def take(self, trial: Trial) -> None:
        """Make a trial that was asked for this worker's; in the turn that asked."""
        trial.set_user_attr(WORKER, self.worker)

    @abstractmethod
    def alive(self, trial: Trial) -> AbstractContextManager[None]:
        """Within, the others see that the trial's worker lives."""

    def give_back(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """Put the failed trial of a dead worker back, unless it was not to be run."""
        if VOID in trial.user_attrs:
            return
        outcome = (
            "it is tried again"
            if put_back(study, trial, died=True)
            else f"given up, as it is the {MAX_DEATHS + 1}th that it cost"
        )
        self.report(f"trial {trial.number}: its worker has died; {outcome}")


class FileStorage(Storage):
    """A journal, on a disk that all workers share and whose POSIX locks hold between them."""

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        """Opens or makes the journal. Raises UserError when it is damaged."""
        # A file for each worker; the folder stays.
        self.workers = path.with_name(f".{path.name}.workers")
        self.workers.mkdir(parents=True, exist_ok=True)
        journal = Journal(path)
        cut = journal.cut_unfinished_line()
        if cut:
            report(
                f"the last line of {path} was not finished, as after a power cut or on "
                f"a full disk: its {cut} bytes are removed, what is before it is kept"
            )
        super().__init__(str(path), JournalStorage(journal), report)
        self.lock = journal.lock

    @contextmanager
    def joined(self) -> Iterator[None]:
        """A lock on a file of this worker's own says so; the system drops it when it dies."""
        path = self.workers / self.worker
        with ExitStack() as stack:
            # Others look at it in a turn of theirs, and would take it for a dead worker's.
            with self.turn():
                file = stack.enter_context(path.open("x"))
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                yield
            finally:
                with self.turn():
                    path.unlink()

    def turn(self) -> AbstractContextManager[None]:
        """The journal's lock."""
        return self.lock.held()

    def fail_dead(self, study: optuna.Study) -> None:
        """Those whose worker's file is not locked, or not there; such files are removed."""
        living = set()
        for path in self.workers.iterdir():
            # This process's own: a lock never keeps a process from itself.
            if path.name == self.worker or is_locked(path):
                living.add(path.name)
            else:
                path.unlink()
        for trial in study.get_trials(states=(TrialState.RUNNING,)):
            # Whoever begins a trial takes it in the same turn, or died in it.
            if trial.user_attrs.get(WORKER) not in living:
                study.tell(trial.number, state=TrialState.FAIL)
                self.give_back(study, trial)

    def alive(self, trial: Trial) -> AbstractContextManager[None]:
        """Nothing to do."""
        return nullcontext()


class DatabaseStorage(Storage):
    """A database: any that Optuna knows by a URL."""

    backend: RDBStorage

    def __init__(self, url: str, report: Callable[[str], None]) -> None:
        """Connects. Raises UserError where that fails."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage = connect(
                url,
                heartbeat_interval=BEAT_SECONDS,
                grace_period=GRACE_SECONDS,
                heartbeat_stale_trial_callback=self.give_back,
            )
        super().__init__(name_database(url), storage, report)
        self.seen: set[int] = set()

    @contextmanager
    def joined(self) -> Iterator[None]:
        """It is told apart by its trials' heartbeats; errors of the connection are UserErrors."""
        try:
            with told_plainly(self.name):
                yield
        finally:
            self.backend.engine.dispose()

    def turn(self) -> AbstractContextManager[None]:
        """Others may be at the same."""
        return nullcontext()

    def fail_dead(self, study: optuna.Study) -> None:
        """Those whose heartbeat is older than the grace period."""
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            # Its worker has just begun it, or died before its first heartbeat, without which
            # Optuna would never take it for dead.
            if WORKER not in trial.user_attrs and trial.number not in self.seen:
                self.seen.add(trial.number)
                self.backend.record_heartbeat(trial._trial_id)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(study)

    def take(self, trial: Trial) -> None:
        """The first heartbeat comes before."""
        self.backend.record_heartbeat(trial._trial_id)
        super().take(trial)

    @contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """A thread's heartbeats: Optuna's own thread ends for good when the server is away once."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                with suppress(StorageInternalError):
                    self.backend.record_heartbeat(trial._trial_id)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def open_storage(where: str, report: Callable[[str], None]) -> Storage:
    """The storage at a URL, or in the journal file at a path.

    Raises UserError when it can't be reached, or is damaged.
    """
    return DatabaseStorage(where, report) if is_url(where) else FileStorage(Path(where), report)


@contextmanager
def storage_to_read(where: str) -> Iterator[tuple[str, BaseStorage]]:
    """The storage at a URL, or in the journal file at a path, and what messages may call it.

    For who only reads it. Raises UserError when it can't be reached, is damaged or not there.
    """
    if is_url(where):
        name = name_database(where)
        with told_plainly(name):
            storage = connect(where)
            try:
                yield name, storage
            finally:
                storage.engine.dispose()
    elif Path(where).exists():
        yield where, JournalStorage(Journal(Path(where)))
    else:
        raise UserError(f"--storage {where}: there is no such file")


def is_url(where: str) -> bool:
    """Whether it names a database, no file; also where it is misspelt and holds a password."""
    return re.match(r"[A-Za-z0-9+]+:", where) is not None
