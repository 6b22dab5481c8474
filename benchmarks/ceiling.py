"""What the hardware could do: matrix products, and the operations that a network needs."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.case import N_CLASSES
from benchmarks.measuring import Figure, alternate
from benchmarks.reference import plain_network
from cellline.host.device import DTYPES, Device
from cellline.training.progress import synchronize

PRODUCT = "matrix product"
# Sides of square matrices. On two Zen 3 cores those of 512 to 3072 agree within 3 %.
SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}
# Long enough for the clock, and for the processor to be as warm as the others make it.
SECONDS = 0.5


class MatrixProduct:
    """Multiplies square matrices on all cores, in the device's precision, for about SECONDS."""

    def __init__(self, device: Device) -> None:
        """Tries which side is fastest."""
        self.device = device
        self.repeats = 1
        sides = SIDES.get(device.device.type, SIDES["cpu"])
        seconds = dict.fromkeys(sides, math.inf)
        for self.side in sides:
            self.allocate()
            seconds[self.side] = statistics.median(alternate({"it": self}, 2)["it"])
        self.side = max(sides, key=lambda side: side**3 / seconds[side])
        self.repeats = math.ceil(SECONDS / seconds[self.side])
        self.allocate()

    def allocate(self) -> None:
        """Make matrices of the side."""
        self.left, self.right, self.result = (
            torch.randn(
                (self.side, self.side),
                dtype=DTYPES[self.device.precision],
                device=self.device.device,
            )
            for _ in range(3)
        )

    def per_second(self, seconds: Sequence[float]) -> list[float]:
        """Operations (a multiplication and an addition are two) a second, in calls of `seconds`."""
        return [2 * self.side**3 * self.repeats / duration for duration in seconds]

    def figure(self, ceiling: Sequence[float]) -> Figure:
        """The row of the ceiling itself, of what `per_second` returned."""
        note = (
            f"square matrices of {self.side}, {self.device.precision}, on all cores: the ceiling. "
            "The operations of torchvision's network are counted, whichever computes the same"
        )
        return Figure(PRODUCT, "GFLOP/s", tuple(rate / 1e9 for rate in ceiling), note)

    def __call__(self) -> None:
        """Multiply, and wait until it is done."""
        for _ in range(self.repeats):
            torch.matmul(self.left, self.right, out=self.result)
        synchronize(self.device)


def measure_rate(
    name: str,
    unit: str,
    count: int,
    seconds: Sequence[float],
    operations: float,
    ceiling: Sequence[float],
    note: str,
) -> Figure:
    """A row of rates: `count` in so many seconds a round, each of them so many operations.

    `ceiling` is what could be computed in a second, a round.
    """
    values = tuple(count / duration for duration in seconds)
    pairs = zip(values, ceiling, strict=True)
    return Figure(name, unit, values, note, tuple(rate * operations / most for rate, most in pairs))


def count_operations(network: str, image_size: int, *, backward: bool) -> float:
    """Of one sample, in convolutions and matrix products, by torch's counter.

    Those of torchvision's network as it is written: a network that computes the same with fewer
    operations has no smaller share of the ceiling for it.
    """
    n_samples = 2  # batch normalization has nothing to average over in one
    with torch.device("meta"):
        model = plain_network(network, N_CLASSES)
        images = torch.empty((n_samples, 3, image_size, image_size))
    with FlopCounterMode(display=False) as counter:
        loss = model(images).sum()
        if backward:
            loss.backward()
    return float(counter.get_total_flops()) / n_samples
