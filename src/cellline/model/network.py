"""The network: uint8 images in, logits out."""

import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet

from cellline.config import Training
from cellline.errors import UserError, first_line
from cellline.model.densenet import Features
from cellline.model.normalization import Normalization
from cellline.model.weights import load_backbone_weights


class Classifier(nn.Module):
    """Our normalization, then a torchvision network whose last linear layer is ours.

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
) -> Classifier:
    """Build the network of a fold, on the CPU; weights that are not loaded are random.

    `image_shape` is (channel, height, width) of one image. Random numbers come from torch's global
    generator. Raises UserError for an unknown network, for weights that are not available or don't
    fit, and for a network that can't take images of this size.
    """
    backbone = build_backbone(training.network)
    head = find_head(backbone, training.network)
    load_backbone_weights(backbone, training.network, training.weights, head)
    linear = backbone.get_submodule(head)
    assert isinstance(linear, nn.Linear)
    new_head = nn.Sequential(nn.Dropout(training.dropout), nn.Linear(linear.in_features, n_classes))
    backbone.set_submodule(head, new_head)
    adapt_first_convolution(backbone, image_shape[0])
    network = Classifier(backbone, normalization, training.image_size)
    check_image_size(network, training, image_shape)
    return network


def build_backbone(name: str) -> nn.Module:
    """A torchvision classification model by its torchvision name, without trained weights."""
    if name == "densenet_tiny":
        return make_faster(DenseNet(4, block_config=(2, 2), num_init_features=8, bn_size=2))
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise UserError(
            f"--network {name}: not a classification model of torchvision "
            f"{torchvision.__version__}; known: densenet_tiny, {', '.join(known)}"
        )
    # These two have auxiliary classifiers, made for ImageNet's classes and image size.
    has_auxiliary = name in ("googlenet", "inception_v3")
    options = {"aux_logits": False, "init_weights": True} if has_auxiliary else {}
    return make_faster(torchvision.models.get_model(name, weights=None, **options))


def make_faster(model: nn.Module) -> nn.Module:
    """Replace the parts of a model that our own code computes faster."""
    if isinstance(model, DenseNet):
        model.features = Features(model.features)
    return model


def find_head(backbone: nn.Module, name: str) -> str:
    """Dotted name of the last linear layer, which is the classifier in torchvision's models."""
    linear = [key for key, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise UserError(f"--network {name}: has no linear classifier that could be replaced")
    last: str = linear[-1]
    return last


def adapt_first_convolution(backbone: nn.Module, n_channels: int) -> None:
    """Adapt the first convolution and its weights to `n_channels`.

    The filters of the three colours are repeated in turn and scaled so that the response to equal
    channels stays the same; a single channel gets their sum. The rule is timm's `adapt_input_conv`
    (Wightman, pytorch-image-models).
    """
    first = next(module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels == n_channels:
        return
    weight = first.weight.detach()
    if n_channels == 1:
        adapted = weight.sum(1, keepdim=True)
    else:
        colours = torch.arange(n_channels) % first.in_channels
        adapted = weight[:, colours] * (first.in_channels / n_channels)
    first.in_channels = n_channels
    first.weight = nn.Parameter(adapted)


def check_image_size(
    network: Classifier, training: Training, image_shape: tuple[int, int, int]
) -> None:
    """Raise UserError if the network can't take images of these sizes (some have a minimum)."""
    network.eval()
    advice = "--image-size 224" + (" --start-size 224" if training.start_size else "")
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
