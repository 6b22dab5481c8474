import numpy as np
import torch
from torch import nn

from cellline.data.views import VIEWS
from cellline.host.device import Device
from cellline.model.network import Classifier
from cellline.model.normalization import Normalization
from cellline.model.views import (
    PLAIN,
    Predictor,
    choose_views,
    see,
)

NORMALIZATION = Normalization((0.0,), (255.0,))


def test_the_views_are_the_eight_distinct_ones() -> None:
    image = torch.arange(9).view(1, 3, 3)
    seen = {tuple(see(image, view).flatten().tolist()) for view in VIEWS}
    assert len(seen) == 8
    turned = {tuple(np.rot90(image[0], k).flatten().tolist()) for k in range(4)}
    mirrored = {tuple(np.rot90(image[0].T, k).flatten().tolist()) for k in range(4)}
    assert seen == turned | mirrored
    assert torch.equal(see(image, PLAIN[0]), image)


def test_views_are_those_of_the_symmetry_and_the_shape() -> None:
    image = torch.arange(12).view(3, 4)
    # The image, upside down, left and right swapped, and turned by half.
    flips = {(): image, (0,): image.flip(0), (1,): image.flip(1), (0, 1): image.flip(0, 1)}
    for symmetry, allowed in (
        ("d4", flips),
        ("flips", flips),
        ("mirror", ((), (1,))),
        ("none", ((),)),
    ):
        seen = [see(image, view) for view in choose_views(image.shape, symmetry)]
        assert len(seen) == len(allowed)
        assert all(any(torch.equal(flips[each], view) for view in seen) for each in allowed)
    assert choose_views((2, 3, 4, 4), "d4") == VIEWS
    assert choose_views((2, 3, 4, 4), "flips") == choose_views(image.shape, "flips")


class Corner(nn.Module):
    """Logits from the top left pixel: sees the eight views differently."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x[:, 0, 0, 0], -x[:, 0, 0, 1]], 1) * 5


def test_views_average_probabilities(device: Device) -> None:
    images = np.random.default_rng(0).integers(0, 256, (7, 1, 4, 4), dtype=np.uint8)
    network = Classifier(Corner(), NORMALIZATION, None)
    rows = np.array([6, 2, 0])
    predictor = Predictor(network, device, 2)
    prob = predictor.predict(images, rows, VIEWS).mean(axis=0)
    assert prob.dtype == np.float32
    expected = np.mean(
        [
            torch.softmax(network(see(torch.from_numpy(images[rows]), view)), 1).numpy()
            for view in VIEWS
        ],
        axis=0,
    )
    np.testing.assert_allclose(prob, expected, atol=1e-6)
    np.testing.assert_allclose(prob.sum(1), 1, atol=1e-6)
    [plain] = predictor.predict(images, rows, PLAIN)
    assert not np.allclose(plain, prob)


def test_prediction_is_the_same_for_every_view_of_an_image(device: Device) -> None:
    image = torch.randint(0, 256, (1, 1, 4, 4), dtype=torch.uint8)
    images = torch.cat([see(image, view) for view in VIEWS]).numpy()
    network = Classifier(Corner(), NORMALIZATION, None)
    prob = Predictor(network, device, 8).predict(images, np.arange(8), VIEWS).mean(axis=0)
    np.testing.assert_allclose(prob, prob[:1].repeat(8, 0), atol=1e-6)
