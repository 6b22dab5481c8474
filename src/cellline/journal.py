"""The journal of a tuning study: the file that Optuna notes each operation in, a line each.

Optuna's own file of this kind has two weak sides. Its lock is a link that outlives a killed holder,
so that the next start waits half a minute; here one process alone writes, see `locking`. And it is
read without a check: a line that a killed process left half written makes all that is appended
later unreadable, and a line that was altered or lost means other trials than there were, or fewer.
So each line ends in a digest of it and of all before it. Optuna reads such a file as its own.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend

from cellline.errors import UserError
from cellline.files import name_in_errors, sync_folder

_DIGEST = ',"digest":"'


class Journal(JournalFileBackend):
    """What `optuna.storages.JournalStorage` keeps a study in; for one process at a time."""

    def __init__(self, path: Path) -> None:
        """Opens or makes the file; to write, `cut_unfinished_line` goes first.

        Raises UserError when a line is not what was written.
        """
        super().__init__(str(path))
        sync_folder(path.parent)
        self.path = path
        self.digest = check_journal(path)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add operations, each flushed to the disk. OSErrors name the file."""
        digest, lines = self.digest, []
        for log in logs:
            head = json.dumps(log, separators=(",", ":")).removesuffix("}")
            digest = _link(digest, head.encode())
            lines.append(f'{head}{_DIGEST}{digest}"}}\n')
        with name_in_errors(self.path), self.path.open("ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self.digest = digest


def cut_unfinished_line(path: Path) -> int:
    """Remove a last line that a killed process, or a full disk, left half written; its bytes."""
    if not path.exists():
        return 0
    with path.open("r+b") as file:
        data = file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            file.truncate(whole)
            os.fsync(file.fileno())
    return len(data) - whole


def check_journal(path: Path) -> str:
    """The last line's digest. Raises UserError unless all lines are those that were written.

    A last line without its end is another process's that is writing, or was killed: not yet there.
    """
    digest = ""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            head, _, tail = line.rpartition(_DIGEST.encode())
            digest = _link(digest, head)
            if tail != f'{digest}"}}\n'.encode():
                raise UserError(
                    f"{path} is damaged: line {number} is not what was written. Put a copy of the "
                    "file back; or remove this line and all after it, to keep the trials before; "
                    f"or move {path.parent} away to start another study"
                )
    return digest


def _link(digest: str, head: bytes) -> str:
    return hashlib.sha256(digest.encode() + head).hexdigest()[:16]
