"""Content of the zip; kaggle/test_notebook.py runs it and shows that it is enough."""

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from packaging.requirements import Requirement

import kaggle
import train
from cellline.cli import parse_arguments
from cellline.config import Config, Training
from cellline.errors import UserError
from cellline.kaggle.bundle import ROOT, build_bundle, in_image, list_pins
from cellline.model.weights import PACKAGES, find_weights
from kaggle import KaggleConfig
from train import TrainConfig


def read_arguments(bundle: Path) -> list[str]:
    """ARGS in the notebook beside a zip."""
    cells = json.loads(bundle.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    [line] = [line for line in cells[1]["source"] if line.startswith("ARGS = ")]
    return list(ast.literal_eval(line.removeprefix("ARGS = ")))


def test_it_holds_the_notebook_and_the_code_as_git_sees_it() -> None:
    config = Config(training=Training(weights="none"))
    bundle, again = (build_bundle(config, Path(folder), ()) for folder in "ab")
    assert bundle.read_bytes() == again.read_bytes()
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        notebook = bundle.with_suffix(".ipynb")
        assert archive.read(notebook.name) == notebook.read_bytes()
        assert archive.read("src/train.py") == (ROOT / "src/train.py").read_bytes()
    assert [name for name in names if name.startswith("src/")] == sorted(listed.stdout.split())
    assert {"pyproject.toml", "README.md", "LICENSE", "weights/README.txt"} <= set(names)


def test_an_installed_program_says_that_it_can_not_be_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cellline.kaggle.bundle.INSTALLED", True)
    with pytest.raises(UserError, match="`kaggle` packs the program's checkout"):
        build_bundle(Config(training=Training(weights="none")), Path("dist"), ())


@pytest.mark.parametrize("python", KaggleConfig.pythons)
def test_all_requirements_are_included_or_in_the_image(python: str) -> None:
    pins = [Requirement(line.split(" ")[0]) for line in list_pins(python)]
    pinned = {pin.name: pin for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        if in_image(wanted.name):
            assert wanted.name not in pinned
        else:
            [version] = pinned[wanted.name].specifier
            assert version.version in wanted.specifier


def test_the_notebook_has_the_settings_of_make_kaggle() -> None:
    Path("input").mkdir()
    Path("input/competition.toml").write_text('symmetry = "mirror"\nchannels = ["_a", ""]')
    given = ["--network", "densenet_tiny", "--weights", "none", "--image-size", "None"]
    config = parse_arguments(kaggle.main, KaggleConfig, [*given, "--lr", "0.01", "--run", "my run"])
    bundle = build_bundle(config, Path("dist"), ())
    Path("input/competition.toml").unlink()  # it isn't on Kaggle
    trained = parse_arguments(train.main, TrainConfig, read_arguments(bundle))
    assert config.recipe == "full"
    assert config.training.symmetry == "mirror"
    for setting in ("training", "machine", "reading", "recipe", "run"):
        assert getattr(trained, setting) == getattr(config, setting)


def test_weights_that_pip_installed_are_found_again_in_the_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, unpacked = tmp_path / "site", tmp_path / "unpacked"
    package, file = PACKAGES["mobilenet_v2"]
    (site / file).parent.mkdir(parents=True)
    torch.save(torchvision.models.mobilenet_v2().state_dict(), site / file)
    metadata = site / f"{package.replace('-', '_')}-1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    with monkeypatch.context() as patch:
        patch.setenv("TORCH_HOME", str(tmp_path / "empty"))
        patch.syspath_prepend(site)
        bundle = build_bundle(Config(training=Training(network="mobilenet_v2")), tmp_path, ())
    assert read_arguments(bundle)[:4] == ["--network", "mobilenet_v2", "--weights", "imagenet"]
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(unpacked)
    monkeypatch.setenv("TORCH_HOME", str(unpacked / "weights"))
    found = find_weights("mobilenet_v2", "imagenet")
    # Under its own name: readers tell the format by its ending.
    assert found == unpacked / "weights" / "hub" / "checkpoints" / Path(file).name
    assert found.read_bytes() == (site / file).read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"a page that says: not found", "can't be read as weights")],
)
def test_what_is_not_weights_is_refused(content: bytes | None, message: str) -> None:
    if content is not None:
        Path("densenet161-8d451a50.pth").write_bytes(content)
    training = Training(weights="densenet161-8d451a50.pth")
    with pytest.raises(UserError, match=message):
        build_bundle(Config(training=training), Path("dist"), ())
    assert not Path("dist").exists()


def test_without_weights_it_warns_and_the_notebook_trains_from_scratch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = Config(training=Training(network="densenet_tiny"))
    arguments = read_arguments(build_bundle(config, Path("dist"), ()))
    assert parse_arguments(train.main, TrainConfig, arguments).training.weights == "none"
    first, *_, archive, notebook = capsys.readouterr().out.splitlines()
    assert first.startswith("warning: the zip will hold no weights")
    assert archive.startswith("wrote dist/cellline-kaggle.zip (")
    assert notebook == "wrote dist/cellline-kaggle.ipynb"


def test_without_a_connection_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", "."), ("CONFIG_FILE", "none")):
        monkeypatch.setenv(f"PIP_{name}", value)
    command = [sys.executable, ROOT / "src" / "kaggle.py", "--weights", "none"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "can't download the wheels for Python 3.11" in done.stderr
    assert "No matching distribution found" in done.stderr
    assert not Path("dist").exists()
