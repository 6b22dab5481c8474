"""Depthwise convolutions that train faster in bfloat16 on a CPU."""

from typing import Any, cast

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional

Options = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


class DepthwiseInBfloat16(torch.autograd.Function):
    """A depthwise convolution whose gradients are computed where a CPU is fast.

    oneDNN computes the gradients of a depthwise convolution in bfloat16 up to ten times as slowly
    as the convolution. That of the images is a convolution, too, by the turned kernel, of gradients
    that are `stride` pixels apart. That of the kernel is computed in float32.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, kernel: Tensor, options: Options) -> Tensor:
        """The convolution of images [n, channel, height, width] by a kernel [channel, 1, h, w].

        `options` are stride, padding and dilation.
        """
        ctx.save_for_backward(images, kernel)
        ctx.options = options
        return functional.conv2d(images, kernel.to(images.dtype), None, *options, len(kernel))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of images and kernel."""
        images, kernel = ctx.saved_tensors
        stride, padding, dilation = ctx.options
        of_images = None
        if ctx.needs_input_grad[0]:
            reach = [d * (side - 1) for d, side in zip(dilation, kernel.shape[2:], strict=True)]
            if stride != (1, 1):
                sides = [
                    side + 2 * p - r
                    for side, p, r in zip(images.shape[2:], padding, reach, strict=True)
                ]
                n, channels = grad.shape[:2]
                spread = grad.new_zeros((n, *sides, channels)).permute(0, 3, 1, 2)
                spread[:, :, :: stride[0], :: stride[1]] = grad
            else:
                spread = grad
            rest = [r - p for r, p in zip(reach, padding, strict=True)]
            turned = kernel.to(grad.dtype).flip(2, 3)
            of_images = functional.conv2d(spread, turned, None, 1, rest, dilation, len(kernel))
        _, of_kernel, _ = torch.ops.aten.convolution_backward(
            grad.float(),
            images.float(),
            kernel,
            None,
            stride,
            padding,
            dilation,
            False,
            (0, 0),
            len(kernel),
            (False, True, False),
        )
        return of_images, of_kernel, None


class Depthwise(nn.Module):
    """A depthwise convolution that is a `DepthwiseInBfloat16` where a CPU trains in bfloat16."""

    def forward(self, images: Tensor) -> Tensor:
        """The convolution of images [batch, channel, height, width]."""
        own = cast("Any", self)
        if not (
            self.training
            and images.device.type == "cpu"
            and torch.is_autocast_enabled("cpu")
            and torch.get_autocast_dtype("cpu") == torch.bfloat16
        ):
            return cast("Tensor", cast("Any", super()).forward(images))
        padding = own.padding
        with torch.autocast("cpu", enabled=False):
            images = images.bfloat16()
            if isinstance(self, Conv2dSame):
                images = pad_same(images, own.kernel_size, own.stride, own.dilation)
                padding = (0, 0)
            options = own.stride, padding, own.dilation
            out = cast("Tensor", DepthwiseInBfloat16.apply(images, own.weight, options))
            return out if own.bias is None else out + own.bias.bfloat16().view(-1, 1, 1)


def train_depthwise_faster(network: nn.Module) -> None:
    """Make the depthwise convolutions of a network `Depthwise`, with the same state dict."""
    for module in network.modules():
        if (
            isinstance(module, nn.Conv2d)
            and type(module) in (nn.Conv2d, Conv2dSame)
            and module.groups == module.in_channels == module.out_channels > 1
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
        ):
            own = type(module)
            # Another class, not a wrapper, which would rename its weights in checkpoints.
            module.__class__ = type(own.__name__, (Depthwise, own), {})
