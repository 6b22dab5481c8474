import numpy as np
import torch

from cellline.data.views import VIEWS, take_view
from cellline.model.views import see


def test_views_are_the_eight_of_a_square_and_those_that_networks_see() -> None:
    image = np.arange(2 * 5 * 5).reshape(2, 5, 5)
    seen = {take_view(image, view).tobytes() for view in VIEWS}
    assert len(seen) == 8
    for view in VIEWS:
        taken = take_view(image, view)
        assert {take_view(taken, other).tobytes() for other in VIEWS} == seen
        np.testing.assert_array_equal(taken, see(torch.from_numpy(image), view).numpy())
