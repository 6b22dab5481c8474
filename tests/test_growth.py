import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import growth
from benchmarks.growth import Cost

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@needs_proc
def test_what_is_drawn_has_the_challenges_shares_and_a_stage_is_measured(tmp_path: Path) -> None:
    samples = growth.draw(tmp_path / "input", 150)
    assert samples == 183
    cost = growth.run_stage("folds", tmp_path, samples)
    audit = json.loads((tmp_path / "oof/folds.json").read_text())["audit"]
    assert 0.7 < audit["grouped_samples"] / 150 < 0.9
    assert 0.05 < audit["copies"] / 150 < 0.25
    assert 0.6 < audit["overlapping"] / 150 < 0.85
    assert audit["conflicts"] == []
    # NumPy alone takes more of either.
    assert cost.own > 20e6
    assert cost.mapped > 20e6
    assert 0 < cost.processor_seconds < 600


def test_too_few_samples_are_refused_before_anything_is_drawn() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", "--samples", "60"],
        cwd=growth.ROOT,
        env={**os.environ, "PYTHONPATH": str(growth.ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --samples 60: must be 200 or more\n"


def test_growth_is_told_as_an_exponent() -> None:
    costs = [
        Cost("folds", 100, 4.0, 3.0, 50_000_000, 0),
        Cost("folds", 400, 20.0, 12.0, 50_600_000, 0),
        Cost("folds", 1600, 300.0, 192.0, 51_800_000, 0),
    ]
    table = [line.split() for line in growth.describe(costs)]
    assert table[2][1:] == ["400", "20.0", "5.00", "12.0", "1.00", "51", "2.0", "0"]
    assert table[3][1:] == ["1600", "300.0", "15.00", "192.0", "2.00", "52", "1.0", "0"]
