"""The epochs of a fold: batches, steps, history."""

from collections.abc import Callable
from dataclasses import asdict
from math import nan
from typing import Any

import torch

from cellline.scoring.decisions import Decided
from cellline.training.batches import TrainingBatches
from cellline.training.checkpoint import Checkpoint
from cellline.training.epoch import EpochRecord, PartialEpoch, restore_epoch
from cellline.training.held_out import HeldOut
from cellline.training.learner import Learner
from cellline.training.progress import Progress
from cellline.training.task import Task

# Steps between two looks at the loss on a GPU, which must be waited for each time.
LOSS_CHECK_STEPS = 20


class FoldTrainer:
    """A fold in training: the learner, its batches, and what it has achieved so far."""

    def __init__(self, task: Task, title: str | None = None) -> None:
        """`title` names the training in printed lines; by default the fold does."""
        self.task = task
        self.batches = TrainingBatches(task)
        self.learner = Learner(task)
        self.progress = Progress(f"fold {task.fold}" if title is None else title, task)
        self.held_out = HeldOut(task, self.learner, self.progress)
        self.history: list[dict[str, float]] = []
        """A row for each epoch that has ended."""
        self.partial = PartialEpoch()
        """The epoch that has not."""

    @property
    def finished(self) -> bool:
        """True after the last epoch."""
        return len(self.history) == self.task.training.epochs

    def train_epoch(self, pause: Callable[[], None]) -> EpochRecord:
        """Train one epoch, or the rest of a resumed one, and score the held-out rows.

        `pause` is called wherever the state can be saved; an exception from it ends the epoch
        there. Raises DivergedError if the loss becomes NaN or infinite.
        """
        learner, ranks, partial = self.learner, self.task.ranks, self.partial
        epoch, done = len(self.history), len(partial.losses)
        if not done:
            partial = self.partial = PartialEpoch()
        every = 1 if self.task.device.device.type == "cpu" else LOSS_CHECK_STEPS
        learner.begin_epoch(epoch)
        for batch in self.progress.batches(self.batches.epoch(epoch, done), epoch, done):
            loss, logits = learner.step(batch)
            # Images that are cut into each other have no single label to be scored against.
            scored = slice(0 if learner.mixes(batch.step) else None)
            partial.add(loss * batch.size, logits[scored], batch.labels[scored])
            if batch.step % every == 0:
                learner.check_finite(ranks.total(loss))
            pause()
        seconds = partial.seconds
        joined = partial.join(ranks)
        n_samples = len(self.task.rows)
        train_loss = float(joined["losses"].sum()) / n_samples
        learner.check_finite(torch.tensor(train_loss))
        held_out_loss, held_out_score = self.held_out.score(pause)
        learner.check_finite(torch.tensor(held_out_loss))
        logits = joined["logits"]
        train_score = nan
        if len(logits):
            decided = Decided(logits.float().softmax(1).numpy(), logits.argmax(1).numpy())
            train_score = self.task.folds.metric.score(joined["labels"].numpy(), decided)
        record = EpochRecord(
            epoch=epoch + 1,
            train_loss=train_loss,
            train_score=train_score,
            held_out_loss=held_out_loss,
            held_out_score=held_out_score,
            lr=learner.optimizers[0].param_groups[0]["lr"],
            samples_per_second=n_samples / seconds,
            seconds=partial.seconds,
        )
        self.history.append(asdict(record))
        self.partial = PartialEpoch()
        return record

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs besides averaged weights and history.

        Raises DivergedError, see `Learner.state`.
        """
        joined = self.partial.join(self.task.ranks)
        return {**self.learner.state(), **joined, "seconds": self.partial.seconds}

    def load(self, checkpoint: Checkpoint) -> None:
        """Return to the state of a checkpoint."""
        self.learner.load(checkpoint)
        self.history = checkpoint.history
        if checkpoint.resume is not None:
            device = self.task.device.device
            self.partial = restore_epoch(checkpoint.resume, self.task.ranks, device)
