"""Which image is where: the names and PNG headers of a part's images, checked before any decoding.

A first pass over the files, so that what is wrong with them is known before anything is written,
and so that no image is decoded whose header announces an absurd size.
"""

import re
import struct
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cellline.data.archives import Member, UnreadableError, members
from cellline.data.png import SIGNATURE
from cellline.data.problems import Fault, Problems
from cellline.data.tables import parse_id

MAX_SIDE = 4096  # pixels; the challenge's crops have 64, a whole microscope frame about 2048
MAX_BYTES = 32 << 20  # of a file: MAX_SIDE squared is 16 MiB of pixels, if nothing compresses

Size = tuple[int, int]  # height, width

_NAME = re.compile(r"([0-9]+)_(.+)\.png", re.ASCII)
_HEADER = struct.Struct(">8sI4sIIBB")  # signature; IHDR's length, type, width, height, bits, colour
_BITS = (1, 2, 4, 8, 16)
_COLOURS = {0: "grayscale", 2: "RGB", 3: "palette", 4: "grayscale and alpha", 6: "RGB and alpha"}

AGAIN = "Download or copy what is damaged again."
DAMAGED = Fault("image is damaged or truncated", "images are damaged or truncated", AGAIN)
_EXPECTED = "files named <id>_<channel>.png"
_STRAY = Fault(
    f"file belongs to nothing, expected {_EXPECTED}",
    f"files belong to nothing, expected {_EXPECTED}",
)
_LINK = Fault("entry is a link or device, not a file", "entries are links or devices, not files")
_TWICE = Fault("image is there twice", "images are there twice")
_NOT_PNG = Fault("file is not a PNG image", "files are not PNG images")
_TOO_LARGE = Fault(
    f"image is larger than {MAX_SIDE} x {MAX_SIDE} pixels or {MAX_BYTES >> 20} MiB",
    f"images are larger than {MAX_SIDE} x {MAX_SIDE} pixels or {MAX_BYTES >> 20} MiB",
)


@dataclass
class Listing:
    """What the folder or archive of one split, train or test, holds."""

    split: str
    source: Path
    channels: Sequence[str]
    whole: bool = True  # an archive that breaks off does not show what it lacks
    images: dict[str, tuple[int, int]] = field(default_factory=dict)  # name -> id, channel's index
    sizes: dict[str, Size] = field(default_factory=dict)  # of the images with a sound header
    samples: set[int] = field(default_factory=set)

    @property
    def ids(self) -> np.ndarray:
        """The samples' ids, int64 [n], ascending."""
        return np.array(sorted(self.samples), dtype=np.int64)

    def positions(self) -> dict[str, int]:
        """Return name -> row * number of channels + channel, of images with a sound header."""
        rows = {sample: row for row, sample in enumerate(sorted(self.samples))}
        places = ((name, self.images[name]) for name in self.sizes)
        return {name: rows[i] * len(self.channels) + channel for name, (i, channel) in places}


def list_images(split: str, source: Path, channels: Sequence[str], problems: Problems) -> Listing:
    """Read the names and headers in `images_<split>`, and note everything wrong with them."""
    listing = Listing(split, source, channels)
    faults: dict[Fault, list[str]] = defaultdict(list)
    owners: dict[tuple[int, int], str] = {}
    try:
        for member in members(source, f"images_{split}"):
            matched = _NAME.fullmatch(member.name)
            sample = parse_id(matched[1]) if matched else None
            if not member.regular:
                faults[_LINK].append(member.name)
            elif matched is None or sample is None:
                faults[_STRAY].append(member.name)
            elif matched[2] not in channels:
                listing.samples.add(sample)
                faults[_unknown_channel(channels)].append(member.name)
            else:
                listing.samples.add(sample)
                place = sample, channels.index(matched[2])
                if place in owners:
                    faults[_TWICE].append(f"{owners[place]} and {member.name}")
                owners[place] = member.name
                listing.images[member.name] = place
                size = _png_size(member)
                if isinstance(size, Fault):
                    faults[size].append(member.name)
                else:
                    listing.sizes[member.name] = size
    except UnreadableError as error:
        listing.whole = False
        problems.note(source.name, f"can't be read: {error}", AGAIN)
    for fault, names in sorted(faults.items()):
        problems.count(source.name, fault, names)
    if listing.whole:
        _note_lacking(listing, problems)
    return listing


def settle_size(listings: Sequence[Listing], problems: Problems) -> Size:
    """Return the size that most images have; note and drop those of another."""
    counts = Counter(size for listing in listings for size in listing.sizes.values())
    usual = max(counts, key=lambda size: (counts[size], size), default=(0, 0))
    for listing in listings:
        others = {name: size for name, size in listing.sizes.items() if size != usual}
        for name in others:
            del listing.sizes[name]
        which = [f"{name} ({width} x {height})" for name, (height, width) in others.items()]
        most = f"not {usual[1]} x {usual[0]} pixels like most"
        fault = Fault(f"image is {most}", f"images are {most}")
        problems.count(listing.source.name, fault, which)
    return usual


def _note_lacking(listing: Listing, problems: Problems) -> None:
    if not listing.samples:
        problems.note(listing.source.name, f"no images, expected {_EXPECTED}")
    present = set(listing.images.values())
    for index, channel in enumerate(listing.channels):
        lacking = [sample for sample in listing.samples if (sample, index) not in present]
        fault = Fault(f"sample lacks channel {channel}", f"samples lack channel {channel}")
        problems.count(listing.source.name, fault, lacking)


def _unknown_channel(channels: Sequence[str]) -> Fault:
    return Fault(
        "image is of an unknown channel",
        "images are of unknown channels",
        f"The channels are {', '.join(channels)}; if they have other names, set --channels.",
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
