"""The scores of a run: all of them with and without TTA, by fold, by class."""

from typing import TYPE_CHECKING

import numpy as np

from cellline.report.content import Columns, Figure, Matrix, Section, Table, Text
from cellline.report.figures import draw_intervals
from cellline.runs.run import Run
from cellline.scoring.comparison import compare_predictions
from cellline.scoring.metrics import (
    Estimate,
    Scores,
    percent,
    points,
    score,
    tally,
    with_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def score_run(run: Run) -> Scores:
    """The scores of the out-of-fold predictions, averaged over views."""
    return score(run.oof.labels, run.oof.prob, run.oof.bootstrap)


def scores_section(run: Run, scores: Scores) -> Section:
    """Every score with and without TTA, what TTA gains, and the spread over folds."""
    plain = score(run.oof.labels, run.oof.prob_plain, run.oof.bootstrap)
    gain = compare_predictions(
        run.oof.labels, run.oof.prob_plain, run.oof.prob, run.oof.bootstrap
    ).bac
    kinds: tuple[tuple[str, Callable[[Scores], Estimate], Callable[[Estimate], str]], ...] = (
        ("balanced accuracy (BAC)", lambda of: of.bac, with_interval),
        ("accuracy", lambda of: of.accuracy, with_interval),
        ("macro F1", lambda of: of.macro_f1, with_interval),
        ("log loss", lambda of: of.log_loss, with_decimals),
    )
    return Section(
        "scores",
        "Scores",
        [
            Table(
                "BAC is what the competition counts; each value has its 95 % interval, from a "
                "bootstrap over groups of related pictures.",
                ("", "with TTA", "without"),
                [(name, show(of(scores)), show(of(plain))) for name, of, show in kinds],
            ),
            Text(
                "Test-time augmentation (TTA), which averages over the flips and turns of each "
                f"image, gains {points(gain)} points of BAC. {judge(gain)}"
            ),
            *spread_over_folds(run, scores.bac),
        ],
    )


def with_decimals(value: Estimate) -> str:
    """Such as '0.955 [0.846, 1.071]'."""
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def judge(gain: Estimate) -> str:
    """What an interval of a gain says, in words."""
    if gain.low > 0:
        return "It helps: the interval is above 0."
    if gain.high < 0:
        return "It harms: the interval is below 0."
    return "The interval holds 0: whether it helps can't be told from these samples."


def spread_over_folds(run: Run, whole: Estimate) -> list[Text | Figure]:
    """The BAC of each finished fold; nothing where there is one alone."""
    if len(run.finished) == 1:
        return [Text("One fold is finished: how much folds differ can be told from two on.")]
    of_folds = [run.oof.score(run.oof.fold == fold) for fold in run.finished]
    values = [one.value for one in of_folds]
    rows = [f"fold {fold}" for fold in run.finished]
    return [
        Text(
            f"The folds' BAC goes from {percent(min(values))} to {percent(max(values))}, with a "
            f"standard deviation of {100 * np.std(values, ddof=1):.1f} points; the mean standard "
            f"error of one fold is {100 * np.mean([one.error for one in of_folds]):.1f} points, "
            "so that much is expected of chance alone."
        ),
        Figure(
            "BAC by fold",
            "A fold far from the others, beyond its interval, holds other pictures than they do, "
            "or its training went wrong.",
            draw_intervals(
                "folds",
                rows,
                "fold",
                of_folds,
                "BAC, %",
                line=(whole.value, "all folds"),
            ),
        ),
    ]


def classes_section(run: Run, scores: Scores) -> Section:
    """Recall by class, and what is taken for what."""
    counts = tally(run.oof.labels, run.oof.predicted, len(run.class_names)).sum(axis=0)
    shares = counts / counts.sum(axis=1, keepdims=True)
    groups = [
        len(np.unique(run.oof.group[run.oof.labels == k])) for k in range(len(run.class_names))
    ]
    return Section(
        "classes",
        "Classes",
        [
            Columns(
                [
                    Figure(
                        "Recall by class",
                        "The BAC is the mean of these: the lowest have the most to gain.",
                        draw_intervals(
                            "recalls",
                            run.class_names,
                            "recall",
                            scores.recalls,
                            "recall, %",
                            line=(scores.bac.value, "BAC, their mean"),
                        ),
                    ),
                    Table(
                        "A class of few groups has a wide interval, however many its samples are; "
                        "where all of a few come out alike, one that is too narrow.",
                        ("class", "recall", "samples", "groups"),
                        [
                            (name, with_interval(recall), f"{samples:,}", f"{n_groups:,}")
                            # Whole: elsewhere long names are shortened.
                            for name, recall, samples, n_groups in zip(
                                run.competition.classes,
                                scores.recalls,
                                counts.sum(axis=1),
                                groups,
                                strict=True,
                            )
                        ],
                        title="Samples by class",
                    ),
                ]
            ),
            Matrix(
                "Confusion matrix",
                "A row is a class, a column what its samples were taken for; the fuller a cell's "
                "colour, the larger its share of the class. Full cells off the diagonal are the "
                "pairs to work on.",
                run.class_names,
                [
                    [(int(count), float(share)) for count, share in zip(*row, strict=True)]
                    for row in zip(counts, shares, strict=True)
                ],
            ),
        ],
    )
