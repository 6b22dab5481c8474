"""What is in the zip; that it is enough is shown where it is run: kaggle/test_notebook.py."""

import hashlib
import json
import re
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
from cellline.kaggle.bundle import PYTHONS, ROOT, build_bundle, in_image, pins, render_notebook


def build(folder: Path, weights: Path | None = None) -> Path:
    """A bundle without wheels, which need a network."""
    return build_bundle(folder, (), weights, lambda line: None)


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    bundle = build(tmp_path / "a")
    assert bundle.read_bytes() == build(tmp_path / "b").read_bytes()
    # Nor do the files' own times and order tell.
    with zipfile.ZipFile(bundle) as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist() == sorted(archive.namelist())


def test_it_holds_the_notebook_and_the_code_as_git_sees_it(tmp_path: Path) -> None:
    bundle = build(tmp_path)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        notebook = bundle.with_suffix(".ipynb")
        assert archive.read(notebook.name) == notebook.read_bytes()
        assert archive.read("src/train.py") == (ROOT / "src/train.py").read_bytes()
    assert [name for name in names if name.startswith("src/")] == sorted(listed.stdout.split())
    assert {"pyproject.toml", "README.md", "LICENSE", "weights/README.txt"} <= set(names)


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_asked_for_is_carried_or_in_the_image(python: str) -> None:
    pinned = {pin.name: pin for pin in map(Requirement, pins(python))}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for wanted in map(Requirement, project["dependencies"]):
        if in_image(wanted.name):
            assert wanted.name not in pinned
        else:
            [version] = pinned[wanted.name].specifier
            assert version.version in wanted.specifier
    assert not any(name.startswith(("nvidia", "cuda", "torch", "triton")) for name in pinned)
    # Pinned differently for Python 3.11 and for later ones.
    later = python != "3.11"
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    [line] = [
        line for line in lines if re.match(rf"contourpy.*{'>=' if later else '<'} '3.12'", line)
    ]
    assert f"contourpy{pinned['contourpy'].specifier}" == line.split(" ;")[0]


def test_weights_lie_where_torch_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"not really weights"
    weights = tmp_path / f"densenet161-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    weights.write_bytes(content)
    with zipfile.ZipFile(build(tmp_path, weights)) as archive:
        archive.extractall(tmp_path / "bundle")
    # As the notebook says.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "bundle" / "weights"))
    assert Path(torch.hub.get_dir(), "checkpoints", weights.name).read_bytes() == content


def test_the_place_for_weights_names_the_file_that_torchvision_has(tmp_path: Path) -> None:
    with zipfile.ZipFile(build(tmp_path)) as archive:
        assert (
            torchvision.models.get_model_weights("densenet161").DEFAULT.url
            in archive.read("weights/README.txt").decode()
        )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("weights.pth", "must have the name"),
        ("densenet161-8d451a50.pth", "is not what its name says"),
        ("absent.pth", "no such file"),
    ],
)
def test_other_files_are_not_put_in_as_weights(tmp_path: Path, name: str, message: str) -> None:
    if name != "absent.pth":
        (tmp_path / name).write_bytes(b"a page that says: not found")
    with pytest.raises(UserError, match=message):
        build(tmp_path / "dist", tmp_path / name)
    assert not (tmp_path / "dist").exists()


def test_without_a_connection_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("NO_INDEX", "1"), ("FIND_LINKS", str(tmp_path)), ("CONFIG_FILE", "none")):
        monkeypatch.setenv(f"PIP_{name}", value)
    done = subprocess.run(
        [sys.executable, ROOT / "src" / "bundle.py"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "the wheels for Python 3.11 can't be downloaded" in done.stderr
    assert "No matching distribution found" in done.stderr
    assert not Path("dist").exists()


def test_a_script_becomes_cells() -> None:
    source = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\na = 1\n\n\n# %%\nb = '# %%'\n"
    notebook = json.loads(render_notebook(source))
    kinds = [(cell["cell_type"], "".join(cell["source"])) for cell in notebook["cells"]]
    assert kinds == [("markdown", "# Title\n\nText."), ("code", "a = 1"), ("code", "b = '# %%'")]
