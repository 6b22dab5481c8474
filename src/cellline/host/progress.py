"""Progress of long work: a bar on a terminal, an occasional line in a log."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from cellline.errors import Caution
from cellline.host.streams import silence

# Between the lines of a log. A person who looks at it soon sees whether it moves, and the watchdogs
# of clusters and CI that end a silent job wait for ten minutes or longer.
LINE_SECONDS = 60.0


@contextmanager
def progress_bar(
    title: str, total: int, unit: str, *, done: int = 0, shown: bool = True
) -> Iterator[Callable[[int], object]]:
    """Show the progress of the work inside; yields a function to call with newly done units.

    `done` of the `total` units were done before. If stderr is not a terminal that can rewrite a
    line, a line is printed on stdout at most every LINE_SECONDS instead.
    """
    if not shown:
        yield lambda units: None
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with tqdm(desc=title, total=total, unit=f" {unit}", initial=done, leave=False) as bar:
            yield bar.update
    else:
        yield Lines(title, total, unit, done).advance


class Lines:
    """Progress as lines, such as 'fold 0, epoch 3/20: step 120 of 197 (61 %), about 4 min left'."""

    def __init__(self, title: str, total: int, unit: str, done: int) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self.before = done
        self.started = self.printed = time.monotonic()

    def advance(self, units: int) -> None:
        """Count units, and print a line if the last one is long ago; none at the end."""
        self.done += units
        now = time.monotonic()
        if now - self.printed < LINE_SECONDS or not self.before < self.done < self.total:
            return
        self.printed = now
        left = (now - self.started) * (self.total - self.done) / (self.done - self.before)
        say(
            f"{self.title}: {self.unit} {self.done} of {self.total} "
            f"({100 * self.done / self.total:.0f} %), about {duration(left)} left"
        )


def say(line: str) -> None:
    """Print a line on stdout, see `render`, without breaking a bar.

    If that fails, because a disk is full or nobody reads it any more, work goes on without: it
    leaves files. A verb that leaves none must print().
    """
    try:
        # tqdm's own locking fails where a signal ends the wait for the lock: it releases it anyway.
        with tqdm.get_lock():
            tqdm.write(render(line), file=sys.stdout, nolock=True)
        sys.stdout.flush()
    except OSError as error:
        silence(sys.stdout)
        with suppress(OSError):
            print(
                f"warning: what this prints can't be written: {error.strerror}; going on without",
                file=sys.stderr,
            )


def render(line: str) -> str:
    """A line as it is printed: a Caution after "warning:"."""
    return f"warning: {line}" if isinstance(line, Caution) else line


def duration(seconds: float) -> str:
    """A duration such as '12 s', '7 min' or '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
