"""Exported models, run without this program and without torch; tables."""

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from small_run import train_small
from stop_at import StopAt
from torch import Tensor, nn

from cellline.config import Config, Folders, Machine, Training
from cellline.errors import UserError
from cellline.exporting import distilling, models
from cellline.exporting.ensemble import Ensemble
from cellline.exporting.models import export_models, render_models
from cellline.exporting.tables import export_tables
from cellline.host.files import read_arrays, read_json
from cellline.host.stopping import Stopped
from cellline.predicting.predict import NewImages, predict
from cellline.runs.folds import open_folds
from cellline.scoring.decisions import Correction

CONFIG = Config(
    Folders(Path("input")),
    Training(network="densenet_tiny", weights="none", epochs=2, batch_size=16, lr=0.01),
    Machine(device="cpu", precision="float32"),
)
RUNS = {
    "large": replace(CONFIG.training, image_size=24),
    "flips": replace(CONFIG.training, image_size=12, symmetry="flips", seed=1),
}
PAGE = Path(__file__).resolve().parents[2] / "docs" / "exporting.md"
EXAMPLE, IN_TORCH = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)


@pytest.fixture(scope="module")
def trained(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of two folds, exported, and its test images in `images_test`."""
    folder = tmp_path_factory.mktemp("trained")
    runs = [replace(CONFIG, run=name, training=training) for name, training in RUNS.items()]
    train_small(folder, drawn, 2, *runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        export_models(CONFIG, list(RUNS), Path("exports"))
    return folder


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as the current folder."""
    monkeypatch.chdir(trained)
    return trained


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a table."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_prob(rows: list[dict[str, str]]) -> np.ndarray:
    """Probabilities [n, class] of a table."""
    return np.array([[float(row[name]) for name in row if name.startswith("p(")] for row in rows])


def test_the_example_gives_the_predictions_without_torch_or_this_program(
    here: Path, tmp_path: Path
) -> None:
    rows = read(predict(CONFIG, list(RUNS), NewImages(here / "images_test"), tmp_path))
    without = "import sys\nsys.modules.update(torch=None, cellline=None)\n"
    code = without + EXAMPLE + "print(json.dumps(probabilities.tolist()))\n"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    )
    *lines, last = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == [row["id"] for row in rows]
    assert [line.split(" ", 1)[1].rsplit(" ", 1)[0] for line in lines] == [
        row["label"] for row in rows
    ]
    assert len({row["label"] for row in rows}) > 1
    np.testing.assert_allclose(json.loads(last), read_prob(rows), rtol=0, atol=1e-5)
    # In torch, of other numbers of images, too.
    names: dict[str, Any] = {}
    exec(EXAMPLE + IN_TORCH, names)
    np.testing.assert_allclose(names["probabilities"], read_prob(rows), rtol=0, atol=1e-5)
    for n in (1, 3):
        images = names["images"][:n]
        [of_onnx] = names["session"].run(None, {"images": images})
        of_torch = names["network"](torch.from_numpy(images)).numpy()
        for prob in (of_onnx, of_torch):
            np.testing.assert_allclose(prob, read_prob(rows)[:n], rtol=0, atol=1e-5)


def test_the_record_says_what_goes_in_and_comes_out(here: Path) -> None:
    [path] = Path("exports").glob("*.json")
    record = read_json(path)
    assert record["input"] == {"name": "images", "dtype": "uint8", "shape": ["n", 3, 16, 16]}
    classes = record["classes"]
    assert record["output"]["shape"] == ["n", len(classes)]
    assert [len(run["views"]) for run in record["runs"]] == [8, 4]
    assert [set(run["models"]) for run in record["runs"]] == [{"0", "1"}] * 2
    low, high = record["oof"]["interval"]
    assert low <= record["oof"]["score"] <= high
    for suffix in ("onnx", "pt2"):
        data = path.with_suffix(f".{suffix}").read_bytes()
        assert record[f"{suffix}_digest"] == hashlib.sha256(data).hexdigest()
    assert {file.name for file in Path("exports").iterdir()} == {
        ".lock",
        *(path.with_suffix(suffix).name for suffix in (".json", ".onnx", ".pt2")),
    }


