"""Locks between processes that die with their holder: one writer per folder, one per file."""

import errno
import fcntl
import os
import platform
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from cellline.errors import UserError
from cellline.host.files import TEMPORARY, name_in_errors, open_unlinked

LOCK = ".lock"

# Between two attempts to get a lock.
RETRY_SECONDS = 0.05

# What a lock holds after its first use.
HOLDER = re.compile(r"process \d+ on .* \(.*\)")
LONGEST = 1000  # bytes


@contextmanager
def one_writer(folder: Path, doing: str, wait: float = 0.0) -> Iterator[None]:
    """Be the only process that writes to `folder`, which is created; `doing` names the work.

    Raises UserError that names the other process if one still writes there after `wait` seconds.
    Files that a killed writer left half written are removed. Raises UserError, too, if another
    program's file, or a link, is in the lock's place.

    The lock is a POSIX record lock on `.lock` in the folder. The system drops it when its holder
    ends in any way, forked children do not inherit it, and it holds between machines that share the
    folder. (filelock, which torch brings, uses flock(), which forked children keep alive.) It does
    not keep a process from itself. The file stays: removing it would be a race.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open_lock(folder / LOCK) as file:
        give_up = time.monotonic() + wait
        with name_in_errors(folder / LOCK):
            while not try_lock(file):
                if time.monotonic() >= give_up:
                    holder = read_holder(file) or "another process"
                    raise UserError(
                        f"{folder} is in use by {holder}: wait until it ends, or stop it"
                    )
                time.sleep(RETRY_SECONDS)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()} ({doing})".encode())
            file.flush()
        for path in folder.glob(f".*{TEMPORARY}"):
            if path.is_file() and not path.is_symlink():
                path.unlink()
        yield


def open_lock(path: Path) -> IO[bytes]:
    """Open a lock of this program's, or create it. Raises UserError for anything else there."""
    foreign = UserError(
        f"{path} is a link, or another program's: move it away, or name another folder"
    )
    try:
        # Without emptying it: it names the holder.
        file = open(path, "ab+", opener=open_unlinked)  # noqa: SIM115
    except OSError as error:
        if error.errno in (0, errno.ELOOP, errno.EISDIR):
            raise foreign from error
        raise
    holder = read_holder(file)
    # An empty one is new, unless it has another name as well. Backups share ours by hard links.
    if HOLDER.fullmatch(holder) or (not holder and os.fstat(file.fileno()).st_nlink == 1):
        return file
    file.close()
    raise foreign


def read_holder(file: IO[bytes]) -> str:
    """The process that an open lock names; empty if it was never held."""
    return os.pread(file.fileno(), LONGEST, 0).decode(errors="replace")


def try_lock(file: IO[Any], length: int = 0, start: int = 0) -> bool:
    """Lock an open file, or `length` of its bytes; False if another process holds them."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
    except (BlockingIOError, PermissionError):  # the standard allows either
        return False
    return True
