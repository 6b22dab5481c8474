import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from cellline.config import Training
from cellline.errors import UserError
from cellline.model.network import Classifier, adapt_channels, build_backbone, build_network
from cellline.model.normalization import Normalization

RGB = Normalization((10.0, 20.0, 30.0), (2.0, 4.0, 5.0))


def test_normalization_and_head_are_part_of_the_network(training: Training) -> None:
    network = build_network(training, 7, (3, 16, 16), RGB).eval()
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    logits = network(images)
    assert logits.shape == (4, 7)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (RGB.mean, RGB.std))
    assert torch.allclose(logits, network.backbone((images.float() - mean) / std), atol=1e-5)
    assert {"mean", "std"} <= network.state_dict().keys()
    head = network.backbone.get_submodule("classifier")
    assert isinstance(head, nn.Sequential)
    assert isinstance(head[0], nn.Dropout)
    assert head[0].p == training.dropout


def test_images_are_resized(training: Training) -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape)
            return x.mean((2, 3))

    images = torch.zeros((2, 3, 16, 12), dtype=torch.uint8)
    Classifier(Spy(), RGB, 24)(images)
    Classifier(Spy(), RGB, None)(images)
    assert seen == [(2, 3, 24, 24), (2, 3, 16, 12)]


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize("name", ["resnet18", "timm/test_efficientnet", "timm/repvgg_a0"])
def test_the_first_layer_keeps_what_it_knows(training: Training, name: str, channels: int) -> None:
    training = replace(training, network=name)
    colour = build_backbone(training).eval()
    adapted = adapt_channels(copy.deepcopy(colour), training, channels).eval()
    # Where all channels are alike, so is the response. (repvgg has several first convolutions.)
    grey = torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        expected, now = (
            colour(grey.expand(-1, 3, -1, -1)),
            adapted(grey.expand(-1, channels, -1, -1)),
        )
    # Of two channels, the third colour's filters are lost.
    assert now.shape == expected.shape
    assert channels == 2 or torch.allclose(now, expected, atol=1e-4)
    normalization = Normalization((0.0,) * channels, (1.0,) * channels)
    network = build_network(training, 2, (channels, 64, 64), normalization).eval()
    assert network(torch.zeros((1, channels, 64, 64), dtype=torch.uint8)).shape == (1, 2)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "googlenet", "timm/test_vit"])
def test_other_networks(training: Training, name: str) -> None:
    network = build_network(replace(training, network=name), 5, (3, 64, 64), RGB).eval()
    assert network(torch.zeros((1, 3, 64, 64), dtype=torch.uint8)).shape == (1, 5)


@pytest.mark.parametrize(
    ("name", "kind", "usual"), [("timm/resnet18", "DropPath", 0), ("efficientnet_b0", "Stoch", 0.2)]
)
def test_drop_path_is_the_networks_own_unless_given(
    training: Training, name: str, kind: str, usual: float
) -> None:
    def largest(training: Training) -> float:
        layers = build_backbone(training).modules()
        paths = [layer for layer in layers if type(layer).__name__.startswith(kind)]
        return max((getattr(x, "drop_prob", getattr(x, "p", 0.0)) for x in paths), default=0.0)

    training = replace(training, network=name)
    assert largest(training) == pytest.approx(usual, abs=0.02)
    assert largest(replace(training, drop_path=0.5)) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "densenet1610"}, "not a classification model .* similar: densenet161"),
        ({"network": "squeezenet1_0"}, "no linear classifier"),
        ({"network": "resnet18", "drop_path": 0.1}, "--drop-path: resnet18 has none"),
        ({"network": "timm/vgg11", "drop_path": 0.1}, "--drop-path: timm/vgg11 has none"),
        ({"network": "timm/resnet0"}, "model of timm .* similar: .*resnet50"),
        ({"network": "timm/resnet18.foo"}, "model of timm .* similar: .*resnet18"),
        ({"network": "timm/qwen3_vit_88m_enc"}, "no linear classifier"),
        ({"network": "vit_b_16"}, "can't take images of 16x16 pixels .* try --image-size 224"),
        ({"network": "vit_b_16", "image_size": 64}, "can't take images of 64 pixels"),
        (
            {"network": "vit_b_16", "image_size": 224, "start_size": 64},
            "can't take images of 64 pixels .* try --image-size 224 --start-size 224",
        ),
    ],
)
def test_networks_that_cannot_be_used_are_refused(
    training: Training, change: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_network(replace(training, **change), 5, (3, 16, 16), RGB)
