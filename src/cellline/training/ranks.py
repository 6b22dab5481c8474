"""The processes that train one fold together, and the values that they exchange.

torch's launcher starts them and numbers them: a process's number is its rank. torch.distributed
carries their messages. A process started in another way is alone, at no cost.
"""

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from cellline.errors import UserError, first_line
from cellline.host.stopping import Stopped
from cellline.host.streams import silence
from cellline.training.launching import NUMBERS, STORE, launched

Value = TypeVar("Value")

# The launcher ends the others within a second of a failure; on other machines it may not.
GRACE_SECONDS = 5.0
# Where rank 0 is sure to report the same, on however busy a machine.
LONG_SECONDS = 60.0


class DifferError(UserError):
    """The ranks were given different settings or data; all of them raise it."""


class LostRankError(UserError):
    """Another of the processes has ended."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone.

    What exchanges values must be called by all of them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """The rank among those on the same machine."""
    local_size: int = 1

    @property
    def first(self) -> bool:
        """True for rank 0, which alone writes and prints."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This rank's part of rows [n]; the parts of all ranks, joined in order, are the rows."""
        return np.array_split(rows, self.size)[self.rank]

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        values: list[Value] = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def of_first(self, make: Callable[[], Value]) -> Value:
        """The result of `make` on rank 0, the only one that calls it."""
        values = [make() if self.first else None]
        if self.size > 1:
            dist.broadcast_object_list(values)
        value: Value = values[0]  # type: ignore[assignment]
        return value

    def local_first(self, make: Callable[[], Value]) -> Value:
        """The result of `make` here; the first rank of each machine calls it before the others."""
        if self.size == 1:
            return make()
        for turn in (True, False):
            if turn == (self.local_rank == 0):
                value = make()
            dist.barrier()
        return value

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        tensor = torch.tensor(number)
        if self.size > 1:
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def total(self, values: Tensor) -> Tensor:
        """The sum of all ranks' tensors, which have one shape."""
        if self.size > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def check_same(self, settings: dict[str, object]) -> None:
        """Raise DifferError that names the settings in which the ranks differ."""
        for rank, theirs in enumerate(self.gather(settings)):
            differ = [name for name in settings if theirs[name] != settings[name]]
            if differ:
                raise DifferError(
                    f"ranks {self.rank} and {rank} differ in {', '.join(differ)}: every machine "
                    "needs the same input, folds, weights, version of the program and command"
                )

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network, with gradients that are the mean over all ranks."""
        if self.size == 1:
            return network
        # Harmless: only dimensions of size 1 differ.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        devices = None if device.type == "cpu" else [device]
        return DistributedDataParallel(network, devices, gradient_as_bucket_view=True)

    @torch.no_grad()
    def average_statistics(self, network: nn.Module) -> None:
        """Average batch normalization's running statistics, which each rank has of its share."""
        if self.size == 1:
            return
        layers = [layer for layer in network.modules() if isinstance(layer, _NormBase)]
        buffers = [buffer for layer in layers for buffer in (layer.running_mean, layer.running_var)]
        statistics = [buffer for buffer in buffers if buffer is not None]
        if statistics:
            total = self.total(torch.cat(statistics))
            means = (total / self.size).split([len(tensor) for tensor in statistics])
            torch._foreach_copy_(statistics, means)


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Join the other processes that torch's launcher has started.

    A failure of rank 0 ends all ranks, and rank 0 alone reports it; another rank reports its own
    failure unless rank 0 fails at the same moment. Raises LostRankError if another rank has ended,
    after the time in which the launcher would end this one.
    """
    if not launched():
        yield Ranks()
        return
    ranks = Ranks(*(int(os.environ[name]) for name in NUMBERS))
    if not ranks.first:
        silence(sys.stdout)
    try:
        with explain_lost_rank():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
                init_method=f"file://{os.environ[STORE]}" if STORE in os.environ else "env://",
                rank=ranks.rank,
                world_size=ranks.size,
            )
            yield ranks
    except Stopped as stopped:
        leave_gloo()
        if ranks.first and stopped.number is None:
            raise
        # The launcher has received the signal too, and reports it.
        sys.exit(stopped.status)
    except Exception as error:
        if not ranks.first or isinstance(error, LostRankError):
            # Give the launcher the time to end this process.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(LONG_SECONDS if isinstance(error, DifferError) else GRACE_SECONDS)
        else:
            leave_gloo()
        raise
    dist.destroy_process_group()


def leave_gloo() -> None:
    """Destroy the process group, unless it has NCCL, which would wait for the other ranks.

    A gloo thread that still holds a tensor while the interpreter ends would abort the process
    (github.com/pytorch/pytorch/pull/179291).
    """
    if dist.is_initialized() and not torch.cuda.is_available():
        dist.destroy_process_group()


@contextmanager
def explain_lost_rank() -> Iterator[None]:
    """Within, errors raised because a rank can't be reached become LostRankError."""
    try:
        yield
    except RuntimeError as error:
        # gloo's errors have no type of their own, but name its source file.
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        raise LostRankError(
            f"another process of this training can't be reached ({first_line(error)}). If it has "
            "ended, see its own message; if not even one epoch was completed, check that "
            "GLOO_SOCKET_IFNAME names the right network. What was saved is kept; rerun the same "
            "command to resume"
        ) from error
