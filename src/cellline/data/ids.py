"""What samples are called: by whole numbers, which match by value, or by text.

Text matches letter by letter, case and leading zeros and all. Only how Unicode composes a letter
makes no difference: macOS takes the letters in the names of files apart.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from cellline.host.names import has_control

# Characters. Arrays of text have as much room for each id as for the longest; a SHA-256 has 64.
LONGEST_ID = 128

_DIGITS = re.compile(r"0*[0-9]{1,18}", re.ASCII)  # what an int64 surely holds

Id = int | str


def parse_number(text: str) -> int | None:
    """Return the value of a non-negative integer, zero-padded or not; None if it isn't one."""
    # Only the digits that count: int() refuses thousands of them, be they zeros.
    return int(text[-18:]) if _DIGITS.fullmatch(text) else None


def parse_text(text: str) -> str | None:
    """Return a text as it is compared with others; None for what can't be in a file's name.

    Nor can a dot begin it: such files are an archiver's, not the competition's.
    """
    name = unicodedata.normalize("NFC", text)
    if not 0 < len(name) <= LONGEST_ID or name != name.strip() or name[0] == ".":
        return None
    return None if "/" in name or has_control(name) else name


def parse_id(text: str, *, numeric: bool) -> Id | None:
    """Return an id as it is compared with others; None for what isn't one."""
    return parse_number(text) if numeric else parse_text(text)


def to_array(ids: Sequence[Id], *, numeric: bool) -> np.ndarray:
    """Return ids as int64 [n], or as text [n] of one width."""
    return np.array(ids, dtype=np.int64 if numeric else np.str_)


def are_numbers(ids: np.ndarray) -> bool:
    """Tell which of the two kinds of `to_array` ids [n] are."""
    return ids.dtype.kind == "i"


def find_rows(written: Iterable[str], ids: np.ndarray) -> np.ndarray:
    """Return the rows int64 [m] among ids [n], ascending, of texts that name some of them."""
    numeric = are_numbers(ids)
    named = [known for text in written if (known := parse_id(text, numeric=numeric)) is not None]
    rows: np.ndarray = np.searchsorted(ids, to_array(named, numeric=numeric))
    return rows


def number_samples(ids: np.ndarray) -> np.ndarray:
    """Return a number for each of ids [n], int64 [n], that depends on nothing else.

    A whole number is its own; a text's is taken from a digest.
    """
    if are_numbers(ids):
        return ids
    digests = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in ids.tolist())
    return np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], np.int64)