def test_files_that_predict_something_else_are_a_fault_and_do_not_stay(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [path] = Path("exports").glob("*.onnx")
    of_both = {".onnx": path.read_bytes(), ".pt2": b""}
    monkeypatch.setattr(models, "render_models", lambda *_: of_both)
    with pytest.raises(RuntimeError, match=r"the ONNX file differs by .* from this program's"):
        export_models(CONFIG, ["flips"], tmp_path / "exports")
    assert not (tmp_path / "exports").exists()


def test_one_network_that_learned_from_all_takes_their_place(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of_all = export_models(CONFIG, ["large"], tmp_path / "all")
    alone = export_models(CONFIG, ["large"], tmp_path / "once", distill=20)
    about, printed = read_json(alone), capsys.readouterr().out
    # One network, not two, and nearer to their mean than the first of them, where it began.
    sizes = [path.with_suffix(".onnx").stat().st_size for path in (alone, of_all)]
    assert sizes[0] < 0.7 * sizes[1]
    names: dict[str, Any] = {}
    exec(EXAMPLE, names)
    mean, own = (
        onnxruntime.InferenceSession(path.with_suffix(".onnx")).run(
            None, {"images": names["images"]}
        )[0]
        for path in (of_all, alone)
    )
    first = read_arrays(Path("oof/large/fold0/test.npz"), "prob")["prob"]
    first = Correction(**about["correction"]).apply(first).prob
    assert np.abs(own - mean).mean() < 0.8 * np.abs(first - mean).mean()
    unrelated = open_folds(CONFIG.folders).picture[90:] >= 90
    same = np.mean((own.argmax(axis=1) == mean.argmax(axis=1))[unrelated])
    assert f"gives {same:.1%} of {sum(unrelated)} test samples" in printed
    # Stopped within an epoch and at its end, it ends with the same bits.
    for folder in Path("oof/large").glob("distilled-*"):
        shutil.rmtree(folder)
    for steps in (3, 3, 5):
        with monkeypatch.context() as patch, pytest.raises(Stopped):
            # It looks twice before the first step.
            patch.setattr(distilling, "Stop", lambda _, steps=steps: StopAt(1 + steps))
            export_models(CONFIG, ["large"], tmp_path / "parts", distill=20)
    resumed = export_models(CONFIG, ["large"], tmp_path / "parts", distill=20)
    assert read_json(resumed)["distilled"] == about["distilled"]
    assert "epoch 20 of 20" in capsys.readouterr().out
    # Once it has learned, it need not again.
    export_models(CONFIG, ["large"], tmp_path / "again", distill=20)
    assert "epoch 20 of 20" not in capsys.readouterr().out


class Branching(nn.Module):
    """A network that decides by its images what to compute."""

    def forward(self, images: Tensor) -> Tensor:
        """One of two results."""
        return images.float() if images.sum() > 0 else images.double()


def test_a_network_that_torch_can_not_export_is_refused_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ensemble = Ensemble([Branching()], Correction(1.0, 0.0, (0.5, 0.5), (0.0, 0.0)))  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"^torch can't export this network: .+$") as refused:
        render_models(ensemble, (3, 8, 8))
    assert "\n" not in str(refused.value)
    monkeypatch.setattr(models, "LARGEST_ONNX", 7)
    with pytest.raises(UserError, match="an ONNX file holds"):
        render_models(ensemble, (3, 8, 8))


def test_tables_have_the_numbers_of_the_folds(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    oof, test = export_tables(CONFIG, list(RUNS), tmp_path)
    assert "not calibrated" in capsys.readouterr().out
    assert read_json(oof.with_suffix(".json"))["calibrated"] is False
    dealt = {row["file_id"]: row for row in read(Path("oof/folds.csv"))}
    rows = read(oof)
    assert {row["id"] for row in rows} == dealt.keys()
    for row in rows:
        of_sample = dealt[row["id"]]
        assert (row["fold"], row["label"]) == (of_sample["fold"], of_sample["cell_line"])
    expected = {}
    for fold in range(2):
        files = [
            read_arrays(Path(f"oof/{run}/fold{fold}/oof.npz"), "prob", "file_id") for run in RUNS
        ]
        blended = np.mean([of["prob"] for of in files], axis=0)
        expected |= dict(zip(map(str, files[0]["file_id"]), blended, strict=True))
    np.testing.assert_allclose(read_prob(rows), [expected[row["id"]] for row in rows], rtol=1e-6)
    files = [
        read_arrays(Path(f"oof/{run}/fold{fold}/test.npz"), "prob", "file_id")
        for run in RUNS
        for fold in range(2)
    ]
    blended = np.mean([of["prob"] for of in files], axis=0)
    assert [row["id"] for row in read(test)] == list(map(str, files[0]["file_id"]))
    np.testing.assert_allclose(read_prob(read(test)), blended, rtol=1e-6)
