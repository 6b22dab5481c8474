"""The processes that train one fold together, and what they must agree on.

torchrun starts them and tells each its number, its rank; torch.distributed carries what they say.
A process that torchrun has not started is alone, and nothing here costs it anything.
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
from cellline.training.launching import launched

Value = TypeVar("Value")

# torchrun ends the others within a second after it has seen one fail; on other machines it may not.
GRACE_SECONDS = 5.0


class LostRankError(UserError):
    """Another of the processes has ended."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; by default it is alone."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among those on the same machine."""
    local_size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, which alone writes and prints."""
        return self.rank == 0

    def share(self, rows: np.ndarray) -> np.ndarray:
        """This rank's part of rows [n]: all ranks' parts, joined in order, are the rows again."""
        return np.array_split(rows, self.size)[self.rank]

    def gather(self, value: Value) -> list[Value]:
        """Every rank's value, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Value] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def of_first(self, make: Callable[[], Value]) -> Value:
        """What `make` returns on rank 0, where alone it is called."""
        if self.size == 1:
            return make()
        values = [make() if self.first else None]
        dist.broadcast_object_list(values)
        value: Value = values[0]  # type: ignore[assignment]
        return value

    def one_by_one(self, make: Callable[[], Value]) -> Value:
        """What `make` returns here, called on the first rank of each machine before the others."""
        if self.size == 1:
            return make()
        for turn in (True, False):
            if turn == (self.local_rank == 0):
                value = make()
            dist.barrier()
        return value

    def largest(self, number: int) -> int:
        """The largest of all ranks' numbers."""
        if self.size == 1:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def total(self, values: Tensor) -> Tensor:
        """The sum of all ranks' tensors, of one shape."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total)
        return total

    def check_same(self, what: dict[str, object]) -> None:
        """Raise UserError that names what is not the same on every rank."""
        for rank, theirs in enumerate(self.gather(what)):
            differ = [name for name in what if theirs[name] != what[name]]
            if differ:
                raise UserError(
                    f"ranks {self.rank} and {rank} have not the same {', '.join(differ)}: every "
                    "machine needs the same input, folds, version of the program and command"
                )

    def parallel(self, network: nn.Module, device: torch.device) -> nn.Module:
        """The network, whose gradients become the mean over the ranks in the backward pass."""
        if self.size == 1:
            return network
        # Strides along dimensions of one mean nothing.
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        devices = None if device.type == "cpu" else [device]
        return DistributedDataParallel(network, devices, gradient_as_bucket_view=True)

    @torch.no_grad()
    def average(self, tensors: list[Tensor]) -> None:
        """Make tensors, of any shapes, their mean over the ranks."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        means = (flat / self.size).split([tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view_as(tensor))


def running_statistics(network: nn.Module) -> list[Tensor]:
    """Batch normalization's running means and variances, which each rank counts on its share."""
    return [
        buffer
        for module in network.modules()
        if isinstance(module, _NormBase)
        for buffer in (module.running_mean, module.running_var)
        if buffer is not None
    ]


@contextmanager
def join_ranks() -> Iterator[Ranks]:
    """Meet the other processes that torchrun has started; alone without it.

    What ends rank 0 ends all ranks, and is told by it alone. What ends another rank is told by that
    one, unless rank 0 fails as well in that moment. Raises LostRankError where another rank has
    ended, after the time in which torchrun would end this one.
    """
    if not launched():
        yield Ranks()
        return
    ranks = Ranks(
        int(os.environ["RANK"]),
        int(os.environ["WORLD_SIZE"]),
        int(os.environ["LOCAL_RANK"]),
        int(os.environ["LOCAL_WORLD_SIZE"]),
    )
    if not ranks.first:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    try:
        with explain_lost_rank():
            dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
            yield ranks
    except Stopped as stopped:
        if ranks.first and stopped.number is None:
            raise
        # Who started them all has got the signal, too, and tells of it.
        sys.exit(stopped.status)
    except Exception as error:
        if not ranks.first or isinstance(error, LostRankError):
            await_end()
        raise
    dist.destroy_process_group()


@contextmanager
def explain_lost_rank() -> Iterator[None]:
    """Turn what is raised where another rank does not answer into LostRankError."""
    try:
        yield
    except RuntimeError as error:
        # gloo's errors have no type of their own, but name its source file.
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        raise LostRankError(
            f"another process of this training can't be reached ({first_line(error)}). If it has "
            "ended, see what it said; if there was no first epoch, whether GLOO_SOCKET_IFNAME "
            "names the right network. What was saved is kept, and the same command goes on"
        ) from error


def await_end() -> None:
    """Give torchrun the time to end this process."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(GRACE_SECONDS)
