import os
import sys
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cellline.config import Folders, Machine
from cellline.errors import UserError
from cellline.runs.run_folder import History, train_command
from cellline.training.scalars import EVENTS, scalars

FOLDER = Path("oof/a/fold0")


def history(epochs: int) -> History:
    return [
        {"epoch": k, "train_loss": 2 / k, "held_out_bac": 0.1 * k} for k in range(1, epochs + 1)
    ]


def shown(accumulator: EventAccumulator) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard draws: of each tag the steps and their values."""
    accumulator.Reload()
    tags = accumulator.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in tags}


def expected(epochs: int) -> dict[str, list[tuple[int, float]]]:
    """The same of a history; TensorBoard's values are of single precision."""
    return {
        name: [(k + 1, float(np.float32(row[name]))) for k, row in enumerate(history(epochs))]
        for name in ("train_loss", "held_out_bac")
    }


def write(have: int, until: int) -> None:
    """Go on after `have` epochs, until there are `until`."""
    with scalars(FOLDER, history(have), wanted=True) as show:
        for row in history(until)[have:]:
            show(row)


def test_each_epoch_is_there_as_soon_as_it_has_ended() -> None:
    live = EventAccumulator(str(FOLDER))
    with scalars(FOLDER, [], wanted=True) as show:
        for k, row in enumerate(history(3), start=1):
            show(row)
            assert shown(live) == expected(k)


@pytest.mark.parametrize("lost", [0, 1, 30, 200, 10_000])
@pytest.mark.parametrize("saved", [0, 2, 3])
def test_a_resumed_fold_shows_each_epoch_once(saved: int, lost: int) -> None:
    write(0, 3)
    # Killed: the file lost its end, and of the epochs that it shows the last may not be saved.
    [path] = FOLDER.glob(f"{EVENTS}*")
    os.truncate(path, max(0, path.stat().st_size - lost))
    write(saved, 5)
    assert shown(EventAccumulator(str(FOLDER))) == expected(5)


def test_when_off_nothing_is_imported_or_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # can't be imported
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with scalars(FOLDER, [], wanted=False) as show:
        show(history(1)[0])
    assert "torch.utils.tensorboard" not in sys.modules
    assert not FOLDER.exists()


def test_a_missing_package_is_named_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with (
        pytest.raises(UserError, match=r"-m pip install tensorboard\n"),
        scalars(FOLDER, [], wanted=True),
    ):
        raise AssertionError("it is trained")


def test_the_command_that_goes_on_asks_for_it_again() -> None:
    command = train_command(Folders(), "a", 0, Machine(tensorboard=True))
    assert command == 'make train RUN=a FOLD=0 ARGS="--tensorboard"'
