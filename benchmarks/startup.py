"""How long a user waits until training trains: whole processes, as the shell starts them."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measuring import Figure, alternate
from cellline.demo.drawing import Drawing, draw_competition

SOURCES = Path(__file__).resolve().parents[1] / "src"

SAMPLES = 90
RUN = "measured"
# The line that is printed after the second step is all that shows from outside that it trains. Two
# samples a step, so that it comes soon after the first.
SETTINGS = ("--weights", "none", "--fold", "0", "--batch-size", "2", "--run", RUN)
SIGN = "epochs of"

NOTES = {
    "import torch, torchvision": "nothing of ours",
    "train.py --help": "",
    "train.py to its second step": "densenet161 from scratch, 2 samples a step; folds and cache "
    "are there; with the first checkpoint, of 212 MB",
}


class Trainings:
    """Starts `train.py` in a folder with folds, anew each time."""

    def __init__(self, folder: Path, machine: Sequence[str]) -> None:
        self.folder = folder
        self.machine = machine
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Return when the second step is done."""
        self.process = subprocess.Popen(  # noqa: S603  # our own script
            [sys.executable, SOURCES / "train.py", *SETTINGS, *self.machine],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        printed = ""
        for line in self.process.stdout:
            if SIGN in line:
                return
            printed += line
        raise RuntimeError(f"train.py ended with {self.process.wait()}: {printed}")

    def end(self) -> None:
        """End it, and remove what it left."""
        if self.process is not None:
            with self.process:
                self.process.kill()
        shutil.rmtree(self.folder / "oof" / RUN, ignore_errors=True)


def run(*arguments: str | Path, cwd: Path | None = None) -> None:
    """Run Python to its end."""
    command = [sys.executable, *arguments]
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL)  # noqa: S603


def measure(rounds: int, machine: Sequence[str] = ()) -> list[Figure]:
    """The rows on start-up, with a competition that is drawn for it, `machine` being settings."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_competition(folder / "input", Drawing(SAMPLES, 9))
        run(SOURCES / "folds.py", "--folds", "3", cwd=folder)
        trainings = Trainings(folder, machine)
        # The training last: it goes on until the round is over.
        runs = (
            lambda: run("-c", "import torch, torchvision"),
            lambda: run(SOURCES / "train.py", "--help"),
            trainings.start,
        )
        try:
            candidates = dict(zip(NOTES, runs, strict=True))
            seconds = alternate(candidates, rounds, after_round=trainings.end)
        finally:
            trainings.end()
    return [Figure(name, "s", tuple(seconds[name]), note) for name, note in NOTES.items()]
