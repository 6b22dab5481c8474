import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import convolve1d

from cellline.audit.keypoints import NEIGHBOURS, find_neighbours, smooth_images

BINOMIAL = [1, 8, 28, 56, 70, 56, 28, 8, 1]


@settings(max_examples=30)
@given(height=st.integers(1, 70), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_smoothing_is_exact(height: int, width: int, seed: int) -> None:
    """Whole numbers below 2**24: the same bits in any order, on any processor, in any view."""
    images = np.random.default_rng(seed).integers(0, 256, (2, 3, height, width), np.uint8)
    images[0] = 255
    exact = images.astype(np.int64)
    for axis in (2, 3):
        exact = convolve1d(exact, BINOMIAL, axis, mode="nearest")
    np.testing.assert_array_equal(smooth_images(images).astype(np.float64) * 2**16, exact)


def test_pairs_that_several_tables_find_are_kept_once() -> None:
    """Six descriptors alike, of different rows, are 15 pairs, which all eight tables find."""
    rng = np.random.default_rng(0)
    descriptors = np.repeat(rng.standard_normal((2000, 16)).astype(np.float32), 6, axis=0)
    tracemalloc.start()
    first, second = find_neighbours(descriptors, np.arange(len(descriptors)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = [(k, m) for k in range(12000) for m in range(k + 1, k - k % 6 + 6)]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert peak < 18 * first.nbytes


def test_a_pattern_in_all_samples_is_compared_with_few_neighbours() -> None:
    first, _ = find_neighbours(np.ones((2000, 16), np.float32), np.arange(2000))
    assert 0 < len(first) <= 2000 * NEIGHBOURS
