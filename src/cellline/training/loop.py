"""Training one fold."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cellline.config import Training
from cellline.data.augmentation import Augmenter
from cellline.data.batches import TrainingBatches
from cellline.data.competition import Competition
from cellline.data.folds import Folds
from cellline.data.normalization import measure_normalization
from cellline.device import Device
from cellline.errors import UserError
from cellline.files import write_csv
from cellline.model.loss import BalancedCrossEntropy, class_weights
from cellline.model.network import Classifier, build_network
from cellline.prediction.metrics import balanced_accuracy
from cellline.prediction.run_folder import OutOfFold, write_out_of_fold
from cellline.prediction.tta import PLAIN, all_views, average_views, predict_views
from cellline.seeding import DROPOUT, derive_seed
from cellline.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from cellline.training.progress import EpochRecord, Progress


def learning_rate(step: int, n_steps: int, warmup: float, peak: float) -> float:
    """Linear from 0 to `peak` over the first share `warmup` of the steps, then a cosine to 0."""
    position = (step + 1) / (n_steps + 1)
    if position < warmup:
        return peak * position / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (position - warmup) / (1 - warmup)))


class DivergedError(UserError):
    """The loss is no longer a number."""


class FoldTrainer:
    """One fold's network with all that trains it.

    What it learns from are the fold's training rows; the held-out rows are only predicted, and
    nothing is chosen by their scores.
    """

    def __init__(
        self,
        competition: Competition,
        folds: Folds,
        fold: int,
        training: Training,
        device: Device,
    ) -> None:
        """`training` must have its learning rate and batch size. Raises UserError, see network."""
        assert training.lr is not None and training.batch_size is not None
        self.competition = competition
        self.training = training
        self.device = device
        self.peak_lr = training.lr
        self.batch_size = training.batch_size
        self.held_out = folds.held_out_rows(fold)
        rows = folds.training_rows(fold)
        self.n_train = len(rows)
        images, labels = competition.train_images, competition.labels
        self.batches = TrainingBatches(
            images,
            labels,
            competition.train_ids,
            rows,
            batch_size=self.batch_size,
            seed=training.seed,
            augmenter=Augmenter(training.augmentation, training.seed),
            workers=device.workers,
            pin_memory=device.device.type == "cuda",
        )
        self.n_steps = training.epochs * len(self.batches)
        n_classes = len(competition.classes)
        torch.manual_seed(training.seed)
        network = build_network(
            training, n_classes, images.shape[1:], measure_normalization(images, rows)
        )
        self.network = device.place(network)
        decay = max(0.0, 1 - 1 / (training.averaging * self.n_steps))
        # With the buffers: batch normalization's running statistics belong to the weights.
        self.averaged = AveragedModel(
            self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True
        )
        weights = class_weights(labels[rows], n_classes)
        self.loss = BalancedCrossEntropy(weights).to(device.device)
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.network, training.weight_decay), lr=self.peak_lr, fused=True
        )
        self.scaler = torch.amp.GradScaler(
            device.device.type, enabled=device.precision == "float16"
        )

    @property
    def model(self) -> Classifier:
        """The averaged network: what is evaluated, kept and predicted with."""
        return cast("Classifier", self.averaged.module)

    def train_epoch(self, epoch: int, progress: Progress) -> EpochRecord:
        """Train for one epoch (from 0) and score the held-out rows.

        Raises DivergedError when the loss is no longer a number.
        """
        started = time.perf_counter()
        torch.manual_seed(derive_seed(self.training.seed, DROPOUT, epoch))
        self.network.train()
        losses, predicted, labels = [], [], []
        first_step = epoch * len(self.batches)
        for step, batch in enumerate(
            progress.batches(self.batches.epoch(epoch), epoch), start=first_step
        ):
            # What is reported is fetched from the device after the epoch, not here.
            loss, logits = self.train_step(step, *batch)
            losses.append(loss * len(logits))
            predicted.append(logits.argmax(1))
            # A copy: what loader processes hand over is shared memory, one open file a batch.
            labels.append(batch[1].clone())
        train_loss = float(torch.stack(losses).sum()) / self.n_train
        seconds = time.perf_counter() - started
        if not math.isfinite(train_loss):
            raise DivergedError(
                f"the loss became {train_loss} in epoch {epoch + 1}: try a lower --lr than "
                f"{self.peak_lr:g}, or --precision float32; what was saved before is kept"
            )
        held_out_loss, held_out_bac = self.score_held_out()
        return EpochRecord(
            epoch=epoch + 1,
            train_loss=train_loss,
            train_bac=balanced_accuracy(
                torch.cat(labels).numpy(), torch.cat(predicted).cpu().numpy()
            ),
            held_out_loss=held_out_loss,
            held_out_bac=held_out_bac,
            lr=self.optimizer.param_groups[0]["lr"],
            samples_per_second=self.n_train / seconds,
            seconds=time.perf_counter() - started,
        )

    def train_step(self, step: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer; the loss and the logits, detached and on the device."""
        lr = learning_rate(step, self.n_steps, self.training.warmup, self.peak_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        images = images.to(self.device.device, non_blocking=True)
        labels = labels.to(self.device.device, non_blocking=True)
        with self.device.autocast():
            logits = self.network(images)
        loss: Tensor = self.loss(logits, labels)
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.averaged.update_parameters(self.network)
        return loss.detach(), logits.detach()

    def score_held_out(self) -> tuple[float, float]:
        """Class-weighted loss and BAC of the averaged network, without TTA."""
        labels = self.competition.labels[self.held_out]
        prob = self.predict(PLAIN)[0]
        weights = self.loss.weights.cpu().numpy()[labels]
        likelihood = np.maximum(prob[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
        loss = float(np.mean(weights * -np.log(likelihood)))
        return loss, balanced_accuracy(labels, prob.argmax(1))

    def predict(self, views: tuple[int, ...]) -> np.ndarray:
        """The averaged network's probabilities [view, held-out row, class]."""
        return predict_views(
            self.model,
            self.competition.train_images,
            self.held_out,
            self.device,
            batch_size=self.batch_size,
            views=views,
        )

    def out_of_fold(self) -> OutOfFold:
        """The fold's predictions, with and without TTA."""
        of_views = self.predict(all_views(self.competition.train_images))
        return OutOfFold(
            self.competition.train_ids[self.held_out],
            self.competition.labels[self.held_out],
            average_views(of_views),
            of_views[PLAIN[0]],
        )

    def resume_state(self) -> dict[str, Any]:
        """What `restore` needs, beside the averaged weights."""
        return {
            "network": self.network.state_dict(),
            "n_averaged": int(self.averaged.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state at the end of a checkpoint's epoch."""
        self.model.load_state_dict(checkpoint.network)
        if checkpoint.resume is not None:
            self.network.load_state_dict(checkpoint.resume["network"])
            self.averaged.n_averaged.fill_(checkpoint.resume["n_averaged"])
            self.optimizer.load_state_dict(checkpoint.resume["optimizer"])
            # Empty when it was trained in a precision that needs no scaling of the loss.
            if checkpoint.resume["scaler"]:
                self.scaler.load_state_dict(checkpoint.resume["scaler"])


def train_fold(trainer: FoldTrainer, folder: Path, config: dict[str, Any], fold: int) -> OutOfFold:
    """Train a fold to its end from wherever it stopped, and write what it leaves in `folder`.

    A checkpoint and history.csv after each epoch; after the last a checkpoint without the
    optimizer's state, then oof.npz, whose presence means that the fold is finished.
    """
    path = folder / "checkpoint.pt"
    history: list[dict[str, float]] = []
    if path.exists():
        checkpoint = read_checkpoint(path)
        if (checkpoint.config, checkpoint.fold) != (config, fold):
            raise UserError(f"{path} belongs to another run or fold; move it away")
        trainer.restore(checkpoint)
        history = checkpoint.history
    epochs = range(len(history), trainer.training.epochs)
    progress = Progress(
        f"fold {fold}",
        trainer.device,
        trainer.n_train,
        len(trainer.held_out),
        epochs,
        len(trainer.batches),
    )
    for epoch in epochs:
        record = trainer.train_epoch(epoch, progress)
        history.append(asdict(record))
        last = record.epoch == trainer.training.epochs
        weights = trainer.model.state_dict()
        resume = None if last else trainer.resume_state()
        # The checkpoint last: an epoch whose history alone was written is trained again.
        write_csv(
            folder / "history.csv", tuple(history[0]), [tuple(row.values()) for row in history]
        )
        write_checkpoint(path, Checkpoint(config, fold, record.epoch, weights, history, resume))
        progress.epoch(record)
    progress.end(history)
    predictions = trainer.out_of_fold()
    write_out_of_fold(folder / "oof.npz", predictions)
    return predictions


def decay_groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: biases and normalization scales, which have one dimension, don't decay."""
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
