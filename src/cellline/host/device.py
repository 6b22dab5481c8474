"""The device, its fastest native precision, and the layout of networks on it."""

import ctypes
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional

from cellline.config import Machine
from cellline.errors import UserError, first_line
from cellline.host.processors import count_processors

Network = TypeVar("Network", bound=nn.Module)

# glibc's numbers of two settings of mallopt, and the largest value of the second.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Device:
    """A device and the precision to compute in."""

    device: torch.device
    precision: str
    workers: int

    def autocast(self) -> AbstractContextManager[None]:
        """Compute convolutions and products in `precision`, the rest in float32."""
        return torch.autocast(
            self.device.type, DTYPES[self.precision], enabled=self.precision != "float32"
        )

    def place(self, network: Network) -> Network:
        """Move a network to the device, channels last.

        DenseNet-161 (64 px, batch 64, float32, two Zen 3 cores) trains 22 samples/s channels last
        and 14 contiguous; tensor cores need the layout as well.
        """
        network.to(self.device)
        network.to(memory_format=torch.channels_last)
        return network

    @property
    def name(self) -> str:
        """The device's name, such as 'cuda (NVIDIA H100)'."""
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return str(self.device)

    def describe(self) -> str:
        """Name and precision, such as 'cuda (NVIDIA H100), bfloat16'."""
        return f"{self.name}, {self.precision}"


def choose_device(machine: Machine, local_rank: int = 0, sharers: int = 1) -> Device:
    """The device and precision that the settings ask for, tested by a computation.

    Of `sharers` processes that train together on this machine, that of `local_rank` gets the GPU of
    that number. On a CPU, the process keeps freed memory from then on. Raises UserError for a
    device that torch lacks, can't compute on or can't share, and for a precision that it lacks.
    """
    name = machine.device
    if name == "auto":
        backends = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        name = next((backend for backend, there in backends.items() if there), "cpu")
    if sharers > 1:
        name = one_of_several(name, local_rank, sharers)
    version = f"torch {torch.__version__}"
    try:
        device = torch.device(name)
        plain = Device(device, "float32", choose_workers(machine, device, sharers))
        try_out(plain)
    except (RuntimeError, AssertionError, ImportError) as error:
        # "auto" does not fall back to the CPU either: it needs days for the hours of a GPU, which a
        # GPU's owner would notice in the morning.
        raise UserError(
            f"--device {name}: {version} can't compute on it: {first_line(error)}. Install a torch "
            "that is built for it (https://pytorch.org/get-started/locally), use another GPU, or, "
            "many times slower, --device cpu"
        ) from error
    if device.type == "cpu":
        keep_freed_memory()
    precision = native_precision(device) if machine.precision == "auto" else machine.precision
    chosen = replace(plain, precision=precision)
    try:
        try_out(chosen)
    except RuntimeError as error:
        raise UserError(
            f"--precision {precision}: {version} can't compute in it on {plain.name}: "
            f"{first_line(error)}. Try --precision float32"
        ) from error
    return chosen


def one_of_several(name: str, local_rank: int, sharers: int) -> str:
    """The device of one of `sharers` processes: a GPU of its own, or the CPU that all share.

    Raises UserError if there are too few GPUs, or for another kind of device.
    """
    if name == "cpu":
        return name
    if name != "cuda":
        raise UserError(
            f"--device {name}: {sharers} processes can't share it. Give --device cuda (a GPU for "
            "each) or cpu, or train in one process (without --gpus)"
        )
    if torch.cuda.device_count() < sharers:
        raise UserError(
            f"--gpus {sharers}: this machine has {torch.cuda.device_count()}, and each process "
            "needs its own"
        )
    return f"cuda:{local_rank}"


def try_out(device: Device) -> None:
    """Compute a convolution on the device. Raises RuntimeError if that fails.

    A torch that is not built for a GPU reports it as available and moves tensors to it; only its
    kernels are missing. They run asynchronously and fail when their result is fetched.
    """
    ones = torch.ones((2, 3, 8, 8), device=device.device)
    with device.autocast():
        result = functional.conv2d(ones, ones)
    result.sum().item()
    # On a system too old for a precision, autocast warns and computes in float32.
    if result.dtype != DTYPES[device.precision]:
        raise RuntimeError(f"it was computed in {result.dtype} instead")


def keep_freed_memory() -> None:
    """Keep the memory that a step frees for the next one, if the C library is glibc.

    glibc otherwise returns it to the system, which zeroes it page by page when it is requested
    again: 50,000 times in a step of DenseNet-161 with 64 samples of 64 px, 5 % of its time. Peak
    memory stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)


def gpu_is_full(error: BaseException) -> bool:
    """True if this error means that a GPU is out of memory."""
    # MPS has no type of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def native_precision(device: torch.device) -> str:
    """The fastest precision that the device computes in hardware.

    bfloat16 precedes float16, since it needs no loss scaling. A CPU without the instructions
    emulates it: 1.7 samples/s against float32's 22 on Zen 3. Apple's MPS stays at float32: nothing
    else was measured there.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if bfloat16 else "float16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"):
            return "bfloat16"
    return "float32"


def choose_workers(machine: Machine, device: torch.device, sharers: int) -> int:
    """Number of loader processes: none on a CPU, where they would compete with the training."""
    if machine.workers is not None:
        return machine.workers
    if device.type == "cpu":
        return 0
    return max(0, min(8, count_processors() // sharers - 1))
