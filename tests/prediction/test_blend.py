import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellline.prediction.blend import blend, blend_out_of_fold
from cellline.prediction.run_folder import OutOfFold

PROB = arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32))


@given(PROB, PROB)
def test_a_blend_is_the_mean(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(blend([a]), a)
    np.testing.assert_array_equal(blend([a, b]), blend([b, a]))
    np.testing.assert_allclose(blend([a, b]), (a + b) / 2, atol=1e-7)


def of_run(ids: list[int], value: float) -> OutOfFold:
    prob = np.full((len(ids), 2), value, np.float32)
    return OutOfFold(np.array(ids), np.array(ids) % 2, prob, prob / 2)


def test_runs_are_blended_on_the_samples_that_all_have() -> None:
    both = blend_out_of_fold([of_run([1, 2, 4, 7], 0.2), of_run([2, 3, 7], 0.6)])
    assert both.ids.tolist() == [2, 7]
    assert both.labels.tolist() == [0, 1]
    np.testing.assert_allclose(both.prob, 0.4)
    np.testing.assert_allclose(both.prob_plain, 0.2)
