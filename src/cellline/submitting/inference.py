"""A fold's predictions of the test set, kept while what they were made from is unchanged."""

from pathlib import Path
from typing import Any

import numpy as np

from cellline.config import Augmentation, Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.locking import one_writer
from cellline.host.progress import progress_bar
from cellline.host.versions import code_version
from cellline.model.network import Classifier, build_network
from cellline.model.normalization import Normalization
from cellline.model.views import all_views, average_views, predict_views
from cellline.runs.run_folder import (
    check_belongs,
    check_scored,
    read_test_predictions,
    write_test_predictions,
)
from cellline.training.checkpoint import NEWEST, Checkpoint, put_previous_back, read_checkpoint
from cellline.training.loop import image_size
from cellline.training.memory import explain_full_memory


class UntrainedError(UserError):
    """A fold has a checkpoint of before its first step."""


def predict_test(
    folder: Path, config: dict[str, Any], competition: Competition, device: Device
) -> tuple[np.ndarray, str]:
    """Probabilities [test sample, class] by the fold in `folder`, and its model's digest.

    Written to test.npz there, and read from it while model, test images and precision are what
    they were. Raises UserError for a checkpoint that isn't of the run `config` describes, isn't the
    one whose predictions are in oof.npz; UntrainedError when it was not trained for a step.
    """
    path = folder / "test.npz"
    with one_writer(folder, "predicting the test set"):
        put_previous_back(folder)
        checkpoint = read_checkpoint(folder / NEWEST)
        check_belongs(folder / NEWEST, checkpoint.config, config)
        if checkpoint.resume is not None and not checkpoint.resume["n_averaged"]:
            raise UntrainedError(f"{folder} was begun, but not trained for a single step: train on")
        model_digest = checkpoint.model_digest()
        if (folder / "oof.npz").exists():
            check_scored(folder / "oof.npz", {"model_digest": model_digest})
        made_from = {
            "model_digest": model_digest,
            "test_digest": competition.test_digest,
            "precision": device.precision,
        }
        kept = read_test_predictions(path, made_from)
        if kept is not None:
            return kept, model_digest
        network = restore_network(checkpoint, competition)
        device.place(network)
        rows = np.arange(len(competition.test_ids))
        title = f"{folder.parent.name}, fold {checkpoint.fold}, test set"
        with (
            explain_full_memory(),
            progress_bar(title, len(rows), "sample") as advance,
        ):
            of_views = predict_views(
                network,
                competition.test_images,
                rows,
                device,
                batch_size=training_of(config).batch_size or 1,
                views=all_views(competition.test_images),
                after_batch=advance,
            )
        prob = average_views(of_views)
        provenance = {**config, "fold": checkpoint.fold, **made_from, "code": code_version()}
        write_test_predictions(path, competition.test_ids, prob, provenance)
        return prob, model_digest


def restore_network(checkpoint: Checkpoint, competition: Competition) -> Classifier:
    """The network of a checkpoint, on the CPU, with the normalization of its fold.

    It takes images at the size of the last epoch that was finished.
    """
    config = checkpoint.config
    shape = competition.test_images.shape[1:]
    unknown = Normalization((0.0,) * shape[0], (1.0,) * shape[0])
    # Its weights are in the checkpoint: ImageNet's need not be at hand.
    training = training_of({"settings": {**config["settings"], "weights": "none"}})
    network = build_network(training, len(config["classes"]), shape, unknown)
    network.load_state_dict(checkpoint.network)
    network.image_size = image_size(max(checkpoint.epoch - 1, 0), training)
    return network


def training_of(config: dict[str, Any]) -> Training:
    """The settings that a run's config.json records."""
    settings = dict(config["settings"])
    return Training(**{**settings, "augmentation": Augmentation(**settings["augmentation"])})
