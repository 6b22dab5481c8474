"""Two processes that train one fold: real ones, under torch's launcher."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranked_train
from numpy.testing import assert_allclose

from cellline.config import Config, Folders, Machine, Training
from cellline.data.competition import load_competition
from cellline.demo.drawing import Drawing, draw_competition
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.runs.folds import NO_PAIRS, Dealt, Folds, write_folds
from cellline.training.checkpoint import read_checkpoint
from cellline.training.ranks import Ranks
from cellline.training.run import train_run
from cellline.training.task import Task

PATIENCE = 120.0
# Without dropout, which each rank draws for itself.
PLAIN = Training(
    network="plain",
    weights="none",
    image_size=16,
    start_size=16,
    epochs=60,
    lr=3e-3,
    batch_size=16,
    dropout=0.0,
)
TINY = replace(PLAIN, network="densenet_tiny", epochs=12)
# Sums in another order may differ by its rounding: bfloat16's is 65,536 times as large.
CPU = Machine(device="cpu", precision="float32")
CLOCK = ("samples_per_second", "seconds")
ADDRESSES = "10.83.0.1", "10.83.0.2"


@pytest.fixture(autouse=True)
def place(own_folder: None) -> None:
    """A small competition, dealt into folds of 30 samples, in the current folder."""
    draw_competition(Path("input"), Drawing(90, 18, size=16))
    competition = load_competition(Path("input"), Folders().cache_dir)
    record = {
        "image_size": None,
        "n_folds": 3,
        "input_digest": competition.digest,
    }
    dealt = Dealt(np.arange(90) // 3 % 3, competition.train_ids, NO_PAIRS)
    write_folds(Path("oof"), competition, dealt, record)
    ranked_train.register()


def options(training: Training, run: str) -> list[str]:
    """The command line of a training of fold 0."""
    given = {
        "network": training.network,
        "weights": training.weights,
        "epochs": training.epochs,
        "lr": training.lr,
        "batch-size": training.batch_size,
        "dropout": training.dropout,
        "image-size": training.image_size,
        "start-size": training.start_size,
        "run": run,
        "fold": 0,
        "device": CPU.device,
        "precision": CPU.precision,
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


@contextmanager
def started(
    *words: str, inside: tuple[str, ...] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """A process of Python in a session of its own; at the end it and its ranks are killed."""
    process = subprocess.Popen(
        [*inside, sys.executable, *words],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        for pid in ranks_here():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def ranks_here() -> list[int]:
    """The processes that torch's launcher has started in this folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            here = (folder / "cwd").readlink() == Path.cwd()
            if here and b"TORCHELASTIC_RUN_ID=" in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            pass
    return found


def await_true(is_true: Callable[[], object]) -> None:
    give_up = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def two_ranks(training: Training, **environment: str) -> tuple[int, str]:
    """Status and output of `make train FOLD=0 GPUS=2`."""
    words = (ranked_train.__file__, "--gpus", "2", *options(training, "two"))
    with started(*words, **environment) as process:
        printed = process.communicate(timeout=PATIENCE)[0]
        return process.returncode, printed


def two_ranks_signalled(training: Training, number: int) -> tuple[int, str]:
    """Status and output of a command that got a signal after an epoch; its ranks have ended."""
    with started(ranked_train.__file__, "--gpus", "2", *options(training, "two")) as process:
        await_true(Path("oof/two/fold0/history.csv").exists)
        process.send_signal(number)
        printed = process.communicate(timeout=PATIENCE)[0]
        await_true(lambda: not ranks_here())
        return process.returncode, printed


def one_rank(training: Training, run: str) -> None:
    """Train fold 0 in this process."""
    train_run(Config(training=training, machine=CPU, run=run, fold=0))


def left_by(run: str) -> dict[str, Any]:
    """Everything that a training of fold 0 left, as arrays."""
    folder = Path("oof", run, "fold0")
    checkpoint = read_checkpoint(folder / "checkpoint.pt")
    with np.load(folder / "oof.npz") as arrays:
        oof = {name: arrays[name] for name in ("file_id", "label", "prob", "prob_plain")}
    history = {
        name: np.array([row[name] for row in checkpoint.history])
        for name in checkpoint.history[0]
        if name not in CLOCK
    }
    resume = read_checkpoint(folder / "checkpoint-previous.pt").resume
    assert resume is not None
    # The optimizers' steps hide a factor of the gradients, but not their moments.
    moments = {
        f"{name} of {number} of optimizer {which}": value
        for which, optimizer in enumerate(resume["optimizers"])
        for number, values in optimizer["state"].items()
        for name, value in values.items()
        if name != "step"
    }
    tensors = {**checkpoint.network, **moments}
    return {**oof, **history, **{key: value.numpy() for key, value in tensors.items()}}


def check_alike(one: str, two: str) -> None:
    """Two runs left the same files, and in them the same numbers, to rounding."""
    files = [{path.name for path in Path("oof", run, "fold0").iterdir()} for run in (one, two)]
    assert files[0] == files[1]
    expected, found = left_by(one), left_by(two)
    assert expected.keys() == found.keys()
    for name, values in expected.items():
        # Relative to the largest value: sums that nearly cancel have few digits.
        atol = 1e-3 * np.abs(values).max()
        assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)


