"""One image: its limits, and its pixels as Pillow reads them."""

import struct
import zlib
from io import BytesIO

from PIL import Image

from cellline.data.problems import IMAGE_IS, Fault

FORMATS = ("PNG",)
MODE = "L"  # Pillow's name of 8-bit grayscale
_MODES = {"1": "1-bit", "I;16": "16-bit", "P": "of palette colors"}  # other names of Pillow's

MAX_SIDE = 4096  # pixels; the challenge's crops have 64, a whole microscope frame about 2048
MAX_BYTES = 32 << 20  # of a file: MAX_SIDE squared is 16 MiB of pixels, if nothing compresses

Size = tuple[int, int]  # width, height, as Pillow has it

# What Pillow's reader of PNG raises on damage.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    OverflowError,
    LookupError,
    struct.error,
    zlib.error,
)

AGAIN = "Download or copy what is damaged again."
UNREADABLE = Fault(IMAGE_IS, "damaged, truncated or not PNG", AGAIN)
TOO_LARGE = Fault(IMAGE_IS, f"larger than {MAX_SIDE} x {MAX_SIDE} pixels or {MAX_BYTES >> 20} MiB")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # of a PNG: length, kind; after the content come 4 bytes of checksum


def decode_image(data: bytes, size: Size | None) -> bytes | Size | Fault:
    """Return an image's pixels, row by row; its size if it is not `size`; or what is wrong."""
    try:
        # The header is all that is read before load().
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            if max(image.size) > MAX_SIDE:
                return TOO_LARGE
            if image.mode != MODE:
                found = _MODES.get(image.mode, image.mode)
                return Fault(IMAGE_IS, f"not 8-bit grayscale but {found}")
            if image.size != size:
                return image.size
            return image.tobytes() if _is_whole(data) else UNREADABLE
    except Image.DecompressionBombError:
        return TOO_LARGE
    except _DAMAGE:
        return UNREADABLE


def _is_whole(data: bytes) -> bool:
    """Tell whether the checksums of all chunks of a PNG are right, up to its end.

    Pillow ignores most of them when it decodes, and takes one flipped bit in 200 for other pixels.
    Its verify() reads an image a second time, which takes 25 us instead of 5 of the 120 in all.
    """
    view = memoryview(data)
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        length, kind = _CHUNK.unpack_from(data, at)
        end = at + _CHUNK.size + length
        if zlib.crc32(view[at + 4 : end]).to_bytes(4, "big") != view[end : end + 4]:
            return False
        at = end + 4
    return True


def show_size(size: Size | None) -> str:
    """Return e.g. `64 x 48`, width first."""
    return "{} x {}".format(*size or (0, 0))


def read_size(data: bytes) -> Size | None:
    """Return an image's size from its header; None if the header shows a fault."""
    found = decode_image(data, None)
    return None if isinstance(found, Fault | bytes) else found
