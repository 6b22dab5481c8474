"""The training of one fold: its data, its settings, and where it is computed."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.model.weights import Start
from cellline.runs.folds import Folds
from cellline.training.ranks import Ranks

# Labels of images, as shares [n, class].
Teacher = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Task:
    """One fold to train, as one of the ranks that train it.

    Raises UserError if the ranks can't share a batch.
    """

    folds: Folds
    fold: int
    training: Training
    """The settings; to train, they need a learning rate and a batch size."""
    device: Device
    ranks: Ranks = field(default_factory=Ranks)
    start: Start = field(default_factory=Start)
    """The weights that the network starts from."""
    teacher: Teacher | None = None
    """Gives the labels of images in place of the competition."""

    def __post_init__(self) -> None:
        n_ranks, n_held_out = self.ranks.size, len(self.held_out)
        if n_ranks == 1:
            return
        smallest = len(self.rows) // self.steps
        if n_ranks > min(smallest // 2, n_held_out):
            raise UserError(
                f"{n_ranks} processes can't share batches of {smallest} and {n_held_out} held-out "
                "samples: each needs two samples of a batch. Lower --gpus or raise --batch-size"
            )

    @property
    def competition(self) -> Competition:
        """The competition that the folds deal."""
        return self.folds.competition

    @cached_property
    def rows(self) -> np.ndarray:
        """int64 [n]: the training rows."""
        return self.folds.training_rows(self.fold)

    @cached_property
    def held_out(self) -> np.ndarray:
        """int64 [m]: the rows that are only predicted."""
        return self.folds.held_out_rows(self.fold)

    @property
    def lr(self) -> float:
        """The peak learning rate."""
        assert self.training.lr is not None
        return self.training.lr

    @property
    def batch_size(self) -> int:
        """The largest number of samples in a batch; all ranks' shares together."""
        assert self.training.batch_size is not None
        return self.training.batch_size

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return steps_per_epoch(len(self.rows), self.batch_size)

    @property
    def n_steps(self) -> int:
        """Steps in all epochs."""
        return self.training.epochs * self.steps

    def pixels(self, epoch: int) -> int:
        """Pixels of an image as the network sees it in an epoch (from 0)."""
        side = self.training.size_of(epoch)
        height, width = self.competition.train_images.shape[2:]
        return side**2 if side else height * width


def steps_per_epoch(n_samples: int, batch_size: int) -> int:
    """Batches in an epoch; each holds two samples or more, as a single one has no variance."""
    return min(-(-n_samples // batch_size), n_samples // 2)
