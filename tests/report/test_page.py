"""The sections of a run's page, and its head."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from typing import Any

import numpy as np
import pytest
from made import guess, make_folds, make_run
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, create_trial
from sklearn.metrics import (
    balanced_accuracy_score,
    cohen_kappa_score,
    log_loss,
    roc_auc_score,
)

from cellline.config import MetricName
from cellline.report.auditing import audit_section, likeness_section
from cellline.report.content import Figure, Grid, Section
from cellline.report.learning import tuning_section
from cellline.report.page import compose
from cellline.report.scores import show_metrics, spread_over_folds
from cellline.report.trials import TuningHistory
from cellline.runs.folds import NO_PAIRS
from cellline.runs.run import Run, Tuning
from cellline.scoring.metrics import METRICS
from cellline.scoring.words import percent
from cellline.submitting.decision import expect, hold_out


def page_of(run: Run) -> str:
    return compose(run, expect(hold_out([run.oof])), None)


def texts(section: Section) -> str:
    """The paragraphs and bullets of a section."""
    lists = [[block] if isinstance(block, str) else block for block in section.blocks]
    return " ".join(text for each in lists if isinstance(each, list) for text in each)


@pytest.mark.parametrize(
    ("metric", "n_classes", "shape"),
    [("balanced_accuracy", 2, (1, 8, 20)), ("map5", 31, (2, 30, 10))],
)
def test_any_number_of_classes_channels_and_pixels(
    metric: MetricName, n_classes: int, shape: tuple[int, int, int]
) -> None:
    classes = [f"kind {k}" for k in range(n_classes)]
    folds = make_folds(classes, 6 * n_classes, shape, metric)
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
    assert len(set(linked)) == 9
    assert not re.search(r"Read this first|not trained yet", page)


@pytest.mark.parametrize(
    ("metric", "n_classes", "score", "guessing"),
    [
        ("log_loss", 3, lambda labels, prob: f"{log_loss(labels, prob):.3f}", "1.099"),
        (
            "roc_auc",
            2,
            lambda labels, prob: f"{100 * roc_auc_score(labels, prob[:, 1]):.1f} %",
            "50.0 %",
        ),
        (
            "quadratic_kappa",
            5,
            lambda labels, prob: (
                f"{cohen_kappa_score(labels, prob.argmax(1), weights='quadratic'):.3f}"
            ),
            "0.000",
        ),
    ],
)
def test_the_page_shows_the_competitions_metric(
    metric: MetricName,
    n_classes: int,
    score: Callable[[np.ndarray, np.ndarray], str],
    guessing: str,
) -> None:
    folds = make_folds([f"kind {k}" for k in range(n_classes)], 12 * n_classes, metric=metric)
    run = make_run(folds, tuning=Tuning(fold=1, trials=2))
    study = TuningHistory(METRICS[metric], 1, [make_trial(0.4), make_trial(0.6)])
    text = text_of(compose(run, expect(hold_out([run.oof])), study))
    title = METRICS[metric].title
    assert f"made: {title} " in text
    assert f"Guessing gives {guessing}." in text
    assert f"The competition is scored by {title}." in text
    # By itself and with all views, the first row of the further scores.
    shown = score(run.oof.labels, run.oof.prob)
    assert f"with TTA without {title} {shown} [" in text
    assert f"The folds' {title} ranges from " in text
    assert f"Without that fold the {title} is " in text
    assert f"batch size epochs held-out {title} " in text
    assert f"complete 0.003 8 1 {METRICS[metric].show(0.4)}" in text
    # The best epoch, of 0.5, 0.75 and 0.7, and how much it would flatter.
    best = {"log_loss": "1, 0.500 +0.200", "quadratic_kappa": "2, 0.750 +0.050"}
    assert best.get(metric, "2, 75.0 % +5.0 points") in text
    # Whatever the decision, probabilities are calibrated.
    assert float(text.split("Calibration changes log loss by ")[1].split(" [")[0]) != 0
    assert not re.search(r"BAC|nan|alone, \.", text)


def make_trial(value: float) -> FrozenTrial:
    ranges = {"lr": FloatDistribution(1e-4, 1e-1), "batch_size": IntDistribution(8, 64)}
    settings = {"lr": 0.003, "batch_size": 8}
    return create_trial(
        params=settings, distributions=ranges, value=value, intermediate_values={0: value}
    )


def text_of(page: str) -> str:
    """The text of a page, of its figures and of their alternatives."""
    shown = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    names = " ".join(re.findall(r'aria-label="([^"]*)"', shown))
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown) + names).split())


def test_guessing_is_of_the_classes_frequencies() -> None:
    folds = make_folds(["no", "yes"])
    folds.competition.labels[:] = np.arange(60) % 10 == 0
    expected = -0.1 * np.log(0.1) - 0.9 * np.log(0.9)
    told = show_metrics(make_run(folds)).note
    assert f"guessing the classes' frequencies gives {expected:.3f}" in told


def test_a_fold_without_a_score_is_omitted_from_the_spread() -> None:
    """The ROC AUC of a fold that has one class alone."""
    folds = make_folds(["no", "yes"], metric="roc_auc")
    folds.competition.labels[folds.fold == 1] = 0
    words, figure = spread_over_folds(make_run(folds))
    assert isinstance(words, str) and isinstance(figure, Figure)
    assert re.findall(r"fold \d", figure.alternative) == ["fold 0", "fold 2"]
    assert "nan" not in words + figure.alternative + figure.svg


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
