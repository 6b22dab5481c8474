"""The files in a folder or an archive, read in memory: nothing is unpacked, no link is followed.

Archives come from strangers. What they claim is believed only within the limits below, so that
reading one takes time in proportion to its size, and little memory.
"""

import gzip
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedIOBase, BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple, TypeVar

from cellline.data.problems import brief
from cellline.data.tars import TarError, entries, read_exactly, too_much
from cellline.host.names import printable

FORMS = ("", ".tar", ".tar.gz", ".tgz", ".zip")

MAX_ENTRIES = 1_000_000  # the challenge has 28,896 images
# PNG images hardly shrink. The most there is, copies of one tiny image, each in a kilobyte of a
# tar's padding, unpacks to 150 times its size; a bomb to 1,000 times.
MAX_RATIO = 200
FREE_BYTES = 64 << 20  # for archives too small for a ratio to mean anything
# Of a zip's table of contents: about 100 an entry. zipfile keeps it all in memory; at worst this is
# 2 million entries of the shortest kind in 770 MB.
MAX_TABLE_BYTES = 100 * MAX_ENTRIES

# What the standard library raises on damaged archives; RuntimeError and NotImplementedError are
# zipfile's for encrypted members and what it doesn't support, the others for broken fields.
_DAMAGE = (
    TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,
)


class UnreadableError(Exception):
    """A member, or a folder or an archive from some point on, can't be read; the text says why."""


class Member(NamedTuple):
    """A file in a folder or archive."""

    name: str  # path within, "/" between parts, without a leading folder; cut if absurdly long
    size: int  # bytes, as declared by the archive
    regular: bool  # not a link, device or pipe
    read: Callable[[int], bytes]  # the first n bytes, or all if there are less


def members(source: Path, folder: str) -> Iterator[Member]:
    """Yield the files of a folder, `.tar`, `.tar.gz`, `.tgz` or `.zip`, in stored order.

    A member can be read once, until the next one is taken; that raises UnreadableError where it
    can't be. The files may sit under a folder named `folder` or not. Dot files and `__MACOSX`,
    which operating systems leave behind, are skipped. Raises UnreadableError where a folder or an
    archive can't be read any further, or goes beyond the limits.
    """
    try:
        if source.is_dir():
            found = _in_folder(source)
        elif source.suffix == ".zip":
            found = _in_zip(source)
        else:
            found = _in_tar(source)
        for path, size, regular, read in _limited(found):
            if not _is_litter(path):
                name = "/".join(part for part in path.split("/") if part != ".")
                name = brief(name.removeprefix(f"{folder}/"))
                yield Member(name, size, regular, partial(_read, read))
    except _DAMAGE as error:
        raise UnreadableError(_reason(error)) from error


def open_file(path: Path, *, follow_link: bool = True) -> BufferedReader:
    """Open a regular file to read bytes. Raises OSError, also for a folder, a device or a pipe.

    A pipe that nobody writes into would block an ordinary open() for ever.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW))

    file = FileIO(path, opener=opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "Not a regular file")
    return BufferedReader(file)


def fingerprint(source: Path) -> list[list[str | int]]:
    """Return what changes when a file in a folder, or an archive, does: [name, size, times, inode].

    As git's index does: the inode's change time notices a file that was replaced by one of the same
    size and modification time. Raises OSError or UnreadableError where it can't be listed.
    """

    def row(name: str, entry: os.stat_result) -> list[str | int]:
        return [name, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino]

    if not source.is_dir():
        return [row("", source.stat())]
    return sorted(row(path, entry) for path, entry in _limited(_walk(source)))


_Found = tuple[str, int, bool, Callable[[int], bytes]]
_Item = TypeVar("_Item")


def _limited(found: Iterator[_Item]) -> Iterator[_Item]:
    for count, item in enumerate(found):
        if count == MAX_ENTRIES:
            raise UnreadableError(f"it holds more than {MAX_ENTRIES:,} files")
        yield item


def _in_folder(folder: Path) -> Iterator[_Found]:
    for path, entry in _walk(folder):
        read = partial(_read_file, folder / path)
        yield path, entry.st_size, stat.S_ISREG(entry.st_mode), read


def _walk(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the files below a folder but litter. Not recursive: folders may be nested deeply."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
            # Not a Path, which would take apart each of deeply nested folders anew.
            with os.scandir(f"{folder}/{prefix}") as found:
                for entry in found:
                    path = f"{prefix}{entry.name}"
                    if _is_litter(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(f"{path}/")
                    else:
                        yield path, entry.stat(follow_symlinks=False)
        except OSError as error:
            where = f"{printable(brief(prefix))}: " if prefix else ""
            raise UnreadableError(f"{where}{error.strerror}") from error


def _read_file(path: Path, count: int) -> bytes:
    with open_file(path, follow_link=False) as file:
        return file.read(count)


def _in_tar(source: Path) -> Iterator[_Found]:
    with open_file(source) as raw:
        file = raw if source.suffix == ".tar" else gzip.GzipFile(fileobj=raw)
        for entry in entries(file, _limit(raw)):
            read = partial(_read_tarred, file, entry.at, entry.size)
            yield entry.name, entry.size, entry.regular, read


def _read_tarred(file: BufferedIOBase, at: int, size: int, count: int) -> bytes:
    return read_exactly(file, at, min(count, size))


class _Bounded(BufferedReader):
    """A file for zipfile, which would read a table of contents of any size in one go."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_TABLE_BYTES:
            raise UnreadableError(
                f"its table of contents is larger than {MAX_TABLE_BYTES:,} bytes, what "
                f"{MAX_ENTRIES:,} files need"
            )
        return super().read(size)


def _in_zip(source: Path) -> Iterator[_Found]:
    with open_file(source) as raw, zipfile.ZipFile(_Bounded(raw.raw)) as archive:
        infos = archive.infolist()
        # Entries may share bytes, so that a few of them unpack to any amount.
        if sum(info.compress_size for info in infos) > os.fstat(raw.fileno()).st_size:
            raise UnreadableError("files in it overlap")
        if sum(info.file_size for info in infos) > (limit := _limit(raw)):
            raise UnreadableError(too_much(limit))
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.filename.endswith("/"):  # is_dir() fails for an empty name
                regular = kind in (0, stat.S_IFREG)  # 0: packed where there are no such kinds
                yield info.filename, info.file_size, regular, partial(_read_zipped, archive, info)


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    if info.flag_bits & 1:
        raise UnreadableError("encrypted")
    # The others inflate a read of 4 kB to any size.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableError("not packed by deflate, the usual method")
    with archive.open(info) as file:
        return file.read(count)


def _limit(file: BufferedReader) -> int:
    """Return how many bytes may be unpacked of an archive."""
    return FREE_BYTES + MAX_RATIO * os.fstat(file.fileno()).st_size


def _read(read: Callable[[int], bytes], count: int) -> bytes:
    try:
        return read(count)
    except _DAMAGE as error:
        raise UnreadableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, TarError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "damaged or truncated"


def _is_litter(path: str) -> bool:
    parts = path.split("/")
    return any(
        part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts
    )
