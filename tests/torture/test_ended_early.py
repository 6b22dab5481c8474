"""Trainings that are asked to end: by a terminal, by a machine that is taken away, by the clock."""

import os
import re
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import snapshot
from launcher import JOURNAL
from scenes import Scene, Scenes


def resume_state(folder: Path) -> dict[str, Any] | None:
    """What the training in a folder goes on with; None where it only predicts."""
    path = folder / "oof/densenet_tiny-scratch/fold0/checkpoint.pt"
    state: dict[str, Any] | None = torch.load(path, map_location="cpu", weights_only=True)["resume"]
    return state


def go_on(scene: Scene, folder: Path) -> None:
    """The same command ends as if nothing had disturbed it."""
    ended = scene.run(folder)
    assert ended.status == 0, ended.printed
    assert "epoch 1/" not in ended.printed
    assert snapshot(folder) == scene.expected


@pytest.mark.parametrize(
    ("number", "status", "workers"),
    [(signal.SIGINT, 130, "0"), (signal.SIGINT, 130, "2"), (signal.SIGTERM, 143, "2")],
)
def test_a_signal_ends_it_within_an_epoch_after_saving(
    scenes: Scenes, tmp_path: Path, number: int, status: int, workers: str
) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    with scene.pause(folder, "--workers", workers) as running:
        running.signal(number)
        ended = running.end()
    assert ended.status == status, ended.printed
    name = signal.Signals(number).name
    # With the score of the last epoch, if one has ended.
    assert re.search(
        r"fold 0 is saved(, held-out BAC .*)?; to resume:\n  make train", ended.printed
    )
    assert ended.printed.endswith(f"{name}: stopped; rerun the same command to resume\n")
    assert ended.printed.count("finishing the step") == 1
    assert "Traceback" not in ended.printed
    # The third epoch's first step: what the signal found under way.
    state = resume_state(folder)
    assert state is not None
    assert len(state["losses"]) == 1
    go_on(scene, folder)


def test_a_second_signal_ends_it_at_once(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    with scene.pause(folder) as running:
        # Python tells of signals that came together in the order of their numbers.
        running.signal(signal.SIGHUP, signal.SIGINT)
        ended = running.end()
    assert ended.status == 130
    assert "the same command" not in ended.printed
    go_on(scene, folder)


def test_a_signal_that_a_script_ignores_in_its_background_stays_ignored(
    scenes: Scenes, tmp_path: Path
) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    with scene.pause(folder, ignored=(signal.SIGINT,)) as running:
        running.signal(signal.SIGINT)
        ended = running.end()
    assert ended.status == 0
    assert "finishing the step" not in ended.printed
    assert snapshot(folder) == scene.expected


def test_the_time_is_up_again_and_again(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    within = 0
    for life in range(100):
        # At first not even until the first step; a little longer each time.
        seconds = 0.3 + 0.3 * life
        ended = scene.run(folder, "--max-minutes", str(seconds / 60))
        assert ended.status == 0, ended.printed
        if "the time is up" not in ended.printed:
            break
        if (folder / "oof/densenet_tiny-scratch/fold0/checkpoint.pt").exists():
            assert re.search(r"make train .*FOLD=0 ARGS=", ended.printed)
            state = resume_state(folder)
            within += state is not None and len(state["losses"]) > 0
    assert within > 0
    assert snapshot(folder) == scene.expected


def test_a_loader_that_the_system_kills_ends_it(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    with scene.pause(folder, "--workers", "2") as running:
        # As where memory runs out. The loaders are the last that it has started.
        os.kill(max(running.states()), signal.SIGKILL)
        running.signal()
        ended = running.end()
    assert ended.status in (1, 2)
    go_on(scene, folder)


def test_a_signal_ends_tuning_within_a_trial_that_begins_again(
    scenes: Scenes, tmp_path: Path
) -> None:
    scene = scenes.tune
    folder = scene.set_up(tmp_path / "folder")
    # In its second trial: the study begins in three operations, a trial too, and it ends in three.
    with scene.pause(folder, at=(JOURNAL, 13)) as running:
        running.signal(signal.SIGTERM)
        ended = running.end()
    assert ended.status == 143
    assert "rerun the same command to resume" in ended.printed
    ended = scene.run(folder)
    assert ended.status == 0, ended.printed
    assert snapshot(folder) == scene.expected
