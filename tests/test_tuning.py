import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cellline import tuning
from cellline.config import Training
from cellline.data.competition import Competition
from cellline.data.folds import Folds
from cellline.device import Device
from cellline.errors import UserError
from cellline.training.loop import DivergedError, FoldTrainer
from cellline.training.settings import Tuned, read_tuned

FOLDER = Path("oof/tuning")


@pytest.fixture
def search(competition: Competition, folds: Folds, training: Training, device: Device) -> Any:
    def run(trials: int, **changes: Any) -> Tuned:
        return tuning.tune(
            competition,
            folds,
            replace(training, **{"epochs": 2, "lr": None, "batch_size": None, **changes}),
            device,
            fold=0,
            trials=trials,
            folder=FOLDER,
            report=print,
        )

    return run


def study() -> optuna.Study:
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(FOLDER / "journal.log"))
    )
    return optuna.load_study(study_name=tuning.STUDY, storage=storage)


def parameters() -> list[tuple[float, int, TrialState]]:
    return [(t.params["lr"], t.params["batch_size"], t.state) for t in study().trials]


def test_todays_settings_come_first_and_the_best_is_written(search: Any) -> None:
    found = search(3)
    trials = study().trials
    assert trials[0].params == {"lr": 1e-3, "batch_size": 64}
    assert len(trials) == 3
    best = max((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: t.value or 0)
    assert (found.lr, found.batch_size) == (best.params["lr"], best.params["batch_size"])
    assert found.bac == best.value
    assert read_tuned(Path("oof")) == found
    assert (found.trials, found.fold) == (3, 0)


def test_a_finished_study_does_nothing_more(search: Any) -> None:
    search(2)
    before = (FOLDER / "best.json").read_bytes()
    search(2)
    assert len(study().trials) == 2
    assert (FOLDER / "best.json").read_bytes() == before


@pytest.mark.parametrize("interrupted", [0, 2])
def test_an_interrupted_study_goes_on_as_if_it_had_not_been(
    search: Any, monkeypatch: pytest.MonkeyPatch, interrupted: int
) -> None:
    search(4)
    expected = parameters()
    assert len({lr for lr, *_ in expected}) == 4
    FOLDER.rename("oof/whole")
    trained = FoldTrainer.train_epoch

    def die(self: FoldTrainer, epoch: int, progress: Any) -> Any:
        if epoch == 1 and len(study().trials) == interrupted + 1:
            raise KeyboardInterrupt
        return trained(self, epoch, progress)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(FoldTrainer, "train_epoch", die)
        search(4)
    search(4)
    found = parameters()
    # The trial that was under way is marked failed, and its settings are tried again.
    assert [state for *_, state in found].count(TrialState.FAIL) == 1
    assert found[interrupted][2] == TrialState.FAIL
    assert found[interrupted][:2] == expected[interrupted][:2]
    assert [trial for trial in found if trial[2] != TrialState.FAIL] == expected


def test_the_first_trial_may_lie_outside_the_search(search: Any) -> None:
    found = search(1, lr=0.05, batch_size=48)
    assert (found.lr, found.batch_size) == (0.05, 48)
    search(3)
    assert parameters()[0][:2] == (0.05, 48)


def test_when_every_trial_diverges_it_says_so(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any) -> Any:
        raise DivergedError("no number")

    monkeypatch.setattr(FoldTrainer, "train_epoch", diverge)
    with pytest.raises(UserError, match="no trial came to its end"):
        search(2)
    assert not (FOLDER / "best.json").exists()


def test_trials_that_diverge_are_pruned(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = FoldTrainer.train_epoch

    def diverge(self: FoldTrainer, epoch: int, progress: Any) -> Any:
        if self.peak_lr != 1e-3:
            raise DivergedError("no number")
        return trained(self, epoch, progress)

    monkeypatch.setattr(FoldTrainer, "train_epoch", diverge)
    assert search(2).lr == 1e-3
    assert study().trials[1].state == TrialState.PRUNED


def test_a_study_of_other_settings_is_not_continued(search: Any) -> None:
    search(1)
    with pytest.raises(UserError, match=r"dropout was 0\.2 and is 0\.3 now.*move .* away"):
        search(1, dropout=0.3)
    assert json.loads((FOLDER / "best.json").read_text())["settings"]["dropout"] == 0.2
