from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from cellline.config import Training
from cellline.host.device import Device
from cellline.runs.folds import Folds
from cellline.training.batches import Batch
from cellline.training.epoch import EpochRecord
from cellline.training.progress import Progress
from cellline.training.task import Task

RECORD = EpochRecord(
    epoch=2,
    train_loss=1.5,
    train_score=0.4,
    held_out_loss=1.75,
    held_out_score=0.35,
    lr=5e-4,
    samples_per_second=26.2,
    seconds=90.0,
)


def batches(n: int) -> Iterator[Batch]:
    for step in range(n):
        yield Batch(torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64), step, 2)


def test_lines_of_a_training(
    folds: Folds, training: Training, device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of four epochs the last has images of four times as many pixels.
    training = replace(training, epochs=4, start_size=16, image_size=32, start_share=0.75)
    progress = Progress("fold 0", Task(folds, 0, training, device))
    # Resumed in the second epoch, after two of four steps.
    passed = list(progress.batches(batches(2), epoch=1, first=2))
    assert len(passed) == 2
    with progress.predicting(8) as advance:
        advance(16)
    progress.epoch(RECORD)
    progress.end([{"epoch": 1, "held_out_score": 0.5}, {"epoch": 2, "held_out_score": 0.35}])
    printed = capsys.readouterr()
    assert printed.err == ""
    start, epoch, end = printed.out.splitlines()
    assert start.startswith("fold 0: cpu, float32; 32 training and 16 held-out samples; 3 epochs")
    assert epoch == (
        "fold 0, epoch 2/4: loss 1.500, held out 1.750; BAC 40.0 %, held out 35.0 %; "
        "lr 0.0005; 26 samples/s; 8 min left"
    )
    assert "the best epoch, 1, had 50.0 %" in end
