"""Decoded images on disk: found again by what they were decoded from, named by what they hold.

`<cache_dir>/<digest>/` holds `train.npy`, `test.npy` (uint8 [sample, channel, height, width], C
order, samples by ascending id) and `images.json`, which says what they are. The digest is of the
pixels, so a folder, a tar and a zip of the same images share one entry. `<cache_dir>/<key>.json`
leads to it from the files as the file system lists them, so that a later start reads none of them.

An entry is digested whenever it is opened: 118 MB, the challenge's, in 0.15 s. Entries are never
deleted, since another input or order of the channels may lead to them; all of them can be, by hand.
"""

import json
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cellline.data.archives import UnreadableError, fingerprint
from cellline.data.ids import to_array
from cellline.data.listing import Listing
from cellline.errors import UserError
from cellline.host.files import digest_file, digest_text, read_json, sync_folder, write_json

SPLITS = ("train", "test")

_TEMPORARY = ".decoding"

# What reading an entry that is absent, damaged or not ours raises.
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, UserError)


@dataclass(frozen=True)
class Images:
    """One split's decoded images."""

    ids: np.ndarray  # int64 or text [n], ascending
    pixels: np.ndarray  # uint8 memory map [n, channel, height, width], read-only
    blank: Mapping[
        str, Sequence[int] | Sequence[str]
    ]  # channel -> ids of the samples whose image is all zero
    digest: str  # of the channels' names, the ids and the pixels


def cache_key(sources: Sequence[Path], channels: Sequence[str], *, numeric: bool) -> str:
    """Return what changes when any of the sources' files does, without reading them.

    `numeric`: their ids are taken for whole numbers, else for text.
    """
    try:
        listed = [[str(path.resolve()), fingerprint(path)] for path in sources]
    except (OSError, UnreadableError):
        return secrets.token_hex(8)  # what can't be listed equals nothing
    return digest_text(json.dumps([list(channels), numeric, listed]))[:16]


def open_images(cache_dir: Path, key: str) -> dict[str, Images] | None:
    """Open what an earlier `decode_images` left under this key; None if it isn't there whole."""
    try:
        return _open_entry(cache_dir / read_json(cache_dir / f"{key}.json")["entry"])
    except _UNUSABLE:
        return None


def keep_images(
    folder: Path,
    cache_dir: Path,
    key: str,
    listings: Sequence[Listing],
    blank: Mapping[str, Mapping[str, list[Any]]],
) -> dict[str, Images]:
    """Describe the finished arrays in `folder` and make it the entry that its content names.

    The arrays are on the disk already; `write_json` flushes the folder's entries as well.
    """
    record = {}
    for listing in listings:
        path = folder / f"{listing.split}.npy"
        record[listing.split] = {
            "channels": list(listing.channels),
            "ids": listing.ids.tolist(),
            "blank": {name: sorted(ids) for name, ids in sorted(blank[listing.split].items())},
            "sha256": digest_file(path),
        }
    write_json(folder / "images.json", record)
    entry = cache_dir / _name(record)
    try:
        folder.rename(entry)
    except OSError:  # it exists: from another form of the input, or damaged
        try:
            _open_entry(entry)
        except _UNUSABLE:
            shutil.rmtree(entry)
            folder.rename(entry)
    sync_folder(cache_dir)
    write_json(cache_dir / f"{key}.json", {"entry": entry.name})
    return _open_entry(entry)


@contextmanager
def temporary_folder(cache_dir: Path) -> Iterator[Path]:
    """Make a folder in `cache_dir` that is gone after it; the caller is the one writer there."""
    folder = cache_dir / _TEMPORARY
    if folder.exists():  # left by a decoding that was killed
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_entry(folder: Path) -> dict[str, Images]:
    record = read_json(folder / "images.json")
    if _name(record) != folder.name:
        raise ValueError(f"{folder} holds something else than its name says")
    return {split: _open_split(folder / f"{split}.npy", record[split]) for split in SPLITS}


def _open_split(path: Path, record: Mapping[str, Any]) -> Images:
    if digest_file(path) != record["sha256"]:
        raise ValueError(f"{path} is damaged")
    pixels = np.load(path, mmap_mode="r")
    ids = to_array(record["ids"], numeric=isinstance(record["ids"][0], int))
    return Images(ids, pixels, record["blank"], _digest(record))


def _digest(record: Mapping[str, Any]) -> str:
    described = [record[key] for key in ("channels", "ids", "blank")]
    return digest_text(json.dumps(described), record["sha256"])


def _name(record: Mapping[str, Mapping[str, Any]]) -> str:
    return digest_text(*(_digest(record[split]) for split in SPLITS))[:16]
