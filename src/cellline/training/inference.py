"""A fold's predictions of the test set, kept while what they were made from is unchanged."""

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cellline.config import Augmentation, Training
from cellline.data.competition import Competition
from cellline.data.normalization import Normalization
from cellline.device import Device
from cellline.errors import UserError
from cellline.files import digest_text, write_arrays
from cellline.model.network import Classifier, build_network
from cellline.prediction.tta import all_views, average_views, predict_views
from cellline.training.checkpoint import Checkpoint, read_checkpoint


def predict_test(
    folder: Path, config: dict[str, Any], competition: Competition, device: Device
) -> tuple[np.ndarray, str]:
    """Probabilities [test sample, class] by the fold in `folder`, and its model's digest.

    Written to test.npz there, and read from it while model, test images and precision are what
    they were. Raises UserError for a checkpoint that isn't of the run `config` describes.
    """
    path = folder / "test.npz"
    checkpoint = read_checkpoint(folder / "checkpoint.pt")
    if checkpoint.config != config:
        raise UserError(f"{folder / 'checkpoint.pt'} does not belong to the run in {folder.parent}")
    model_digest = checkpoint.digest()
    made_from = digest_text(model_digest, competition.test_digest, device.precision)
    if path.exists():
        with np.load(path, allow_pickle=False) as file:
            if file["made_from"] == made_from:
                return file["prob"], model_digest
    network = restore_network(checkpoint, competition)
    device.place(network)
    rows = np.arange(len(competition.test_ids))
    title = f"{folder.parent.name}, fold {checkpoint.fold}, test set"
    with tqdm(total=len(rows), desc=title, unit="sample", disable=None, leave=False) as bar:
        of_views = predict_views(
            network,
            competition.test_images,
            rows,
            device,
            batch_size=training_of(config).batch_size or 1,
            views=all_views(competition.test_images),
            progress=bar,
        )
    prob = average_views(of_views)
    write_arrays(path, file_id=competition.test_ids, prob=prob, made_from=np.array(made_from))
    return prob, model_digest


def restore_network(checkpoint: Checkpoint, competition: Competition) -> Classifier:
    """The network of a checkpoint, on the CPU, with the normalization of its fold."""
    config = checkpoint.config
    shape = competition.test_images.shape[1:]
    unknown = Normalization((0.0,) * shape[0], (1.0,) * shape[0])
    # Its weights are in the checkpoint: ImageNet's need not be at hand.
    training = training_of({"settings": {**config["settings"], "weights": "none"}})
    network = build_network(training, len(config["classes"]), shape, unknown)
    network.load_state_dict(checkpoint.network)
    return network


def training_of(config: dict[str, Any]) -> Training:
    """The settings that a run's config.json records."""
    settings = dict(config["settings"])
    return Training(**{**settings, "augmentation": Augmentation(**settings["augmentation"])})
