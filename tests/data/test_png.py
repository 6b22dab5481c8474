"""PNG images that lie, and odd ones that do not."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile import png_chunk, png_file
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from PIL import Image
from tiny_input import Input, png, refusal

from cellline.data.competition import load_competition
from cellline.data.png import decode_pngs

pytestmark = pytest.mark.usefixtures("bounded")

PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 6)
GOOD = png(PIXELS)
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
PACKED = zlib.compress(ROWS)

AGAIN = "Download or copy what is damaged again."


def pack_zeros(mebibytes: int) -> bytes:
    packing = zlib.compressobj(1)
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packing.flush()


BOMB = pack_zeros(200)


def decode_png(data: bytes, size: tuple[int, int]) -> bytes | None:
    """Decode a single image."""
    (pixels,) = decode_pngs([data], size)
    return pixels


def idat(rows: bytes) -> bytes:
    return png_chunk(b"IDAT", zlib.compress(rows))


def animation() -> Iterator[bytes]:
    """Yield the chunks of an animation whose second frame is black."""
    yield png_chunk(b"acTL", struct.pack(">II", 2, 0))
    yield png_chunk(b"fcTL", struct.pack(">5I2H2B", 0, 6, 8, 0, 0, 1, 1, 0, 0))
    yield idat(ROWS)
    yield png_chunk(b"fcTL", struct.pack(">5I2H2B", 1, 6, 8, 0, 0, 1, 1, 0, 0))
    yield png_chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(len(ROWS))))


def interlaced(pixels: np.ndarray) -> bytes:
    """Encode pixels in seven passes (Adam7)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
    parts = [pixels[y::down, x::right] for y, x, down, right in [*passes, (1, 0, 2, 1)]]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    height, width = pixels.shape
    return png_file(idat(rows), width=width, height=height, passes=1)


def test_sound_images() -> None:
    assert decode_png(GOOD, (8, 6)) == PIXELS.tobytes()
    assert decode_png(png_file(idat(ROWS)), (8, 6)) == PIXELS.tobytes()
    assert decode_png(GOOD, (6, 8)) is None
    assert decode_png(png(PIXELS, "RGB"), (8, 6)) is None


def test_damage_of_any_bit_is_noticed() -> None:
    for at in range(len(GOOD)):
        for bit in range(8):
            damaged = bytearray(GOOD)
            damaged[at] ^= 1 << bit
            assert decode_png(bytes(damaged), (8, 6)) is None, at
    for length in range(len(GOOD)):
        assert decode_png(GOOD[:length], (8, 6)) is None, length


