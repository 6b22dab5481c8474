"""The locks on a journal: the file that workers on a shared disk append each operation to.

Optuna writes and replays it; the locks keep writers apart, and the living from the dead.
"""

import fcntl
import json
import os
from pathlib import Path

from optuna.storages.journal._file import BaseJournalFileLock

from cellline.host.files import damaged
from cellline.host.progress import say


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


def check_journal(path: Path) -> None:
    """Raise UserError when a finished line of a journal is not an operation of Optuna's."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(path, f"line {number} is not an operation of Optuna's") from error
