"""One fold's network, trained step by step."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cellline.config import Training
from cellline.errors import Caution, UserError, first_line
from cellline.host.device import Device, gpu_is_full
from cellline.host.progress import say
from cellline.model.loss import BalancedCrossEntropy, class_weights
from cellline.model.network import Classifier, build_network
from cellline.model.normalization import measure_normalization
from cellline.model.views import PLAIN, all_views, average_views, predict_views
from cellline.runs.folds import Folds
from cellline.runs.predictions import OutOfFold
from cellline.scoring.metrics import balanced_accuracy
from cellline.seeding import DROPOUT, derive_seed
from cellline.training.augmentation import Augmenter
from cellline.training.averaging import MovingAverage
from cellline.training.batches import TrainingBatches
from cellline.training.checkpoint import Checkpoint
from cellline.training.memory import check_memory, explain_full_memory, more_parts
from cellline.training.optimizing import build_optimizers, learning_rate
from cellline.training.partial_epoch import PartialEpoch, restore_epoch
from cellline.training.progress import EpochRecord, Progress
from cellline.training.ranks import Ranks, running_statistics

# How often the loss is looked at: each time, a GPU must be waited for.
LOSS_CHECK_STEPS = 20


class DivergedError(UserError):
    """The loss or the weights are no longer numbers."""


class FoldTrainer:
    """One fold's network with all that trains it.

    What it learns from are the fold's training rows; the held-out rows are only predicted, and
    nothing is chosen by their scores.

    All that is random depends on the seed and the number of the step or epoch, so the state after
    any step is in `Checkpoint.network` and `resume_state`.

    Where several ranks train it together, each takes its share of every batch and of the held-out
    rows; a batch, the learning rate and the loss are what they are on one. What differs is drawn by
    each for itself, dropout, and what a share shows alone, the statistics of batch normalization
    (as in ghost batch normalization, Hoffer et al. 2017), of which the running ones are averaged.
    After a step the network and its average are the same on all ranks, where these are alike; on
    unlike processors Muon's products are rounded differently, and the ranks agree to rounding.
    """

    def __init__(
        self,
        folds: Folds,
        fold: int,
        training: Training,
        device: Device,
        ranks: Ranks | None = None,
    ) -> None:
        """`training` must have its learning rate and batch size; by default there is one rank.

        Raises UserError, see network, and where the ranks can't share a batch, and
        TooLittleMemoryError where a batch can't fit.
        """
        assert training.lr is not None and training.batch_size is not None
        self.ranks = ranks = ranks or Ranks()
        self.folds = folds
        self.competition = competition = folds.competition
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
            share=ranks.share,
        )
        smallest_batch = self.batches.size(len(self.batches) - 1)
        if ranks.size > min(smallest_batch // 2, len(self.held_out)) and ranks.size > 1:
            raise UserError(
                f"{ranks.size} processes can't share batches of {smallest_batch} and "
                f"{len(self.held_out)} held-out samples: each needs two of a batch. Train with "
                "fewer of them (GPUS=) or a larger --batch-size"
            )
        self.n_steps = training.epochs * len(self.batches)
        n_classes = len(competition.classes)
        torch.manual_seed(training.seed)
        network = build_network(
            training, n_classes, images.shape[1:], measure_normalization(images, rows)
        )
        self.network = device.place(network)
        self.running = running_statistics(self.network)
        decay = max(0.0, 1 - 1 / (training.averaging * self.n_steps))
        self.averaged = MovingAverage(self.network, decay)
        weights = class_weights(labels[rows], n_classes)
        self.loss = BalancedCrossEntropy(weights).to(device.device)
        self.optimizers = build_optimizers(self.network, training)
        self.scaler = torch.amp.GradScaler(
            device.device.type, enabled=device.precision == "float16"
        )
        self.check_every = 1 if device.device.type == "cpu" else LOSS_CHECK_STEPS
        self.partial = PartialEpoch()
        # In how many a batch is computed; batch normalization's statistics before it.
        self.parts = 1
        self.buffers = list(self.network.buffers())
        self.buffers_before = [buffer.clone() for buffer in self.buffers]
        if device.device.type == "cpu":
            largest_share = -(-self.batches.size(0) // ranks.size)
            check_memory(self.network, device, images.shape[1:], largest_share)
        self.parallel = ranks.parallel(self.network, device.device)

    @property
    def model(self) -> Classifier:
        """The averaged network: what is evaluated, kept and predicted with."""
        return self.averaged.network

    def pixels(self, epoch: int) -> int:
        """Of an image, as the network sees it in an epoch (from 0)."""
        side = image_size(epoch, self.training)
        height, width = self.competition.train_images.shape[2:]
        return side**2 if side else height * width

    def train_epoch(self, epoch: int, progress: Progress, pause: Callable[[], None]) -> EpochRecord:
        """Train for one epoch (from 0), or what is left of it, and score the held-out rows.

        `pause` is called wherever the state can be saved; what it raises ends the epoch there.
        Raises DivergedError when the loss is no longer a number.
        """
        partial = self.partial
        done = len(partial.losses)
        if not done:
            partial.started = time.perf_counter()
        self.network.image_size = self.model.image_size = image_size(epoch, self.training)
        self.network.train()
        batches = progress.batches(self.batches.epoch(epoch, done), epoch, done)
        for step, batch in enumerate(batches, start=epoch * len(self.batches) + done):
            loss, logits = self.train_step(step, *batch)
            # What is reported is fetched from the device after the epoch, not here.
            partial.losses.append(loss * self.batches.size(step))
            partial.predicted.append(logits.argmax(1))
            # A copy: what loader processes hand over is shared memory, one open file a batch.
            partial.labels.append(batch[1].clone())
            if step % self.check_every == 0:
                self.check_finite(self.ranks.total(loss))
            pause()
        seconds = time.perf_counter() - partial.started
        joined = partial.join(self.ranks)
        train_loss = float(joined["losses"].sum()) / self.n_train
        self.check_finite(torch.tensor(train_loss))
        held_out_loss, held_out_bac = self.score_held_out(progress, pause)
        self.check_finite(torch.tensor(held_out_loss))
        self.partial = PartialEpoch()
        return EpochRecord(
            epoch=epoch + 1,
            train_loss=train_loss,
            train_bac=balanced_accuracy(joined["labels"].numpy(), joined["predicted"].numpy()),
            held_out_loss=held_out_loss,
            held_out_bac=held_out_bac,
            lr=self.optimizers[0].param_groups[0]["lr"],
            samples_per_second=self.n_train / seconds,
            seconds=time.perf_counter() - partial.started,
        )

    def check_finite(self, *values: Tensor) -> None:
        """Raise DivergedError unless all values are numbers."""
        if not torch.stack([value.isfinite().all() for value in values]).all():
            raise DivergedError(
                "the loss or the weights became infinite or no number (nan). What was saved before "
                f"is kept. Start another run (RUN=...) with a lower --lr than {self.peak_lr:g}, "
                "a longer --warmup, or --precision float32"
            )

    @explain_full_memory()
    def train_step(self, step: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """One step of the optimizer; the loss and the logits, detached and on the device.

        `images` and `labels` are this rank's share of the step's batch, and so is the loss.
        Where the batch does not fit into a GPU's memory, it is computed in parts from then on.
        Raises TooLittleMemoryError where that does not help, and where the CPU's memory ends.
        """
        lr = learning_rate(step, self.n_steps, self.training.warmup, self.peak_lr)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
        images = images.to(self.device.device, non_blocking=True)
        labels = labels.to(self.device.device, non_blocking=True)
        torch._foreach_copy_(self.buffers_before, self.buffers)
        while True:
            try:
                loss, logits = self.compute_gradients(step, images, labels)
                break
            except RuntimeError as error:
                # Other ranks may have added up half of the gradients already.
                if not gpu_is_full(error) or self.ranks.size > 1:
                    raise
                failure = first_line(error)
            # Not above, where the error still holds what was computed until then.
            torch._foreach_copy_(self.buffers, self.buffers_before)
            self.parts = more_parts(self.parts, len(images), failure)
            say(
                Caution(
                    f"{len(images)} samples at once do not fit into the GPU's memory: from now on "
                    f"a step computes them in {self.parts} parts. The batch size stays the same, "
                    "but batch normalization uses the statistics of each part"
                )
            )
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.ranks.average(self.running)
        self.averaged.update()
        return loss, logits

    def compute_gradients(self, step: int, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's share of the batch's loss, and its logits, detached.

        The gradients of the whole batch are left with the weights.

        The gradients of `self.parts` parts add up to those of the batch, except that the statistics
        of batch normalization are each part's own (ghost batch normalization, Hoffer et al. 2017).
        """
        # It can't normalize a single sample.
        parts = max(1, min(self.parts, len(images) // 2))
        self.network.zero_grad()
        losses, logits = [], []
        pairs = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
        for part, (part_images, part_labels) in enumerate(pairs):
            # Several ranks don't compute in parts.
            torch.manual_seed(
                derive_seed(self.training.seed, DROPOUT, step, self.ranks.rank + part)
            )
            with self.device.autocast():
                part_logits = self.parallel(part_images)
            # A mean over the part's samples becomes its share of the batch's.
            share = len(part_labels) / self.batches.size(step)
            loss = self.loss(part_logits, part_labels) * share
            # The mean over the ranks becomes the sum.
            self.scaler.scale(loss * self.ranks.size).backward()
            losses.append(loss.detach())
            logits.append(part_logits.detach())
        return torch.stack(losses).sum(), torch.cat(logits)

    def score_held_out(self, progress: Progress, pause: Callable[[], None]) -> tuple[float, float]:
        """Class-weighted loss and BAC of the averaged network, without TTA."""
        labels = self.competition.labels[self.held_out]
        prob = self.predict(PLAIN, progress, pause)[0]
        weights = self.loss.weights.cpu().numpy()[labels]
        likelihood = np.maximum(prob[np.arange(len(labels)), labels], np.finfo(np.float32).tiny)
        loss = float(np.mean(weights * -np.log(likelihood)))
        return loss, balanced_accuracy(labels, prob.argmax(1))

    def predict(
        self, views: tuple[int, ...], progress: Progress, pause: Callable[[], None]
    ) -> np.ndarray:
        """The averaged network's probabilities [view, held-out row, class]."""
        share = self.ranks.share(self.held_out)
        with progress.predicting(len(views)) as advance:

            def after_batch(n_samples: int) -> None:
                advance(n_samples * self.ranks.size)
                pause()

            of_share = predict_views(
                self.model,
                self.competition.train_images,
                # Ranks pause together, after equally many batches: a shorter share is filled up.
                np.resize(share, -(-len(self.held_out) // self.ranks.size)),
                self.device,
                # What a part of a training step fits into is enough.
                batch_size=self.batch_size // self.parts // self.ranks.size,
                views=views,
                after_batch=after_batch,
            )
        return np.concatenate(self.ranks.gather(of_share[:, : len(share)]), axis=1)

    def out_of_fold(self, progress: Progress, pause: Callable[[], None]) -> OutOfFold:
        """The fold's predictions, with and without TTA; what `pause` raises ends them."""
        of_views = self.predict(all_views(self.competition.train_images), progress, pause)
        return OutOfFold(self.folds, self.held_out, average_views(of_views), of_views[PLAIN[0]])

    def resume_state(self) -> dict[str, Any]:
        """What `restore` needs, beside the averaged weights.

        Raises DivergedError when the weights are no longer numbers: such a state is not kept.
        """
        network = self.network.state_dict()
        self.check_finite(*(value for value in network.values() if value.is_floating_point()))
        return {
            "network": network,
            "n_averaged": self.averaged.steps,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            **self.partial.join(self.ranks),
            "seconds": time.perf_counter() - self.partial.started,
        }

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to the state of a checkpoint."""
        self.model.load_state_dict(checkpoint.network)
        resume = checkpoint.resume
        if resume is None:
            return
        self.network.load_state_dict(resume["network"])
        self.averaged.steps = resume["n_averaged"]
        for optimizer, state in zip(self.optimizers, resume["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        # Empty when it was trained in a precision that needs no scaling of the loss.
        if resume["scaler"]:
            self.scaler.load_state_dict(resume["scaler"])
        self.partial = restore_epoch(resume, self.ranks, self.device.device)


def image_size(epoch: int, training: Training) -> int | None:
    """Side in pixels of what the network sees in an epoch (from 0); None: as the images are.

    The last epoch always has `--image-size`, which is what the network then predicts at. Small
    images first, large ones last: "progressive resizing" (Howard 2018, fast.ai's DAWNBench entry).
    """
    starts = epoch < int(training.start_share * training.epochs)
    return training.start_size if training.start_size and starts else training.image_size
