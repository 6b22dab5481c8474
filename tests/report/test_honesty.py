import pytest
from made import make_run
from sklearn.metrics import balanced_accuracy_score

from cellline.report.content import Bullets, Section
from cellline.report.honesty import honesty_section
from cellline.report.learning import flattery
from cellline.report.trials import Study, Trial
from cellline.runs.run_folder import Chosen
from cellline.scoring.metrics import percent


def make_study(fold: int) -> Study:
    """Two trials that were scored and one that was not."""
    trials = [
        Trial(number, "complete" if epochs else "fail", 1e-3, 64, 0.5 if epochs else None, epochs)
        for number, epochs in enumerate([3, 1, 0])
    ]
    return Study(fold, tuple(trials))


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
    run = make_run(chosen=Chosen(fold=1, trials=12))
    # What the run began with counts, not what the study has come to since.
    section = honesty_section(run, make_study(0))
    [warning] = section.warnings
    assert "12 trials of make tune looked at fold 1" in warning
    others = run.fold != 1
    bac = balanced_accuracy_score(run.oof.labels[others], run.predicted[others])
    assert f"Without that fold the BAC is {percent(bac)}" in warning


def test_tuning_that_chose_nothing_here_is_no_warning() -> None:
    section = honesty_section(make_run(), make_study(0))
    assert not section.warnings
    assert "2 trials of make tune looked at fold 0; nothing of this run" in sentences(section)
    elsewhere = honesty_section(make_run(finished=[0, 2], chosen=Chosen(1, 5)), None)
    assert not elsewhere.warnings
    assert "5 trials of make tune looked at fold 1" in sentences(elsewhere)
    assert not honesty_section(make_run(), None).warnings


def test_one_fold_alone_that_was_tuned_on_has_no_other_score() -> None:
    [warning] = honesty_section(make_run(finished=[0], chosen=Chosen(0, 2)), None).warnings
    assert "Without that fold" not in warning
