import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from cellline.config import Training
from cellline.data.competition import Competition
from cellline.errors import UserError
from cellline.report.trials import read_study
from cellline.runs.folds import Folds
from cellline.tuning.storage import open_storage
from cellline.tuning.study import describe_study, draw_parameters, open_study

FIRST = {"lr": 1e-3, "batch_size": 64}


JOURNAL = "oof/tuning/journal.log"


def begin(where: str, settings: dict[str, Any]) -> optuna.Study:
    return open_study(open_storage(where, print), settings, FIRST)


@pytest.fixture
def settings(training: Training, competition: Competition, folds: Folds) -> dict[str, Any]:
    return describe_study(competition, folds, training, 1)


@pytest.fixture
def journal(settings: dict[str, Any]) -> Path:
    """A study of fold 1 with a trial of each kind."""
    try_each_kind(begin(JOURNAL, settings))
    return Path(JOURNAL)


def try_each_kind(study: optuna.Study) -> None:
    for values, state in (
        ([0.4, 0.5], TrialState.COMPLETE),
        ([0.2], TrialState.PRUNED),
        ([], TrialState.PRUNED),
        ([], None),
    ):
        trial = study.ask()
        draw_parameters(trial, FIRST)
        for epoch, value in enumerate(values):
            trial.report(value, epoch)
        if state is not None:
            study.tell(trial, values[-1] if state == TrialState.COMPLETE else None, state=state)
    study.enqueue_trial(FIRST)


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
    assert all(3e-5 <= t.lr <= 1e-2 and t.batch_size in (16, 32, 64, 128) for t in study.trials)
    assert study.looks == 2
    assert journal.read_bytes() == before


def test_a_study_in_a_database_or_another_file_is_read_the_same(
    settings: dict[str, Any], folds: Folds
) -> None:
    # Drawn at random, from the same seed.
    seen = []
    for where in (JOURNAL, "shared/study.log", "sqlite:///study.db"):
        study = begin(where, settings)
        study.sampler = optuna.samplers.RandomSampler(seed=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that heartbeats want Study.optimize()
            try_each_kind(study)
        seen.append(read_study(Path("oof"), folds.digest, where))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0] == read_study(Path("oof"), folds.digest)


def test_a_study_that_is_not_where_it_was_said_to_be_is_a_mistake(folds: Folds) -> None:
    with pytest.raises(UserError, match=r"--storage other/journal\.log: there is no such file"):
        read_study(Path("oof"), folds.digest, "other/journal.log")
    with pytest.raises(UserError, match=r"there is no study in sqlite:///empty\.db"):
        read_study(Path("oof"), folds.digest, "sqlite:///empty.db")


def test_nothing_was_tuned_where_no_trial_has_begun(settings: dict[str, Any], folds: Folds) -> None:
    assert read_study(Path("oof"), folds.digest) is None
    assert not Path("oof").exists()
    begin(JOURNAL, settings)
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
