"""When memory ends: smaller parts on a GPU, else a message that says what to do."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from cellline.errors import Caution, UserError, first_line
from cellline.host.device import gpu_is_full
from cellline.host.progress import say
from cellline.training.batches import Batch


class TooLittleMemoryError(UserError):
    """A batch does not fit into memory."""


class Parts:
    """The number of parts that batches are computed in, so that each fits a GPU's memory.

    A CPU's memory is left alone: how much is free depends on other processes, and a training must
    end with the same bits whatever else runs.
    """

    def __init__(self, network: nn.Module) -> None:
        self.count = 1
        self.network = network
        self.buffers = list(network.buffers())
        self.before = [buffer.clone() for buffer in self.buffers]

    def backward(
        self, backward: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Leave a batch's gradients with the network; return the batch's loss and logits.

        `backward` adds the gradients of one part. If the GPU's memory ends, the batch is computed
        again in twice as many parts, as are all later ones. Raises TooLittleMemoryError if parts of
        two samples are too large.
        """
        torch._foreach_copy_(self.before, self.buffers)
        while True:
            self.network.zero_grad()
            try:
                losses, logits = zip(*map(backward, batch.split(self.count)), strict=True)
                return torch.stack(losses).sum(), torch.cat(logits)
            except RuntimeError as error:
                # Other ranks may have added up half of the gradients already.
                if not gpu_is_full(error) or batch.is_share:
                    raise
                failure = first_line(error)
            # Not in the except block, where the exception still holds the memory of what it ended.
            torch._foreach_copy_(self.buffers, self.before)
            n_samples = len(batch.labels)
            if self.count >= n_samples // 2:
                raise TooLittleMemoryError(
                    f"two or three samples are too many for the GPU's memory ({failure}): end "
                    "other programs that use it, or try a smaller --network or --image-size"
                )
            self.count = min(2 * self.count, n_samples // 2)
            say(
                Caution(
                    f"{n_samples} samples at once do not fit into the GPU's memory: from now on a "
                    f"step computes them in {self.count} parts. The batch size stays the same, "
                    "but batch normalization uses the statistics of each part"
                )
            )


@contextmanager
def explain_full_memory() -> Iterator[None]:
    """Within, the errors that end of memory raises become TooLittleMemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not (
            isinstance(error, MemoryError)
            or "DefaultCPUAllocator: can't allocate memory" in str(error)
            or gpu_is_full(error)
        ):
            raise
        raise TooLittleMemoryError(
            f"out of memory ({first_line(error)}). What was saved before is kept: end other "
            "programs that need memory and rerun the same command. Or start another run (--run) "
            "with a smaller --batch-size, which needs less"
        ) from error
