import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellline.model.loss import WeightedCrossEntropy, class_weights


@given(st.lists(st.integers(1, 50), min_size=2, max_size=9))
def test_every_class_weighs_the_same(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = class_weights(labels, len(counts))
    np.testing.assert_allclose(weights * counts, len(labels) / len(counts))
    assert weights[labels].mean() == pytest.approx(1)
    # A class that only other folds hold changes nothing.
    np.testing.assert_array_equal(class_weights(labels, len(counts) + 1), [*weights, 0])


def test_the_loss_does_not_depend_on_how_samples_are_cut_into_batches() -> None:
    logits, labels = torch.randn(12, 3), torch.randint(0, 3, (12,))
    loss = WeightedCrossEntropy(np.array([0.5, 1.0, 2.0]))
    parts = [loss(logits[rows], labels[rows]) for rows in torch.arange(12).split(3)]
    assert torch.allclose(torch.stack(parts).mean(), loss(logits, labels))


def test_equal_weights_give_plain_cross_entropy() -> None:
    logits, labels = torch.randn(12, 3), torch.randint(0, 3, (12,))
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert torch.allclose(WeightedCrossEntropy(np.ones(3))(logits, labels), expected)
