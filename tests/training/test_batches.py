from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellline.config import Augmentation, Training
from cellline.host.device import Device
from cellline.runs.folds import Folds
from cellline.training.batches import AugmentedBatches, TrainingBatches, deal_batches
from cellline.training.ranks import Ranks
from cellline.training.task import Task


@pytest.fixture
def task(folds: Folds, training: Training, device: Device) -> Task:
    return Task(folds, 0, training, device)


@given(st.integers(2, 200), st.integers(2, 64), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_holds_every_sample_once_in_even_batches(
    n_samples: int, batch_size: int, seed: int, epoch: int
) -> None:
    batches = deal_batches(n_samples, batch_size, seed, epoch)
    assert sorted(np.concatenate(batches)) == list(range(n_samples))
    sizes = [len(batch) for batch in batches]
    # A batch of one has no variance to normalize by: of an odd number of samples, one more at most.
    assert max(sizes) <= max(batch_size, 3)
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = {
        tuple(np.concatenate(deal_batches(50, 8, seed, epoch)))
        for seed in range(3)
        for epoch in range(3)
    }
    assert len(orders) == 9


def test_a_text_id_draws_alike_wherever_its_sample_is(task: Task) -> None:
    texts = np.array([f"p{i}_é" for i in range(48)])
    turned = np.arange(48)[::-1]

    def batches(order: np.ndarray, images: np.ndarray) -> AugmentedBatches:
        competition = replace(
            task.competition,
            train_images=images[order],
            labels=task.competition.labels[order],
            train_ids=texts[order],
        )
        # All rows are training rows.
        folds = replace(task.folds, competition=competition, fold=np.ones(48, int))
        return AugmentedBatches(replace(task, folds=folds))

    images = task.competition.train_images
    one = batches(np.arange(48), images)[1, np.arange(48)]
    other = batches(turned, images)[1, turned]
    assert all(map(np.array_equal, one, other))
    # Another id draws differently for the same picture.
    same = batches(np.arange(48), np.repeat(images[:1], 48, axis=0))
    first, second = same[1, np.arange(2)][0]
    assert not np.array_equal(first, second)


def collect(task: Task, epochs: list[int], first: int = 0) -> dict[int, list[bytes]]:
    batches = TrainingBatches(task)
    return {
        epoch: [
            batch.images.numpy().tobytes() + batch.labels.numpy().tobytes()
            for batch in batches.epoch(epoch, first)
        ]
        for epoch in epochs
    }


def test_neither_workers_nor_order_nor_start_of_epochs_matter(task: Task) -> None:
    expected = collect(task, [0, 1, 2])
    assert len({batch for batches in expected.values() for batch in batches}) == 12
    assert collect(replace(task, device=replace(task.device, workers=2)), [2, 0, 1]) == expected
    assert collect(task, [1], first=3) == {1: expected[1][3:]}


def test_shares_of_ranks_are_the_batch_of_one(task: Task) -> None:
    [whole, *_] = TrainingBatches(task).epoch(1)
    shares = [
        next(TrainingBatches(replace(task, ranks=Ranks(rank, 3))).epoch(1)) for rank in range(3)
    ]
    assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
    assert {(share.step, share.size) for share in shares} == {(whole.step, 8)} == {(4, 8)}
    assert [share.part for share in shares] == [0, 1, 2]


def test_labels_stay_with_their_images(task: Task) -> None:
    """The classes differ in brightness, which augmentation changes by a fifth at most."""
    settings = replace(task.training, augmentation=Augmentation(gain=0.05))
    for batch in TrainingBatches(replace(task, training=settings)).epoch(0):
        brightness = batch.images.float().mean((1, 2, 3))
        assert torch.equal((brightness / 60).floor().clamp(0, 2).long(), batch.labels)
