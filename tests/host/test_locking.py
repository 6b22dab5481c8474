import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from cellline.errors import UserError
from cellline.host.files import atomic
from cellline.host.locking import one_writer

SOURCES = Path(__file__).resolve().parents[2] / "src"

HOLDER = """
import os, sys, time
from pathlib import Path
from cellline.host.locking import one_writer
with one_writer(Path("folder"), "training fold 3"):
    if os.fork() == 0:  # as a loader's process: it outlives its parent and must not keep the lock
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder() -> subprocess.Popen[str]:
    """A process that holds the lock of the folder `folder`, in a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLDER)],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_the_second_writer_is_told_of_the_first(holder: subprocess.Popen[str]) -> None:
    told = rf"folder is in use by process {holder.pid} on .* \(training fold 3\)"
    with pytest.raises(UserError, match=told), one_writer(Path("folder"), "dealing folds"):
        pass
    # It said so without disturbing the first.
    with pytest.raises(UserError, match=told), one_writer(Path("folder"), "dealing folds"):
        pass


def test_the_lock_dies_with_its_holder_whatever_its_children_do(
    holder: subprocess.Popen[str],
) -> None:
    holder.kill()
    holder.wait()
    with one_writer(Path("folder"), "dealing folds"):
        pass


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic(tmp_path / "a.csv") as file:
        name = Path(file.name) if isinstance(file.name, str) else None
        [left] = tmp_path.glob(".*")
        kept = left.with_name(f"kept{left.name}")
        kept.hardlink_to(left)
        raise RuntimeError
    assert name is None or not name.exists()
    kept.rename(left)  # as SIGKILL would have left it
    # Whatever looks like it and is someone else's.
    others = [tmp_path / name for name in ("mine.tmp", ".mine.tmp", f".link{left.name}")]
    for path in others[:2]:
        path.touch()
    others[2].symlink_to("mine.tmp")
    (tmp_path / f".folder{left.name}").mkdir()
    os.utime(left, (4e9, 4e9))  # a clock that was wrong changes nothing
    with one_writer(tmp_path, "testing"):
        assert not left.exists()
        assert all(path.exists() for path in others)


@pytest.mark.parametrize(
    "make",
    [
        lambda lock: lock.symlink_to("theirs"),
        lambda lock: lock.symlink_to("nowhere"),
        lambda lock: lock.symlink_to(".lock"),
        lambda lock: lock.symlink_to("/dev/null"),
        lambda lock: lock.hardlink_to("theirs"),
        lambda lock: lock.hardlink_to("empty"),
        lambda lock: lock.write_bytes(b"process 1\xff\n"),
        os.mkfifo,
        os.mkdir,
    ],
)
def test_what_is_not_its_own_in_the_place_of_a_lock_is_left_alone(
    make: Callable[[Path], object],
) -> None:
    Path("theirs").write_text("precious")
    Path("empty").touch()
    lock = Path(".lock")
    make(lock)
    before = lock.lstat()
    told = r"\.lock is a link, or another program's: move it"
    with pytest.raises(UserError, match=told), one_writer(Path(), "testing"):
        pass
    assert (lock.lstat().st_ino, lock.lstat().st_size) == (before.st_ino, before.st_size)
    assert Path("theirs").read_text() == "precious"
    assert Path("empty").stat().st_size == 0
    assert not Path("nowhere").exists()
