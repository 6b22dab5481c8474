import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cellline.config import RECIPES

SOURCES = Path(__file__).resolve().parents[1] / "src"

VERB = """
import os, signal, sys
from dataclasses import dataclass
from cellline.cli import run_verb
from cellline.config import Config

def main(config: Config) -> None:
    \"\"\"A verb.\"\"\"
    {body}

run_verb(main, Config)
"""


def run_verb(body: str, pipe: str = "") -> subprocess.CompletedProcess[str]:
    """Run a verb in a process of its own, its output into `pipe`."""
    Path("verb.py").write_text(VERB.format(body=body))
    command = f"{sys.executable} verb.py {pipe}; exit ${{PIPESTATUS[0]}}"
    return subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_end_with_their_status_and_a_line(number: int, status: int) -> None:
    done = run_verb(f"os.kill(os.getpid(), {int(number)})")
    name = signal.Signals(number).name
    assert done.returncode == status
    assert done.stderr == f"{name}: stopped; rerun the same command to resume\n"


def test_a_full_disk_is_no_traceback() -> None:
    done = run_verb("os.write(os.open('/dev/full', os.O_WRONLY), b'x')")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the output: No space left on device; make room.")
    # What is printed is written as well.
    done = run_verb("print('x')", "> /dev/full")
    assert done.returncode == 2
    assert "No space left on device" in done.stderr


def test_a_folder_that_cannot_be_written_is_named() -> None:
    Path("oof").touch()
    done = run_verb("os.makedirs('oof/run')")
    assert done.returncode == 2
    assert "error: oof" in done.stderr


def test_a_reader_that_leaves_ends_it_quietly() -> None:
    done = run_verb("[print(i) for i in range(100_000)]", "| head -1")
    assert (done.returncode, done.stdout, done.stderr) == (141, "0\n", "")


def test_a_log_can_be_read_while_it_is_written() -> None:
    Path("verb.py").write_text(VERB.format(body="print('x'); sys.stdin.readline()"))
    process = subprocess.Popen(
        [sys.executable, "verb.py"],
        # As Python is by itself, whatever the shell that started the tests says.
        env={**os.environ, "PYTHONPATH": str(SOURCES), "PYTHONUNBUFFERED": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 60)
    process.communicate(b"\n")
    assert ready
    assert process.returncode == 0


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    done = run_verb("raise FileNotFoundError(2, 'gone', 'x')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("verb", ["train", "tune", "submit", "demo"])
@pytest.mark.parametrize(
    ("arguments", "status"), [(["--help"], 0), (["--epochs", "many"], 2), (["--epochs", "0"], 2)]
)
def test_neither_help_nor_a_mistake_waits_for_torch(
    arguments: list[str], status: int, verb: str
) -> None:
    Path("torch.py").write_text("raise SystemExit('torch was imported')\n")
    done = subprocess.run(
        [sys.executable, str(SOURCES / f"{verb}.py"), *arguments],
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert "--epochs" in done.stdout + done.stderr


def test_a_verb_does_not_look_for_garbage_while_torch_is_imported() -> None:
    body = "import gc, torch; print(gc.isenabled(), gc.get_stats()[2]['collections'])"
    assert run_verb(body).stdout == "True 0\n"


def test_a_recipe_says_what_is_not_given() -> None:
    show = "print(config.training.epochs, config.training.image_size, config.training.lr)"
    quick, full = RECIPES["quick"], RECIPES["full"]
    assert run_verb(show).stdout == f"{quick.epochs} {quick.image_size} None\n"
    assert run_verb(show, "--recipe quick").stdout == f"{quick.epochs} {quick.image_size} None\n"
    assert run_verb(show, "--recipe full").stdout == f"{full.epochs} {full.image_size} None\n"
    given = run_verb(show, "--epochs 3 --recipe=full --lr 0.1")
    assert given.stdout == f"3 {full.image_size} 0.1\n"
    # So does the help.
    assert f"default: {full.epochs}" in run_verb("", "--recipe full --help").stdout


@pytest.mark.parametrize("arguments", ["--recipe best", "--recipe"])
def test_a_recipe_that_is_none_is_refused(arguments: str) -> None:
    done = run_verb("print('ran')", arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "'--recipe'" in done.stderr or "'best'" in done.stderr
    assert "Traceback" not in done.stderr
