"""Decoding PNG images in parallel, as they come, in bounded memory.

Not by concurrent.futures, which waits for ever for the rest of a result when the system kills the
process that was sending it. Here each process has a connection of its own, which ends with it.
"""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import chain, islice
from multiprocessing.connection import Connection
from typing import NamedTuple, Self

from cellline.data.png import decode_png
from cellline.errors import UserError
from cellline.processors import count_processors

CHUNK_IMAGES = 256  # at 64 x 64 about 40 ms of work, against 1 ms of passing it to a process
CHUNK_BYTES = 4 << 20  # of pixels: large images travel in smaller chunks


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

    With `workers` processes, by default one a processor; one chunk a worker is in memory. A single
    chunk, or workers=1, is decoded in this process: starting others would take longer. Raises
    UserError where the system ends one of the processes, or starts none.
    """
    workers = workers or count_processors()
    chunks = _chunks(images, size[0] * size[1])
    head = list(islice(chunks, 2))
    if workers == 1 or len(head) < 2:
        for chunk in chain(head, chunks):
            yield from _decode_chunk(chunk, size)
        return
    busy: deque[_Worker] = deque()  # in the order of their chunks
    with ExitStack() as stack:
        for chunk in chain(head, chunks):
            if len(busy) < workers:
                worker, done = stack.enter_context(_Worker(size)), []
            else:
                worker = busy.popleft()
                done = worker.receive()
            worker.send(chunk)
            busy.append(worker)
            yield from done
        for worker in busy:
            yield from worker.receive()


class _Worker:
    """A process that decodes one chunk after the other, until the end of the context."""

    def __init__(self, size: tuple[int, int]) -> None:
        try:
            self.connection, theirs = multiprocessing.Pipe()
            self.process = multiprocessing.Process(target=_work, args=(theirs, size), daemon=True)
            self.process.start()
        except OSError as error:
            raise _out_of_memory() from error
        theirs.close()  # so that the connection ends with the process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()  # it keeps nothing, and can't be waited for in vain
        self.process.join()
        self.connection.close()

    def send(self, chunk: list[Encoded]) -> None:
        try:
            self.connection.send(chunk)
        except OSError as error:
            raise self._failure() from error

    def receive(self) -> list[Decoded]:
        """Return what became of the chunk that was sent."""
        try:
            done: list[Decoded] = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self._failure() from error
        return done

    def _failure(self) -> Exception:
        self.process.join()
        status = self.process.exitcode
        assert status is not None
        if status < 0:  # ended by a signal
            return _out_of_memory()
        return RuntimeError(f"a decoding process ended with status {status}")  # and said why


def _out_of_memory() -> UserError:
    return UserError(
        "A process that decodes images was ended by the system or could not be started, most "
        "likely because memory ran out.\nClose what else needs memory, and start again."
    )


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


def _work(connection: Connection, size: tuple[int, int]) -> None:
    """Decode the chunks that come, until the parent kills this process or ends."""
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all its processes
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not what the parent does about it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        connection.send(_decode_chunk(connection.recv(), size))


def _end_with_parent() -> None:
    """Not the connection tells: processes that were forked later have the parent's end as well."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
