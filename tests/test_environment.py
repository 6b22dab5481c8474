"""Installing what is lacking from a folder of wheels, in an environment of the test's own."""

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from environments import installed, make_environment

ROOT = Path(__file__).resolve().parents[1]


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """A distribution without files."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for file, text in (("METADATA", metadata), ("WHEEL", wheel), ("RECORD", "")):
            archive.writestr(f"{info}/{file}", text)


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment that has `fine` 1.5 and `old` 1.0."""
    python = make_environment(tmp_path / "environment", lambda name: False)
    (tmp_path / "before").mkdir()
    for name, version in (("fine", "1.5"), ("old", "1.0")):
        write_wheel(tmp_path / "before", name, version)
    wheels = (tmp_path / "before").glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", *wheels], check=True)
    return python


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version, requires in (
        ("absent", "3.0", "another>=1"),
        ("another", "1.0", "fine"),
        ("fine", "2.0", ""),
        ("old", "2.5", ""),
    ):
        write_wheel(folder, name, version, requires)
    return folder


def check(python: Path, wheels: Path, *wanted: str) -> subprocess.CompletedProcess[str]:
    """Run the script beside a pyproject.toml that asks for these."""
    project = wheels.with_name("project")
    (project / "src").mkdir(parents=True)
    shutil.copy(ROOT / "src" / "environment.py", project / "src")
    (project / "pyproject.toml").write_text(f"[project]\ndependencies = {list(wanted)}\n")
    script = project / "src" / "environment.py"
    return subprocess.run([python, script, "--find-links", wheels], capture_output=True, text=True)


def test_what_is_lacking_is_installed_and_nothing_else(python: Path, wheels: Path) -> None:
    done = check(python, wheels, "fine>=1,<3", "old>=2,<3", "absent>=3,<4")
    assert done.returncode == 0, done.stderr
    has = installed(python)
    del has["pip"]
    assert has == {"fine": "1.5", "old": "2.5", "absent": "3.0", "another": "1.0"}


def test_what_no_wheel_has_is_named(python: Path, wheels: Path) -> None:
    before = installed(python)
    done = check(python, wheels, "fine>=1,<3", "old>=2,<3", "torch>=2,<3")
    assert done.returncode == 2
    assert "torch>=2,<3 (not installed)" in done.stderr
    assert "old>=2,<3 (1.0 is installed)" in done.stderr
    assert "fine" not in done.stderr.split("lacks")[1]
    assert installed(python) == before


def test_nothing_is_done_where_nothing_is_lacking(python: Path, wheels: Path) -> None:
    done = check(python, wheels, "fine[more]>=1,<3", "old==1.0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
