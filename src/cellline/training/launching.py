"""Starting the processes that train one fold together on this machine: torchrun's work."""

import ctypes
import logging
import os
import signal
import sys
import tempfile

from cellline.host.processors import count_processors
from cellline.host.stopping import SIGNALS, Stopped

# Linux's number of what makes a process get a signal when its parent ends.
PR_SET_PDEATHSIG = 1

# For a step and a save, before what has not ended is killed.
SHUTDOWN_SECONDS = 60


def launched() -> bool:
    """Whether torchrun has started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def end_with_parent() -> None:
    """Get SIGTERM when torchrun is killed: it has put this process into a session of its own."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def launch(processes: int) -> None:
    """Run this script with its arguments in so many processes under torchrun, to their end.

    The first to fail ends the others, and this process with its status.
    """
    # torch takes seconds to import, and a mistyped setting need not wait for it.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # It reports on each process that it ends; what failed has told why itself.
    logging.disable(logging.CRITICAL)
    environment = {
        # It would give each process a single thread.
        "OMP_NUM_THREADS": str(max(1, count_processors() // processes)),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
    }
    if sys.platform == "linux":
        # The name of a machine without a network may lead nowhere.
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    # What is ignored stays so: SIGHUP under nohup.
    heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    with tempfile.TemporaryDirectory() as logs:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle=",".join(number.name for number in heard),
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)(*sys.argv)
        except SignalException as error:
            # The processes have got it as well.
            raise Stopped(error.sigval) from None
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode >= 0:
                sys.exit(failure.exitcode)
            name = signal.Signals(-failure.exitcode).name
            cause = ", as the system does where memory ends" if name == "SIGKILL" else ""
            print(
                f"error: process {rank} of {processes} was ended by {name}{cause}, and the others "
                "with it. What was saved is kept, and the same command goes on from there",
                file=sys.stderr,
            )
            sys.exit(128 - failure.exitcode)
