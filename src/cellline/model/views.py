"""Predictions, averaged over the eight views of a square (test-time augmentation)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cellline.host.device import Device, gpu_is_full
from cellline.model.network import Classifier

VIEWS = tuple(range(8))
# Those that keep the shape of an image that isn't square: half turns and mirror images.
FLAT_VIEWS = (0, 2, 4, 6)
PLAIN = (0,)
# Images at once, of DenseNet-161 at 64 px on two Zen 3 cores: 64 a second in batches of 8, 82 in
# batches of 16, 99 of 32, 104 of 64, 105 of 128, 97 of 256.
EFFICIENT_BATCH = 64


def all_views(images: np.ndarray) -> tuple[int, ...]:
    """The views of images [..., height, width] that have their shape: eight for a square."""
    return VIEWS if images.shape[-1] == images.shape[-2] else FLAT_VIEWS


def see(images: Tensor, view: int) -> Tensor:
    """View `view` of images [..., height, width]: `view % 4` quarter turns, from 4 on mirrored.

    View 0 is the image itself; the eight are the dihedral group D4.
    """
    turned = torch.rot90(images, view % 4, (-2, -1))
    return turned.flip(-1) if view >= 4 else turned


def unsee(images: Tensor, view: int) -> Tensor:
    """The inverse of `see`."""
    turned = images.flip(-1) if view >= 4 else images
    return torch.rot90(turned, -(view % 4), (-2, -1))


@torch.inference_mode()
def predict_views(
    network: Classifier,
    images: np.ndarray,
    rows: np.ndarray,
    device: Device,
    *,
    batch_size: int,
    views: Sequence[int],
    after_batch: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Class probabilities float32 [view, len(rows), class] of `rows` of images, uint8.

    `network` must be on the device; it is put into evaluation mode. `batch_size` is what it was
    trained with. `after_batch` is given the number of samples in each batch that has been
    predicted; what it raises ends the prediction.
    """
    network.eval()
    # The views of a sample are predicted together. Four images need no more than one that is
    # trained on, of which what all layers compute is kept: measured for VGG and SqueezeNet, which
    # differ least (4.4 times); DenseNet-161 needs 16 times as much.
    at_once = max(batch_size, min(EFFICIENT_BATCH, 4 * batch_size))
    n = max(1, at_once // len(views))
    # One tensor for all: a small one kept from each batch would lie between the large ones that are
    # freed, and the memory of a process would grow by the holes.
    prob: Tensor | None = None
    done = 0
    while done < len(rows):
        batch = rows[done : done + n]
        try:
            of_batch = predict_batch(network, images[batch], device, views)
        except RuntimeError as error:
            if not gpu_is_full(error) or n == 1:
                raise
            # Another GPU than that of the training may be smaller. Tried again after this block,
            # when the exception no longer holds what was computed.
            n //= 2
            continue
        if prob is None:
            prob = of_batch.new_empty((len(views), len(rows), of_batch.shape[-1]))
        prob[:, done : done + len(batch)] = of_batch
        done += len(batch)
        if after_batch is not None:
            after_batch(len(batch))
    assert prob is not None
    return prob.cpu().numpy()


def predict_batch(
    network: Classifier, images: np.ndarray, device: Device, views: Sequence[int]
) -> Tensor:
    """Class probabilities float32 [view, n, class], on the device, of n images."""
    batch = torch.from_numpy(images).to(device.device, non_blocking=True)
    with device.autocast():
        logits = network(torch.cat([see(batch, view) for view in views]))
    prob = torch.softmax(logits.float(), dim=1)
    return prob.view(len(views), len(batch), -1)


def average_views(prob: np.ndarray) -> np.ndarray:
    """The prediction [sample, class] of those of views [view, sample, class].

    Probabilities, not logits, are averaged.
    """
    mean: np.ndarray = prob.mean(axis=0)
    return mean
