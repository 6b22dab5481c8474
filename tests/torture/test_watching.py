"""What watches a training shows the same whatever happened to it."""

import csv
from pathlib import Path

import numpy as np
from harness import Kill
from launcher import SYNCING
from scenes import Scenes
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def test_tensorboard_shows_each_epoch_of_a_killed_training_once(
    scenes: Scenes, tmp_path: Path
) -> None:
    folder = scenes.train.set_up(tmp_path / "killed")
    # While the fourth epoch is saved.
    ended = scenes.train.run(folder, "--tensorboard", kill=Kill(SYNCING, 10))
    assert ended.killed, ended.printed
    ended = scenes.train.run(folder, "--tensorboard")
    assert ended.status == 0, ended.printed

    fold = folder / "oof" / "densenet161" / "fold0"
    with (fold / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(fold)).Reload()
    assert set(events.Tags()["scalars"]) == {*rows[0]} - {"epoch"}
    for name in events.Tags()["scalars"]:
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(int(row["epoch"]), np.float32(row[name])) for row in rows], name
