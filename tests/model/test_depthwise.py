import copy

import torch
from torch import nn

from cellline.model.depthwise import train_depthwise_in_float32


def test_gradients_are_float32s_and_nothing_else_changes() -> None:
    usual = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 5, 2, 2, groups=8))
    fast = copy.deepcopy(usual)
    train_depthwise_in_float32(fast)
    assert fast.state_dict().keys() == usual.state_dict().keys()
    images = torch.rand(4, 3, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        before, computed = usual[0](images), fast(images)
    exact = usual[1](before.float())
    assert torch.equal(computed, exact.bfloat16())
    computed.float().sum().backward()
    exact.bfloat16().float().sum().backward()
    assert torch.equal(fast[1].weight.grad, usual[1].weight.grad)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast.eval()(images), usual.eval()(images))
    assert isinstance(copy.deepcopy(fast)[1], type(fast[1]))
