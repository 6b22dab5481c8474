import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from cellline.scoring.decisions import fit_correction, fit_thresholds, likeliest, surprise

PRIOR = np.array([0.6, 0.25, 0.1, 0.05])


def draw(
    n: int, temperature: float, prior_share: float, seed: int = 0, missed: float = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True probabilities, labels drawn from them, and what a network says that departs from them.

    `temperature` and `prior_share` are what a correction of it should find, and `missed` of the
    second class, which gets too little.
    """
    generator = np.random.default_rng(seed)
    labels = generator.choice(4, n, p=PRIOR)
    centres = np.array([[0, 0], [1.5, 0], [0, 1.5], [1.5, 1.5]])
    points = centres[labels] + generator.normal(size=(n, 2))
    log_likelihood = -np.sum((points[:, None] - centres) ** 2, axis=2) / 2
    true = softmax(log_likelihood + np.log(PRIOR), axis=1)
    departed = np.log(true) - prior_share * np.log(PRIOR) - missed * (np.arange(4) == 1)
    given_out = softmax(temperature * departed, axis=1)
    return true, labels, given_out.astype(np.float32)


@pytest.mark.parametrize(("temperature", "share"), [(1, 1), (2, 1), (1.5, 0), (0.7, 0.5)])
def test_what_a_network_got_wrong_is_found(temperature: float, share: float) -> None:
    true, labels, prob = draw(10_000, temperature, share)
    correction = fit_correction(prob, labels)
    assert correction.temperature == pytest.approx(temperature, rel=0.05)
    assert correction.prior_share == pytest.approx(share, abs=0.05)
    np.testing.assert_allclose(correction.prior, PRIOR, atol=0.01)
    decided = correction.apply(prob)
    np.testing.assert_allclose(decided.prob, true, atol=0.03)
    # The best decisions that there are, whatever the network has built in.
    best = (true / PRIOR).argmax(axis=1)
    assert np.mean(decided.predicted == best) > 0.98


def test_a_class_that_the_network_misses_is_decided_more_often() -> None:
    true, labels, prob = draw(10_000, 1, 1, missed=1)
    correction = fit_correction(prob, labels)
    # Less than what is missed, as biases are expected to be small.
    assert 0.5 < correction.bias[1] < 1
    before, after = (
        np.mean(of.predicted[labels == 1] == 1) for of in (likeliest(prob), correction.apply(prob))
    )
    best = np.mean((true / PRIOR).argmax(axis=1)[labels == 1] == 1)
    assert before < best - 0.1
    assert after > best - 0.05


@given(seed=st.integers(0, 99), temperature=st.floats(0.5, 3), share=st.floats(-0.5, 1.5))
@settings(max_examples=12, deadline=None)
def test_a_second_correction_finds_nothing_left(
    seed: int, temperature: float, share: float
) -> None:
    _, labels, prob = draw(10_000, temperature, share, seed)
    once = fit_correction(prob, labels).apply(prob)
    second = fit_correction(once.prob, labels)
    assert second.temperature == pytest.approx(1, abs=1e-3)
    assert second.prior_share == pytest.approx(0, abs=1e-3)
    changed = second.apply(once.prob).predicted != once.predicted
    assert changed.mean() <= 0.004
    assert surprise(labels, once.prob).mean() <= surprise(labels, prob).mean() + 1e-6


@given(
    st.integers(1, 4).flatmap(
        lambda n: arrays(np.float32, (3 * n, 3), elements=st.sampled_from([0, 1e-30, 0.1, 0.3, 1]))
    ),
    st.integers(0, 99),
)
@settings(max_examples=30, deadline=None)
def test_a_correction_loses_nothing_where_it_was_fitted(odds: np.ndarray, seed: int) -> None:
    odds[:, 1] += 1e-6
    prob = odds / odds.sum(axis=1, keepdims=True)
    labels = np.random.default_rng(seed).permutation(np.arange(len(prob)) % 3)
    correction = fit_correction(prob, labels)
    decided = correction.apply(prob)
    assert surprise(labels, decided.prob).mean() <= surprise(labels, prob).mean() + 1e-6
    assert correction.temperature > 0
    np.testing.assert_allclose(decided.prob.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("prob", "labels"),
    [
        ([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [0, 1, 0]),  # always right, wholly sure
        ([[1, 0, 0], [0, 1, 0], [1, 0, 0]], [1, 0, 1]),  # always wrong, wholly sure
        ([[0.2, 0.3, 0.5]] * 4, [0, 0, 0, 0]),  # one class occurs
        ([[1 / 3, 1 / 3, 1 / 3]] * 4, [0, 0, 1, 2]),  # knows nothing
    ],
)
def test_rows_that_leave_it_open_give_probabilities_all_the_same(
    prob: list[list[float]], labels: list[int]
) -> None:
    outputs = np.array(prob, np.float32)
    correction = fit_correction(outputs, np.array(labels))
    assert 0 < correction.temperature < np.inf
    decided = correction.apply(outputs)
    np.testing.assert_allclose(decided.prob.sum(axis=1), 1, rtol=1e-5)
    # Nothing is impossible that happens.
    assert surprise(np.array(labels), decided.prob).mean() < 1.2


def test_a_class_that_is_missing_among_the_rows_can_be_decided() -> None:
    _, labels, prob = draw(300, 1, 0)
    rows = labels != 3
    correction = fit_correction(prob[rows], labels[rows])
    decided = correction.apply(np.eye(4, dtype=np.float32) * 0.96 + 0.01)
    assert decided.predicted.tolist() == [0, 1, 2, 3]
    assert (decided.prob > 0).all()


@given(st.lists(st.integers(0, 3), min_size=5, max_size=60), st.integers(0, 99))
@settings(max_examples=30)
def test_thresholds_decide_for_each_class_as_often_as_it_occurs(
    drawn: list[int], seed: int
) -> None:
    labels = np.array([*drawn, 0, 3])
    prob = np.random.default_rng(seed).dirichlet(np.ones(4), len(labels)).astype(np.float32)
    fitted = fit_thresholds(prob, labels)
    decided = fitted.apply(prob)
    assert list(fitted.cuts) == sorted(fitted.cuts)
    counts = [np.bincount(of, minlength=4) for of in (labels, decided.predicted)]
    np.testing.assert_allclose(*counts, atol=1)
    # The order of the samples is that of their expected class.
    order = np.argsort(prob @ np.arange(4))
    assert (np.diff(decided.predicted[order]) >= 0).all()
