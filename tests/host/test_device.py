import platform
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cellline.config import Machine
from cellline.errors import UserError
from cellline.host.device import choose_device

SOURCES = Path(__file__).resolve().parents[2] / "src"


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"--device cuda:99.*--device cpu"):
        choose_device(Machine(device="cuda:99"))
    with pytest.raises(UserError, match="--device abacus"):
        choose_device(Machine(device="abacus"))


def test_a_device_that_has_no_kernels_is_refused() -> None:
    # torch's meta device takes tensors and computes nothing, as a GPU that it is not built for.
    with pytest.raises(
        UserError,
        match=r"--device meta: torch \S+ can't compute on it: .*Install .*--device cpu",
    ):
        choose_device(Machine(device="meta"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_can_not_be_used_is_not_silently_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(
        UserError, match=r"--device cuda: torch \S+ can't compute on it: .*--device cpu"
    ):
        choose_device(Machine())


def test_a_precision_that_a_device_does_not_compute_in_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As on an older macOS, where torch's autocast warns and computes in float32.
    monkeypatch.setattr(torch, "autocast", lambda *_, enabled: nullcontext())
    with pytest.raises(
        UserError,
        match=r"--precision bfloat16: torch \S+ can't compute in it on cpu: .*float32 instead",
    ):
        choose_device(Machine(device="cpu", precision="bfloat16"))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_device_is_tried_out_and_nothing_is_drawn(precision: Any) -> None:
    drawn = torch.get_rng_state()
    assert choose_device(Machine(device="cpu", precision=precision)).precision == precision
    assert torch.equal(torch.get_rng_state(), drawn)


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"bf16": True}, "bfloat16"),
        ({"avx512_f": True, "avx512_bf16": False}, "float32"),
        ({}, "float32"),
    ],
)
def test_a_cpu_computes_in_bfloat16_only_with_the_instructions(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], precision: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert choose_device(Machine(device="cpu")).precision == precision
    assert choose_device(Machine(device="cpu", precision="float32")).precision == "float32"


def test_precision_is_that_of_convolutions() -> None:
    device = choose_device(Machine(device="cpu", precision="bfloat16"))
    network = device.place(nn.Conv2d(3, 8, 3))
    with device.autocast():
        assert network(torch.zeros(1, 3, 8, 8)).dtype == torch.bfloat16
    assert network.weight.dtype == torch.float32
    assert network.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_cpu_trains_without_loader_processes_unless_told() -> None:
    assert choose_device(Machine(device="cpu")).workers == 0
    assert choose_device(Machine(device="cpu", workers=3)).workers == 3


STEPS = """
import resource, torch
from cellline.config import Machine
from cellline.host.device import choose_device

choose_device(Machine(device="cpu"))
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    layers = [torch.ones(5_000_000) for _ in range(8)]
    del layers
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_what_a_step_frees_is_kept_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(SOURCES))
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    first, *_, last = map(int, done.stdout.split())
    # What the system has given, some 39,000 pages, it isn't asked for again once the holes between
    # aligned blocks have found their places, which can take two steps.
    assert last < first / 10
