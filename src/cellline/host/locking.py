"""Locks between processes that die with their holder: one writer a folder, one at a file."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cellline.errors import UserError
from cellline.host.files import name_in_errors, remove_leftovers

LOCK = ".lock"

# Between two tries to get a lock that is waited for.
RETRY_SECONDS = 0.05


@contextmanager
def one_writer(folder: Path, doing: str, wait: float = 0.0) -> Iterator[None]:
    """Be the only process that writes in `folder`, which is made; `doing` says what for.

    Raises UserError that names the other process where one is at it, after `wait` seconds. What an
    earlier writer that was killed left half written is removed.

    A POSIX record lock on the folder's file `.lock`: the system drops it when its holder ends in
    whatever way, forked children don't inherit it, and it holds between the machines that share a
    folder. (filelock, which torch brings, takes flock(), which forked children keep alive.) It
    does not keep a process from itself. The file stays: to remove it would be a race.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # "a+" makes the file and doesn't empty it: it says who holds it.
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        give_up = time.monotonic() + wait
        while not _acquire(file):
            if time.monotonic() >= give_up:
                file.seek(0)
                raise UserError(
                    f"{folder} is being written by {file.read() or 'another process'}, and this "
                    f"would be {doing}; wait for its end, or stop it first"
                )
            time.sleep(RETRY_SECONDS)
        with name_in_errors(folder / LOCK):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()} ({doing})")
            file.flush()
        remove_leftovers(folder)
        yield


class Lock:
    """A lock of the same kind on a file of its own, which is made; waited for without a limit.

    It is for what takes moments: who waits, waits for a process that is at work, or was stopped
    (Ctrl-Z). The process that holds it may take it again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.depth = 0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within, no other process holds it."""
        if self.depth:
            # Not opened again: to close any file object of it would let the lock go.
            yield
            return
        with self.path.open("a") as file:
            fcntl.lockf(file, fcntl.LOCK_EX)
            self.depth += 1
            try:
                yield
            finally:
                self.depth -= 1


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock on a file; not for one that this process holds."""
    with path.open("a") as file:
        return not _acquire(file)


def _acquire(file: IO[str]) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the standard allows either
        return False
    return True
