"""A competition small enough to train on in a second."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from postgres import Server, postgresql_server

from cellline.config import Augmentation, Machine, Reading, Training
from cellline.data.competition import Competition
from cellline.demo.drawing import Drawing, draw_competition
from cellline.host.device import Device, choose_device
from cellline.runs.folds import NO_PAIRS, Folds

# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

CLASSES = ("A549", "HeLa", "RT4")


# Here and in all processes that tests start. Their small networks need no second thread; on a busy
# machine one thread is several times as fast.
# Printed commands would name them.
for name in ("VENV", "PYTHON"):
    os.environ.pop(name, None)
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session", autouse=True)
def hang_ups_are_heard() -> Iterator[None]:
    """Under nohup they are ignored, and would be by all processes that tests start."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, previous)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a test does by default paths lands in the repository."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A server of the tests' own."""
    with postgresql_server() as server:
        yield server


@pytest.fixture
def competition() -> Competition:
    """Three classes, told apart by their brightness; 48 training and 9 test samples of 16 px."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [24, 15, 9])
    test_labels = np.repeat([0, 1, 2], 3)

    def draw(kinds: np.ndarray) -> np.ndarray:
        noise = generator.integers(0, 60, (len(kinds), 3, 16, 16))
        return (noise + 60 * kinds[:, None, None, None]).astype(np.uint8)

    return Competition(
        reading=Reading(id_column="file_id", label_column="cell_line"),
        metric="balanced_accuracy",
        output="label",
        template_columns=("file_id", "cell_line"),
        classes=CLASSES,
        channels=("blue", "red", "yellow"),
        train_ids=np.arange(1, 49) * 3,
        labels=labels,
        test_ids=np.arange(200, 209),
        template=tuple(f"{number:05d}" for number in range(208, 199, -1)),
        train_images=draw(labels),
        test_images=draw(test_labels),
        digest="1" * 64,
        test_digest="2" * 64,
        warnings=(),
    )


@pytest.fixture
def folds(competition: Competition) -> Folds:
    """Three folds, every sample its own group."""
    n = len(competition.train_ids)
    return Folds(np.arange(n) % 3, competition.train_ids, NO_PAIRS, competition, 3, "3" * 64)


@pytest.fixture
def training() -> Training:
    """A training of a second."""
    return Training(
        network="densenet_tiny",
        weights="none",
        epochs=3,
        lr=3e-3,
        batch_size=8,
        dropout=0.2,
        cutmix=0.5,
    )


@pytest.fixture
def device() -> Device:
    """The CPU, exactly."""
    return choose_device(Machine(device="cpu", precision="float32", workers=0))


@pytest.fixture
def plain_training(training: Training) -> Training:
    """Without anything random but the shuffling."""
    still = Augmentation(rotate=0, scale=0, translate=0, gain=0, offset=0)
    return replace(training, dropout=0.0, cutmix=0.0, augmentation=still)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The input folder of a drawn competition: 90 + 18 samples of 16 px, with copies."""
    folder = tmp_path_factory.mktemp("drawn") / "input"
    draw_competition(folder, Drawing(90, 18, size=16))
    return folder
