"""The sections of a run's page, and its head."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made import guess, make_folds, make_run
from sklearn.metrics import balanced_accuracy_score

from cellline.report.auditing import audit_section, likeness_section
from cellline.report.content import Grid, Section
from cellline.report.learning import tuning_section
from cellline.report.page import compose
from cellline.runs.folds import NO_PAIRS
from cellline.runs.run import Run, Tuning
from cellline.scoring.words import percent
from cellline.submitting.decision import expect, hold_out


def page_of(run: Run) -> str:
    return compose(run, expect(hold_out([run.oof])), None)


def texts(section: Section) -> str:
    """The paragraphs and bullets of a section."""
    lists = [[block] if isinstance(block, str) else block for block in section.blocks]
    return " ".join(text for each in lists if isinstance(each, list) for text in each)


@pytest.mark.parametrize(("n_classes", "shape"), [(2, (1, 8, 20)), (31, (2, 30, 10))])
def test_any_number_of_classes_channels_and_pixels(
    n_classes: int, shape: tuple[int, int, int]
) -> None:
    classes = [f"kind {k}" for k in range(n_classes)]
    folds = make_folds(classes, 6 * n_classes, shape)
    page = page_of(make_run(folds, guess(folds.competition.labels, n_classes, 0.6)))
    head = " ".join(page[page.index("<header>") : page.index("</header>")].split())
    assert f"of {n_classes} classes, " in head
    assert f"of {shape[2]} by {shape[1]} pixels." in head
    # The confusion matrix has every class twice. Of many, the worst classes and pairs are shown.
    shown = [len(re.findall(f">{name}</th>", page)) for name in classes]
    if n_classes == 31:
        assert sum(shown) == 2 * 20
        assert "The 20 confusions that cost most recall" in page
        assert "Recall by class, the lowest 20 of 31" in page
    else:
        assert min(shown) >= 2
    # The table of contents has every section.
    contents = page[page.index("<nav") : page.index("</nav>")]
    linked = re.findall(r'href="#(\w+)"', contents)
    assert linked == re.findall(r'<section id="(\w+)"', page)
    # No tuning chose its settings, so no section says so.
    assert len(set(linked)) == 8
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
    assert "by the rule of a submission of this run alone" in head
    for part in (head, body):
        assert "The test set looks different: AUC 0.90" in part


def test_the_smallest_groups_are_shown() -> None:
    folds = make_folds()
    joined = replace(folds.pairs, overlaps=np.array([[0, 2]]))
    run = make_run(replace(folds, pairs=joined))
    [grid] = [block for block in audit_section(run).blocks if isinstance(block, Grid)]
    assert [tile.caption[0] for tile in grid.tiles[:4]] == ["5", "6", "7", "8"]
    assert grid.tiles[0].source == grid.tiles[1].source != grid.tiles[2].source
    assert grid.tiles[0].caption[1:] == ("group 5", "RT4")
    run = make_run(replace(folds, pairs=NO_PAIRS))
    assert not [block for block in audit_section(run).blocks if isinstance(block, Grid)]


def test_tuning_on_a_reported_fold_is_a_caution_with_the_score_of_the_others() -> None:
    run = make_run(tuning=Tuning(fold=1, trials=12))
    [caution] = tuning_section(run, None).cautions
    assert "12 trials of a tuning looked at fold 1" in caution
    others = run.oof.fold != 1
    bac = balanced_accuracy_score(run.oof.labels[others], run.oof.predicted[others])
    assert f"Without that fold the BAC is {percent(bac)}" in caution


def test_only_finished_folds_count_as_tuned_on() -> None:
    run = make_run(finished=[0], tuning=Tuning(fold=1, trials=5))
    section = tuning_section(run, None)
    assert not section.cautions
    assert "5 trials of a tuning looked at fold 1" in texts(section)


def test_a_run_without_a_test_set_has_a_page() -> None:
    folds = make_folds()
    competition, audit = folds.competition, dict(folds.record["audit"])
    none = replace(
        competition,
        test_ids=competition.test_ids[:0],
        test_images=competition.test_images[:0],
        template=(),
    )
    record = {**folds.record, "audit": {**audit, "shift": None, "test_grouped": 0}}
    page = page_of(make_run(replace(folds, competition=none, record=record)))
    assert "Training against test" not in page
    assert "no test sample" not in page
