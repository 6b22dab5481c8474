"""Images by name: which sample and channel a file shows, decoded into one array a split."""

import errno
import math
import os
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cellline.data.decoding import (
    AGAIN,
    MAX_BYTES,
    TOO_LARGE,
    Size,
    decode_image,
    read_size,
    show_size,
)
from cellline.data.files import Member, UnreadableError, members
from cellline.data.ids import Id, parse_id, to_array
from cellline.data.problems import IMAGE_IS, ROW_HAS, SAMPLE_HAS, Fault, Problems
from cellline.data.tables import LabelTable
from cellline.host.processors import map_in_order
from cellline.host.progress import progress_bar

# Decoded by one thread at a time: at 64 x 64 about 6 ms of work. Large images come in fewer.
CHUNK_IMAGES = 64
CHUNK_BYTES = 4 << 20  # of pixels

_LINK = Fault(("entry is", "entries are"), "not regular (links, devices, pipes)")
_TWICE = Fault(IMAGE_IS, "stored twice")

_SUFFIX = ".png"
_UNKNOWN = -1  # a channel that is not among those of the competition


class ImageNames:
    """The names `<id>_<channel>.png` of the images of one competition.

    The channel "" stands for names without one, `<id>.png`. A text id may have underscores: the
    channel is the longest known one that ends the name, else what follows the last underscore.
    """

    def __init__(self, channels: Sequence[str], *, numeric: bool) -> None:
        self.channels = tuple(channels)
        self.numeric = numeric
        composed = (unicodedata.normalize("NFC", channel) for channel in channels)
        suffixes = [f"_{channel}" if channel else "" for channel in composed]
        self._by_length = sorted(enumerate(suffixes), key=lambda at: -len(at[1]))
        self.stray = Fault(
            ("file belongs", "files belong"), f"to nothing, expected files named {self.pattern}"
        )
        self.unknown = Fault(
            IMAGE_IS,
            "of an unknown channel",
            f"The channels are {', '.join(channel or repr('') for channel in channels)}; if they "
            'have other names, set --channels (--channels "" for files <id>.png).',
        )

    @property
    def pattern(self) -> str:
        """The pattern of names, for a message."""
        return f"<id>{_SUFFIX}" if self.channels == ("",) else f"<id>_<channel>{_SUFFIX}"

    def parse(self, name: str) -> tuple[Id, int] | None:
        """Return the id and the channel's index or _UNKNOWN; None if the name has no id."""
        if not name.endswith(_SUFFIX):
            return None
        stem = unicodedata.normalize("NFC", name).removesuffix(_SUFFIX)
        for index, suffix in self._by_length:
            if stem.endswith(suffix):
                sample = parse_id(stem.removesuffix(suffix), numeric=self.numeric)
                if sample is not None:
                    return sample, index
        head = stem.partition("_")[0] if self.numeric else stem.rpartition("_")[0]
        sample = parse_id(head or stem, numeric=self.numeric)
        return None if sample is None else (sample, _UNKNOWN)


def name_channel(channel: str) -> str:
    """Name a channel for a message: the one that file names don't mention is the image."""
    return channel or "image"


@dataclass(frozen=True, eq=False)
class Source:
    """Where the images of one split are, and which samples they should show."""

    split: str
    """train or test."""
    path: Path
    """A folder or an archive."""
    table: LabelTable | None
    """The split's table; None if it is unusable."""
    advice: str
    """What to know if ids don't match."""

    def match(self, ids: np.ndarray, problems: Problems) -> None:
        """Note samples, by ids [n] of images, without a row in the table, and the reverse."""
        if self.table is None:
            return
        where, name = self.path.name, self.table.name
        rowless = Fault(SAMPLE_HAS, f"no row in {name}", self.advice)
        imageless = Fault(ROW_HAS, f"no images in {where}", self.advice)
        problems.count(where, rowless, np.setdiff1d(ids, self.table.ids).tolist())
        problems.count(name, imageless, np.setdiff1d(self.table.ids, ids).tolist())


class _Encoded(NamedTuple):
    """One image as stored: its file's name, its sample's id, its channel's index, its bytes."""

    name: str
    sample: Id
    channel: int
    data: bytes


