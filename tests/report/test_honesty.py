import pytest
from made import make_run
from sklearn.metrics import balanced_accuracy_score

from cellline.prediction.metrics import percent
from cellline.report.content import Bullets, Section
from cellline.report.honesty import honesty_section
from cellline.report.learning import flattery
from cellline.report.run import Run
from cellline.report.trials import Study, Trial
from cellline.training.settings import Tuned


def make_study(run: Run, fold: int, *, tuned: bool) -> Study:
    """Two trials that were scored and one that was not; the run has what was found, or not."""
    lr = run.settings["lr"] if tuned else 2 * run.settings["lr"]
    trials = [
        Trial(number, "complete" if epochs else "fail", lr, 64, 0.5 if epochs else None, epochs)
        for number, epochs in enumerate([3, 1, 0])
    ]
    return Study(fold, tuple(trials), Tuned(lr, 64, 0.5, fold, 2, {}))


def sentences(section: Section) -> str:
    return " ".join(
        item for block in section.blocks if isinstance(block, Bullets) for item in block.items
    )


def test_the_best_epoch_would_have_flattered() -> None:
    # Every fold of it had 75 % after the second of three epochs and 70 % after the last.
    run = make_run()
    assert flattery(run) == pytest.approx(0.05)
    assert "+5.0 points" in sentences(honesty_section(run, None))


def test_tuning_on_a_reported_fold_is_a_warning_and_the_others_score_is_given() -> None:
    run = make_run()
    section = honesty_section(run, make_study(run, 1, tuned=True))
    [warning] = section.warnings
    assert "2 trials of make tune looked at fold 1" in warning
    others = run.fold != 1
    bac = balanced_accuracy_score(run.oof.labels[others], run.predicted[others])
    assert f"Without that fold the BAC is {percent(bac)}" in warning


def test_tuning_that_chose_nothing_here_is_no_warning() -> None:
    run = make_run(finished=[0, 2])
    for study in (make_study(run, 0, tuned=False), make_study(run, 1, tuned=True)):
        section = honesty_section(run, study)
        assert not section.warnings
        assert f"2 trials of make tune looked at fold {study.fold}" in sentences(section)
    assert not honesty_section(run, None).warnings


def test_one_fold_alone_that_was_tuned_on_has_no_other_score() -> None:
    run = make_run(finished=[0])
    [warning] = honesty_section(run, make_study(run, 0, tuned=True)).warnings
    assert "Without that fold" not in warning
