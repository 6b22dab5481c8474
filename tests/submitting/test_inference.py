from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stop_at import StopAt

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.stopping import Stop, Stopped
from cellline.model.views import VIEWS, average_views, predict_views
from cellline.runs.folds import Folds
from cellline.runs.run_folder import describe_run
from cellline.submitting.inference import predict_test, restore_network
from cellline.training.checkpoint import read_checkpoint, write_checkpoint
from cellline.training.fold import train_fold
from cellline.training.loop import FoldTrainer

FOLDER = Path("oof/run/fold0")


@pytest.fixture
def config(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> dict[str, Any]:
    """The configuration of a run whose fold 0 is trained; its network keeps `trainer`'s weights."""
    trainer = FoldTrainer(folds, 0, training, device)
    config = describe_run(training, competition, folds)
    train_fold(trainer, FOLDER, config, 0, Stop())
    rows = np.arange(9)
    of_views = predict_views(
        trainer.model, competition.test_images, rows, device, batch_size=8, views=VIEWS
    )
    config["expected"] = average_views(of_views)
    return config


def test_the_restored_network_predicts_as_the_trained_one_did(
    config: dict[str, Any], competition: Competition, device: Device
) -> None:
    expected = config.pop("expected")
    prob, _ = predict_test(FOLDER, config, competition, device)
    np.testing.assert_array_equal(prob, expected)
    with np.load(FOLDER / "test.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["file_id"], competition.test_ids)
        np.testing.assert_array_equal(file["prob"], expected)
        assert file["prob"].dtype == np.float32


def test_a_network_trained_on_small_images_so_far_predicts_at_their_size(
    competition: Competition, folds: Folds, training: Training, device: Device
) -> None:
    small = replace(training, start_size=12, start_share=0.7, image_size=24)
    trainer = FoldTrainer(folds, 0, small, device)
    config = describe_run(small, competition, folds)
    # Two at the start, then four steps and one batch of held-out rows; within the second epoch.
    with pytest.raises(Stopped):
        train_fold(trainer, FOLDER, config, 0, StopAt(9))
    checkpoint = read_checkpoint(FOLDER / "checkpoint.pt")
    assert checkpoint.epoch == 1
    assert restore_network(checkpoint, competition).image_size == 12
    rows = np.arange(9)
    of_views = predict_views(
        trainer.model, competition.test_images, rows, device, batch_size=8, views=VIEWS
    )
    prob, _ = predict_test(FOLDER, config, competition, device)
    np.testing.assert_array_equal(prob, average_views(of_views))


def test_predictions_are_kept_while_model_and_images_are_unchanged(
    config: dict[str, Any], competition: Competition, device: Device
) -> None:
    del config["expected"]
    path = FOLDER / "test.npz"
    prob, digest = predict_test(FOLDER, config, competition, device)
    before = path.stat().st_mtime_ns
    again, same = predict_test(FOLDER, config, competition, device)
    np.testing.assert_array_equal(again, prob)
    assert (path.stat().st_mtime_ns, same) == (before, digest)

    other_images = competition.test_images[::-1].copy()
    other = replace(competition, test_images=other_images, test_digest="8" * 64)
    np.testing.assert_allclose(
        predict_test(FOLDER, config, other, device)[0], prob[::-1], atol=1e-5
    )

    checkpoint = read_checkpoint(FOLDER / "checkpoint.pt")
    checkpoint.network["backbone.classifier.1.bias"] += 1
    checkpoint.network["backbone.classifier.1.bias"][0] -= 3
    write_checkpoint(FOLDER, checkpoint)
    with pytest.raises(UserError, match=r"oof\.npz does not belong .* its model_digest is \w{12}"):
        predict_test(FOLDER, config, competition, device)
    (FOLDER / "oof.npz").unlink()
    changed, digest_then = predict_test(FOLDER, config, competition, device)
    assert digest_then != digest
    assert not np.allclose(changed, prob)


def test_a_checkpoint_of_another_run_is_refused(
    config: dict[str, Any], competition: Competition, device: Device
) -> None:
    config["expected"] = "other"
    with pytest.raises(UserError, match="does not belong to the run"):
        predict_test(FOLDER, config, competition, device)
