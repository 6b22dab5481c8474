"""Cost as the work grows: seconds and memory of every stage for 1x, 4x and 16x the samples.

`make bench-growth` draws three competitions, runs the verbs on each, every stage in a process of
its own, and prints a table. It reads memory from Linux's /proc.
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import tyro

from cellline.cli import end
from cellline.demo.cells import CELL_LINES, draw_field
from cellline.demo.drawing import write_competition
from cellline.errors import UserError
from cellline.host.files import write_json

ROOT = Path(__file__).resolve().parents[1]

SAMPLES = 500
FEWEST = 200  # with fewer, a class may lack a training picture for each fold
FACTORS = (1, 4, 16)
SIZE = 64
FOLDS = 3
# Of the challenge's 7,890 training samples.
TEST_SHARE = 1742 / 7890
FIELD_SHARE = 896 / 7890  # fields of view that several samples are cut from
SINGLE_SHARE = 1654 / 7890  # samples that share nothing
COPY_SHARE = 1311 / 7890 / 2  # samples that copy an earlier one
MARGIN = 32  # of a shared field: any two crops share a quarter of their area or more

POLL_SECONDS = 0.02

STAGES = {
    "reading": (
        "-c",
        "import sys; from pathlib import Path; from cellline.data.competition import "
        "load_competition; load_competition(Path(sys.argv[2]), Path(sys.argv[4]))",
    ),
    "folds": ("src/folds.py", "--folds", str(FOLDS)),
    "training, 1 epoch": (
        *("src/train.py", "--network", "densenet_tiny", "--weights", "none"),
        *("--image-size", "64", "--start-size", "64", "--epochs", "1", "--fold", "0"),
    ),
    "submit": ("src/submit.py", "--partial"),
}


@dataclass(frozen=True)
class Cost:
    """What one stage took with so many samples in training and test together."""

    stage: str
    samples: int
    seconds: float
    processor_seconds: float
    """Of all its processes together: what other programs take of the machine changes less here."""
    own: int
    """Bytes of own memory (anonymous and shared) of all its processes together, the highest seen:
    looked at every POLL_SECONDS."""
    mapped: int
    """Bytes of files mapped, the highest seen alike: page cache, which the system may drop."""


def draw(folder: Path, n_train: int) -> int:
    """Draw a competition with the challenge's shares of copies and overlaps; how many samples.

    A field is drawn once for all its crops: with a field a sample, drawing takes three times as
    long.
    """
    rng = np.random.default_rng(0)
    n = n_train + round(n_train * TEST_SHARE)
    n_single, n_shared = round(n * SINGLE_SHARE), round(n_train * FIELD_SHARE)
    n_crops = [1] * n_single + [
        len(part) for part in np.array_split(np.arange(n - n_single), n_shared)
    ]
    looks = list(CELL_LINES.values())
    frequency = np.array([look.frequency for look in looks])
    dealt = rng.choice(len(looks), len(n_crops), p=frequency / frequency.sum())
    # However few there are, every class has a field for each fold.
    dealt[-FOLDS * len(looks) :] = np.tile(np.arange(len(looks)), FOLDS)
    ids = iter((rng.permutation(n) + 1).tolist())
    pictures: dict[int, np.ndarray] = {}
    labels: dict[int, str] = {}
    for of_line, count in zip(dealt.tolist(), n_crops, strict=True):
        name, margin = list(CELL_LINES)[of_line], MARGIN if count > 1 else 0
        field = draw_field(rng, name, SIZE, margin)
        for crop in range(count):
            if crop == 0 or rng.random() > COPY_SHARE / (1 - SINGLE_SHARE):
                y, x = rng.integers(margin + 1, size=2)
            i = next(ids)
            pictures[i], labels[i] = field[:, y : y + SIZE, x : x + SIZE], name
    train, test = range(1, n_train + 1), range(n_train + 1, n + 1)
    write_competition(
        folder,
        ((i, pictures[i]) for i in train),
        ((i, pictures[i]) for i in test),
        {i: labels[i] for i in train},
        test,
    )
    return n


def run_stage(stage: str, folder: Path, samples: int) -> Cost:
    """Run a stage on the competition in `folder`; RuntimeError with its output if it fails."""
    places = {
        "input-dir": "input",
        "cache-dir": "cache",
        "oof-dir": "oof",
        "submissions-dir": "csv",
    }
    options = [part for name, at in places.items() for part in (f"--{name}", str(folder / at))]
    own = mapped = 0
    with tempfile.TemporaryFile() as printed:
        started, used_before = time.perf_counter(), processor_seconds()
        process = subprocess.Popen(  # noqa: S603  # our own scripts
            [sys.executable, *STAGES[stage], *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        while process.poll() is None:
            used = [memory_of(each) for each in family(process.pid)]
            own = max(own, sum(of_each[0] for of_each in used))
            mapped = max(mapped, sum(of_each[1] for of_each in used))
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - started
        if process.returncode:
            printed.seek(0)
            raise RuntimeError(f"{stage}, {samples} samples: {printed.read().decode()}")
    return Cost(stage, samples, seconds, processor_seconds() - used_before, own, mapped)


def processor_seconds() -> float:
    """What the processes that this one started, and theirs, had used when they ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def family(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        # A process may end while it is looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in path.read_text().split():
                yield from family(int(child))


def memory_of(process: int) -> tuple[int, int]:
    """Bytes of a process's own memory and of files that it has mapped; none when it has ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    fields = dict(line.split(":\t", 1) for line in lines)
    anonymous, file, shared = (
        int(fields.get(f"Rss{kind}", "0").split()[0]) * 1024 for kind in ("Anon", "File", "Shmem")
    )
    return anonymous + shared, file


def exponent(less: Cost, more: Cost) -> float:
    """Of the power of the samples by which processor seconds grew: 1 is linear."""
    ratio = more.processor_seconds / less.processor_seconds
    return math.log(ratio) / math.log(more.samples / less.samples)


def describe(costs: Sequence[Cost]) -> Iterator[str]:
    """The table, a line each; `costs` by stage, then by samples."""
    yield (
        f"{'stage':<18} {'samples':>8} {'seconds':>8} {'ratio':>6} {'CPU s':>7} {'exponent':>8}"
        f" {'own MB':>7} {'kB/sample':>9} {'mapped MB':>9}"
    )
    for stage in dict.fromkeys(cost.stage for cost in costs):
        before = None
        for cost in (cost for cost in costs if cost.stage == stage):
            ratio = power = each = ""
            if before:
                ratio = f"{cost.seconds / before.seconds:.2f}"
                power = f"{exponent(before, cost):.2f}"
                each = f"{(cost.own - before.own) / (cost.samples - before.samples) / 1e3:.1f}"
            yield (
                f"{stage:<18} {cost.samples:8d} {cost.seconds:8.1f} {ratio:>6}"
                f" {cost.processor_seconds:7.1f} {power:>8}"
                f" {cost.own / 1e6:7.0f} {each:>9} {cost.mapped / 1e6:9.0f}"
            )
            before = cost


@dataclass(frozen=True)
class Growth:
    """Settings of `make bench-growth`."""

    samples: int = SAMPLES
    """Training samples of the smallest competition."""
    factors: tuple[int, ...] = FACTORS
    """How many times as many the others have, in ascending order."""
    json: Path | None = None
    """Where to write the figures, beside the table."""


def measure_growth(settings: Growth) -> list[Cost]:
    """Draw the competitions and run every stage on each; costs by stage, then by samples.

    Raises UserError for fewer samples than can be dealt into folds.
    """
    if settings.samples < FEWEST:
        raise UserError(f"--samples {settings.samples}: must be {FEWEST} or more")
    costs = []
    with tempfile.TemporaryDirectory() as scratch:
        for factor in settings.factors:
            folder = Path(scratch) / str(factor)
            samples = draw(folder / "input", settings.samples * factor)
            for stage in STAGES:
                costs.append(run_stage(stage, folder, samples))
                print(f"{samples} samples, {stage}: {costs[-1].seconds:.1f} s", file=sys.stderr)
    return sorted(costs, key=lambda cost: list(STAGES).index(cost.stage))


def main(settings: Growth) -> None:
    """How time and memory grow with the number of samples."""
    try:
        costs = measure_growth(settings)
    except UserError as error:
        end(2, f"error: {error}")
    print("\n".join(describe(costs)))
    if settings.json:
        write_json(settings.json, {"costs": [asdict(cost) for cost in costs]})


if __name__ == "__main__":
    main(tyro.cli(Growth, description=main.__doc__))
