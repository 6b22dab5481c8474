import numpy as np
import pytest

from cellline.audit.reference import (
    Reference,
    measure_leak,
    measure_reference,
    predict_held_out,
)
from cellline.audit.splitting import deal_folds
from cellline.audit.statistics import Part
from cellline.audit.words import describe_reference
from cellline.scoring.recalls import tally

N = 120


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(N) % 3


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def measure(
    statistics: np.ndarray, labels: np.ndarray, group: np.ndarray, n_folds: int
) -> Reference:
    naive, grouped = (deal_folds(labels, which, n_folds, 0) for which in (None, group))
    return measure_reference(Part(statistics, group), labels, naive, grouped, 0.5)


def test_a_leak_is_found_where_copies_are_all_that_helps(labels: np.ndarray) -> None:
    # Rows k and k + 60 are copies; nothing else tells the class.
    found = measure(np.tile(noise(N // 2, 5), (2, 1)), labels, np.arange(N) % (N // 2), 4)
    assert found.naive.value > 0.7 > 0.5 > found.grouped.value
    assert found.difference.value == pytest.approx(found.naive.value - found.grouped.value)
    assert found.difference.low > 0.3
    assert found.leak is not None
    assert found.leak.leaked.value > 0.9
    assert found.leak.n_leaked + found.leak.n_rest == N
    assert found.same_by_groups is not None
    assert found.same_by_groups.leaked.value < 0.5
    lines = describe_reference(found)
    assert lines[0].startswith("a split that ignores copies would flatter")
    assert f"{found.leak.n_leaked} samples with others of their group in another fold" in lines[1]
    assert "50.0 % have others in training" in lines[2]


def test_no_leak_is_found_where_groups_share_nothing(labels: np.ndarray) -> None:
    found = measure(noise(N, 5) + labels[:, None], labels, np.arange(N) // 6, 2)
    assert found.naive.value > 0.5
    [line] = describe_reference(found)
    assert line.startswith("no leak can be detected: a model of image statistics has a balanced")


def test_without_groups_nothing_leaks(labels: np.ndarray) -> None:
    found = measure(noise(N, 5), labels, np.arange(N), 2)
    assert found.leak is None
    assert found.difference.interval == (0, 0)


def test_held_out_labels_teach_nothing(labels: np.ndarray) -> None:
    statistics, fold = noise(N, 4) + labels[:, None], np.arange(N) // 40
    prob = predict_held_out(statistics, labels, fold)
    np.testing.assert_allclose(prob.sum(1), 1)
    changed = np.where(fold == 1, (labels + 1) % 3, labels)
    other = predict_held_out(statistics, changed, fold)
    np.testing.assert_array_equal(other[fold == 1], prob[fold == 1])
    assert not np.array_equal(other[fold == 0], prob[fold == 0])


def test_leaked_samples_are_scored_apart() -> None:
    labels = np.tile([0, 1], 40)
    predicted = labels.copy()
    predicted[40:60] = 0
    leak = measure_leak(labels, tally(labels, predicted, 2), np.arange(80) < 40, np.arange(80) // 2)
    assert leak is not None
    assert (leak.leaked.value, leak.rest.value) == (1, 0.75)
    assert (leak.n_leaked, leak.n_rest) == (40, 40)
    assert leak.rest.low < 0.75 < leak.rest.high
    assert leak.expected(0.5).value == 0.875
    # Independent errors: below their mean.
    assert 0.75 < leak.expected(0.5).low < 0.875 < leak.expected(0.5).high < 1


def test_only_classes_that_both_hold_are_compared() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    leaked = np.array([True, True, False, False, False, False])
    cells = tally(labels, np.array([0, 0, 0, 1, 0, 0]), 2)
    leak = measure_leak(labels, cells, leaked, np.arange(6))
    assert leak is not None
    assert (leak.leaked.value, leak.rest.value, leak.n_rest) == (1, 0.5, 2)
    for nothing in ([False] * 4, [True] * 4, [True, True, False, False]):
        assert measure_leak(labels[2:], cells[2:], np.array(nothing), np.arange(4)) is None
