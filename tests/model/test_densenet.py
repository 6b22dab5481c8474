"""Our way through a DenseNet computes what torchvision's does."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet, densenet161

from cellline.model import densenet
from cellline.model.densenet import Features, convolution_backward


def pair(model: DenseNet, seed: int = 0) -> tuple[DenseNet, DenseNet]:
    """torchvision's network with weights as they are after training, and ours with the same."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Also negative, and 0, as ImageNet's are.
            nn.init.normal_(module.weight, 0.5, 0.7, generator)
            module.weight.data[0] = 0
            nn.init.normal_(module.bias, 0, 0.5, generator)
            nn.init.normal_(module.running_mean, 0, 0.5, generator)
            nn.init.uniform_(module.running_var, 0.5, 2, generator)
            module.running_var[1] = 1e-3
    ours = copy.deepcopy(model)
    ours.features = Features(ours.features)
    return model, ours


def tiny(seed: int = 0) -> DenseNet:
    torch.manual_seed(seed)
    return DenseNet(4, block_config=(2, 3), num_init_features=6, bn_size=2, num_classes=5)


def step(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """All that a training step leaves: logits, gradients, running statistics."""
    images = images.clone().requires_grad_()
    logits = model.train()(images)
    weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype)
    (logits.flatten() * weights).sum().backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters()}
    assert images.grad is not None
    return {
        "logits": logits.detach(),
        "images": images.grad,
        **gradients,
        **dict(model.named_buffers()),
    }


def distance(a: Tensor, b: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((a - b).detach().abs().max() / b.detach().abs().max().clamp(min=1e-30))


@given(
    n=st.integers(2, 5),
    height=st.integers(8, 48),
    width=st.integers(8, 48),
    seed=st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None)
def test_a_training_step_is_torchvisions(n: int, height: int, width: int, seed: int) -> None:
    theirs, ours = (model.double() for model in pair(tiny(seed), seed))
    images = torch.randn(n, 3, height, width, dtype=torch.float64)
    images[:, 1] = 0.25  # a channel that says nothing
    images = images.contiguous(memory_format=torch.channels_last)
    expected, left = step(theirs, images), step(ours, images)
    assert expected.keys() == left.keys()
    assert all(left[name].stride() == value.stride() for name, value in expected.items())
    for name, value in expected.items():
        assert torch.allclose(left[name], value, rtol=1e-8, atol=1e-9), name


def test_the_faster_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for name in ("train_block", "predict_block"):
        function = getattr(densenet, name)
        monkeypatch.setattr(
            densenet,
            name,
            lambda *a, name=name, f=function, **k: (taken.append(name), f(*a, **k))[1],
        )
    _, ours = pair(tiny())
    images = torch.randn(2, 3, 16, 16)
    ours.train()(images)
    with torch.no_grad():
        ours.eval()(images)
        with torch.autocast("cpu", torch.bfloat16):
            ours(images)
    with torch.autocast("cpu", torch.bfloat16):
        ours.train()(images)
    ours.eval()(images)
    assert taken == ["train_block"] * 2 + ["predict_block"] * 2 + ["train_block"] * 2


def test_channels_without_variance() -> None:
    theirs, ours = (model.double() for model in pair(tiny()))
    images = torch.zeros(2, 3, 16, 16, dtype=torch.float64)
    expected, left = step(theirs, images), step(ours, images)
    for name, value in expected.items():
        # 1 / deviation is 316 there, and so are rounding errors.
        assert torch.allclose(left[name], value, rtol=1e-6, atol=1e-6), name


@pytest.mark.parametrize("bfloat16", [False, True])
def test_densenet161_rounds_no_worse_than_torchvision(bfloat16: bool) -> None:
    torch.manual_seed(0)
    theirs, ours = (m.to(memory_format=torch.channels_last) for m in pair(densenet161()))
    exact = copy.deepcopy(theirs).double()
    images = torch.randn(4, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    truth = step(exact, images.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        expected, left = step(theirs, images), step(ours, images)
    of_theirs, of_ours = (
        torch.tensor([distance(values[name].double(), truth[name]) for name in truth])
        for values in (expected, left)
    )
    assert of_ours.median() < 1.5 * of_theirs.median()
    assert of_ours.max() < 3 * of_theirs.max()


@pytest.mark.parametrize("size", [(16, 16), (33, 17)])
def test_a_prediction_is_torchvisions(size: tuple[int, int]) -> None:
    theirs, ours = (model.eval() for model in pair(tiny()))
    images = torch.randn(3, 3, *size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    # With gradients, too, by which one looks into what a network looks at.
    ours(images).sum().backward()
    theirs(images).sum().backward()
    for mine, p in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine.grad, p.grad, rtol=1e-3, atol=1e-4)


def test_in_bfloat16_it_is_torchvisions() -> None:
    theirs, ours = pair(tiny())
    images = torch.randn(4, 3, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        expected, left = theirs(images), ours(images)
    assert left.dtype == torch.bfloat16
    assert distance(left.float(), expected.float()) < 0.05


def test_torchvisions_weights_are_loaded_unchanged() -> None:
    theirs, ours = pair(densenet161(num_classes=3))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    other = densenet161(num_classes=3)
    other.load_state_dict(ours.state_dict())
    ours.load_state_dict(other.state_dict())


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2), (5, 3)])
def test_gradients_of_a_convolution(size: tuple[int, int]) -> None:
    image = torch.randn(2, 6, *size, dtype=torch.float64).requires_grad_()
    kernel = torch.randn(4, 6, 3, 3, dtype=torch.float64).requires_grad_()
    result = functional.conv2d(image, kernel, padding=1)
    grad = torch.randn_like(result)
    result.backward(grad)
    rows, kernel_grad = convolution_backward(grad, image.detach(), kernel.detach())
    assert image.grad is not None
    assert torch.allclose(rows.view(2, *size, 6).permute(0, 3, 1, 2), image.grad)
    assert torch.allclose(kernel_grad, kernel.grad)
