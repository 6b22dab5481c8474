import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from cellline.runs.run_folder import train_command

from cellline.config import Config, Folders, Machine, Training
from cellline.data.competition import load_competition
from cellline.errors import UserError
from cellline.host.files import write_json
from cellline.host.stopping import Stopped
from cellline.runs.folds import write_folds
from cellline.training.checkpoint import read_checkpoint, write_checkpoint
from cellline.training.run import train_run

MACHINE = Machine(device="cpu", precision="float32", workers=0)


@pytest.fixture
def dealt(drawn: Path) -> Folders:
    """The drawn competition, dealt into two folds in the current folder."""
    folders = Folders(drawn)
    competition = load_competition(drawn, folders.cache_dir)
    record = {
        "n_folds": 2,
        "channels": list(competition.channels),
        "input_digest": competition.digest,
        "audit": {},
    }
    rows = np.arange(len(competition.labels))
    write_folds(Path("oof"), competition, rows % 2, competition.train_ids, record)
    return folders


def test_when_the_time_is_up_it_says_how_to_go_on(dealt: Folders, training: Training) -> None:
    machine = replace(MACHINE, max_minutes=1e-6)
    lines: list[str] = []
    with pytest.raises(Stopped) as stopped:
        train_run(Config(dealt, training, machine, "a", fold=1), lines.append)
    assert stopped.value.status == 0
    assert lines[-1].endswith(
        f"make train INPUT={dealt.input_dir} RUN=a FOLD=1 "
        'ARGS="--network densenet_tiny --weights none --epochs 3 --dropout 0.2 --device cpu '
        '--precision float32 --workers 0 --max-minutes 1e-06"'
    )


def test_other_code_may_go_on_and_says_so(
    dealt: Folders, training: Training, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Config(dealt, replace(training, epochs=1), MACHINE, "a", fold=0)
    train_run(config, print)
    folder = Path("oof/a/fold0")
    write_checkpoint(folder, replace(read_checkpoint(folder / "checkpoint.pt"), code="e" * 40))
    (folder / "oof.npz").unlink()
    train_run(config, print)
    printed = capsys.readouterr().out
    assert "trained by another version of this program (eeeeeeeeeeee)" in printed


def test_a_config_that_was_lost_is_what_the_folds_say_it_was(
    dealt: Folders, training: Training
) -> None:
    config = Config(dealt, replace(training, epochs=1), MACHINE, "a", fold=0)
    train_run(config, print)
    path = Path("oof/a/config.json")
    written = path.read_bytes()
    path.unlink()
    with pytest.raises(UserError, match=r"oof\.npz does not belong .* its epochs is 1, not 2"):
        train_run(replace(config, training=replace(training, epochs=2)), print)
    assert not path.exists()
    train_run(config, print)
    assert path.read_bytes() == written


def test_the_command_that_goes_on_survives_shells_and_make(tmp_path: Path) -> None:
    weights = tmp_path / 'my $weights\' "file".pth'
    config = {"settings": asdict(Training(weights=str(weights)))}
    oof = tmp_path / "oof $x"
    write_json(oof / "a" / "config.json", config)
    command = train_command(Folders(oof_dir=oof, cache_dir=Path("my cache")), "a", 3)
    # What make and a shell make of it: a Makefile that prints the words that a script would get.
    Path("Makefile").write_text("train:\n\t@printf '%s\\n' \"$(OOF)\" $(FOLD) $(ARGS)\n")
    # As from a fresh shell: not as a part of the make that may have started the tests.
    fresh = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFL"))}
    done = subprocess.run(
        command, shell=True, env=fresh, capture_output=True, text=True, check=True
    )
    words = [str(oof), "3", "--weights", str(weights), "--cache-dir", "my cache"]
    assert done.stdout.splitlines() == [word.replace("$x", "") for word in words]
