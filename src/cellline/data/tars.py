"""Reading a tar archive from front to back, in bounded time and memory.

Not with the standard library's tarfile, which trusts what it reads: it loads an extension header
whole, however long it claims to be, goes back for a negative size and never ends, recurses from one
extension header to the next, and searches them with a pattern of quadratic time (CVE-2024-6232 and
CVE-2025-8194, mended in the newest Pythons only). The format is in pax(1) of POSIX and in
"Basic Tar Format" of GNU tar's manual.
"""

import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import NamedTuple

BLOCK = 512
MAX_EXTENSION = 1 << 20  # bytes of an extension header: paths have 4 kB, extended attributes 64 kB

_OCTAL = re.compile(rb"[0-7]*")
_REGULAR = (b"0", b"\0", b"7")
_BARE = (b"1", b"2", b"3", b"4", b"5", b"6")  # links, devices, folders, pipes: no data follows
_FOLDER = b"5"
_LONG_NAME = b"L"  # GNU's
_EXTENSIONS = (_LONG_NAME, b"x", b"X")  # of the next entry
_IGNORED = (b"K", b"g")  # a link's long target; what holds for all entries: no name, no size
_SPARSE = b"S"


class TarError(Exception):
    """The archive can't be read from some point on; the text says why."""


class Entry(NamedTuple):
    """A file, link or device in the archive."""

    name: str
    size: int
    regular: bool
    at: int  # where its data begin


def entries(file: BufferedIOBase, limit: int) -> Iterator[Entry]:
    """Yield the entries but folders; `file` is only read forward, and only up to `limit` bytes.

    Where the archive does not end as it should, or goes beyond `limit`, TarError says so.
    """
    at = 0
    name: bytes | None = None  # as an extension header gives it
    size: int | None = None
    while (header := read_exactly(file, at, BLOCK)) != bytes(BLOCK):
        kind = header[156:157]
        if _number(header[148:156]) != sum(header) - sum(header[148:156]) + 8 * ord(" "):
            raise TarError("damaged or truncated")
        if kind == _SPARSE:
            raise TarError("it holds sparse files: pack it without --sparse")
        extends = kind in _EXTENSIONS or kind in _IGNORED
        length = 0 if kind in _BARE else _number(header[124:136])
        if size is not None and not extends and kind not in _BARE:
            length = size
        begin, at = at + BLOCK, at + BLOCK + -(-length // BLOCK) * BLOCK
        if at > limit:
            raise TarError(too_much(limit))
        if kind in _EXTENSIONS:
            if length > MAX_EXTENSION:
                raise TarError("a header in it is longer than any name")
            data = read_exactly(file, begin, length)
            if kind == _LONG_NAME:
                name = data.partition(b"\0")[0]
            else:
                records = _pax_records(data)
                name = records.get(b"path", name)
                size = _decimal(records[b"size"]) if b"size" in records else size
        elif not extends:
            stored = header[:100].partition(b"\0")[0]
            if header[257:263] == b"ustar\0" and header[345]:
                stored = header[345:500].partition(b"\0")[0] + b"/" + stored
            path = (stored if name is None else name).decode("utf-8", "surrogateescape")
            if kind != _FOLDER and not (kind == b"\0" and path.endswith("/")):
                yield Entry(path, length, kind in _REGULAR, begin)
            name = size = None


def too_much(limit: int) -> str:
    """Say that an archive unpacks to more than its size allows."""
    return f"it would unpack to more than {limit >> 20} MiB, far too much for its size"


def read_exactly(file: BufferedIOBase, at: int, count: int) -> bytes:
    """Read `count` bytes from position `at`; raises TarError if there are less."""
    file.seek(at)
    data = file.read(count)
    if len(data) < count:
        raise TarError("damaged or truncated")
    return data


def _number(field: bytes) -> int:
    """Read a header's number: octal digits, or since GNU tar big-endian after a byte 0x80."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not _OCTAL.fullmatch(digits):
        raise TarError("damaged or truncated")
    return int(digits or b"0", 8)


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > 19:
        raise TarError("damaged or truncated")
    return int(digits)


def _pax_records(data: bytes) -> dict[bytes, bytes]:
    """Read records `<length> <key>=<value>\\n`, whose length counts itself."""
    records = {}
    at = 0
    while at < len(data):
        length, space, _ = data[at : at + 20].partition(b" ")
        end = at + _decimal(length)
        key, equals, value = data[at + len(length) + 1 : end].partition(b"=")
        if not space or not equals or not value.endswith(b"\n") or end > len(data):
            raise TarError("damaged or truncated")
        records[key] = value[:-1]
        at = end
    return records
