"""One image: its limits, and its pixels in the form in which a set of images is stored."""

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial, reduce
from io import BytesIO
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageChops, ImageOps, UnidentifiedImageError

from cellline.config import Resize
from cellline.data.files import AGAIN
from cellline.data.problems import Fault
from cellline.host.files import DAMAGE

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")  # told by an image's first bytes
GRAY = ("gray",)
COLOUR = ("red", "green", "blue")

# Pillow's modes.
_GRAY_MODES = frozenset({"1", "L", "LA", "La"})
_DEEP_MODES = frozenset({"I;16", "I;16B", "I;16L", "I;16N", "I"})  # "I": 32 bits, checked
_COLOUR_MODES = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"})
_MODES = {"F": "floating-point values"}  # other names of Pillow's

DEEP = 1 << 16  # values of 16 bits
MAX_PIXELS = 64 << 20  # of an image, all pages together: 8192 x 8192, more than a camera has
MAX_PAGES = 64
MAX_BYTES = 3 * MAX_PIXELS + (1 << 20)  # of a file: in colour, if nothing compresses
BLOCK_PIXELS = 1 << 20  # numpy needs 8 bytes for each pixel of a block
# Side of an image that is stored as it is, in multiples of --image-size: the detail is there for
# training at a larger size, and a set of photographs still fits on a disk.
LARGEST = 2

_FILTER = Image.Resampling.BILINEAR  # antialiased: it averages over all pixels of a large image
_ON_ITS_SIDE = (5, 6, 7, 8)  # EXIF's orientations

Result = TypeVar("Result")
Size = tuple[int, int]  # width, height, as Pillow has it

UNREADABLE = Fault("image", "damaged, truncated or not PNG, JPEG, TIFF, BMP or WebP", AGAIN)
TOO_LARGE = Fault(
    "image",
    f"larger than {MAX_PIXELS >> 20} megapixels or {MAX_BYTES >> 20} MiB",
    "Save them at a smaller size.",
)
_UNUSUAL = "Convert them to gray with 8 or 16 bits, or to colour with 8 bits for each channel."
UNUSUAL_TIFF = Fault("image", "damaged, or a kind of TIFF that Pillow can't read", _UNUSUAL)
_DAMAGE = (*DAMAGE, TypeError)  # the latter for fields of TIFF that have another type
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK = struct.Struct(">I4s")  # of a PNG: length, kind; after the content come 4 bytes of checksum


class Scale(NamedTuple):
    """The 16-bit values of a channel that are stored as 0 and as 255."""

    low: int
    high: int


class Decoded(NamedTuple):
    """A decoded image."""

    size: Size
    """Width and height in its file, upright."""
    pixels: bytes
    """uint8 [channel, height, width] in the set's form."""


class _Content(NamedTuple):
    """Content of an image file, from its header."""

    size: Size
    """Upright."""
    pages: int
    colour: bool
    deep: bool
    """True for 16 bits."""
    turned: bool
    """True if it lies on its side or is mirrored until its EXIF orientation is applied."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of a file that holds all of its sample's."""
        if self.pages > 1:
            return tuple(f"page{number}" for number in range(1, self.pages + 1))
        return COLOUR if self.colour else GRAY


