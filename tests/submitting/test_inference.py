import shutil
from dataclasses import replace

import numpy as np
import pytest
from stop_at import StopAt

from cellline.config import Config, Symmetry, Training
from cellline.data.views import VIEWS
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.stopping import Stop, Stopped
from cellline.model.network import Classifier
from cellline.model.views import Predictor
from cellline.runs.folds import Folds
from cellline.runs.run import Run, new_run
from cellline.submitting.inference import predict_fold, restore_network
from cellline.training.checkpoint import read_checkpoint, write_checkpoint
from cellline.training.fold import train_fold
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer


def predict(
    network: Classifier, run: Run, device: Device, views: tuple[int, ...] = VIEWS
) -> np.ndarray:
    """Predictions of the test set by a network in memory."""
    images = run.competition.test_images
    rows = np.arange(len(images))
    mean: np.ndarray = Predictor(network, device, 8).predict(images, rows, views).mean(axis=0)
    return mean


@pytest.fixture
def trained(folds: Folds, training: Training, device: Device) -> tuple[Run, np.ndarray]:
    """A run whose fold 0 is trained, and the test predictions of that network."""
    run = new_run(Config(training=training, run="run"), folds)
    trainer = FoldTrainer(Task(folds, 0, training, device))
    train_fold(trainer, run, Stop())
    return run, predict(trainer.learner.model, run, device)


def test_the_restored_network_predicts_as_the_trained_one_did(
    trained: tuple[Run, np.ndarray], device: Device
) -> None:
    run, expected = trained
    prob, _ = predict_fold(run, 0, device)
    np.testing.assert_array_equal(prob, expected)
    with np.load(run.fold_folder(0) / "test.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["file_id"], run.competition.test_ids)
        np.testing.assert_array_equal(file["prob"], expected)
        assert file["prob"].dtype == np.float32


@pytest.mark.parametrize(("symmetry", "views"), [("mirror", (0, 4)), ("none", (0,))])
def test_the_test_set_is_seen_in_the_views_of_the_symmetry(
    folds: Folds, training: Training, device: Device, symmetry: Symmetry, views: tuple[int, ...]
) -> None:
    run = new_run(Config(training=replace(training, symmetry=symmetry), run="run"), folds)
    trainer = FoldTrainer(Task(folds, 0, run.config.training, device))
    train_fold(trainer, run, Stop())
    prob, _ = predict_fold(run, 0, device)
    np.testing.assert_array_equal(prob, predict(trainer.learner.model, run, device, views))


def test_a_network_trained_on_small_images_so_far_predicts_at_their_size(
    folds: Folds, training: Training, device: Device
) -> None:
    small = replace(training, start_size=12, start_share=0.7, image_size=24)
    run = new_run(Config(training=small, run="run"), folds)
    trainer = FoldTrainer(Task(folds, 0, small, device))
    # Two at the start, then four steps and one batch of held-out rows; within the second epoch.
    with pytest.raises(Stopped):
        train_fold(trainer, run, StopAt(9))
    checkpoint = read_checkpoint(run.fold_folder(0) / "checkpoint.pt")
    assert checkpoint.epoch == 1
    shape = run.competition.test_images.shape[1:]
    assert restore_network(checkpoint, shape).image_size == 12
    prob, _ = predict_fold(run, 0, device)
    np.testing.assert_array_equal(prob, predict(trainer.learner.model, run, device))


def test_predictions_are_kept_while_model_and_images_are_unchanged(
    trained: tuple[Run, np.ndarray], device: Device
) -> None:
    run, _ = trained
    path = run.fold_folder(0) / "test.npz"
    prob, digest = predict_fold(run, 0, device)
    before = path.stat().st_mtime_ns
    again, same = predict_fold(run, 0, device)
    np.testing.assert_array_equal(again, prob)
    assert (path.stat().st_mtime_ns, same) == (before, digest)

    reversed_images = run.competition.test_images[::-1].copy()
    other = replace(run.competition, test_images=reversed_images, test_digest="8" * 64)
    with_other = Run(run.config, replace(run.folds, competition=other), run.record)
    np.testing.assert_allclose(predict_fold(with_other, 0, device)[0], prob[::-1], atol=1e-5)

    folder = run.fold_folder(0)
    checkpoint = read_checkpoint(folder / "checkpoint.pt")
    checkpoint.network["backbone.classifier.1.bias"] += 1
    checkpoint.network["backbone.classifier.1.bias"][0] -= 3
    write_checkpoint(folder, checkpoint)
    with pytest.raises(UserError, match=r"oof\.npz does not belong .* its model_digest is \w{12}"):
        predict_fold(run, 0, device)
    run.oof_path(0).unlink()
    changed, digest_then = predict_fold(run, 0, device)
    assert digest_then != digest
    assert not np.allclose(changed, prob)


def test_a_checkpoint_of_another_run_or_fold_is_refused(
    trained: tuple[Run, np.ndarray], device: Device
) -> None:
    run, _ = trained
    other = Run(run.config, run.folds, {**run.record, "classes": ["other"]})
    with pytest.raises(UserError, match="does not belong to the run"):
        predict_fold(other, 0, device)
    shutil.copytree(run.fold_folder(0), run.fold_folder(1))
    run.oof_path(1).unlink()
    with pytest.raises(UserError, match=r"does not belong to the run .* its fold is 0, not 1"):
        predict_fold(run, 1, device)
