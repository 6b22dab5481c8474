"""Decoded images on disk, found again by the files that they were decoded from.

`<cache_dir>/<key>-train.npy` and `-test.npy` (uint8 [sample, channel, height, width], C order,
samples by ascending id) are described by `<key>.json`, which is written last. The key is a digest
of the list of files, so a later start reads no image.

The arrays are digested whenever they are opened: 118 MB, the challenge's, in 0.15 s. A user may
delete all of them at any time; the program never does.
"""

import json
import math
import os
import warnings
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from cellline.data.decoding import Form, Scale, Size
from cellline.data.files import UnreadableError, explained, fingerprint
from cellline.data.ids import Id, to_array
from cellline.data.images import SplitReader
from cellline.data.problems import Problems
from cellline.errors import UserError
from cellline.host.files import (
    atomic,
    digest_file,
    digest_text,
    name_in_errors,
    open_regular,
    read_json,
    write_json,
)
from cellline.host.locking import one_writer
from cellline.host.progress import say

# For another process that decodes, perhaps the same images: the challenge's take some seconds.
WAIT_SECONDS = 60


class StoredImages:
    """Images uint8 [n, channel, height, width] in a `.npy` file, each read when it is asked for.

    They may be larger than the memory. A memory map would end the process by SIGBUS if the file is
    truncated or its disk drops away, and some network shares don't offer any.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = open_regular(str(path), os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        with open(self._descriptor, "rb", closefd=False) as file:
            np.lib.format.read_magic(file)
            self.shape: tuple[Any, ...] = np.lib.format.read_array_header_1_0(file)[0]
            self._begin = file.tell()
        self._rows = np.arange(len(self))

    def __reduce__(self) -> tuple[type["StoredImages"], tuple[Path]]:
        # For a loader's process that is not forked.
        return StoredImages, (self.path,)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """An image, or several, as an array of their own. Raises UserError if the file is shorter.

        An image of 3 x 64 x 64 takes 3 us.
        """
        rows = self._rows[index]
        images = np.empty((*rows.shape, *self.shape[1:]), np.uint8)
        each = images.reshape(-1, *self.shape[1:])
        for row, image in zip(rows.ravel().tolist(), each, strict=True):
            self._read(memoryview(image).cast("B"), self._begin + row * image.nbytes)
        return images

    def _read(self, buffer: memoryview, at: int) -> None:
        """Fill a buffer from a position in the file, which may take several calls on a network."""
        with name_in_errors(self.path):
            while buffer:
                if not (count := os.preadv(self._descriptor, [buffer], at)):
                    raise UserError(
                        f"{self.path} was truncated while it was in use: rerun the same command, "
                        "which decodes the images again"
                    )
                buffer, at = buffer[count:], at + count


Images = np.ndarray | StoredImages


@dataclass(frozen=True)
class DecodedSplit:
    """One split's decoded images."""

    channels: tuple[str, ...]
    """Names in the pixels' order: the endings of the files' names; for one file a sample, gray, or
    red, green and blue, or page1 to pageN."""
    ids: np.ndarray
    """int64 or text [n], ascending."""
    pixels: Images
    """uint8 [n, channel, height, width]"""
    blank: Mapping[str, Sequence[Id]]
    """Channel -> ids of the samples whose image is all zero."""
    scales: Mapping[str, Scale]
    """Channel -> range of its 16-bit values that is stored as 0 to 255, from the training images;
    empty for images of 8 bits."""
    resized: bool
    """True if some images had another size than the pixels have."""
    digest: str
    """Digest of the channels' names, the ids and the pixels."""


def open_images(
    cache_dir: Path,
    readers: Sequence[SplitReader],
    problems: Problems,
    form: Form,
) -> dict[str, DecodedSplit]:
    """Open the images of all splits by name, decoded first if this is the first start.

    The training split comes first: unless `form` is final, it is that of the training images, by
    which 16-bit values are scaled. Images of one size, no side longer than twice `form.side`, are
    stored as they are; all others are resized to squares of that side. Without it, they must have
    one size.

    Raises UserError for `problems`, those known before and those of the images, and then keeps
    nothing; also if another process keeps decoding into `cache_dir`.
    """
    key = _find_key(readers, form)
    images = _open(cache_dir, key)
    if images is None:
        with one_writer(cache_dir, "decoding images", wait=WAIT_SECONDS):
            # Perhaps the process that was waited for has decoded them.
            images = _open(cache_dir, key) or _decode(cache_dir, key, form, readers, problems)
    return images


