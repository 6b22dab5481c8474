"""The reference loop: how the known solution trains, written anew from its description.

float32 in PyTorch's default layout, torchvision's network, all images in memory, normalized a
sample at a time in a DataLoader, Adam, and every prediction fetched by itself. It runs in a process
of its own, because ours changes how the C library keeps memory, from which it would gain, too.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models import DenseNet, get_model

from cellline.config import DEFAULT_LR
from cellline.model.network import find_head
from cellline.model.normalization import Normalization

DROPOUT = 0.5


def plain_network(name: str, n_classes: int, dropout: float = DROPOUT) -> nn.Module:
    """torchvision's own network with the known solution's head, by the name that ours has."""
    network: nn.Module
    if name == "densenet_tiny":
        network = DenseNet(4, block_config=(2, 2), num_init_features=8, bn_size=2)
    else:
        network = get_model(name, weights=None)
    (head,) = find_head(network, name)
    linear = network.get_submodule(head)
    assert isinstance(linear, nn.Linear)
    new_head = nn.Sequential(nn.Dropout(dropout), nn.Linear(linear.in_features, n_classes))
    network.set_submodule(head, new_head)
    return network


class NormalizedImages(Dataset[tuple[Tensor, int]]):
    """Images uint8 [n, channel, height, width] in memory, each normalized when it is asked for."""

    def __init__(
        self, images: np.ndarray, labels: np.ndarray, normalization: Normalization
    ) -> None:
        self.images = images
        self.labels = labels
        self.mean = torch.tensor(normalization.mean).view(-1, 1, 1)
        self.std = torch.tensor(normalization.std).view(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = torch.from_numpy(self.images[index]).float()
        return (image - self.mean) / self.std, int(self.labels[index])


class ReferenceLoop:
    """A network and what trains it."""

    def __init__(
        self,
        network: nn.Module,
        images: np.ndarray,
        labels: np.ndarray,
        normalization: Normalization,
        *,
        batch_size: int,
        device: torch.device,
    ) -> None:
        self.network = network.to(device)
        self.device = device
        self.loader = DataLoader(
            NormalizedImages(images, labels, normalization),
            batch_size=batch_size,
            shuffle=True,
            # A batch of 64 is loaded in 4.4 ms of the 4.6 s that its step takes on two cores: more
            # processes could gain a thousandth, and would take the cores that train.
            num_workers=0,
        )
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=DEFAULT_LR)

    def train_epoch(self) -> tuple[float, float]:
        """Train on every sample once; the mean loss and the share of right predictions."""
        self.network.train()
        total, right, n_samples = 0.0, 0, 0
        for images, labels in self.loader:
            images, labels = images.to(self.device), labels.to(self.device)
            self.optimizer.zero_grad()
            logits = self.network(images)
            loss = self.loss(logits, labels)
            loss.backward()
            self.optimizer.step()
            total += loss.item() * len(labels)
            n_samples += len(labels)
            predicted = logits.argmax(1)
            for index in range(len(labels)):
                right += int(predicted[index].item() == labels[index].item())
        return total / n_samples, right / n_samples


class Elsewhere:
    """A reference loop in another process."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def train_epoch(self) -> tuple[float, float]:
        """That of the loop. Raises EOFError or ConnectionError where the process failed; it has
        printed why."""
        self.connection.send(None)
        result: tuple[float, float] = self.connection.recv()
        return result


@contextmanager
def elsewhere(make: Callable[..., ReferenceLoop], *arguments: object) -> Iterator[Elsewhere]:
    """The loop that `make(*arguments)` makes there; both must be such as can be pickled."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Elsewhere(ours)
    finally:
        ours.close()
        process.join()


def _serve(
    connection: Connection, make: Callable[..., ReferenceLoop], arguments: tuple[object, ...]
) -> None:
    loop = make(*arguments)
    with suppress(EOFError):  # the other end is closed when it is over
        while True:
            connection.recv()
            connection.send(loop.train_epoch())
