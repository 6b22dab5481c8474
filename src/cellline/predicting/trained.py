"""A trained run in the caller's own program: images in, calibrated probabilities out."""

from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np

from cellline.config import Config, Folders, Machine
from cellline.host.device import choose_device
from cellline.predicting.predict import calibrate, open_models
from cellline.runs.folds import recall_folds
from cellline.runs.run import Run, check_trained, open_run
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.decisions import Correction
from cellline.submitting.blend import blend
from cellline.submitting.inference import Placed, place_network


@dataclass(frozen=True, eq=False, repr=False)
class TrainedRun:
    """A run with its networks on a device; `cellline.load_run` makes it."""

    run: Run
    networks: tuple[Placed, ...]
    """One for each fold."""
    correction: Correction
    """Calibrates the mean of the networks' probabilities."""

    def __repr__(self) -> str:
        return f"<run {self.name}: {self._expected}, {len(self.classes)} classes>"

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return self.run.competition.classes

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels, in the order that images must have."""
        return self.run.competition.channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width that an image must have: those of the training images."""
        channels, height, width = self.run.competition.train_images.shape[1:]
        return channels, height, width

    @cached_property
    def score(self) -> Estimate:
        """Score of the out-of-fold predictions by the competition's metric, with its interval."""
        return self.run.oof.score()

    @property
    def _expected(self) -> str:
        shape = ", ".join(map(str, self.image_shape))
        channels = ", ".join(filter(None, self.channels))
        return f"uint8 [n, {shape}]" + f" (channels {channels})" * bool(channels)

    def predict(self, images: np.ndarray, *, progress: bool = False) -> np.ndarray:
        """Calibrated probabilities float32 [n, class] of images uint8 [n, channel, height, width].

        They are those of `make predict`. `progress` shows a bar for each fold's network. Raises
        ValueError for images of another shape or type.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != self.image_shape:
            there = f"{images.dtype} [{', '.join(map(str, images.shape))}]"
            raise ValueError(f"images are {there}, but must be {self._expected}")
        if not len(images):
            return np.empty((0, len(self.classes)), np.float32)
        probs = [
            network.predict(images, f"{self.name}, fold {fold}", shown=progress)
            for fold, network in zip(self.run.finished, self.networks, strict=True)
        ]
        return self.correction.apply(blend(probs)).prob


def open_trained(folder: str | PathLike[str], machine: Machine) -> TrainedRun:
    """Open a run in its folder, with all its networks; see `cellline.load_run`."""
    place = Path(folder).resolve()
    config = Config(Folders(oof_dir=place.parent), machine=machine, run=place.name)
    run = open_run(config, recall_folds(place.parent))
    check_trained([run])
    device = choose_device(machine)
    shape = run.competition.train_images.shape[1:]
    return TrainedRun(
        run,
        tuple(place_network(checkpoint, shape, device) for checkpoint, _ in open_models(run)),
        calibrate(run.oof.prob, run.oof.labels, run.metric),
    )
