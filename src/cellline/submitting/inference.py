"""Test-set predictions of a run, kept while model, test images and precision are unchanged."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cellline.data.cache import Images
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.locking import one_writer
from cellline.host.progress import progress_bar, say
from cellline.host.versions import code_version
from cellline.model.network import Classifier, build_network
from cellline.model.normalization import no_normalization
from cellline.model.views import Predictor, choose_views
from cellline.runs.predictions import check_belongs, read_provenance, read_test, write_test
from cellline.runs.run import Run, last_score, read_training
from cellline.submitting.blend import blend
from cellline.training.checkpoint import NEWEST, Checkpoint, put_previous_back, read_checkpoint
from cellline.training.memory import explain_full_memory


def predict_run(run: Run, device: Device) -> tuple[np.ndarray, dict[str, Any]]:
    """A run's test probabilities [test sample, class] and what made them, for the record.

    The mean over its finished folds; if none is finished, over those that were begun. Raises
    UserError if none has trained for a step.
    """
    probs, models = [], {}
    for fold in run.finished or run.begun:
        predicted = predict_fold(run, fold, device)
        if predicted is not None:
            prob, models[str(fold)] = predicted
            probs.append(prob)
    if not probs:
        raise UserError(f"{run.folder} has not trained for a single step: train it further")
    return blend(probs), describe_models(run, models)


def describe_models(run: Run, models: dict[str, str]) -> dict[str, Any]:
    """A run and the digests of its folds' models, for a record of what they predicted."""
    return {"run": run.name, "settings": run.settings, "models": models}


def predict_fold(run: Run, fold: int, device: Device) -> tuple[np.ndarray, str] | None:
    """A fold's test probabilities [test sample, class], and its model's digest.

    None if it has not trained for a step. Otherwise they are written to test.npz, and read from
    there while nothing they depend on has changed. Raises UserError for a checkpoint of another run
    or fold, or other than the one whose predictions are in oof.npz.
    """
    folder = run.fold_folder(fold)
    with one_writer(folder, "predicting the test set"):
        put_previous_back(folder)
        opened = open_model(run, fold)
        if opened is None:
            return None
        checkpoint, model_digest = opened
        made_from = {
            "model_digest": model_digest,
            "test_digest": run.competition.test_digest,
            "precision": device.precision,
        }
        kept = read_test(folder / "test.npz", made_from, run.competition)
        if kept is not None:
            return kept, model_digest
        title = f"{run.name}, fold {fold}, test set"
        prob = predict_images(checkpoint, run.competition.test_images, device, title)
        provenance = {**run.provenance(fold), **made_from, "code": code_version()}
        write_test(folder / "test.npz", run.competition.test_ids, prob, provenance)
        return prob, model_digest


def open_model(run: Run, fold: int) -> tuple[Checkpoint, str] | None:
    """A fold's checkpoint and its model's digest; None if it has not trained for a step.

    Nothing is written. Raises UserError as `predict_fold` does.
    """
    newest = run.fold_folder(fold) / NEWEST
    checkpoint = read_checkpoint(newest)
    there = {**checkpoint.config, "fold": checkpoint.fold}
    check_belongs(newest, there, run.provenance(fold))
    if checkpoint.resume is not None and not checkpoint.resume["n_averaged"]:
        return None
    model_digest = checkpoint.model_digest()
    if fold in run.finished:
        path = run.oof_path(fold)
        check_belongs(path, read_provenance(path), {"model_digest": model_digest})
    elif checkpoint.history:
        score = last_score(checkpoint.history, run.metric)
        say(f"{run.name}, fold {fold} was stopped early: {score}")
    return checkpoint, model_digest


def predict_images(
    checkpoint: Checkpoint, images: Images, device: Device, title: str
) -> np.ndarray:
    """Probabilities float32 [n, class] of images [n], averaged over the views."""
    return place_network(checkpoint, images.shape[1:], device).predict(images, title)


@dataclass(frozen=True)
class Placed:
    """A checkpoint's network on a device, and the views that it predicts."""

    predictor: Predictor
    views: tuple[int, ...]

    def predict(self, images: Images, title: str, *, shown: bool = True) -> np.ndarray:
        """Probabilities float32 [n, class] of images [n], averaged over the views."""
        bar = progress_bar(title, len(images), "sample", shown=shown)
        with explain_full_memory(), bar as advance:
            rows = np.arange(len(images))
            of_views = self.predictor.predict(images, rows, self.views, advance)
        mean: np.ndarray = of_views.mean(axis=0)
        return mean


def place_network(checkpoint: Checkpoint, shape: tuple[int, int, int], device: Device) -> Placed:
    """The network of a checkpoint on a device, for images of `shape` [channel, height, width]."""
    training = read_training(checkpoint.config)
    with explain_full_memory():
        network = device.place(restore_network(checkpoint, shape))
    predictor = Predictor(network, device, training.batch_size or 1)
    return Placed(predictor, choose_views(shape, training.symmetry))


def restore_network(checkpoint: Checkpoint, shape: tuple[int, int, int]) -> Classifier:
    """The network of a checkpoint, on the CPU, with the normalization of its fold.

    It takes images of `shape` [channel, height, width], at the size of the last epoch that ended.
    """
    config = checkpoint.config
    training = read_training(config)
    # The first weights are random, and the caller's random numbers are to stay as they were.
    with torch.random.fork_rng(devices=[]):
        network = build_network(training, len(config["classes"]), shape, no_normalization(shape[0]))
    network.load_state_dict(checkpoint.network)
    network.image_size = training.size_of(max(checkpoint.epoch - 1, 0))
    return network
