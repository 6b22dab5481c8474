import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cellline.cli import make_command
from cellline.config import RECIPES, Config, Folders, Machine, Training
from cellline.data.competition import load_competition
from cellline.errors import UserError
from cellline.host.files import digest_file, read_json
from cellline.host.stopping import Stopped
from cellline.model.network import build_backbone
from cellline.runs.folds import NO_PAIRS, Dealt, open_folds, write_folds
from cellline.runs.run import open_run
from cellline.training.run import train_run

ROOT = Path(__file__).resolve().parents[2]
MACHINE = Machine(device="cpu", precision="float32", workers=0)


@pytest.fixture
def config(drawn: Path, training: Training) -> Config:
    """The settings of a training on two folds of the drawn competition."""
    competition = load_competition(drawn, Path(".cache"))
    record = {
        "image_size": None,
        "n_folds": 2,
        "input_digest": competition.digest,
    }
    dealt = Dealt(np.arange(90) % 2, competition.train_ids, NO_PAIRS)
    write_folds(Path("oof"), competition, dealt, record)
    return Config(Folders(drawn), replace(training, epochs=1), MACHINE)


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
        "--epochs 1 --dropout 0.2 --cutmix 0.5 --device cpu --precision float32 --workers 0 "
        '--max-minutes 1e-06"\n'
    )


def test_a_run_keeps_the_schedule_that_was_fitted_into_a_time(
    config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellline.training.fitting.MEASURE_SECONDS", 0.0)  # as few steps as it can
    stopping = replace(MACHINE, max_minutes=1e-6)
    fitting = replace(stopping, fit_minutes=1e3)
    config = replace(config, machine=stopping, run="a", fold=1)
    kept = Path("oof/a/config.json")
    with pytest.raises(Stopped):
        train_run(replace(config, machine=fitting))
    chosen, printed = kept.read_bytes(), capsys.readouterr().out
    assert f"; {json.loads(chosen)['settings']['epochs']} epochs a fold, at 16 pixels; " in printed
    # The command that resumes has --fit-minutes alone: beside --epochs, it would be refused.
    command = printed.splitlines()[-1]
    assert "--fit-minutes 1000" in command
    assert "--epochs" not in command
    # With or without it, another fold has the same schedule, and nothing is measured.
    for machine in (stopping, fitting):
        with pytest.raises(Stopped):
            train_run(replace(config, machine=machine, fold=0))
        printed = capsys.readouterr().out
        assert "(from --fit-minutes 1000 for 1 fold)" in printed
        assert "measuring" not in printed
        assert kept.read_bytes() == chosen
    with pytest.raises(UserError, match="run a was begun from --fit-minutes 1000 for 1 fold, with"):
        train_run(replace(config, machine=replace(fitting, fit_minutes=5)))
    other = replace(config, training=replace(config.training, epochs=7))
    with pytest.raises(UserError, match=r"with other settings: epochs was \d+ and is 7 now"):
        train_run(other)
    with pytest.raises(Stopped):
        train_run(replace(other, run="b"))
    with pytest.raises(UserError, match="run b was begun without it, with 7 epochs"):
        train_run(replace(other, run="b", machine=fitting))


def test_a_run_without_symmetry_has_one_score(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    mirrored = replace(config.training, symmetry="mirror")
    alone = replace(config.training, symmetry="none")
    for training, words in ((mirrored, " with all views, "), (alone, "\n")):
        train_run(replace(config, training=training, run=training.symmetry, fold=1))
        [told] = re.findall(r"fold 1 is finished: OOF BAC [\d.]+ %(\D+)", capsys.readouterr().out)
        assert told == words


def test_folds_of_a_run_start_from_the_same_weights_wherever_they_are(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(weights: str, fold: int) -> None:
        train_run(replace(config, training=replace(config.training, weights=weights), fold=fold))

    for seed, name in enumerate(("here.pth", "other.pth")):
        torch.manual_seed(seed)
        torch.save(build_backbone(config.training).state_dict(), name)
    shutil.copy("here.pth", "there.pth")
    train("here.pth", 0)
    record = read_json(Path("oof/densenet_tiny/config.json"))
    assert record["weights_digest"] == digest_file(Path("here.pth"))
    with pytest.raises(UserError, match=r"weights was here.pth and is other.pth now; weights_dig"):
        train("other.pth", 1)
    train("there.pth", 1)
    run = open_run(replace(config, run="densenet_tiny"), open_folds(config.folders))
    assert len(run.oof.ids) == 90
    # A fold that is finished needs no weights; one that is not says which.
    Path("here.pth").unlink()
    capsys.readouterr()
    train("here.pth", 0)
    assert "fold 0 is finished already" in capsys.readouterr().out
    shutil.rmtree(run.fold_folder(0))
    told = rf"here.pth: no such file.*\n.*begun with weights of SHA-256 {record['weights_digest']}"
    with pytest.raises(UserError, match=told):
        train("here.pth", 0)


def test_the_printed_command_survives_shells_and_make(tmp_path: Path) -> None:
    weights = tmp_path / 'my $weights\' "file".pth'
    oof = tmp_path / 'oof $x `id` " $(id)'
    folders = Folders(oof_dir=oof, cache_dir=Path("my cache"))
    training = replace(RECIPES["quick"], weights=str(weights))
    command = make_command("train", Config(folders, training, run="a", fold=3))
    # A Python that prints what a script would get, in place of the active one.
    python = tmp_path / "python"
    python.write_text(
        """#!/bin/sh\ncase "$1" in src/train.py) shift; printf '%s\\n' "$@";; esac\n"""
    )
    python.chmod(0o755)
    # As from a fresh shell: not as a part of the make that may have started the tests.
    fresh = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFL"))}
    done = subprocess.run(
        f"{command} VENV= PYTHON={python}",
        shell=True,
        cwd=ROOT,
        env=fresh,
        capture_output=True,
        text=True,
        check=True,
    )
    words = ["--input-dir", "input", "--oof-dir", str(oof), "--submissions-dir", "submissions"]
    words += ["--run", "a", "--fold", "3", "--weights", str(weights), "--cache-dir", "my cache"]
    assert sorted(done.stdout.splitlines()) == sorted(words)
