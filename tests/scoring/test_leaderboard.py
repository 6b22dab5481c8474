import numpy as np
import pytest

from cellline.config import MetricName
from cellline.scoring.decisions import Decided, likeliest
from cellline.scoring.leaderboard import SimulatedTests, simulate_leaderboard
from cellline.scoring.metrics import METRICS

BAC = METRICS["balanced_accuracy"]


def decide(predicted: np.ndarray) -> Decided:
    return Decided(np.eye(3, dtype=np.float32)[predicted], predicted)


def predict(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.where(right, labels, (labels + 1) % 3)


def test_it_agrees_with_test_sets_that_are_drawn_one_by_one() -> None:
    """Truth: groups of four samples, right in 80 % and 77 % of the cases, alike in a group."""
    generator = np.random.default_rng(0)

    def draw(n_groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        group = np.repeat(np.arange(n_groups), 4)
        labels = group % 3
        first = (generator.random(n_groups) < 0.8)[group]
        second = np.where(generator.random(len(group)) < 0.15, ~first, first)
        return labels, np.stack([predict(first, labels), predict(second, labels)]), group

    # Sets of out-of-fold predictions; intervals foretell a test set from the same source.
    held, swaps, foretold = 0, 0.0, 0.0
    for _ in range(20):
        labels, predicted, group = draw(300)
        tests = SimulatedTests(group, np.full(len(labels), 400 / len(labels)), 0.3)
        board = simulate_leaderboard(BAC, labels, [*map(decide, predicted)], tests)
        foretold += board.swap
        test_labels, test_predicted, _ = draw(300)
        # A third of each group's samples, of these 30 % on the public board.
        part_of = generator.choice(3, 1200, p=[0.1, 0.7 / 3, 2 / 3])
        scores = []
        for part in (part_of == 0, part_of == 1):
            right = test_predicted == test_labels
            scores.append(
                [np.mean([r[part & (test_labels == k)].mean() for k in range(3)]) for r in right]
            )
        held += board.private[0].low <= scores[1][0] <= board.private[0].high
        swaps += (scores[0][1] - scores[0][0]) * (scores[1][1] - scores[1][0]) < 0
        assert board.public[0].error > board.private[0].error
    assert held >= 17
    assert abs(swaps - foretold) < 6


def test_alike_submissions_never_change_places() -> None:
    labels = np.arange(60) % 3
    tests = SimulatedTests(np.arange(60), np.full(60, 1.5), 0.5)
    board = simulate_leaderboard(BAC, labels, [decide(labels)] * 2, tests)
    assert (board.ahead_public, board.ahead_private, board.swap) == (0, 0, 0)
    assert board.public[1].value == board.private[1].high == 1


@pytest.mark.parametrize(
    ("name", "n_classes"), [("log_loss", 3), ("roc_auc", 2), ("quadratic_kappa", 5), ("map5", 7)]
)
def test_the_better_run_by_the_metric_is_ahead(name: MetricName, n_classes: int) -> None:
    metric, labels = METRICS[name], np.arange(300) % n_classes
    weak, strong = (
        likeliest((noise + sure * np.eye(n_classes)[labels]) / (1 + sure))
        for noise, sure in zip(
            np.random.default_rng(0).dirichlet(np.ones(n_classes), (2, 300)),
            (0.2, 0.5),
            strict=True,
        )
    )
    tests = SimulatedTests(np.arange(300), np.ones(300), 0.3)
    board = simulate_leaderboard(metric, labels, [weak, strong], tests)
    assert board.ahead_private >= board.ahead_public > 0.9
    scores = [score.value for score in board.private]
    assert scores == pytest.approx([metric.score(labels, of) for of in (weak, strong)])
    assert all(of.low < of.value < of.high for of in board.public)
    # Some parts of three test samples are empty or of one class.
    few = SimulatedTests(np.arange(300), np.full(300, 0.01), 0.5)
    board = simulate_leaderboard(metric, labels, [weak, strong], few)
    assert 0 < board.ahead_public < 0.9
    assert np.isfinite([of.interval for of in (*board.public, *board.private)]).all()
