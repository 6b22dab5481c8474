import tracemalloc

import numpy as np

from cellline.audit.keypoints import NEIGHBOURS, find_neighbours


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
