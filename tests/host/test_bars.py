import os
import pty
import select
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
from tqdm import tqdm

from cellline.host.progress import progress_bar, say
from cellline.host.stopping import Stopped

SOURCES = Path(__file__).resolve().parents[2] / "src"

# As Python is by itself, whatever the shell that started the tests says.
BUFFERED = {"PYTHONUNBUFFERED": ""}

# Counts two units of five, then waits until it is told to go on.
WORK = """
import sys
from cellline.host import progress

progress.LINE_SECONDS = 0
with progress.progress_bar("fold 0, epoch 3/20", 5, "step", shown={shown}) as advance:
    advance(0)
    advance(2)
    sys.stdin.readline()
    advance(2)
"""


def start(stderr: int, term: str = "xterm", *, shown: bool = True) -> subprocess.Popen[bytes]:
    """The work in a process of its own, its standard output in a file."""
    with Path("log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", WORK.format(shown=shown)],
            env={**os.environ, "PYTHONPATH": str(SOURCES), "TERM": term, **BUFFERED},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT if stderr == subprocess.STDOUT else stderr,
        )


def end(process: subprocess.Popen[bytes]) -> str:
    """Let the work go on; what is in the file when it has ended."""
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
    return Path("log").read_text()


def test_a_log_has_whole_lines_as_soon_as_they_are_known() -> None:
    process = start(subprocess.STDOUT)
    expected = b"fold 0, epoch 3/20: step 2 of 5 (40 %), about 0 s left\n"
    give_up = time.monotonic() + 60
    while Path("log").read_bytes() != expected and time.monotonic() < give_up:
        time.sleep(0.01)
    assert Path("log").read_bytes() == expected
    assert end(process).splitlines()[1].startswith("fold 0, epoch 3/20: step 4 of 5 (80 %), about ")
    assert b"\r" not in Path("log").read_bytes()


@pytest.mark.parametrize(
    ("term", "shown", "drawn", "printed"),
    [("xterm", True, True, 0), ("dumb", True, False, 2), ("xterm", False, False, 0)],
)
def test_a_terminal_has_a_bar_instead(term: str, shown: bool, drawn: bool, printed: int) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = start(theirs, term, shown=shown)
    os.close(theirs)
    seen = b""
    if drawn and select.select([ours], [], [], 60)[0]:
        seen = os.read(ours, 1000)
    lines = end(process).splitlines()
    with suppress(OSError):  # how Linux says that nobody has the other end open any more
        while part := os.read(ours, 1000):
            seen += part
    os.close(ours)
    assert (b"\rfold 0, epoch 3/20:" in seen) is drawn
    assert bool(seen) is drawn
    assert len(lines) == printed


def test_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    # Resumed after 100 steps of 3 s each.
    with progress_bar("fold 0", 200, "step", done=100) as advance:
        for _ in range(100):
            clock += 3
            advance(1)
    assert capsys.readouterr().out.splitlines() == [
        "fold 0: step 120 of 200 (60 %), about 4 min left",
        "fold 0: step 140 of 200 (70 %), about 3 min left",
        "fold 0: step 160 of 200 (80 %), about 2 min left",
        "fold 0: step 180 of 200 (90 %), about 1 min left",
    ]


def test_a_signal_while_a_line_waits_to_be_printed_ends_as_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted() -> None:
        raise Stopped(15)

    monkeypatch.setattr(tqdm.get_lock(), "acquire", interrupted)
    with pytest.raises(Stopped):
        say("a line")
