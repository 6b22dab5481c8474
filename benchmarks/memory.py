"""The most memory that a process of each kind takes."""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.case import Case
from benchmarks.measuring import Figure, peak_memory
from benchmarks.training import OurEpochs, our_network, reference_loop
from cellline.host.device import keep_freed_memory
from cellline.model.views import Predictor, choose_views


def settle_in(case: Case) -> None:
    """Let this process keep memory as that of a verb does."""
    if case.device.device.type == "cpu":
        keep_freed_memory()


def start(case: Case) -> None:
    """Nothing but what was imported for it."""


def train_reference(case: Case) -> None:
    """An epoch of the reference loop."""
    reference_loop(case).train_epoch()


def train_ours(case: Case) -> None:
    """An epoch of ours, with checkpoints before and after it."""
    settle_in(case)
    with tempfile.TemporaryDirectory() as folder:
        OurEpochs(case, Path(folder))()


def predict(case: Case) -> None:
    """The views of one batch."""
    settle_in(case)
    folds = case.draw()
    competition = folds.competition
    images = competition.train_images[: case.batch_size]
    network = case.device.place(our_network(case, competition, folds))
    predictor = Predictor(network, case.device, case.batch_size)
    views = choose_views(images.shape, case.training.symmetry)
    predictor.predict(images, np.arange(len(images)), views)


NOTE = "the most that a fresh process had, of the host, libraries and mapped files included"
CANDIDATES = {
    "memory of the imports alone": start,
    "memory of the reference loop": train_reference,
    "memory of ours": train_ours,
    "memory of predicting": predict,
}


def measure(case: Case, after_round: Callable[[], object]) -> list[Figure]:
    """The rows on memory: a fresh process each, once. None but on Linux, which tells the peak."""
    if sys.platform != "linux":
        return []
    figures = []
    for name, function in CANDIDATES.items():
        figures.append(Figure(name, "MB", (peak_memory(function, case) / 1e6,), NOTE))
        after_round()
    return figures
