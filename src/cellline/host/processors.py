"""The processors this process may use, and a way to use all of them."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# That threads may take together, unless a single one takes more.
MEMORY_BYTES = 1 << 30


def count_processors() -> int:
    """Number of processors this process may use: in a container or Slurm job, fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_in_order(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    workers: int | None = None,
    *,
    n_bytes: int = 1,
) -> Iterator[Result]:
    """Yield the function's result for each item, in order, computed by threads.

    By default there is one thread per processor, but fewer if a call takes so many bytes,
    `n_bytes`, that together they would take more than MEMORY_BYTES. At most one item or result
    more than there are threads is in memory. Threads pay where the work releases Python's lock.
    """
    workers = min(workers or count_processors(), max(1, MEMORY_BYTES // n_bytes))
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
