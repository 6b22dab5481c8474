"""Batches of images: shuffled and augmented for training, in order for prediction."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cellline.data.ids import number_samples
from cellline.host.stopping import leave_to_parent
from cellline.seeding import SHUFFLE, derive_seed
from cellline.training.augmentation import Augmenter

# One batch: images uint8 [batch, channel, height, width] and labels int64 [batch].
Batch = tuple[Tensor, Tensor]


def steps_per_epoch(n_samples: int, batch_size: int) -> int:
    """How many batches hold `n_samples`; none holds a single one, of which no variance is left."""
    return min(-(-n_samples // batch_size), n_samples // 2)


def deal_batches(n_samples: int, batch_size: int, seed: int, epoch: int) -> list[np.ndarray]:
    """The samples' positions, shuffled by (seed, epoch) and cut into batches.

    Every sample occurs once. Batch sizes differ by one at most, where a short last batch would
    weigh its samples more and, with a single sample, break batch normalization.
    """
    order = np.random.default_rng(derive_seed(seed, SHUFFLE, epoch)).permutation(n_samples)
    return np.array_split(order, steps_per_epoch(n_samples, batch_size))


class TrainingBatches:
    """The training rows of a fold, anew shuffled and augmented each epoch."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        sample_ids: np.ndarray,
        rows: np.ndarray,
        *,
        batch_size: int,
        seed: int,
        augmenter: Augmenter,
        workers: int,
        pin_memory: bool,
        share: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> None:
        """`rows` of images [n, channel, height, width], labels [n] and sample_ids [n].

        Where several processes train together, `share` takes this one's part of a batch.
        """
        self.plan = EpochPlan(len(rows), batch_size, seed, share)
        self.loader: DataLoader[Batch] = DataLoader(
            AugmentedBatches(images, labels, sample_ids, rows, augmenter),
            batch_size=None,
            sampler=self.plan,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=leave_to_parent,
            pin_memory=pin_memory,
            # Its own, unused: else it draws seeds for its workers from the generator that dropout
            # draws from, more or fewer of them with their number.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self.plan)

    def size(self, step: int) -> int:
        """The samples of the batch of a step, counted over epochs; all shares together."""
        least, larger = divmod(self.plan.n_samples, len(self))
        return least + (step % len(self) < larger)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from number `first` on; a pure function of both numbers."""
        self.plan.epoch, self.plan.first = epoch, first
        return iter(self.loader)


class EpochPlan(Sampler[tuple[int, np.ndarray]]):
    """What the loader asks the data set for: (epoch, positions) of each batch."""

    def __init__(
        self,
        n_samples: int,
        batch_size: int,
        seed: int,
        share: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.seed = seed
        self.share = share
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return steps_per_epoch(self.n_samples, self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        batches = deal_batches(self.n_samples, self.batch_size, self.seed, self.epoch)
        for positions in batches[self.first :]:
            yield self.epoch, self.share(positions)


class AugmentedBatches(Dataset[Batch]):
    """Augmented batches by (epoch, positions among the fold's training rows)."""

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        sample_ids: np.ndarray,
        rows: np.ndarray,
        augmenter: Augmenter,
    ) -> None:
        self.images = images
        self.labels = labels
        self.sample_numbers = number_samples(sample_ids)
        self.rows = rows
        self.augmenter = augmenter

    def __getitem__(self, key: tuple[int, np.ndarray]) -> Batch:
        epoch, positions = key
        rows = self.rows[positions]
        images = np.stack(
            [self.augmenter(self.images[row], epoch, int(self.sample_numbers[row])) for row in rows]
        )
        return torch.from_numpy(images), torch.from_numpy(self.labels[rows])
