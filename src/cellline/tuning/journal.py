"""The journal of a tuning study: the file that Optuna notes each operation in, a line each.

Optuna's own file of this kind has two weak sides. Its lock is a link that outlives a killed holder,
so that others wait half a minute; this one dies with its holder, see `locking`. And it is read
without a check: a line that a killed process left half written makes all that is appended later
unreadable, and a line that was altered or lost means other trials than there were, or fewer. So
each line ends in a digest of it and of all before it. Optuna reads such a file as its own.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from cellline.errors import UserError
from cellline.host.files import name_in_errors, sync_folder
from cellline.host.locking import Lock

_DIGEST = ',"digest":"'


class Journal(BaseJournalBackend):
    """What `optuna.storages.JournalStorage` keeps a study in, for any number of processes.

    Only `lock` keeps them apart: whoever holds it has read what others have appended, removes what
    a killed one left half written, and appends. To read, it isn't needed.
    """

    def __init__(self, path: Path) -> None:
        """Opens or makes the file."""
        if not path.exists():
            path.open("ab").close()
        sync_folder(path.parent)
        self.path = path
        self.lock = Lock(path.with_name(f".{path.name}.lock"))
        # After so many lines: where in the file that is, and the last line's digest.
        self.marks = [(0, "")]

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The operations from a number on.

        Raises UserError when a line is not what was written. A last line without its end is another
        process's that is writing, or was killed: not yet there.
        """
        offset, digest = self.marks[log_number_from]
        with self.path.open("rb") as file:
            file.seek(offset)
            # At once: what is half written may be removed and overwritten meanwhile.
            lines = file.read().split(b"\n")[:-1]
        for number, line in enumerate(lines, start=log_number_from + 1):
            head, _, tail = line.rpartition(_DIGEST.encode())
            digest = _link(digest, head)
            if tail != f'{digest}"}}'.encode():
                raise UserError(
                    f"{self.path} is damaged: line {number} is not what was written. Put a copy of "
                    "the file back; or remove this line and all after it, to keep the trials "
                    f"before; or move {self.path.parent} away to start another study"
                )
            offset += len(line) + 1
            if number == len(self.marks):
                self.marks.append((offset, digest))
            yield json.loads(line)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add operations, each flushed to the disk. OSErrors name the file."""
        with name_in_errors(self.path), self.lock.held():
            self.cut_unfinished_line()
            digest, lines = self.marks[-1][1], []
            for log in logs:
                head = json.dumps(log, separators=(",", ":")).removesuffix("}")
                digest = _link(digest, head.encode())
                lines.append(f'{head}{_DIGEST}{digest}"}}\n')
            with self.path.open("ab") as file:
                file.write("".join(lines).encode())
                file.flush()
                os.fsync(file.fileno())

    def cut_unfinished_line(self) -> int:
        """Remove a last line that a killed process, or a full disk, left half written; its bytes.

        Raises UserError as `read_logs`, and when the file has become shorter than it was.
        """
        with self.lock.held():
            for _ in self.read_logs(len(self.marks) - 1):
                pass
            whole, size = self.marks[-1][0], self.path.stat().st_size
            if size < whole:
                raise UserError(
                    f"{self.path} was {whole} bytes long and has {size} now: it was replaced while "
                    "it was written; start the same command again"
                )
            if size > whole:
                with self.path.open("r+b") as file:
                    file.truncate(whole)
                    os.fsync(file.fileno())
        return size - whole


def _link(digest: str, head: bytes) -> str:
    return hashlib.sha256(digest.encode() + head).hexdigest()[:16]
