"""The device, its fastest native precision, and how a network is laid out on it."""

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

# glibc's numbers of what mallopt sets, and the most that it takes for the second.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Device:
    """Where and how precisely to compute."""

    device: torch.device
    precision: str
    workers: int

    def autocast(self) -> AbstractContextManager[None]:
        """Computes convolutions and products in `precision`, the rest in float32."""
        return torch.autocast(
            self.device.type, DTYPES[self.precision], enabled=self.precision != "float32"
        )

    def place(self, network: Network) -> Network:
        """Move a network here, channels last.

        Measured on two Zen 3 cores, DenseNet-161, 64 px, batch 64, float32: 22 samples/s channels
        last against 14 contiguous; tensor cores want the layout as well.
        """
        network.to(self.device)
        network.to(memory_format=torch.channels_last)
        return network

    @property
    def name(self) -> str:
        """Such as 'cuda (NVIDIA H100)'."""
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return str(self.device)

    def describe(self) -> str:
        """Such as 'cuda (NVIDIA H100), bfloat16'."""
        return f"{self.name}, {self.precision}"


def choose_device(machine: Machine, local_rank: int = 0, sharers: int = 1) -> Device:
    """The device and precision that the settings ask for, tried out.

    Of `sharers` processes that train together on this machine, the one of `local_rank` gets the GPU
    of that number. On a CPU, the process keeps the memory that it frees from then on.
    Raises UserError for a device that torch does not have here, or can't compute on, or that the
    processes can't share, and for a precision that the device can't compute in.
    """
    name = machine.device
    if name == "auto":
        if torch.cuda.is_available():
            name = "cuda"
        else:
            name = "mps" if torch.backends.mps.is_available() else "cpu"
    if sharers > 1:
        name = one_of_several(name, local_rank, sharers)
    version = f"torch {torch.__version__}"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise UserError(
            f"--device {name}: {version} can't use it: {first_line(error)}; try --device cpu"
        ) from error
    plain = Device(device, "float32", choose_workers(machine, device, sharers))
    try:
        try_out(plain)
    except RuntimeError as error:
        # Not even by default is the CPU taken instead: it needs days for what a GPU does in hours,
        # which whoever has a GPU would notice in the morning.
        raise UserError(
            f"--device {name}: {version} can't compute on {plain.name}: {first_line(error)}. "
            "Install a torch that is built for it (https://pytorch.org/get-started/locally), use "
            "another GPU, or, many times slower, --device cpu"
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
    """The device of one of `sharers` processes, each of which has a GPU of its own, or all the CPU.

    Raises UserError where that can't be.
    """
    if name == "cpu":
        return name
    if name != "cuda":
        raise UserError(
            f"--device {name}: {sharers} processes can't share it. Give --device cuda (each takes "
            "a GPU of its own) or cpu, or train in one process (without --gpus)"
        )
    if torch.cuda.device_count() < sharers:
        raise UserError(
            f"--gpus {sharers}: there are {torch.cuda.device_count()} here, and each process needs "
            "one of its own"
        )
    return f"cuda:{local_rank}"


def try_out(device: Device) -> None:
    """Compute a convolution and its sum there. Raises RuntimeError where that fails.

    A torch that is not built for a GPU finds it, says that it is available, and puts tensors on
    it; what it lacks are the kernels. They run behind the program's back, so that their failure
    comes with their result.
    """
    ones = torch.ones((2, 3, 8, 8), device=device.device)
    with device.autocast():
        result = functional.conv2d(ones, ones)
    result.sum().item()
    # Where a system is too old for a precision, autocast warns and computes in float32.
    if result.dtype != DTYPES[device.precision]:
        raise RuntimeError(f"it was computed in {result.dtype} instead")


def keep_freed_memory() -> None:
    """Keep what a step frees for the next one, where the C library is glibc.

    It gives freed memory back to the system, which must fill it with zeros, page by page, when it
    is asked for again: 50,000 times a step of DenseNet-161 with 64 samples of 64 px, 5 % of its
    time. What a process takes at most stays what it was.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, -1)
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)


def gpu_is_full(error: BaseException) -> bool:
    """Whether this is raised where a GPU's memory ends."""
    # MPS has no type of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error)


def native_precision(device: torch.device) -> str:
    """The fastest precision that the device computes in hardware.

    bfloat16 needs no loss scaling, so it goes before float16. A CPU without the instructions
    emulates it: 1.7 samples/s against float32's 22 on Zen 3. Apple's MPS stays at float32: nothing
    else was measured there.
    """
    if device.type == "cuda":
        bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return "bfloat16" if bfloat16 else "float16"
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        if has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"):
            return "bfloat16"
    return "float32"


def choose_workers(machine: Machine, device: torch.device, sharers: int) -> int:
    """Loader processes: none on CPU, where they would take the cores that train."""
    if machine.workers is not None:
        return machine.workers
    if device.type == "cpu":
        return 0
    return max(0, min(8, count_processors() // sharers - 1))
