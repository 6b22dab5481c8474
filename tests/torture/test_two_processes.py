"""Two processes at once, on the same fold or on different ones."""

import os
import re
import signal
from pathlib import Path

import pytest
from harness import finished_trials, snapshot
from launcher import SYNCING
from scenes import TINY, Scene, Scenes


@pytest.mark.parametrize(
    ("verb", "at", "what"),
    [
        ("train", (SYNCING, 6), r"fold0 .* \(training fold 0\)"),
        ("folds", (SYNCING, 1), r"oof .* \(dealing folds\)"),
    ],
)
def test_the_second_at_the_same_stops_and_names_the_first(
    scenes: Scenes, tmp_path: Path, verb: str, at: tuple[str, int], what: str
) -> None:
    scene: Scene = getattr(scenes, verb)
    folder = scene.set_up(tmp_path / "folder")
    with scene.pause(folder, at=at) as first:
        second = scene.run(folder)
        assert second.status == 2
        told = what.replace(" ", f" is in use by process {first.pid} on ", 1)
        assert re.search(told, second.printed), second.printed
        first.signal()
        assert first.end().status == 0
    assert snapshot(folder) == scene.expected


def test_different_folds_at_once(scenes: Scenes, tmp_path: Path) -> None:
    folders = [scenes.train.set_up(tmp_path / name) for name in ("one-by-one", "at-once")]
    arguments = ("--input-dir", str(scenes.folder / "input"), "--epochs", "3", *TINY)
    assert scenes.verbs.run(folders[0], "train", *arguments).status == 0
    at_once = [
        scenes.verbs.start(folders[1], "train", "--fold", str(fold), *arguments)
        for fold in range(3)
    ]
    for running in at_once:
        ended = running.end()
        assert ended.status == 0, ended.printed
    assert snapshot(folders[1]) == snapshot(folders[0])


def test_two_tune_one_study(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes.tune
    folder = scene.set_up(tmp_path / "folder")
    ends = [running.end() for running in [scene.start(folder) for _ in range(2)]]
    assert [ended.status for ended in ends] == [0, 0], ends
    # Both may begin the last trial at once.
    assert len(finished_trials(folder / "oof/tuning/journal.log")) in (4, 5)
    assert snapshot(folder).keys() == scene.expected.keys()


def test_the_lock_is_free_again_once_its_holder_is_killed(scenes: Scenes, tmp_path: Path) -> None:
    scene = scenes.train
    folder = scene.set_up(tmp_path / "folder")
    with scene.pause(folder, "--workers", "2") as first:
        os.kill(first.pid, signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        assert len(first.states()) >= 2  # its loaders outlive it for some seconds
        second = scene.run(folder)
        assert second.status == 0, second.printed
    assert snapshot(folder) == scene.expected
