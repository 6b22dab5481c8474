"""The command `cellline`, as pip installs it, from a folder that has nothing to do with it."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cellline.host.versions import code_version

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip has installed this program into, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    # pip leaves its build there.
    checkout = folder / "checkout"
    leave = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", checkout / "src", ignore=leave)
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-build-isolation"]
    there = ["--no-compile", "--target", str(folder / "site"), str(checkout)]
    subprocess.run([*pip, *offline, *there], check=True)
    shutil.rmtree(checkout)
    return folder / "site"


def run(installed: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Python, or a program of it, with what is installed."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([*words], env=environment, capture_output=True, text=True)


def cellline(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(installed, installed / "bin" / "cellline", *arguments)


def test_it_is_the_whole_program_and_takes_no_other_name(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert names == {"bin", "cellline"}
    code = "from cellline.host.versions import code_version; print(code_version())"
    assert run(installed, sys.executable, "-c", code).stdout.strip() == code_version()


def test_it_lists_its_verbs(installed: Path) -> None:
    listed = cellline(installed)
    assert listed.returncode == 0
    verbs = [line.split()[1] for line in listed.stdout.splitlines() if line.startswith("  ")]
    scripts = {path.stem for path in (ROOT / "src").glob("*.py")} - {"environment"}
    assert (len(verbs), set(verbs)) == (len(scripts), scripts)
    assert "  cellline train    train one fold or all, and " in listed.stdout
    assert cellline(installed, "--help").stdout == listed.stdout


@pytest.mark.parametrize("verb", ["trian", "environment", "../verbs/train", "--run"])
def test_an_unknown_verb_is_refused_in_a_line(installed: Path, verb: str) -> None:
    done = cellline(installed, verb, "--help")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        f"error: unknown verb {verb!r}; the verbs are compare, demo, explain, "
    )
    assert done.stderr.count("\n") == 1


def test_the_command_that_it_prints_is_one_that_works(installed: Path, drawn: Path) -> None:
    Path("my input").symlink_to(drawn)
    dealt = cellline(installed, "folds", "--input-dir", "my input", "--folds", "3")
    assert dealt.returncode == 0, dealt.stderr
    assert Path("oof/folds.csv").exists()
    command = dealt.stdout.splitlines()[-1].strip()
    assert command == "cellline train --input-dir 'my input'"
    helped = cellline(installed, *shlex.split(command)[1:], "--help")
    assert helped.returncode == 0
    assert helped.stdout.startswith("usage: cellline train ")


@pytest.mark.torture
def test_two_processes_train_a_fold(installed: Path, drawn: Path) -> None:
    Path("input").symlink_to(drawn)
    assert cellline(installed, "folds", "--folds", "3").returncode == 0
    small = ["--network", "densenet_tiny", "--weights", "none", "--epochs", "1"]
    small += ["--image-size", "16", "--batch-size", "16", "--device", "cpu"]
    done = cellline(installed, "train", "--fold", "0", "--gpus", "2", *small)
    assert "fold 0 is finished" in done.stdout, done.stderr
