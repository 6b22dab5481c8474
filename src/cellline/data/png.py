"""Decoding PNG images of which nothing is believed that was not checked.

The pixels are unpacked here, once, and Pillow's decoder undoes the filters of the rows. Not by
opening the file as an image, which fills a picture that breaks off with black, takes no notice of
most checksums, reads texts, profiles and animations as well, and takes twice the time.
The format's specification: https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Sequence

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# To the byte that says whether the picture is interlaced: length and kind of the header's chunk,
# width, height, bits, colour, compression and filters.
_HEADER = struct.Struct(">8sI4sII4B")
_CHUNK = struct.Struct(">I4s")  # length, kind; after the content come 4 bytes of checksum

_LAST_FILTER = 4

# The passes in which an interlaced picture is stored: first row, first column, steps from there.
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def decode_pngs(files: Sequence[bytes], size: tuple[int, int]) -> list[bytes | None]:
    """Return the pixels of each 8-bit grayscale PNG of this size (height, width), row by row.

    None for what is anything else, or damaged, be it in a checksum only. Of an animation it is the
    still picture, which a viewer shows that knows none. Many images at once take half the time of
    as many calls.
    """
    height, width = size
    header = _HEADER.pack(SIGNATURE, 13, b"IHDR", width, height, 8, 0, 0, 0)
    decoded: list[bytes | None] = [None] * len(files)
    whole: dict[int, bytes] = {}  # index -> rows of what is not interlaced
    for index, data in enumerate(files):
        interlaced = data[len(header) : len(header) + 1]
        if data.startswith(header) and (packed := _read_packed(data)) is not None:
            if interlaced == b"\0":
                rows = _inflate(packed, height * (width + 1))
                if rows is not None and max(rows[:: width + 1]) <= _LAST_FILTER:
                    whole[index] = rows
            elif interlaced == b"\1":
                rows = _inflate(packed, _count_interlaced(size))
                decoded[index] = None if rows is None else _decode_interlaced(rows, size)
    for index, pixels in zip(whole, _decode_whole(list(whole.values()), size), strict=True):
        decoded[index] = pixels
    return decoded


def _read_packed(data: bytes) -> bytes | None:
    """Return the packed pixels; None if the file is damaged."""
    whole = memoryview(data)  # slices of it copy nothing
    packed = []
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        if at + _CHUNK.size > len(data):
            return None
        length, kind = _CHUNK.unpack_from(data, at)
        content, end = at + _CHUNK.size, at + _CHUNK.size + length
        if zlib.crc32(whole[at + 4 : end]).to_bytes(4, "big") != whole[end : end + 4]:
            return None
        if kind == b"IHDR" and at > len(SIGNATURE):
            return None  # a second one
        if kind == b"IDAT":
            packed.append(whole[content:end])
        at = end + 4
    return b"".join(packed)


def _inflate(packed: bytes, count: int) -> bytes | None:
    """Return the rows, each after its filter; None if they are not so many bytes, or damaged."""
    inflate = zlib.decompressobj()
    try:
        # The one byte more tells a picture that is too long, and lets the checksum be read.
        rows = inflate.decompress(packed, count + 1)
    except zlib.error:
        return None
    return rows if len(rows) == count and inflate.eof else None


def _decode_whole(pictures: list[bytes], size: tuple[int, int]) -> list[bytes]:
    """Undo the filters of the rows of pictures, as if they were one above the other.

    Between them is a black row, unfiltered, as the format has it above the first row.
    """
    if not pictures:
        return []
    height, width = size
    rows = bytes(width + 1).join(pictures)
    pixels = _unfilter(rows, (len(pictures) * (height + 1) - 1, width), interlaced=False)
    step = (height + 1) * width
    return [pixels[at : at + height * width] for at in range(0, len(pixels), step)]


def _decode_interlaced(rows: bytes, size: tuple[int, int]) -> bytes | None:
    try:
        return _unfilter(rows, size, interlaced=True)
    except ValueError:  # a row is filtered in a way that there isn't
        return None


def _unfilter(rows: bytes, size: tuple[int, int], interlaced: bool) -> bytes:
    height, width = size
    stored = zlib.compress(rows, 0)  # Pillow's decoder takes nothing else; this costs a copy
    image = Image.frombytes("L", (width, height), stored, "zip", "L", interlaced)
    return image.tobytes()


def _count_interlaced(size: tuple[int, int]) -> int:
    """Return how many bytes an interlaced picture is, of which each row has one for its filter."""
    height, width = size
    count = 0
    for top, left, down, right in _ADAM7:
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        count += rows * (columns + 1) if columns else 0
    return count
