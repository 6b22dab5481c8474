from dataclasses import replace
from pathlib import Path

import pytest
from small_run import CONFIG, train_small


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three folds, and its test images unpacked in `images_test`.

    The run sees images as they are alone: a turned one is predicted differently.
    """
    folder = tmp_path_factory.mktemp("trained")
    train_small(
        folder, drawn, 3, replace(CONFIG, training=replace(CONFIG.training, symmetry="none"))
    )
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the current folder."""
    monkeypatch.chdir(trained)
    return trained
