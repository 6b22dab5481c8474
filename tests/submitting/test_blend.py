import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellline.scoring.metrics import METRICS
from cellline.scoring.recalls import balanced_accuracy
from cellline.submitting.blend import blend, select_runs

BAC = METRICS["balanced_accuracy"]
PROB = arrays(np.float32, (4, 3), elements=st.floats(0, 1, width=32))


@given(PROB, PROB)
def test_a_blend_is_the_mean(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(blend([a]), a)
    np.testing.assert_array_equal(blend([a, b]), blend([b, a]))
    np.testing.assert_allclose(blend([a, b]), (a + b) / 2, atol=1e-7)


@given(PROB, PROB)
def test_weights_are_shares(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(blend([a, b], (0, 1)), b)
    np.testing.assert_array_equal(blend([a, b], (0.5, 0.5)), blend([a, b]))
    np.testing.assert_allclose(blend([a, b], (0.25, 0.75)), a / 4 + 3 * b / 4, atol=1e-7)


def draw(n_runs: int, seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Runs [run, n, class] of differing quality, and labels [n] of three unequal classes."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat([0, 1, 2], [n // 2, n // 3, n - n // 2 - n // 3]))
    logits = generator.normal(size=(n_runs, n, 3))
    logits[:, np.arange(n), labels] += generator.uniform(0, 2, size=(n_runs, 1))
    powers = np.exp(logits)
    return (powers / powers.sum(axis=2, keepdims=True)).astype(np.float32), labels


def bac(prob: np.ndarray, labels: np.ndarray) -> float:
    return balanced_accuracy(labels, prob.argmax(axis=1))


@given(st.integers(2, 5), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_no_single_run_is_better_where_it_was_fitted(n_runs: int, seed: int) -> None:
    prob, labels = draw(n_runs, seed)
    weights = select_runs(prob, labels, BAC)
    assert min(weights) >= 0
    assert sum(weights) == pytest.approx(1)
    best = max(bac(of_run, labels) for of_run in prob)
    assert bac(blend(prob, weights), labels) >= best


@given(st.integers(2, 4), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_the_order_of_samples_and_of_runs_does_not_matter(n_runs: int, seed: int) -> None:
    prob, labels = draw(n_runs, seed)
    weights = select_runs(prob, labels, BAC)
    samples = np.random.default_rng(seed).permutation(len(labels))
    assert select_runs(prob[:, samples], labels[samples], BAC) == weights
    assert select_runs(prob[::-1], labels, BAC) == weights[::-1]


def test_runs_that_know_different_things_are_both_taken() -> None:
    labels = np.repeat([0, 1, 2], 10)
    sure = np.eye(3, dtype=np.float32)[labels] * 0.9 + 0.1 / 3
    first, second = sure.copy(), sure.copy()
    # Each confuses the last class with another, but weakly.
    first[labels == 2] = [0.4, 0.25, 0.35]
    second[labels == 2] = [0.25, 0.4, 0.35]
    assert select_runs(np.stack([first, second]), labels, BAC) == (0.5, 0.5)


def test_shares_are_found_that_take_several_rounds() -> None:
    labels = np.repeat([0, 1], 10)
    first, second = np.empty((2, 20), np.float32)
    # Class 0 is right from a share of 0.6 of the first run, class 1 up to 0.7.
    first[:10], second[:10] = 0.7, 0.2
    first[10:], second[10:] = 0.65, 0.15
    both = np.stack([np.stack([of_run, 1 - of_run], axis=1) for of_run in (first, second)])
    assert 0.6 < select_runs(both, labels, BAC)[0] < 0.7


def test_the_rare_class_counts_as_much_as_the_frequent_one() -> None:
    labels = np.repeat([0, 1], [90, 10])
    frequent, rare = np.empty((2, 100, 2), np.float32)
    frequent[:] = [0.9, 0.1]
    # Right about all of the rare class, wrong about a third of the frequent one.
    rare[:] = [0.6, 0.4]
    rare[:30] = rare[90:] = [0.03, 0.97]
    # By accuracy the frequent class's run would be taken alone.
    both = np.stack([frequent, rare])
    assert bac(blend(both, select_runs(both, labels, BAC)), labels) == pytest.approx(5 / 6)


def test_of_equally_right_runs_the_likelier_is_taken() -> None:
    labels = np.array([0, 0, 1, 1])
    unsure = np.where(np.eye(2)[labels] == 1, 0.6, 0.4)
    sure = np.where(np.eye(2)[labels] == 1, 0.9, 0.1)
    assert select_runs(np.stack([unsure, sure]).astype(np.float32), labels, BAC) == (0.0, 1.0)
