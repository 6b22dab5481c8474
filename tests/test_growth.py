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


@needs_proc
def test_a_stage_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)submit, 9 samples.*no folds in"):
        growth.run_stage("submit", tmp_path, 9)


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


@needs_proc
def test_memory_is_of_all_processes_and_told_apart(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(30 << 20))
    hold = (
        "import mmap, pathlib, subprocess, sys\n"
        "if len(sys.argv) == 2:\n"
        "    child = subprocess.Popen([sys.executable, *sys.orig_argv[1:], 'child'], "
        "stdout=subprocess.PIPE)\n"
        "    child.stdout.readline()\n"
        "own = b'x' * (50 << 20)\n"
        "file = open(sys.argv[1], 'rb')\n"
        "mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)\n"
        "sum(mapped[::4096])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "large")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        members = list(growth.family(process.pid))
        own, mapped = map(sum, zip(*map(growth.memory_of, members), strict=True))
        assert process.stdin is not None
        process.stdin.close()
    assert len(members) == 2
    assert 100 << 20 < own < 140 << 20
    assert 60 << 20 < mapped < 100 << 20
    assert growth.memory_of(process.pid) == (0, 0)


def test_growth_is_told_as_an_exponent() -> None:
    costs = [
        Cost("folds", 100, 4.0, 3.0, 50_000_000, 0),
        Cost("folds", 400, 20.0, 12.0, 50_600_000, 0),
        Cost("folds", 1600, 300.0, 192.0, 51_800_000, 0),
    ]
    table = [line.split() for line in growth.describe(costs)]
    assert table[2][1:] == ["400", "20.0", "5.00", "12.0", "1.00", "51", "2.0", "0"]
    assert table[3][1:] == ["1600", "300.0", "15.00", "192.0", "2.00", "52", "1.0", "0"]
