from dataclasses import astuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import recall_score

from cellline.scoring.recalls import bac_of, balanced_accuracy, score_recalls, tally

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(PAIRS)
def test_recalls_are_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array([*pairs, *((k, 0) for k in range(5))]).T
    found = score_recalls(labels, predicted, np.arange(len(labels)), 5)
    expected = recall_score(labels, predicted, average=None)
    np.testing.assert_allclose([one.value for one in found], expected)
    cells = tally(labels, predicted, 5).sum(0)
    np.testing.assert_allclose(bac_of(cells), balanced_accuracy(labels, predicted))


def test_copies_do_not_narrow_the_interval() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 100)
    predicted = np.where(generator.random(100) < 0.8, labels, 1 - labels)
    once = score_recalls(labels, predicted, np.arange(100), 2)
    tenfold = score_recalls(*(np.tile(a, 10) for a in (labels, predicted, np.arange(100))), 2)
    for one, other in zip(once, tenfold, strict=True):
        np.testing.assert_allclose(astuple(one), astuple(other))
        assert one.high - one.low > 0.1


@given(PAIRS, st.integers(1, 8), st.integers(0, 9))
def test_a_weight_of_0_leaves_a_sample_out(
    pairs: list[tuple[int, int]], n_groups: int, seed: int
) -> None:
    labels, predicted = np.array(pairs).T
    groups = np.arange(len(labels)) % n_groups
    kept = np.random.default_rng(seed).random(len(labels)) < 0.7
    found = score_recalls(labels, predicted, groups, 5, kept * 0.3)
    # An absent class has no value.
    assert [np.isfinite(of.value) for of in found] == [k in labels[kept] for k in range(5)]
    if kept.any():
        alone = score_recalls(labels[kept], predicted[kept], groups[kept], 5)
        for one, other in zip(found, alone, strict=True):
            np.testing.assert_allclose(astuple(one), astuple(other), atol=1e-6)
