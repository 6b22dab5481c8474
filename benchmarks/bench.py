"""make bench: how fast everything is on this machine, beside what it could be."""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torchvision.models import list_models

from benchmarks import decoding, memory, prediction, startup, training
from benchmarks.case import N_CLASSES, Case
from benchmarks.measuring import Figure
from benchmarks.table import Section, as_json, describe_machine, render_machine, render_table
from cellline.config import Machine
from cellline.errors import UserError
from cellline.host.device import Device, choose_device
from cellline.host.files import write_json
from cellline.host.progress import duration

Part = Literal["training", "prediction", "memory", "decoding", "start-up"]
PARTS: tuple[Part, ...] = ("training", "prediction", "memory", "decoding", "start-up")
# What each takes on two Zen 3 cores, by default; the time left is told by their proportions.
SECONDS = {"training": 180, "prediction": 130, "memory": 30, "decoding": 30, "start-up": 60}

SIZES = {"cpu": (64,), "gpu": (64, 128)}
BATCHES = {"cpu": (64,), "gpu": (64, 256)}
# Two at least: the optimizer's state is there from the first one's end. A GPU's take milliseconds.
STEPS = {"cpu": 2, "gpu": 100}


@dataclass(frozen=True)
class Bench:
    """Settings of `make bench`."""

    network: str = "densenet161"
    """A DenseNet of torchvision, or densenet_tiny (for tests)."""
    image_size: int | None = None
    """Side of the images in pixels; by default 64, and on a GPU 128 as well."""
    batch_size: int | None = None
    """Samples a step; by default 64, and on a GPU 256 as well."""
    steps: int | None = None
    """That each candidate trains in its turn; by default 2, on a GPU 100."""
    rounds: int = 5
    """Turns that are timed, after one that is not."""
    parts: tuple[Part, ...] = PARTS
    """What to measure."""
    device: str = "auto"
    """auto (CUDA, else Apple's MPS, else CPU) or torch's name of one, such as cuda:1."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of all but the reference loop; auto is the fastest that the device has."""
    output: Path = Path("benchmarks/results.json")
    """Where every value is written; what was there is overwritten."""


@dataclass(frozen=True)
class Job:
    """A section of the table that is to be measured."""

    title: str
    measure: Callable[[Callable[[], object]], list[Figure]]
    """Calls what it is given as often as `turns` says."""
    turns: int
    seconds: float
    """That a turn is expected to take."""


def check_settings(settings: Bench) -> None:
    """Raise UserError for a setting that nothing can be measured with."""
    known = ("densenet_tiny", *list_models(include="densenet*"))
    if settings.network not in known:
        raise UserError(f"--network {settings.network}: measured are {', '.join(known)}")
    least = {"--rounds": (settings.rounds, 1), "--steps": (settings.steps, 1)}
    # Every class must occur in what is trained on.
    least["--batch-size"] = (settings.batch_size, N_CLASSES)
    # A DenseNet halves them five times.
    least["--image-size"] = (settings.image_size, 32)
    for name, (value, minimum) in least.items():
        if value is not None and value < minimum:
            raise UserError(f"{name} {value}: must be {minimum} or more")


def plan(settings: Bench, device: Device) -> Iterator[Job]:
    """The sections, in the table's order."""
    kind = "gpu" if device.device.type == "cuda" else "cpu"
    sizes = SIZES[kind] if settings.image_size is None else (settings.image_size,)
    batches = BATCHES[kind] if settings.batch_size is None else (settings.batch_size,)
    steps = STEPS[kind] if settings.steps is None else settings.steps
    for size, batch in itertools.product(sizes, batches):
        case = Case(settings.network, size, batch, steps, settings.rounds, device)
        for part, measure, turns in (
            ("training", training.measure, settings.rounds + 1),
            ("prediction", prediction.measure, settings.rounds + 1),
            ("memory", memory.measure, len(memory.CANDIDATES)),
        ):
            if part in settings.parts:
                title = f"{part}, {size} px, batch {batch}"
                yield Job(title, partial(measure, case), turns, SECONDS[part] / turns)
    machine = ("--device", settings.device, "--precision", settings.precision)
    start = partial(startup.measure, machine=machine)
    for part, measure_all in (("decoding", decoding.measure), ("start-up", start)):
        if part in settings.parts:
            yield Job(part, partial(in_one_turn, measure_all, settings.rounds), 1, SECONDS[part])


def in_one_turn(
    measure: Callable[[int], list[Figure]], rounds: int, after_round: Callable[[], object]
) -> list[Figure]:
    """What can't say how far it is."""
    figures = measure(rounds)
    after_round()
    return figures


class Clock:
    """Says on stderr how far the whole is and how long the rest will take."""

    def __init__(self, expected: float) -> None:
        """`expected` in seconds; only what is a part of what matters."""
        self.expected = expected
        self.done = 0.0
        self.started = time.monotonic()

    def advance(self, job: Job) -> None:
        """Another turn of the job is done."""
        self.done += job.seconds
        left = (time.monotonic() - self.started) * (self.expected / self.done - 1)
        line = f"{job.title}: {100 * self.done / self.expected:.0f} % of all, about "
        print(f"{line}{duration(left)} left", file=sys.stderr)


def bench(settings: Bench, report: Callable[[str], None]) -> None:
    """Measure, report the table, write every value to `settings.output`.

    Raises UserError for settings that can't be.
    """
    check_settings(settings)
    device = choose_device(Machine(device=settings.device, precision=settings.precision))
    machine = describe_machine(device)
    jobs = list(plan(settings, device))
    clock = Clock(sum(job.turns * job.seconds for job in jobs))
    sections: list[Section] = []
    for job in jobs:
        sections.append(Section(job.title, job.measure(partial(clock.advance, job))))
        # After each, so that what fails later has not been for nothing.
        write_json(settings.output, as_json(machine, sections))
    report(render_machine(machine))
    report(render_table(sections))
    if device.device.type == "cpu" and settings.image_size is settings.batch_size is None:
        report("128 px and batches of 256 are for a GPU: a CPU would take most of an hour.")
    report(f"every value: {settings.output}")
