"""A fold's network and how it learns, one step at a time."""

from typing import Any, cast

import numpy as np
import torch
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor
from torchvision.transforms import v2

from cellline.errors import UserError
from cellline.model.loss import WeightedCrossEntropy, class_weights
from cellline.model.network import Classifier, build_network
from cellline.model.normalization import measure_normalization
from cellline.seeding import CUTMIX, DROPOUT, derive_seed
from cellline.training.batches import Batch
from cellline.training.checkpoint import Checkpoint
from cellline.training.memory import Parts, explain_full_memory
from cellline.training.optimizing import build_optimizers, learning_rate, set_learning_rate
from cellline.training.settings import weighs_classes
from cellline.training.task import Task


class DivergedError(UserError):
    """The loss or the weights are NaN or infinite."""


class Learner:
    """A network, the moving average of its weights, and the optimizers that train it.

    It learns from the task's training rows alone. Its state after any step is the averaged weights
    and `state`: all randomness is a function of the seed and the step.

    Several ranks train it together, each on its share of every batch. Batch, learning rate and loss
    are those of a single rank. Two things differ: each rank draws its own dropout, and batch
    normalization sees a share at a time (ghost batch normalization, Hoffer et al. 2017); its
    running statistics are averaged. After a step all ranks hold the same network, bit for bit if
    their processors are alike; different kinds round Muon's products differently.
    """

    def __init__(self, task: Task) -> None:
        """Build the network on the task's device; raises UserError, see `build_network`."""
        training, device, competition = task.training, task.device, task.competition
        n_classes, image_shape = len(competition.classes), competition.train_images.shape[1:]
        torch.manual_seed(training.seed)
        normalization = measure_normalization(competition.train_images, task.rows)
        network = build_network(training, n_classes, image_shape, normalization, task.start.path)
        weights = np.ones(n_classes)
        if weighs_classes(training, task.folds.metric):
            weights = class_weights(competition.labels[task.rows], n_classes)
        self.task = task
        self.network = device.place(network)
        self.parallel = task.ranks.parallel(self.network, device.device)
        self.parts = Parts(self.network)
        length = training.averaging * task.n_steps
        self.average = ModelEmaV3(self.network, decay=max(0.0, 1 - 1 / length))
        self.n_averaged = 0
        """Steps in the average; before the first there is none."""
        self.loss = WeightedCrossEntropy(weights).to(device.device)
        self.cutmix = v2.CutMix(num_classes=n_classes)
        self.optimizers = build_optimizers(self.network, training)
        scaled = device.precision == "float16"
        self.scaler = torch.amp.GradScaler(device.device.type, enabled=scaled)

    @property
    def model(self) -> Classifier:
        """The averaged network: the one that is scored, kept and used for predictions."""
        return cast("Classifier", self.average.module)

    def begin_epoch(self, epoch: int) -> None:
        """Set the image size of an epoch (from 0), and train."""
        self.network.image_size = self.model.image_size = self.task.training.size_of(epoch)
        self.network.train()

    @explain_full_memory()
    def step(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Take one optimizer step; return the loss and the logits, detached, on the device.

        `batch` is this rank's share, and so is the loss. Raises TooLittleMemoryError.
        """
        lr = learning_rate(batch.step, self.task.n_steps, self.task.training.warmup, self.task.lr)
        set_learning_rate(self.optimizers, lr)
        loss, logits = self.parts.backward(self.backward, batch.to(self.task.device.device))
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        self.task.ranks.average_statistics(self.network)
        # The average begins with the first step's weights; the initial ones don't count.
        if self.n_averaged:
            self.average.update(self.network)
        else:
            self.average.set(self.network)
        self.n_averaged += 1
        return loss, logits

    def backward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Add the gradients of a batch, or a part of one; return its share of the loss, and logits.

        The gradients of all parts add up to those of the whole batch, except that each part has its
        own batch statistics.
        """
        torch.manual_seed(derive_seed(self.task.training.seed, DROPOUT, batch.step, batch.part))
        images, labels = batch.images, batch.labels
        if self.mixes(batch.step):
            images, labels = self.cutmix(images, labels)
        if self.task.teacher is not None:
            labels = self.task.teacher(images)
        with self.task.device.autocast():
            logits = self.parallel(images)
        # A mean over the part's samples becomes its share of the batch's mean.
        loss = self.loss(logits, labels) * (len(labels) / batch.size)
        # DDP takes the mean over the ranks: this makes it their sum.
        self.scaler.scale(loss * self.task.ranks.size).backward()
        return loss.detach(), logits.detach()

    def mixes(self, step: int) -> bool:
        """True if the images of a step are cut into each other."""
        seed = derive_seed(self.task.training.seed, CUTMIX, step)
        return np.random.default_rng(seed).random() < self.task.training.cutmix

    def check_finite(self, *values: Tensor) -> None:
        """Raise DivergedError if a value is NaN or infinite."""
        if not torch.stack([value.isfinite().all() for value in values]).all():
            raise DivergedError(
                "the loss or a weight is NaN or infinite. What was saved before is kept. Start "
                f"another run (--run) with a lower --lr than {self.task.lr:g}, a longer --warmup, "
                "or --precision float32"
            )

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs besides the averaged weights.

        Raises DivergedError if a weight is NaN or infinite: such a state is not worth saving.
        """
        network = self.network.state_dict()
        self.check_finite(*(value for value in network.values() if value.is_floating_point()))
        return {
            "network": network,
            "n_averaged": self.n_averaged,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
        }

    def load(self, checkpoint: Checkpoint) -> None:
        """Return to the state of a checkpoint; of a finished fold, to the model alone."""
        self.model.load_state_dict(checkpoint.network)
        resume = checkpoint.resume
        if resume is None:
            return
        self.network.load_state_dict(resume["network"])
        self.n_averaged = resume["n_averaged"]
        for optimizer, state in zip(self.optimizers, resume["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        # Empty after training in a precision that needs no loss scaling.
        if resume["scaler"]:
            self.scaler.load_state_dict(resume["scaler"])
