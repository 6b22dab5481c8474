import gc
import json
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cellline.config import Folders, Training
from cellline.data.competition import Competition, load_competition
from cellline.host.device import Device
from cellline.model.network import build_network
from cellline.model.normalization import Normalization
from cellline.runs.folds import Folds, write_folds
from cellline.training.checkpoint import read_checkpoint
from cellline.training.loop import FoldTrainer
from cellline.training.memory import (
    StepMemory,
    TooLittleMemoryError,
    free_memory,
    measure_step,
    more_parts,
    readable,
    saved_bytes,
)

SOURCE = Path(__file__).parents[2] / "src"
MIB, GIB = 2**20, 2**30
linux = pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="Linux tells what is free")


class TwoLayers(nn.Module):
    """Saves 12 numbers before its first layer and 5 before its second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 5), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.second(self.first(images.float().flatten(1)).relu_())
        return logits


def test_what_is_saved_for_the_backward_pass_is_counted(device: Device) -> None:
    step = measure_step(TwoLayers(), device, (3, 2, 2), GIB)
    assert step == StepMemory(weights=4 * (12 * 5 + 5 + 5 * 3 + 3), per_sample=4 * 17, fixed=0)


def test_two_samples_tell_what_many_take(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    network = FoldTrainer(folds, 0, training, device).network
    for precision in ("float32", "bfloat16"):
        in_precision = replace(device, precision=precision)
        step = measure_step(network, in_precision, (3, 32, 32), GIB)
        network.train()
        counted = saved_bytes(network, in_precision, (50, 3, 32, 32), GIB)
        assert step.fixed + 50 * step.per_sample == counted
        assert step.fixed < step.per_sample


def test_processes_share_the_memory_of_their_machine(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    FoldTrainer(folds, 0, training, replace(device, sharers=2))
    with pytest.raises(TooLittleMemoryError):
        FoldTrainer(folds, 0, training, replace(device, sharers=10**6))


def test_measuring_changes_nothing(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    images = torch.from_numpy(competition.train_images[:8])
    labels = torch.from_numpy(competition.labels[:8])

    def train(measured: bool) -> list[bytes]:
        trainer = FoldTrainer(folds, 0, training, device)
        trainer.network.train()
        for step in range(2):
            trainer.train_step(step, images, labels)
            if measured:
                drawn = torch.get_rng_state()
                measure_step(trainer.network, device, (3, 16, 16), GIB)
                assert torch.equal(torch.get_rng_state(), drawn)
                assert trainer.network.training
        return [value.numpy().tobytes() for value in trainer.model.state_dict().values()]

    assert train(measured=True) == train(measured=False)


def test_measuring_leaves_nothing_in_memory(device: Device, training: Training) -> None:
    network = build_network(training, 3, (3, 16, 16), Normalization((0.0,) * 3, (1.0,) * 3))
    measure_step(network, device, (3, 16, 16), GIB)
    weights = [weakref.ref(weight) for weight in network.parameters()]
    del network
    gc.collect()
    assert [reference() for reference in weights] == [None] * len(weights)


sizes = st.integers(0, 2**36)


@given(sizes, sizes, sizes, st.integers(0, 2**40))
def test_the_batch_size_that_is_named_fits_and_twice_as_much_does_not(
    weights: int, per_sample: int, fixed: int, free: int
) -> None:
    step = StepMemory(weights, per_sample + 1, fixed)
    largest = step.largest_batch(free)
    if largest is None:
        assert step.needed(2) > free
    else:
        assert largest >= 2
        assert largest & (largest - 1) == 0
        assert step.needed(largest) <= free < step.needed(2 * largest)


@given(st.integers(1, 300))
def test_parts_double_until_they_are_of_two_or_three_samples(n_samples: int) -> None:
    parts = [1]
    with pytest.raises(TooLittleMemoryError, match=r"not even two or three samples.*\(full\)"):
        while True:
            parts.append(more_parts(parts[-1], n_samples, "full"))
    assert parts[-1] == max(1, n_samples // 2)
    assert all(2 * few >= more > few for few, more in pairwise(parts))


def test_amounts_are_readable() -> None:
    amounts = [210 * MIB, 1023 * MIB, int(1.5 * GIB), 51 * GIB]
    assert [readable(amount) for amount in amounts] == ["210 MiB", "1023 MiB", "1.5 GiB", "51 GiB"]


def write_system(root: Path, files: dict[str, str]) -> Path:
    """A machine with 8 GiB free, and what else of `/proc` and `/sys` is named."""
    machine = {
        "proc/meminfo": "MemTotal:  16777216 kB\nMemFree:  1 kB\nMemAvailable:  8388608 kB\n"
    }
    for name, text in (machine | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def group(folder: str, most: str, used: int, of_files: int = 0) -> dict[str, str]:
    """The files of a control group, version 2."""
    return {
        f"{folder}/memory.max": f"{most}\n",
        f"{folder}/memory.current": f"{used}\n",
        f"{folder}/memory.stat": f"anon 5\ninactive_file {of_files}\nactive_file 0\nshmem 7\n",
    }


CGROUP = "sys/fs/cgroup"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8 * GIB),
        # Without limits; the root of version 2 has no such files at all.
        ({"proc/self/cgroup": "0::/a\n", **group(f"{CGROUP}/a", "max", GIB)}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n"}, 8 * GIB),
        # The limit may be of a parent, or of a group's own.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                **group(f"{CGROUP}/a", f"{3 * GIB}", GIB),
                **group(f"{CGROUP}/a/b", f"{4 * GIB}", GIB),
            },
            2 * GIB,
        ),
        # Files that were read are in memory, too, but make room.
        (
            {
                "proc/self/cgroup": "0::/a\n",
                **group(f"{CGROUP}/a", f"{4 * GIB}", 4 * GIB, of_files=3 * GIB),
            },
            3 * GIB,
        ),
        # Used up, and by more than the limit that was lowered since.
        ({"proc/self/cgroup": "0::/\n", **group(CGROUP, f"{GIB}", 2 * GIB)}, 0),
        # Docker with version 1: the path is the host's, the mount the container's.
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n",
                f"{CGROUP}/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
                f"{CGROUP}/memory/memory.usage_in_bytes": f"{GIB}\n",
                f"{CGROUP}/memory/memory.stat": (
                    f"inactive_file 3\nactive_file 4\ntotal_inactive_file {256 * MIB}\n"
                    f"total_active_file {256 * MIB}\n"
                ),
            },
            3 * GIB // 2,
        ),
    ],
)
def test_the_least_of_the_machine_and_its_control_groups_is_free(
    tmp_path: Path, files: dict[str, str], free: int
) -> None:
    assert free_memory(write_system(tmp_path, files)) == free


def test_nothing_is_known_where_the_system_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path) is None


@linux
def test_this_machine_tells() -> None:
    free = free_memory()
    assert free is not None
    assert 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# Runs scripts, one a line of its input, each in a child that finds the slow imports done and may
# allocate so many bytes; answers with the exit status and what the child wrote.
SERVER = """
import json, os, resource, runpy, sys
from pathlib import Path
import albumentations
import cellline.training.run
from cellline.training.memory import read_numbers

