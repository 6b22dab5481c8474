"""What a person sees of a training: a line at its start, a bar, a line an epoch."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch

from cellline.host.device import Device
from cellline.host.progress import duration, progress_bar, say
from cellline.model.views import VIEWS
from cellline.runs.run import History, best_epoch
from cellline.scoring.metrics import percent
from cellline.training.batches import Batch

# The first step also builds kernels and fills caches; the second is timed.
TIMED_STEP = 2
# A forward pass takes about a third of a training step; the last epoch is followed by eight views.
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class EpochRecord:
    """A row of history.csv."""

    epoch: int
    """From 1."""
    train_loss: float
    train_bac: float
    """Of the augmented batches, as they were learned from."""
    held_out_loss: float
    held_out_bac: float
    """Of the averaged weights, without test-time augmentation."""
    lr: float
    """At the epoch's last step."""
    samples_per_second: float
    """Training alone."""
    seconds: float
    """Training and evaluation."""


@dataclass
class Progress:
    """Shows the training of one fold."""

    title: str
    device: Device
    n_train: int
    n_held_out: int
    epochs: range
    """Those to be trained now; a resumed training has fewer."""
    steps: int
    """In an epoch."""
    shown: bool = True
    """False prints nothing and draws nothing: for all ranks but the first."""
    cost: Callable[[int], float] = lambda epoch: 1.0
    """Of a step in an epoch (from 0), in any unit: what the time left is told by."""
    announced: bool = field(default=False, init=False)

    def batches(self, batches: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        """Pass an epoch's batches on, showing the time left in the epoch."""
        label = f"{self.title}, epoch {epoch + 1}/{self.epochs.stop}"
        started = time.perf_counter()
        with progress_bar(label, self.steps, "step", done=first, shown=self.shown) as advance:
            for step, batch in enumerate(batches, start=1):
                yield batch
                advance(1)
                if not self.announced and step == min(TIMED_STEP, self.steps - first):
                    self.announced = True
                    synchronize(self.device)
                    self.announce(time.perf_counter() - started)
                if step < TIMED_STEP:
                    synchronize(self.device)
                    started = time.perf_counter()

    def predicting(self, views: int) -> AbstractContextManager[Callable[[int], object]]:
        """Show how far the predictions of the held-out samples are; see `progress_bar`."""
        what = "held-out samples" + (f", {views} views" if views > 1 else "")
        return progress_bar(f"{self.title}, {what}", self.n_held_out, "sample", shown=self.shown)

    def announce(self, seconds_a_step: float) -> None:
        """The line at the start: what is trained, where, and for how long."""
        held_out = FORWARD_SHARE * self.n_held_out / self.n_train
        costs = [self.cost(epoch) / self.cost(self.epochs[0]) for epoch in self.epochs]
        epochs = sum(costs) * (1 + held_out) + len(VIEWS) * held_out * costs[-1]
        self.say(
            f"{self.title}: {self.device.describe()}; {self.n_train} training and "
            f"{self.n_held_out} held-out samples; {len(self.epochs)} epochs of {self.steps} steps; "
            f"about {duration(seconds_a_step * self.steps * epochs)}"
        )

    def epoch(self, record: EpochRecord) -> None:
        """The line at an epoch's end."""
        # Epochs are progress_bar from 1 there.
        costs = [self.cost(epoch) for epoch in range(record.epoch - 1, self.epochs.stop)]
        left = duration(record.seconds * sum(costs[1:]) / costs[0])
        self.say(
            f"{self.title}, epoch {record.epoch}/{self.epochs.stop}: "
            f"loss {record.train_loss:.3f}, held out {record.held_out_loss:.3f}; "
            f"BAC {percent(record.train_bac)}, held out {percent(record.held_out_bac)}; "
            f"lr {record.lr:.2g}; {record.samples_per_second:.0f} samples/s; {left} left"
        )

    def end(self, history: History) -> None:
        """The line after the last epoch: what choosing the best one would have flattered."""
        best = best_epoch(history)
        self.say(
            f"{self.title}: the last epoch's weights are kept, held-out BAC "
            f"{percent(history[-1]['held_out_bac'])}; the best epoch, {best['epoch']}, had "
            f"{percent(best['held_out_bac'])}"
        )

    def say(self, line: str) -> None:
        """Print a line, unless this rank is silent."""
        if self.shown:
            say(line)


def synchronize(device: Device) -> None:
    """Wait for what the device has been given, so that the clock sees it."""
    if device.device.type == "cuda":
        torch.cuda.synchronize(device.device)
    elif device.device.type == "mps":
        torch.mps.synchronize()
