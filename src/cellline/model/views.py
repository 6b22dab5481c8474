"""Predictions for several views of an image: test-time augmentation (TTA).

Callers average the probabilities of a sample's views.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cellline.config import Symmetry
from cellline.data.cache import Images
from cellline.data.views import VIEWS
from cellline.host.device import Device, gpu_is_full
from cellline.model.network import Classifier

PLAIN = (0,)
# Left and right swapped.
MIRROR = (0, 4)
# The views that keep the shape of a rectangle: both mirror images, and the half turn.
FLAT_VIEWS = (0, 2, 4, 6)
# Images at once. DenseNet-161 at 64 px on two Zen 3 cores predicts 64 images/s in batches of 8, 82
# in batches of 16, 99 of 32, 104 of 64, 105 of 128, 97 of 256.
EFFICIENT_BATCH = 64


def choose_views(shape: Sequence[int], symmetry: Symmetry) -> tuple[int, ...]:
    """The views of images of `shape` [..., height, width] that have the symmetry and this shape."""
    square = VIEWS if shape[-1] == shape[-2] else FLAT_VIEWS
    return {"d4": square, "flips": FLAT_VIEWS, "mirror": MIRROR, "none": PLAIN}[symmetry]


def see(images: Tensor, view: int) -> Tensor:
    """Turn and mirror images [..., height, width] as `data.views.take_view` does."""
    turned = torch.rot90(images, view % 4, (-2, -1))
    return turned.flip(-1) if view >= 4 else turned


@dataclass(frozen=True)
class Predictor:
    """A trained network, ready to predict."""

    network: Classifier
    """The network, on the device; predicting puts it into evaluation mode."""
    device: Device
    batch_size: int
    """The batch size of its training, which sets how many images fit into memory."""

    @torch.inference_mode()
    def predict(
        self,
        images: Images,
        rows: np.ndarray,
        views: Sequence[int],
        after_batch: Callable[[int], object] = lambda n: None,
    ) -> np.ndarray:
        """Class probabilities float32 [view, len(rows), class] of `rows` of images, uint8.

        `after_batch` is called with the number of samples in each finished batch; an exception from
        it ends the prediction.
        """
        self.network.eval()
        # The views of a sample are predicted together. Training keeps the output of every layer, so
        # an image takes at least 4.4 times as much memory there (VGG; DenseNet-161: 16).
        at_once = max(self.batch_size, min(EFFICIENT_BATCH, 4 * self.batch_size))
        n = max(1, at_once // len(views))
        # One tensor for all: small ones kept between the freed large ones would fragment memory.
        prob: Tensor | None = None
        done = 0
        while done < len(rows):
            batch = rows[done : done + n]
            try:
                of_batch = self._predict_batch(images[batch], views)
            except RuntimeError as error:
                if not gpu_is_full(error) or n == 1:
                    raise
                # This GPU may be smaller than the one used for training. Retry outside this block,
                # when the exception no longer holds memory.
                n //= 2
                continue
            if prob is None:
                prob = of_batch.new_empty((len(views), len(rows), of_batch.shape[-1]))
            prob[:, done : done + len(batch)] = of_batch
            done += len(batch)
            after_batch(len(batch))
        assert prob is not None
        return prob.cpu().numpy()

    def _predict_batch(self, images: np.ndarray, views: Sequence[int]) -> Tensor:
        """Class probabilities float32 [view, n, class], on the device, of n images."""
        batch = torch.from_numpy(images).to(self.device.device, non_blocking=True)
        with self.device.autocast():
            logits = self.network(torch.cat([see(batch, view) for view in views]))
        prob = torch.softmax(logits.float(), dim=1)
        return prob.view(len(views), len(batch), -1)
