"""Small runs on the drawn competition."""

import shutil
from pathlib import Path

import pytest

from cellline.audit.dealing import Plan, make_folds
from cellline.config import Config, Folders, Machine, Training
from cellline.training.run import train_run

CONFIG = Config(
    Folders(Path("input")),
    Training(network="densenet_tiny", weights="none", epochs=1, batch_size=16),
    Machine(device="cpu", precision="float32"),
    run="tiny",
)


def train_small(folder: Path, drawn: Path, n_folds: int, *configs: Config) -> None:
    """Train these runs in a folder, with its input, and unpack the test images beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "input").symlink_to(drawn)
        make_folds(CONFIG.folders, Plan(n_folds=n_folds))
        for config in configs:
            train_run(config)
        shutil.unpack_archive(drawn / "images_test.tar", folder)
