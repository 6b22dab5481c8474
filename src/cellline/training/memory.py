"""How much memory training needs and how much there is; what to do when it was not enough."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cellline.errors import UserError, first_line
from cellline.host.device import Device, gpu_is_full

# What a step takes beyond what is saved for the backward pass: gradients of layers, copies within
# kernels, and freed blocks that the allocator keeps. The last are of up to 32 MiB each (glibc's
# DEFAULT_MMAP_THRESHOLD_MAX), so they weigh most where little is needed. Measured, the estimate is
# 0.96 to 1.32 times what was taken: ten settings of four networks, 0.25 to 1.6 GB, one processor.
BEYOND_SAVED = 1.3
KEPT_BY_ALLOCATOR = 96 * 2**20


class TooLittleMemoryError(UserError):
    """A batch does not fit into memory."""


@dataclass(frozen=True)
class StepMemory:
    """What training takes in bytes, beyond the network and its average."""

    weights: int
    per_sample: int
    """Saved for the backward pass."""
    fixed: int
    """Saved however many samples there are."""

    def needed(self, batch_size: int) -> int:
        """With batches of this size."""
        saved = int(BEYOND_SAVED * (self.fixed + self.per_sample * batch_size))
        # AdamW's two moments; the gradients of the weights come as what was saved goes. In a step
        # of Muon they are its average, the gradients, and three copies on the way to the change.
        return 2 * self.weights + max(saved, 3 * self.weights) + KEPT_BY_ALLOCATOR

    def largest_batch(self, free: int) -> int | None:
        """The largest power of two that fits into `free` bytes; None where two samples don't."""
        size = 2
        if self.needed(size) > free:
            return None
        while self.needed(2 * size) <= free:
            size *= 2
        return size


def check_memory(
    network: nn.Module, device: Device, image_shape: tuple[int, ...], batch_size: int
) -> None:
    """Raise TooLittleMemoryError when training on the CPU would need more than is free.

    Of what is free, the processes that share the machine have equal parts.

    Linux grants more memory than there is, and later kills who uses it. Nothing is checked where
    the system doesn't tell what is free.
    """
    free = free_memory()
    if free is None:
        return
    free //= device.sharers
    step = measure_step(network, device, image_shape, free)
    needed = step.needed(batch_size)
    if needed > free:
        largest = step.largest_batch(free)
        if largest is None:
            raise even_few_samples(2, free)
        raise TooLittleMemoryError(
            f"a step of {batch_size} samples needs about {readable(needed)} of memory, "
            f"{readable(free)} are free; --batch-size {largest} fits"
        )


def even_few_samples(n_samples: int, free: int) -> TooLittleMemoryError:
    """The error where no batch size would help."""
    return TooLittleMemoryError(
        f"training needs more memory than the {readable(free)} that are free, even with "
        f"{n_samples} samples a step: try a smaller --network or --image-size"
    )


def measure_step(
    network: nn.Module, device: Device, image_shape: tuple[int, ...], free: int
) -> StepMemory:
    """What a training step of `network` takes, as two and three samples passed forward tell.

    `network` is on the CPU, `image_shape` is (channel, height, width). Nothing is changed: not the
    running statistics of batch normalization, nor the state of the random numbers. Raises
    TooLittleMemoryError as soon as more than `free` bytes are in use.
    """
    weights = list(network.parameters())
    training = network.training
    network.train()
    with torch.random.fork_rng(devices=()):
        two, three = (saved_bytes(network, device, (n, *image_shape), free) for n in (2, 3))
    network.train(training)
    return StepMemory(sum(weight.nbytes for weight in weights), three - two, 3 * two - 2 * three)


