from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cellline.config import Training
from cellline.model.network import build_backbone
from cellline.training.optimizing import Muon, build_optimizers, learning_rate, orthogonalize


@given(st.integers(1, 500), st.floats(0, 0.9), st.floats(1e-5, 1))
def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(
    n_steps: int, warmup: float, peak: float
) -> None:
    rates = [learning_rate(step, n_steps, warmup, peak) for step in range(n_steps)]
    assert 0 < min(rates) <= max(rates) <= peak
    top = int(np.argmax(rates))
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if n_steps >= 100 and warmup <= 0.5:
        assert max(rates) > 0.99 * peak
        assert rates[-1] < 0.01 * peak


# Of 3,000 matrices of 12 x 13, 2 had a singular value of almost nothing, which stays; of 12 x 16
# none.
sides = st.lists(st.tuples(st.integers(1, 12), st.integers(16, 60)), min_size=1, max_size=4)


@given(sides, st.integers(0, 999), st.sampled_from([1e-6, 1.0, 1e4]))
def test_orthogonal_matrices_keep_singular_vectors_and_lose_singular_values(
    shapes: list[tuple[int, int]], seed: int, size: float
) -> None:
    torch.manual_seed(seed)
    matrices = [torch.randn(shape) * size for shape in shapes]
    # As high as wide matrices, and higher.
    matrices += [matrix.t() for matrix in matrices]
    for matrix, found in zip(matrices, orthogonalize(matrices), strict=True):
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        values = left.t() @ found @ right.t()
        assert found.shape == matrix.shape
        assert torch.allclose(values, torch.diag(values.diagonal()), atol=1e-3)
        assert ((values.diagonal() > 0.6) & (values.diagonal() < 1.25)).all()


def test_a_gradient_of_nothing_changes_nothing() -> None:
    assert not orthogonalize([torch.zeros(3, 5)])[0].any()


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("name", ["densenet161", "resnet18", "vit_b_16", "vgg11"])
def test_each_weight_has_one_optimizer_and_only_matrices_decay(
    name: str, optimizer: Literal["muon", "adamw"]
) -> None:
    with torch.device("meta"):
        network = build_backbone(Training(network=name))
    *muon, adamw = build_optimizers(network, Training(name, optimizer=optimizer, lr=1e-3))
    names = {parameter: key for key, parameter in network.named_parameters()}
    own = [p for optimizer in (*muon, adamw) for g in optimizer.param_groups for p in g["params"]]
    assert len(own) == len(set(own)) == len(names)
    for group in (group for optimizer in (*muon, adamw) for group in optimizer.param_groups):
        assert {parameter.ndim > 1 for parameter in group["params"]} <= {group["weight_decay"] > 0}
    layers = [key for key, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    ends = {f"{layers[0]}.weight", f"{layers[-1]}.weight"}
    assert ends <= {names[p] for group in adamw.param_groups for p in group["params"]}
    # All matrices of vit_b_16 are too large for Muon.
    if optimizer == "adamw" or name == "vit_b_16":
        assert not muon
    elif name == "densenet161":
        matrices = {parameter for parameter in names if parameter.ndim > 1}
        assert len(muon[0].param_groups[0]["params"]) == len(matrices) - len(ends) - 1


def test_a_step_of_muon_is_as_large_as_the_learning_rate_says_whatever_the_gradient() -> None:
    for size in (1e-4, 1e4):
        torch.manual_seed(0)
        weight = nn.Parameter(torch.zeros(8, 16, 3, 3))
        weight.grad = torch.randn_like(weight) * size
        Muon([weight], lr=0.01, weight_decay=0.0).step()
        assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.01, rel=0.3)
        # Downhill.
        assert (weight.detach() * weight.grad).sum() < 0


def test_muon_decays_weights_that_have_no_gradient_left() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    Muon([weight], lr=0.5, weight_decay=Training().weight_decay).step()
    assert torch.allclose(weight, torch.tensor(1 - 0.5 * Training().weight_decay))
