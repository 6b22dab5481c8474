from pathlib import Path

import pytest
from optuna.trial import TrialState

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.data.folds import Folds
from cellline.errors import UserError
from cellline.report.trials import read_study
from cellline.tuning import describe_study, open_study

FIRST = {"lr": 1e-3, "batch_size": 64}


@pytest.fixture
def journal(training: Training, competition: Competition, folds: Folds) -> Path:
    """A study of fold 1 with a trial of each kind."""
    settings = describe_study(competition, folds, training, 1)
    study = open_study(Path("oof/tuning"), settings, FIRST)
    for values, state in (
        ([0.4, 0.5], TrialState.COMPLETE),
        ([0.2], TrialState.PRUNED),
        ([], TrialState.PRUNED),
        ([], None),
    ):
        trial = study.ask()
        trial.suggest_float("lr", 1e-4, 1e-2, log=True)
        trial.suggest_categorical("batch_size", [16, 64])
        for epoch, value in enumerate(values):
            trial.report(value, epoch)
        if state is not None:
            study.tell(trial, values[-1] if state == TrialState.COMPLETE else None, state=state)
    study.enqueue_trial(FIRST)
    return Path("oof/tuning/journal.log")


def test_every_trial_is_read_with_how_often_it_was_scored(journal: Path, folds: Folds) -> None:
    before = journal.read_bytes()
    study = read_study(Path("oof"), folds.digest)
    assert study is not None
    assert study.fold == 1
    assert [(t.state, t.bac, t.epochs) for t in study.trials] == [
        ("complete", 0.5, 2),
        ("pruned", 0.2, 1),
        ("pruned", None, 0),
        ("running", None, 0),
    ]
    assert (study.trials[0].lr, study.trials[0].batch_size) == (1e-3, 64)
    assert study.looks == 2
    assert journal.read_bytes() == before


def test_nothing_was_tuned_where_no_trial_has_begun(
    training: Training, competition: Competition, folds: Folds
) -> None:
    assert read_study(Path("oof"), folds.digest) is None
    assert not Path("oof").exists()
    open_study(Path("oof/tuning"), describe_study(competition, folds, training, 0), FIRST)
    assert read_study(Path("oof"), folds.digest) is None


def test_a_study_that_was_stopped_as_it_began_is_none(folds: Folds) -> None:
    Path("oof/tuning").mkdir(parents=True)
    Path("oof/tuning/journal.log").touch()
    assert read_study(Path("oof"), folds.digest) is None


def test_a_study_of_other_folds_is_refused_with_both_sides(journal: Path) -> None:
    told = r"journal\.log is of other folds \(333333333333\) than there are now \(444444444444\)"
    with pytest.raises(UserError, match=told):
        read_study(Path("oof"), "4" * 64)


def test_a_journal_that_is_damaged_is_named(journal: Path, folds: Folds) -> None:
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for damaged in (
        whole.replace(b"0.5", b"0.9", 1),
        b"".join(lines[:-2] + lines[-1:]),
        b'{"op_code": 0}\n',
        bytes(100) + b"\n",
    ):
        journal.write_bytes(damaged)
        with pytest.raises(UserError, match=r"oof/tuning/journal\.log is damaged: line \d+"):
            read_study(Path("oof"), folds.digest)
        assert journal.read_bytes() == damaged
