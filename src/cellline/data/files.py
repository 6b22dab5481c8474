"""The files in a folder or archive, read in memory: nothing is unpacked, no link is followed.

Archives come from strangers. tarfile and zipfile parse them; the limits here keep the time in
proportion to an archive's size, and the memory small.
"""

import gzip
import os
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedIOBase, BufferedReader
from pathlib import Path
from typing import NamedTuple

from cellline.data.problems import brief
from cellline.host.files import DAMAGE, is_scarce, open_regular, open_unlinked

AGAIN = "Download or copy the damaged files again."
PACKED = (".tar", ".tar.gz", ".tgz", ".zip")  # endings of archives' names
# The first bytes of archives tell what they are: browsers unpack some and keep their names.
ZIP, GZIP = (b"PK\3\4", b"PK\5\6", b"PK\7\x08"), b"\x1f\x8b"
OTHERS = {
    b"\xfd7zXZ": "xz",
    b"BZh": "bzip2",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "rar",
    b"(\xb5/\xfd": "zstd",
}

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

# Dot files, but not the folders "." and "..".
_LITTER = re.compile(
    r"(^|/)(__MACOSX(/|$)|\.(?!\.?(/|$))|(Thumbs\.db|desktop\.ini)$)", re.IGNORECASE
)


class UnreadableError(Exception):
    """A member, or a folder or archive from some point on, can't be read; the text says why."""

    def __init__(self, why: str, advice: str = AGAIN) -> None:
        super().__init__(why)
        self.advice = advice


class Member(NamedTuple):
    """A file in a folder or archive."""

    name: str
    """Path within, "/" between parts, without a leading folder; cut if absurdly long."""
    size: int
    """Bytes, as the archive declares them."""
    regular: bool
    """False for a link, a device, a pipe or a sparse file."""
    read: Callable[[int], bytes]
    """Return the first n bytes, or all if there are fewer; to be called within `explained`."""


@contextmanager
def explained() -> Iterator[None]:
    """Raise UnreadableError where a library meets damage, or the system refuses."""
    try:
        yield
    except DAMAGE as error:
        if is_scarce(error):
            raise
        why = isinstance(error, OSError) and error.strerror
        raise UnreadableError(why or "damaged or truncated") from error


def is_packed(name: str) -> bool:
    """Tell by its name if a file is an archive that can be read."""
    return name.lower().endswith(PACKED)


def find_source(place: Path) -> tuple[Path, str]:
    """Return the folder or archive that a path leads to, and the rest of it within an archive."""
    for above in (place, *place.parents):
        if is_packed(above.name) and not above.is_dir():
            return above, place.relative_to(above).as_posix().removeprefix(".")
    return place, ""


def members(place: Path, *, whole: bool = False) -> Iterator[Member]:
    """Yield the files of a folder, archive (tar, tar.gz or zip, by content) or folder within it.

    They come in stored order, with their names within `place`. A leading folder named like the
    archive is left out and so, unless names must be `whole`, is one that is all that a folder of
    its name holds. A member can be read once, until the next one is taken. Archives in a folder are
    read, too, as if unpacked into a folder of their name. What operating systems leave behind, such
    as dot files, is skipped. Raises UnreadableError where a folder or archive can't be read any
    further, or exceeds a limit.
    """
    source, inside = find_source(place)
    within, same = f"{inside}/" if inside else "", f"{source.name.partition('.')[0]}/"
    with explained():
        find = _in_folder if source.is_dir() else _choose_reader(source)
        if source.is_dir() and (whole or not _holds_only(source, source.name)):
            same = ""
        for count, member in enumerate(find(source)):
            if count == MAX_ENTRIES:
                raise UnreadableError(f"it holds more than {MAX_ENTRIES:,} files")
            name = member.name.removeprefix("./").removeprefix(same)
            if name.startswith(within) and not _LITTER.search(member.name):
                yield Member(brief(name.removeprefix(within)), *member[1:])


def _holds_only(folder: Path, name: str) -> bool:
    with os.scandir(folder) as found:
        return [entry.name for entry in found if not _LITTER.search(entry.name)] == [name]


def fingerprint(source: Path) -> list[tuple[str, int, int, int, int]]:
    """Return what changes when an archive or a file in a folder does: path, size, times, inode.

    As in git's index, the inode's change time reveals a file that was replaced by one of the same
    size and modification time. Raises OSError where it can't be listed.
    """
    source = find_source(source)[0].resolve()
    entries = _walk(source) if source.is_dir() else iter([source])
    found = ((os.fspath(entry), entry.stat(follow_symlinks=False)) for entry in entries)
    return sorted(
        (path, entry.st_size, entry.st_mtime_ns, entry.st_ctime_ns, entry.st_ino)
        for path, entry in found
    )


