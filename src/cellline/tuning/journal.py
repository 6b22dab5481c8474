"""The journal of a study: a file that workers on a shared disk append each operation to.

Optuna writes and replays it. Ours are the locks, which tell the living workers from the dead.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal._file import BaseJournalFileLock
from optuna.trial import FrozenTrial, TrialState

from cellline.host.files import damaged, sync_folder
from cellline.host.progress import say

Retry = Callable[[optuna.Study, FrozenTrial], None]


class JournalLock(BaseJournalFileLock):
    """The lock on a journal and those on its running trials: bytes of one file beside it.

    The system drops POSIX record locks when their holder dies. (Optuna's own lock file outlives a
    killed holder; others then wait for half a minute.) A process may take its own lock again.
    """

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        # Kept open: closing any file object of it would drop all locks that this process holds.
        self.file = journal.with_name(f".{journal.name}.lock").open("a")
        self.depth = 0
        self.own_trials: set[int] = set()

    def acquire(self) -> bool:
        """Wait for the journal's lock; remove what a killed writer left unfinished."""
        if self.depth == 0:
            fcntl.lockf(self.file, fcntl.LOCK_EX, 1, 0)
            self.cut_unfinished_line()
        self.depth += 1
        return True

    def release(self) -> None:
        """Drop the journal's lock, unless it was taken more than once."""
        self.depth -= 1
        if self.depth == 0:
            fcntl.lockf(self.file, fcntl.LOCK_UN, 1, 0)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from writing, and from looking for dead workers."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def take_trial(self, trial_id: int) -> bool:
        """Lock a trial until this process ends; False where it is locked already."""
        if trial_id in self.own_trials:  # a record lock never excludes its own process
            return False
        try:
            fcntl.lockf(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 1 + trial_id)
        except (BlockingIOError, PermissionError):  # POSIX allows either
            return False
        self.own_trials.add(trial_id)
        return True

    def cut_unfinished_line(self) -> None:
        """Remove a last line that a killed process, or a full disk, left without its end."""
        with self.journal.open("r+b") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            if file.read() in (b"", b"\n"):
                return
            file.seek(0)
            whole = file.read().rfind(b"\n") + 1
            file.truncate(whole)
            os.fsync(file.fileno())
        say(f"the last line of {self.journal} was unfinished: removed its {size - whole} bytes")


class Journal(JournalStorage, BaseHeartbeat):
    """A journal whose running trials are locked; to Optuna, one without lock is stale."""

    def __init__(self, path: Path, retry: Retry) -> None:
        """Open or create the journal; `retry` is called for each trial whose worker was killed.

        Raises UserError when the journal is damaged.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.lock = JournalLock(path)
        self.retry = retry
        backend = JournalFileBackend(str(path), self.lock)
        sync_folder(path.parent)
        with self.lock.held():
            check_journal(path)
        super().__init__(backend)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Begin a trial; with a template only add it."""
        with self.lock.held():
            trial_id = super().create_new_trial(study_id, template_trial)
            if template_trial is None:
                self.lock.take_trial(trial_id)
        return trial_id

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begin a trial that waits, or end one; False where another worker was faster."""
        with self.lock.held():
            is_set = super().set_trial_state_values(trial_id, state, values)
            if is_set and state == TrialState.RUNNING:
                self.lock.take_trial(trial_id)
        return is_set

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        with self.lock.held():
            running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
            ids = [trial._trial_id for trial in running]
            return [trial_id for trial_id in ids if self.lock.take_trial(trial_id)]

    def record_heartbeat(self, trial_id: int) -> None:
        """Do nothing: the lock says enough."""

    def get_heartbeat_interval(self) -> int:
        """Return any number of seconds, so that Optuna looks for stale trials."""
        return 3600

    def get_heartbeat_stale_trial_callback(self) -> Retry:
        """Return what Optuna calls after it has failed a stale trial."""
        return self.retry


def check_journal(path: Path) -> None:
    """Raise UserError when a finished line of a journal is not an operation of Optuna's."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(path, f"line {number} is not an operation of Optuna's") from error
