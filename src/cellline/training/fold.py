"""Training one fold to its end, from wherever it stopped, and keeping what it has on the way."""

import time
from contextlib import nullcontext
from dataclasses import asdict

from cellline.errors import Caution
from cellline.host.files import write_csv
from cellline.host.locking import one_writer
from cellline.host.progress import say
from cellline.host.stopping import Stop, Stopped
from cellline.host.versions import code_version
from cellline.runs.predictions import OutOfFold, write_out_of_fold
from cellline.runs.run import History, Run
from cellline.training.checkpoint import (
    Checkpoint,
    digest_values,
    read_newest,
    write_checkpoint,
)
from cellline.training.loop import FoldTrainer
from cellline.training.progress import Progress

# What a power cut may cost within an epoch. DenseNet-161's checkpoint of 330 MB takes seconds.
SAVE_SECONDS = 600
# Columns of history.csv that are not what the training is, but how fast it was.
CLOCK = ("samples_per_second", "seconds")


def train_fold(trainer: FoldTrainer, run: Run, fold: int, stop: Stop) -> OutOfFold:
    """Train a fold of a run to its end and write its files; the fold's predictions.

    A checkpoint and history.csv after each epoch, and within one every SAVE_SECONDS; after the last
    a checkpoint without the optimizer's state, then oof.npz, whose presence means that the fold is
    finished. Raises Stopped, after saving, when `stop` says so. Where several ranks train the fold,
    each calls this, and rank 0 writes.
    """
    # Rank 0 alone writes.
    folder = run.fold_folder(fold)
    lock = one_writer(folder, f"training fold {fold}") if trainer.ranks.first else nullcontext()
    with lock, stop.on_signals():
        history = resume(trainer, run, fold)
        epochs = range(len(history), trainer.training.epochs)
        progress = Progress(
            f"fold {fold}",
            trainer.device,
            trainer.n_train,
            len(trainer.held_out),
            epochs,
            len(trainer.batches),
            shown=trainer.ranks.first,
            cost=trainer.pixels,
        )
        keeper = Keeper(trainer, run, fold, history, stop)
        for epoch in epochs:
            try:
                record = trainer.train_epoch(epoch, progress, keeper.pause)
            except Stopped:
                keeper.save()
                raise
            history.append(asdict(record))
            keeper.save()
            progress.epoch(record)
        progress.end(history)
        predictions = trainer.out_of_fold(progress, stop.check)
        provenance = {
            **run.provenance(fold),
            "model_digest": digest_values(trainer.model.state_dict()),
            "precision": trainer.device.precision,
            "code": code_version(),
            # Without the clock's: the same training leaves the same bytes.
            "history": [
                {key: value for key, value in row.items() if key not in CLOCK} for row in history
            ],
        }
        if trainer.ranks.first:
            write_out_of_fold(run.oof_path(fold), predictions, provenance)
        return predictions


def resume(trainer: FoldTrainer, run: Run, fold: int) -> History:
    """Bring the trainer to where the fold stopped; the history until there."""
    # The others may have another disk.
    checkpoint = trainer.ranks.of_first(
        lambda: read_newest(run.fold_folder(fold), run.record, fold)
    )
    if checkpoint is None:
        return []
    if checkpoint.code != code_version():
        say(
            Caution(
                f"fold {fold} was trained by another version of this program "
                f"({checkpoint.code[:12]}) than the one that resumes it ({code_version()[:12]}): "
                "the result may differ from that of either alone"
            )
        )
    trainer.restore(checkpoint)
    return checkpoint.history


class Keeper:
    """Saves a fold's training, when it is time to."""

    def __init__(
        self, trainer: FoldTrainer, run: Run, fold: int, history: History, stop: Stop
    ) -> None:
        """`history` is that of `train_fold`, which adds to it."""
        self.trainer = trainer
        self.run = run
        self.fold = fold
        self.history = history
        self.stop = stop
        self.saved = time.monotonic()
        # A disk that is too small shows now, not after an hour. And how long saving takes, which
        # must be known where time is limited.
        stop.check()
        if not history or stop.deadline is not None:
            self.save()
        stop.check()

    def pause(self) -> None:
        """Save when the last time is long ago; raise Stopped when it is time to end."""
        if self.trainer.ranks.largest(time.monotonic() - self.saved > SAVE_SECONDS):
            self.save()
        self.stop.check()

    def save(self) -> None:
        """Write history.csv and the checkpoint."""
        folder = self.run.fold_folder(self.fold)
        finished = len(self.history) == self.trainer.training.epochs
        checkpoint = Checkpoint(
            self.run.record,
            self.fold,
            code_version(),
            len(self.history),
            self.trainer.model.state_dict(),
            self.history,
            None if finished else self.trainer.resume_state(),
        )
        if self.trainer.ranks.first:
            # The checkpoint last: an epoch whose history alone was written is trained again.
            if self.history:
                write_csv(
                    folder / "history.csv",
                    tuple(self.history[0]),
                    [tuple(row.values()) for row in self.history],
                )
            write_checkpoint(folder, checkpoint)
        self.saved = time.monotonic()
