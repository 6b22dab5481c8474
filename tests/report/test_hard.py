import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellline.report.hard import hardest_pairs, most_confident_errors
from cellline.scoring.metrics import balanced_accuracy

# A's first three samples are one picture; what is said of C is right.
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
GROUPS = np.array([7, 7, 7, 3, 4, 5, 6, 6])
PROB = np.array(
    [
        [0.1, 0.8, 0.1],
        [0.0, 0.9, 0.1],
        [0.3, 0.3, 0.4],
        [0.9, 0.1, 0.0],
        [0.0, 0.3, 0.7],
        [0.2, 0.6, 0.2],
        [0.0, 0.0, 1.0],
        [0.1, 0.1, 0.8],
    ]
)


def test_the_most_confident_errors_show_a_picture_once() -> None:
    assert most_confident_errors(LABELS, PROB, GROUPS, 5).tolist() == [1, 4]
    assert most_confident_errors(LABELS, PROB, np.arange(8), 3).tolist() == [1, 0, 4]


def test_pairs_are_ranked_by_the_recall_that_they_cost() -> None:
    """B is mistaken once and A three times, but once is half of all B."""
    pairs = hardest_pairs(LABELS, PROB, GROUPS, 9)
    assert [(pair.label, pair.taken_for, pair.count, pair.share) for pair in pairs] == [
        (0, 1, 2, 0.5),
        (1, 2, 1, 0.5),
        (0, 2, 1, 0.25),
    ]
    assert [pair.rows.tolist() for pair in pairs] == [[1], [4], [2]]
    [hardest] = hardest_pairs(LABELS, PROB, np.arange(8), 1)
    assert hardest.rows.tolist() == [1, 0]


def test_without_errors_there_is_nothing_to_show() -> None:
    prob = np.eye(3)[LABELS]
    assert most_confident_errors(LABELS, prob, GROUPS, 5).tolist() == []
    assert hardest_pairs(LABELS, prob, GROUPS, 5) == []


@given(st.integers(0, 10_000), st.integers(1, 60), st.integers(2, 5), st.integers(1, 60))
def test_nothing_worse_is_left_out(seed: int, n: int, n_classes: int, n_groups: int) -> None:
    generator = np.random.default_rng(seed)
    labels = np.append(generator.integers(0, n_classes, n), np.arange(n_classes))
    prob = generator.dirichlet(np.ones(n_classes), len(labels))
    groups = generator.integers(0, n_groups, len(labels))
    predicted, confidence = prob.argmax(1), prob.max(1)

    shown = most_confident_errors(labels, prob, groups, 4)
    assert np.all(predicted[shown] != labels[shown])
    assert np.all(np.diff(confidence[shown]) <= 0)
    assert len(np.unique(groups[shown])) == len(shown)
    left_out = (predicted != labels) & ~np.isin(groups, groups[shown])
    if len(shown) < 4:
        assert not left_out.any()
    else:
        assert np.all(confidence[left_out] <= confidence[shown].min())

    pairs = hardest_pairs(labels, prob, groups, n_classes**2)
    shares = [pair.share for pair in pairs]
    assert shares == sorted(shares, reverse=True)
    lost = 1 - balanced_accuracy(labels, predicted)
    assert sum(shares) / n_classes == pytest.approx(lost, abs=1e-12)
    for pair in pairs:
        assert np.all(labels[pair.rows] == pair.label)
        assert np.all(predicted[pair.rows] == pair.taken_for)
        assert np.all(np.diff(confidence[pair.rows]) <= 0)
        of_pair = (labels == pair.label) & (predicted == pair.taken_for)
        assert pair.count == of_pair.sum()
        assert set(groups[pair.rows]) == set(groups[of_pair])
        assert len(set(groups[pair.rows])) == len(pair.rows)