def _walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yield what is below a folder, at any depth, but folders and litter."""
    with os.scandir(folder) as found:
        for entry in found:
            if _LITTER.search(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(entry.path)
            else:
                yield entry


def _in_folder(folder: Path) -> Iterator[Member]:
    for entry in _walk(folder):
        status = entry.stat(follow_symlinks=False)
        name = entry.path.removeprefix(f"{folder}/")
        regular = stat.S_ISREG(status.st_mode)
        inside = members(Path(entry.path)) if regular and is_packed(name) else iter(())
        try:
            for member in inside:
                yield member._replace(name=f"{name}/{member.name}")
        except UnreadableError:  # what is in it is missing then, which is a problem if it matters
            pass
        if not is_packed(name):
            yield Member(name, status.st_size, regular, partial(_read_file, Path(entry.path)))


def _read_file(path: Path, count: int) -> bytes:
    with open(path, "rb", opener=open_unlinked) as file:
        # read() makes room for as many bytes as it is asked for.
        return file.read(min(count, os.fstat(file.fileno()).st_size))


def _choose_reader(source: Path) -> Callable[[Path], Iterator[Member]]:
    """Return the function that reads an archive: its content decides, and its name in doubt."""
    with open(source, "rb", opener=open_regular) as file:
        start = file.read(512)
    for first, kind in OTHERS.items():
        if start.startswith(first):
            raise UnreadableError(f"it is packed by {kind}", "Unpack it.")
    is_tar = start.startswith(GZIP) or start[257:262] == b"ustar"
    is_zip = start.startswith(ZIP) or source.suffix.lower() == ".zip"
    return _in_zip if is_zip and not is_tar else _in_tar


class _Limited:
    """The file that tarfile reads: up to a limit, and no header of any length."""

    def __init__(self, file: BufferedIOBase, limit: int) -> None:
        self.file = file
        self.limit = limit
        self.tell = file.tell
        self.block = b""

    def seek(self, position: int) -> None:
        if position > self.limit:
            raise UnreadableError(_too_much(self.limit))
        self.file.seek(position)

    def read(self, count: int) -> bytes:
        if not 0 <= count <= MAX_HEADER_BYTES:
            raise UnreadableError("a header in it is longer than any name")
        if self.tell() > self.limit:
            raise UnreadableError(_too_much(self.limit))
        before, self.block = self.block, self.file.read(count)
        if not self.block and not before:  # tarfile may look for a sparse file's map forever
            raise EOFError
        return self.block

    def read_data(self, at: int, size: int, count: int) -> bytes:
        """Return the first `count` bytes of a member of `size` bytes that begins at `at`."""
        self.seek(at)
        data = self.file.read(min(count, size))
        if len(data) < min(count, size):
            raise EOFError
        return data


def _in_tar(source: Path) -> Iterator[Member]:
    with open(source, "rb", opener=open_regular) as raw:
        plain = gzip.GzipFile(fileobj=raw) if raw.peek(2).startswith(GZIP) else raw
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
                    regular = info.isreg() and not info.issparse()
                    yield Member(info.name, info.size, regular, read)
        if file.block != bytes(tarfile.BLOCKSIZE):  # tarfile takes a damaged header for the end
            raise EOFError


class _Bounded(BufferedReader):
    """The file that zipfile reads, which would load a table of contents of any size."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_TABLE_BYTES:
            raise UnreadableError(f"its table of contents has more than {MAX_TABLE_BYTES:,} bytes")
        return super().read(size)


def _in_zip(source: Path) -> Iterator[Member]:
    with (
        open(source, "rb", opener=open_regular) as raw,
        zipfile.ZipFile(_Bounded(raw.raw)) as archive,
    ):
        infos = archive.infolist()
        # Entries may share bytes, so that a few of them unpack to any amount.
        if sum(info.compress_size for info in infos) > os.fstat(raw.fileno()).st_size:
            raise UnreadableError("files in it overlap")
        if sum(info.file_size for info in infos) > (limit := _limit(raw)):
            raise UnreadableError(_too_much(limit))
        for info in infos:
            name = _name_zipped(info)
            if not name.endswith("/"):  # is_dir() fails for an empty name
                # 0: packed by a system without such kinds.
                regular = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
                read = partial(_read_zipped, archive, info)
                yield Member(name, info.file_size, regular, read)


def _name_zipped(info: zipfile.ZipInfo) -> str:
    """Return a name as it was meant: PowerShell has "\\" for "/", macOS UTF-8 without its flag."""
    name = info.filename
    if not info.flag_bits & 0x800:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


def _read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo, count: int) -> bytes:
    # Methods other than deflate inflate a read of 4 kB to any size.
    if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnreadableError("encrypted, or not packed by deflate, the usual method")
    with archive.open(info) as file:
        return file.read(count)


def _limit(file: BufferedReader) -> int:
    """Return the bytes that an archive may unpack to."""
    return FREE_BYTES + MAX_RATIO * os.fstat(file.fileno()).st_size


def _too_much(limit: int) -> str:
    return f"it would unpack to more than {limit >> 20} MiB, far too much for its size"
