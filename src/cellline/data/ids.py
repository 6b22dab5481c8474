"""Sample ids: whole numbers, which match by value, or text.

Text matches letter by letter, with case and leading zeros. Unicode's composition of letters makes
no difference: macOS decomposes the letters in file names.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from cellline.host.names import has_control

# Characters. An array of text has as much room for each id as for the longest; a SHA-256 has 64.
LONGEST_ID = 128

IMAGE_SUFFIXES = ("png", "jpg", "jpeg", "tif", "tiff", "bmp", "webp")
_SUFFIX = re.compile(rf"\.({'|'.join(IMAGE_SUFFIXES)})$", re.IGNORECASE)
# Folders of images that show where something is in other images.
_OF_MASKS = re.compile(r"(^|/)[^/]*(masks?|annotations?)/", re.IGNORECASE)

_DIGITS = re.compile(r"0*[0-9]{1,18}", re.ASCII)  # 18 digits always fit in an int64

Id = int | str


def parse_number(text: str) -> int | None:
    """Return the value of a non-negative integer, zero-padded or not; None for any other text."""
    # Only the last digits: int() refuses thousands of them, even zeros.
    return int(text[-18:]) if _DIGITS.fullmatch(text) else None


def parse_text(text: str) -> str | None:
    """Return a text as it is compared with others; None if no path of a file can contain it.

    No part of it, between slashes, can begin with a dot: archivers leave such files behind.
    """
    name = unicodedata.normalize("NFC", text).replace("\\", "/")
    if not 0 < len(name) <= LONGEST_ID or has_control(name):
        return None
    parts = name.split("/")
    fine = all(part == part.strip() and part[:1] not in ("", ".") for part in parts)
    return name if fine else None


def is_image(name: str) -> bool:
    """Tell by its path if a file is an image of a sample, not in a folder of masks."""
    return _SUFFIX.search(name) is not None and not _OF_MASKS.search(name)


def drop_suffix(name: str) -> str:
    """Return a name without an image's suffix."""
    return _SUFFIX.sub("", name)


def parse_id(text: str, *, numeric: bool) -> Id | None:
    """Return an id as it is compared with others: without an image's suffix.

    None if the text is not an id.
    """
    text = drop_suffix(text)
    return parse_number(text) if numeric else parse_text(text)


def to_array(ids: Sequence[Id], *, numeric: bool) -> np.ndarray:
    """Return ids as int64 [n], or as text [n] of one width."""
    return np.array(ids, dtype=np.int64 if numeric else np.str_)


def are_numbers(ids: np.ndarray) -> bool:
    """Tell which of the two kinds of `to_array` ids [n] are."""
    return ids.dtype.kind == "i"


def cut_path(text: str, depth: int) -> str:
    """Return the last `depth` parts of an id that may be a path, of any system."""
    return "/".join(text.replace("\\", "/").split("/")[-depth:])


def find_depth(written: Collection[str]) -> int:
    """Return the fewest parts, from the end, that tell ids apart which may be paths.

    Tables name images by paths that begin anywhere, such as /kaggle/input.
    """
    whole = {text.replace("\\", "/") for text in written}
    depths = range(1, 2 + max((text.count("/") for text in whole), default=0))
    return next(n for n in depths if len({cut_path(text, n) for text in whole}) == len(whole))


def find_rows(written: Iterable[str], ids: np.ndarray) -> np.ndarray:
    """Return the rows, int64 [m], of written ids among ids [n], which ascend and have them all."""
    numeric = are_numbers(ids)
    depth = 1 if numeric else 1 + max((str(one).count("/") for one in ids.tolist()), default=0)
    parsed = (parse_id(cut_path(text, depth), numeric=numeric) for text in written)
    named = [known for known in parsed if known is not None]
    rows: np.ndarray = np.searchsorted(ids, to_array(named, numeric=numeric))
    return rows


def number_samples(ids: np.ndarray) -> np.ndarray:
    """Return numbers, int64 [n], each a function of one of ids [n] alone.

    A number stands for itself; text is digested.
    """
    if are_numbers(ids):
        return ids
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids.tolist())
    return np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], np.int64)
