import warnings
from pathlib import Path

import pytest
from optuna.trial import TrialState

from cellline.config import Training
from cellline.errors import UserError
from cellline.host.device import Device
from cellline.host.stopping import Stop
from cellline.report.trials import read_study
from cellline.runs.folds import Folds
from cellline.tuning.tune import Task, Worker, open_study

JOURNAL = "oof/tuning/journal.log"


@pytest.fixture
def task(training: Training, folds: Folds, device: Device) -> Task:
    return Task(folds, 1, training, device)


@pytest.fixture
def journal(task: Task) -> Path:
    """A study of fold 1 with a trial of each kind."""
    try_each_kind(task, JOURNAL)
    return Path(JOURNAL)


def try_each_kind(task: Task, where: str) -> None:
    study = open_study(where, task)
    worker = Worker(task, study, Path(), Stop())
    for values, state in (
        ([0.4, 0.5], TrialState.COMPLETE),
        ([0.2], TrialState.PRUNED),
        ([], TrialState.PRUNED),
        ([], None),
    ):
        with warnings.catch_warnings(action="ignore"):  # that heartbeats want Study.optimize()
            trial = study.ask()
        worker.draw(trial)
        for epoch, value in enumerate(values):
            trial.report(value, epoch)
        if state is not None:
            study.tell(trial, values[-1] if state == TrialState.COMPLETE else None, state=state)
    study.enqueue_trial({})


def test_every_trial_is_read_with_how_often_it_was_scored(journal: Path, folds: Folds) -> None:
    before = journal.read_bytes()
    study = read_study(Path("oof"), folds.digest)
    assert study is not None
    assert study.fold == 1
    assert [(t.state.name, t.value, len(t.intermediate_values)) for t in study.trials] == [
        ("COMPLETE", 0.5, 2),
        ("PRUNED", 0.2, 1),
        ("PRUNED", None, 0),
        ("RUNNING", None, 0),
    ]
    assert study.trials[0].params == {"lr": 3e-3, "batch_size": 8}
    assert journal.read_bytes() == before


def test_a_study_in_a_database_or_another_file_is_read_the_same(task: Task, folds: Folds) -> None:
    seen = []
    for where in (JOURNAL, "shared/study.log", "sqlite:///study.db"):
        try_each_kind(task, where)
        study = read_study(Path("oof"), folds.digest, where)
        assert study is not None
        seen.append([(trial.params, trial.value, trial.state) for trial in study.trials])
    assert seen[0] == seen[1] == seen[2]


def test_a_study_that_is_not_where_it_was_said_to_be_is_a_mistake(folds: Folds) -> None:
    with pytest.raises(UserError, match=r"--storage other/journal\.log: there is no such file"):
        read_study(Path("oof"), folds.digest, "other/journal.log")
    with pytest.raises(UserError, match=r"there is no study .* in sqlite:///empty\.db"):
        read_study(Path("oof"), folds.digest, "sqlite:///empty.db")


def test_nothing_was_tuned_where_no_trial_has_begun(task: Task, folds: Folds) -> None:
    assert read_study(Path("oof"), folds.digest) is None
    assert not Path("oof").exists()
    Path("oof/tuning").mkdir(parents=True)
    Path(JOURNAL).touch()
    assert read_study(Path("oof"), folds.digest) is None
    assert [path.name for path in Path("oof/tuning").iterdir()] == ["journal.log"]
    open_study(JOURNAL, task)
    assert read_study(Path("oof"), folds.digest) is None


def test_a_study_of_other_folds_is_refused_with_both_sides(journal: Path) -> None:
    told = r"journal\.log is of other folds \(333333333333\) than there are now \(444444444444\)"
    with pytest.raises(UserError, match=told):
        read_study(Path("oof"), "4" * 64)
