import warnings
from dataclasses import astuple

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
    score_recalls,
    tally,
)

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


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
def test_a_perfect_classifier_scores_1_and_may_be_imperfect(
    pairs: list[tuple[int, int]], n_groups: int
) -> None:
    labels = np.unique([label for label, _ in pairs], return_inverse=True)[1]
    prob = np.eye(labels.max() + 1, dtype=np.float32)[labels]
    scores = score(labels, prob, Bootstrap(np.arange(len(labels)) % n_groups))
    for ours in (scores.bac, *scores.recalls):
        assert 0 <= ours.low < ours.value == ours.high == 1
    assert scores.accuracy.value == scores.macro_f1.value == 1
    assert scores.log_loss.value == 0


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


def test_scores_are_shown_in_percent() -> None:
    assert percent(0.84215) == "84.2 %"
    assert percent(0.5, (0.412, 0.6)) == "50.0 % [41.2, 60.0]"
    assert points(Estimate(0.018, 0.004, 0.032, 0.01)) == "+1.8 [0.4, 3.2]"
    # Enough digits to show on which side of 0 the interval ends.
    assert points(Estimate(0.018, 0.0004, 0.032, 0.01)) == "+1.80 [0.04, 3.20]"
