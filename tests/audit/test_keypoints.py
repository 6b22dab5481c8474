import numpy as np

from cellline.audit.keypoints import NEIGHBOURS, find_neighbours


def test_a_pattern_in_all_samples_is_compared_with_few_neighbours() -> None:
    first, _ = find_neighbours(np.ones((2000, 16), np.float32), np.arange(2000))
    assert 0 < len(first) <= 2000 * NEIGHBOURS
