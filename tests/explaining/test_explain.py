"""The verb on a trained run: what it keeps, reruns after an interruption, and its pictures."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import train_small

from cellline.config import Config, Folders, Machine, Training
from cellline.errors import UserError
from cellline.explaining import explain as room
from cellline.explaining.explain import explain
from cellline.host.stopping import Stopped
from cellline.report.samples import list_shown
from cellline.runs.explained import read_attributed
from cellline.runs.folds import open_folds
from cellline.runs.run import open_run

CONFIG = Config(
    Folders(Path("input")),
    Training(network="densenet_tiny", weights="none", epochs=1, batch_size=16, symmetry="none"),
    Machine(device="cpu", precision="float32"),
    run="tiny",
)
RUN = Path("oof/tiny")


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of three folds."""
    folder = tmp_path_factory.mktemp("trained")
    train_small(folder, drawn, 3, CONFIG)
    return folder


@pytest.fixture(autouse=True)
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of it as the current folder."""
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")


def kept() -> dict[str, bytes]:
    """The files that explain the run."""
    return {str(path): path.read_bytes() for path in RUN.glob("fold*/*ed.npz")}


def test_an_interrupted_command_is_resumed_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def interrupted(*arguments: object) -> np.ndarray:
        calls.append(arguments)
        if len(calls) == 5:  # the second channel of the second fold
            raise Stopped(2)
        return whole(*arguments)

    whole = room.predict_permuted
    monkeypatch.setattr(room, "predict_permuted", interrupted)
    with pytest.raises(Stopped):
        explain(CONFIG, (), Path("explanations"))
    before = kept()
    assert {Path(name).parent.name for name in before} == {"fold0"}
    assert explain(CONFIG, (), Path("explanations")) == []
    # The first fold's were kept: the other two have three channels each.
    assert len(calls) == 5 + 6
    resumed = kept()
    assert len(resumed) == 6
    assert before.items() <= resumed.items()
    printed = capsys.readouterr().out
    explain(CONFIG, (), Path("explanations"))
    assert len(calls) == 5 + 6
    assert capsys.readouterr().out == printed
    assert "BAC " in printed and "blue " in printed

    for name in resumed:
        Path(name).unlink()
    explain(CONFIG, (), Path("explanations"))
    assert kept() == resumed


def test_ids_get_pictures_and_changed_ones_are_kept() -> None:
    run = open_run(CONFIG, open_folds(CONFIG.folders))
    [asked] = np.setdiff1d(np.arange(90), list_shown(run))[:1].tolist()
    sample = f"{run.competition.train_ids[asked]:05d}"
    [path] = explain(CONFIG, (sample,), Path("explanations"))
    assert path.name.startswith(f"tiny+{int(sample)}-")
    with Image.open(path) as image:
        assert image.width > 3 * image.height / 1.5
    assert set(read_attributed(run, run.finished)) == {asked, *list_shown(run).tolist()}
    assert explain(CONFIG, (sample,), Path("explanations")) == [path]
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="has changed since it was written"):
        explain(CONFIG, (sample,), Path("explanations"))
    assert path.read_bytes() == b"mine"


def test_what_can_not_be_explained_is_said() -> None:
    with pytest.raises(UserError, match="no training samples: 91, x"):
        explain(CONFIG, ("91", "1", "x"), Path("explanations"))
    run = open_run(CONFIG, open_folds(CONFIG.folders))
    run.oof_path(2).unlink()
    sample = str(run.competition.train_ids[run.folds.held_out_rows(2)[0]])
    with pytest.raises(UserError, match=r"train these folds first:\n  make train .*FOLD=2"):
        explain(CONFIG, (sample,), Path("explanations"))
    assert not kept()
