"""torchvision's DenseNet features, computed faster on a CPU: the same weights, the same numbers.

Work that the layers of a dense block share is done once. Each layer normalizes all channels before
it, so torchvision's code copies every channel, and computes its mean and variance, once for each
later layer. Here the channels of a block are columns of one matrix with a row per pixel. They are
standardized once, and a layer applies only its own scale and offset. 1x1 convolutions, and the
gradients of the others, are matrix products. A transition averages pixels before it mixes channels,
not after: both operations are linear, and a quarter as many pixels remain to be mixed.

The single storage for a block's channels is the idea of Pleiss et al. 2017 (arXiv:1707.06990).
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

aten = torch.ops.aten


class Layer(NamedTuple):
    """The weights of a dense layer: normalization and 1x1 convolution, then the same with 3x3."""

    scale1: Tensor  # [channel before]
    offset1: Tensor
    conv1: Tensor  # [bottleneck, channel before, 1, 1]
    scale2: Tensor  # [bottleneck]
    offset2: Tensor
    conv2: Tensor  # [new channel, bottleneck, 3, 3]


class Features(nn.Sequential):
    """`DenseNet.features` with torchvision's children and so its state dict.

    Except for pooling first, it computes as torchvision does wherever our way is not known to be
    faster: on GPUs, and for predictions in other precisions than that of the weights; also for
    gradients in evaluation mode. Our way does not call the modules inside dense blocks, nor their
    hooks.
    """

    def __init__(self, features: nn.Sequential) -> None:
        """`features` comes from a torchvision model, which has no dropout in its layers."""
        super().__init__(OrderedDict(features.named_children()))
        for name, child in self.named_children():
            if name.startswith("transition"):
                parts = dict(child.named_children())
                order = ("norm", "relu", "pool", "conv")
                setattr(self, name, nn.Sequential(OrderedDict((key, parts[key]) for key in order)))

    def forward(self, images: Tensor) -> Tensor:
        """Normalized features [batch, channel, height, width] of images, channels last."""
        usual = images.device.type != "cpu" or torch.is_grad_enabled() != self.training
        if usual or (torch.is_autocast_enabled("cpu") and not self.training):
            return cast("Tensor", super().forward(images))  # type: ignore[no-untyped-call]
        modules: list[Any] = list(self)
        x = images
        for module in modules[:4]:
            x = module(x)
        compute = train_block if self.training else predict_block
        for block, end in zip(modules[4::2], modules[5::2], strict=True):
            layers = list(block.values())
            if isinstance(end, nn.BatchNorm2d):
                x = compute(x, layers, end, rectify=False)
            else:
                x = end.pool(compute(x, layers, end.norm, rectify=True))
                x = as_image(as_rows(x) @ end.conv.weight.flatten(1).t(), x.shape)
        return x


def as_rows(image: Tensor) -> Tensor:
    """View [batch, channel, height, width], channels last, as a matrix [pixel, channel]."""
    return image.permute(0, 2, 3, 1).flatten(0, 2)


def as_image(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """View a matrix as [batch, channel, height, width]: the inverse of `as_rows`."""
    return rows.view(shape[0], shape[2], shape[3], -1).permute(0, 3, 1, 2)


def train_block(x: Tensor, layers: Sequence[Any], end: nn.BatchNorm2d, *, rectify: bool) -> Tensor:
    """Apply a dense block and the normalization after it (and ReLU, if `rectify`), in training.

    It computes in the precision of `x`, statistics in that of the weights, and updates the running
    statistics of all normalizations, as torch does. These must share one eps and momentum. All
    samples together must have two pixels or more.
    """
    weights = []
    for layer in layers:
        first = (layer.norm1.weight, layer.norm1.bias, layer.conv1.weight)
        weights += [weight.to(x.dtype) for weight in first]
        weights += [layer.norm2.weight, layer.norm2.bias, layer.conv2.weight.to(x.dtype)]
    weights += [end.weight.to(x.dtype), end.bias.to(x.dtype)]
    rows, mean1, invstd1, *statistics2 = DenseBlock.apply(x, rectify, end.eps, *weights)
    norms = [*(layer.norm1 for layer in layers), end, *(layer.norm2 for layer in layers)]
    n = len(layers)
    means = [mean1] * (n + 1) + statistics2[:n]
    invstds = [invstd1] * (n + 1) + statistics2[n:]
    with torch.no_grad():
        correction = len(rows) / (len(rows) - 1)
        sizes = [norm.num_features for norm in norms]
        variances = [
            (invstd[:size] ** -2 - norm.eps) * correction
            for norm, size, invstd in zip(norms, sizes, invstds, strict=True)
        ]
        means = [mean[:size] for size, mean in zip(sizes, means, strict=True)]
        momentum = cast("float", end.momentum)
        torch._foreach_lerp_([norm.running_mean for norm in norms], means, momentum)
        torch._foreach_lerp_([norm.running_var for norm in norms], variances, momentum)
        torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    return as_image(rows, x.shape)


class DenseBlock(torch.autograd.Function):
    """A dense block in training, with the normalization (and ReLU) of all its channels.

    Both passes work on `channels` [pixel, channel]: the block's input and each layer's output,
    standardized. The backward pass sums the gradient of the channels over the layers, then
    accounts once per channel, not once per channel and layer, for the mean and variance that
    depend on the whole channel.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rectify: bool, eps: float, *weights: Tensor
    ) -> tuple[Tensor, ...]:
        """Result rows, then mean and 1 / deviation: of the channels, then of each layer's second
        normalization, all means first."""
        layers = split_weights(weights)
        start, new = x.shape[1], layers[0].conv2.shape[0]
        size = start + new * len(layers)
        channels = x.new_empty(x.numel() // start, size)
        # Statistics take the precision of the weights.
        example = layers[0].scale2
        mean, invstd = example.new_empty(size), example.new_empty(size)
        ones, zeros = example.new_ones(size), example.new_zeros(size)

        def add(image: Tensor, at: slice) -> None:
            standardized, mean[at], invstd[at] = normalize(image, ones[at], zeros[at], eps)
            channels[:, at] = as_rows(standardized)

        add(x, slice(start))
        saved: list[Tensor] = []
        means: list[Tensor] = []
        invstds: list[Tensor] = []
        for n in range(start, size, new):
            layer = layers[len(means)]
            a = torch.addcmul(layer.offset1, channels[:, :n], layer.scale1).relu_()
            b = as_image(a @ layer.conv1.flatten(1).t(), x.shape)
            c, mean2, invstd2 = normalize(b, layer.scale2, layer.offset2, eps)
            c.relu_()
            add(torch.conv2d(c, layer.conv2, padding=1), slice(n, n + new))
            saved += [a, b, c, mean2, invstd2]
            means.append(mean2)
            invstds.append(invstd2)
        result = torch.addcmul(weights[-1], channels, weights[-2])
        if rectify:
            result.relu_()
            saved.append(result)
        ctx.save_for_backward(channels, invstd, *weights, *saved)
        ctx.shape, ctx.eps, ctx.rectify, ctx.n_weights = x.shape, eps, rectify, len(weights)
        ctx.mark_non_differentiable(mean, invstd, *means, *invstds)
        return result, mean, invstd, *means, *invstds

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, result_grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the input and the weights."""
        channels, invstd, *rest = ctx.saved_tensors
        weights, saved = rest[: ctx.n_weights], rest[ctx.n_weights :]
        if ctx.rectify:
            result_grad = aten.threshold_backward(result_grad, saved.pop(), 0)
        channels_grad = result_grad * weights[-2]
        grads = [(result_grad * channels).sum(0), result_grad.sum(0)]
        # One buffer for all layers: memory that was just used is still in the cache.
        scratch = torch.empty_like(result_grad).view(-1)

        def before_standardizing(at: slice) -> Tensor:
            grad, standardized = channels_grad[:, at], channels[:, at]
            factor = invstd[at].to(grad.dtype)
            along_mean, along_deviation = grad.mean(0), (grad * standardized).mean(0)
            result = torch.addcmul(-along_mean * factor, grad, factor)
            return result.addcmul_(standardized, -along_deviation * factor)

        n = channels.shape[1]
        for layer in reversed(split_weights(weights)):
            *saved, a, b, c, mean2, invstd2 = saved
            new = layer.conv2.shape[0]
            n -= new
            d_grad = as_image(before_standardizing(slice(n, n + new)), ctx.shape)
            c_grad, conv2_grad = convolution_backward(d_grad, c, layer.conv2)
            c_rows = as_rows(c)
            aten.threshold_backward.grad_input(c_grad, c_rows, 0, grad_input=c_grad)
            b_grad, scale2_grad, offset2_grad = aten.native_batch_norm_backward(
                *(as_image(c_grad, ctx.shape), b, layer.scale2, None, None, mean2, invstd2),
                *(True, ctx.eps, [True, True, True]),
            )
            b_grad = as_rows(b_grad)
            conv1_grad = (b_grad.t() @ a).view_as(layer.conv1)
            a_grad = scratch[: a.numel()].view_as(a)
            torch.mm(b_grad, layer.conv1.flatten(1), out=a_grad)
            aten.threshold_backward.grad_input(a_grad, a, 0, grad_input=a_grad)
            offset1_grad = a_grad.sum(0)
            channels_grad[:, :n].addcmul_(a_grad, layer.scale1)
            scale1_grad = a_grad.mul_(channels[:, :n]).sum(0)
            grads = [
                *(scale1_grad, offset1_grad, conv1_grad, scale2_grad, offset2_grad, conv2_grad),
                *grads,
            ]
        x_grad = as_image(before_standardizing(slice(n)), ctx.shape)
        return x_grad, None, None, *grads


def split_weights(weights: Sequence[Tensor]) -> list[Layer]:
    """Group `DenseBlock`'s weights by layer; its last normalization's come at the end."""
    return [Layer(*weights[i : i + 6]) for i in range(0, len(weights) - 2, 6)]


def normalize(
    image: Tensor, scale: Tensor, offset: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize by the batch's own statistics; return its mean and 1 / deviation as well."""
    return torch.native_batch_norm(image, scale, offset, None, None, True, 0.0, eps)


def convolution_backward(grad: Tensor, image: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of a 3x3 convolution with regard to its input, as rows, and its kernel.

    Two matrix products share one matrix: for each pixel, the gradients of the nine output pixels
    that it contributes to. oneDNN takes as long at 16x16 pixels, and three times as long at 2x2.
    """
    n, new, height, width = grad.shape
    padded = functional.pad(grad.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    batch, row, pixel, one = padded.stride()
    windows = padded.as_strided(
        (n, height, width, 3, 3, new), (batch, row, pixel, row, pixel, one)
    ).reshape(-1, 9 * new)
    # The kernel's last element connects the middle pixel to the first pixel of its window.
    flipped = kernel.permute(2, 3, 0, 1).flip(0, 1)
    kernel_grad = (windows.t() @ as_rows(image)).view(flipped.shape)
    return windows @ flipped.reshape(9 * new, -1), kernel_grad.flip(0, 1).permute(2, 3, 0, 1)


def predict_block(
    x: Tensor, layers: Sequence[Any], end: nn.BatchNorm2d, *, rectify: bool
) -> Tensor:
    """Apply a dense block as `train_block` does, by running statistics and without gradients.

    A layer's second normalization is folded into the convolution before it.
    """
    n, new = x.shape[1], layers[0].conv2.out_channels
    channels = x.new_empty(x.numel() // n, n + new * len(layers))
    channels[:, :n] = as_rows(x)
    for layer in layers:
        scale, offset = scale_and_offset(layer.norm1)
        a = torch.addcmul(offset, channels[:, :n], scale).relu_()
        scale, offset = scale_and_offset(layer.norm2)
        b = torch.addmm(offset, a, (layer.conv1.weight.flatten(1) * scale[:, None]).t()).relu_()
        channels[:, n : n + new] = as_rows(layer.conv2(as_image(b, x.shape)))
        n += new
    scale, offset = scale_and_offset(end)
    result = torch.addcmul(offset, channels, scale)
    return as_image(result.relu_() if rectify else result, x.shape)


def scale_and_offset(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and offset of a normalization by running statistics, per channel."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    return scale, torch.addcmul(norm.bias, norm.running_mean, scale, value=-1)
