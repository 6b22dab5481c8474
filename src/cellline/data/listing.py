"""Which image is where: the names and PNG headers of a part's images, checked before any decoding.

A first pass over the files, so that what is wrong with them is known before anything is written,
and so that no image is decoded whose header announces an absurd size.
"""

import struct
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.archives import Member, UnreadableError, members
from cellline.data.ids import Id, are_numbers, to_array
from cellline.data.image_names import UNKNOWN, ImageNames, name_channel
from cellline.data.png import SIGNATURE
from cellline.data.problems import Fault, Problems

MAX_SIDE = 4096  # pixels; the challenge's crops have 64, a whole microscope frame about 2048
MAX_BYTES = 32 << 20  # of a file: MAX_SIDE squared is 16 MiB of pixels, if nothing compresses

Size = tuple[int, int]  # height, width

_HEADER = struct.Struct(">8sI4sIIBB")  # signature; IHDR's length, type, width, height, bits, colour
_BITS = (1, 2, 4, 8, 16)
_COLOURS = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale and alpha", 6: "RGB and alpha"}

AGAIN = "Download or copy what is damaged again."
DAMAGED = Fault("image is damaged or truncated", "images are damaged or truncated", AGAIN)
_LINK = Fault("entry is a link or device, not a file", "entries are links or devices, not files")
_TWICE = Fault("image is there twice", "images are there twice")
_NOT_PNG = Fault("file is not a PNG image", "files are not PNG images")
_TOO_LARGE = Fault(
    f"image is larger than {MAX_SIDE} x {MAX_SIDE} pixels or {MAX_BYTES >> 20} MiB",
    f"images are larger than {MAX_SIDE} x {MAX_SIDE} pixels or {MAX_BYTES >> 20} MiB",
)


# What is kept of an image: 15 bytes.
_ROW = struct.Struct("<qhBHH")
_IMAGE = np.dtype(
    [
        ("sample", "<i8"),  # its row; while files are listed its id, or of a text id a number
        ("channel", "<i2"),  # index, or UNKNOWN
        ("digits", "<u1"),  # of the id as the file's name has it, zero-padded or not
        ("height", "<u2"),  # pixels; 0 where the header is not sound, or of another size than most
        ("width", "<u2"),
    ]
)


@dataclass(eq=False)
class Listing:
    """What the folder or archive of one split, train or test, holds.

    An image's place is its sample's row, by ascending id, times the number of channels, plus the
    channel's index: where it is to be in the decoded images.
    """

    split: str
    source: Path
    channels: Sequence[str]
    whole: bool  # an archive that breaks off does not show what it lacks
    ids: np.ndarray  # the samples', int64 or text [n], ascending
    images: np.ndarray  # _IMAGE [n], of names that tell an id, as stored

    @property
    def known(self) -> np.ndarray:
        """Those of `images` whose channel is known."""
        known: np.ndarray = self.images[self.images["channel"] != UNKNOWN]
        return known

    def places(self, images: np.ndarray) -> np.ndarray:
        """Return the places of rows of `images`, int64 [n]; their channels must be known."""
        return np.asarray(images["sample"] * len(self.channels) + images["channel"])

    def sound(self) -> np.ndarray:
        """Tell of each place, bool [n], if there is one image, and its header sound.

        Of several at one place, which are a problem of their own, none could be told from another.
        """
        known = self.known
        places = self.places(known)
        n_places = len(self.ids) * len(self.channels)
        sound: np.ndarray = np.bincount(places, minlength=n_places) == 1
        sound[places[known["height"] == 0]] = False
        return sound

    def place(self, name: str) -> int | None:
        """Return the place of an image, by the name of its file; None if it has none."""
        if (parsed := self._names.parse(name)) is None or parsed[1] == UNKNOWN:
            return None
        row = bisect_left(self._id_view, parsed[0])
        if row == len(self.ids) or self._id_view[row] != parsed[0]:
            return None
        return row * len(self.channels) + parsed[1]

    def names(self, images: np.ndarray) -> list[str]:
        """Return the names of the files of rows of `images`, whose channels must be known."""
        ids = self.ids[images["sample"]].tolist()
        return [
            self._names.render(sample, channel, digits)
            for sample, (_, channel, digits, _, _) in zip(ids, images.tolist(), strict=True)
        ]

    def names_at(self, places: Collection[int]) -> list[str]:
        """Return the names of the files that are at these places."""
        if not places:
            return []
        known = self.known
        return self.names(known[np.isin(self.places(known), list(places))])

    @cached_property
    def _names(self) -> ImageNames:
        return ImageNames(self.channels, numeric=are_numbers(self.ids))

    @cached_property
    def _id_view(self) -> Sequence[Any]:
        # Python's own integers or text, which are quicker had; without a copy where there can be.
        return self.ids.data if are_numbers(self.ids) else self.ids.tolist()