def _find_key(readers: Sequence[SplitReader], form: Form) -> str:
    """Return what changes when a file of the images or a setting does, without reading them."""
    names = [
        [one.split, one.name, one.names.numeric, one.names.omit_extra, one.ids] for one in readers
    ]
    settings: list[Any] = [form.files, form.side, form.resize]
    if form.final:
        settings += [form.size, form.channels, form.scales]
    try:
        with explained():
            listed = [fingerprint(reader.path) for reader in readers]
    except UnreadableError:
        listed = []  # to read it is a problem
    return digest_text(json.dumps([settings, names, listed]))[:16]


def _open(cache_dir: Path, key: str) -> dict[str, DecodedSplit] | None:
    """Open what `_decode` left under this key; None if it isn't there whole."""
    try:
        record = read_json(cache_dir / f"{key}.json")
        for split, part in record.items():
            if digest_file(cache_dir / f"{key}-{split}.npy") != part["sha256"]:
                return None
    except (OSError, UserError):
        return None
    return _map(cache_dir, key, record)


def _map(cache_dir: Path, key: str, record: Mapping[str, Any]) -> dict[str, DecodedSplit]:
    opened = {}
    for split, part in record.items():
        ids = to_array(part["ids"], numeric=isinstance(part["ids"][0], int))
        pixels = StoredImages(cache_dir / f"{key}-{split}.npy")
        described = json.dumps([part["channels"], part["ids"], part["blank"]])
        digest = digest_text(described, part["sha256"])
        scales = {channel: Scale(*scale) for channel, scale in part["scales"].items()}
        opened[split] = DecodedSplit(
            channels=tuple(part["channels"]),
            ids=ids,
            pixels=pixels,
            blank=part["blank"],
            scales=scales,
            resized=part["resized"],
            digest=digest,
        )
    return opened


def _decode(
    cache_dir: Path, key: str, start: Form, readers: Sequence[SplitReader], problems: Problems
) -> dict[str, DecodedSplit]:
    # Pillow warns of broken EXIF, and of damage: an error follows where it matters.
    with ExitStack() as stack, warnings.catch_warnings(action="ignore"):
        # A problem removes the files that were begun.
        paths = [cache_dir / f"{key}-{reader.split}.npy" for reader in readers]
        form = _decode_all(readers, [stack.enter_context(atomic(path)) for path in paths], start)
        for reader in readers:
            reader.report()
        if _find_key(readers, start) != key:  # or else the arrays may mix old and new images
            changed = " or ".join(reader.name for reader in readers)
            advice = "Start again when no program writes there."
            problems.note(changed, "changed while it was read", advice)
        problems.check()
    _say_sizes(form, set().union(*(reader.sizes for reader in readers)))
    record = {}
    for reader, path in zip(readers, paths, strict=True):
        record[reader.split] = {**reader.describe(form), "sha256": digest_file(path)}
    write_json(cache_dir / f"{key}.json", record)
    return _map(cache_dir, key, record)


def _decode_all(readers: Sequence[SplitReader], files: Sequence[BinaryIO], form: Form) -> Form:
    """Decode all splits in the form of the training images, which is returned.

    An attempt ends at the first of these that needs another form: resized, in colour, or with its
    16 bits scaled. An ordinary set's form is that of its first image.
    """
    if not readers:  # a problem that is known before
        return form
    train, *others = zip(readers, files, strict=True)
    while (needed := train[0].decode(train[1], form)) != form:
        form = needed
        if form.deep and not form.scales:
            form = replace(form, scales=train[0].survey(form))
    for reader, file in others:
        reader.decode(file, replace(form, final=True))
    return form


def _say_sizes(form: Form, sizes: set[Size]) -> None:
    """Say how images were resized, if they were."""
    if form.size is not None and sizes - {form.size}:
        ends = dict.fromkeys((min(sizes, key=math.prod), max(sizes, key=math.prod)))
        sides = " to ".join(f"{width} x {height}" for width, height in ends)
        side, _ = form.size
        say(f"images of {sides} pixels are resized to {side} x {side} (--resize {form.resize})")
