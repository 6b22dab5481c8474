"""The library: a run in the caller's own program, without the input that it was trained on."""

import csv
import doctest
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import CONFIG

from cellline import load_run
from cellline.errors import UserError
from cellline.host.files import read_json, write_json
from cellline.predicting.predict import NewImages, predict
from cellline.predicting.trained import TrainedRun
from cellline.runs.folds import open_folds
from cellline.runs.run import open_run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "library.md"


def load(folder: Path) -> TrainedRun:
    return load_run(folder, device="cpu", precision="float32")


@pytest.fixture
def oof(trained: Path, tmp_path: Path) -> Path:
    """The OOF folder by itself: nothing that it was made from is beside it."""
    return shutil.copytree(trained / "oof", tmp_path / "oof", ignore=lambda *_: [".lock"])


def stack_images(folder: Path, channels: tuple[str, ...]) -> np.ndarray:
    """The images of a folder in ascending order of ids."""
    first = sorted(folder.glob(f"*_{channels[0]}.png"))
    paths = [[one.with_name(f"{one.name[:5]}_{name}.png") for name in channels] for one in first]
    return np.stack([np.stack([Image.open(path) for path in sample]) for sample in paths])


def read_all(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Each file's time and content."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_probabilities_are_those_of_make_predict(
    here: Path, oof: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = predict(CONFIG, ["tiny"], NewImages(here / "images_test"), tmp_path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    score = open_run(CONFIG, open_folds(CONFIG.folders)).oof.score()
    capfd.readouterr()
    before, generator = read_all(oof), torch.get_rng_state()
    run = load(oof / "tiny")
    prob = run.predict(stack_images(here / "images_test", run.channels))
    assert capfd.readouterr() == ("", "")
    assert read_all(oof) == before
    assert torch.equal(torch.get_rng_state(), generator)
    named = [name for name in rows[0] if name.startswith("p(")]
    assert named == [f"p({name})" for name in run.classes]
    table = [[float(row[f"p({name})"]) for name in run.classes] for row in rows]
    np.testing.assert_allclose(prob, table, rtol=0, atol=1e-6)
    assert prob.dtype == np.float32
    assert (run.name, run.image_shape, run.score) == ("tiny", (3, 16, 16), score)


def test_a_batch_may_have_any_size(oof: Path, here: Path) -> None:
    run = load(oof / "tiny")
    images = stack_images(here / "images_test", run.channels)
    whole = run.predict(images)
    parts = [run.predict(images[part]) for part in (slice(0), slice(1), slice(1, None))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((2, 3, 16, 16)), r"images are float64 \[2, 3, 16, 16\], but must be uint8 \[n,"),
        (np.zeros((2, 3, 8, 16), np.uint8), r"\[2, 3, 8, 16\], but must be uint8 \[n, 3, 16, 16\]"),
        (np.zeros((2, 1, 16, 16), np.uint8), r"16\] \(channels blue, red, yellow\)"),
        (np.zeros((3, 16, 16), np.uint8), r"uint8 \[3, 16, 16\]"),
        ([[1]], r"int64 \[1, 1\]"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(oof: Path, images: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load(oof / "tiny").predict(images)


def test_what_can_not_be_loaded_is_explained(oof: Path) -> None:
    with pytest.raises(UserError, match=r"no run in .*/oof/other: train it first"):
        load(oof / "other")
    with pytest.raises(UserError, match=r"no folds in .*: run `folds` first"):
        load(oof)
    record = read_json(oof / "folds.json")
    old = {name: value for name, value in record.items() if name != "image_shape"}
    write_json(oof / "folds.json", old)
    with pytest.raises(UserError, match="by an earlier version"):
        load(oof / "tiny")
    write_json(oof / "folds.json", record)
    folds = (oof / "folds.csv").read_text()
    (oof / "folds.csv").write_text(folds.replace("HeLa", "RT4"))
    with pytest.raises(UserError, match="are not as they were dealt"):
        load(oof / "tiny")
    (oof / "folds.csv").write_text(folds)
    (oof / "tiny/fold1/oof.npz").unlink()
    with pytest.raises(UserError, match=r"not trained:\n  make train .*RUN=tiny FOLD=1"):
        load(oof / "tiny")


def test_importing_it_imports_nothing_slow() -> None:
    code = "import cellline, sys; print({'numpy', 'torch', 'tyro'} & set(sys.modules))"
    sources = PAGE.parents[1] / "src"
    done = subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_the_page_on_the_library_tells_the_truth(
    oof: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (oof / "tiny").rename(oof / "mobilenet_v2")
    monkeypatch.chdir(oof.parent)
    Path("crops").symlink_to(here / "images_test")
    page = PAGE.read_text(encoding="utf-8").replace("64, 64]", "16, 16]")
    test = doctest.DocTestParser().get_doctest(page, {}, PAGE.name, None, None)
    assert doctest.DocTestRunner().run(test).failed == 0, capsys.readouterr().out
