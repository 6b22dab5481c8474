import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellline.config import Augmentation
from cellline.data.competition import Competition
from cellline.training.augmentation import Augmenter
from cellline.training.batches import AugmentedBatches, TrainingBatches, deal_batches


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


def test_a_text_id_draws_alike_wherever_its_sample_is(competition: Competition) -> None:
    texts = np.array([f"p{i}_é" for i in range(48)])
    turned = np.arange(48)[::-1]
    one, other = (
        AugmentedBatches(
            competition.train_images[order],
            competition.labels[order],
            texts[order],
            np.arange(48),
            Augmenter(Augmentation(), seed=0),
        )
        for order in (np.arange(48), turned)
    )
    images, labels = one[1, np.arange(48)]
    again, other_labels = other[1, turned]
    assert torch.equal(images, again)
    assert torch.equal(labels, other_labels)
    # And another draws differently: the pictures of one class are all there is to tell by.
    same = np.stack([competition.train_images[0]] * 2)
    pair = AugmentedBatches(same, np.zeros(2, int), texts[:2], np.arange(2), one.augmenter)
    first, second = pair[1, np.arange(2)][0]
    assert not torch.equal(first, second)


def collect(competition: Competition, workers: int, epochs: list[int]) -> dict[int, bytes]:
    batches = TrainingBatches(
        competition.train_images,
        competition.labels,
        competition.train_ids,
        np.arange(5, 40),
        batch_size=8,
        seed=1,
        augmenter=Augmenter(Augmentation(), 1),
        workers=workers,
        pin_memory=False,
    )
    return {
        epoch: b"".join(part.numpy().tobytes() for batch in batches.epoch(epoch) for part in batch)
        for epoch in epochs
    }


def test_neither_workers_nor_the_order_of_epochs_matter(competition: Competition) -> None:
    expected = collect(competition, 0, [0, 1, 2])
    assert len(set(expected.values())) == 3
    assert collect(competition, 2, [2, 0, 1]) == expected


def test_labels_stay_with_their_images(competition: Competition) -> None:
    """The classes differ in brightness, which augmentation changes by a fifth at most."""
    batches = TrainingBatches(
        competition.train_images,
        competition.labels,
        competition.train_ids,
        np.arange(48),
        batch_size=48,
        seed=0,
        augmenter=Augmenter(Augmentation(gain=0.05), 0),
        workers=0,
        pin_memory=False,
    )
    [(images, labels)] = list(batches.epoch(0))
    brightness = images.float().mean((1, 2, 3))
    assert torch.equal((brightness / 60).floor().clamp(0, 2).long(), labels)