DAMAGED = {
    "fewer rows than it says": png_file(idat(ROWS[:21])),
    "part of a row": png_file(idat(ROWS[:-1])),
    "no rows": png_file(idat(b"")),
    "nothing packed": png_file(png_chunk(b"IDAT", b"")),
    "no picture": png_file(),
    "more rows than it says": png_file(idat(ROWS + bytes(7))),
    "gigabytes of rows": png_file(png_chunk(b"IDAT", BOMB)),
    "packed rows that break off": png_file(png_chunk(b"IDAT", PACKED[:-6])),
    "no checksum of the rows": png_file(png_chunk(b"IDAT", PACKED[:-4])),
    "wrong checksum of the rows": png_file(png_chunk(b"IDAT", PACKED[:-4] + b"abcd")),
    "rows filtered in an unknown way": png_file(idat(b"\x09" + ROWS[1:])),
    "a second header": png_file(png_file()[8:33], idat(ROWS)),
    "a header of another size behind": png_file(idat(ROWS), png_file(width=60_000)[8:33]),
    "interlaced, and not by the rows": png_file(idat(ROWS), passes=1),
    "interlaced in an unknown way": png_file(idat(ROWS), passes=2),
    "no end": png_file(idat(ROWS))[:-12],
    "a chunk that reaches behind the end": png_file(idat(ROWS))[:-12] + b"\xff" * 8,
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_images(given: Input, cache_dir: Path, data: bytes) -> None:
    given.images["train"]["00017_red.png"] = data
    assert refusal(given.write(), cache_dir) == [
        "  images_train: 1 image is damaged or truncated: 00017_red.png",
        AGAIN,
    ]


ODD = {
    "texts that inflate to gigabytes": [
        png_chunk(b"zTXt", b"a\0\0" + BOMB),
        png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
        png_chunk(b"iCCP", b"a\0\0" + BOMB),
        idat(ROWS),
    ],
    "an animation": list(animation()),
    "a hundred thousand chunks": [png_chunk(b"abCd", b"")] * 100_000 + [idat(ROWS)],
    "a hundred thousand empty parts": [png_chunk(b"IDAT", b"")] * 100_000 + [idat(ROWS)],
    "many parts": [png_chunk(b"IDAT", bytes([byte])) for byte in PACKED],
    "a transparent colour": [png_chunk(b"tRNS", b"\0\5"), idat(ROWS)],
    "a wrong transparent colour": [png_chunk(b"tRNS", b""), idat(ROWS)],
    "a gamma": [png_chunk(b"gAMA", b"\0\0\0\1"), idat(ROWS)],
    "something behind the rows": [png_chunk(b"IDAT", PACKED + b"x")],
}


@pytest.mark.parametrize("chunks", ODD.values(), ids=ODD.keys())
def test_odd_images_show_what_they_show(chunks: list[bytes]) -> None:
    assert decode_png(png_file(*chunks), (8, 6)) == PIXELS.tobytes()
    assert decode_png(png_file(*chunks) + b"appended", (8, 6)) == PIXELS.tobytes()


@pytest.mark.parametrize("size", [(8, 6), (1, 1), (3, 5), (16, 17), (2, 9)])
def test_interlaced_images(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    assert decode_png(interlaced(pixels), size) == pixels.tobytes()


def test_interlaced_images_of_a_competition(given: Input, cache_dir: Path) -> None:
    expected = load_competition(given.write(), cache_dir).digest
    given.images["train"]["00017_red.png"] = interlaced(given.pixels[17][1])
    assert load_competition(given.write(), cache_dir).digest == expected


def filtered(pixels: np.ndarray, kinds: list[int]) -> bytes:
    """Filter each row in its way, as the format's chapter 9 defines them."""
    before = np.pad(pixels.astype(int), ((1, 0), (1, 0)))
    corner, above, left = before[:-1, :-1], before[:-1, 1:], before[1:, :-1]
    nearest = np.abs(np.stack([above - corner, left - corner, above + left - 2 * corner]))
    paeth = np.choose(nearest.argmin(axis=0), [left, above, corner])
    predicted = [0 * left, left, above, (left + above) // 2, paeth]
    return b"".join(
        bytes([kind]) + ((row - predicted[kind][y]) % 256).astype(np.uint8).tobytes()
        for y, (row, kind) in enumerate(zip(pixels.astype(int), kinds, strict=True))
    )


@st.composite
def many_files(draw: st.DrawFn) -> tuple[tuple[int, int], list[tuple[bytes, bytes | None]]]:
    """Draw a size, and files with what they decode to: rows filtered in any way, and broken."""
    height, width = size = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    files: list[tuple[bytes, bytes | None]] = []
    for seed in draw(st.lists(st.integers(0, 999), max_size=9)):
        pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        kinds = draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
        rows = filtered(pixels, kinds)
        whole = png_file(idat(rows), width=width, height=height)
        form = draw(st.sampled_from(["whole", "interlaced", "broken off", "unknown filter"]))
        if form == "whole":
            files.append((whole, pixels.tobytes()))
        elif form == "interlaced":
            files.append((interlaced(pixels), pixels.tobytes()))
        elif form == "broken off":
            files.append((whole[: draw(st.integers(0, len(whole) - 1))], None))
        else:
            rows = bytes([draw(st.integers(5, 255))]) + rows[1:]
            files.append((png_file(idat(rows), width=width, height=height), None))
    return size, files


@drawn(many_files())
@settings(max_examples=100, deadline=None, derandomize=True)
def test_images_decoded_together_are_those_decoded_alone(
    case: tuple[tuple[int, int], list[tuple[bytes, bytes | None]]],
) -> None:
    size, files = case
    assert decode_pngs([data for data, _ in files], size) == [pixels for _, pixels in files]
    for data, pixels in files:
        assert decode_png(data, size) == pixels


def test_absurd_dimensions_are_refused(given: Input, cache_dir: Path) -> None:
    given.images["train"] |= {
        "00017_red.png": png_file(idat(ROWS), width=60_000, height=60_000),
        "00030_red.png": png_file(idat(ROWS), width=6, height=2**32 - 1),
    }
    assert refusal(given.write(), cache_dir) == [
        "  images_train: 2 images are larger than 4096 x 4096 pixels or 32 MiB: "
        "00017_red.png, 00030_red.png"
    ]


def test_other_depths_are_named_and_unknown_ones_are_damage(given: Input, cache_dir: Path) -> None:
    given.images["train"] |= {
        "00017_red.png": png_file(idat(ROWS), bits=16),
        "00030_red.png": png_file(idat(ROWS), bits=77, colour=99),
    }
    assert refusal(given.write(), cache_dir) == [
        "  images_train: 1 image is damaged or truncated: 00030_red.png",
        "  images_train: 1 image is not 8-bit grayscale but 16-bit grayscale: 00017_red.png",
        AGAIN,
    ]


@pytest.mark.parametrize("form", ["GIF", "JPEG", "BMP", "TIFF"])
def test_other_formats_under_the_name_of_a_png(given: Input, cache_dir: Path, form: str) -> None:
    data = io.BytesIO()
    Image.fromarray(PIXELS).save(data, form)
    given.images["train"]["00017_red.png"] = data.getvalue()
    assert refusal(given.write(), cache_dir) == [
        "  images_train: 1 file is not a PNG image: 00017_red.png"
    ]
