"""Cross-entropy in which every class can count as much, however many samples it has."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional


def class_weights(labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Weights [n_classes] inversely proportional to class frequency; their mean over `labels` is 1.

    The rule is scikit-learn's "balanced" (King and Zeng 2001). An absent class has 0.
    """
    counts = np.bincount(labels, minlength=n_classes)
    there = counts > 0
    weights = np.zeros(n_classes)
    weights[there] = len(labels) / (there.sum() * counts[there])
    return weights


class WeightedCrossEntropy(nn.Module):
    """Class-weighted cross-entropy, averaged over the samples of a batch.

    torch's own weighted mean divides by the batch's weights, so that a sample counts less the more
    rare classes share its batch. Dividing by the number of samples keeps the expectation, however
    an epoch is cut into batches.
    """

    weights: Tensor

    def __init__(self, weights: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32))

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Scalar loss of logits [batch, class] and labels [batch] or shares [batch, class]."""
        total = functional.cross_entropy(logits.float(), labels, self.weights, reduction="sum")
        return total / len(labels)