for line in sys.stdin:
    limit, folder, arguments = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.chdir(folder)
        used = 1024 * read_numbers(Path("/proc/self/status"))["VmData"]
        if limit:
            resource.setrlimit(resource.RLIMIT_DATA, (used + limit, resource.RLIM_INFINITY))
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")
        sys.exit()
    os.close(write)
    with open(read) as output:
        said = output.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([status, said]), flush=True)
"""

Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", SERVER],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # a pipe, which children replace by another
        text=True,
    ) as process:
        yield process
        process.kill()


@pytest.fixture
def run(server: subprocess.Popen[str]) -> Run:
    """Run a script in a process of its own, here; its exit status, and what it printed."""

    def run(*arguments: object, limit: int = 0) -> tuple[int, str]:
        assert server.stdin
        assert server.stdout
        print(
            json.dumps([limit, str(Path.cwd()), list(map(str, arguments))]),
            file=server.stdin,
            flush=True,
        )
        status, said = json.loads(server.stdout.readline())
        return status, said

    return run


# Trains three steps of random images and prints the estimate and what they really took.
PEAK = """
import json, resource, sys
from pathlib import Path
import numpy as np, torch
from cellline.config import Machine, Training
from cellline.data.competition import Competition
from cellline.runs.folds import Folds
from cellline.host.device import choose_device
from cellline.training.loop import FoldTrainer
from cellline.training.memory import measure_step, read_numbers

network, batch_size = sys.argv[1], int(sys.argv[2])
n = 2 * batch_size
images = np.random.default_rng(0).integers(0, 255, (n, 3, 64, 64), np.uint8)
labels = np.arange(n) // 2 % 3
competition = Competition(
    "id", "label", ("a", "b", "c"), ("x", "y", "z"), np.arange(n), labels, np.arange(0), (),
    images, images[:0], "", "", (),
)
folds = Folds(np.arange(n) % 2, competition.train_ids, 2, "")
training = Training(network=network, weights="none", lr=1e-3, batch_size=batch_size)
device = choose_device(Machine(device="cpu", precision="float32", workers=0))
trainer = FoldTrainer(folds, 0, training, device)
estimate = measure_step(trainer.network, device, (3, 64, 64), 2**40).needed(batch_size)
trainer.network.train()
before = 1024 * read_numbers(Path("/proc/self/status"))["VmRSS"]
for step in range(3):
    trainer.train_step(step, torch.from_numpy(images[::2]), torch.from_numpy(labels[::2]))
peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"estimate": estimate, "needed": peak - before}))
"""


@linux
@pytest.mark.parametrize(
    ("network", "batch_size"),
    [
        ("densenet_tiny", 512),
        pytest.param("densenet_tiny", 4096, marks=pytest.mark.torture),
        pytest.param("densenet161", 8, marks=pytest.mark.torture),
        pytest.param("densenet161", 32, marks=pytest.mark.torture),
    ],
)
def test_the_estimate_is_about_what_training_takes(network: str, batch_size: int, run: Run) -> None:
    Path("peak.py").write_text(PEAK)
    status, said = run("peak.py", network, batch_size)
    assert status == 0, said
    found = json.loads(said)
    assert 0.8 < found["estimate"] / found["needed"] < 1.35


@pytest.fixture
def arguments(drawn: Path) -> list[object]:
    """The command line for a training on two folds of the drawn competition."""
    folders = Folders(drawn)
    competition = load_competition(drawn, folders.cache_dir)
    record = {
        "n_folds": 2,
        "channels": list(competition.channels),
        "input_digest": competition.digest,
        "audit": {},
    }
    rows = np.arange(len(competition.labels))
    write_folds(Path("oof"), competition, rows % 2, competition.train_ids, record)
    words = "--network densenet_tiny --weights none --epochs 1 --image-size 192 --run a --fold 0"
    words += " --device cpu --precision float32"
    return ["--input-dir", drawn, *words.split()]


@linux
def test_a_batch_that_cannot_fit_is_refused_and_the_one_that_is_named_fits(
    arguments: list[object], run: Run
) -> None:
    train = [SOURCE / "train.py", *arguments, "--batch-size"]
    status, said = run(*train, 45, limit=190 * MIB)
    assert status == 2, said
    message = re.fullmatch(
        r"(?s).*error: a step of 45 samples needs about \d+ MiB of memory, \d+ MiB are free; "
        r"--batch-size (\d+) fits\n",
        said,
    )
    assert message, said
    assert not Path("oof/a").exists()
    status, said = run(*train, message[1], limit=190 * MIB)
    assert status == 0, said
    assert Path("oof/a/fold0/oof.npz").exists()


@linux
def test_where_not_even_a_few_samples_fit_it_is_said(arguments: list[object], run: Run) -> None:
    train = [SOURCE / "train.py", *arguments, "--image-size", 1024, "--batch-size", 2]
    status, said = run(*train, limit=150 * MIB)
    assert status == 2, said
    message = (
        r"error: training needs more memory than the \d+ MiB that are free, even with 2 samples"
    )
    assert re.search(message, said), said
    assert not Path("oof/a").exists()


# A training that is left with so many bytes for its steps: after the checkpoint of its start.
SHORT = """
import resource, sys
from pathlib import Path
from cellline.cli import run_verb
from cellline.config import Config
from cellline.runs.folds import open_folds
from cellline.host.device import choose_device
from cellline.runs.run_folder import describe_run
from cellline.host.stopping import Stop
from cellline.training.fold import train_fold
from cellline.training.loop import FoldTrainer
from cellline.training.memory import read_numbers

left = int(sys.argv.pop(1))

def main(config):
    competition, folds = open_folds(config.folders)
    trainer = FoldTrainer(folds, 0, config.training, choose_device(config.machine))
    used = 1024 * read_numbers(Path("/proc/self/status"))["VmData"]
    if left:
        resource.setrlimit(resource.RLIMIT_DATA, (used + left, resource.RLIM_INFINITY))
    record = describe_run(config.training, competition, folds)
    train_fold(trainer, Path("oof/a/fold0"), record, 0, Stop())

run_verb(main, Config)
"""


@linux
def test_where_memory_ends_after_all_what_was_saved_is_kept(
    arguments: list[object], run: Run
) -> None:
    Path("short.py").write_text(SHORT)
    rest = [*arguments, "--lr", 1e-3, "--batch-size", 23, "--image-size", 128]
    status, said = run("short.py", 10 * MIB, *rest)
    assert status == 2, said
    assert re.fullmatch(r"(?s).*error: memory ended \(.*\)\. What was saved .*", said), said
    assert "Traceback" not in said
    assert read_checkpoint(Path("oof/a/fold0/checkpoint.pt")).epoch == 0
    status, said = run("short.py", 0, *rest)
    assert status == 0, said
    assert Path("oof/a/fold0/oof.npz").exists()
