"""Decoded images on disk: found again by what they were decoded from, named by what they hold.

`<cache_dir>/<digest>/` holds `train.npy`, `test.npy` (uint8 [sample, channel, height, width], C
order, samples by ascending id) and `images.json`, which describes them. The digest is of the
pixels, so a folder, a tar and a zip of the same images share one entry. `<cache_dir>/<key>.json`
leads to it from the files as the file system lists them: a later start reads no image.

An entry is digested whenever it is opened: 118 MB, the challenge's, in 0.15 s. Entries are never
deleted, since another input or order of channels may lead to them; a user may delete all of them.
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

from cellline.data.files import UnreadableError, fingerprint
from cellline.data.ids import Id, to_array
from cellline.data.images import ImageNames, Source, SplitReader
from cellline.data.problems import Problems
from cellline.errors import UserError
from cellline.host.files import digest_file, digest_text, read_json, sync_folder, write_json
from cellline.host.locking import one_writer
from cellline.host.names import printable

SPLITS = ("train", "test")

# For another process that decodes, perhaps the same images: the challenge's take some seconds.
WAIT_SECONDS = 60

_TEMPORARY = ".decoding"

# What reading an entry that is absent, damaged or not ours raises.
_UNUSABLE = (OSError, ValueError, KeyError, TypeError, UserError)


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
    """Of the channels' names, the ids and the pixels."""


def cache_key(sources: Sequence[Source], names: ImageNames) -> str:
    """Return what changes when any of the sources' files does, without reading them."""
    try:
        listed = [[str(source.path.resolve()), fingerprint(source.path)] for source in sources]
    except (OSError, UnreadableError):
        return secrets.token_hex(8)  # what can't be listed equals nothing
    return digest_text(json.dumps([list(names.channels), names.numeric, listed]))[:16]


def open_images(cache_dir: Path, key: str) -> dict[str, DecodedSplit] | None:
    """Open what an earlier `decode_images` left under this key; None if it isn't there whole."""
    try:
        return _open_entry(cache_dir / read_json(cache_dir / f"{key}.json")["entry"])
    except _UNUSABLE:
        return None


def decode_images(
    cache_dir: Path, key: str, sources: Sequence[Source], names: ImageNames, problems: Problems
) -> dict[str, DecodedSplit]:
    """Decode the images of all sources into the cache, and open them.

    Raises UserError for `problems`, those known before and those of the images, if `cache_dir`
    can't be written or has no room, or if another process keeps decoding into it.
    """
    if problems:  # look for more of them, and write nothing
        _read(None, sources, names, problems)
        problems.check()
    try:
        with one_writer(cache_dir, "decoding images", wait=WAIT_SECONDS):
            images = open_images(cache_dir, key)  # by the process that was waited for
            if images is None:
                with _temporary_folder(cache_dir) as folder:
                    record = _read(folder, sources, names, problems)
                    # Or else the arrays may mix old and new images.
                    if not problems and cache_key(sources, names) != key:
                        changed = " or ".join(source.path.name for source in sources)
                        advice = "Start again when no program writes there."
                        problems.note(changed, "changed while it was read", advice)
                    problems.check()
                    images = _keep(folder, cache_dir, key, record)
            return images
    except OSError as error:
        raise UserError(
            f"The decoded images can't be kept in {printable(str(cache_dir))}: "
            f"{error.strerror or error}.\n"
            "Make room there (what it holds can be deleted), or choose another folder by "
            "--cache-dir."
        ) from error


def _read(
    folder: Path | None, sources: Sequence[Source], names: ImageNames, problems: Problems
) -> dict[str, Any]:
    """Decode all images, into arrays in `folder` if there is one; return a record of them."""
    record = {}
    size = None
    for source in sources:
        array = folder / f"{source.split}.npy" if folder else None
        reader = SplitReader(source, names, array, size)
        reader.read(problems)
        size = reader.size
        if array is not None and not problems:
            record[source.split] = {
                "channels": list(names.channels),
                "ids": reader.ids.tolist(),
                "blank": {channel: sorted(ids) for channel, ids in sorted(reader.blank.items())},
                "sha256": digest_file(array),
            }
    return record


def _keep(
    folder: Path, cache_dir: Path, key: str, record: dict[str, Any]
) -> dict[str, DecodedSplit]:
    """Describe the finished arrays in `folder` and make it the entry that its content names.

    The arrays are on the disk already; `write_json` flushes the folder's entries as well.
    """
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
    return _open_arrays(entry, record)


@contextmanager
def _temporary_folder(cache_dir: Path) -> Iterator[Path]:
    """Make a folder in `cache_dir`, whose one writer the caller is; remove it at the end."""
    folder = cache_dir / _TEMPORARY
    if folder.exists():  # left by a decoding that was killed
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _open_entry(folder: Path) -> dict[str, DecodedSplit]:
    record = read_json(folder / "images.json")
    if _name(record) != folder.name:
        raise ValueError(f"{folder} does not hold what its name says")
    for split in SPLITS:
        if digest_file(folder / f"{split}.npy") != record[split]["sha256"]:
            raise ValueError(f"{folder} is damaged")
    return _open_arrays(folder, record)


def _open_arrays(folder: Path, record: Mapping[str, Any]) -> dict[str, DecodedSplit]:
    opened = {}
    for split in SPLITS:
        part = record[split]
        ids = to_array(part["ids"], numeric=isinstance(part["ids"][0], int))
        pixels = np.load(folder / f"{split}.npy", mmap_mode="r")
        opened[split] = DecodedSplit(ids, pixels, part["blank"], _digest(part))
    return opened


def _digest(record: Mapping[str, Any]) -> str:
    described = [record[key] for key in ("channels", "ids", "blank")]
    return digest_text(json.dumps(described), record["sha256"])


def _name(record: Mapping[str, Mapping[str, Any]]) -> str:
    return digest_text(*(_digest(record[split]) for split in SPLITS))[:16]
