"""How many processors there are to use."""

import os


def count_processors() -> int:
    """Processors that this process may run on: in a container or a Slurm job fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
