"""Importance and attributions of networks that are known to go by one channel, or one corner."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cellline.config import Config, Training
from cellline.data.competition import Competition
from cellline.explaining.attribution import attribute
from cellline.explaining.explain import explain_fold
from cellline.host.device import Device
from cellline.host.stopping import Stop
from cellline.model.views import Predictor, choose_views, see
from cellline.runs.explained import read_all_permuted, read_attributed
from cellline.runs.folds import Folds
from cellline.runs.run import Run, new_run
from cellline.training.fold import train_fold
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer

Train = Callable[[np.ndarray, range], tuple[Run, Predictor]]


@pytest.fixture
def train(folds: Folds, plain_training: Training, device: Device) -> Train:
    """Trains folds on these images, in all eight views; the run, and the last fold's network."""

    def trained(images: np.ndarray, numbers: range) -> tuple[Run, Predictor]:
        competition = replace(folds.competition, train_images=images)
        own = replace(folds, competition=competition)
        run = new_run(Config(training=replace(plain_training, epochs=8), run="run"), own)
        for fold in numbers:
            trainer = FoldTrainer(Task(own, fold, run.config.training, device))
            train_fold(trainer, run, Stop())
        return run, Predictor(trainer.learner.model, device, 32)

    return trained


def noise_of(competition: Competition) -> np.ndarray:
    """Images that tell nothing."""
    shape = competition.train_images.shape
    return np.random.default_rng(1).integers(0, 60, shape).astype(np.uint8)


def test_only_the_channel_that_tells_classes_apart_is_important(
    competition: Competition, train: Train, device: Device
) -> None:
    images = noise_of(competition)
    images[:, 1] += 90 * competition.labels[:, None, None].astype(np.uint8)
    run, _ = train(images, range(3))
    for fold in range(3):
        explain_fold(run, fold, [], device)
    permuted = read_all_permuted(run)
    assert permuted is not None
    np.testing.assert_array_equal(permuted.oof.rows, np.arange(48))
    blue, red, yellow = permuted.falls
    assert red.gain.low > 0.3
    assert all(of_class.value > 0.2 for of_class in red.recalls)
    for other in (blue, yellow):
        assert other.gain.low <= 0 <= other.gain.high


def test_attributions_sum_to_what_the_image_changes(competition: Competition, train: Train) -> None:
    run, predictor = train(competition.train_images, range(1))
    images = run.competition.train_images
    views = choose_views(images.shape, "d4")
    mean = predictor.network.mean[0]
    sums, changes = [], []
    for row in (0, 1, 30, 47):
        ends = torch.stack([mean.expand(images.shape[1:]), torch.from_numpy(images[row]) + 0.0])
        with torch.no_grad():
            turned = [predictor.network.eval()(see(ends, view)).log_softmax(1) for view in views]
        before, after = torch.stack(turned).mean(dim=0).numpy()
        changes.append(after - before)
        sums.append([attribute(predictor, images[row], k, views).sum() for k in range(3)])
    assert np.linalg.norm(changes) > 1
    assert np.linalg.norm(np.subtract(sums, changes)) < 0.03 * np.linalg.norm(changes)


def test_a_network_that_goes_by_a_corner_has_looked_there(
    competition: Competition, train: Train, device: Device
) -> None:
    images = noise_of(competition)
    # Training turns the images: only attributions that are turned back are in this corner.
    images[..., :6, 10:] = 100 * competition.labels[:, None, None, None]
    run, _ = train(images, range(1))
    rows = run.folds.held_out_rows(0).tolist()
    explain_fold(run, 0, rows, device)
    strength = np.abs(np.stack(list(read_attributed(run, [0]).values())))
    shares = strength[..., :8, 8:].sum(axis=(1, 2, 3)) / strength.sum(axis=(1, 2, 3))
    # A quarter of the pixels.
    assert np.median(shares) > 0.5
