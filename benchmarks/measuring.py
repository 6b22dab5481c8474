"""Figures of speed and memory that can be believed.

Other programs run beside these, and a processor slows down when it is warm. So the candidates take
turns, and what is compared is compared within a round.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """A row of the table: what was measured, once a round."""

    name: str
    unit: str
    values: tuple[float, ...]
    """One a round; a single one of what does not vary, such as a count."""
    note: str = ""
    """What a reader must know to understand the figure."""
    share: tuple[float, ...] = ()
    """A round: of what matrix multiplication reaches; empty where operations were not counted."""

    @property
    def median(self) -> float:
        """The figure itself: half of the rounds were below."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest value."""
        return min(self.values), max(self.values)


def alternate(
    candidates: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    after_round: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each candidate in each round: A B C, A B C, ..., after one round that is untimed.

    A candidate that leaves work to a GPU must wait for it before it returns. `after_round` is
    called after the untimed round, too.
    """
    for run in candidates.values():
        run()
    after_round()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
        after_round()
    return seconds


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """The quotients round by round: what slows a whole round cancels out."""
    return [above / below for above, below in zip(numerators, denominators, strict=True)]


def compare(above: Figure, below: Figure) -> Figure:
    """How many times the one figure is the other, round by round."""
    return Figure(f"{above.name} / {below.name}", "x", tuple(ratios(above.values, below.values)))


def peak_memory(function: Callable[..., object], *arguments: object) -> int:
    """Most bytes that a fresh process had in memory when it had run `function(*arguments)`.

    `function` must be a module's, `arguments` such as can be pickled; the processes that it starts
    are not counted. Linux only. Raises RuntimeError where the process fails; its traceback is
    printed.
    """
    # A forked process would begin with this one's memory.
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_report_peak, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        peak: int = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__} ended with status {process.exitcode}") from None
    process.join()
    return peak


def _report_peak(
    sender: Connection, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    function(*arguments)
    # Not getrusage's ru_maxrss, which on Linux survives exec: at its start it is the parent's.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    sender.send(int(line.split()[1]) * 1024)
