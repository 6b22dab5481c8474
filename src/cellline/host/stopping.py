"""Stopping early without losing work: Ctrl-C, SIGTERM, and a time limit."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# As close to the start of the process as possible: cli.py imports this before torch.
STARTED = time.monotonic()

# SIGTERM comes when a machine is reclaimed, SIGHUP when a terminal is closed.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Smaller than any signal's code, so that a signal takes precedence.
TIME_IS_UP = 1


class Stopped(BaseException):
    """The work stopped early; whatever needed saving is saved. Not an error, hence no Exception."""

    def __init__(self, number: int | None = None) -> None:
        """`number` is the signal that asked for it; None if the time was up."""
        super().__init__(number)
        self.number = number

    @property
    def why(self) -> str:
        """The reason, such as 'SIGTERM'."""
        return "the time is up" if self.number is None else signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """The exit status: 128 plus the signal's number, by convention; 0 if the time was up."""
        return 0 if self.number is None else 128 + self.number


class Stop:
    """The request to stop: by a signal, or because the next step could exceed the time limit."""

    def __init__(self, max_minutes: float | None = None) -> None:
        """The time counts from the start of the process."""
        # Maps this process's code to the largest of all processes that must stop at the same step.
        self.agree: Callable[[int], int] = int
        # The answer to the first signal.
        self.notice = "finishing the step; press Ctrl-C again to exit at once, without saving"
        self.deadline = None if max_minutes is None else STARTED + 60 * max_minutes
        self.number: int | None = None
        self.checked: float | None = None
        self.longest = 0.0

    def check(self) -> None:
        """Raise Stopped if it is time to; call this where the state can be saved.

        Twice the longest time between two calls, saving included, is reserved before the deadline:
        once for the work until the next call, once for saving.
        """
        reason = self.agree(self.look())
        if reason:
            raise Stopped(None if reason == TIME_IS_UP else reason - TIME_IS_UP)

    def look(self) -> int:
        """Code of the reason to stop: TIME_IS_UP, or that plus a signal's number; 0 if none."""
        if self.number is not None:
            return TIME_IS_UP + self.number
        now = time.monotonic()
        if self.checked is not None:
            self.longest = max(self.longest, now - self.checked)
        self.checked = now
        is_up = self.deadline is not None and now + 2 * self.longest >= self.deadline
        return TIME_IS_UP if is_up else 0

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Leave the first signal to `check`; a later Ctrl-C ends the process at once.

        A second SIGTERM does not: make forwards to its child a signal that the whole process group
        has already received.
        """

        def remember(number: int, frame: FrameType | None) -> None:
            if self.number is not None:
                if number == signal.SIGINT:
                    os._exit(128 + number)
                return
            self.number = number
            # Not print(), which the signal may have interrupted. A terminal that was closed sends
            # SIGHUP and takes no notice.
            if self.notice:
                with suppress(OSError):
                    os.write(2, f"\n{self.notice}\n".encode())

        with _handling(remember):
            yield


@contextmanager
def stop_at_signals() -> Iterator[None]:
    """Raise Stopped at a signal, wherever the process is: for work that needs no saving."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handling(leave):
        yield


def leave_to_parent(worker: int) -> None:
    """Leave signals to the parent, in a worker process: a terminal, or Slurm, sends them to all.

    SIGTERM from the parent still ends the worker: multiprocessing ends its workers that way when
    the parent fails, and waits for them without a limit.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # other systems do not name the sender, and SIGTERM ends the worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    parent = multiprocessing.parent_process()  # not getppid(): a fork server is in between
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # Ignored signals stay ignored: SIGHUP under nohup, SIGINT in a script's background.
    for number, previous in before.items():
        if previous != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
