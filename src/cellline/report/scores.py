"""The scores of a run: with and without TTA, by fold, by class."""

from collections.abc import Callable, Mapping

import numpy as np

from cellline.config import MetricName
from cellline.report.content import Block, Columns, Figure, Matrix, Section, Table
from cellline.report.figures import axis_of, draw_intervals
from cellline.report.words import sentence
from cellline.runs.predictions import OutOfFold
from cellline.runs.run import Run
from cellline.scoring.bootstrap import Estimate
from cellline.scoring.comparison import compare_predictions
from cellline.scoring.decisions import likeliest
from cellline.scoring.leaderboard import SimulatedTests, simulate_leaderboard
from cellline.scoring.metrics import METRICS, Metric
from cellline.scoring.recalls import Recall, mean_recall
from cellline.scoring.words import percent, with_interval
from cellline.submitting.decision import Expected

# Most classes whose confusion matrix fits on a page (121 make one of 33,000 pixels); of more, the
# worst classes and pairs are shown.
MATRIX_CLASSES, WORST = 30, 20
# A class with fewer effective groups than this has them shown. Its interval is wide.
FEW_GROUPS = 20
# Metrics shown beside the competition's: name of the row, and meaning.
OTHERS: Mapping[MetricName, tuple[str, str]] = {
    "balanced_accuracy": ("balanced accuracy", "is the mean recall of the classes"),
    "accuracy": ("accuracy", "is the share of all samples that are right"),
    "macro_f1": ("macro F1", "also counts what is wrongly taken for a class"),
    "log_loss": (
        "log loss",
        "is minus the logarithm of the probability given to the true class: 0 is perfect",
    ),
}


def scores_section(run: Run, expected: Expected, public_share: float) -> Section:
    """Scores for three kinds of samples and on the leaderboard, by other metrics, and by fold."""
    metric, oof = run.folds.metric, run.oof
    has_test = len(run.competition.test_ids) > 0
    blocks: list[Block] = [show_kinds(metric, expected, has_test)]
    if has_test:
        tests = SimulatedTests(oof.group, expected.rate, public_share)
        board = simulate_leaderboard(metric, oof.labels, [expected.decided], tests)
        blocks.append(
            f"Expected on the leaderboard: public {metric.show(board.public[0])}, private "
            f"{metric.show(board.private[0])}, if {100 * public_share:g} % of the test samples are "
            "public and the test set resembles the training set (simulated by groups)."
        )
    found = compare_predictions(metric, oof.labels, [oof.prob_plain], [oof.prob], oof.bootstrap)
    gain = found.gain
    verdict = "which may be chance"
    if found.is_clear:
        verdict = "a gain" if gain.value > 0 else "a loss"
    blocks.append(
        "Test-time augmentation (TTA) averages over the views of each image (symmetry "
        f"{run.settings['symmetry']}). Its gain in {metric.title} is {metric.show_gain(gain)}, "
        f"{verdict}."
    )
    return Section("scores", "Scores", [*blocks, show_metrics(run), *spread_over_folds(run)])


def show_metrics(run: Run) -> Table:
    """The score by the competition's metric, then by others, with and without TTA."""
    metric, oof = run.folds.metric, run.oof
    others = {name: words for name, words in OTHERS.items() if name != metric.name}
    named = {metric: metric.title, **{METRICS[name]: row for name, (row, _) in others.items()}}
    sides = [oof.decided, likeliest(oof.prob_plain)]
    rows = [
        (name, *(each.show(each.estimate(oof.labels, side, oof.bootstrap)) for side in sides))
        for each, name in named.items()
    ]
    meanings = "; ".join(f"{row} {meaning}" for row, meaning in others.values())
    if "log_loss" in others:
        guess = METRICS["log_loss"].guess(oof.labels)
        meanings += f", and guessing the classes' frequencies gives {guess:.3f}"
    return Table(
        f"The competition is scored by {metric.title}. {sentence(meanings)} Each has its 95 % "
        "interval, in which groups of related pictures count as one observation if they are right "
        "or wrong together.",
        ("", "with TTA", "without"),
        rows,
    )


