"""Content of the zip; kaggle/test_notebook.py runs it and shows that it is enough."""

import hashlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import torchvision
from packaging.requirements import Requirement

from cellline.errors import UserError
from cellline.kaggle.bundle import PYTHONS, ROOT, build_bundle, in_image, list_pins


def build(folder: Path, weights: Path | None = None) -> Path:
    """A bundle without wheels, which need a network."""
    return build_bundle(folder, (), weights)


def test_it_holds_the_notebook_and_the_code_as_git_sees_it() -> None:
    bundle = build(Path("a"))
    assert bundle.read_bytes() == build(Path("b")).read_bytes()
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        notebook = bundle.with_suffix(".ipynb")
        assert archive.read(notebook.name) == notebook.read_bytes()
        assert archive.read("src/train.py") == (ROOT / "src/train.py").read_bytes()
        assert (
            torchvision.models.get_model_weights("densenet161").DEFAULT.url
            in archive.read("weights/README.txt").decode()
        )
    assert [name for name in names if name.startswith("src/")] == sorted(listed.stdout.split())
    assert {"pyproject.toml", "README.md", "LICENSE", "weights/README.txt"} <= set(names)


@pytest.mark.parametrize("python", PYTHONS)
def test_all_requirements_are_included_or_in_the_image(python: str) -> None:
    pinned = {pin.name: pin for pin in map(Requirement, list_pins(python))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        if in_image(wanted.name):
            assert wanted.name not in pinned
        else:
            [version] = pinned[wanted.name].specifier
            assert version.version in wanted.specifier


def test_weights_lie_where_torch_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"not really weights"
    weights = tmp_path / f"densenet161-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    weights.write_bytes(content)
    with zipfile.ZipFile(build(tmp_path, weights)) as archive:
        archive.extractall(tmp_path / "bundle")
    # As the notebook says.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "bundle" / "weights"))
    assert Path(torch.hub.get_dir(), "checkpoints", weights.name).read_bytes() == content


@pytest.mark.parametrize("name", ["weights.pth", "densenet161-8d451a50.pth", "absent.pth"])
def test_other_files_are_refused_as_weights(name: str) -> None:
    if name != "absent.pth":
        Path(name).write_bytes(b"a page that says: not found")
    with pytest.raises(UserError, match=f"--weights-file {name}: is not a file as torchvision"):
        build(Path("dist"), Path(name))
    assert not Path("dist").exists()


def test_without_a_connection_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", "."), ("CONFIG_FILE", "none")):
        monkeypatch.setenv(f"PIP_{name}", value)
    command = [sys.executable, ROOT / "src" / "kaggle.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "can't download the wheels for Python 3.11" in done.stderr
    assert "No matching distribution found" in done.stderr
    assert not Path("dist").exists()