def test_two_ranks_that_were_stopped_end_where_one_does() -> None:
    one_rank(PLAIN, "one")
    status, printed = two_ranks_signalled(PLAIN, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert printed.count("fold 0 is saved") == 1
    assert printed.count("GPUS=2") == 1
    assert printed.count("SIGTERM: ") == 1
    assert 1 <= read_checkpoint(Path("oof/two/fold0/checkpoint.pt")).epoch < PLAIN.epochs
    status, printed = two_ranks(PLAIN)
    assert status == 0, printed
    # Rank 0 alone prints, and writes the files of a single process.
    assert printed.count(f"epoch {PLAIN.epochs}/{PLAIN.epochs}") == 1
    assert "warn" not in printed.lower()
    check_alike("one", "two")


@pytest.mark.torture
def test_a_killed_rank_ends_the_other_and_one_process_resumes() -> None:
    one_rank(PLAIN, "one")
    status, printed = two_ranks(PLAIN, DYING="died")
    assert status == 128 + signal.SIGKILL
    assert printed.count("error: process 1 of 2 was ended by SIGKILL") == 1
    assert "Traceback" not in printed
    assert not ranks_here()
    assert 1 <= read_checkpoint(Path("oof/two/fold0/checkpoint.pt")).epoch < PLAIN.epochs
    one_rank(PLAIN, "two")
    check_alike("one", "two")


@pytest.mark.parametrize(
    ("more", "named"),
    [("--fold 1 --max-minutes 9", "--fold, --max-minutes"), ("--weights other.pth", "--weights")],
)
def test_a_mistake_is_reported_once(more: str, named: str) -> None:
    Path("other.pth").write_bytes(b"other weights")
    status, printed = two_ranks(PLAIN, MORE_FOR_RANK_1=more)
    assert status == 2
    (line,) = printed.splitlines()
    assert line.startswith(f"error: ranks 0 and 1 differ in {named}: ")
    assert not Path("oof/two").exists()


def test_a_batch_is_large_enough_for_all_ranks(
    folds: Folds, training: Training, device: Device
) -> None:
    with pytest.raises(UserError, match=r"^5 processes can't share batches of 8 and 16 held-out"):
        Task(folds, 0, training, device, Ranks(0, 5))


@pytest.mark.torture
def test_ranks_end_with_the_command_that_started_them() -> None:
    status, _ = two_ranks_signalled(replace(PLAIN, epochs=10_000), signal.SIGKILL)
    assert status == -signal.SIGKILL
    # They were not killed: they saved their state.
    assert read_checkpoint(Path("oof/two/fold0/checkpoint.pt")).epoch < 10_000


@pytest.mark.torture
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="Linux tells who listens")
def test_the_processes_of_one_machine_listen_on_loopback_alone() -> None:
    words = (ranked_train.__file__, "--gpus", "2", *options(replace(PLAIN, epochs=10_000), "two"))
    with started(*words) as process:
        await_true(Path("oof/two/fold0/history.csv").exists)
        sockets = set()
        for pid in (process.pid, *ranks_here()):
            links = Path(f"/proc/{pid}/fd").iterdir()
            sockets |= {str(link.readlink()) for link in links}
        rows = [
            line.split()
            for name in ("tcp", "tcp6")
            for line in Path("/proc/net", name).read_text().splitlines()[1:]
        ]
        listening = [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in sockets]
    assert listening
    assert all(address.startswith("0100007F:") for address in listening), listening


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def two_hosts() -> Iterator[tuple[str, str]]:
    """Two network namespaces with addresses of their own, joined by a cable."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    hosts = f"cellline-a-{os.getpid()}", f"cellline-b-{os.getpid()}"
    try:
        for host in hosts:
            done = subprocess.run(["ip", "netns", "add", host], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespace can be made here: {done.stderr.strip()}")
            ip("-n", host, "link", "set", "lo", "up")
        ip("-n", hosts[0], "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", hosts[1])
        for host, address in zip(hosts, ADDRESSES, strict=True):
            ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            ip("-n", host, "link", "set", "eth0", "up")
        yield hosts
    finally:
        for host in hosts:
            subprocess.run(["ip", "netns", "delete", host], capture_output=True)


@pytest.mark.torture
def test_two_machines_train_one_fold_and_start_again(two_hosts: tuple[str, str]) -> None:
    status, printed = two_ranks(TINY)
    assert status == 0, printed
    Path("oof/two").rename("oof/one")

    def torchrun(host: int) -> Any:
        return started(
            *("-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
            *("--max-restarts", "1", "--rdzv-id", "fold0", "--rdzv-backend", "c10d"),
            *("--rdzv-endpoint", f"{ADDRESSES[0]}:29400", "--local-addr", ADDRESSES[host]),
            # Both have the same name here, by which it would tell.
            *("--rdzv-conf", f"is_host={int(host == 0)}"),
            # Or it takes --run for one of its own.
            *("--", ranked_train.__file__, *options(TINY, "two")),
            inside=("ip", "netns", "exec", two_hosts[host]),
            GLOO_SOCKET_IFNAME="eth0",
            OMP_NUM_THREADS="1",
            # With the agents' store, ranks may find each other's old addresses after a restart
            # (github.com/pytorch/pytorch/issues/135712).
            TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1",
            DYING="died",
        )

    # Batch normalization sees half a batch, which changes what it learns a little.
    one_rank(TINY, "alone")
    alone, together = left_by("alone"), left_by("one")
    assert np.abs(alone["prob"] - together["prob"]).mean() < 0.02
    assert_allclose(together["held_out_loss"], alone["held_out_loss"], rtol=0.05)
    with torchrun(0) as first, torchrun(1) as second:
        printed = first.communicate(timeout=PATIENCE)[0] + second.communicate(timeout=PATIENCE)[0]
    assert first.returncode == second.returncode == 0, printed
    assert Path("died").exists()
    assert printed.count(f"epoch {TINY.epochs}/{TINY.epochs}") == 1
    # Bit for bit: the shares and their order are the same.
    for name, expected in left_by("one").items():
        np.testing.assert_array_equal(left_by("two")[name], expected, err_msg=name)
