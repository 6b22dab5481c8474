"""Decoding PNG images in parallel, as they come, in bounded memory."""

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from typing import NamedTuple

from PIL import Image

from cellline.processors import count_processors

CHUNK_IMAGES = 256  # at 64 x 64 about 40 ms of work, against 1 ms of passing it to a process
CHUNK_BYTES = 4 << 20  # of pixels: large images travel in smaller chunks

_END = b"\0\0\0\0IEND\xaeB`\x82"  # of whose length and checksum Pillow takes no notice


class Encoded(NamedTuple):
    """One image as stored."""

    split: str
    name: str
    data: bytes


class Decoded(NamedTuple):
    """One image's pixels: height * width bytes, row by row, or None if it is damaged."""

    split: str
    name: str
    pixels: bytes | None


def decode(
    images: Iterable[Encoded], size: tuple[int, int], workers: int | None = None
) -> Iterator[Decoded]:
    """Decode 8-bit grayscale PNG images of one size (height, width), in order.

    With `workers` processes, by default one a processor; at most two chunks a worker are in memory.
    A single chunk, or workers=1, is decoded in this process: starting others would take longer.
    """
    workers = workers or count_processors()
    chunks = _chunks(images, size[0] * size[1])
    head = list(islice(chunks, 2))
    if workers == 1 or len(head) < 2:
        for chunk in chain(head, chunks):
            yield from _decode_chunk(chunk, size)
        return
    with ProcessPoolExecutor(workers) as pool:
        pending: deque[Future[list[Decoded]]] = deque()
        try:
            for chunk in chain(head, chunks):
                pending.append(pool.submit(_decode_chunk, chunk, size))
                if len(pending) >= 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def decode_png(data: bytes, size: tuple[int, int]) -> bytes | None:
    """Return the pixels of an 8-bit grayscale PNG of this size (height, width), row by row.

    None if it is anything else, or damaged, be it in a checksum only.
    """
    if _END not in data:
        return None
    try:
        # Pillow checks the checksums in verify() alone, after which an image can't be loaded.
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.verify()
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if (image.mode, image.height, image.width) != ("L", *size):
                return None
            return image.tobytes()
    except Exception:  # Pillow documents no closed set of what broken files raise
        return None


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
    return [Decoded(split, name, decode_png(data, size)) for split, name, data in chunk]
