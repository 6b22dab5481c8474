"""Images by name: which sample and channel a file shows, decoded into one array per split."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np

from cellline.data.decoding import (
    MAX_BYTES,
    TOO_LARGE,
    Decoded,
    Form,
    Scale,
    Size,
    count_values,
    decode_image,
    find_scale,
)
from cellline.data.files import Member, UnreadableError, explained, members
from cellline.data.ids import Id, is_image
from cellline.data.listing import join_doubled
from cellline.data.naming import ImageNames
from cellline.data.problems import Fault, Problems
from cellline.data.rows import Rows
from cellline.host.processors import map_in_order
from cellline.host.progress import duration, progress_bar, say

Result = TypeVar("Result")

# For one task of a thread: about 6 ms of work at 64 x 64. Tasks have fewer large images.
CHUNK_IMAGES = 64
CHUNK_BYTES = 1 << 20  # of files
CHUNK_RATIO = 4  # bytes of pixels that count as one of a file: well packed images are large, too
# Bytes of an image from which threads pay: Pillow holds Python's lock for most of a smaller one's
# time. Two threads are 0.76 x as fast as one at 64 px, 1.5 x at 128 px (13 kB).
THREADED = 8 << 10

# Decoding is announced when its speed is known, and worth the line.
SAY_AFTER = 1.0  # seconds
LONG_SECONDS = 10
LARGE_MEGABYTES = 100

_LINK = Fault("file", "not regular (a link, device or pipe)")
_TWICE = Fault("image", "stored twice")
_TEXT = (
    "Not all ids are whole numbers, so they are compared as text, including case and leading zeros."
)
_HIDDEN = 'If the test images are not to be had, go without a test set: --template "".'
_OMIT = "To leave images without a row out, give --extra-images omit."


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

    sizes: set[Size]
    """Width and height of the labelled images, or of the template's, in their files."""

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
        self.name = problems.name(path)
        self.names = names
        self.sizes = set()
        self._table = table
        self._problems = problems
        self._rows = {sample: row for row, sample in enumerate(sorted(table.ids))}
        self._seen: dict[Id, int] = defaultdict(int)  # id -> a bit for each of its channels
        self._blank: dict[str, list[Id]] = defaultdict(list)
        self._faults: dict[Fault, list[Id]] = defaultdict(list)  # -> names of files
        self._broken: UnreadableError | None = None  # why not all could be read
        self._strangers: dict[str, set[Id]] = defaultdict(set)  # folder -> ids that no table has
        self._folders: set[str] = set()  # those with images of the table
        self._doubled: set[Id] = set()  # ids with an image in a folder in a folder of its name

    def describe(self, form: Form) -> dict[str, Any]:
        """Return what JSON holds beside the decoded images."""
        return {
            "channels": form.channels,
            "ids": sorted(self._seen),
            "resized": bool(self.sizes - {form.size}),
            "blank": {channel: sorted(ids) for channel, ids in sorted(self._blank.items())},
            "scales": {
                channel: scale
                for channel, scale in zip(form.channels, form.scales, strict=False)
                if scale is not None
            },
        }

    @property
    def ids(self) -> list[Id]:
        """The ids that the table names, ascending."""
        return list(self._rows)

    @property
    def expected(self) -> int:
        """Number of the image files that the table asks for."""
        return len(self._rows) * len(self.names.channels)

    def _match(self, ids: Collection[Id]) -> None:
        """Note the ids of images without a row in the table, and the reverse."""
        without = self._rows.keys() - set(ids)
        advice = _TEXT if without and not self.names.numeric else ""
        if self.split == "test" and len(without) == len(self._rows):
            advice = _HIDDEN
        imageless = Fault("row", f"without images in {self.name}", advice)
        self._problems.count(self._table.name, imageless, without)
        if not self.names.omit_extra:
            rowless = Fault("sample", f"without a row in {self._table.name}", advice or _OMIT)
            self._count(rowless, set(ids) - self._rows.keys())

    def decode(self, file: BinaryIO, form: Form) -> Form:
        """Decode all images into a `.npy` file, in ascending order of ids.

        Returns the form. If it is not the one given, an image does not fit that: decode all splits
        again, in the new form. Keeps what is wrong with the images for `report`.
        """
        file.seek(0)
        file.truncate()
        begin = self._write_header(file, form)
        started, done, said = time.monotonic(), 0, False
        with progress_bar("decoding images", self.expected, "image") as advance:
            for chunk in self._map(partial(_decode_chunk, form), form):
                for image, found in chunk:
                    if isinstance(found, Form):
                        return found
                    if isinstance(found, Fault):
                        self._faults[found].append(image.name)
                    else:
                        self.sizes.add(found.size)
                        self._write(file, begin, form, image, found.pixels)
                advance(len(chunk))
                done += len(chunk)
                if not said and time.monotonic() - started >= SAY_AFTER:
                    said = True
                    self._say_plan(form, Path(file.name).parent, started, done)
        return form

    def survey(self, form: Form) -> tuple[Scale | None, ...]:
        """Return the scale of each channel with 16-bit images; of each page, if a file has all."""
        counts: dict[int, np.ndarray] = {}
        with progress_bar("measuring 16-bit images", self.expected, "image") as advance:
            for chunk, counted in self._map(partial(self._count_chunk, form), form):
                for channel, values in counted.items():
                    counts[channel] = counts.get(channel, 0) + values
                advance(len(chunk))
        channels = range(max([len(self.names.channels), *(channel + 1 for channel in counts)]))
        return tuple(find_scale(counts[at]) if at in counts else None for at in channels)

    def report(self) -> None:
        """Note all problems that `decode` found."""
        for fault, names in self._faults.items():
            self._count(fault, names)
        if self._broken:  # what comes after it can't be called missing
            self._problems.note(self.name, f"can't be read: {self._broken}", self._broken.advice)
        else:
            self._note_missing()

    def _map(self, function: Callable[[list[_Encoded]], Result], form: Form) -> Iterator[Result]:
        """Yield the function's result for each chunk of images, in order."""
        self._seen.clear()
        self._blank.clear()
        self.sizes.clear()
        self._faults.clear()
        self._strangers.clear()
        self._folders.clear()
        self._broken = None
        chunks = self._chunks(form)
        first = next(chunks)
        workers = 1 if sum(len(image.data) for image in first) < THREADED * len(first) else None
        yield from map_in_order(function, chain([first], chunks), workers)

    def _chunks(self, form: Form) -> Iterator[list[_Encoded]]:
        chunk: list[_Encoded] = []
        filled = 0
        pixels = math.prod(form.shape) if form.one_file else math.prod(form.shape[1:])
        for image in self._encoded():
            chunk.append(image)
            filled += max(len(image.data), pixels // CHUNK_RATIO)
            if len(chunk) == CHUNK_IMAGES or filled >= CHUNK_BYTES:
                yield chunk
                chunk, filled = [], 0
        yield chunk

    def _encoded(self) -> Iterator[_Encoded]:
        """Yield the images that have a place of their own."""
        try:
            for member in members(self.path):
                image = self._read(member)
                if image is None:
                    continue
                if isinstance(image, Fault):
                    self._faults[image].append(member.name)
                else:
                    yield image
        except UnreadableError as error:
            self._broken = error

    def _read(self, member: Member) -> _Encoded | Fault | None:
        if not member.regular:
            return _LINK
        if not is_image(member.name):
            return None
        parsed = self.names.parse(member.name)
        if parsed is None:
            return self.names.stray
        sample, channel = parsed
        folder = member.name.rpartition("/")[0]
        if sample not in self._rows:
            if not self.names.know(sample):
                self._strangers[folder].add(sample)
            return None
        self._folders.add(folder)
        path = f"{self.path.name}/{member.name}"
        if join_doubled(path) != path:
            self._doubled.add(sample)
        if self._seen[sample] >> channel & 1:
            # A folder may have a copy of itself in it.
            return None if sample in self._doubled else _TWICE
        self._seen[sample] |= 1 << channel
        if member.size > MAX_BYTES:
            return TOO_LARGE
        try:
            with explained():
                return _Encoded(member.name, sample, channel, member.read(member.size))
        except UnreadableError as error:
            return Fault("file", f"that can't be read ({error})", error.advice)

    def _write_header(self, file: BinaryIO, form: Form) -> int:
        """Begin the file; return where the pixels begin.

        Pixels are written to the file and not through a memory map: a full disk is an error instead
        of a crash, and the pixels don't count as this process's memory.
        """
        shape = len(self._rows), *form.shape
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        return file.tell()

    def _write(
        self, file: BinaryIO, begin: int, form: Form, image: _Encoded, pixels: bytes
    ) -> None:
        channels, height, width = form.shape
        place = self._rows[image.sample] * channels + image.channel
        file.seek(begin + place * height * width)
        file.write(pixels)
        if not pixels.strip(b"\0"):
            self._blank[self.names.channels[image.channel]].append(image.sample)

    def _say_plan(self, form: Form, folder: Path, started: float, done: int) -> None:
        """Say how long decoding takes, and how much room; of a set that is soon done, nothing."""
        seconds = (time.monotonic() - started) * self.expected / max(done, 1)
        megabytes = len(self._rows) * math.prod(form.shape) / 1e6
        if seconds >= LONG_SECONDS or megabytes >= LARGE_MEGABYTES:
            shape = " x ".join(map(str, form.shape))
            say(
                f"{self.name}: decoding {self.expected:,} images once, to {shape} a sample: "
                f"{megabytes:,.0f} MB in {folder}, about {duration(seconds)}"
            )

    def _note_missing(self) -> None:
        if not self._seen and not self._strangers:
            what = f"no images, expected files named {self.names.pattern}"
            self._problems.note(self.name, what)
        for index, channel in enumerate(map(name_channel, self.names.channels)):
            lacking = [sample for sample, there in self._seen.items() if not there >> index & 1]
            self._count(Fault("sample", f"without channel {channel}"), lacking)
        # Folders that have no image of the table are about something else, unless none has.
        strangers = [
            ids
            for folder, ids in self._strangers.items()
            if folder in self._folders or not self._folders
        ]
        self._match(set(self._seen).union(*strangers))

    def _count(self, fault: Fault, which: Collection[Id]) -> None:
        self._problems.count(self.name, fault, which)

    def _count_chunk(
        self, form: Form, chunk: list[_Encoded]
    ) -> tuple[list[_Encoded], dict[int, np.ndarray]]:
        counts: dict[int, np.ndarray] = {}
        for image in chunk:
            values = count_values(image.data)
            if not isinstance(values, Fault):  # `decode` reports it
                for page, each in enumerate(values):
                    channel = page if form.one_file else image.channel
                    counts[channel] = counts.get(channel, 0) + each
        return chunk, counts


def _decode_chunk(
    form: Form, chunk: list[_Encoded]
) -> list[tuple[_Encoded, Decoded | Form | Fault]]:
    """Decode images, up to the first that doesn't fit the form."""
    decoded = []
    for image in chunk:
        found = decode_image(image.data, form, image.channel)
        decoded.append((image, found))
        if isinstance(found, Form):
            break
    return decoded
