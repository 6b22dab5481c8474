"""The lines and bars that show how a training fares."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch

from cellline.host.device import Device
from cellline.host.progress import duration, progress_bar, say
from cellline.model.views import choose_views
from cellline.runs.run import History, best_epoch
from cellline.training.batches import Batch
from cellline.training.epoch import EpochRecord
from cellline.training.task import Task

# The first step also builds kernels and fills caches; the second is timed.
TIMED_STEP = 2
# A forward pass takes about a third of a training step; the last epoch is followed by all views.
FORWARD_SHARE = 1 / 3


class Progress:
    """Shows the training of one fold, on rank 0 alone: other ranks have no stdout."""

    def __init__(self, title: str, task: Task) -> None:
        """`title` begins each line."""
        self.title = title
        self.task = task
        self.announced = False

    def batches(self, batches: Iterator[Batch], epoch: int, first: int) -> Iterator[Batch]:
        """Pass on the batches of an epoch (from 0), showing the time left in it.

        `first` of them were done before. Once, the line at the start is printed.
        """
        device, steps = self.task.device, self.task.steps
        label = f"{self.title}, epoch {epoch + 1}/{self.task.training.epochs}"
        started = time.perf_counter()
        with self.bar(label, steps, "step", first) as advance:
            for step, batch in enumerate(batches, start=1):
                yield batch
                advance(1)
                if not self.announced and step == min(TIMED_STEP, steps - first):
                    self.announced = True
                    synchronize(device)
                    self.announce(epoch, time.perf_counter() - started)
                if step < TIMED_STEP:
                    synchronize(device)
                    started = time.perf_counter()

    def predicting(self, views: int) -> AbstractContextManager[Callable[[int], object]]:
        """Show how many held-out samples are predicted; see `progress_bar`."""
        what = "held-out samples" + (f", {views} views" if views > 1 else "")
        return self.bar(f"{self.title}, {what}", len(self.task.held_out), "sample")

    def announce(self, epoch: int, seconds_a_step: float) -> None:
        """Print the line at the start: what is trained from an epoch on, where, and how long."""
        task = self.task
        held_out = FORWARD_SHARE * len(task.held_out) / len(task.rows)
        costs = [task.pixels(later) / task.pixels(epoch) for later in self.epochs_from(epoch)]
        views = choose_views(task.competition.train_images.shape, task.training.symmetry)
        epochs = sum(costs) * (1 + held_out) + len(views) * held_out * costs[-1]
        say(
            f"{self.title}: {task.device.describe()}; {len(task.rows)} training and "
            f"{len(task.held_out)} held-out samples; {len(costs)} epochs of {task.steps} steps; "
            f"about {duration(seconds_a_step * task.steps * epochs)}"
        )

    def epoch(self, record: EpochRecord) -> None:
        """Print the line at an epoch's end."""
        # record.epoch counts from 1.
        costs = [self.task.pixels(epoch) for epoch in self.epochs_from(record.epoch - 1)]
        left = duration(record.seconds * sum(costs[1:]) / costs[0])
        metric = self.task.folds.metric
        train, held_out = (metric.show(of) for of in (record.train_score, record.held_out_score))
        say(
            f"{self.title}, epoch {record.epoch}/{self.task.training.epochs}: "
            f"loss {record.train_loss:.3f}, held out {record.held_out_loss:.3f}; "
            f"{metric.title} {train}, held out {held_out}; "
            f"lr {record.lr:.2g}; {record.samples_per_second:.0f} samples/s; {left} left"
        )

    def end(self, history: History) -> None:
        """Print the line after the last epoch: how much choosing the best epoch would flatter."""
        metric = self.task.folds.metric
        best = best_epoch(history, metric)
        last_score, best_score = (metric.show(of["held_out_score"]) for of in (history[-1], best))
        say(
            f"{self.title}: the last epoch's weights are kept, held-out {metric.title} "
            f"{last_score}; the best epoch, {best['epoch']}, had {best_score}"
        )

    def epochs_from(self, epoch: int) -> range:
        """An epoch and all later ones, from 0."""
        return range(epoch, self.task.training.epochs)

    def bar(
        self, title: str, total: int, unit: str, done: int = 0
    ) -> AbstractContextManager[Callable[[int], object]]:
        """A progress bar; none on other ranks than 0."""
        return progress_bar(title, total, unit, done=done, shown=self.task.ranks.first)


def synchronize(device: Device) -> None:
    """Wait until the device has done its work, so that the clock sees it."""
    if device.device.type != "cpu":
        torch.accelerator.synchronize(device.device)
