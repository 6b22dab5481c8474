import re

import pytest
from made import make_run

from cellline.report.content import Section
from cellline.report.headline import write_headline
from cellline.report.likeness import likeness_section
from cellline.report.page import compose, render
from cellline.report.run import Run
from cellline.report.scores import score_run


def head_of(run: Run, *sections: Section) -> str:
    """A page with what is at the head of each, and these sections."""
    return render(headline=write_headline(run, score_run(run)), sections=sections)


@pytest.mark.parametrize(
    ("n_classes", "channels", "height", "width"), [(2, 1, 8, 20), (40, 2, 30, 10)]
)
def test_any_number_of_classes_channels_and_pixels(
    n_classes: int, channels: int, height: int, width: int
) -> None:
    classes = [f"kind {k}" for k in range(n_classes)]
    run = make_run(
        classes, samples=12 * n_classes, channels=channels, height=height, width=width, right=0.6
    )
    page = compose(run, score_run(run), None)
    assert f"of {n_classes} classes, " in page
    assert f"of {width} by {height} pixels" in page
    # The confusion matrix has every class twice.
    assert all(len(re.findall(f">{name}</th>", page)) >= 2 for name in classes)
    # The table of contents has every section.
    contents = page[page.index("<nav") : page.index("</nav>")]
    linked = re.findall(r'href="#(\w+)"', contents)
    assert linked == re.findall(r'<section id="(\w+)"', page)
    assert len(set(linked)) == 10


def test_leaky_folds_are_said_loudly() -> None:
    assert "LEAKY FOLDS" in head_of(make_run(ignore_groups=True))
    page = head_of(make_run())
    assert "LEAKY FOLDS" not in page
    assert "Read this first" not in page


def test_missing_folds_are_named() -> None:
    assert "Folds 0 and 2 are not trained yet" in head_of(make_run(finished=[1]))
    assert "Fold 2 is not trained yet" in head_of(make_run(finished=[0, 1]))
    assert "not trained yet" not in head_of(make_run())


def test_what_is_decided_is_scored_where_three_folds_can_judge_it() -> None:
    assert "As make submit would decide" in head_of(make_run())
    assert "As make submit would decide" not in head_of(make_run(finished=[0, 1]))


def test_what_must_be_read_first_is_at_the_head() -> None:
    run = make_run()
    assert not likeness_section(run).warnings
    run.record["audit"]["shift"]["auc"] = {"value": 0.9, "low": 0.8, "high": 1.0, "error": 0.05}
    page = head_of(run, likeness_section(run))
    head, body = page.split("<main>")
    assert "Read this first" in head
    assert "The test set looks different: AUC 0.90" in head
    assert "The test set looks different: AUC 0.90" in body
