"""Image files of every format and kind, against pixels made by numpy."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cellline.config import Resize
from cellline.data.decoding import (
    COLOUR,
    GRAY,
    Decoded,
    Form,
    Scale,
    decode_image,
)
from cellline.data.problems import Fault

RNG = np.random.default_rng(0)
PLANE, ALPHA = RNG.integers(0, 256, (2, 5, 7), np.uint8)
PIXELS = RNG.integers(0, 256, (5, 7, 3), np.uint8)
DEEP = RNG.integers(0, 1 << 16, (5, 7), np.uint16)
# Squares of 8 pixels in one colour, as JPEG packs them.
COARSE = np.kron(PIXELS, np.ones((8, 8, 1), np.uint8))
WHOLE = Scale(0, (1 << 16) - 1)


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, file_format, **options)
    return data.getvalue()


def pack(pixels: np.ndarray, mode: str, file_format: str, **options: Any) -> bytes:
    """Encode pixels as an image of a mode that Pillow can convert them to."""
    return encode(Image.fromarray(pixels).convert(mode), file_format, **options)


def decode(data: bytes, form: Form, channel: int = 0) -> Decoded | Fault:
    """Decode an image to the form that it needs."""
    for _ in range(3):
        found = decode_image(data, form, channel)
        if not isinstance(found, Form):
            return found
        form = found
    raise AssertionError(f"no form fits, not even {form}")


def read(data: bytes, channels: tuple[str, ...] = GRAY, **known: Any) -> np.ndarray:
    """Decode an image that is all of its sample, and has these channels: [channel, h, w]."""
    form = decode_image(data, Form(("",), scales=known.pop("scales", ()), **known))
    assert isinstance(form, Form)
    assert form.channels == channels
    decoded = decode(data, form)
    assert isinstance(decoded, Decoded), decoded
    return np.frombuffer(decoded.pixels, np.uint8).reshape(form.shape)


def planes(pixels: np.ndarray) -> np.ndarray:
    """[h, w, 3] as [3, h, w]; [h, w] as [1, h, w]."""
    return np.moveaxis(np.atleast_3d(pixels), 2, 0)


def on_black(pixels: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(planes(pixels) * (alpha / 255)).astype(np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_modes_that_most_formats_have(file_format: str, mode: str) -> None:
    if mode in ("1", "L"):
        gray = np.where(PLANE > 127, 255, 0).astype(np.uint8) if mode == "1" else PLANE
        data = pack(gray, mode, file_format)
        np.testing.assert_array_equal(read(data), planes(gray))
    else:
        few = PIXELS // 128 * 200 if mode == "P" else PIXELS
        image = Image.fromarray(few)
        data = encode(image.quantize(8) if mode == "P" else image, file_format)
        np.testing.assert_array_equal(read(data, COLOUR), planes(few))


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_composited_on_black(file_format: str) -> None:
    options = {"lossless": True, "exact": True} if file_format == "WEBP" else {}
    image = Image.fromarray(np.dstack([PIXELS, ALPHA]))
    found = read(encode(image, file_format, **options), COLOUR)
    np.testing.assert_array_equal(found, on_black(PIXELS, ALPHA))
    if file_format != "WEBP":
        image = Image.merge("LA", [Image.fromarray(PLANE), Image.fromarray(ALPHA)])
        np.testing.assert_array_equal(read(encode(image, file_format)), on_black(PLANE, ALPHA))


def test_transparent_colours_of_a_palette() -> None:
    few = PIXELS // 128 * 200
    image = Image.fromarray(few).quantize(8)
    alpha = np.arange(8, dtype=np.uint8) * 30
    for given in (alpha, np.where(np.arange(8) == 3, 0, 255)):
        told = 3 if given[0] else given.tobytes()
        data = encode(image, "PNG", transparency=told)
        expected = on_black(few, given[np.asarray(image)])
        np.testing.assert_array_equal(read(data, COLOUR), expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_packed_tiffs(compression: str) -> None:
    data = pack(PIXELS, "RGB", "TIFF", compression=compression)
    np.testing.assert_array_equal(read(data, COLOUR), planes(PIXELS))


def test_lossy_formats() -> None:
    gray = COARSE[..., 0]
    for found, expected in (
        (read(pack(gray, "L", "JPEG", quality=98)), gray),
        (read(pack(COARSE, "RGB", "JPEG", quality=98, subsampling=0), COLOUR), COARSE),
        (read(pack(COARSE, "RGB", "WEBP", lossless=True), COLOUR), COARSE),
    ):
        np.testing.assert_allclose(found.astype(int), planes(expected), atol=2)


@pytest.mark.parametrize("file_format", ["TIFF", "JPEG"])
def test_colours_of_printers_and_cameras(file_format: str) -> None:
    bare = COARSE.copy()
    bare[..., 0] = 255 - bare[..., 0]  # without black, ink is what light isn't
    ink = np.dstack([255 - COARSE, np.zeros_like(COARSE[..., 0])])
    data = encode(Image.fromarray(ink, "CMYK"), file_format)
    np.testing.assert_allclose(read(data, COLOUR).astype(int), planes(COARSE), atol=8)
    camera = pack(COARSE, "YCbCr", file_format)
    gray = planes(COARSE).mean((1, 2))
    np.testing.assert_allclose(read(camera, COLOUR).mean((1, 2)), gray, atol=3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_images_are_upright(file_format: str, orientation: int) -> None:
    gray = np.kron(PLANE, np.ones((8, 8), np.uint8))
    turned: dict[int, Any] = {
        1: lambda upright: upright,
        2: np.fliplr,
        3: lambda upright: np.rot90(upright, 2),
        4: np.flipud,
        5: np.transpose,
        6: np.rot90,  # held on its right side: to be turned clockwise
        7: lambda upright: np.rot90(upright.T, 2),
        8: lambda upright: np.rot90(upright, -1),
    }
    stored = np.ascontiguousarray(turned[orientation](gray))
    exif = Image.Exif()
    exif[0x0112] = orientation
    more = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}}.get(file_format, {})
    data = encode(Image.fromarray(stored), file_format, exif=exif, **more)
    found = read(data, COLOUR if file_format == "WEBP" else GRAY)
    np.testing.assert_allclose(found[0].astype(int), gray, atol=2)


def test_broken_exif_is_ignored() -> None:
    data = encode(Image.fromarray(PLANE), "PNG", exif=b"Exif\0\0nonsense")
    np.testing.assert_array_equal(read(data), planes(PLANE))


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(DEEP), "PNG"),
        encode(Image.fromarray(DEEP), "TIFF"),
        encode(Image.frombytes("I;16B", (7, 5), DEEP.astype(">u2").tobytes()), "TIFF"),
        encode(Image.fromarray(DEEP), "TIFF", compression="tiff_lzw"),
        encode(Image.fromarray(DEEP.astype(np.int32)), "TIFF"),
    ],
)
def test_16_bits(data: bytes) -> None:
    np.testing.assert_array_equal(read(data, scales=(WHOLE,)), planes(np.rint(DEEP / 257)))
    low, high = 20_000, 40_000
    expected = np.rint((DEEP.astype(float) - low).clip(0, high - low) * 255 / (high - low))
    np.testing.assert_array_equal(read(data, scales=(Scale(low, high),)), planes(expected))


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}])
def test_pages_are_channels(options: dict[str, str]) -> None:
    pages = [Image.fromarray(each) for each in (PLANE, ALPHA, PLANE[::-1])]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:], **options)
    found = read(data, ("page1", "page2", "page3"))
    np.testing.assert_array_equal(found, [PLANE, ALPHA, PLANE[::-1]])
    pages = [Image.fromarray(each) for each in (DEEP, DEEP[::-1])]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:], **options)
    found = read(data, ("page1", "page2"), scales=(WHOLE, Scale(0, 1)))
    np.testing.assert_array_equal(found, [np.rint(DEEP / 257), (DEEP[::-1] > 0) * 255])


def test_one_of_several_files_is_one_channel() -> None:
    form = Form(("blue", "red"))
    gray = np.repeat(PLANE[..., None], 3, axis=2)
    for pixels, expected in ((PIXELS, PIXELS.max(2)), (gray, PLANE), (PLANE, PLANE)):
        decoded = decode(encode(Image.fromarray(pixels), "PNG"), form, 1)
        assert decoded == Decoded((7, 5), expected.tobytes())


def test_gray_images_among_coloured_ones() -> None:
    data = encode(Image.fromarray(PLANE), "PNG")
    decoded = decode_image(data, Form(("",), size=(7, 5), channels=COLOUR))
    assert decoded == Decoded((7, 5), PLANE.tobytes() * 3)
    coloured = decode_image(pack(PIXELS, "RGB", "PNG"), Form(("",), size=(7, 5), channels=GRAY))
    assert coloured == Form(("",), size=(7, 5), channels=COLOUR)


def ramp(width: int, height: int) -> np.ndarray:
    """Brightness that rises from left to right, by 200 in all."""
    return np.tile((np.arange(width) + 0.5) * 200 / width, (height, 1)).astype(np.uint8)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(1600, 800), (40, 20)])
@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
def test_resizing(file_format: str, size: tuple[int, int], resize: Resize) -> None:
    side = 50
    data = pack(ramp(*size), "L", file_format)
    form = Form(("",), side, resize, (side, side), GRAY)
    decoded = decode_image(data, form)
    assert isinstance(decoded, Decoded)
    assert decoded.size == size
    found = np.frombuffer(decoded.pixels, np.uint8).reshape(side, side).astype(int)
    across = ramp(side, 1)[0].astype(int)
    if resize == "squash":
        expected = np.tile(across, (side, 1))
    elif resize == "crop":
        expected = np.tile(50 + across // 2, (side, 1))
    else:
        expected = np.zeros((side, side), int)
        expected[12:37] = across
        assert not found[:12].any()
        assert not found[37:].any()
    np.testing.assert_allclose(found, expected, atol=5)


def test_form_of_a_set() -> None:
    """Images of one size stay as they are, up to twice the side; others become squares."""
    small, large = (pack(ramp(*size), "L", "PNG") for size in ((60, 20), (101, 50)))
    same = decode_image(small, Form(("",), 50))
    assert same == Form(("",), 50, size=(60, 20), channels=GRAY)
    assert isinstance(decode_image(small, same), Decoded)
    squares = Form(("",), 50, size=(50, 50), channels=GRAY)
    assert decode_image(large, same) == squares
    assert decode_image(large, Form(("",), 50)) == squares
    assert isinstance(decode_image(small, squares), Decoded)
    refused = decode_image(large, Form(("",), size=(60, 20), channels=GRAY))
    assert isinstance(refused, Fault)
    assert "--image-size" in refused.advice


FLOATS = encode(Image.fromarray(PLANE.astype(np.float32)), "TIFF")
LARGE = encode(Image.fromarray(DEEP.astype(np.int32) * 9), "TIFF")
LAB = encode(Image.new("LAB", (4, 4)), "TIFF")
PAGES = pack(PIXELS, "RGB", "TIFF", save_all=True, append_images=[Image.fromarray(PIXELS)])
MIXED = pack(PLANE, "L", "TIFF", save_all=True, append_images=[Image.fromarray(PIXELS)])
# The count of bits, 8 8 8, becomes 32 of each colour.
UNUSUAL = pack(PIXELS, "RGB", "TIFF").replace(b"\x08\0\x08\0\x08\0", b"\x20\0\x20\0\x20\0")


@pytest.mark.parametrize(
    ("data", "phrase"),
    [
        (FLOATS, "with floating-point values"),
        (LARGE, "with values of more than 16 bits"),
        (LAB, "with LAB"),
        (PAGES, "with pages in colour, or of several sizes or kinds"),
        (MIXED, "with pages in colour, or of several sizes or kinds"),
        (UNUSUAL, "damaged, or a kind of TIFF that Pillow can't read"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, phrase: str) -> None:
    fault = decode_image(data, Form(("",)))
    assert isinstance(fault, Fault)
    assert fault.what == phrase
    assert fault.advice.startswith("Convert them")


PACKINGS: list[tuple[str, dict[str, Any]]] = [
    ("PNG", {}),
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("BMP", {}),
    ("WEBP", {}),
]


@pytest.mark.filterwarnings("ignore")  # of Pillow's
@pytest.mark.parametrize(("file_format", "options"), PACKINGS)
def test_truncated_files(file_format: str, options: dict[str, Any]) -> None:
    data = pack(COARSE, "RGB", file_format, **options)
    for side in (None, 5):  # a JPEG is decoded smaller then
        form = decode_image(data, Form(("",), side))
        assert isinstance(form, Form)
        assert isinstance(decode_image(data, form), Decoded)
        for length in range(0, len(data) - 1, 1 + len(data) // 100):
            assert isinstance(decode_image(data[:length], form), Fault), length


@pytest.mark.filterwarnings("ignore")  # of Pillow's
@pytest.mark.parametrize(("file_format", "options"), PACKINGS)
def test_damaged_files(file_format: str, options: dict[str, Any]) -> None:
    """Only PNG has checksums: a JPEG's changed byte may show. But nothing else happens."""
    sound = pack(COARSE, "RGB", file_format, **options)
    generator = np.random.default_rng(0)
    for number in range(200):
        data = bytearray(sound)
        for at in generator.integers(0, min(len(data), 300), 1 + number % 3):
            data[at] = generator.integers(0, 256)
        decoded = decode(bytes(data), Form(("",), 5))
        assert isinstance(decoded, Fault) or len(decoded.pixels) in (25, 75)


def test_only_the_first_picture_of_a_camera_counts() -> None:
    """Cameras add a smaller copy, or one for three-dimensional glasses, to a JPEG."""
    gray = COARSE[..., 0]
    pictures = [Image.fromarray(each) for each in (gray, 255 - gray)]
    data = encode(pictures[0], "MPO", save_all=True, append_images=pictures[1:], quality=98)
    np.testing.assert_allclose(read(data).astype(int), planes(gray), atol=2)
