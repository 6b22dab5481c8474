"""How the weights are changed: the learning rate's course, and which weights decay."""

import math
from typing import Any

from torch import nn


def learning_rate(step: int, n_steps: int, warmup: float, peak: float) -> float:
    """Linear from 0 to `peak` over the first share `warmup` of the steps, then a cosine to 0."""
    position = (step + 1) / (n_steps + 1)
    if position < warmup:
        return peak * position / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (position - warmup) / (1 - warmup)))


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: biases and normalization scales, which have one dimension, don't decay."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
