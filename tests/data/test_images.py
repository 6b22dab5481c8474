"""Images: the pixels that Pillow reads, and files that lie."""

import io
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile import png_chunk, png_file
from PIL import Image
from tiny_input import CHANNELS, Input, make_input, png, refusal

from cellline.data.competition import load_competition
from cellline.data.decoding import GRAY, UNREADABLE, Decoded, Form, decode_image
from cellline.data.problems import Fault

pytestmark = pytest.mark.usefixtures("bounded")

PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 6)
GOOD = png(PIXELS)
ROWS = b"".join(b"\0" + row.tobytes() for row in PIXELS)
PACKED = zlib.compress(ROWS)
SIZE = 6, 8
FORM = Form(("",), size=SIZE, channels=GRAY)


def pack_zeros(mebibytes: int) -> bytes:
    packing = zlib.compressobj(1)
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(mebibytes)) + packing.flush()


BOMB = pack_zeros(200)


def idat(rows: bytes) -> bytes:
    return png_chunk(b"IDAT", zlib.compress(rows))


def animation() -> Iterator[bytes]:
    """Yield the chunks of an animation whose second frame is black."""
    yield png_chunk(b"acTL", struct.pack(">II", 2, 0))
    yield png_chunk(b"fcTL", struct.pack(">5I2H2B", 0, 6, 8, 0, 0, 1, 1, 0, 0))
    yield idat(ROWS)
    yield png_chunk(b"fcTL", struct.pack(">5I2H2B", 1, 6, 8, 0, 0, 1, 1, 0, 0))
    yield png_chunk(b"fdAT", struct.pack(">I", 2) + zlib.compress(bytes(len(ROWS))))


@pytest.mark.parametrize("processors", [1, 3])
def test_pixels_are_those_of_pillow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    monkeypatch.setattr("cellline.host.processors.count_processors", lambda: processors)
    labels = {i: random.Random(i).choice("ab") for i in range(1, 121)}
    given = make_input(tmp_path / "input", labels=labels, test_ids=range(200, 230))
    loaded = load_competition(given.write(".tar", reverse=True), tmp_path / "cache")
    for split, ids, images in (
        ("train", loaded.train_ids, loaded.train_images),
        ("test", loaded.test_ids, loaded.test_images),
    ):
        for i, planes in zip(ids.tolist(), images, strict=True):
            for channel, plane in zip(CHANNELS, planes, strict=True):
                data = given.images[split][f"{i:05d}_{channel}.png"]
                np.testing.assert_array_equal(plane, np.asarray(Image.open(io.BytesIO(data))))


NOISE = np.random.default_rng(0).integers(0, 9, (8, 6), np.uint8)


@pytest.mark.parametrize("data", [GOOD, png(NOISE)])
def test_damage_of_any_bit_is_noticed(data: bytes) -> None:
    assert isinstance(decode_image(data, FORM), Decoded)
    for at in range(len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[at] ^= 1 << bit
            assert isinstance(decode_image(bytes(damaged), FORM), Fault), at
    for length in range(len(data)):
        assert isinstance(decode_image(data[:length], FORM), Fault), length


DAMAGED = {
    "part of a row": png_file(idat(ROWS[:-1])),
    "no picture": png_file(),
    "packed rows that break off": png_file(png_chunk(b"IDAT", PACKED[:-6])),
    "rows filtered in an unknown way": png_file(idat(b"\x09" + ROWS[1:])),
    "interlaced, and not by the rows": png_file(idat(ROWS), passes=1),
    "no end": png_file(idat(ROWS))[:-12],
    "a chunk that reaches behind the end": png_file(idat(ROWS))[:-12] + b"\xff" * 8,
    "texts that inflate to gigabytes": png_file(png_chunk(b"zTXt", b"a\0\0" + BOMB), idat(ROWS)),
}


@pytest.mark.parametrize("kind", [*DAMAGED, "GIF"])
def test_damaged_images_and_other_formats(kind: str) -> None:
    file = io.BytesIO(DAMAGED.get(kind, b""))
    if kind not in DAMAGED:
        Image.fromarray(PIXELS).save(file, kind)
    assert decode_image(file.getvalue(), FORM) == UNREADABLE


ODD = {
    "an animation": list(animation()),
    "thousands of chunks": [png_chunk(b"abCd", b"")] * 20_000 + [idat(ROWS)],
    "many parts": [png_chunk(b"IDAT", bytes([byte])) for byte in PACKED],
    "a transparent colour": [png_chunk(b"tRNS", b"\0\5"), idat(ROWS)],
    "gigabytes of rows": [idat(ROWS + bytes(7)), png_chunk(b"IDAT", BOMB)],
}


@pytest.mark.parametrize("chunks", ODD.values(), ids=ODD.keys())
def test_odd_images_show_what_they_show(chunks: list[bytes]) -> None:
    for data in (png_file(*chunks), png_file(*chunks) + b"appended"):
        assert decode_image(data, FORM) == Decoded(SIZE, PIXELS.tobytes())


def test_absurd_dimensions_are_refused(given: Input, cache_dir: Path) -> None:
    given.images["train"] |= {
        "00017_red.png": png_file(idat(ROWS), width=60_000, height=60_000),
        "00030_red.png": png_file(idat(ROWS), width=6, height=2**31 - 1),
    }
    assert refusal(given.write(), cache_dir) == [
        "  images_train: 2 images larger than 64 megapixels or 193 MiB: "
        "00017_red.png, 00030_red.png",
        "Save them at a smaller size.",
    ]
