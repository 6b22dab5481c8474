"""How fast networks are trained: the reference loop, ours, and nothing but the steps of ours."""

import io
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.case import N_CLASSES, Case
from benchmarks.ceiling import PRODUCT, MatrixProduct, count_operations, measure_rate
from benchmarks.measuring import Figure, alternate, compare
from benchmarks.reference import ReferenceLoop, elsewhere, plain_network
from cellline.config import Config, Folders
from cellline.data.competition import Competition
from cellline.host.stopping import Stop
from cellline.model.loss import WeightedCrossEntropy, class_weights
from cellline.model.network import Classifier, build_network
from cellline.model.normalization import measure_normalization
from cellline.runs.folds import Folds
from cellline.runs.run import new_run
from cellline.training.fold import Keeper, save_fold
from cellline.training.optimizing import build_optimizers
from cellline.training.progress import synchronize
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer

# Training rows of one of five folds of the challenge: of so many samples is an epoch that a
# checkpoint follows.
EPOCH_SAMPLES = 6311

REFERENCE, OURS, LOOP = "reference loop", "ours", "ours without checkpoints"
BARE, BEFORE = "bare step", "bare step of torchvision's network"


class PlainClassifier(nn.Module):
    """torchvision's network behind our normalization, channels last."""

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Logits [batch, class] of images [batch, channel, height, width], uint8."""
        x = (images.float() - self.mean) / self.std
        logits: Tensor = self.backbone(x.contiguous(memory_format=torch.channels_last))
        return logits


class BareSteps:
    """Forward, backward and optimizer on one fixed batch on the device, and nothing else."""

    def __init__(
        self, network: nn.Module, loss: nn.Module, images: Tensor, labels: Tensor, case: Case
    ) -> None:
        self.network = case.device.place(network).train()
        self.device = case.device
        self.loss = loss.to(self.device.device)
        self.images, self.labels = images.to(self.device.device), labels.to(self.device.device)
        self.steps = case.steps
        self.optimizers = build_optimizers(network, case.training)

    def __call__(self) -> None:
        """Take the case's number of steps."""
        for _ in range(self.steps):
            self.network.zero_grad()
            with self.device.autocast():
                logits = self.network(self.images)
            self.loss(logits, self.labels).backward()
            for optimizer in self.optimizers:
                optimizer.step()
        synchronize(self.device)


class OurEpochs:
    """The real training of a fold, an epoch a call, with all that it does."""

    def __init__(self, case: Case, folder: Path) -> None:
        """Its checkpoints are written into `folder`."""
        folds = case.draw()
        self.device = case.device
        self.trainer = FoldTrainer(Task(folds, 0, case.training, case.device))
        config = Config(Folders(oof_dir=folder), case.training)
        run = new_run(config, folds)
        self.keeper = Keeper(lambda: save_fold(self.trainer, run), Stop(), self.trainer.task.ranks)
        self.keeper.begin(save=True)
        self.training_seconds: list[float] = []
        """A call: until the last step was done, without the scoring of the held-out rows."""
        self.saving_seconds: list[float] = []
        """A call: for the checkpoint after it."""

    def __call__(self) -> None:
        """Train an epoch, score the held-out rows, save."""
        pauses = 0

        def pause() -> None:
            nonlocal pauses
            self.keeper.pause()
            pauses += 1
            if pauses == self.trainer.task.steps:
                synchronize(self.device)
                self.training_seconds.append(time.perf_counter() - started)

        started = time.perf_counter()
        # What it prints is for whoever trains.
        with redirect_stdout(io.StringIO()):
            self.trainer.train_epoch(pause)
        saving = time.perf_counter()
        self.keeper.save()
        self.saving_seconds.append(time.perf_counter() - saving)


def reference_loop(case: Case) -> ReferenceLoop:
    """The reference loop on the training rows of the case."""
    folds = case.draw()
    competition = folds.competition
    rows = folds.training_rows(0)
    return ReferenceLoop(
        plain_network(case.network, N_CLASSES),
        competition.train_images[rows],
        competition.labels[rows],
        measure_normalization(competition.train_images, rows),
        batch_size=case.batch_size,
        device=case.device.device,
    )


def our_network(case: Case, competition: Competition, folds: Folds) -> Classifier:
    """As the training of fold 0 builds it."""
    images = competition.train_images
    normalization = measure_normalization(images, folds.training_rows(0))
    return build_network(case.training, N_CLASSES, images.shape[1:], normalization)


def plain_twin(case: Case, ours: Classifier) -> PlainClassifier:
    """torchvision's network with the weights, the dropout and the normalization of ours."""
    plain = plain_network(case.network, N_CLASSES, case.training.dropout)
    theirs = PlainClassifier(plain, ours.mean, ours.std)
    theirs.load_state_dict(ours.state_dict())
    return theirs


def bare_steps(case: Case) -> tuple[BareSteps, BareSteps]:
    """Those of torchvision's network, and those of ours, from the same weights."""
    folds = case.draw()
    competition = folds.competition
    ours = our_network(case, competition, folds)
    images = torch.from_numpy(competition.train_images[: case.batch_size])
    labels = torch.from_numpy(competition.labels[: case.batch_size])
    loss = WeightedCrossEntropy(class_weights(competition.labels, N_CLASSES))
    before = BareSteps(plain_twin(case, ours), loss, images, labels, case)
    return before, BareSteps(ours, loss, images, labels, case)


def measure(case: Case, after_round: Callable[[], object]) -> list[Figure]:
    """The rows on training."""
    before, bare = bare_steps(case)
    product = MatrixProduct(case.device)
    with tempfile.TemporaryDirectory() as folder, elsewhere(reference_loop, case) as reference:
        ours = OurEpochs(case, Path(folder))
        candidates: dict[str, Callable[[], object]] = {
            REFERENCE: reference.train_epoch,
            BEFORE: before,
            BARE: bare,
            OURS: ours,
            PRODUCT: product,
        }
        seconds = alternate(candidates, case.rounds, after_round=after_round)
    # Those of the untimed round are the first.
    loop, saving = ours.training_seconds[1:], ours.saving_seconds[1:]
    with_checkpoint = [
        epoch + save * case.samples / EPOCH_SAMPLES
        for epoch, save in zip(loop, saving, strict=True)
    ]
    operations = count_operations(case.network, case.image_size, backward=True)
    ceiling = product.per_second(seconds[PRODUCT])

    def rate(name: str, durations: list[float], note: str) -> Figure:
        return measure_rate(name, "samples/s", case.samples, durations, operations, ceiling, note)

    rows = {
        REFERENCE: rate(REFERENCE, seconds[REFERENCE], "float32, contiguous, Adam, no workers"),
        BEFORE: rate(BEFORE, seconds[BEFORE], "channels last, our optimizers, one fixed batch"),
        BARE: rate(BARE, seconds[BARE], "our network and optimizers on one fixed batch"),
        LOOP: rate(
            LOOP,
            loop,
            "epochs of make train, without checkpoints and scores of held-out samples",
        ),
        OURS: rate(
            OURS, with_checkpoint, f"the same with a checkpoint every {EPOCH_SAMPLES} samples"
        ),
    }
    return [
        *rows.values(),
        compare(rows[OURS], rows[REFERENCE]),
        compare(rows[OURS], rows[BARE]),
        compare(rows[BARE], rows[BEFORE]),
        Figure("a checkpoint", "s", tuple(saving), "written and flushed to a temporary folder"),
        product.figure(ceiling),
    ]
