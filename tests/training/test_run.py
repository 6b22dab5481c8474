import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cellline.cli import make_command
from cellline.config import Config, Folders, Machine, Training
from cellline.data.competition import load_competition
from cellline.host.stopping import Stopped
from cellline.runs.folds import IGNORING_GROUPS, write_folds
from cellline.training.run import train_run

MACHINE = Machine(device="cpu", precision="float32", workers=0)
Deal = Callable[..., Config]


@pytest.fixture
def deal(drawn: Path, training: Training) -> Deal:
    """Deals the drawn competition into two folds; the settings of a training on them."""
    competition = load_competition(drawn, Path(".cache"))

    def deal(oof_dir: str, fold: np.ndarray, group: np.ndarray, *, ignore_groups: bool) -> Config:
        record = {
            "n_folds": 2,
            "ignore_groups": ignore_groups,
            "channels": list(competition.channels),
            "input_digest": competition.digest,
            "audit": {"test_grouped": 9},
        }
        write_folds(Path(oof_dir), competition, fold, group, record)
        folders = Folders(drawn, Path(oof_dir))
        return Config(folders, replace(training, epochs=1), MACHINE)

    return deal


@pytest.fixture
def config(deal: Deal) -> Config:
    """The settings of a training on folds that need no groups."""
    return deal("oof", np.arange(90) % 2, np.arange(90), ignore_groups=False)


def test_a_run_on_folds_that_ignore_groups_says_how_much_that_flatters(
    drawn: Path, deal: Deal, capsys: pytest.CaptureFixture[str]
) -> None:
    competition = load_competition(drawn, Path(".cache"))
    # The first two samples of each class are one picture; folds tear them apart, or don't.
    first, second = np.array([np.flatnonzero(competition.labels == k)[:2] for k in range(9)]).T
    group = competition.train_ids.copy()
    group[second] = group[first]
    fold = np.arange(90) % 2
    fold[first], fold[second] = 0, 1
    train_run(deal("oof", fold, group, ignore_groups=True))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"warning: {IGNORING_GROUPS}"
    assert "18 samples with a copy or overlap in another fold score" in lines[-2]
    assert "a test set of which 50.0 % have one in training" in lines[-1]

    fold[second] = fold[first]
    train_run(deal("grouped", fold, group, ignore_groups=False))
    printed = capsys.readouterr().out
    assert "warning" not in printed
    assert "copy or overlap" not in printed


def test_when_the_time_is_up_it_prints_the_command_to_resume(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = replace(MACHINE, max_minutes=1e-6)
    with pytest.raises(Stopped) as stopped:
        train_run(replace(config, machine=machine, run="a", fold=1))
    assert stopped.value.status == 0
    assert capsys.readouterr().out.endswith(
        "fold 1 is saved; to resume:\n"
        f"  make train INPUT={config.folders.input_dir} RUN=a FOLD=1 "
        'ARGS="--network densenet_tiny --weights none --image-size None --start-size None '
        "--epochs 1 --dropout 0.2 --device cpu --precision float32 --workers 0 "
        '--max-minutes 1e-06"\n'
    )


def test_the_printed_command_survives_shells_and_make(tmp_path: Path) -> None:
    weights = tmp_path / 'my $weights\' "file".pth'
    oof = tmp_path / "oof $x"
    folders = Folders(oof_dir=oof, cache_dir=Path("my cache"))
    training = Training(weights=str(weights), image_size=96, start_size=64)
    command = make_command("train", Config(folders, training, run="a", fold=3))
    # A Makefile that prints the words that a script would get.
    Path("Makefile").write_text("train:\n\t@printf '%s\\n' \"$(OOF)\" $(FOLD) $(ARGS)\n")
    # As from a fresh shell: not as a part of the make that may have started the tests.
    fresh = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFL"))}
    done = subprocess.run(
        command, shell=True, env=fresh, capture_output=True, text=True, check=True
    )
    words = [str(oof), "3", "--weights", str(weights), "--cache-dir", "my cache"]
    assert sorted(done.stdout.splitlines()) == sorted(word.replace("$x", "") for word in words)
