from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellline.config import Config, Training
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.stopping import Stop
from cellline.runs.folds import Folds
from cellline.runs.run import new_run
from cellline.training.checkpoint import digest_values
from cellline.training.fitting import FEWEST_EPOCHS, Costs, choose_schedule, fit_schedule
from cellline.training.fold import train_fold
from cellline.training.task import Task
from cellline.training.trainer import FoldTrainer

SECONDS = st.floats(0.1, 10)


@given(
    costs=st.builds(
        Costs,
        training=st.fixed_dictionaries({64: SECONDS, 96: SECONDS}),
        predicting=st.fixed_dictionaries({64: SECONDS, 96: SECONDS}),
        views=st.sampled_from([1, 8]),
        saving=SECONDS,
        starting=SECONDS,
    ),
    seconds=st.floats(1, 60),
    share=st.floats(0, 0.99),
    start_size=st.sampled_from([64, 96, None]),
)
def test_the_schedule_takes_as_much_of_the_time_as_any_and_never_more(
    costs: Costs, seconds: float, share: float, start_size: int | None
) -> None:
    # Of so many epochs that the most, three times as many, are more than all others here.
    asked = Training(epochs=67, image_size=96, start_size=start_size, start_share=share)

    def fits(training: Training) -> bool:
        return costs.fold(training) <= seconds

    # Every other schedule with a number of first epochs near the share.
    others = [
        replace(asked, epochs=epochs, start_share=(starts + 0.5) / epochs)
        for epochs in range(FEWEST_EPOCHS, 201)
        for starts in range(max(0, int(share * epochs) - 1), min(int(share * epochs) + 2, epochs))
        if start_size == 64 or starts == int(share * epochs)
    ]
    fitting = [costs.fold(other) for other in others if fits(other)]
    chosen = choose_schedule(asked, costs, seconds)
    if fitting:
        assert chosen is not None
        assert costs.fold(chosen) == pytest.approx(max(fitting))
        assert abs(chosen.first_epochs - int(share * chosen.epochs)) <= 1
        assert chosen == replace(asked, epochs=chosen.epochs, start_share=chosen.start_share)
    elif chosen is not None:
        # All epochs are small ones, as many as fit.
        assert chosen.image_size == chosen.first_size == 64
        assert fits(chosen)
        assert not fits(replace(chosen, epochs=chosen.epochs + 1))
    else:
        assert not fits(replace(asked, epochs=FEWEST_EPOCHS, image_size=asked.first_size))


def test_the_most_epochs_are_three_times_the_recipes() -> None:
    seconds = {64: 1.0, 96: 0.5}
    costs = Costs(seconds, seconds, views=1, saving=1.0, starting=1.0)
    asked = Training(epochs=8, image_size=96, start_size=64)
    chosen = choose_schedule(asked, costs, 1e9)
    assert chosen is not None
    assert chosen.epochs == 24
    # Found by chance: more of the cheap epochs fit than those three times.
    chosen = choose_schedule(replace(asked, epochs=67, start_share=0.0), costs, 53.0)
    assert chosen is not None
    assert costs.fold(chosen) == 52.5


def test_measuring_the_speed_leaves_no_trace(
    folds: Folds, training: Training, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cellline.training.fitting.MEASURE_SECONDS", 0.0)  # as few steps as it can
    sized = replace(training, epochs=2, image_size=16, start_size=12)
    task = Task(folds, 0, sized, device)

    def train(name: str) -> tuple[str, bytes]:
        trainer, run = FoldTrainer(task), new_run(Config(training=sized, run=name), folds)
        train_fold(trainer, run, Stop())
        return digest_values(trainer.learner.model.state_dict()), run.oof_path(0).read_bytes()

    before = train("a")
    left = sorted(Path("oof").rglob("*"))
    chosen = fit_schedule(task, 1e3, 2, Path("oof"))
    assert sorted(Path("oof").rglob("*")) == left
    free = {"epochs": chosen.epochs, "start_share": chosen.start_share}
    assert asdict(chosen) == asdict(sized) | free
    assert train("b") == before


def test_a_time_that_is_too_short_is_refused_with_what_is_needed(
    folds: Folds, training: Training, device: Device
) -> None:
    Path("oof").mkdir()
    task = Task(folds, 0, replace(training, image_size=16, start_size=12), device)
    words = r"--fit-minutes 0.001 is too short for 3 folds \(\d+ samples/s at 12 pixels, \d+ "
    with pytest.raises(UserError, match=words + r".* 4 epochs at 12 pixels take [\d.]+ minutes"):
        fit_schedule(task, 0.001, 3, Path("oof"))
