"""Attributions of pixels by integrated gradients (Sundararajan, Taly and Yan 2017)."""

from collections.abc import Sequence

import numpy as np
import torch

from cellline.model.views import Predictor, see

# Images between the baseline and the image, for each view. In eight views, MobileNetV2's sums are
# 1.4 % off in the median of 49 samples of the challenge, and 3.3 % or less in 90 % of them. With 16
# steps, one of two samples was up to 27 % off.
STEPS = 32


def attribute(
    predictor: Predictor, image: np.ndarray, label: int, views: Sequence[int]
) -> np.ndarray:
    """Contribution of each pixel of an image uint8 [channel, height, width] to a class, float32.

    That is to its log probability, averaged over the views, on the way from the mean of the fold's
    training images, which is zero to the network, to the image: the attributions sum to the
    difference. A logit would not do, since what raises all of them alike changes no prediction.
    The network's weights get no gradients from then on.
    """
    network = predictor.network.eval().requires_grad_(False)
    mean = network.mean[0]
    difference = torch.from_numpy(image).to(mean.device) - mean
    slope = torch.zeros_like(difference)
    for number, view in enumerate(views):
        # Views take steps between each other's, as if each took all of them. The log probability
        # swings most near the baseline, where all pixels of a layer cross a threshold at once: the
        # square makes steps small there.
        step = torch.arange(STEPS, device=mean.device) + (number + 0.5) / len(views)
        root = step / STEPS
        for part in root.split(predictor.batch_size):
            part = part.view(-1, 1, 1, 1)
            images = (mean + part**2 * difference).requires_grad_()
            log_prob = network(see(images, view)).log_softmax(dim=1)[:, label].sum()
            # The gradient passes through the view, and so is turned back.
            [gradient] = torch.autograd.grad(log_prob, images)
            slope += (2 * part * gradient).sum(dim=0)
    found: np.ndarray = (difference * slope / (STEPS * len(views))).cpu().numpy()
    return found
