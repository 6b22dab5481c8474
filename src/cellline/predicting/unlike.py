"""Images unlike those that a network was trained on, such as those of a class that it never saw.

An image's distance is that of its features, which the network's last layer gets, to the nearest
class of the samples that the network's fold held out, less that to all of them together: the
relative Mahalanobis distance (Ren et al. 2021, arXiv:2106.09022), in the features' first 32
principal components. The distance of held-out samples is to those of other groups. A p-value is the
share of groups that are as far away; that of an image is the mean over the networks, as in cross-
conformal prediction (Vovk 2015, arXiv:1208.0806).
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cellline.data.cache import Images
from cellline.host.device import Device
from cellline.host.locking import one_writer
from cellline.host.progress import progress_bar
from cellline.model.network import watch_head
from cellline.model.views import PROBABILITIES
from cellline.predicting.sets import rank
from cellline.runs.predictions import read_features, write_features
from cellline.runs.run import Run
from cellline.submitting.inference import place_network
from cellline.training.checkpoint import Checkpoint
from cellline.training.memory import explain_full_memory

# Largest p-value of an image that is marked. A mean of p-values is seldom low: of samples of known
# classes, 5 % have one of 0.1 or less (docs/predicting.md).
UNLIKE = 0.1
# Samples at once, whose features of every view are in memory: 40 MB of DenseNet-161's.
BLOCK = 512
COMPONENTS = 32
# Parts of the held-out samples, each measured against the others.
PARTS = 5
# Share of the mean variance that is added to each: it keeps distances finite in few samples.
RIDGE = 0.02


def rank_new(run: Run, checkpoint: Checkpoint, features: np.ndarray, device: Device) -> np.ndarray:
    """P-values, float64 [n], of new images by their features [n, d] in the network of a fold.

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
            _, held = observe(checkpoint, competition.train_images, rows, device, title)
            write_features(path, held, {**run.provenance(fold), **made_from})
    return rank_features(features, held, competition.labels[rows], run.folds.group[rows])


def observe(
    checkpoint: Checkpoint, images: Images, rows: np.ndarray, device: Device, title: str
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, class] and features [n, d], float32, of rows [n] of images.

    Both are means over the views.
    """
    placed = place_network(checkpoint, images.shape[1:], device)
    name, n_classes = checkpoint.config["settings"]["network"], len(checkpoint.config["classes"])
    parts = []
    with (
        watch_head(placed.predictor.network, name) as features,
        explain_full_memory(),
        progress_bar(title, len(rows), "sample") as advance,
    ):

        def join(logits: Tensor) -> Tensor:
            return torch.cat([PROBABILITIES(logits), features[0].float()], dim=1)

        predictor = replace(placed.predictor, outputs=join)
        for start in range(0, len(rows), BLOCK):
            of_views = predictor.predict(images, rows[start : start + BLOCK], placed.views, advance)
            parts.append(of_views.mean(axis=0))
    both = np.concatenate(parts)
    return both[:, :n_classes], both[:, n_classes:]


def rank_features(
    new: np.ndarray, held: np.ndarray, labels: np.ndarray, group: np.ndarray
) -> np.ndarray:
    """P-values, float64 [m], of features [m, d] by held-out ones [n, d] with labels and groups."""
    _, number = np.unique(group, return_inverse=True)
    part = number % PARTS
    distance = np.empty(len(held))
    for own in (part == one for one in np.unique(part)):
        others = ~own if not own.all() else own
        distance[own] = Clusters.fit(held[others], labels[others]).measure(held[own])
    return rank(-distance, group, -Clusters.fit(held, labels).measure(new))


@dataclass(frozen=True, eq=False)
class Clusters:
    """Features of known classes, as normal distributions of one covariance."""

    centre: np.ndarray
    """float32 [d]: mean of all"""
    axes: np.ndarray
    """float32 [d, k]: principal components"""
    means: np.ndarray
    """[class, k]"""
    within: np.ndarray
    """[k, k]: inverse covariance within classes"""
    whole: np.ndarray
    """[k, k]: inverse covariance of all"""

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "Clusters":
        """Fit to features [n, d] with labels [n]."""
        centre = features.mean(axis=0)
        _, axes = np.linalg.eigh(np.cov(features - centre, rowvar=False, bias=True))
        axes = axes[:, -COMPONENTS:]
        z = (features - centre) @ axes
        classes, index = np.unique(labels, return_inverse=True)
        means = np.stack([z[index == label].mean(axis=0) for label in range(len(classes))])
        return cls(centre, axes, means, invert(z - means[index]), invert(z))

    def measure(self, features: np.ndarray) -> np.ndarray:
        """Relative distance, [m], of features [m, d] to the nearest class."""
        z = (features - self.centre) @ self.axes
        near = np.min([form(z - mean, self.within) for mean in self.means], axis=0)
        distance: np.ndarray = near - form(z, self.whole)
        return distance


def invert(z: np.ndarray) -> np.ndarray:
    """Inverse covariance [k, k] of centred values [n, k]."""
    covariance = z.T @ z / len(z)
    n = len(covariance)
    ridge = RIDGE * np.trace(covariance) / n + np.finfo(np.float32).tiny
    inverse: np.ndarray = np.linalg.inv(covariance + ridge * np.eye(n))
    return inverse


def form(z: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Quadratic forms [m] of vectors [m, k]."""
    forms: np.ndarray = np.einsum("mi,ij,mj->m", z, matrix, z, optimize=True)
    return forms
