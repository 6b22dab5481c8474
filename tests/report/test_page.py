"""The sections of a run's page, and its head."""

import re
from typing import Any

import numpy as np
import pytest
from made import guess, make_folds, make_run
from sklearn.metrics import balanced_accuracy_score

from cellline.report.auditing import GROUPS, audit_section, choose_groups, likeness_section
from cellline.report.content import Grid, Section
from cellline.report.honesty import flattery, honesty_section
from cellline.report.page import compose
from cellline.report.trials import TrialRow, TuningHistory
from cellline.runs.run import Run, Tuning
from cellline.scoring.metrics import percent, score


def page_of(run: Run) -> str:
    return compose(run, score(run.oof.labels, run.oof.prob, run.oof.bootstrap), None)


def texts(section: Section) -> str:
    """The paragraphs and bullets of a section."""
    lists = [[block] if isinstance(block, str) else block for block in section.blocks]
    return " ".join(text for each in lists if isinstance(each, list) for text in each)


@pytest.mark.parametrize(("n_classes", "shape"), [(2, (1, 8, 20)), (20, (2, 30, 10))])
def test_any_number_of_classes_channels_and_pixels(
    n_classes: int, shape: tuple[int, int, int]
) -> None:
    classes = [f"kind {k}" for k in range(n_classes)]
    folds = make_folds(classes, 6 * n_classes, shape)
    page = page_of(make_run(folds, guess(folds.competition.labels, n_classes, 0.6)))
    head = " ".join(page[page.index("<header>") : page.index("</header>")].split())
    assert f"of {n_classes} classes, " in head
    assert f"of {shape[2]} by {shape[1]} pixels." in head
    # The confusion matrix has every class twice.
    assert all(len(re.findall(f">{name}</th>", page)) >= 2 for name in classes)
    # The table of contents has every section.
    contents = page[page.index("<nav") : page.index("</nav>")]
    linked = re.findall(r'href="#(\w+)"', contents)
    assert linked == re.findall(r'<section id="(\w+)"', page)
    assert len(set(linked)) == 10
    assert not re.search(r"Read this first|not trained yet", page)


def test_the_head_says_what_is_missing_and_decided() -> None:
    page = page_of(make_run(finished=[0, 2]))
    assert "Fold 1 is not trained yet:\nmake train RUN=made" in page
    # Only three folds can judge the decision rule.
    assert "With the decision rule" not in page


def test_a_shifted_test_set_is_a_caution_at_the_head() -> None:
    run = make_run()
    assert not likeness_section(run).cautions
    shift: dict[str, Any] = run.folds.record["audit"]["shift"]
    shift["auc"].update(value=0.9, low=0.8, high=1.0)
    head, body = page_of(run).split("<main>")
    assert "Read this first" in head
    assert "With the decision rule" in head
    for part in (head, body):
        assert "The test set looks different: AUC 0.90" in part


def test_groups_of_different_classes_are_shown_with_copies_side_by_side() -> None:
    run = make_run()
    # A larger group of HeLa, of two pairs of copies that are not next to each other.
    run.folds.group[[2, 3, 8, 9]] = 3
    images = run.competition.train_images
    images[8], images[[3, 9]] = images[2], images[4]
    chosen = choose_groups(run)
    assert {frozenset(chosen[0][:2]), frozenset(chosen[0][2:])} == {
        frozenset({2, 8}),
        frozenset({3, 9}),
    }
    assert len({run.competition.labels[rows[0]] for rows in chosen}) == GROUPS


def test_unrelated_samples_are_no_group() -> None:
    run = make_run()
    run.folds.group[:] = np.arange(len(run.folds.group))
    section = audit_section(run)
    assert not [block for block in section.blocks if isinstance(block, Grid)]
    assert "No two training pictures belong together." in texts(section)


def make_study() -> TuningHistory:
    """Three trials of fold 0, of which two were scored."""
    trials = [
        TrialRow(0, "complete", 1e-3, 64, bac=0.5, epochs=3),
        TrialRow(1, "pruned", 1e-3, 64, bac=0.4, epochs=1),
        TrialRow(2, "fail", 1e-3, 64, bac=None, epochs=0),
    ]
    return TuningHistory(0, tuple(trials))


def test_the_best_epoch_would_have_flattered() -> None:
    # Every fold had 75 % after the second of three epochs and 70 % after the last.
    run = make_run()
    assert flattery(run) == pytest.approx(0.05)
    assert "+5.0 points" in texts(honesty_section(run, None))


def test_tuning_on_a_reported_fold_is_a_caution_with_the_score_of_the_others() -> None:
    run = make_run(tuning=Tuning(fold=1, trials=12))
    # The tuning that the run began with counts, not what the study has come to since.
    [caution] = honesty_section(run, make_study()).cautions
    assert "12 trials of a tuning looked at fold 1" in caution
    others = run.oof.fold != 1
    bac = balanced_accuracy_score(run.oof.labels[others], run.oof.predicted[others])
    assert f"Without that fold the BAC is {percent(bac)}" in caution


def test_tuning_that_chose_nothing_here_is_no_caution() -> None:
    section = honesty_section(make_run(), make_study())
    assert not section.cautions
    assert "2 trials of a tuning looked at fold 0; this run took nothing" in texts(section)


def test_only_finished_folds_count_as_tuned_on() -> None:
    run = make_run(finished=[0], tuning=Tuning(fold=1, trials=5))
    section = honesty_section(run, None)
    assert not section.cautions
    assert "5 trials of a tuning looked at fold 1" in texts(section)
