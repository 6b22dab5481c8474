"""The files in a folder or an archive, read in memory: nothing is unpacked, no link is followed."""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO, NamedTuple

FORMS = ("", ".tar", ".tar.gz", ".tgz", ".zip")

# What the standard library raises on damaged archives; RuntimeError and NotImplementedError are
# zipfile's for encrypted members and unknown compression, ValueError tarfile's for broken headers.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    ValueError,
    RuntimeError,
)


class UnreadableError(Exception):
    """A member, or an archive from some point on, can't be read; the text says why."""


class Member(NamedTuple):
    """A file in a folder or archive."""

    name: str  # path within, "/" between parts, without a leading folder named like the source
    size: int  # bytes, as declared by the archive
    regular: bool  # not a link, device or pipe
    read: Callable[[int], bytes]  # the first n bytes, -1 for all; raises UnreadableError


def members(source: Path, folder: str) -> Iterator[Member]:
    """Yield the files of a folder, `.tar`, `.tar.gz`, `.tgz` or `.zip`, in stored order.

    A member can be read until the next one is taken. The files may sit under a folder named
    `folder` or not. Dot files and `__MACOSX`, which operating systems leave behind, are skipped.
    Raises UnreadableError where a damaged archive breaks off.
    """
    if source.is_dir():
        found = _in_folder(source)
    elif source.suffix == ".zip":
        found = _in_zip(source)
    else:
        found = _in_tar(source)
    try:
        for path, size, regular, open_member in found:
            if not _is_litter(path):
                name = "/".join(part for part in path.split("/") if part != ".")
                name = name.removeprefix(f"{folder}/")
                yield Member(name, size, regular, partial(_read, open_member))
    except _DAMAGE as error:
        raise UnreadableError(_reason(error)) from error


def fingerprint(source: Path) -> list[list[str | int]]:
    """Return what changes when a file in a folder, or an archive, does: [name, size, times, inode].

    As git's index does: the inode's change time notices a file that was replaced by one of the same
    size and modification time.
    """

    def row(name: str, entry: os.stat_result) -> list[str | int]:
        return [name, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino]

    if not source.is_dir():
        return [row("", source.stat())]
    return sorted(row(path, entry) for path, entry in _walk(source) if not _is_litter(path))


_Found = tuple[str, int, bool, Callable[[], IO[bytes]]]


def _in_folder(folder: Path) -> Iterator[_Found]:
    for path, entry in _walk(folder):
        regular = stat.S_ISREG(entry.st_mode)
        yield path, entry.st_size, regular, partial(FileIO, folder / path)


def _walk(folder: Path, prefix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
            else:
                yield f"{prefix}{entry.name}", entry.stat(follow_symlinks=False)


def _in_tar(source: Path) -> Iterator[_Found]:
    with tarfile.open(source, "r:" if source.suffix == ".tar" else "r:gz") as archive:
        while (info := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # 1 kB a member that nobody needs
            if not info.isdir():
                yield info.name, info.size, info.isreg(), partial(_open_tarred, archive, info)
        # tarfile takes a broken header, and the end of the file, for the end: a block of zeros.
        assert archive.fileobj is not None
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise UnreadableError("damaged or truncated")


def _open_tarred(archive: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(info)
    if file is None:
        raise UnreadableError("not a regular file")
    return file


def _in_zip(source: Path) -> Iterator[_Found]:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if not info.is_dir():
                regular = kind in (0, stat.S_IFREG)  # 0: packed where there are no such kinds
                yield info.filename, info.file_size, regular, partial(_open_zipped, archive, info)


def _open_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.flag_bits & 1:
        raise UnreadableError("encrypted")
    return archive.open(info)


def _read(open_member: Callable[[], IO[bytes]], count: int) -> bytes:
    try:
        with open_member() as file:
            return file.read(count)
    except _DAMAGE as error:
        raise UnreadableError(_reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "damaged or truncated"


def _is_litter(path: str) -> bool:
    parts = path.split("/")
    return any(
        part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in parts
    )
