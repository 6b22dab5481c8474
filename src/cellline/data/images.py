"""Decoding all images of the input once, in parallel, into one array a split."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from tqdm import tqdm

from cellline.data.archives import UnreadableError, members
from cellline.data.cache import Images, keep_images, temporary_folder
from cellline.data.decoding import Encoded, decode
from cellline.data.listing import AGAIN, DAMAGED, Listing, Size
from cellline.data.problems import Fault, Problems
from cellline.errors import UserError

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
    written. Raises UserError for the problems, or if `cache_dir` can't be written.
    """
    if problems:
        for _ in _decoded(listings, size, problems, workers):
            pass
        problems.check()
    try:
        with temporary_folder(cache_dir) as folder:
            blank = _write_arrays(
                folder, _decoded(listings, size, problems, workers), listings, size
            )
            problems.check()
            return keep_images(folder, cache_dir, key, listings, blank)
    except OSError as error:
        raise UserError(
            f"The decoded images can't be kept in {cache_dir}: {error.strerror or error}.\n"
            "Make room there, or choose another folder."
        ) from error


def _decoded(
    listings: Sequence[Listing], size: Size, problems: Problems, workers: int | None
) -> Iterator[tuple[str, str, bytes]]:
    """Yield split, name and pixels of all sound images; note the others."""
    missing = {listing.split: set(listing.sizes) for listing in listings}
    damaged: dict[str, list[str]] = defaultdict(list)
    images = decode(_encoded(listings, problems), size, workers)
    total = sum(map(len, missing.values()))
    for split, name, pixels in tqdm(
        images, "decoding images", total, unit=" images", delay=1, leave=False, disable=None
    ):
        missing[split].discard(name)
        if pixels is None:
            damaged[split].append(name)
        else:
            yield split, name, pixels
    for listing in listings:
        problems.count(listing.source.name, DAMAGED, damaged[listing.split])
        if listing.whole:
            problems.count(listing.source.name, _CHANGED, missing[listing.split])


def _encoded(listings: Sequence[Listing], problems: Problems) -> Iterator[Encoded]:
    for listing in listings:
        try:
            for member in members(listing.source, f"images_{listing.split}"):
                if member.regular and member.name in listing.sizes:
                    try:
                        data = member.read(-1)
                    except UnreadableError:
                        data = b""  # decodes to a damaged image
                    yield Encoded(listing.split, member.name, data)
        except UnreadableError as error:
            if listing.whole:  # or else it broke off in the first pass, too
                problems.note(listing.source.name, f"can't be read: {error}", AGAIN)


def _write_arrays(
    folder: Path,
    images: Iterator[tuple[str, str, bytes]],
    listings: Sequence[Listing],
    size: Size,
) -> dict[str, dict[str, list[int]]]:
    """Write `<split>.npy` for each listing; return split -> channel -> ids of blank images.

    Written as a file and not through the memory map: a full disk is an error and not a crash, and
    the pixels don't count as this process's memory.
    """
    blank: dict[str, dict[str, list[int]]] = {listing.split: {} for listing in listings}
    by_split = {listing.split: listing for listing in listings}
    positions = {split: listing.positions() for split, listing in by_split.items()}
    zeros = bytes(size[0] * size[1])
    with ExitStack() as stack:
        files, offsets = {}, {}
        for split, listing in by_split.items():
            path = folder / f"{split}.npy"
            shape = len(listing.samples), len(listing.channels), *size
            array = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
            offsets[split] = array.offset
            del array
            files[split] = stack.enter_context(path.open("r+b"))
        for split, name, pixels in images:
            files[split].seek(offsets[split] + positions[split][name] * len(zeros))
            files[split].write(pixels)
            if pixels == zeros:
                sample, channel = by_split[split].images[name]
                blank[split].setdefault(by_split[split].channels[channel], []).append(sample)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    return blank
