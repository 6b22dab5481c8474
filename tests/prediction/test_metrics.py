import warnings

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score

from cellline.prediction.metrics import bac_interval, balanced_accuracy, percent

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(PAIRS)
def test_balanced_accuracy_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    # scikit-learn warns of predicted classes that don't occur, where its value is the same.
    with warnings.catch_warnings(action="ignore"):
        expected = balanced_accuracy_score(labels, predicted)
    np.testing.assert_allclose(balanced_accuracy(labels, predicted), expected)


def test_a_perfect_classifier_has_its_interval_at_1() -> None:
    labels = np.repeat([0, 1, 2], [5, 3, 2])
    assert bac_interval(labels, labels, np.arange(10)) == (1.0, 1.0)


def test_the_interval_covers_at_the_nominal_rate() -> None:
    """A classifier that is right with probability 0.7, scored on 300 samples, 200 times."""
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        labels = generator.integers(0, 3, 300)
        right = generator.random(300) < 0.7
        predicted = np.where(right, labels, (labels + 1) % 3)
        low, high = bac_interval(labels, predicted, np.arange(300))
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 199


def test_copies_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 100)
    predicted = np.where(generator.random(100) < 0.8, labels, 1 - labels)
    once = bac_interval(labels, predicted, np.arange(100))
    tenfold = bac_interval(np.tile(labels, 10), np.tile(predicted, 10), np.tile(np.arange(100), 10))
    np.testing.assert_allclose(once, tenfold)


def test_scores_are_shown_in_percent() -> None:
    assert percent(0.84215) == "84.2 %"
    assert percent(0.5, (0.412, 0.6)) == "50.0 % [41.2, 60.0]"
