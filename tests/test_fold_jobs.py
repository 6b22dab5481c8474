"""Folds as jobs of their own: of make, and of Slurm."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cellline.host.processors import count_processors

ROOT = Path(__file__).resolve().parents[1]
TINY = "--network densenet_tiny --weights none --epochs 1000 --batch-size 16 --device cpu"

# In Python's place: says when it begins and ends a verb, and ends once `$TOGETHER` have begun.
STAND_IN = """#!/bin/sh
case $1 in src/environment.py | -c) exit;; esac
echo "begins $TERM $*" >> log
while [ "$(grep -c begins log)" -lt "$TOGETHER" ]; do sleep 0.01; done
sleep 0.1
echo ends >> log
"""

HALF = str(max(1, count_processors() // 2))

# Takes its time to save when it is told to end.
SAVING = """trap 'sleep 0.2; echo saved >> log; exit 143' TERM
case"""

# In scontrol's place: notes what it is told.
SCONTROL = """#!/bin/sh
echo "$*" >> requeued
"""


@pytest.fixture(autouse=True)
def project() -> None:
    """The current folder is a checkout."""
    for name in ("Makefile", "src", "pyproject.toml", "cluster"):
        Path(name).symlink_to(ROOT / name)


def write_script(path: str, text: str) -> None:
    Path(path).write_text(text)
    Path(path).chmod(0o755)


def environment(**more: str) -> dict[str, str]:
    """As in a fresh shell: not as a part of the make that may have started the tests."""
    outer = (
        *("MAKE", "MFLAGS", "ARGS", "RUN", "RECIPE", "FOLD", "INPUT", "OOF", "SUBMISSIONS"),
        *("GPUS", "OMP"),
    )
    return {k: v for k, v in os.environ.items() if not k.startswith(outer)} | more


def begun_and_ended(*arguments: str, together: int) -> list[str]:
    """What make starts and when it ends; of a verb's arguments those up to the fold."""
    write_script("python", STAND_IN)
    subprocess.run(
        ["make", *arguments, "VENV=", "PYTHON=./python"],
        env=environment(TOGETHER=str(together), TERM="xterm"),
        check=True,
        timeout=60,
        capture_output=True,
    )
    lines = Path("log").read_text().splitlines()
    words = [line.split() for line in lines]
    return [" ".join(line[:3] + (line[-2:] if "--fold" in line else [])) for line in words]


@pytest.mark.parametrize(
    ("words", "given", "threads"),
    [
        ("-j2", {}, HALF),
        ("-j999", {}, HALF),
        ("-j", {}, HALF),
        ("-j2", {"OMP_NUM_THREADS": "7"}, "7"),
        ("-j2 GPUS=999", {}, "1"),
        # One after the other, with all that there are.
        ("-j1", {}, "all"),
        ("GPUS=2", {}, "all"),
        ("-j2 folds", {}, "all"),
    ],
)
def test_folds_that_are_trained_at_once_share_the_processors(
    words: str, given: dict[str, str], threads: str
) -> None:
    script = "#!/bin/sh\ncase $1 in src/train.py) echo ${OMP_NUM_THREADS-all} >> threads;; esac\n"
    write_script("python", script)
    subprocess.run(
        ["make", *words.split(), "train-0", "train-1", "VENV=", "PYTHON=./python"],
        env=environment(**given),
        check=True,
        timeout=60,
    )
    assert Path("threads").read_text().split() == [threads] * 2


def test_make_trains_several_folds_at_once() -> None:
    *begun, first, last = begun_and_ended("-j2", "train-0", "train-3", together=2)
    # Without bars, which would overwrite each other.
    assert sorted(begun) == [f"begins dumb src/train.py --fold {fold}" for fold in (0, 3)]
    assert first == last == "ends"


@pytest.mark.parametrize("goals", [("folds", "train", "submit"), ("folds", "train-0", "train-1")])
def test_other_verbs_wait_for_each_other(goals: tuple[str, ...]) -> None:
    lines = begun_and_ended("-j3", *goals, together=1)
    assert [line.split()[0] for line in lines] == ["begins", "ends"] * 3
    assert lines[0] == "begins xterm src/folds.py"


@pytest.fixture
def slurm() -> dict[str, str]:
    """The environment of a job of Slurm's, for fold 0."""
    Path("bin").mkdir()
    write_script("bin/scontrol", SCONTROL)
    path = f"{Path('bin').resolve()}:{os.environ['PATH']}"
    return environment(PATH=path, SLURM_ARRAY_TASK_ID="0", SLURM_JOB_ID="77", TOGETHER="1")


@pytest.mark.parametrize("status", [0, 2])
def test_a_job_of_slurm_ends_as_its_training_does(slurm: dict[str, str], status: int) -> None:
    write_script("python", STAND_IN + f"exit {status}\n")
    command = ["bash", "cluster/folds.sbatch", "RUN=large", "VENV=", "PYTHON=./python"]
    done = subprocess.run(command, env=slurm, capture_output=True, timeout=60)
    assert done.returncode == status
    assert "--run large --fold 0" in Path("log").read_text()
    assert not Path("requeued").exists()


def test_a_job_of_slurm_that_is_cancelled_ends_when_its_training_is_saved(
    slurm: dict[str, str],
) -> None:
    write_script("python", STAND_IN.replace("case", SAVING, 1))
    command = ["bash", "cluster/folds.sbatch", "VENV=", "PYTHON=./python"]
    job = subprocess.Popen(command, env={**slurm, "TOGETHER": "2"})
    while not Path("log").exists():
        assert job.poll() is None
        time.sleep(0.01)
    job.terminate()
    assert job.wait(60) == 143
    assert Path("log").read_text().endswith("saved\n")
    assert not Path("requeued").exists()


def test_a_job_of_slurm_is_saved_and_put_back_before_its_time_is_up(
    drawn: Path, slurm: dict[str, str]
) -> None:
    shutil.copytree(drawn, "input")
    folds = [sys.executable, "src/folds.py", "--folds", "2"]
    subprocess.run(folds, check=True, capture_output=True)
    settings = ["VENV=", f"PYTHON={sys.executable}", "RUN=a", f"ARGS={TINY}"]
    with Path("log").open("wb") as log:
        job = subprocess.Popen(
            ["bash", "cluster/folds.sbatch", *settings],
            env=slurm,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    while not Path("oof/a/fold0/checkpoint.pt").exists():
        assert job.poll() is None, Path("log").read_text()
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(60) == 0
    assert "fold 0 is saved" in Path("log").read_text()
    assert "\r" not in Path("log").read_bytes().decode()
    assert Path("requeued").read_text() == "requeue 77\n"
    assert not Path("oof/a/fold0/oof.npz").exists()
