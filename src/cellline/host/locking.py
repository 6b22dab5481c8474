"""Locks between processes that die with their holder: one writer per folder, one per file."""

import fcntl
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from cellline.errors import UserError
from cellline.host.files import TEMPORARY, name_in_errors

LOCK = ".lock"

# Between two attempts to get a lock.
RETRY_SECONDS = 0.05


@contextmanager
def one_writer(folder: Path, doing: str, wait: float = 0.0) -> Iterator[None]:
    """Be the only process that writes to `folder`, which is created; `doing` names the work.

    Raises UserError that names the other process if one still writes there after `wait` seconds.
    Files that a killed writer left half written are removed.

    The lock is a POSIX record lock on `.lock` in the folder. The system drops it when its holder
    ends in any way, forked children do not inherit it, and it holds between machines that share the
    folder. (filelock, which torch brings, uses flock(), which forked children keep alive.) It does
    not keep a process from itself. The file stays: removing it would be a race.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # "a+" creates the file without emptying it: it names the holder.
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        give_up = time.monotonic() + wait
        while not try_lock(file):
            if time.monotonic() >= give_up:
                file.seek(0)
                holder = file.read() or "another process"
                raise UserError(f"{folder} is in use by {holder}: wait until it ends, or stop it")
            time.sleep(RETRY_SECONDS)
        with name_in_errors(folder / LOCK):
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()} ({doing})")
            file.flush()
        for path in folder.glob(f".*{TEMPORARY}"):
            path.unlink()
        yield


def try_lock(file: IO[str]) -> bool:
    """Take the lock on an open file; False if another process holds it."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # the standard allows either
        return False
    return True
