import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from cellline.config import Augmentation, Training
from cellline.training.augmentation import Augmenter

STILL = Training(augmentation=Augmentation(rotate=0, scale=0, translate=0, gain=0, offset=0))
VARIED = Training(seed=1, augmentation=Augmentation(rotate=15, scale=0.07))


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16), dtype=np.uint8)


def test_a_pure_function_of_seed_epoch_and_sample(image: np.ndarray) -> None:
    first = Augmenter(VARIED)
    expected = first(image, 2, 30)
    for epoch, sample in ((0, 30), (2, 31), (5, 5)):
        assert not np.array_equal(first(image, epoch, sample), expected)
    np.testing.assert_array_equal(first(image, 2, 30), expected)
    np.testing.assert_array_equal(Augmenter(VARIED)(image, 2, 30), expected)
    assert not np.array_equal(Augmenter(replace(VARIED, seed=2))(image, 2, 30), expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_gain_is_drawn_for_each_channel(channels: int) -> None:
    flat = np.full((channels, 16, 16), 100, np.uint8)
    settings = Training(augmentation=replace(STILL.augmentation, gain=0.2))
    gains = np.array([Augmenter(settings)(flat, 0, sample)[:, 8, 8] for sample in range(50)])
    assert gains.shape == (50, channels)
    assert 80 <= gains.min() < 85 < 115 < gains.max() <= 120
    if channels > 1:
        assert np.mean(gains[:, 0] == gains[:, 1]) < 0.2


def test_offset_moves_all_values_of_a_channel() -> None:
    flat = np.full((2, 16, 16), 100, np.uint8)
    settings = Training(augmentation=replace(STILL.augmentation, offset=0.02))
    moved = np.array([Augmenter(settings)(flat, 0, sample) for sample in range(50)])
    assert np.all(moved == moved[:, :, :1, :1])
    assert np.mean(moved[:, 0] == moved[:, 1]) < 0.3
    assert 95 <= moved.min() < 97 < 103 < moved.max() <= 105


def test_no_network_is_asked_for(image: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import socket, numpy\n"
        "def refuse(*_): raise SystemExit('asked the network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from cellline.config import Training\n"
        "from cellline.training.augmentation import Augmenter\n"
        "Augmenter(Training())(numpy.zeros((3, 16, 16), numpy.uint8), 0, 0)\n"
    )
    monkeypatch.delenv("NO_ALBUMENTATIONS_UPDATE", raising=False)
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}, check=True)
