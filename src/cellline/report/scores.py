"""The scores of a run: with and without TTA, by fold, by class."""

import numpy as np

from cellline.report.content import Block, Columns, Figure, Matrix, Section, Table
from cellline.report.figures import draw_intervals
from cellline.runs.run import Run
from cellline.scoring.comparison import compare_predictions
from cellline.scoring.leaderboard import simulate_leaderboard
from cellline.scoring.metrics import (
    Estimate,
    Recall,
    Scores,
    percent,
    points,
    score,
    tally,
    with_interval,
)

# A class with fewer effective groups than this has them shown. Its interval is wide.
FEW_GROUPS = 20


def scores_section(run: Run, scores: Scores, public_share: float) -> Section:
    """Every score with and without TTA, the leaderboard's, and the spread over folds."""
    oof = run.oof
    plain = score(oof.labels, oof.prob_plain, oof.bootstrap)
    gain = compare_predictions(oof.labels, [oof.prob_plain], [oof.prob], oof.bootstrap).bac
    losses = [of.log_loss for of in (scores, plain)]
    rows = [
        ("balanced accuracy (BAC)", with_interval(scores.bac), with_interval(plain.bac)),
        ("accuracy", with_interval(scores.accuracy), with_interval(plain.accuracy)),
        ("macro F1", with_interval(scores.macro_f1), with_interval(plain.macro_f1)),
        ("log loss", *(f"{of.value:.3f} [{of.low:.3f}, {of.high:.3f}]" for of in losses)),
    ]
    table = Table(
        "The competition is scored by BAC. Each value has its 95 % interval, in which groups of "
        "related pictures count as one observation if they are right or wrong together.",
        ("", "with TTA", "without"),
        rows,
    )
    verdict = "a gain" if gain.low > 0 else "a loss" if gain.high < 0 else "which may be chance"
    tta = (
        "Test-time augmentation (TTA) averages over the flips and turns of each image. It "
        f"changes BAC by {points(gain)} points, {verdict}."
    )
    board = simulate_leaderboard(
        oof.labels, oof.predicted[None], oof.group, len(run.competition.test_ids), public_share
    )
    expected = (
        f"Expected on the leaderboard: public {with_interval(board.public[0])}, private "
        f"{with_interval(board.private[0])}, if {100 * public_share:g} % of the test samples are "
        "public and the test set resembles the training set (simulated by groups)."
    )
    return Section("scores", "Scores", [table, expected, tta, *spread_over_folds(run, scores.bac)])


def spread_over_folds(run: Run, whole: Estimate) -> list[Block]:
    """The BAC of each finished fold, and the spread that chance alone explains."""
    if len(run.finished) == 1:
        return ["One fold is finished; two or more show how much folds differ."]
    folds = {f"fold {fold}": run.oof.score(run.oof.fold == fold) for fold in run.finished}
    values = [one.value for one in folds.values()]
    error = np.mean([one.error for one in folds.values()])
    return [
        f"The folds' BAC ranges from {percent(min(values))} to {percent(max(values))}, with a "
        f"standard deviation of {100 * np.std(values, ddof=1):.1f} points. The mean standard error "
        f"of one fold is {100 * error:.1f} points: chance alone explains that much.",
        Figure(
            "BAC by fold",
            "The dashed line is the overall BAC. A fold whose interval is far from it holds other "
            "pictures than the others do, or its training went wrong.",
            draw_intervals("folds", folds, "BAC, %", whole.value),
        ),
    ]


def classes_section(run: Run, scores: Scores) -> Section:
    """Recall by class, and the confusion matrix."""
    counts = tally(run.oof.labels, run.oof.predicted, len(run.class_names)).sum(axis=0)
    samples = counts.sum(axis=1)
    groups = [len(set(run.oof.group[run.oof.labels == k])) for k in range(len(samples))]
    recalls = dict(zip(run.class_names, scores.recalls, strict=True))
    figure = Figure(
        "Recall by class",
        "The dashed line is BAC, their mean: the lowest have the most to gain.",
        draw_intervals("recalls", recalls, "recall, %", scores.bac.value),
    )
    # Whole names: everywhere else long ones are shortened.
    columns = (run.competition.classes, scores.recalls, samples, groups)
    table = Table(
        "A class of few groups has a wide interval, however many its samples are. Unequal groups "
        f"tell as much as fewer equal ones: their number is shown if below {FEW_GROUPS}.",
        ("class", "recall", "samples", "groups"),
        [
            (name, with_interval(r), f"{n:,}", count_groups(g, r))
            for name, r, n, g in zip(*columns, strict=True)
        ],
        title="Samples by class",
    )
    matrix = Matrix(
        "Confusion matrix",
        "A row is a class, a column a prediction; the fuller a cell's colour, the larger its share "
        "of the class. Full cells off the diagonal are the pairs to work on.",
        run.class_names,
        [[(int(n), n / whole) for n in row] for row, whole in zip(counts, samples, strict=True)],
    )
    return Section("classes", "Classes", [Columns([figure, table]), matrix])


def count_groups(groups: int, recall: Recall) -> str:
    """Number of a class's groups, such as '19 (as 7.6 equal ones)' where they tell little."""
    if recall.effective_groups >= min(FEW_GROUPS, 0.95 * groups):
        return f"{groups:,}"
    return f"{groups:,} (as {recall.effective_groups:.1f} equal ones)"
