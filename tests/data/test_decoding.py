"""Decoding in parallel: the order, the memory, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_input import png

from cellline.data.decoding import CHUNK_IMAGES, Encoded, decode

PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 6)
GOOD = png(PIXELS)
SECONDS = 60  # after which a process is taken to live for ever


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_decode_keeps_the_order(workers: int) -> None:
    planes = [np.full((8, 6), i % 251, np.uint8) for i in range(9 * CHUNK_IMAGES + 3)]
    encoded = [Encoded("train", i, png(plane)) for i, plane in enumerate(planes)]
    encoded[300] = Encoded("train", 300, b"")
    decoded = list(decode(encoded, (8, 6), workers))
    assert [place for _, place, _ in decoded] == list(range(len(planes)))
    for i, (_, _, pixels) in enumerate(decoded):
        assert pixels == (None if i == 300 else planes[i].tobytes())


def endless() -> Iterator[Encoded]:
    place = 0
    while True:
        yield Encoded("train", place, GOOD)
        place += 1


@pytest.mark.parametrize("workers", [1, 2])
def test_memory_is_bounded(workers: int) -> None:
    taken = 0

    def counted() -> Iterator[Encoded]:
        nonlocal taken
        for image in endless():
            taken += 1
            yield image

    decoded = decode(counted(), (8, 6), workers)
    for given in range(1, 10 * CHUNK_IMAGES):
        next(decoded)
        assert taken - given <= (workers + 2) * CHUNK_IMAGES
    decoded.close()  # type: ignore[attr-defined]


def test_large_images_come_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellline.data.decoding.CHUNK_BYTES", 100)
    taken = []

    def counted() -> Iterator[Encoded]:
        for image in endless():
            taken.append(image)
            yield image

    next(decode(counted(), (8, 6), workers=1))
    assert len(taken) <= 3


def test_no_thread_outlives_a_decoding_that_is_given_up() -> None:
    before = threading.active_count()
    decoded = decode(endless(), (8, 6), workers=2)
    next(decoded)
    assert threading.active_count() == before + 2
    decoded.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_what_fails_in_a_thread_is_raised() -> None:
    broken = Encoded("train", 0, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        list(decode([Encoded("train", 0, GOOD)] * 3 * CHUNK_IMAGES + [broken], (8, 6), 2))


# Below: a process that ends.

DECODE = """
import itertools, sys
from cellline.data.decoding import Encoded, decode

data = open(sys.argv[1], "rb").read()
images = (Encoded("train", i, data) for i in itertools.count())
for done, _ in enumerate(decode(images, (8, 6), workers=2)):
    if done % 2000 == 1000:
        print("decoding", flush=True)
"""


@pytest.fixture
def decoding(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that decodes without end, by two threads, in a session of its own."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs to see other processes as Linux shows them")
    (tmp_path / "image.png").write_bytes(GOOD)
    with subprocess.Popen(
        [sys.executable, "-c", DECODE, tmp_path / "image.png"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoding\n"
        assert members_of(process.pid) == [process.pid]
        yield process
        for pid in members_of(process.pid):
            os.kill(pid, signal.SIGKILL)


def members_of(session: int) -> list[int]:
    """Return the session's processes that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, of_session = text.rpartition(")")[2].split()[:4]
        if int(of_session) == session and state != "Z":
            found.append(int(path.parent.name))
    return found


def assert_all_end(session: int) -> None:
    give_up = time.monotonic() + SECONDS
    while left := members_of(session):
        assert time.monotonic() < give_up, f"{len(left)} processes live on"
        time.sleep(0.02)


def test_nothing_outlives_a_process_that_is_killed(decoding: subprocess.Popen[str]) -> None:
    decoding.kill()
    assert_all_end(decoding.pid)
    _, errors = decoding.communicate(timeout=SECONDS)
    assert errors == ""


def test_ctrl_c_ends_it(decoding: subprocess.Popen[str]) -> None:
    os.killpg(decoding.pid, signal.SIGINT)
    assert_all_end(decoding.pid)
    _, errors = decoding.communicate(timeout=SECONDS)
    assert errors.count("Traceback") == 1
    assert errors.endswith("KeyboardInterrupt\n")
