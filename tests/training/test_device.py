import pytest
import torch
from torch import nn

from cellline.config import Machine
from cellline.device import choose_device
from cellline.errors import UserError


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"--device cuda:99.*try --device cpu"):
        choose_device(Machine(device="cuda:99"))
    with pytest.raises(UserError, match="--device abacus"):
        choose_device(Machine(device="abacus"))


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
