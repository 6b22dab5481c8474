"""The scores of a run: with and without TTA, by fold, by class."""

from collections.abc import Mapping

import numpy as np

from cellline.report.content import Block, Columns, Figure, Matrix, Section, Table
from cellline.report.figures import draw_intervals
from cellline.runs.predictions import OutOfFold
from cellline.runs.run import Run
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.comparison import compare_predictions
from cellline.scoring.leaderboard import simulate_leaderboard
from cellline.scoring.metrics import Scores, score
from cellline.scoring.recalls import Recall
from cellline.scoring.words import percent, points, with_interval
from cellline.submitting.decision import Expected

# Most classes whose confusion matrix fits on a page (121 make one of 33,000 pixels); of more, the
# worst classes and pairs are shown.
MATRIX_CLASSES, WORST = 30, 20
# A class with fewer effective groups than this has them shown. Its interval is wide.
FEW_GROUPS = 20


def scores_section(run: Run, scores: Scores, expected: Expected, public_share: float) -> Section:
    """BAC for three kinds of samples and on the leaderboard; every score, with and without TTA."""
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
        "The competition is scored by BAC. Accuracy is the share of all samples that are right; "
        "macro F1 also counts what is wrongly taken for a class; log loss is minus the logarithm "
        "of the probability given to the true class: 0 is perfect, and guessing gives "
        f"{np.log(len(run.class_names)):.2f}. Each has its 95 % interval, in which groups of "
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
        oof.labels, expected.decided.predicted[None], oof.group, expected.rate, public_share
    )
    leaderboard = (
        f"Expected on the leaderboard: public {with_interval(board.public[0])}, private "
        f"{with_interval(board.private[0])}, if {100 * public_share:g} % of the test samples are "
        "public and the test set resembles the training set (simulated by groups)."
    )
    blocks = [show_kinds(expected), leaderboard, tta, table, *spread_over_folds(run, scores.bac)]
    return Section("scores", "Scores", blocks)


def show_kinds(expected: Expected) -> Table:
    """BAC for three kinds of samples, each sample by itself and as the rule decides."""
    columns = {"each sample by itself": expected.plain}
    if expected.of_rule:
        columns = {"as decided": expected.of_rule, **columns}
    rows: dict[str, list[Estimate | None]] = {
        "samples as in this test set": [of.like_test for of in columns.values()],
        "each picture counted once": [of.by_picture for of in columns.values()],
        "samples that are alone in their picture": [of.lone for of in columns.values()],
    }
    return Table(
        "Samples that show one picture, such as overlapping crops, are often easier. In the first "
        "row pictures of each size are as frequent as in the test set; the last two say more about "
        "new pictures. No sample here is related to one that its network was trained on, as far "
        "as the audit found."
        + " As decided: by the rule of a submission of this run alone."
        * (len(columns) > 1),
        ("BAC", *columns),
        [
            (name, *(with_interval(of) if of else "none" for of in found))
            for name, found in rows.items()
        ],
    )


def spread_over_folds(run: Run, whole: Estimate) -> list[Block]:
    """The BAC of each finished fold, and the spread that chance alone explains."""
    if len(run.finished) == 1:
        return []
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
            in_words(folds),
        ),
    ]


def classes_section(run: Run, scores: Scores) -> Section:
    """Recall by class, and what is taken for what: all of it, or of many classes the worst."""
    counts = count_confusions(run.oof)
    samples = counts.sum(axis=1)
    groups = [len(set(run.oof.group[run.oof.labels == k])) for k in range(len(samples))]
    many = len(samples) > MATRIX_CLASSES
    order = np.arange(len(samples))
    if many:
        order = np.argsort([one.value for one in scores.recalls], kind="stable")[:WORST]
    recalls = {run.class_names[k]: scores.recalls[k] for k in order}
    lowest = f", the lowest {WORST} of {len(samples)}" if many else ""
    figure = Figure(
        f"Recall by class{lowest}",
        "Recall is the share of a class that is recognized. The dashed line is BAC, the mean of "
        "all: the lowest have the most to gain.",
        draw_intervals("recalls", recalls, "recall, %", scores.bac.value),
        in_words(recalls),
    )
    table = Table(
        "A class of few groups has a wide interval, however many its samples are. Unequal groups "
        f"tell as much as fewer equal ones: below {FEW_GROUPS}, their number is in brackets.",
        ("class", "recall", "samples", "groups"),
        [
            # Whole names: everywhere else long ones are shortened.
            (
                run.competition.classes[k],
                with_interval(scores.recalls[k]),
                f"{samples[k]:,}",
                count_groups(groups[k], scores.recalls[k]),
            )
            for k in order
        ],
        title=f"Samples by class{lowest}",
    )
    confusion = show_pairs(run, counts) if many else show_matrix(run, counts)
    return Section("classes", "Classes", [Columns([figure, table]), confusion])


def count_confusions(oof: OutOfFold) -> np.ndarray:
    """The confusion matrix, int64 [class, predicted class]."""
    counts = np.zeros((oof.prob.shape[1],) * 2, np.int64)
    np.add.at(counts, (oof.labels, oof.predicted), 1)
    return counts


def show_matrix(run: Run, counts: np.ndarray) -> Matrix:
    """The confusion matrix [class, predicted class]."""
    return Matrix(
        "Confusion matrix",
        "A row is a class, a column a prediction; the fuller a cell's colour, the larger its share "
        "of the class. Full cells off the diagonal are the pairs to work on.",
        run.class_names,
        [[(int(n), n / max(row.sum(), 1)) for n in row] for row in counts],
    )


def show_pairs(run: Run, counts: np.ndarray) -> Table:
    """The pairs of a confusion matrix [class, predicted class] that cost the most recall."""
    names = run.class_names
    rows = [
        (names[label], names[taken_for], f"{counts[label, taken_for]:,}", percent(lost))
        for label, taken_for, lost in hardest_pairs(counts)[:WORST]
    ]
    return Table(
        "The pairs to work on.",
        ("class", "taken for", "samples", "share of the class"),
        rows,
        text_columns=frozenset({0, 1}),
        title=f"The {len(rows)} confusions that cost most recall",
    )


def hardest_pairs(counts: np.ndarray) -> list[tuple[int, int, float]]:
    """Class, predicted class and lost recall of confusions, by the recall that they cost."""
    # A class may be absent from the finished folds.
    lost = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.fill_diagonal(lost, 0)
    order = np.argsort(-lost, axis=None, kind="stable")[: np.count_nonzero(lost)]
    pairs = np.stack(np.unravel_index(order, lost.shape), axis=1)
    return [(int(label), int(other), float(lost[label, other])) for label, other in pairs]


def in_words(rows: Mapping[str, Estimate]) -> str:
    """The estimates of a figure, for who can't see it."""
    return "; ".join(f"{name} {with_interval(one)}" for name, one in rows.items()) + "."


def count_groups(groups: int, recall: Recall) -> str:
    """Number of a class's groups, such as '19 (7.6)' where they tell little."""
    if recall.effective_groups >= min(FEW_GROUPS, 0.95 * groups):
        return f"{groups:,}"
    return f"{groups:,} ({recall.effective_groups:.1f})"