def show_kinds(metric: Metric, expected: Expected, has_test: bool) -> Table:
    """Scores for three kinds of samples, each sample by itself and as the rule decides."""
    columns = {"each sample by itself": expected.plain}
    if expected.of_rule:
        columns = {"as decided": expected.of_rule, **columns}
    every = "samples as in this test set" if has_test else "all samples"
    rows: dict[str, list[Estimate | None]] = {
        every: [of.like_test for of in columns.values()],
        "each picture counted once": [of.by_picture for of in columns.values()],
        "samples that are alone in their picture": [of.lone for of in columns.values()],
    }
    return Table(
        "Samples that show one picture, such as overlapping crops, are often easier. "
        + "In the first row pictures of each size are as frequent as in the test set; " * has_test
        + ("the" if has_test else "The")
        + " last two say more about new pictures. No sample here is related to one that its "
        "network was trained on, as far as the audit found."
        + " As decided: by the rule of a submission of this run alone."
        * (len(columns) > 1),
        (metric.title, *columns),
        [
            (name, *(metric.show(of) if of else "none" for of in found))
            for name, found in rows.items()
        ],
    )


def spread_over_folds(run: Run) -> list[Block]:
    """The score of each finished fold, and the spread that chance alone explains."""
    metric = run.folds.metric
    folds = {f"fold {fold}": run.oof.score(run.oof.fold == fold) for fold in run.finished}
    # A fold may have no score, such as the ROC AUC of a single class.
    folds = {name: score for name, score in folds.items() if np.isfinite(score.value)}
    if len(folds) < 2:
        return []
    values = [one.value for one in folds.values()]
    deviation, error = np.std(values, ddof=1), np.mean([one.error for one in folds.values()])
    axis, factor = axis_of(metric)
    whole = metric.score(run.oof.labels, run.oof.decided)
    return [
        f"The folds' {metric.title} ranges from {metric.show(min(values))} to "
        f"{metric.show(max(values))}, with a standard deviation of "
        f"{metric.show_spread(float(deviation))}. The mean standard error of one fold is "
        f"{metric.show_spread(float(error))}: chance alone explains that much.",
        Figure(
            "Score by fold",
            f"The dashed line is the overall {metric.title}. A fold whose interval is far from it "
            "holds other pictures than the others do, or its training went wrong.",
            draw_intervals("folds", folds, axis, whole, factor),
            in_words(folds, metric.show),
        ),
    ]


def classes_section(run: Run) -> Section:
    """Recall by class, and what is taken for what: all of it, or of many classes the worst."""
    all_recalls = run.oof.score_recalls()
    counts = count_confusions(run.oof)
    samples = counts.sum(axis=1)
    groups = [len(set(run.oof.group[run.oof.labels == k])) for k in range(len(samples))]
    many = len(samples) > MATRIX_CLASSES
    order = np.arange(len(samples))
    if many:
        order = np.argsort([one.value for one in all_recalls], kind="stable")[:WORST]
    recalls = {run.class_names[k]: all_recalls[k] for k in order}
    lowest = f", the lowest {WORST} of {len(samples)}" if many else ""
    figure = Figure(
        f"Recall by class{lowest}",
        "Recall is the share of a class that is recognized. The dashed line is the mean of all: "
        "the lowest have the most to gain.",
        draw_intervals("recalls", recalls, "recall, %", mean_recall(all_recalls).value),
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
                with_interval(all_recalls[k]),
                f"{samples[k]:,}",
                count_groups(groups[k], all_recalls[k]),
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
        [[(int(n), n / row.sum()) for n in row] for row in counts],
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
    lost = counts / counts.sum(axis=1, keepdims=True)
    np.fill_diagonal(lost, 0)
    order = np.argsort(-lost, axis=None, kind="stable")[: np.count_nonzero(lost)]
    pairs = np.stack(np.unravel_index(order, lost.shape), axis=1)
    return [(int(label), int(other), float(lost[label, other])) for label, other in pairs]


def in_words(rows: Mapping[str, Estimate], show: Callable[[Estimate], str] = with_interval) -> str:
    """The estimates of a figure in words, for a reader who can't see it."""
    return "; ".join(f"{name} {show(one)}" for name, one in rows.items()) + "."


def count_groups(groups: int, recall: Recall) -> str:
    """Number of a class's groups, such as '19 (7.6)' where they tell little."""
    if recall.effective_groups >= min(FEW_GROUPS, 0.95 * groups):
        return f"{groups:,}"
    return f"{groups:,} ({recall.effective_groups:.1f})"
