"""The learning rate's schedule, and the optimizers."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from cellline.config import Training

# Coefficients of the quintic polynomial that takes singular values towards 1, and how often it is
# applied (Jordan et al. 2024).
POLYNOMIAL = (3.4445, -4.7750, 2.0315)
POLYNOMIAL_STEPS = 5
# Matrices whose shorter side is longer are left to AdamW, as the work grows with its cube.
# DenseNet-161 has one, 1,056 x 2,112, which would take as long as all others together.
LONGEST_SHORT_SIDE = 512


def learning_rate(step: int, n_steps: int, warmup: float, peak: float) -> float:
    """Linear from 0 to `peak` over the first share `warmup` of the steps, then a cosine to 0."""
    position = (step + 1) / (n_steps + 1)
    if position < warmup:
        return peak * position / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (position - warmup) / (1 - warmup)))


def set_learning_rate(optimizers: Iterable[Optimizer], lr: float) -> None:
    """Set the learning rate of all parameters."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr


def build_optimizers(network: nn.Module, training: Training) -> list[Optimizer]:
    """AdamW for all weights, or `--optimizer muon`: Muon between the first and the last layer.

    AdamW then keeps those two layers, tensors of one dimension (biases and normalization scales,
    which don't decay), and matrices too large for Muon. `training.lr` must be set.
    """
    assert training.lr is not None
    inner: list[Tensor] = []
    if training.optimizer == "muon":
        layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        weights = [layer.weight for layer in layers[1:-1]]  # [output, input, ...]
        inner = [each for each in weights if min(len(each), each[0].numel()) <= LONGEST_SHORT_SIDE]
    by_muon = set(inner)
    others = [weight for weight in network.parameters() if weight not in by_muon]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw: Optimizer = torch.optim.AdamW(groups, lr=training.lr, fused=True)
    return [Muon(inner, training.lr, training.weight_decay), adamw] if inner else [adamw]


class Muon(Optimizer):
    """Momentum SGD with orthogonalized updates: each matrix's has all singular values near 1.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Weight decay and the scaling of
    updates by their shape follow Liu et al. 2025 (arXiv:2502.16982), but updates are five times as
    large. torch's own Muon takes no convolution kernels, and computes in bfloat16, which many CPUs
    emulate. timm's takes 2.5 s a step of DenseNet-161 on one Xeon core, this one 0.95.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95
    ) -> None:
        """`parameters` [output, input, ...]: all dimensions after the first make one side."""
        defaults: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            averages = [self.state[weight]["momentum"] for weight in weights]
            gradients = [weight.grad for weight in weights]
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            # Nesterov momentum: one step ahead of the average.
            ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
            changes = orthogonalize([change.flatten(1) for change in ahead])
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            for weight, change in zip(weights, changes, strict=True):
                # The root mean square of the change becomes the learning rate.
                size = max(change.shape) ** 0.5
                weight.add_(change.reshape(weight.shape), alpha=-group["lr"] * size)


def orthogonalize(matrices: Sequence[Tensor]) -> list[Tensor]:
    """Matrices with the same singular vectors, and singular values of about 0.7 to 1.2.

    Singular values that were almost 0 stay small. The polynomials are computed on X X', which is
    smaller than X and has the same size for all matrices of one height, so that these are computed
    together.
    """
    wide = [matrix if len(matrix) <= matrix.shape[1] else matrix.t() for matrix in matrices]
    results: dict[int, Tensor] = {}
    for side in {len(matrix) for matrix in wide}:
        numbers = [number for number, matrix in enumerate(wide) if len(matrix) == side]
        gram = torch.stack([wide[number] @ wide[number].t() for number in numbers])
        # No singular value exceeds the root of the sum of their squares.
        squares = gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp(min=1e-30)
        gram /= squares
        a, b, c = POLYNOMIAL
        identity = torch.eye(side, dtype=gram.dtype, device=gram.device)
        polynomial = a * identity + b * gram + c * (gram @ gram)
        factor = polynomial * squares.rsqrt()
        for _ in range(POLYNOMIAL_STEPS - 1):
            gram = polynomial @ gram @ polynomial
            polynomial = a * identity + b * gram + c * (gram @ gram)
            factor = polynomial @ factor
        for number, own in zip(numbers, factor, strict=True):
            results[number] = own @ wide[number]
    return [
        results[number] if wide[number] is matrix else results[number].t()
        for number, matrix in enumerate(matrices)
    ]
