import shutil
from pathlib import Path

import pytest
from small_run import CONFIG

from cellline.audit.dealing import Plan, make_folds
from cellline.training.run import train_run


@pytest.fixture(scope="session")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three folds, and its test images unpacked in `images_test`."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "input").symlink_to(drawn)
        make_folds(CONFIG.folders, Plan(n_folds=3))
        train_run(CONFIG)
        shutil.unpack_archive(drawn / "images_test.tar", folder)
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the current folder."""
    monkeypatch.chdir(trained)
    return trained
