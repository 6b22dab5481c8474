"""Fitting a run into a given time: its measured speed, and the schedule that this allows."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice, repeat
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cellline.config import Training
from cellline.errors import UserError
from cellline.host.progress import duration, say
from cellline.host.stopping import STARTED
from cellline.model.views import EFFICIENT_BATCH, PLAIN, choose_views
from cellline.training.checkpoint import Checkpoint, write_checkpoint
from cellline.training.progress import synchronize
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer

# The first steps also build kernels, fill caches and start the loader's processes.
WARM_UP_STEPS = 2
# Each size is measured for this long, but no longer than this share of the given time.
MEASURE_SECONDS = 15.0
MEASURE_SHARE = 0.03
# With fewer, the learning rate has no time to rise and decay: smaller images are the better choice.
FEWEST_EPOCHS = 4
# The recipe's epochs times this are the most: many more would memorize a small data set.
MOST_EPOCHS = 3


@dataclass(frozen=True)
class Costs:
    """Seconds that the parts of a fold take; keyed by image side; None: original size."""

    training: dict[int | None, float]
    """The steps of an epoch."""
    predicting: dict[int | None, float]
    """The held-out rows, seen in one view."""
    views: int
    """Views of the predictions after the last epoch."""
    saving: float
    """A checkpoint."""
    starting: float
    """Building the network, and the first steps' delay."""

    def epoch(self, size: int | None) -> float:
        """Seconds of an epoch at a size."""
        return self.training[size] + self.predicting[size] + self.saving

    def fold(self, training: Training) -> float:
        """Seconds of a fold."""
        first, last = self.epoch(training.first_size), self.epoch(training.image_size)
        epochs = training.first_epochs * first + (training.epochs - training.first_epochs) * last
        return self.ends(training) + epochs

    def ends(self, training: Training) -> float:
        """Seconds of a fold before its first epoch and after its last."""
        predictions = self.views * self.predicting[training.image_size]
        return self.starting + self.saving + predictions


def fit_schedule(task: Task, minutes: float, n_folds: int, oof_dir: Path) -> Training:
    """Measure the speed, and choose the schedule of `n_folds` folds that end in `minutes`.

    The time counts from the start of the process. All ranks call this; rank 0 decides. Leaves
    nothing behind: the network is built anew for training. Raises UserError if the time is too
    short.
    """
    say(f"--fit-minutes {minutes:g}: measuring the speed")
    costs = measure_costs(task, min(MEASURE_SECONDS, 60 * minutes * MEASURE_SHARE), oof_dir)
    return task.ranks.of_first(lambda: choose_or_refuse(task, costs, minutes, n_folds))


def choose_or_refuse(task: Task, costs: Costs, minutes: float, n_folds: int) -> Training:
    """Choose the schedule for the rest of the time and print it; UserError if none fits."""
    training, width = task.training, task.competition.train_images.shape[-1]
    spent = time.monotonic() - STARTED
    chosen = choose_schedule(training, costs, (60 * minutes - spent) / n_folds)
    speeds = ", ".join(
        f"{len(task.rows) / seconds:.0f} samples/s at {size or width} pixels"
        for size, seconds in costs.training.items()
    )
    folds = "one fold" if n_folds == 1 else f"{n_folds} folds"
    if chosen is None:
        least = at_first_size(replace(training, epochs=FEWEST_EPOCHS))
        needed = (spent + n_folds * costs.fold(least)) / 60
        raise UserError(
            f"--fit-minutes {minutes:g} is too short for {folds} ({speeds}): {FEWEST_EPOCHS} "
            f"epochs at {least.image_size or width} pixels take {needed:.3g} minutes. Give at "
            f"least {ceil(10.5 * needed) / 10:g}, or a smaller --image-size or --network"
        )
    starts, last = chosen.first_epochs, chosen.image_size or width
    sizes = f"at {last} pixels"
    if starts and chosen.first_size != chosen.image_size:
        sizes = f"{starts} at {chosen.first_size} pixels, then {chosen.epochs - starts} {sizes}"
    say(
        f"--fit-minutes {minutes:g}: {speeds}; {chosen.epochs} epochs a fold, {sizes}; "
        f"{folds} will end after {duration(spent + n_folds * costs.fold(chosen))}"
    )
    return chosen


