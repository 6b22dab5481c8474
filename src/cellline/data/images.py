"""Images by name: which sample and channel a file shows, decoded into one array per split."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cellline.data.decoding import AGAIN, MAX_BYTES, TOO_LARGE, Size, decode_image
from cellline.data.files import Member, UnreadableError, explained, members
from cellline.data.ids import Id
from cellline.data.layout import Rows
from cellline.data.naming import ImageNames, is_image
from cellline.data.problems import Fault, Problems
from cellline.host.processors import map_in_order
from cellline.host.progress import progress_bar

# For one task of a thread: about 6 ms of work at 64 x 64. Tasks have fewer large images.
CHUNK_IMAGES = 64
CHUNK_BYTES = 1 << 20  # as stored
# Bytes of an image from which threads pay: Pillow holds Python's lock for most of a smaller one's
# time. Two threads are 0.76 x as fast as one at 64 px, 1.5 x at 128 px (13 kB).
THREADED = 8 << 10

_LINK = Fault("file", "not regular (a link, device or pipe)")
_TWICE = Fault("image", "stored twice")
_TEXT = (
    "Not all ids are whole numbers, so they are compared as text, including case and leading zeros."
)


def name_channel(channel: str) -> str:
    """Name a channel for a message: the one that file names don't mention is the image."""
    return channel or "image"


class _Encoded(NamedTuple):
    """One image as stored: its file's name, its sample's id, its channel's index, its bytes."""

    name: str
    sample: Id
    channel: int
    data: bytes


class SplitReader:
    """Reads the images of one split from a folder or archive, and finds what is wrong with them."""

    def __init__(
        self,
        split: str,
        path: Path,
        table: Rows,
        names: ImageNames,
        problems: Problems,
    ) -> None:
        """Read from `path`, within the input folder, the images of a table's ids.

        Images of the other ids that `names` knows are left to another reader.
        """
        self.split = split
        self.path = path
        self.names = names
        self._table = table
        self._problems = problems
        self._rows = {sample: row for row, sample in enumerate(sorted(table.ids))}
        self._seen: dict[Id, int] = defaultdict(int)  # id -> a bit for each of its channels
        self._blank: dict[str, list[Id]] = defaultdict(list)

    def describe(self) -> dict[str, Any]:
        """Return what JSON holds beside the decoded images: channels, ids, and blank images."""
        return {
            "channels": list(self.names.channels),
            "ids": sorted(self._seen),
            "blank": {channel: sorted(ids) for channel, ids in sorted(self._blank.items())},
        }

    def match(self, ids: Collection[Id]) -> None:
        """Note the ids of images without a row in the table, and the reverse."""
        advice = "" if self.names.numeric else _TEXT
        rowless = Fault("sample", f"without a row in {self._table.name}", advice)
        imageless = Fault("row", f"without images in {self.path.name}", advice)
        self._count(rowless, set(ids) - self._rows.keys())
        self._problems.count(self._table.name, imageless, self._rows.keys() - set(ids))

    def decode(self, file: BinaryIO, size: Size | None) -> Size | None:
        """Decode all images into an empty `.npy` file, in ascending order of ids.

        Notes all problems. Images must have the same size as the first sound one, or `size`, which
        is returned.
        """
        begin = 0
        total = len(self._rows) * len(self.names.channels)
        chunks = self._chunks()
        first = next(chunks)
        workers = 1 if sum(len(image.data) for image in first) < THREADED * len(first) else None
        with progress_bar("decoding images", total, "image") as advance:
            for chunk in map_in_order(_decode_chunk, chain([first], chunks), workers):
                for image, found in chunk:
                    if isinstance(found, Fault):
                        self._count(found, [image.name])
                        continue
                    size = size or found[0]
                    begin = begin or self._write_header(file, size)
                    if found[0] != size:
                        other = Fault("image", "not {} x {} pixels like the first".format(*size))
                        self._count(other, ["{} ({} x {})".format(image.name, *found[0])])
                    elif image.sample in self._rows:
                        self._write(file, begin, image, found[1])
                advance(len(chunk))
        return size

    def _chunks(self) -> Iterator[list[_Encoded]]:
        chunk: list[_Encoded] = []
        filled = 0
        for image in self._encoded():
            chunk.append(image)
            filled += len(image.data)
            if len(chunk) == CHUNK_IMAGES or filled >= CHUNK_BYTES:
                yield chunk
                chunk, filled = [], 0
        yield chunk

    def _encoded(self) -> Iterator[_Encoded]:
        """Yield the images that have a place of their own, and then note what is missing."""
        try:
            for member in members(self.path):
                image = self._read(member)
                if image is None:
                    continue
                if isinstance(image, Fault):
                    self._count(image, [member.name])
                else:
                    yield image
        except UnreadableError as error:  # what comes after it can't be called missing
            self._problems.note(self.path.name, f"can't be read: {error}", AGAIN)
        else:
            self._note_missing()

    def _read(self, member: Member) -> _Encoded | Fault | None:
        if not member.regular:
            return _LINK
        if not is_image(member.name):
            return None
        parsed = self.names.parse(member.name)
        if parsed is None:
            return self.names.stray
        sample, channel = parsed
        if sample not in self._rows and sample in self.names.ids:
            return None
        if self._seen[sample] >> channel & 1:
            return _TWICE
        self._seen[sample] |= 1 << channel
        if member.size > MAX_BYTES:
            return TOO_LARGE
        try:
            with explained():
                return _Encoded(member.name, sample, channel, member.read(MAX_BYTES))
        except UnreadableError as error:
            return Fault("file", f"that can't be read ({error})", AGAIN)

    def _write_header(self, file: BinaryIO, size: Size) -> int:
        """Begin the file; return where the pixels begin.

        Pixels are written to the file and not through a memory map: a full disk is an error instead
        of a crash, and the pixels don't count as this process's memory.
        """
        shape = len(self._rows), len(self.names.channels), *reversed(size)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()

    def _write(self, file: BinaryIO, begin: int, image: _Encoded, pixels: bytes) -> None:
        place = self._rows[image.sample] * len(self.names.channels) + image.channel
        file.seek(begin + place * len(pixels))
        file.write(pixels)
        if not pixels.strip(b"\0"):
            self._blank[self.names.channels[image.channel]].append(image.sample)

    def _note_missing(self) -> None:
        if not self._seen:
            what = f"no images, expected files named {self.names.pattern}"
            self._problems.note(self.path.name, what)
        for index, channel in enumerate(map(name_channel, self.names.channels)):
            lacking = [sample for sample, there in self._seen.items() if not there >> index & 1]
            self._count(Fault("sample", f"without channel {channel}"), lacking)
        self.match(self._seen)

    def _count(self, fault: Fault, which: Collection[Id]) -> None:
        self._problems.count(self.path.name, fault, which)


def _decode_chunk(chunk: list[_Encoded]) -> list[tuple[_Encoded, tuple[Size, bytes] | Fault]]:
    return [(image, decode_image(image.data)) for image in chunk]
