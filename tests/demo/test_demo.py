import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_demo_runs_every_verb_and_tells_the_score() -> None:
    command = [ROOT / "src/demo.py", "--network", "densenet_tiny", "--demo-epochs", "1"]
    # One thread: beside other work, several wait for each other four times as long.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    # What others left in the environment changes nothing.
    alone |= {"MPLBACKEND": "theirs", "TORCHELASTIC_RUN_ID": "theirs"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    for part in (
        "drawing a competition",
        "have an exact copy",
        "best trial of 2 on fold 0",
        "fold 2 is finished",
        "wrote demo/submissions/densenet_tiny-scratch-",
        "wrote demo/oof/densenet_tiny-scratch/report.html",
        "== test BAC",
    ):
        assert part in done.stdout
