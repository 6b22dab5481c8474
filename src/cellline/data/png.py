"""Decoding a PNG image of which nothing is believed that was not checked.

Pillow decodes the pixels, from a file that holds nothing else: it fills a picture that breaks off
with black, takes no notice of most checksums, and reads texts, profiles and animations as well.
The format's specification: https://www.w3.org/TR/png-3/
"""

import io
import struct
import zlib

from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# To the byte that says whether the picture is interlaced: length and kind of the header's chunk,
# width, height, bits, colour, compression and filters.
_HEADER = struct.Struct(">8sI4sII4B")
_CHUNK = struct.Struct(">I4s")  # length, kind; after the content come 4 bytes of checksum

# The passes in which pixels are stored: first row, first column, and the steps from there.
_WHOLE = ((0, 0, 1, 1),)
_ADAM7 = (
    (0, 0, 8, 8),
    (0, 4, 8, 8),
    (4, 0, 8, 4),
    (0, 2, 4, 4),
    (2, 0, 4, 2),
    (0, 1, 2, 2),
    (1, 0, 2, 1),
)


def decode_png(data: bytes, size: tuple[int, int]) -> bytes | None:
    """Return the pixels of an 8-bit grayscale PNG of this size (height, width), row by row.

    None if it is anything else, or damaged, be it in a checksum only. Of an animation it is the
    still picture, which a viewer shows that knows none.
    """
    height, width = size
    header = _HEADER.pack(SIGNATURE, 13, b"IHDR", width, height, 8, 0, 0, 0)
    interlaced = data[len(header) : len(header) + 1]
    if not data.startswith(header) or interlaced not in (b"\0", b"\1"):
        return None
    packed = _read_packed(data)
    inflated = _count_bytes(size, _ADAM7 if interlaced == b"\1" else _WHOLE)
    if packed is None or not _inflates_to(packed, inflated):
        return None
    picture = data[: len(header) + 5] + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    try:
        with Image.open(io.BytesIO(picture), formats=["PNG"]) as image:
            return image.tobytes()
    except OSError:  # a row is filtered in a way that there isn't
        return None


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


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content).to_bytes(4, "big")
    return _CHUNK.pack(len(content), kind) + content + checksum


def _inflates_to(packed: bytes, count: int) -> bool:
    """Tell whether the pixels are this many bytes, and undamaged."""
    inflate = zlib.decompressobj()
    try:
        # The one byte more tells a picture that is too long, and lets the checksum be read.
        return len(inflate.decompress(packed, count + 1)) == count and inflate.eof
    except zlib.error:
        return False


def _count_bytes(size: tuple[int, int], passes: tuple[tuple[int, int, int, int], ...]) -> int:
    """Return how many bytes the pixels are, of which each row is preceded by its filter's."""
    height, width = size
    count = 0
    for top, left, down, right in passes:
        rows, columns = len(range(top, height, down)), len(range(left, width, right))
        count += rows * (columns + 1) if columns else 0
    return count
