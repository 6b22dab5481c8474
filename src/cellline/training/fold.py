"""Training a fold to its end, from wherever it stopped, and saving it on the way."""

import time
from collections.abc import Callable
from contextlib import nullcontext

from cellline.errors import Caution
from cellline.host.files import write_csv, write_json
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.predictions import OutOfFold, write_out_of_fold
from cellline.runs.run import Run
from cellline.training.batches import LoadingError
from cellline.training.checkpoint import Checkpoint, digest_values, read_newest, write_checkpoint
from cellline.training.ranks import Ranks
from cellline.training.trainer import FoldTrainer

# A power cut loses at most this much training. DenseNet-161's checkpoint of 330 MB takes seconds.
SAVE_SECONDS = 600
# Columns of history.csv that depend on the machine's speed, not on the training.
CLOCK = ("samples_per_second", "seconds")


def train_fold(trainer: FoldTrainer, run: Run, stop: Stop) -> OutOfFold:
    """Train a fold of a run to its end, write its files, return its predictions.

    A checkpoint and history.csv are written after each epoch, and every SAVE_SECONDS within one;
    after the last a checkpoint without the optimizers' state, then clock.json, then oof.npz,
    which marks the fold as finished. Raises, after saving, Stopped if `stop` asks for it, and
    LoadingError. Every rank calls this; rank 0 writes.
    """
    fold, first = trainer.task.fold, trainer.task.ranks.first
    lock = one_writer(run.fold_folder(fold), f"training fold {fold}") if first else nullcontext()
    with lock, stop.on_signals():
        resume(trainer, run)
        keeper = Keeper(lambda: save_fold(trainer, run), stop, trainer.task.ranks)
        # The first save finds a disk that is too small now, not after an hour. Under a time limit,
        # it also tells how long saving takes.
        keeper.begin(save=not trainer.history or stop.deadline is not None)
        while not trainer.finished:
            try:
                record = trainer.train_epoch(keeper.pause)
            except (Stopped, LoadingError) as error:
                # Other ranks know nothing of this one's loader, so they don't save.
                if isinstance(error, Stopped) or trainer.task.ranks.size == 1:
                    keeper.save()
                raise
            keeper.save()
            trainer.progress.epoch(record)
        trainer.progress.end(trainer.history)
        predictions = trainer.held_out.predictions(stop.check)
        provenance = {
            **run.provenance(fold),
            "model_digest": digest_values(trainer.learner.model.state_dict()),
            "precision": trainer.task.device.precision,
            "code": code_version(),
            # Without the clock's columns: the same training leaves the same bytes.
            "history": [
                {key: value for key, value in row.items() if key not in CLOCK}
                for row in trainer.history
            ],
        }
        if first:
            # Apart from oof.npz, which is the same whenever the same training ends.
            write_json(
                run.clock_path(fold),
                {
                    "ended": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
                    "seconds": sum(row["seconds"] for row in trainer.history),
                    "device": trainer.task.device.name,
                    "processes": trainer.task.ranks.size,
                },
            )
            write_out_of_fold(run.oof_path(fold), predictions, provenance)
        return predictions


def resume(trainer: FoldTrainer, run: Run) -> None:
    """Return the trainer to where the fold stopped, if it was begun."""
    fold = trainer.task.fold
    # From rank 0, as other machines may have other disks.
    checkpoint = trainer.task.ranks.of_first(
        lambda: read_newest(run.fold_folder(fold), run.record, fold)
    )
    if checkpoint is None:
        return
    describe_resumed(checkpoint, f"fold {fold}", trainer.task.device.precision)
    trainer.load(checkpoint)


def describe_resumed(checkpoint: Checkpoint, what: str, precision: str) -> None:
    """Say so if another version of this program, or another precision, has trained so far."""
    if checkpoint.code != code_version():
        say(
            Caution(
                f"{what} was trained by another version of this program "
                f"({checkpoint.code[:12]}) than the one that resumes it ({code_version()[:12]}): "
                "the result may differ from that of either version alone"
            )
        )
    if checkpoint.precision not in ("", precision):
        say(f"{what} was trained in {checkpoint.precision} so far and resumes in {precision}")


class Keeper:
    """Saves a training, now and then and on demand."""

    def __init__(self, write: Callable[[], object], stop: Stop, ranks: Ranks) -> None:
        """`write` writes all that there is to save; every rank calls it."""
        self.write = write
        self.stop = stop
        self.ranks = ranks
        self.saved = time.monotonic()

    def begin(self, *, save: bool) -> None:
        """Save for the first time, if told so. Raises Stopped if the time is up."""
        self.stop.check()
        if save:
            self.save()
        self.stop.check()

    def pause(self) -> None:
        """Save if the last time is long ago; raise Stopped if it is time to end."""
        overdue = time.monotonic() - self.saved > SAVE_SECONDS
        if self.ranks.largest(overdue):
            self.save()
        self.stop.check()

    def save(self) -> None:
        """Save now."""
        self.write()
        self.saved = time.monotonic()


def save_fold(trainer: FoldTrainer, run: Run) -> None:
    """Write history.csv and the checkpoint of a fold, on rank 0."""
    fold = trainer.task.fold
    checkpoint = Checkpoint(
        run.record,
        fold,
        code_version(),
        len(trainer.history),
        trainer.learner.model.state_dict(),
        trainer.history,
        None if trainer.finished else trainer.state(),
        trainer.task.device.precision,
    )
    if trainer.task.ranks.first:
        folder, history = run.fold_folder(fold), trainer.history
        # The checkpoint last: an epoch with nothing but its history is trained again.
        if history:
            rows = [tuple(row.values()) for row in history]
            write_csv(folder / "history.csv", tuple(history[0]), rows)
        write_checkpoint(folder, checkpoint)
