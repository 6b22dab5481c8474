"""Installing what is missing from a folder of wheels, in an environment of the test's own."""

import shutil
import subprocess
import zipfile
from pathlib import Path

from environments import installed, make_environment

ROOT = Path(__file__).resolve().parents[1]


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """A distribution without files."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    metadata += f"Requires-Dist: {requires}\n" if requires else ""
    tags = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in (("METADATA", metadata), ("WHEEL", tags), ("RECORD", "")):
            archive.writestr(f"{info}/{file}", text)
    return path


def test_what_is_missing_is_installed_or_named_and_nothing_else_is_touched() -> None:
    python = make_environment(Path("environment").resolve(), lambda name: False)
    before = [write_wheel(Path("before"), "fine", "1.5"), write_wheel(Path("before"), "old", "1.0")]
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", *before], check=True)
    write_wheel(Path("wheels"), "absent", "3.0", requires="another>=1")
    write_wheel(Path("wheels"), "another", "1.0", requires="fine")
    write_wheel(Path("wheels"), "fine", "2.0")
    write_wheel(Path("wheels"), "old", "2.5")
    Path("project/src").mkdir(parents=True)
    script = shutil.copy(ROOT / "src" / "environment.py", "project/src")

    def check(*wanted: str) -> subprocess.CompletedProcess[str]:
        Path("project/pyproject.toml").write_text(f"[project]\ndependencies = {list(wanted)}\n")
        command = [python, script, "--find-links", "wheels"]
        return subprocess.run(command, capture_output=True, text=True)

    done = check("fine[more]>=1,<3", "old==1.0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    had = installed(python)
    done = check("fine>=1,<3", "old>=2,<3", "torch>=2,<3")
    assert done.returncode == 2
    assert f"error: {python} lacks old>=2,<3, torch>=2,<3\n" in done.stderr
    assert f"Install them: {python} -m pip install 'old>=2,<3' 'torch>=2,<3'" in done.stderr
    assert installed(python) == had

    done = check("fine>=1,<3", "old>=2,<3", "absent>=3,<4")
    assert done.returncode == 0, done.stderr
    wanted = {"fine": "1.5", "old": "2.5", "absent": "3.0", "another": "1.0"}
    assert installed(python) == {**wanted, "pip": had["pip"]}
