import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    recall_score,
)

from cellline.scoring.metrics import (
    Bootstrap,
    Estimate,
    bac_of,
    balanced_accuracy,
    percent,
    points,
    score,
    tally,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


def bac_interval(labels: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Estimate:
    cells = tally(labels, predicted, int(max(labels.max(), predicted.max())) + 1)
    return Bootstrap(groups).estimate(bac_of, cells)


@given(PAIRS)
def test_balanced_accuracy_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    # scikit-learn warns of predicted classes that don't occur, where its value is the same.
    with warnings.catch_warnings(action="ignore"):
        expected = balanced_accuracy_score(labels, predicted)
    np.testing.assert_allclose(balanced_accuracy(labels, predicted), expected)
    np.testing.assert_allclose(bac_of(tally(labels, predicted, 5).sum(0)), expected)


@given(PAIRS, st.integers(0, 9))
def test_the_other_scores_are_scikit_learns(pairs: list[tuple[int, int]], seed: int) -> None:
    labels = np.array([label for label, _ in pairs] + [0, 1, 2, 3, 4])
    prob = np.random.default_rng(seed).dirichlet(np.ones(5), len(labels)).astype(np.float32)
    predicted = prob.argmax(1)
    scores = score(labels, prob, Bootstrap(np.arange(len(labels))))
    for ours, expected in (
        (scores.bac, balanced_accuracy_score(labels, predicted)),
        (scores.accuracy, accuracy_score(labels, predicted)),
        (scores.macro_f1, f1_score(labels, predicted, average="macro")),
        (scores.log_loss, log_loss(labels, prob)),
        *zip(scores.recalls, recall_score(labels, predicted, average=None), strict=True),
    ):
        np.testing.assert_allclose(ours.value, expected, rtol=1e-5)
        assert ours.low <= ours.high


@given(PAIRS, st.integers(1, 8))
def test_a_perfect_classifier_has_every_interval_at_1(
    pairs: list[tuple[int, int]], n_groups: int
) -> None:
    labels = np.unique([label for label, _ in pairs], return_inverse=True)[1]
    prob = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    scores = score(labels, prob, Bootstrap(np.arange(len(labels)) % n_groups))
    for ours in (scores.bac, scores.accuracy, scores.macro_f1, *scores.recalls):
        assert (ours.low, ours.value, ours.high, ours.error) == (1, 1, 1, 0)
    assert scores.log_loss.value == 0


def test_the_interval_covers_at_the_nominal_rate() -> None:
    """A classifier that is right with probability 0.7: 100 times 200 samples."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        labels = generator.integers(0, 3, 200)
        wrong = (labels + generator.integers(1, 3, 200)) % 3
        predicted = np.where(generator.random(200) < 0.7, labels, wrong)
        low, high = bac_interval(labels, predicted, np.arange(200)).interval
        covered += low <= 0.7 <= high
    # 95 of 100, give or take three standard errors, and never all of them.
    assert 88 <= covered <= 99


def test_copies_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 100)
    predicted = np.where(generator.random(100) < 0.8, labels, 1 - labels)
    once = bac_interval(labels, predicted, np.arange(100))
    tenfold = bac_interval(np.tile(labels, 10), np.tile(predicted, 10), np.tile(np.arange(100), 10))
    np.testing.assert_allclose(once.interval, tenfold.interval)
    assert once.high - once.low > 0.1


def test_scores_are_shown_in_percent() -> None:
    assert percent(0.84215) == "84.2 %"
    assert percent(0.5, (0.412, 0.6)) == "50.0 % [41.2, 60.0]"
    assert points(Estimate(0.018, 0.004, 0.032, 0.01)) == "+1.8 [0.4, 3.2]"
    # Enough digits to show on which side of 0 the interval ends.
    assert points(Estimate(0.018, 0.0004, 0.032, 0.01)) == "+1.80 [0.04, 3.20]"