@dataclass(frozen=True)
class Form:
    """Form in which all images of a set are stored.

    It is that of the first image, until another training image needs another one; test images are
    brought to the form of the training images.
    """

    files: tuple[str, ...]
    """Channels by the files' names; ("",) if a sample is one file."""
    side: int | None = None
    """Side in pixels that images are resized to, if they must be; None: they must have one size."""
    resize: Resize = "squash"
    size: Size | None = None
    """Width and height as stored; None before the first image."""
    channels: tuple[str, ...] = ()
    """Stored channels."""
    deep: bool = False
    """Images of 16 bits were found."""
    scales: tuple[Scale | None, ...] = ()
    """Each channel's; None for 8 bits. Empty until the training images are surveyed."""
    final: bool = False
    """True once all training images fit."""

    @property
    def one_file(self) -> bool:
        """True if a sample is one file, which has all of its channels."""
        return self.files == ("",)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a sample as stored."""
        width, height = self.size or (0, 0)
        return len(self.channels), height, width

    def fit(self, found: _Content, channel: int) -> "Form | Fault":
        """Return the form that holds this image as well: the same one, if it does."""
        square = self.side and (self.side, self.side)
        size = self.size or found.size
        if square and size != square and not self.final:
            cut = self.resize != "squash" and size[0] != size[1]
            if cut or found.size != size or max(size) > LARGEST * square[0]:
                size = square
        elif not square and found.size != size:
            what = "not {} x {} pixels like the first".format(*size)
            return Fault("image", what, "Set --image-size: images of several sizes are resized.")
        channels = self.channels or self.files
        if self.one_file:
            channels = self.channels or found.channels
            if {channels, found.channels} == {GRAY, COLOUR}:
                channels = self.channels if self.final else COLOUR
            elif channels != found.channels:
                what = "with a different number of pages or channels than the first"
                return Fault("image", f"{what} ({len(channels)})")
        scale = self.scales[channel] if self.scales else None
        if (self.scales or self.final) and found.deep != bool(scale):
            bits = ("8", "16") if scale else ("16", "8")
            return Fault(
                "image",
                "with {} bits where training images have {}".format(*bits),
                "All images of a channel must have the same number of bits.",
            )
        new = size, channels, self.deep or found.deep
        if new == (self.size, self.channels, self.deep):
            return self
        return replace(self, size=size, channels=channels, deep=new[2])


def decode_image(data: bytes, form: Form, channel: int = 0) -> Decoded | Form | Fault:
    """Decode an image to the set's form, or return the form that would hold it as well.

    `channel` is the index of the file's channel. Alpha is composited on black. A colour of 16 bits
    keeps its upper 8: Pillow reads no more.
    """
    return _read(data, partial(_decode, form, channel))


def count_values(data: bytes) -> list[np.ndarray] | Fault:
    """Return how often each value occurs, int64 [65536] for each page of 16 bits."""
    return _read(data, _count)


def find_scale(counts: np.ndarray) -> Scale:
    """Return a channel's scale, given the counts of its values, int64 [65536].

    It reaches from the smallest value to the 99.99th percentile: hot pixels don't darken images.
    """
    total = np.cumsum(counts)
    low = np.searchsorted(total, 1)
    high = np.searchsorted(total, np.ceil(0.9999 * total[-1]))
    return Scale(int(low), int(max(high, low + 1)))


def _read(data: bytes, work: Callable[[Image.Image, _Content], Result]) -> Result | Fault:
    """Open an image, check its header, and return the result of the work, or the fault."""
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            found = _inspect(image)
            if isinstance(found, Fault):
                return found
            if image.format == "PNG" and not _is_whole(data):
                return UNREADABLE
            return work(image, found)
    except Image.DecompressionBombError:
        return TOO_LARGE
    except UnidentifiedImageError:
        return UNUSUAL_TIFF if data.startswith(_TIFF) else UNREADABLE
    except _DAMAGE:
        return UNREADABLE


def _inspect(image: Image.Image) -> _Content | Fault:
    mode, size, kind = image.mode, image.size, image.format
    pages = getattr(image, "n_frames", 1) if kind == "TIFF" else 1
    if pages > MAX_PAGES or size[0] * size[1] * pages > MAX_PIXELS:
        return TOO_LARGE
    colour, deep = mode in _COLOUR_MODES, mode in _DEEP_MODES
    if not (colour or deep or mode in _GRAY_MODES):
        return _unusual(_MODES.get(mode, mode))
    if (pages > 1 or mode == "I") and (fault := _find_odd_page(image, pages)):
        return fault
    # Pillow turns a TIFF by itself. An image without either isn't turned: to look takes time.
    if kind == "TIFF" or ("exif" not in image.info and "xmp" not in image.info):
        return _Content(size, pages, colour, deep, turned=False)
    orientation = 1
    with suppress(*_DAMAGE):  # broken EXIF is no fault of the pixels
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation in _ON_ITS_SIDE:
        size = size[1], size[0]
    return _Content(size, pages, colour, deep, turned=orientation in range(2, 9))


def _find_odd_page(image: Image.Image, pages: int) -> Fault | None:
    first = image.mode, image.size
    for page in range(pages):
        image.seek(page)
        if (image.mode, image.size) != first or (pages > 1 and image.mode in _COLOUR_MODES):
            return _unusual("pages in colour, or of several sizes or kinds")
        if image.mode == "I" and not 0 <= np.asarray(image).min() <= np.asarray(image).max() < DEEP:
            return _unusual("values of more than 16 bits")
    image.seek(0)
    return None


def _unusual(what: str) -> Fault:
    return Fault("image", f"with {what}", _UNUSUAL)


def _pages(image: Image.Image, found: _Content) -> Iterator[Image.Image]:
    """Yield each page upright, always as the same object."""
    for page in range(found.pages):
        if page:
            image.seek(page)
        if found.turned:
            ImageOps.exif_transpose(image, in_place=True)
        yield image


def _decode(
    form: Form, channel: int, image: Image.Image, found: _Content
) -> Decoded | Form | Fault:
    fitting = form.fit(found, channel)
    if fitting is not form:
        return fitting
    assert form.size is not None
    gray = image.mode == "L" and found.pages == 1 and not found.turned
    if gray and found.size == form.size and (not form.one_file or form.channels == GRAY):
        return Decoded(found.size, image.tobytes())  # the challenge's images, 5 % faster
    if found.size != form.size:  # a JPEG is decoded to 1/2, 1/4 or 1/8, which takes less time
        image.draft(None, _fit_inside(image.size, form.size) if form.resize == "pad" else form.size)
    planes: list[Image.Image] = []
    for number, page in enumerate(_pages(image, found)):
        scale = form.scales[number if form.one_file else channel] if found.deep else None
        flat = _flatten(page, scale)
        if flat.size != form.size:
            flat = _resize(flat, form.size, form.resize)
        if found.colour and form.channels == GRAY:
            flat = Image.merge("RGB", flat.split()[:3]).convert("L")
        # split() copies: only a page needs it, whose image shows the next one later.
        alone = flat.mode == "L" and found.pages == 1
        planes += [flat] if alone else flat.split()[: 3 if flat.mode.startswith("RGB") else 1]
    if not form.one_file:
        planes = [reduce(ImageChops.lighter, planes)]
    elif len(planes) < len(form.channels):
        planes *= len(form.channels)
    return Decoded(found.size, b"".join(plane.tobytes() for plane in planes))


def _flatten(image: Image.Image, scale: Scale | None) -> Image.Image:
    """Return an image of 8 bits, gray or colour, multiplied by its alpha if it has one."""
    if scale is not None:
        values = np.arange(DEEP)
        table = np.rint((values - scale.low).clip(0) * (255 / (scale.high - scale.low)))
        table = table.clip(0, 255).astype(np.uint8)
        return Image.fromarray(np.concatenate([table[block] for block in _blocks(image)]))
    if image.mode in ("L", "La", "RGB", "RGBa"):
        return image
    if image.mode in _GRAY_MODES:
        return image.convert("La" if image.mode == "LA" else "L")
    if image.mode in ("RGBA", "PA", "P") and image.has_transparency_data:
        return image.convert("RGBA").convert("RGBa")
    return image.convert("RGB")


def _resize(image: Image.Image, size: Size, resize: Resize) -> Image.Image:
    width, height = image.size
    if resize == "squash":
        return image.resize(size, _FILTER)
    if resize == "crop":
        factor = min(width / size[0], height / size[1])
        inside = round(size[0] * factor), round(size[1] * factor)
        left, top = (width - inside[0]) // 2, (height - inside[1]) // 2
        return image.resize(size, _FILTER, (left, top, left + inside[0], top + inside[1]))
    inner = image.resize(_fit_inside(image.size, size), _FILTER)
    padded = Image.new(image.mode, size)
    padded.paste(inner, ((size[0] - inner.width) // 2, (size[1] - inner.height) // 2))
    return padded


def _fit_inside(size: Size, frame: Size) -> Size:
    """Return the size that keeps an image's shape and fits into a frame."""
    factor = min(frame[0] / size[0], frame[1] / size[1])
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _count(image: Image.Image, found: _Content) -> list[np.ndarray]:
    counts = np.zeros((found.pages if found.deep else 0, DEEP), np.int64)
    for into, page in zip(counts, _pages(image, found), strict=False):
        for block in _blocks(page):
            into += np.bincount(block.ravel(), minlength=DEEP)
    return list(counts)


def _blocks(image: Image.Image) -> list[np.ndarray]:
    """Return the 16-bit values in blocks of rows."""
    values = np.asarray(image)
    return np.array_split(values, -(-values.size // BLOCK_PIXELS))


def _is_whole(data: bytes) -> bool:
    """Check the checksums of all chunks of a PNG, up to its end.

    Pillow ignores most of them: it decodes one flipped bit in 200 to wrong pixels without an error.
    Its verify() takes 25 us to our 5; decoding takes 120 us in all.
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
