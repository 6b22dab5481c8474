"""Images unlike those that a network was trained on, such as those of a class that it never saw.

An image is as near as its features are to the 10th most similar of the samples that the network's
fold held out, by the cosine of their angle (Sun et al. 2022, "Out-of-distribution detection with
deep nearest neighbors", arXiv:2204.06507). Features are what the network's last layer gets, from
one view. Held-out samples are measured against those of other groups. An image's p-value is the
share of groups that are no nearer, the mean over the networks.
"""

import numpy as np
from torch import Tensor
from torch.nn import functional

from cellline.data.cache import Images
from cellline.host.device import Device
from cellline.host.locking import one_writer
from cellline.host.progress import progress_bar
from cellline.model.network import remove_head
from cellline.model.views import PLAIN, Predictor
from cellline.predicting.sets import rank
from cellline.runs.predictions import read_features, write_features
from cellline.runs.run import Run, read_training
from cellline.submitting.inference import restore_network
from cellline.training.checkpoint import Checkpoint
from cellline.training.memory import explain_full_memory

NEIGHBOURS = 10
# Rows of similarities at once: 128 MB with a million held-out samples.
BLOCK = 32


def rank_images(run: Run, checkpoint: Checkpoint, images: Images, device: Device) -> np.ndarray:
    """P-values, float64 [n], of new images [n] by the network of a fold.

    The features of its held-out samples are kept in the fold's folder.
    """
    fold, competition = checkpoint.fold, run.competition
    rows = run.folds.held_out_rows(fold)
    made_from = {
        "model_digest": checkpoint.model_digest(),
        "input_digest": competition.digest,
        "precision": device.precision,
    }
    path = run.fold_folder(fold) / "features.npz"
    held = read_features(path, made_from)
    if held is None:
        title = f"{run.name}, fold {fold}, held-out samples"
        with one_writer(path.parent, "keeping features"):
            held = measure_features(checkpoint, competition.train_images, rows, device, title)
            write_features(path, held, {**run.provenance(fold), **made_from})
    title = f"{run.name}, fold {fold}, features"
    new = measure_features(checkpoint, images, np.arange(len(images)), device, title)
    return rank_features(new, held, run.folds.group[rows])


def measure_features(
    checkpoint: Checkpoint, images: Images, rows: np.ndarray, device: Device, title: str
) -> np.ndarray:
    """Features of length 1, float32 [len(rows), d], of rows of images."""
    network = restore_network(checkpoint, images.shape[1:])
    training = read_training(checkpoint.config)
    remove_head(network, training.network)
    predictor = Predictor(device.place(network), device, training.batch_size or 1, normalize)
    with explain_full_memory(), progress_bar(title, len(rows), "sample") as advance:
        features: np.ndarray = predictor.predict(images, rows, PLAIN, advance)[0]
    return features


def normalize(features: Tensor) -> Tensor:
    """Features [n, d] scaled to length 1."""
    return functional.normalize(features, dim=1)


def rank_features(new: np.ndarray, held: np.ndarray, group: np.ndarray) -> np.ndarray:
    """P-values, float64 [m], of features [m, d] by held-out ones [n, d] of groups [n]."""
    near = measure_nearness(held, held, group)
    return rank(near, group, measure_nearness(new, held))


def measure_nearness(
    features: np.ndarray, held: np.ndarray, group: np.ndarray | None = None
) -> np.ndarray:
    """Cosine, float32 [m], of features [m, d] with the 10th most similar held-out ones [n, d].

    Given the groups [n] of both, those of a sample's own are left out.
    """
    count = min(NEIGHBOURS, len(held))
    nearness = np.empty(len(features), np.float32)
    for start in range(0, len(features), BLOCK):
        cosines = features[start : start + BLOCK] @ held.T
        if group is not None:
            cosines[group[start : start + BLOCK, None] == group] = -1
        nearness[start : start + BLOCK] = np.partition(cosines, -count)[:, -count]
    return nearness