def saved_bytes(network: nn.Module, device: Device, shape: tuple[int, ...], free: int) -> int:
    """What a forward pass of images of this shape keeps for the backward pass, beside weights."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    own = {
        tensor.untyped_storage().data_ptr()
        for tensor in (*network.parameters(), *network.buffers(), *buffers.values())
    }
    saved: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        # Views, and what is computed in place, share a storage.
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        if sum(saved.values()) > free:
            raise MemoryError
        # Itself, an output would keep its own graph alive for good: a cycle that gc can't see.
        return tensor.detach()

    images = torch.zeros(shape, dtype=torch.uint8)
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    try:
        with explain_full_memory(), hooks, device.autocast():
            # The name keeps all that is saved alive, so that no address is used twice.
            _logits = torch.func.functional_call(network, buffers, (images,))
    except TooLittleMemoryError as error:
        raise even_few_samples(shape[0], free) from error
    return sum(saved.values())


def free_memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still use: the least of all limits; None where none is known.

    `root` holds Linux's `proc` and `sys`; other systems have neither.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.exists():
        return None
    machine = 1024 * read_numbers(meminfo)["MemAvailable"]
    return max(0, min((machine, *left_by_cgroups(root), *left_by_limits(root))))


def left_by_cgroups(root: Path) -> Iterator[int]:
    """What each control group that this process is in leaves, its parents' included.

    Pages of files that were read count as used, but are given up when memory is short.
    """
    membership = root / "proc/self/cgroup"
    for line in membership.read_text().splitlines() if membership.exists() else ():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, limit, used, of_files = "", "memory.max", "memory.current", ""
        elif "memory" in controllers.split(","):  # version 1
            mount, limit, used = "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            of_files = "total_"
        else:
            continue
        # In a container the path may be that of the host: then only the mount itself is there.
        mounted = root / "sys/fs/cgroup" / mount
        group = mounted / path.lstrip("/")
        for folder in (group, *group.parents):
            most = (folder / limit).read_text().strip() if (folder / limit).exists() else "max"
            if most != "max":
                stat = read_numbers(folder / "memory.stat")
                files = sum(stat[of_files + name] for name in ("inactive_file", "active_file"))
                yield int(most) - int((folder / used).read_text()) + files
            if folder == mounted:
                break


def left_by_limits(root: Path) -> Iterator[int]:
    """What this process's own limits leave (`ulimit -v` and `ulimit -d`)."""
    for limit, used in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        most = resource.getrlimit(limit)[0]
        if most != resource.RLIM_INFINITY:
            yield most - 1024 * read_numbers(root / "proc/self/status")[used]


def read_numbers(path: Path) -> dict[str, int]:
    """The lines that are a name and a number, as Linux writes them: `MemFree:  123 kB`."""
    rows = (line.replace(":", " ").split() for line in path.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


@contextmanager
def explain_full_memory() -> Iterator[None]:
    """Turn what is raised where memory ends into TooLittleMemoryError.

    A batch that fits the estimate may meet other processes, or kernels that need more. On the CPU
    it is not halved then: a training ends the same to the bit however often it is stopped, so it
    must not depend on what else runs in how many parts a batch is computed.
    """
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
            f"memory ended ({first_line(error)}). What was saved before is kept: end what else "
            "needs memory and give the same command again. Training takes less with a smaller "
            "--batch-size, in a run of its own (RUN=...)"
        ) from error


def more_parts(parts: int, n_samples: int, failure: str) -> int:
    """In how many parts to try `n_samples` after `parts`: twice as many, of at least two samples.

    Raises TooLittleMemoryError, which quotes `failure`, when there can be no more.
    """
    more = min(2 * parts, n_samples // 2)
    if more <= parts:
        raise TooLittleMemoryError(
            f"not even two or three samples fit into the GPU's memory ({failure}): end what else "
            "uses it, or try a smaller --network or --image-size"
        )
    return more


def readable(n_bytes: int) -> str:
    """Such as '1.5 GiB' or '210 MiB'."""
    gib = n_bytes / 2**30
    if gib < 1:
        return f"{n_bytes / 2**20:.0f} MiB"
    return f"{gib:.1f} GiB" if gib < 10 else f"{gib:.0f} GiB"