class SplitReader:
    """Reads the images of one split: decodes them into an array, finds what is wrong with them."""

    def __init__(
        self, source: Source, names: ImageNames, array: Path | None, size: Size | None
    ) -> None:
        """Read images of `size`, or of the first sound image's, into the file `array` if any."""
        self.source = source
        self.names = names
        self.array = array
        self.size = size
        self.blank: dict[str, list[Id]] = {}
        """Channel -> ids of the samples whose image is all zero."""
        ids = [] if source.table is None else np.sort(source.table.ids).tolist()
        self._rows: dict[Id, int] = {sample: row for row, sample in enumerate(ids)}
        self._seen: dict[Id, int] = {}  # id -> a bit for each of its channels
        self._faults: dict[Fault, list[str]] = defaultdict(list)
        self._broken = ""  # why the folder or archive can't be read any further

    @property
    def ids(self) -> np.ndarray:
        """Ids of the samples that have an image, ascending."""
        return np.unique(to_array(list(self._seen), numeric=self.names.numeric))

    def read(self, problems: Problems) -> None:
        """Decode all images, and note all problems."""
        total = len(self._rows) * len(self.names.channels)
        with ExitStack() as stack:
            advance = stack.enter_context(progress_bar("decoding images", total, "image"))
            file: BinaryIO | None = None
            for chunk in map_in_order(_decode_chunk, self._chunks()):
                for image, found in chunk:
                    if isinstance(found, Fault):
                        self._faults[found].append(image.name)
                    elif not isinstance(found, bytes):
                        self._faults[self._other_size].append(f"{image.name} ({show_size(found)})")
                    elif self.array is not None and image.sample in self._rows:
                        file = file or stack.enter_context(self._open_array(self.array))
                        self._write(file, image, found)
                advance(len(chunk))
            if file is not None:
                file.flush()
                os.fsync(file.fileno())
        self._note(problems)

    def _chunks(self) -> Iterator[tuple[list[_Encoded], Size | None]]:
        """Group images with their size, so that neither files nor pixels exceed CHUNK_BYTES."""
        chunk: list[_Encoded] = []
        filled = 0
        for image in self._encoded():
            if self.size is None:
                self.size = read_size(image.data)
            chunk.append(image)
            filled += max(len(image.data), math.prod(self.size or ()))
            if len(chunk) == CHUNK_IMAGES or filled >= CHUNK_BYTES:
                yield chunk, self.size
                chunk, filled = [], 0
        yield chunk, self.size

    def _encoded(self) -> Iterator[_Encoded]:
        """Yield the images that have a place of their own."""
        source = self.source
        try:
            for member in members(source.path, f"images_{source.split}"):
                parsed = self.names.parse(member.name)
                if not member.regular:
                    self._faults[_LINK].append(member.name)
                elif parsed is None:
                    self._faults[self.names.stray].append(member.name)
                elif (image := self._read_member(member, *parsed)) is not None:
                    yield image
        except UnreadableError as error:
            self._broken = f"can't be read: {error}"

    def _read_member(self, member: Member, sample: Id, channel: int) -> _Encoded | None:
        channels = self._seen.setdefault(sample, 0)
        fault = self.names.unknown
        if channel != _UNKNOWN:
            self._seen[sample] |= 1 << channel
            if channels >> channel & 1:
                fault = _TWICE
            elif member.size > MAX_BYTES:
                fault = TOO_LARGE
            else:
                try:
                    return _Encoded(member.name, sample, channel, member.read(MAX_BYTES))
                except UnreadableError as error:
                    fault = Fault(("file", "files"), f"can't be read ({error})", AGAIN)
        self._faults[fault].append(member.name)
        return None

    def _open_array(self, path: Path) -> BinaryIO:
        """Make the array's file. Raises OSError if the disk has no room for it.

        Pixels are written to the file and not through the memory map: a full disk is an error
        instead of a crash, and the pixels don't count as this process's memory.
        """
        assert self.size is not None
        shape = len(self._rows), len(self.names.channels), *reversed(self.size)
        need, free = math.prod(shape), shutil.disk_usage(path.parent).free
        if need > free:
            why = f"they take {need / 1e6:.1f} MB, and {free / 1e6:.1f} are free"
            raise OSError(errno.ENOSPC, why)
        self._begin = np.lib.format.open_memmap(path, "w+", np.uint8, shape).offset
        return path.open("r+b")

    def _write(self, file: BinaryIO, image: _Encoded, pixels: bytes) -> None:
        place = self._rows[image.sample] * len(self.names.channels) + image.channel
        file.seek(self._begin + place * len(pixels))
        file.write(pixels)
        if not pixels.strip(b"\0"):
            self.blank.setdefault(self.names.channels[image.channel], []).append(image.sample)

    @property
    def _other_size(self) -> Fault:
        return Fault(IMAGE_IS, f"not {show_size(self.size)} pixels like the first")

    def _note(self, problems: Problems) -> None:
        where = self.source.path.name
        for fault, which in sorted(self._faults.items()):
            problems.count(where, fault, which)
        if self._broken:  # the rest is unknown, so that nothing can be said to lack
            problems.note(where, self._broken, AGAIN)
            return
        if not self._seen:
            problems.note(where, f"no images, expected files named {self.names.pattern}")
        for index, channel in enumerate(map(name_channel, self.names.channels)):
            fault = Fault(SAMPLE_HAS, f"no channel {channel}")
            lacking = [sample for sample, there in self._seen.items() if not there >> index & 1]
            problems.count(where, fault, lacking)
        self.source.match(self.ids, problems)


def _decode_chunk(
    chunk: tuple[list[_Encoded], Size | None],
) -> list[tuple[_Encoded, bytes | Size | Fault]]:
    images, size = chunk
    return [(image, decode_image(image.data, size)) for image in images]