def list_images(
    split: str, source: Path, channels: Sequence[str], problems: Problems, *, numeric: bool
) -> Listing:
    """Read the names and headers in `images_<split>`, and note everything wrong with them.

    `numeric`: ids are whole numbers, else text.
    """
    names = ImageNames(channels, numeric=numeric)
    rows = bytearray()
    texts: dict[Id, int] = {}  # their numbers in the order in which they come
    whole = True
    faults: dict[Fault, list[str]] = defaultdict(list)
    stray, unknown = _stray(names), _unknown_channel(channels)
    try:
        for member in members(source, f"images_{split}"):
            parsed = names.parse(member.name)
            if not member.regular:
                faults[_LINK].append(member.name)
                continue
            if parsed is None:
                faults[stray].append(member.name)
                continue
            sample, channel, digits = parsed
            size: Size | Fault = (0, 0)
            if channel == UNKNOWN:
                faults[unknown].append(member.name)
            else:
                size = _png_size(member)
                if isinstance(size, Fault):
                    faults[size].append(member.name)
                    size = 0, 0
            number = sample if numeric else texts.setdefault(sample, len(texts))
            rows += _ROW.pack(number, channel, digits, *size)
    except UnreadableError as error:
        whole = False
        problems.note(source.name, f"can't be read: {error}", AGAIN)
    images = np.frombuffer(rows, _IMAGE)
    if numeric:
        ids, images["sample"] = np.unique(images["sample"], return_inverse=True)
    else:
        ids, rows_of = np.unique(to_array(list(texts), numeric=False), return_inverse=True)
        images["sample"] = rows_of[images["sample"]]
    listing = Listing(split, source, channels, whole, ids, images)
    faults[_TWICE] = _find_repeated(listing)
    for fault, which in sorted(faults.items()):
        problems.count(source.name, fault, which)
    if whole:
        _note_lacking(listing, problems)
    return listing


def settle_size(listings: Sequence[Listing], problems: Problems) -> Size:
    """Return the size that most images have; note those of another, which are not sound then."""
    counts: Counter[Size] = Counter()
    for listing in listings:
        sizes, times = np.unique(listing.images[["height", "width"]], return_counts=True)
        counts.update(dict(zip(sizes.tolist(), times.tolist(), strict=True)))
    del counts[0, 0]
    usual = max(counts, key=lambda size: (counts[size], size), default=(0, 0))
    for listing in listings:
        images = listing.images
        differ = (images["height"] != usual[0]) | (images["width"] != usual[1])
        others = np.flatnonzero(differ & (images["height"] > 0))
        which = [
            f"{name} ({width} x {height})"
            for name, height, width in zip(
                listing.names(images[others]),
                images["height"][others],
                images["width"][others],
                strict=True,
            )
        ]
        images["height"][others] = 0
        most = f"not {usual[1]} x {usual[0]} pixels like most"
        fault = Fault(f"image is {most}", f"images are {most}")
        problems.count(listing.source.name, fault, which)
    return usual


def _find_repeated(listing: Listing) -> list[str]:
    """Return the names of images that have the same place, by two."""
    known = listing.known
    places = listing.places(known)
    order = np.argsort(places, kind="stable")
    repeated = np.flatnonzero(np.diff(places[order]) == 0)
    firsts, seconds = (listing.names(known[order[repeated + i]]) for i in (0, 1))
    return [f"{first} and {second}" for first, second in zip(firsts, seconds, strict=True)]


def _note_lacking(listing: Listing, problems: Problems) -> None:
    if not len(listing.ids):
        pattern = ImageNames(listing.channels, numeric=True).pattern
        problems.note(listing.source.name, f"no images, expected files named {pattern}")
    present = np.zeros((len(listing.ids), len(listing.channels)), dtype=bool)
    present.flat[listing.places(listing.known)] = True
    for channel, there in zip(map(name_channel, listing.channels), present.T, strict=True):
        fault = Fault(f"sample lacks channel {channel}", f"samples lack channel {channel}")
        problems.count(listing.source.name, fault, listing.ids[~there].tolist())


def _stray(names: ImageNames) -> Fault:
    return Fault(
        f"file belongs to nothing, expected files named {names.pattern}",
        f"files belong to nothing, expected files named {names.pattern}",
    )


def _unknown_channel(channels: Sequence[str]) -> Fault:
    known = ", ".join(channel or '""' for channel in channels)
    return Fault(
        "image is of an unknown channel",
        "images are of unknown channels",
        f"The channels are {known}; if they have other names, "
        'set --channels (--channels "" for files <id>.png).',
    )


def _png_size(member: Member) -> Size | Fault:
    """Return the size that the header of an 8-bit grayscale PNG announces, or what is wrong."""
    if member.size > MAX_BYTES:
        return _TOO_LARGE
    try:
        head = member.read(_HEADER.size)
    except UnreadableError as error:
        return Fault(f"file can't be read ({error})", f"files can't be read ({error})", AGAIN)
    if not head or (SIGNATURE.startswith(head[:8]) and len(head) < _HEADER.size):
        return DAMAGED
    if not head.startswith(SIGNATURE):
        return _NOT_PNG
    _, length, kind, width, height, bits, colour = _HEADER.unpack(head)
    if (length, kind) != (13, b"IHDR") or width == 0 or height == 0:
        return DAMAGED
    if bits not in _BITS or colour not in _COLOURS:
        return DAMAGED
    if (bits, colour) != (8, 0):
        found = f"{bits}-bit {_COLOURS[colour]}"
        return Fault(
            f"image is not 8-bit grayscale but {found}",
            f"images are not 8-bit grayscale but {found}",
        )
    return _TOO_LARGE if max(width, height) > MAX_SIDE else (height, width)
