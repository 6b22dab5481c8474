"""Pieces of archives and images that no program writes by itself."""

import struct
import zlib

END_OF_TAR = bytes(1024)
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def tar_header(
    name: bytes, size: int = 0, kind: bytes = b"0", size_field: bytes | None = None
) -> bytes:
    """Return a tar header with a right checksum; `size_field`, 12 bytes, instead of a size."""
    header = bytearray(512)
    header[: len(name)] = name
    header[100:108] = b"0000644\0"
    header[124:136] = b"%011o\0" % size if size_field is None else size_field
    header[148:156] = b" " * 8
    header[156:157] = kind
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def tar_entry(name: bytes, data: bytes, kind: bytes = b"0") -> bytes:
    """Return a header and its data, filled up to whole blocks."""
    return tar_header(name, len(data), kind) + data + bytes(-len(data) % 512)


def pax_entry(records: dict[bytes, bytes]) -> bytes:
    """Return a pax header of records such as `15 size=-1536`."""
    data = b""
    for key, value in records.items():
        length = bare = len(key) + len(value) + 3
        while length != bare + len(str(length)):
            length = bare + len(str(length))
        data += b"%d %s=%s\n" % (length, key, value)
    return tar_entry(b"pax", data, b"x")


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a PNG chunk with a right checksum."""
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def png_file(
    *chunks: bytes, width: int = 6, height: int = 8, bits: int = 8, colour: int = 0, passes: int = 0
) -> bytes:
    """Return a PNG file of these chunks between its header and its end."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, passes)
    return SIGNATURE + png_chunk(b"IHDR", header) + b"".join(chunks) + png_chunk(b"IEND", b"")
