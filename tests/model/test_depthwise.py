"""Depthwise convolutions in bfloat16: torch's output, and gradients as exact as its own."""

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from cellline.model.depthwise import train_depthwise_faster

CONVOLUTIONS = (
    nn.Conv2d(8, 8, 3, 1, 1, groups=8),
    nn.Conv2d(8, 8, 3, 2, 1, groups=8, bias=False),
    nn.Conv2d(8, 8, 5, 2, 2, groups=8),
    nn.Conv2d(8, 8, (5, 3), (1, 2), 0, dilation=(2, 1), groups=8),
    Conv2dSame(8, 8, 3, 2, groups=8, bias=False),
)


def learn(layer: nn.Module, images: Tensor, weights: Tensor) -> list[Tensor]:
    """Output and gradients, of the images and of all parameters, where the output has weights."""
    images = images.clone().requires_grad_()
    out = layer(images)
    (out.double() * weights).sum().backward()
    return [out.double(), images.grad.double(), *(p.grad.double() for p in layer.parameters())]


@pytest.mark.parametrize("usual", CONVOLUTIONS)
@pytest.mark.parametrize("side", [16, 17])
def test_output_and_gradients_are_as_exact_as_torchs_own(usual: nn.Module, side: int) -> None:
    torch.manual_seed(0)
    fast, exact = (nn.Sequential(copy.deepcopy(usual)) for _ in range(2))
    train_depthwise_faster(fast)
    assert type(fast[0]) is not type(exact[0])
    assert fast.state_dict().keys() == exact.state_dict().keys()
    images = torch.randn(4, 8, side, side).to(memory_format=torch.channels_last).bfloat16()
    weights = torch.randn(usual(images.float()).shape)
    with torch.autocast("cpu", torch.bfloat16):
        computed, own = (learn(one, images, weights) for one in (fast, copy.deepcopy(exact)))
    true = learn(exact.double(), images.double(), weights)
    for mine, torchs, truth in zip(computed, own, true, strict=True):
        error, usual_error = ((each - truth).norm() / truth.norm() for each in (mine, torchs))
        assert error < max(1.2 * usual_error, 2**-8)  # a rounding to bfloat16


def test_only_training_in_bfloat16_is_changed() -> None:
    usual = nn.Sequential(nn.Conv2d(8, 8, 5, 2, 2, groups=8))
    fast = copy.deepcopy(usual)
    train_depthwise_faster(fast)
    images = torch.rand(4, 8, 16, 16)
    weights = torch.rand(4, 8, 8, 8)
    assert all(map(torch.equal, learn(fast, images, weights), learn(usual, images, weights)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast.eval()(images), usual.eval()(images))
    assert isinstance(copy.deepcopy(fast)[0], type(fast[0]))
