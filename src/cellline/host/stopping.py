"""Ending early without losing anything: Ctrl-C, SIGTERM, and a limit of time."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

# As near to the process's start as can be: cli.py imports this before torch, which takes seconds.
STARTED = time.monotonic()

# A machine that is taken away sends SIGTERM, a terminal that is closed SIGHUP.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# Less than what stands for any signal, so that a signal goes first.
TIME_IS_UP = 1


class Stopped(BaseException):
    """The work has ended early, and what it had is saved. Not an error, and no Exception."""

    def __init__(self, number: int | None = None) -> None:
        """`number` of the signal that asked for it; None where the time was up."""
        super().__init__(number)
        self.number = number

    @property
    def why(self) -> str:
        """Such as 'SIGTERM'."""
        return "the time is up" if self.number is None else signal.Signals(self.number).name

    @property
    def status(self) -> int:
        """The exit status: by custom 128 and the signal's number; 0 where the time was up."""
        return 0 if self.number is None else 128 + self.number


class Stop:
    """Whether to end: asked for by a signal, or because the next step could take too long."""

    def __init__(self, max_minutes: float | None = None) -> None:
        """The time runs from the process's start."""
        # Where several processes must end at the same step: the largest of all their numbers.
        self.agree: Callable[[int], int] = int
        # What the first signal is answered with.
        self.notice = "finishing the step, then saving; Ctrl-C to leave at once"
        self.deadline = None if max_minutes is None else STARTED + 60 * max_minutes
        self.number: int | None = None
        self.checked: float | None = None
        self.longest = 0.0

    def check(self) -> None:
        """Raise Stopped if it is time to; call where the state can be saved.

        Twice the longest time between two calls, saving included, is left before the deadline: for
        what comes until the next call, and for saving.
        """
        reason = self.agree(self.look())
        if reason:
            raise Stopped(None if reason == TIME_IS_UP else reason - TIME_IS_UP)

    def look(self) -> int:
        """Why to end: TIME_IS_UP, or a signal's number beyond it; 0 where there is no reason to."""
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
        """Within, the first signal is left to `check`; a Ctrl-C after it ends the process at once.

        Another SIGTERM does not: make passes on to its child what the whole group has got already.
        """

        def remember(number: int, frame: FrameType | None) -> None:
            if self.number is not None:
                if number == signal.SIGINT:
                    os._exit(128 + number)
                return
            self.number = number
            # Not print(), which a signal may have interrupted.
            if self.notice:
                os.write(2, f"\n{self.notice}\n".encode())

        with _handling(remember):
            yield


@contextmanager
def stop_at_signals() -> Iterator[None]:
    """Within, a signal raises Stopped wherever the process is: for work that keeps itself whole."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    with _handling(leave):
        yield


def leave_to_parent(worker: int = 0) -> None:
    """Leave signals to the parent, in a worker process: a terminal, or Slurm, sends them to all.

    The parent's own SIGTERM ends the worker: so does multiprocessing end those that are left when
    a fault ends the parent, and it waits for their end without a limit.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":  # elsewhere nothing tells who sent it, and it ends the worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    parent = multiprocessing.parent_process()  # not getppid(): a fork server is between them
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    # What is ignored stays so: SIGHUP under nohup, SIGINT in a script's background.
    for number, previous in before.items():
        if previous != signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
