"""The files in a folder or archive, read in memory: nothing is unpacked, no link is followed.

Archives come from strangers. tarfile and zipfile parse them; the limits here keep the time in
proportion to an archive's size, and the memory small.
"""

import gzip
import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import BufferedIOBase, BufferedReader, FileIO
from pathlib import Path
from typing import NamedTuple, TypeVar

from cellline.data.problems import brief
from cellline.host.names import printable

FORMS = ("", ".tar", ".tar.gz", ".tgz", ".zip")

MAX_ENTRIES = 1_000_000  # the challenge has 28,896 images
# PNG images hardly shrink. The most that is found, copies of one tiny image, each in a kilobyte of
# a tar's padding, unpacks to 150 times its size; a bomb to 1,000 times.
MAX_RATIO = 200
FREE_BYTES = 64 << 20  # for archives too small for a ratio to mean anything
# A zip's table of contents has about 100 bytes an entry. zipfile keeps all of it in memory.
MAX_TABLE_BYTES = 100 * MAX_ENTRIES
# A pax or GNU header holds a path of 4 kB at most and a few times. Before Python 3.11.10, tarfile
# searches it in quadratic time (CVE-2024-6232): 16 KiB take 0.2 s.
MAX_HEADER_BYTES = 16 << 10

# RuntimeError stands for endless recursion in tarfile and for what zipfile does not support, the
# others for broken fields.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    LookupError,
    RuntimeError,
)


# Dot files, but not the folders "." and "..".
_LITTER = re.compile(r"(^|/)(__MACOSX(/|$)|\.(?!\.?(/|$)))")


class UnreadableError(Exception):
    """A member, or a folder or archive from some point on, can't be read; the text says why."""


class Member(NamedTuple):
    """A file in a folder or archive."""

    name: str
    """Path within, "/" between parts, without a leading folder; cut if absurdly long."""
    size: int
    """Bytes, as the archive declares them."""
    regular: bool
    """False for a link, a device, a pipe or a sparse file."""
    read: Callable[[int], bytes]
    """Return the first n bytes, or all if there are fewer. Raises UnreadableError."""


def members(source: Path, folder: str) -> Iterator[Member]:
    """Yield the files of a folder, `.tar`, `.tar.gz`, `.tgz` or `.zip`, in stored order.

    A member can be read once, until the next one is taken. The files may sit under a folder named
    `folder` or not. Dot files and `__MACOSX`, which operating systems leave behind, are skipped.
    Raises UnreadableError where a folder or archive can't be read any further, or exceeds a limit.
    """
    find = _in_folder if source.is_dir() else _in_zip if source.suffix == ".zip" else _in_tar
    try:
        for path, size, regular, read in _limited(find(source)):
            if not _is_litter(path):
                name = brief(path.removeprefix("./").removeprefix(f"{folder}/"))
                yield Member(name, size, regular, partial(_read, read))
    except _DAMAGE as error:
        raise UnreadableError(_reason(error)) from error


def open_file(path: Path, *, follow_link: bool = True) -> BufferedReader:
    """Open a regular file to read bytes. Raises OSError, also for a folder, a device or a pipe.

    An ordinary open() of a pipe blocks until somebody writes into it.
    """

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW))

    file = FileIO(path, opener=opener)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(0, "Not a regular file")
    return BufferedReader(file)


def fingerprint(source: Path) -> list[list[str | int]]:
    """Return what changes when an archive or a file in a folder does: [name, size, times, inode].

    As in git's index, the inode's change time reveals a file that was replaced by one of the same
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
    """Yield the files below a folder without litter, at any depth (os.walk() recurses)."""
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        try:
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
        # read() makes room for as many bytes as it is asked for.
        return file.read(min(count, os.fstat(file.fileno()).st_size))


class _Limited:
    """The file that tarfile reads: up to a limit, and no header of any length."""

    def __init__(self, file: BufferedIOBase, limit: int) -> None:
        self.file = file
        self.limit = limit
        self.at = 0
        self.block = b""

    def tell(self) -> int:
        return self.at

    def seek(self, position: int) -> None:
        self._check(position)
        self.at = self.file.seek(position)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MAX_HEADER_BYTES:
            raise UnreadableError("a header in it is longer than any name")
        self._check(self.at)
        before, self.block = self.block, self.file.read(count)
        if not self.block and not before:  # tarfile may look for a sparse file's map forever
            raise EOFError
        self.at += len(self.block)
        return self.block

    def read_data(self, at: int, size: int, count: int) -> bytes:
        """Return the first `count` bytes of a member of `size` bytes that begins at `at`."""
        if at != self.at:
            self.seek(at)
        data = self.file.read(min(count, size))
        self.at += len(data)
        if len(data) < min(count, size):
            raise EOFError
        return data

    def _check(self, position: int) -> None:
        if position > self.limit:
            raise UnreadableError(_too_much(self.limit))


def _in_tar(source: Path) -> Iterator[_Found]:
    with open_file(source) as raw:
        plain = raw if source.suffix == ".tar" else gzip.GzipFile(fileobj=raw)
        file = _Limited(plain, _limit(raw))
        with tarfile.open(fileobj=file, mode="r:") as archive:  # type: ignore[call-overload]
            while (info := archive.next()) is not None:
                # tarfile keeps them all otherwise, a kilobyte each.
                archive.members.clear()
                archive.pax_headers.clear()
                if info.size < 0:  # tarfile goes back and never ends (CVE-2025-8194)
                    raise EOFError
                if not info.isdir():
                    read = partial(file.read_data, info.offset_data, info.size)
                    yield info.name, info.size, info.isreg() and not info.issparse(), read
        if file.block != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            raise EOFError


class _Bounded(BufferedReader):
    """The file that zipfile reads, which would load a table of contents of any size."""

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
            raise UnreadableError(_too_much(limit))
        for info in infos:
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.filename.endswith("/"):  # is_dir() fails for an empty name
                regular = kind in (0, stat.S_IFREG)  # 0: packed by a system without such kinds
                yield info.filename, info.file_size, regular, partial(_read_zipped, archive, info)


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    if info.flag_bits & 1:
        raise UnreadableError("encrypted")
    # The other methods inflate a read of 4 kB to any size.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableError("not packed by deflate, the usual method")
    with archive.open(info) as file:
        return file.read(count)


def _limit(file: BufferedReader) -> int:
    """Return the bytes that an archive may unpack to."""
    return FREE_BYTES + MAX_RATIO * os.fstat(file.fileno()).st_size


def _too_much(limit: int) -> str:
    return f"it would unpack to more than {limit >> 20} MiB, far too much for its size"


def _read(read: Callable[[int], bytes], count: int) -> bytes:
    try:
        return read(count)
    except _DAMAGE as error:
        raise UnreadableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or "damaged or truncated"


def _is_litter(path: str) -> bool:
    return _LITTER.search(path) is not None
