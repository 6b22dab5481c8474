"""Decoding all images of the input once, in parallel, into one array a split."""

import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.archives import UnreadableError, members
from cellline.data.cache import Images, cache_key, keep_images, open_images, temporary_folder
from cellline.data.decoding import Encoded, decode
from cellline.data.ids import are_numbers
from cellline.data.listing import AGAIN, DAMAGED, MAX_BYTES, Listing, Size
from cellline.data.problems import Fault, Problems
from cellline.errors import UserError
from cellline.host.locking import one_writer
from cellline.host.names import printable
from cellline.host.progress import progress_bar

# For another process that decodes, perhaps the same images: the challenge's take some seconds.
WAIT_SECONDS = 60

_CHANGED = Fault("file changed while it was read", "files changed while they were read", AGAIN)


def decode_images(
    cache_dir: Path,
    key: str,
    listings: Sequence[Listing],
    size: Size,
    problems: Problems,
    workers: int | None = None,
) -> dict[str, Images]:
    """Decode all listed images of this size into the cache, and open them.

    With `problems` known already the images are decoded to find the damaged ones, and nothing is
    written. Raises UserError for the problems, if `cache_dir` can't be written or has no room, or
    if another process goes on decoding into it.
    """
    if problems:
        for _ in _decoded(listings, size, problems, workers):
            pass
        problems.check()
    try:
        with one_writer(cache_dir, "decoding images", wait=WAIT_SECONDS):
            images = open_images(cache_dir, key)  # by the process that was waited for
            if images is None:
                with temporary_folder(cache_dir) as folder:
                    _check_room(cache_dir, listings, size)
                    blank = _write_arrays(
                        folder, _decoded(listings, size, problems, workers), listings, size
                    )
                    _check_unchanged(key, listings, problems)
                    problems.check()
                    images = keep_images(folder, cache_dir, key, listings, blank)
            return images
    except OSError as error:
        raise _no_room(cache_dir, error.strerror or str(error)) from error


def _check_room(cache_dir: Path, listings: Sequence[Listing], size: Size) -> None:
    """Raise UserError if the arrays don't fit on the disk, before any of them is decoded."""
    pictures = sum(len(listing.ids) * len(listing.channels) for listing in listings)
    need, free = pictures * size[0] * size[1], shutil.disk_usage(cache_dir).free
    if need > free:
        raise _no_room(cache_dir, f"they take {need / 1e6:.1f} MB, and {free / 1e6:.1f} are free")


def _no_room(cache_dir: Path, why: str) -> UserError:
    return UserError(
        f"The decoded images can't be kept in {printable(str(cache_dir))}: {why}.\n"
        "Make room there (what it holds can be deleted), or choose another folder by --cache-dir."
    )


def _check_unchanged(key: str, listings: Sequence[Listing], problems: Problems) -> None:
    """Note if any file changed since `key` was made: the arrays may be of old and new images."""
    sources = [listing.source for listing in listings]
    if cache_key(sources, listings[0].channels, numeric=are_numbers(listings[0].ids)) != key:
        names = " or ".join(source.name for source in sources)
        problems.note(names, "changed while it was read", "Start again when nothing writes there.")


def _decoded(
    listings: Sequence[Listing], size: Size, problems: Problems, workers: int | None
) -> Iterator[tuple[str, int, bytes]]:
    """Yield split, place and pixels of all sound images; note the others."""
    missing = {listing.split: listing.sound() for listing in listings}
    damaged: dict[str, list[int]] = defaultdict(list)
    images = decode(_encoded(listings, problems), size, workers)
    total = sum(int(sound.sum()) for sound in missing.values())
    with progress_bar("decoding images", total, "image") as advance:
        for split, place, pixels in images:
            missing[split][place] = False
            if pixels is None:
                damaged[split].append(place)
            else:
                yield split, place, pixels
            advance(1)
    for listing in listings:
        name, split = listing.source.name, listing.split
        problems.count(name, DAMAGED, listing.names_at(damaged[split]))
        if listing.whole:
            gone = np.flatnonzero(missing[split]).tolist()
            problems.count(name, _CHANGED, listing.names_at(gone))


def _encoded(listings: Sequence[Listing], problems: Problems) -> Iterator[Encoded]:
    for listing in listings:
        sound = listing.sound()
        try:
            for member in members(listing.source, f"images_{listing.split}"):
                place = listing.place(member.name) if member.regular else None
                if place is not None and sound[place]:
                    try:
                        data = member.read(MAX_BYTES)
                    except UnreadableError:
                        data = b""  # decodes to a damaged image
                    yield Encoded(listing.split, place, data)
        except UnreadableError as error:
            if listing.whole:  # or else it broke off in the first pass, too
                problems.note(listing.source.name, f"can't be read: {error}", AGAIN)


def _write_arrays(
    folder: Path,
    images: Iterator[tuple[str, int, bytes]],
    listings: Sequence[Listing],
    size: Size,
) -> dict[str, dict[str, list[Any]]]:
    """Write `<split>.npy` for each listing; return split -> channel -> ids of blank images.

    Written as a file and not through the memory map: a full disk is an error and not a crash, and
    the pixels don't count as this process's memory.
    """
    blank: dict[str, dict[str, list[Any]]] = {listing.split: {} for listing in listings}
    by_split = {listing.split: listing for listing in listings}
    zeros = bytes(size[0] * size[1])
    with ExitStack() as stack:
        files, offsets = {}, {}
        for split, listing in by_split.items():
            path = folder / f"{split}.npy"
            shape = len(listing.ids), len(listing.channels), *size
            array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            offsets[split] = array.offset
            del array
            files[split] = stack.enter_context(path.open("r+b"))
        for split, place, pixels in images:
            files[split].seek(offsets[split] + place * len(zeros))
            files[split].write(pixels)
            if pixels == zeros:
                listing = by_split[split]
                row, channel = divmod(place, len(listing.channels))
                blank[split].setdefault(listing.channels[channel], []).append(
                    listing.ids[row].item()
                )
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return blank
