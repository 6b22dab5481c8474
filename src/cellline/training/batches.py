"""The training batches of a fold, shuffled and augmented anew in each epoch."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C import _error_if_any_worker_fails
from torch.utils.data import DataLoader, Dataset

from cellline.data.ids import number_samples
from cellline.errors import UserError
from cellline.host.stopping import leave_to_parent
from cellline.seeding import SHUFFLE, derive_seed
from cellline.training.augmentation import Augmenter
from cellline.training.task import Task, steps_per_epoch

# Augmented images uint8 [n, channel, height, width] and labels int64 [n], or why there are none.
Loaded = tuple[np.ndarray, np.ndarray] | Exception


class LoadingError(UserError):
    """Batches can't be loaded any more, by no fault of the training, which is worth saving."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a step, or a part of them."""

    images: Tensor
    """uint8 [n, channel, height, width]"""
    labels: Tensor
    """int64 [n]"""
    step: int
    """Counted over all epochs, from 0."""
    size: int
    """Samples in the whole batch."""
    part: int = 0
    """Number of this part of the whole batch; each part draws its own dropout."""

    @property
    def is_share(self) -> bool:
        """True if other ranks have other parts of the batch."""
        return len(self.labels) < self.size

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )

    def split(self, n_parts: int) -> list["Batch"]:
        """Parts with two samples or more, which batch normalization needs; at most `n_parts`."""
        n_parts = min(n_parts, len(self.labels) // 2)
        if n_parts <= 1:
            return [self]
        images, labels = (t.tensor_split(n_parts) for t in (self.images, self.labels))
        return [
            replace(self, images=images[part], labels=labels[part], part=part)
            for part in range(n_parts)
        ]


def deal_batches(n_samples: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Positions of the samples, shuffled by (seed, epoch) and cut into batches.

    Every sample occurs once. Batch sizes differ by one at most: a short last batch would weigh its
    samples more and, with a single sample, break batch normalization.
    """
    order = np.random.default_rng(derive_seed(seed, SHUFFLE, epoch)).permutation(n_samples)
    return np.array_split(order, steps_per_epoch(n_samples, batch_size))


class TrainingBatches:
    """This rank's share of a task's training batches."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.order: list[tuple[int, np.ndarray]] = []
        """The loader's sampler: epoch, and positions among the training rows, of each batch."""
        workers = task.device.workers
        self.loader: DataLoader[Loaded] = DataLoader(
            AugmentedBatches(task),
            batch_size=None,
            sampler=self.order,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_to_parent,
            # Leaves arrays as they are. Tensors would pass through /dev/shm, of which a container
            # has little; training would wait for ever for those that find no room.
            collate_fn=leave,
            # A generator of its own, unused. Without it, the loader seeds its workers from the
            # generator that dropout draws from, which makes dropout depend on their number.
            generator=torch.Generator(),
        )

    def size(self, step: int) -> int:
        """Samples in the whole batch of a step."""
        least, larger = divmod(len(self.task.rows), self.task.steps)
        return least + (step % self.task.steps < larger)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from number `first` on: a pure function of both numbers."""
        task, ranks = self.task, self.task.ranks
        batches = deal_batches(len(task.rows), task.batch_size, task.training.seed, epoch)
        self.order[:] = [(epoch, ranks.share(positions)) for positions in batches[first:]]
        for step, arrays in enumerate(self.load(), epoch * task.steps + first):
            images, labels = map(torch.from_numpy, arrays)
            yield Batch(images, labels, step, self.size(step), part=ranks.rank)

    def load(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The loader's batches, as arrays. Raises LoadingError."""
        waiting = False

        def notice(number: int, frame: FrameType | None) -> None:
            # Torch's own handler raises wherever this process is, perhaps within a step. Without
            # one, it would wait for ever for the rest of what a killed process was sending.
            if waiting:
                _error_if_any_worker_fails()

        loading = iter(self.loader)
        if self.task.device.workers:
            signal.signal(signal.SIGCHLD, notice)
        try:
            while True:
                waiting = True
                _error_if_any_worker_fails()
                loaded = next(loading, None)
                waiting = False
                if loaded is None:
                    return
                if isinstance(loaded, Exception):
                    raise LoadingError(str(loaded)) from loaded
                yield loaded
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker (pid"):
                raise
            raise LoadingError(
                "a process that augments images was ended from outside, perhaps because memory "
                "was full. What was saved is kept; rerun the same command to resume, with fewer "
                "--workers if memory is short"
            ) from error
        finally:
            waiting = False


def leave(loaded: Any) -> Any:
    """Collate nothing."""
    return loaded


class AugmentedBatches(Dataset[Loaded]):
    """Augmented images and labels by (epoch, positions among the training rows)."""

    def __init__(self, task: Task) -> None:
        # Not the task: where workers are not forked, the data set is copied to each of them.
        self.rows = task.rows
        self.images = task.competition.train_images
        self.labels = task.competition.labels
        self.numbers = number_samples(task.competition.train_ids)
        self.augmenter = Augmenter(task.training)

    def __getitem__(self, key: tuple[int, np.ndarray]) -> Loaded:
        epoch, positions = key
        rows = self.rows[positions]
        try:
            images = [
                self.augmenter(self.images[row], epoch, int(self.numbers[row])) for row in rows
            ]
        except (UserError, OSError) as error:
            return error  # raised in a worker, it would have its traceback in its message
        return np.stack(images), self.labels[rows]
