from collections.abc import Iterator

import pytest
import torch

from cellline.host.device import Device
from cellline.training.batches import Batch
from cellline.training.progress import EpochRecord, Progress


def batches(n: int) -> Iterator[Batch]:
    for _ in range(n):
        yield torch.zeros(2, 3, 16, 16), torch.zeros(2, dtype=torch.int64)


RECORD = EpochRecord(
    epoch=2,
    train_loss=1.5,
    train_bac=0.4,
    held_out_loss=1.75,
    held_out_bac=0.35,
    lr=5e-4,
    samples_per_second=26.2,
    seconds=90.0,
)


@pytest.mark.parametrize("shown", [True, False])
def test_what_is_printed_of_a_training(
    device: Device, capsys: pytest.CaptureFixture[str], shown: bool
) -> None:
    # The last epoch is to take twice as long as the others.
    progress = Progress(
        *("fold 0", device, 32, 16, range(1, 4), 5), shown=shown, cost=[1, 1, 1, 2].__getitem__
    )
    # Resumed in the second epoch, after three of five steps.
    passed = list(progress.batches(batches(2), epoch=1, first=3))
    assert len(passed) == 2
    with progress.predicting(8) as advance:
        advance(16)
    progress.epoch(RECORD)
    progress.end([{"epoch": 1, "held_out_bac": 0.5}, {"epoch": 2, "held_out_bac": 0.35}])
    printed = capsys.readouterr()
    assert printed.err == ""
    if not shown:
        assert printed.out == ""
        return
    start, epoch, end = printed.out.splitlines()
    assert start.startswith("fold 0: cpu, float32; 32 training and 16 held-out samples; 3 epochs")
    assert epoch == (
        "fold 0, epoch 2/4: loss 1.500, held out 1.750; BAC 40.0 %, held out 35.0 %; "
        "lr 0.0005; 26 samples/s; 4 min left"
    )
    assert "the best epoch, 1, had 50.0 %" in end
