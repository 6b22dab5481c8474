import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cellline.training.optimizing import learning_rate


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
