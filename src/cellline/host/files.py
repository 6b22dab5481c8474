"""Files that can't be half written, opened only if they are regular, and their digests."""

import errno
import hashlib
import io
import json
import os
import secrets
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from cellline.errors import UserError, first_line

if TYPE_CHECKING:
    import pandas as pd

# Suffix of the hidden files that `atomic` writes, and leaves when killed; others use ".tmp" alone.
TEMPORARY = ".cellline.tmp"

# How disks say that they don't flush folders: network shares, exFAT, some of FUSE.
NOT_OFFERED = {
    *(errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
    *(errno.EACCES, errno.EPERM, errno.EBADF, errno.EISDIR),
}
# Beside their own errors, the readers of archives and images raise those of fields that lead out of
# a damaged file. RuntimeError stands for endless recursion and for what zipfile can't unpack.
_OWN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, SyntaxError)
DAMAGE = (*_OWN, OSError, EOFError, ValueError, OverflowError, LookupError, RuntimeError)


@contextmanager
def atomic(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; rename it over `path` when the block ends well.

    The file and its folder are flushed to the disk: after a power cut `path` holds either the old
    bytes or all of the new ones, and what it held is at `previous` if one is named in the same
    folder. When the block raises, `path` is untouched and nothing is left behind. Missing parent
    folders are created. OSErrors name the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with name_in_errors(path), temporary.open("xb") as file:
            yield file
            file.flush()
            with where_offered():
                os.fsync(file.fileno())
        if previous is not None and path.exists():
            path.replace(previous)
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Within, OSErrors name the file: a full disk is met by write(), which knows no name."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def is_scarce(error: BaseException) -> bool:
    """True for an error in reading a file that is the machine's fault, not the file's."""
    scarce = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
    return isinstance(error, OSError) and error.errno in scarce


@contextmanager
def where_offered() -> Iterator[None]:
    """Within, a disk that doesn't offer to flush is no error: it may be the only one there is."""
    try:
        yield
    except OSError as error:
        if error.errno not in NOT_OFFERED:
            raise


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    with where_offered():
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_regular(name: str, flags: int) -> int:
    """The opener for open() that opens, or creates, regular files only.

    Raises OSError for a folder, a device or a pipe, which would wait for its other end.
    """
    descriptor = os.open(name, flags | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(0, "Not a regular file", name)
    return descriptor


def open_unlinked(name: str, flags: int) -> int:
    """The same as `open_regular`, but raises OSError for a symbolic link."""
    return open_regular(name, flags | os.O_NOFOLLOW)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic(path) as file:
        file.write(data)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write `value` as indented JSON, with a digest of it, by which damage is known."""
    text = json.dumps({**value, "digest": _digest(value)}, indent=2, ensure_ascii=False)
    write_bytes(path, f"{text}\n".encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote. Raises UserError if the file is damaged or was edited."""
    with open(path, "rb", opener=open_regular) as file:
        data = file.read()
    try:
        value = json.loads(data.decode())
        if isinstance(value, dict) and value.pop("digest", None) == _digest(value):
            return value
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested deeply
        raise damaged(path, first_line(error)) from error
    raise damaged(path, "it is not what was written")


def _digest(value: dict[str, Any]) -> str:
    return digest_text(json.dumps(value, sort_keys=True))


def damaged(path: Path, why: str) -> UserError:
    """The error for a file of ours that can't be read any more."""
    return UserError(
        f"{path} is damaged ({why}): put a copy back, or move it away and run the command that "
        "makes it"
    )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file as `render_csv` renders it."""
    write_bytes(path, render_csv(header, rows))


def render_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV with newlines as `\\n`; floats keep all digits."""
    # Imported where it is used: it takes 0.4 s, and --help needs none.
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(header), dtype=object)
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text.encode()


def parse_csv(data: bytes) -> "pd.DataFrame":
    """Read what `render_csv` rendered, as text."""
    import pandas as pd

    return pd.read_csv(io.BytesIO(data), dtype=str, na_filter=False)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write arrays as an uncompressed `.npz`; the same arrays give the same bytes."""
    with atomic(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Read these arrays of an `.npz`, without pickle. Raises UserError when it is damaged.

    A size in a damaged file may be larger than any memory.
    """
    with open(path, "rb", opener=open_regular) as file:
        try:
            with np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
        except (*DAMAGE, MemoryError) as error:
            if is_scarce(error):
                raise
            raise damaged(path, first_line(error)) from error


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb", opener=open_regular) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_text(*parts: str) -> str:
    """SHA-256 of texts in order; each part's end is part of what is digested."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode()
        whole.update(len(data).to_bytes(8, "little"))
        whole.update(data)
    return whole.hexdigest()
