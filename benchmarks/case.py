"""What is measured: a network, on images of a size, in batches of a size."""

from dataclasses import dataclass

import numpy as np

from cellline.config import DEFAULT_LR, Reading, Training
from cellline.data.competition import Competition
from cellline.host.device import Device
from cellline.runs.folds import NO_PAIRS, Folds

N_CLASSES = 9
# Scored after an epoch, untimed: how fast that is are the rows on prediction.
HELD_OUT = 2 * N_CLASSES


@dataclass(frozen=True)
class Case:
    """One part of the table."""

    network: str
    image_size: int
    """Side of the images in pixels; none are resized."""
    batch_size: int
    steps: int
    """That a candidate computes when it is its turn: an epoch."""
    rounds: int
    device: Device

    @property
    def samples(self) -> int:
        """That a candidate trains on when it is its turn."""
        return self.steps * self.batch_size

    @property
    def training(self) -> Training:
        """The settings: the defaults, from scratch."""
        return Training(
            network=self.network,
            weights="none",
            # One untimed round, and one that is never trained: the last epoch's checkpoint is
            # smaller than the others'.
            epochs=self.rounds + 2,
            lr=DEFAULT_LR,
            batch_size=self.batch_size,
        )

    def draw(self) -> Folds:
        """A competition in memory, of which fold 0 trains on `samples` samples.

        The classes differ in brightness. How fast training is does not depend on what is in the
        images.
        """
        generator = np.random.default_rng(0)
        n = self.samples + HELD_OUT
        labels = np.arange(n) % N_CLASSES
        shape = (n, 3, self.image_size, self.image_size)
        noise = generator.integers(0, 64, shape, dtype=np.uint8)
        images = noise + (20 * labels).astype(np.uint8)[:, None, None, None]
        ids = np.arange(n)
        competition = Competition(
            reading=Reading(id_column="file_id", label_column="cell_line"),
            metric="balanced_accuracy",
            output="label",
            template_columns=("file_id", "cell_line"),
            classes=tuple(f"class {index}" for index in range(N_CLASSES)),
            channels=("blue", "red", "yellow"),
            train_ids=ids,
            labels=labels,
            test_ids=ids,
            template=tuple(map(str, ids)),
            train_images=images,
            test_images=images,
            digest="none",
            test_digest="none",
            warnings=(),
        )
        fold = np.where(ids < HELD_OUT, 0, 1)
        return Folds(fold, ids, NO_PAIRS, competition, 2, "none")
