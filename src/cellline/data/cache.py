"""Decoded images on disk, found again by the files that they were decoded from.

`<cache_dir>/<key>-train.npy` and `-test.npy` (uint8 [sample, channel, height, width], C order,
samples by ascending id) are described by `<key>.json`, which is written last. The key is of the
input's files as the file system lists them: a later start reads no image.

The arrays are digested whenever they are opened: 118 MB, the challenge's, in 0.15 s. A user may
delete all of them at any time; the program never does.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.files import UnreadableError, explained, fingerprint
from cellline.data.ids import Id, to_array
from cellline.data.images import SplitReader
from cellline.data.problems import Problems
from cellline.errors import UserError
from cellline.host.files import atomic, digest_file, digest_text, read_json, write_json
from cellline.host.locking import one_writer

# For another process that decodes, perhaps the same images: the challenge's take some seconds.
WAIT_SECONDS = 60


@dataclass(frozen=True)
class DecodedSplit:
    """One split's decoded images."""

    ids: np.ndarray
    """int64 or text [n], ascending."""
    pixels: np.ndarray
    """uint8 memory map [n, channel, height, width], read-only."""
    blank: Mapping[str, Sequence[Id]]
    """Channel -> ids of the samples whose image is all zero."""
    digest: str
    """Digest of the channels' names, the ids and the pixels."""


def open_images(
    cache_dir: Path, readers: Sequence[SplitReader], problems: Problems
) -> dict[str, DecodedSplit]:
    """Open the images of all splits by name, decoded first if this is the first start.

    Raises UserError for `problems`, those known before and those of the images, and then keeps
    nothing; also if another process keeps decoding into `cache_dir`.
    """
    key = _find_key(readers)
    images = _open(cache_dir, key)
    if images is None:
        with one_writer(cache_dir, "decoding images", wait=WAIT_SECONDS):
            # Perhaps the process that was waited for has decoded them.
            images = _open(cache_dir, key) or _decode(cache_dir, key, readers, problems)
    return images


def _find_key(readers: Sequence[SplitReader]) -> str:
    """Return what changes when any of the images' files does, without reading them."""
    names = [[reader.names.channels, reader.names.numeric] for reader in readers]
    try:
        with explained():
            listed = [fingerprint(reader.path) for reader in readers]
    except UnreadableError:
        listed = []  # to read it is a problem
    return digest_text(json.dumps([names, listed]))[:16]


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
        pixels = np.load(cache_dir / f"{key}-{split}.npy", mmap_mode="r")
        described = json.dumps([part["channels"], part["ids"], part["blank"]])
        digest = digest_text(described, part["sha256"])
        opened[split] = DecodedSplit(ids, pixels, part["blank"], digest)
    return opened


def _decode(
    cache_dir: Path, key: str, readers: Sequence[SplitReader], problems: Problems
) -> dict[str, DecodedSplit]:
    size = None
    with ExitStack() as stack:  # a problem removes the files that were begun
        for reader in readers:
            file = stack.enter_context(atomic(cache_dir / f"{key}-{reader.split}.npy"))
            size = reader.decode(file, size)
        if _find_key(readers) != key:  # or else the arrays may mix old and new images
            changed = " or ".join(reader.path.name for reader in readers)
            advice = "Start again when no program writes there."
            problems.note(changed, "changed while it was read", advice)
        problems.check()
    record = {}
    for reader in readers:
        digest = digest_file(cache_dir / f"{key}-{reader.split}.npy")
        record[reader.split] = {**reader.describe(), "sha256": digest}
    write_json(cache_dir / f"{key}.json", record)
    return _map(cache_dir, key, record)
