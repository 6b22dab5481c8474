"""The network: uint8 images in, logits out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet

from cellline.config import Training
from cellline.errors import UserError, first_line
from cellline.model.densenet import Features
from cellline.model.depthwise import train_depthwise_faster
from cellline.model.loading import Head, load_backbone_weights
from cellline.model.normalization import Normalization
from cellline.model.weights import TIMM, check_network

# Channels of ImageNet's images.
N_COLOURS = 3


class Classifier(nn.Module):
    """Our normalization, then a network of torchvision or timm whose last layer is new.

    The normalization is part of the network, and so of its checkpoint: predictions can't use
    another fold's statistics.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: nn.Module, normalization: Normalization, image_size: int | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.image_size = image_size
        for name, values in (("mean", normalization.mean), ("std", normalization.std)):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, class] of images [batch, channel, height, width], uint8."""
        x = (images.float() - self.mean) / self.std
        x = x.contiguous(memory_format=torch.channels_last)
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            x = functional.interpolate(x, size, mode="bilinear", antialias=True)
        logits: Tensor = self.backbone(x)
        return logits


def build_network(
    training: Training,
    n_classes: int,
    image_shape: tuple[int, int, int],
    normalization: Normalization,
    weights: Path | None = None,
) -> Classifier:
    """Build the network of a fold, on the CPU, from a file of weights or random ones.

    `image_shape` is (channel, height, width) of one image. Random numbers come from torch's global
    generator. Raises UserError for an unknown network, for weights that don't fit, and for a
    network that can't take images of this shape.
    """
    backbone = build_backbone(training, weights)
    if image_shape[0] != N_COLOURS:
        backbone = adapt_channels(backbone, training, image_shape[0])
    replace_head(backbone, training, n_classes)
    network = Classifier(backbone, normalization, training.image_size)
    check_image_size(network, training, image_shape)
    return network


def build_backbone(training: Training, weights: Path | None = None) -> nn.Module:
    """A network for ImageNet's classes and colours, from a file of weights or random ones."""
    name = training.network
    check_network(name)
    if name == "densenet_tiny":
        backbone: nn.Module = DenseNet(4, block_config=(2, 2), num_init_features=8, bn_size=2)
    elif name.startswith(TIMM):
        backbone = build_timm(training)
    else:
        backbone = build_torchvision(training)
    backbone = make_faster(backbone)
    if weights is not None:
        load_backbone_weights(backbone, name, weights, find_head(backbone, name))
    return backbone


def build_torchvision(training: Training) -> nn.Module:
    """A network of torchvision, with the drop path of the settings."""
    # These two have auxiliary classifiers, made for ImageNet's classes and image size.
    has_auxiliary = training.network in ("googlenet", "inception_v3")
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if has_auxiliary else {}
    if training.drop_path is not None:
        options["stochastic_depth_prob"] = training.drop_path
    with explain_drop_path(training):
        model: nn.Module = torchvision.models.get_model(training.network, weights=None, **options)
    return model


def build_timm(training: Training, n_channels: int = N_COLOURS) -> nn.Module:
    """A network of timm, with the dropout and drop path of the settings."""
    import timm

    name = training.network.removeprefix(TIMM)
    options: dict[str, Any] = {"in_chans": n_channels, "drop_rate": training.dropout}
    with explain_drop_path(training):
        # timm leaves out options that are None.
        model: nn.Module = timm.create_model(name, **options, drop_path_rate=training.drop_path)
    return model


@contextmanager
def explain_drop_path(training: Training) -> Iterator[None]:
    """Raise UserError if a network was given a drop path and takes none."""
    try:
        yield
    except TypeError as error:
        if training.drop_path is None:
            raise
        raise UserError(f"--drop-path: {training.network} has none") from error


def make_faster(model: nn.Module) -> nn.Module:
    """Replace the parts of a model that our own code computes faster."""
    if isinstance(model, DenseNet):
        model.features = Features(model.features)
    train_depthwise_faster(model)
    for module in model.modules():
        # Their gradients need their inputs, which torch copies where they work in place: without it
        # a step of MobileNetV2 is 1.15 x as fast.
        if isinstance(module, nn.Hardtanh | nn.Hardswish | nn.SiLU):
            module.inplace = False
    return model


def find_head(backbone: nn.Module, name: str) -> Head:
    """The classifier: in torchvision's models the last linear layer."""
    if name.startswith(TIMM):
        own = cast("Any", backbone).pretrained_cfg["classifier"] or ()
        head = (own,) if isinstance(own, str) else tuple(own)
    else:
        layers = backbone.named_modules()
        head = tuple(key for key, module in layers if isinstance(module, nn.Linear))[-1:]
    if not head:
        raise UserError(f"--network {name}: has no linear classifier that could be replaced")
    return head


def replace_head(backbone: nn.Module, training: Training, n_classes: int) -> None:
    """Replace the classifier by a new one, after dropout."""
    (head, *_) = find_head(backbone, training.network)
    if training.network.startswith(TIMM):  # it has its dropout already
        cast("Any", backbone).reset_classifier(n_classes)
        return
    linear = backbone.get_submodule(head)
    assert isinstance(linear, nn.Linear)
    new_head = nn.Sequential(nn.Dropout(training.dropout), nn.Linear(linear.in_features, n_classes))
    backbone.set_submodule(head, new_head)


def adapt_channels(backbone: nn.Module, training: Training, n_channels: int) -> nn.Module:
    """A network for `n_channels` with the weights of one for three colours, as timm adapts them.

    The filters of the colours are repeated in turn and scaled by 3 / n_channels; a single channel
    gets their sum. Raises UserError if that can't be done.
    """
    from timm.models import adapt_input_conv

    if not training.network.startswith(TIMM):
        first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
        first.weight = nn.Parameter(adapt_input_conv(n_channels, first.weight.detach()))
        first.in_channels = n_channels
        return backbone
    names = cast("Any", backbone).pretrained_cfg["first_conv"] or ()
    state = backbone.state_dict()
    try:
        for name in (names,) if isinstance(names, str) else names:
            state[f"{name}.weight"] = adapt_input_conv(n_channels, state[f"{name}.weight"])
        adapted = make_faster(build_timm(training, n_channels))
        adapted.load_state_dict(state)
    # Networks with an unusual first layer fail in their own ways.
    except (RuntimeError, NotImplementedError, KeyError, AssertionError, TypeError) as error:
        raise UserError(
            f"--network {training.network}: can't be adapted to {n_channels} channels "
            f"({first_line(error)})"
        ) from error
    return adapted


def check_image_size(
    network: Classifier, training: Training, image_shape: tuple[int, int, int]
) -> None:
    """Raise UserError if the network can't take images of these sizes (some have a minimum)."""
    network.eval()
    own = getattr(network.backbone, "pretrained_cfg", {"input_size": (224,)})["input_size"][-1]
    advice = f"--image-size {own}" + (f" --start-size {own}" if training.start_size else "")
    # The network keeps the last of these sizes.
    for size in dict.fromkeys((training.first_size, training.image_size)):
        network.image_size = size
        try:
            with torch.no_grad():
                network(torch.zeros((1, *image_shape), dtype=torch.uint8))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise UserError(
                f"--network {training.network} can't take images of "
                f"{size or 'x'.join(map(str, image_shape[1:]))} pixels ({first_line(error)}); "
                f"try {advice}"
            ) from error
