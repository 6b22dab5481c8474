import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellline.audit.leak import Leak, measure_leak
from cellline.scoring.metrics import Estimate

LEAK = Leak(Estimate(0.8, 0.76, 0.84, 0.02), Estimate(0.6, 0.54, 0.66, 0.03), 60, 40)


def test_leaked_samples_are_scored_apart() -> None:
    labels = np.tile([0, 1], 40)
    predicted = labels.copy()
    predicted[40:60] = 0
    leak = measure_leak(labels, predicted, 2, np.arange(80) < 40, np.arange(80) // 2)
    assert leak is not None
    assert (leak.leaked.value, leak.rest.value, leak.difference.value) == (1, 0.75, 0.25)
    assert (leak.n_leaked, leak.n_rest) == (40, 40)
    assert leak.rest.low < 0.75 < leak.rest.high
    assert leak.difference.low > 0


def test_only_classes_that_both_hold_are_compared() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    leaked = np.array([True, True, False, False, False, False])
    leak = measure_leak(labels, np.array([0, 0, 0, 1, 0, 0]), 2, leaked, np.arange(6))
    assert leak is not None
    assert (leak.leaked.value, leak.rest.value, leak.n_rest) == (1, 0.5, 2)
    for nothing in ([False] * 4, [True] * 4, [True, True, False, False]):
        assert measure_leak(labels[2:], labels[2:], 2, np.array(nothing), np.arange(4)) is None


@given(st.floats(0, 1))
def test_the_expectation_lies_between_its_parts(share: float) -> None:
    score = LEAK.expected(share)
    assert score.value == pytest.approx(0.6 + 0.2 * share)
    assert score.low < score.value < score.high
    # Independent errors: below their sum.
    assert score.error == pytest.approx(np.hypot(0.02 * share, 0.03 * (1 - share)))