def choose_schedule(training: Training, costs: Costs, seconds: float) -> Training | None:
    """The schedule of FEWEST_EPOCHS or more that takes the most of `seconds`; None if none fits.

    The number of first epochs differs by one at most from the share that `training` has: this fills
    the time better than whole epochs alone. If not even FEWEST_EPOCHS fit, all epochs have the
    first size.
    """
    most = max(FEWEST_EPOCHS, MOST_EPOCHS * training.epochs)
    for sized in (training, at_first_size(training)):
        first, last = costs.epoch(sized.first_size), costs.epoch(sized.image_size)
        left = seconds - costs.ends(sized)
        candidates = [
            (starts * first + (epochs - starts) * last, epochs, starts)
            for epochs in range(FEWEST_EPOCHS, most + 1)
            for starts in near_share(sized, epochs)
        ]
        fitting = [each for each in candidates if each[0] <= left]
        if fitting:
            _, epochs, starts = max(fitting)
            return replace(sized, epochs=epochs, start_share=share_for(sized, epochs, starts))
    return None


def at_first_size(training: Training) -> Training:
    """The same training with all epochs at the size of the first ones."""
    return replace(training, image_size=training.first_size)


def near_share(training: Training, epochs: int) -> range:
    """Numbers of first epochs next to the share that `training` has; at least one epoch is left."""
    usual = int(training.start_share * epochs)
    near = int(training.first_size != training.image_size)  # else all epochs are alike
    return range(max(0, usual - near), min(usual + near, epochs - 1) + 1)


def share_for(training: Training, epochs: int, starts: int) -> float:
    """The `start_share` of so many first epochs: the given one if it fits, or the shortest."""
    shares = [training.start_share, *(round((starts + 0.5) / epochs, d) for d in range(1, 18))]
    return next(share for share in shares if int(share * epochs) == starts and share < 1)


def measure_costs(task: Task, seconds: float, oof_dir: Path) -> Costs:
    """Train and predict with a network of its own for about `seconds` at each size."""
    started = time.perf_counter()
    # An epoch of each size. Without a learning rate it can't diverge.
    training = replace(task.training, epochs=2, start_share=0.5, lr=0.0)
    trainer = FoldTrainer(replace(task, training=training))
    starting = time.perf_counter() - started
    of_steps, of_rows = {}, {}
    for epoch, size in enumerate((training.first_size, training.image_size)):
        if size in of_steps:
            continue
        trainer.learner.begin_epoch(epoch)
        step, delay = time_each(steps(trainer, epoch), task, seconds)
        starting += delay
        of_steps[size] = step * task.steps
        share = task.ranks.share(task.held_out)
        batch = share[: max(trainer.held_out.predictor.batch_size, EFFICIENT_BATCH)]
        prediction, _ = time_each(predictions(trainer, batch), task, seconds / 3)
        of_rows[size] = prediction * len(share) / len(batch)
    saving = task.ranks.of_first(lambda: measure_saving(trainer, oof_dir))
    views = choose_views(task.competition.train_images.shape, training.symmetry)
    return Costs(of_steps, of_rows, len(views), saving, starting)


def measure_saving(trainer: FoldTrainer, oof_dir: Path) -> float:
    """Seconds that a checkpoint takes, on the disk that training will write to."""
    started, learner = time.perf_counter(), trainer.learner
    with TemporaryDirectory(dir=oof_dir, prefix=".") as folder:
        weights, state = learner.model.state_dict(), learner.state()
        write_checkpoint(Path(folder), Checkpoint({}, trainer.task.fold, "", 0, weights, [], state))
        return time.perf_counter() - started


def steps(trainer: FoldTrainer, epoch: int) -> Iterator[object]:
    """Training steps, one epoch after another, all with the batches of a single one."""
    while True:
        yield from map(trainer.learner.step, trainer.batches.epoch(epoch))


def predictions(trainer: FoldTrainer, rows: np.ndarray) -> Iterator[object]:
    """The same predictions again and again."""
    images = trainer.task.competition.train_images
    for view in repeat(PLAIN):
        yield trainer.held_out.predictor.predict(images, rows, view)


def time_each(work: Iterator[object], task: Task, seconds: float) -> tuple[float, float]:
    """Seconds that a piece of endless work takes, and the delay in the first WARM_UP_STEPS.

    All ranks do equally many pieces, for about `seconds`.
    """
    begun = time.perf_counter()
    deque(islice(work, WARM_UP_STEPS), maxlen=0)
    synchronize(task.device)
    warm, n, is_up = time.perf_counter(), 0, False
    while not is_up:
        next(work)
        n += 1
        is_up = bool(task.ranks.largest(time.perf_counter() - warm > seconds))
    synchronize(task.device)
    each = (time.perf_counter() - warm) / n
    return each, max(0.0, warm - begun - WARM_UP_STEPS * each)
