"""How fast images are predicted in all their views, and the forward passes alone."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.case import Case
from benchmarks.ceiling import PRODUCT, MatrixProduct, count_operations, measure_rate
from benchmarks.measuring import Figure, alternate, compare
from benchmarks.training import our_network, plain_twin
from cellline.host.device import Device
from cellline.model.views import Predictor, choose_views
from cellline.training.progress import synchronize

OURS, BARE = "eight views", "bare forward"
BEFORE = "bare forward of torchvision's network"


class BareForward:
    """The network on one fixed batch on the device, and nothing else, once a view."""

    def __init__(self, network: nn.Module, images: Tensor, n_views: int, device: Device) -> None:
        self.network = device.place(network).eval()
        self.device = device
        self.images = images.to(device.device)
        self.n_views = n_views

    @torch.inference_mode()
    def __call__(self) -> None:
        """Pass forward as often as there are views."""
        for _ in range(self.n_views):
            with self.device.autocast():
                self.network(self.images)
        synchronize(self.device)


def measure(case: Case, after_round: Callable[[], object]) -> list[Figure]:
    """The rows on prediction, of one batch."""
    folds = case.draw()
    competition = folds.competition
    ours = our_network(case, competition, folds)
    theirs = plain_twin(case, ours)
    images = competition.train_images[: case.batch_size]
    views = choose_views(images.shape, case.training.symmetry)
    batch = torch.from_numpy(images)
    bare = BareForward(ours, batch, len(views), case.device)
    product = MatrixProduct(case.device)

    def predict() -> None:
        Predictor(ours, case.device, case.batch_size).predict(images, np.arange(len(images)), views)

    candidates: dict[str, Callable[[], object]] = {
        BEFORE: BareForward(theirs, batch, len(views), case.device),
        BARE: bare,
        OURS: predict,
        PRODUCT: product,
    }
    seconds = alternate(candidates, case.rounds, after_round=after_round)
    operations = count_operations(case.network, case.image_size, backward=False)
    ceiling = product.per_second(seconds[PRODUCT])
    count = len(images) * len(views)

    def rate(name: str, note: str) -> Figure:
        unit = "samples x views/s"
        return measure_rate(name, unit, count, seconds[name], operations, ceiling, note)

    rows = {
        BEFORE: rate(BEFORE, "evaluation mode, channels last, one fixed batch"),
        BARE: rate(BARE, "the same with our network"),
        OURS: rate(OURS, "as make submit predicts: loading, turning, softmax"),
    }
    return [
        *rows.values(),
        compare(rows[OURS], rows[BEFORE]),
        compare(rows[OURS], rows[BARE]),
        product.figure(ceiling),
    ]
