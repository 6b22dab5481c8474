"""Finding decoded images again, and what may go wrong meanwhile."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from disks import small_file_system
from tiny_input import Input, make_input, png

from cellline.data import cache, images
from cellline.data.competition import load_competition
from cellline.errors import UserError
from cellline.host.locking import one_writer


def entry(cache_dir: Path, ending: str) -> Path:
    """Return the only file whose name ends so."""
    (path,) = cache_dir.glob(f"*{ending}")
    return path


def leftovers(cache_dir: Path) -> list[str]:
    """Return the names in the cache but its lock's, without keys."""
    names = (path.name for path in cache_dir.iterdir() if path.name != ".lock")
    return sorted(name[16:] if name[0] != "." else name for name in names)


def no_decoding(*_: object) -> None:
    raise AssertionError("decoded again")


def test_second_start_decodes_nothing(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_competition(given.write(), cache_dir)
    assert leftovers(cache_dir) == ["-test.npy", "-train.npy", ".json"]
    monkeypatch.setattr(cache, "_decode", no_decoding)
    (given.folder / "images_train/images_train/.DS_Store").touch()
    second = load_competition(given.folder, cache_dir)
    assert first.digest == second.digest
    np.testing.assert_array_equal(first.train_images, second.train_images)


@pytest.mark.parametrize("form", ["", ".tar"])
def test_changed_image_is_decoded_again(given: Input, cache_dir: Path, form: str) -> None:
    first = load_competition(given.write(form), cache_dir)
    path = given.folder / ("images_test.tar" if form else "images_test/images_test/00005_red.png")
    times = path.stat()
    given.images["test"]["00005_red.png"] = png(given.pixels[5][1][::-1])
    given.write(form)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # a copy that keeps the time
    second = load_competition(given.folder, cache_dir)
    assert path.stat().st_size == times.st_size
    assert second.test_digest != first.test_digest
    np.testing.assert_array_equal(second.test_images[0][1], first.test_images[0][1][::-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [partial(os.truncate, length=50), flip, os.remove])
@pytest.mark.parametrize("name", ["-train.npy", ".json"])
def test_damaged_entry_is_rebuilt(
    given: Input, cache_dir: Path, damage: Callable[[Path], None], name: str
) -> None:
    first = load_competition(given.write(), cache_dir)
    expected = np.array(first.train_images)
    path = entry(cache_dir, name)
    times = path.stat()
    damage(path)
    if path.exists():  # a failing disk does not touch the times
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load_competition(given.folder, cache_dir)
    np.testing.assert_array_equal(second.train_images, expected)
    assert second.digest == first.digest


def test_images_that_are_truncated_while_in_use(given: Input, cache_dir: Path) -> None:
    loaded = load_competition(given.write(), cache_dir)
    images = pickle.loads(pickle.dumps(loaded.train_images))  # as a loader's process gets them
    expected = np.stack([given.pixels[i] for i in loaded.train_ids.tolist()])
    for rows in (2, -1, slice(1, 3), np.array([3, 0]), expected[:, 0, 0, 0] > 99):
        np.testing.assert_array_equal(images[rows], expected[rows])
    path = entry(cache_dir, "-train.npy")
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(images[2], expected[2])
    for rows in (3, slice(None)):
        with pytest.raises(UserError, match=r"-train.npy was truncated .*: rerun"):
            images[rows]


def in_child(work: Callable[[], object]) -> int:
    """Do something in a process of its own, and return its exit status, -9 if it was killed."""
    if (child := os.fork()) == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def load_and_die(folder: Path, cache_dir: Path, steps: int) -> None:
    """Load a competition, and be killed at one of the cache's changes: before the n-th."""
    count = 0

    def watch(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        changes = event in ("os.mkdir", "os.rename", "os.remove")
        writes = event == "open" and isinstance(args[2], int) and args[2] & os.O_ACCMODE
        if (changes or writes) and str(cache_dir) in str(args[0]):
            count += 1
            if count == steps:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    load_competition(folder, cache_dir)


def test_decoding_that_is_killed_at_any_step_is_done_anew(given: Input, tmp_path: Path) -> None:
    expected = load_competition(given.write(), tmp_path / "expected")
    for steps in range(1, 100):
        cache_dir = tmp_path / f"cache-{steps}"
        status = in_child(partial(load_and_die, given.folder, cache_dir, steps))
        loaded = load_competition(given.folder, cache_dir)
        assert loaded.digest == expected.digest
        np.testing.assert_array_equal(loaded.train_images, expected.train_images)
        assert leftovers(cache_dir) == leftovers(tmp_path / "expected")
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert 8 < steps < 99


@contextmanager
def another_writer(cache_dir: Path, work: Callable[[], object]) -> Iterator[None]:
    """Let another process have the cache's lock, and then work."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with one_writer(cache_dir, "testing"):
                os.write(writer, b"x")
                work()
        finally:
            os._exit(0)
    os.read(reader, 1)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_the_second_writer_is_told_of_the_first(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "WAIT_SECONDS", 0.1)
    with another_writer(cache_dir, partial(time.sleep, 60)):
        with pytest.raises(UserError, match=r"cache is in use by process \d+ on .*testing"):
            load_competition(given.write(), cache_dir)
        assert leftovers(cache_dir) == []
    load_competition(given.folder, cache_dir)  # the lock dies with its holder


def test_what_the_first_writer_decoded_is_used(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given.write()

    def work() -> None:
        time.sleep(0.3)  # the other one has looked for the entry, and waits
        load_competition(given.folder, cache_dir)

    with another_writer(cache_dir, work):
        monkeypatch.setattr(cache, "_decode", no_decoding)
        load_competition(given.folder, cache_dir)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    with small_file_system(tmp_path / "disk", "2m") as disk:
        yield disk


def test_a_read_only_cache_can_be_read(given: Input, small_disk: Path) -> None:
    expected = load_competition(given.write(), small_disk / "cache").digest
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert load_competition(given.folder, small_disk / "cache").digest == expected
    given.images["test"]["00005_red.png"] = png(given.pixels[5][1][::-1])
    with pytest.raises(OSError, match=r"Read-only file system: .*cache/"):
        load_competition(given.write(), small_disk / "cache")


def test_a_disk_that_fills_up_meanwhile(tmp_path: Path, small_disk: Path) -> None:
    given = make_input(tmp_path / "input", labels={1: "RT4", 2: "HeLa"}, test_ids=[3])
    for named in given.images.values():  # a megabyte and a half when they are decoded
        named |= dict.fromkeys(named, png(np.zeros((400, 400), np.uint8)))
    (small_disk / "other").write_bytes(bytes(1 << 20))
    with pytest.raises(OSError, match=r"No space left on device: .*cache/.*npy"):
        load_competition(given.write(), small_disk / "cache")
    assert leftovers(small_disk / "cache") == []
    (small_disk / "other").unlink()
    load_competition(given.folder, small_disk / "cache")


def test_interrupted_decoding_leaves_nothing(
    given: Input, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> object:
        assert len(leftovers(cache_dir)) == 2
        raise KeyboardInterrupt

    threads = threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(images.SplitReader, "_write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_competition(given.write(), cache_dir)
    assert leftovers(cache_dir) == []
    assert threading.active_count() == threads
    load_competition(given.folder, cache_dir)
