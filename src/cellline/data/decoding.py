"""Decoding PNG images in parallel, as they come, in bounded memory.

By threads: zlib and Pillow let others run while they work, which is nine tenths of the time.
Processes would have the images sent to and fro, and each can end alone.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from cellline.data.png import decode_pngs
from cellline.host.processors import map_in_order

CHUNK_IMAGES = 64  # at 64 x 64 about 4 ms of work; what they need stays in a processor's cache
CHUNK_BYTES = 4 << 20  # of files or pixels: large images come in smaller chunks


class Encoded(NamedTuple):
    """One image as stored."""

    split: str
    place: int  # among the split's images
    data: bytes


class Decoded(NamedTuple):
    """One image's pixels: height * width bytes, row by row, or None if it is damaged."""

    split: str
    place: int
    pixels: bytes | None


def decode(
    images: Iterable[Encoded], size: tuple[int, int], workers: int | None = None
) -> Iterator[Decoded]:
    """Decode 8-bit grayscale PNG images of one size (height, width), in order.

    By `workers` threads, by default one a processor; one chunk more than those is in memory.
    """
    chunks = _chunks(images, size[0] * size[1])
    for decoded in map_in_order(partial(_decode_chunk, size=size), chunks, workers):
        yield from decoded


def _chunks(images: Iterable[Encoded], area: int) -> Iterator[list[Encoded]]:
    """Group images so that neither their files nor their `area` pixels each exceed the limits."""
    chunk: list[Encoded] = []
    filled = 0
    for image in images:
        need = max(area, len(image.data))
        if chunk and (len(chunk) == CHUNK_IMAGES or filled + need > CHUNK_BYTES):
            yield chunk
            chunk, filled = [], 0
        chunk.append(image)
        filled += need
    if chunk:
        yield chunk


def _decode_chunk(chunk: list[Encoded], size: tuple[int, int]) -> list[Decoded]:
    pixels = decode_pngs([image.data for image in chunk], size)
    return [
        Decoded(image.split, image.place, pixel) for image, pixel in zip(chunk, pixels, strict=True)
    ]
