import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellline.runs.run_folder import OutOfFold
from cellline.submitting.blend import blend, common_samples

PROB = arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32))


@given(PROB, PROB)
def test_a_blend_is_the_mean(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(blend([a]), a)
    np.testing.assert_array_equal(blend([a, b]), blend([b, a]))
    np.testing.assert_allclose(blend([a, b]), (a + b) / 2, atol=1e-7)


@given(PROB, PROB)
def test_weights_are_shares(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(blend([a, b], (0, 1)), b)
    np.testing.assert_array_equal(blend([a, b], (0.5, 0.5)), blend([a, b]))
    np.testing.assert_allclose(blend([a, b], (0.25, 0.75)), a / 4 + 3 * b / 4, atol=1e-7)


def of_run(ids: list[int], value: float) -> OutOfFold:
    prob = np.full((len(ids), 2), value, np.float32)
    return OutOfFold(np.array(ids), np.array(ids) % 2, prob, prob / 2)


def test_each_run_keeps_the_samples_that_all_have() -> None:
    runs = common_samples([of_run([1, 2, 4, 7], 0.2), of_run([2, 3, 7], 0.6)])
    for run, value in zip(runs, (0.2, 0.6), strict=True):
        assert run.ids.tolist() == [2, 7]
        assert run.labels.tolist() == [0, 1]
        np.testing.assert_allclose(run.prob, np.full((2, 2), value), rtol=1e-6)
        np.testing.assert_allclose(run.prob_plain, np.full((2, 2), value / 2), rtol=1e-6)
