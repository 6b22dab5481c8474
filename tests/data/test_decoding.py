"""Decoding in parallel: the order, the memory, and processes that are killed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny_input import png

from cellline.data.decoding import CHUNK_IMAGES, Encoded, decode
from cellline.errors import UserError

PIXELS = np.arange(48, dtype=np.uint8).reshape(8, 6)
GOOD = png(PIXELS)
SECONDS = 60  # after which a process is taken to live for ever


@pytest.mark.parametrize("workers", [1, 2])
def test_decode_keeps_the_order(workers: int) -> None:
    planes = [np.full((8, 6), i % 251, np.uint8) for i in range(5 * CHUNK_IMAGES + 3)]
    encoded = [Encoded("train", str(i), png(plane)) for i, plane in enumerate(planes)]
    encoded[300] = Encoded("train", "300", b"")
    decoded = list(decode(encoded, (8, 6), workers))
    assert [name for _, name, _ in decoded] == [str(i) for i in range(len(planes))]
    for i, (_, _, pixels) in enumerate(decoded):
        assert pixels == (None if i == 300 else planes[i].tobytes())


def test_memory_is_bounded() -> None:
    taken = 0

    def endless() -> Iterator[Encoded]:
        nonlocal taken
        while True:
            taken += 1
            yield Encoded("train", str(taken), GOOD)

    decoded = decode(endless(), (8, 6), workers=2)
    for given in range(1, 10 * CHUNK_IMAGES):
        next(decoded)
        assert taken - given <= 6 * CHUNK_IMAGES
    decoded.close()  # type: ignore[attr-defined]


def test_large_images_travel_in_small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cellline.data.decoding.CHUNK_BYTES", 100)
    taken = []

    def counted() -> Iterator[Encoded]:
        for i in range(9):
            taken.append(i)
            yield Encoded("train", str(i), GOOD)

    next(decode(counted(), (8, 6), workers=1))
    assert len(taken) <= 3


@pytest.mark.parametrize("bounded", [1 << 30], indirect=True)
def test_a_worker_that_ends_while_it_answers_is_not_waited_for(bounded: None) -> None:
    large = png(np.zeros((1000, 1000), np.uint8))
    images = (Encoded("train", str(i), large) for i in range(100))
    decoded = decode(images, (1000, 1000), workers=2)
    next(decoded)
    time.sleep(0.5)  # the second answer is larger than what a connection holds, and nobody reads it
    for process in multiprocessing.active_children():
        process.kill()
    with pytest.raises(UserError, match="was ended by the system or could not be started"):
        list(decoded)
    assert not multiprocessing.active_children()


# Below: processes that end. Python starts them by fork() or, from 3.14 on, by a server.

DECODE = """
import itertools, multiprocessing, signal, sys
from cellline.data.decoding import Encoded, decode
from cellline.errors import UserError

if __name__ == "__main__":
    method, path = sys.argv[1:]
    multiprocessing.set_start_method(method)
    signal.signal(signal.SIGTERM, lambda *_: None)  # as one who saves before it ends
    data = open(path, "rb").read()
    images = (Encoded("train", str(i), data) for i in itertools.count())
    try:
        for done, _ in enumerate(decode(images, (8, 6), workers=2)):
            if done % 2000 == 1000:
                print("decoding", flush=True)
    except UserError as error:
        print(error, flush=True)
"""


@pytest.fixture(params=["fork", "forkserver"])
def decoding(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that decodes without end, with two workers, in a session of its own."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs to see other processes as Linux shows them")
    (tmp_path / "image.png").write_bytes(GOOD)
    (tmp_path / "decode.py").write_text(DECODE)
    with subprocess.Popen(
        [sys.executable, tmp_path / "decode.py", request.param, tmp_path / "image.png"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "decoding\n"
        assert len(members_of(process.pid)) >= 3
        yield process
        for pid in members_of(process.pid):
            os.kill(pid, signal.SIGKILL)


def members_of(session: int) -> list[int]:
    """Return the session's processes that have not ended, in the order of their start."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, _, of_session = text.rpartition(")")[2].split()[:4]
        if int(of_session) == session and state != "Z":
            started = int(text.rpartition(")")[2].split()[19])
            found.append((started, int(path.parent.name)))
    return [pid for _, pid in sorted(found)]


def assert_all_end(session: int) -> None:
    give_up = time.monotonic() + SECONDS
    while left := members_of(session):
        assert time.monotonic() < give_up, f"{len(left)} processes live on"
        time.sleep(0.02)


def test_workers_end_with_their_parent(decoding: subprocess.Popen[str]) -> None:
    decoding.kill()
    assert_all_end(decoding.pid)
    _, errors = decoding.communicate(timeout=SECONDS)
    assert errors == ""


def test_the_parent_decides_about_ctrl_c(decoding: subprocess.Popen[str]) -> None:
    for pid in members_of(decoding.pid)[1:]:
        os.kill(pid, signal.SIGINT)
    assert decoding.stdout is not None
    assert [decoding.stdout.readline() for _ in range(3)] == ["decoding\n"] * 3
    os.killpg(decoding.pid, signal.SIGINT)
    assert_all_end(decoding.pid)
    _, errors = decoding.communicate(timeout=SECONDS)
    assert errors.count("Traceback") == 1
    assert errors.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_the_system_ends_is_a_message(
    decoding: subprocess.Popen[str], number: signal.Signals
) -> None:
    os.kill(members_of(decoding.pid)[-1], number)
    output, errors = decoding.communicate(timeout=SECONDS)
    assert "A process that decodes images was ended by the system or could not be sta" in output
    assert errors == ""
    assert_all_end(decoding.pid)
