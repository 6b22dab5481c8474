"""Several processes on this machine that train one fold together, started by torch's launcher."""

import ctypes
import logging
import os
import signal
import sys
import tempfile

from cellline.host.processors import count_processors
from cellline.host.stopping import SIGNALS, Stopped

# Names the file by which the processes of one machine find each other: nothing listens for them on
# a network. Absent under torchrun itself, whose processes may be on several machines.
STORE = "CELLLINE_STORE"

# Variables in which torch's launcher numbers a process, in the order of the fields of Ranks.
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")

# Linux's option of prctl for a signal at the parent's end.
PR_SET_PDEATHSIG = 1

# Enough for a step and a save; then a process that has not ended is killed.
SHUTDOWN_SECONDS = 60


def launched() -> bool:
    """True in a process that torch's launcher has started."""
    # Other launchers set some of these: Lightning, Slurm, notebooks.
    return {"TORCHELASTIC_RUN_ID", *NUMBERS} <= os.environ.keys()


def end_with_parent() -> None:
    """Get SIGTERM if the launcher is killed, which has put this process into its own session."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def launch(processes: int) -> None:
    """Run this script with its arguments in several processes, to their end.

    The first that fails ends the others, and this process with the same status.
    """
    # Importing torch takes seconds: a mistyped setting is found before.
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    # The launcher reports each process that it ends; the one that failed has said why.
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            STORE: f"{folder}/store",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            # By default each process gets a single thread.
            "OMP_NUM_THREADS": str(max(1, count_processors() // processes)),
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS),
        }
        if sys.platform == "linux":
            environment |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
        for name, value in environment.items():
            os.environ.setdefault(name, value)
        # Ignored signals stay ignored, such as SIGHUP under nohup.
        heard = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=str(os.getpid()),
            rdzv_backend="c10d",
            rdzv_endpoint=f"{folder}/rendezvous",
            rdzv_configs={"store_type": "file"},
            local_addr="localhost",
            max_restarts=0,
            signals_to_handle=",".join(number.name for number in heard),
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            elastic_launch(config, sys.executable)(*sys.argv)
        except SignalException as error:
            # The launcher has passed the signal on.
            raise Stopped(error.sigval) from None
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            if failure.exitcode >= 0:
                sys.exit(failure.exitcode)
            name = signal.Signals(-failure.exitcode).name
            cause = " (often the system's answer to full memory)" if name == "SIGKILL" else ""
            print(
                f"error: process {rank} of {processes} was ended by {name}{cause}, and the others "
                "with it. What was saved is kept; rerun the same command to resume",
                file=sys.stderr,
            )
            sys.exit(128 - failure.exitcode)
